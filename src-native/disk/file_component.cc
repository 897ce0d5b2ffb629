#include "disk/file_component.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/assert.h"
#include "base/limits.h"

namespace hast {

namespace {

constexpr uint32_t kOperations = kRequestsMax * 2 + 32;  // requests, map, metadata, flushes
constexpr uint32_t kBounces = 4;
constexpr uint64_t kBounceBytes = 256u << 10;
constexpr uint32_t kGranuleBytesMax = 64u << 10;
constexpr std::size_t kTransferBytesMax = 1u << 30;
constexpr uint32_t kAgainMax = 16;

// ---- Probing
// ---------------------------------------------------------------------------------------

/// Whether a block device can make zeroes without writing them, by what the kernel shows in /sys.
bool block_device_has_holes(dev_t device) {
  // A partition has no queue of its own; its disk is the folder above.
  for (const char* folder : {"queue", "../queue"}) {
    char path[96];
    std::snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s/write_zeroes_max_bytes",
                  major(device), minor(device), folder);
    std::FILE* file = std::fopen(path, "re");
    if (file == nullptr) continue;
    unsigned long long most = 0;
    const int found = std::fscanf(file, "%llu", &most);
    std::fclose(file);
    return found == 1 && most > 0;
  }
  return false;
}

/// Punching behind the end changes nothing and tells whether the file system can.
bool file_has_holes(int fd, uint64_t size_bytes) {
  const off_t behind = static_cast<off_t>(round_up(size_bytes, 1u << 20));
  return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, 4096) == 0;
}

/// For kernels that do not tell: the smallest read that is not refused.
uint32_t try_granule(int fd) {
  void* buffer = nullptr;
  if (posix_memalign(&buffer, 4096, 4096) != 0) return 4096;
  const ssize_t got = ::pread(fd, buffer, 512, 0);
  const bool refused = got < 0 && errno == EINVAL;
  std::free(buffer);
  return refused ? 4096 : 512;
}

void probe_alignment(int fd, ComponentFacts& facts) {
  facts.granule_bytes = facts.sector_bytes;
  facts.buffer_align_bytes = 1;
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_DIRECT) == 0) return;

  struct statx told = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &told) == 0 &&
      (told.stx_mask & STATX_DIOALIGN) != 0 && told.stx_dio_offset_align != 0) {
    facts.granule_bytes = std::max(facts.granule_bytes, told.stx_dio_offset_align);
    facts.buffer_align_bytes = std::max(told.stx_dio_mem_align, 1u);
    return;
  }
  if (!facts.is_block_device) facts.granule_bytes = try_granule(fd);
  facts.buffer_align_bytes = facts.granule_bytes;
}

}  // namespace

int probe_component(int fd, ComponentFacts& facts) {
  struct stat status = {};
  if (fstat(fd, &status) != 0) return -errno;
  facts = ComponentFacts();
  if (S_ISBLK(status.st_mode)) {
    int sector_bytes = 0;
    if (ioctl(fd, BLKGETSIZE64, &facts.size_bytes) != 0) return -errno;
    if (ioctl(fd, BLKSSZGET, &sector_bytes) != 0) return -errno;
    facts.sector_bytes = static_cast<uint32_t>(sector_bytes);
    facts.is_block_device = true;
    facts.can_discard = block_device_has_holes(status.st_rdev);
  } else if (S_ISREG(status.st_mode)) {
    facts.size_bytes = static_cast<uint64_t>(status.st_size);
    facts.can_discard = file_has_holes(fd, facts.size_bytes);
  } else {
    return -ENOTSUP;
  }
  probe_alignment(fd, facts);
  if (!std::has_single_bit(facts.granule_bytes) || facts.granule_bytes > kGranuleBytesMax) {
    return -ENOTSUP;
  }
  facts.size_bytes = round_down(facts.size_bytes, facts.granule_bytes);
  return 0;
}

// ---- FileComponent
// ---------------------------------------------------------------------------------

FileComponent::FileComponent(Ring& ring, int fd, const ComponentFacts& facts)
    : ring_(ring), fd_(fd) {
  HAST_ASSERT_OP(fd, >=, 0);
  HAST_ASSERT(std::has_single_bit(facts.granule_bytes));
  HAST_ASSERT_OP(facts.granule_bytes, <=, kGranuleBytesMax);
  HAST_ASSERT_OP(facts.size_bytes % facts.granule_bytes, ==, 0u);
  facts_ = facts;
  hole_align_bytes_ = std::max<uint64_t>(facts.granule_bytes, kDeleteGranule);
  ring.register_file(fd);
  add_operations(kOperations);
  int error = 0;
  bounce_ = BufferSlab::create(kBounces, kBounceBytes, kBounceBytes, error);
  HAST_ASSERT_OP(error, ==, 0);  // no memory at start: as fatal as for operator new
  for (uint32_t i = 0; i < kBounces; ++i) free_bounces_.push_back(bounce_->slot(i).data());
  bounces_available_ = kBounces;
}

FileComponent::~FileComponent() {
  HAST_ASSERT_OP(outstanding_, ==, 0u);
  ring_.unregister_file(fd_);
  ::close(fd_);
}

void FileComponent::submit_read(Completion& done, uint64_t offset, Bytes into) {
  HAST_ASSERT_OP(offset, <=, facts_.size_bytes);
  HAST_ASSERT_OP(into.size(), <=, facts_.size_bytes - offset);
  if (!is_aligned(offset, into.data(), into.size())) {
    misaligned_.spawn(read_misaligned(done, offset, into));
    return;
  }
  Operation& operation = take_operation(done, Kind::kRead);
  operation.offset = offset;
  operation.data = into.data();
  operation.left = into.size();
  submit_transfer(operation);
}

void FileComponent::submit_write(Completion& done, uint64_t offset, ConstBytes from, bool durable) {
  HAST_ASSERT_OP(offset, <=, facts_.size_bytes);
  HAST_ASSERT_OP(from.size(), <=, facts_.size_bytes - offset);
  if (!is_aligned(offset, from.data(), from.size())) {
    misaligned_.spawn(write_misaligned(done, offset, from, durable));
    return;
  }
  Operation& operation = take_operation(done, Kind::kWrite);
  operation.offset = offset;
  operation.data = const_cast<std::byte*>(from.data());  // a write only reads from it
  operation.left = from.size();
  operation.durable = durable;
  submit_transfer(operation);
}

void FileComponent::submit_discard(Completion& done, uint64_t offset, uint64_t length) {
  HAST_ASSERT_OP(offset, <=, facts_.size_bytes);
  HAST_ASSERT_OP(length, <=, facts_.size_bytes - offset);
  const uint64_t begin = round_up(offset, hole_align_bytes_);
  const uint64_t end = round_down(offset + length, hole_align_bytes_);
  if (!facts_.can_discard || begin >= end) {
    ring_.ready(done, facts_.can_discard ? 0 : -EOPNOTSUPP);
    return;
  }
  Operation& operation = take_operation(done, Kind::kDiscard);
  ring_.fallocate(operation, fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, end - begin);
}

void FileComponent::submit_flush(Completion& done) {
  ring_.fdatasync(take_operation(done, Kind::kFlush), fd_);
}

bool FileComponent::is_aligned(uint64_t offset, const std::byte* data, std::size_t size) const {
  const uint64_t address = reinterpret_cast<uintptr_t>(data);
  return ((offset | size) & (facts_.granule_bytes - 1)) == 0 &&
         (address & (facts_.buffer_align_bytes - 1)) == 0;
}

void FileComponent::add_operations(uint32_t count) {
  operation_blocks_.push_back(std::make_unique<Operation[]>(count));
  Operation* block = operation_blocks_.back().get();
  for (uint32_t i = 0; i < count; ++i) {
    block[i].owner = this;
    block[i].run = [](Completion& c) {
      Operation& operation = static_cast<Operation&>(c);
      operation.owner->transferred(operation);
    };
    block[i].next_free = free_operation_;
    free_operation_ = &block[i];
  }
}

FileComponent::Operation& FileComponent::take_operation(Completion& user, Kind kind) {
  if (free_operation_ == nullptr) add_operations(kOperations);  // more than the slots allow
  Operation& operation = *free_operation_;
  free_operation_ = operation.next_free;
  ++outstanding_;
  operation.user = &user;
  operation.kind = kind;
  operation.durable = false;
  operation.agains = 0;
  return operation;
}

void FileComponent::submit_transfer(Operation& operation) {
  const Bytes part(operation.data, std::min(operation.left, kTransferBytesMax));
  if (operation.kind == Kind::kRead) {
    ring_.read(operation, fd_, operation.offset, part);
  } else {
    ring_.write(operation, fd_, operation.offset, part, operation.durable);
  }
}

/// One step has ended. What is left of a short transfer is asked for again: at the end of a disk
/// that shrank this gives nothing, or -EINVAL where the rest lost its alignment.
void FileComponent::transferred(Operation& operation) {
  const int result = operation.result;
  if (operation.kind == Kind::kDiscard || operation.kind == Kind::kFlush) {
    finish(operation, result);
    return;
  }
  if ((result == -EINTR || result == -EAGAIN) && operation.agains < kAgainMax) {
    ++operation.agains;
    submit_transfer(operation);
    return;
  }
  if (result < 0) {
    const bool is_short = result == -EINVAL && operation.moved;
    finish(operation, is_short ? -EIO : result);
    return;
  }
  const std::size_t count = static_cast<std::size_t>(result);
  HAST_ASSERT_OP(count, <=, operation.left);
  operation.left -= count;
  operation.offset += count;
  operation.data += count;
  operation.moved = true;
  if (operation.left == 0) {
    finish(operation, 0);
  } else if (count == 0) {
    finish(operation, -EIO);
  } else {
    submit_transfer(operation);
  }
}

void FileComponent::finish(Operation& operation, int result) {
  Completion* user = operation.user;
  operation.next_free = free_operation_;
  operation.moved = false;
  free_operation_ = &operation;
  HAST_ASSERT_OP(outstanding_, >, 0u);
  --outstanding_;
  // We run from the ready queue ourselves, so there is no need to pass through it once more.
  user->result = result;
  user->run(*user);
}

// ---- Transfers that do not keep the alignment
// ------------------------------------------------------

/// One of the bounce buffers, in the order of asking. A returned buffer is promised to the waiter
/// that it wakes, so it is not counted as available until nobody waits.
Task<std::byte*> FileComponent::take_bounce() {
  if (bounces_available_ > 0) {
    --bounces_available_;
  } else {
    co_await bounce_waiters_.wait();
  }
  HAST_ASSERT(!free_bounces_.empty());
  std::byte* bounce = free_bounces_.back();
  free_bounces_.pop_back();
  co_return bounce;
}

void FileComponent::return_bounce(std::byte* bounce) {
  free_bounces_.push_back(bounce);
  if (!bounce_waiters_.wake_one()) ++bounces_available_;
}

Task<void> FileComponent::read_misaligned(Completion& done, uint64_t offset, Bytes into) {
  std::byte* bounce = co_await take_bounce();
  int result = 0;
  while (!into.empty() && result == 0) {
    const Window window = window_at(offset, into.size());
    result = co_await read(window.begin, Bytes(bounce, window.size()));
    if (result != 0) break;
    std::memcpy(into.data(), bounce + window.skip, window.inner);
    offset += window.inner;
    into = into.subspan(window.inner);
  }
  return_bounce(bounce);
  ring_.ready(done, result);
}

Task<void> FileComponent::write_misaligned(Completion& done, uint64_t offset, ConstBytes from,
                                           bool durable) {
  // The caller keeps overlapping requests apart, but two that only share a granule are ours to
  // order: both would read it, change their part, and write the whole of it back.
  Granules granules{round_down(offset, facts_.granule_bytes),
                    round_up(offset + from.size(), facts_.granule_bytes)};
  co_await take_granules(granules);
  std::byte* bounce = co_await take_bounce();
  int result = 0;
  while (!from.empty() && result == 0) {
    const Window window = window_at(offset, from.size());
    result = co_await read_edges(bounce, window);
    if (result != 0) break;
    std::memcpy(bounce + window.skip, from.data(), window.inner);
    result = co_await write(window.begin, ConstBytes(bounce, window.size()), durable);
    offset += window.inner;
    from = from.subspan(window.inner);
  }
  return_bounce(bounce);
  return_granules(granules);
  ring_.ready(done, result);
}

Task<void> FileComponent::take_granules(Granules& granules) {
  const auto shared = [this, &granules] {
    for (const Granules* other = granules_in_use_; other != nullptr; other = other->next) {
      if (other->begin < granules.end && granules.begin < other->end) return true;
    }
    return false;
  };
  while (shared()) co_await granule_waiters_.wait();
  granules.next = granules_in_use_;
  granules_in_use_ = &granules;
}

void FileComponent::return_granules(Granules& granules) {
  Granules** link = &granules_in_use_;
  while (*link != &granules) link = &(*link)->next;
  *link = granules.next;
  granule_waiters_.wake_all();
}

FileComponent::Window FileComponent::window_at(uint64_t offset, uint64_t length) const {
  Window window;
  window.begin = round_down(offset, facts_.granule_bytes);
  window.end =
      std::min(round_up(offset + length, facts_.granule_bytes), window.begin + kBounceBytes);
  window.skip = offset - window.begin;
  window.inner = std::min(offset + length, window.end) - offset;
  return window;
}

/// Reads the granules that a write changes only in part: none, the first, the last or both.
Task<int> FileComponent::read_edges(std::byte* bounce, Window window) {
  const uint64_t granule = facts_.granule_bytes;
  const bool head = window.skip > 0;
  const bool tail = window.skip + window.inner < window.size();
  if (head || (tail && window.size() == granule)) {
    const int result = co_await read(window.begin, Bytes(bounce, granule));
    if (result != 0) co_return result;
  }
  if (!tail || window.size() == granule) co_return 0;
  const int result =
      co_await read(window.end - granule, Bytes(bounce + window.size() - granule, granule));
  co_return result;
}

}  // namespace hast
