#pragma once

#include <cstdint>
#include <string_view>

#include "ring/stream.h"
#include "ring/task.h"

namespace hast::nbd {

/// What is offered to clients.
struct Export {
  std::string_view name;
  uint64_t size_bytes = 0;
  uint32_t block_bytes = 512;  ///< offsets and lengths are multiples of it
  bool can_trim = false;
};

/// What was agreed with one client.
struct Session {
  bool agreed = false;  ///< the transmission phase follows; otherwise the stream is of no use
  bool structured_replies = false;
  bool block_status = false;  ///< base:allocation was selected
};

inline constexpr uint32_t kAllocationContextId = 1;

/// Does the server's part of the fixed newstyle handshake. Stays exactly within it: no byte of the
/// transmission phase is received. Has no deadline: the caller shuts the stream down.
///
/// Options: EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT and
/// SET_META_CONTEXT; others are answered as unsupported. The empty name means the one export.
Task<Session> negotiate(Stream& stream, const Export& offered);

}  // namespace hast::nbd
