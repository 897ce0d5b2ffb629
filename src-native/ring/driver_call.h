#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace hast {

inline constexpr std::size_t kDriverCallBytesMax = 80;

/// One command of a driver (IORING_OP_URING_CMD in a large entry) by a caller without a loop: it
/// stands still until the command is done, at most for `limit_ms`. Returns its result or -errno.
///
/// After -ETIMEDOUT the kernel interrupts the command, a moment later: memory that the payload
/// points to may be written until then, and must not be used for anything else.
int driver_call(int fd, uint32_t operation, ConstBytes payload, uint32_t limit_ms);

}  // namespace hast
