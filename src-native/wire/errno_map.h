#pragma once

#include <cstdint>

/// Error numbers on the wire are FreeBSD's. Pure; any thread.
namespace hast {

/// Ours (Linux, positive) to the wire's. Unknown ones become EIO (5). 0 stays 0.
int16_t errno_to_wire(int host_errno);
/// The wire's to ours. Unknown and negative ones become EIO. 0 stays 0.
int errno_from_wire(int16_t wire_errno);

}  // namespace hast
