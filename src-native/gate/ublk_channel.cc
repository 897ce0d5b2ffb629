#include "gate/ublk_channel.h"

#include <linux/ublk_cmd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "base/assert.h"
#include "base/limits.h"

namespace hast {

namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kMapBytes = round_up(kUblkDepth * sizeof(ublksrv_io_desc), kPage);

// As drivers since Linux 6.4 number them, and the headers of older kernels do not.
constexpr uint32_t kFetch = _IOWR('u', UBLK_IO_FETCH_REQ, ublksrv_io_cmd);
constexpr uint32_t kCommitAndFetch = _IOWR('u', UBLK_IO_COMMIT_AND_FETCH_REQ, ublksrv_io_cmd);

/// Where the data of a request are on /dev/ublkcN: 32 MiB for each tag of queue 0.
off_t data_at(uint32_t tag) {
  constexpr uint32_t kTagShift = 25;
  return static_cast<off_t>(UBLKSRV_IO_BUF_OFFSET + (uint64_t{tag} << kTagShift));
}

}  // namespace

std::unique_ptr<RingUblkChannel> RingUblkChannel::open(Ring& ring, int fd) {
  void* const map =
      mmap(nullptr, kMapBytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, UBLKSRV_CMD_BUF_OFFSET);
  if (map == MAP_FAILED) {
    const int error = errno;
    ::close(fd);
    errno = error;
    return nullptr;
  }
  ring.register_file(fd);
  return std::unique_ptr<RingUblkChannel>(
      new RingUblkChannel(ring, fd, static_cast<const ublksrv_io_desc*>(map)));
}

RingUblkChannel::~RingUblkChannel() {
  munmap(const_cast<ublksrv_io_desc*>(requests_), kMapBytes);
  ::close(fd_);
}

uint32_t RingUblkChannel::depth() const { return kUblkDepth; }

void RingUblkChannel::fetch(Completion& done, uint32_t tag) { send(done, kFetch, tag, 0); }

void RingUblkChannel::commit(Completion& done, uint32_t tag, int32_t result) {
  send(done, kCommitAndFetch, tag, result);
}

void RingUblkChannel::send(Completion& done, uint32_t operation, uint32_t tag, int32_t result) {
  ublksrv_io_cmd command = {};
  command.tag = static_cast<uint16_t>(tag);
  command.result = result;
  ring_.command(done, fd_, operation, std::as_bytes(std::span(&command, 1)));
}

UblkRequest RingUblkChannel::request(uint32_t tag) const {
  const ublksrv_io_desc& from = requests_[tag];
  UblkRequest request;
  request.known = true;
  request.fua = (from.op_flags & UBLK_IO_F_FUA) != 0;
  request.offset = from.start_sector * kSector;
  request.length = from.nr_sectors * kSector;
  switch (ublksrv_get_op(&from)) {
    case UBLK_IO_OP_READ:
      request.op = RequestOp::kRead;
      break;
    case UBLK_IO_OP_WRITE_ZEROES:
      request.zeroes = true;
      [[fallthrough]];
    case UBLK_IO_OP_WRITE:
      request.op = RequestOp::kWrite;
      break;
    case UBLK_IO_OP_DISCARD:
      request.op = RequestOp::kDelete;
      break;
    case UBLK_IO_OP_FLUSH:
      request.op = RequestOp::kFlush;
      request.offset = 0;
      request.length = 0;
      break;
    default:
      request.known = false;
  }
  return request;
}

bool RingUblkChannel::take(uint32_t tag, Bytes into) {
  return pread(fd_, into.data(), into.size(), data_at(tag)) == static_cast<ssize_t>(into.size());
}

bool RingUblkChannel::give(uint32_t tag, ConstBytes from) {
  return pwrite(fd_, from.data(), from.size(), data_at(tag)) == static_cast<ssize_t>(from.size());
}

}  // namespace hast
