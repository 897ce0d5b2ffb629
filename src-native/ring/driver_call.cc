#include "ring/driver_call.h"

#include <liburing.h>

#include <cerrno>
#include <cstring>
#include <span>

#include "base/assert.h"

namespace hast {

int driver_call(int fd, uint32_t operation, ConstBytes payload, uint32_t limit_ms) {
  HAST_ASSERT_OP(payload.size(), <=, kDriverCallBytesMax);
  io_uring ring;
  int result = io_uring_queue_init(1, &ring, IORING_SETUP_SQE128);
  if (result < 0) return result;
  io_uring_sqe* entry = io_uring_get_sqe(&ring);
  io_uring_prep_rw(IORING_OP_URING_CMD, entry, fd, nullptr, 0, 0);
  entry->cmd_op = operation;
  // The payload takes the end of the large entry, whose first half is the usual one.
  std::byte* const begin = reinterpret_cast<std::byte*>(entry);
  std::memcpy(begin + 2 * sizeof *entry - kDriverCallBytesMax, payload.data(), payload.size());
  __kernel_timespec limit = {};
  limit.tv_sec = limit_ms / 1000;
  limit.tv_nsec = static_cast<int64_t>(limit_ms % 1000) * 1'000'000;
  io_uring_cqe* completion = nullptr;
  do {
    result = io_uring_submit_and_wait_timeout(&ring, &completion, 1, &limit, nullptr);
  } while (result == -EINTR);
  if (completion != nullptr) {
    result = completion->res;
  } else if (result >= 0 || result == -ETIME) {
    result = -ETIMEDOUT;
  }
  io_uring_queue_exit(&ring);
  return result;
}

}  // namespace hast
