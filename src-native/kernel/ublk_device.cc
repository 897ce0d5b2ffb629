#include "kernel/ublk_device.h"

#include <fcntl.h>
#include <linux/ublk_cmd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <memory>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/limits.h"
#include "ring/driver_call.h"

namespace hast::kernel {

namespace {

constexpr const char* kControl = "/dev/ublk-control";
/// For what the kernel does at once, unless another command holds it up.
constexpr uint32_t kShortMs = 10'000;
constexpr uint32_t kSector = 512;
constexpr uint16_t kNoQueue = UINT16_MAX;

// What the headers of older kernels do not name.
constexpr uint64_t kFeatureIoctlEncode = 1u << 6;  // commands are numbered as below
constexpr uint64_t kFeatureUserCopy = 1u << 7;     // data by pread and pwrite on /dev/ublkcN

constexpr uint64_t kFeatures =
    UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE | kFeatureIoctlEncode | kFeatureUserCopy;

constexpr uint32_t reads(uint32_t number) { return _IOR('u', number, ublksrv_ctrl_cmd); }
constexpr uint32_t changes(uint32_t number) { return _IOWR('u', number, ublksrv_ctrl_cmd); }

constexpr uint32_t kGetInfo = reads(UBLK_CMD_GET_DEV_INFO);
constexpr uint32_t kGetFeatures = reads(0x13);
constexpr uint32_t kAdd = changes(UBLK_CMD_ADD_DEV);
constexpr uint32_t kDelete = changes(UBLK_CMD_DEL_DEV);
constexpr uint32_t kStart = changes(UBLK_CMD_START_DEV);
constexpr uint32_t kStop = changes(UBLK_CMD_STOP_DEV);
constexpr uint32_t kSetParams = changes(UBLK_CMD_SET_PARAMS);
constexpr uint32_t kStartRecovery = changes(UBLK_CMD_START_USER_RECOVERY);
constexpr uint32_t kEndRecovery = changes(UBLK_CMD_END_USER_RECOVERY);

// The size is part of a command's number; in later headers the second word of data has fields.
static_assert(sizeof(ublksrv_ctrl_cmd) == 32);

int call(uint32_t command, const ublksrv_ctrl_cmd& payload, uint32_t limit_ms) {
  const int fd = open(kControl, O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno;
  const int result = driver_call(fd, command, std::as_bytes(std::span(&payload, 1)), limit_ms);
  close(fd);
  return result < 0 ? -result : 0;
}

int call_plain(uint32_t command, uint32_t index, uint32_t limit_ms, uint64_t value = 0) {
  ublksrv_ctrl_cmd payload = {};
  payload.dev_id = index;
  payload.queue_id = kNoQueue;
  payload.data[0] = value;
  return call(command, payload, limit_ms);
}

/// With a structure that the kernel reads or writes.
template <typename T>
int call_with(uint32_t command, uint32_t index, std::unique_ptr<T>& buffer) {
  ublksrv_ctrl_cmd payload = {};
  payload.dev_id = index;
  payload.queue_id = kNoQueue;
  payload.addr = reinterpret_cast<uintptr_t>(buffer.get());
  payload.len = sizeof(T);
  const int error = call(command, payload, kShortMs);
  // The kernel may still write to it: it is never used again, nor given back.
  if (error == ETIMEDOUT) buffer.release();
  return error;
}

uint8_t shift_of(uint32_t bytes) { return static_cast<uint8_t>(std::countr_zero(bytes)); }

ublk_params params_of(const UblkDevice& device) {
  ublk_params params = {};
  params.len = sizeof params;
  params.types = UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD;
  params.basic.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
  params.basic.logical_bs_shift = shift_of(device.block_bytes);
  params.basic.physical_bs_shift = shift_of(kSectorBytesMax);
  params.basic.io_min_shift = shift_of(kSectorBytesMax);
  params.basic.io_opt_shift = shift_of(kRequestBytesMax);
  params.basic.max_sectors = kRequestBytesMax / kSector;
  params.basic.dev_sectors = device.size_bytes / kSector;
  params.discard.discard_granularity = kDeleteGranule;
  params.discard.max_discard_sectors = round_down(UINT32_MAX, kRequestBytesMax) / kSector;
  params.discard.max_write_zeroes_sectors = kRequestBytesMax / kSector;
  params.discard.max_discard_segments = 1;
  return params;
}

}  // namespace

int ublk_probe() {
  auto features = std::make_unique<uint64_t>(0);
  const int error = call_with(kGetFeatures, UINT32_MAX, features);
  // A driver that does not know the question has not what is asked for either.
  if (error == EOPNOTSUPP || error == EINVAL) return ENOTSUP;
  if (error != 0) return error;
  return (*features & kFeatures) == kFeatures ? 0 : ENOTSUP;
}

int ublk_add(const UblkDevice& device, uint32_t& index) {
  auto info = std::make_unique<ublksrv_ctrl_dev_info>();
  info->dev_id = UINT32_MAX;  // a free one
  info->nr_hw_queues = 1;
  info->queue_depth = kUblkDepth;
  info->max_io_buf_bytes = kRequestBytesMax;
  info->flags = kFeatures;
  info->ublksrv_flags = device.owner;
  int error = call_with(kAdd, UINT32_MAX, info);
  if (error != 0) return error;
  index = info->dev_id;
  auto params = std::make_unique<ublk_params>(params_of(device));
  error = info->queue_depth == kUblkDepth ? call_with(kSetParams, index, params) : ENOTSUP;
  if (error != 0) ublk_remove(index, kShortMs);
  return error;
}

int ublk_start(uint32_t index, uint32_t limit_ms) {
  return call_plain(kStart, index, limit_ms, static_cast<uint64_t>(getpid()));
}

int ublk_start_recovery(uint32_t index) { return call_plain(kStartRecovery, index, kShortMs); }

int ublk_end_recovery(uint32_t index, uint32_t limit_ms) {
  return call_plain(kEndRecovery, index, limit_ms, static_cast<uint64_t>(getpid()));
}

int ublk_stop(uint32_t index, uint32_t limit_ms) { return call_plain(kStop, index, limit_ms); }

int ublk_remove(uint32_t index, uint32_t limit_ms) { return call_plain(kDelete, index, limit_ms); }

int ublk_info(uint32_t index, UblkInfo& info) {
  auto answer = std::make_unique<ublksrv_ctrl_dev_info>();
  const int error = call_with(kGetInfo, index, answer);
  if (error != 0) return error;
  info.started = answer->state != UBLK_S_DEV_DEAD;
  info.served = answer->state == UBLK_S_DEV_LIVE;
  info.owner = answer->ublksrv_flags;
  return 0;
}

}  // namespace hast::kernel
