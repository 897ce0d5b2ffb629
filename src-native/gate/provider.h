#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "ring/completion.h"

/// The one interface between what serves a client (NBD, ublk, ggate, a test) and the engine.
namespace hast {

enum class RequestOp : uint8_t { kRead, kWrite, kDelete, kFlush };

/// Shares the pool fairly: one per connected client, owned by the gate.
struct ProviderClient {
  uint32_t slots_held = 0;
};

/// One request slot. The gate fills the first part and `answered`; the engine fills `error`.
///
/// Life: acquired by the gate, submitted, answered by the engine (once, through the ready queue),
/// released by the gate. The engine may keep the slot longer; the buffer may be read by the gate
/// until it releases, and never be written after `submit`.
struct Request {
  RequestOp op = RequestOp::kRead;
  bool fua = false;     ///< WRITE, DELETE: answered when it survives a power cut on both nodes
  bool zeroes = false;  ///< WRITE only: the buffer is all zero (the gate has filled it)
  uint64_t offset = 0;  ///< bytes from the start of the provider
  uint64_t length = 0;  ///< bytes; READ and WRITE at most kRequestBytesMax, DELETE any, FLUSH 0
  std::byte* buffer = nullptr;     ///< kRequestBytesMax bytes, 4096-aligned, belongs to the slot
  int error = 0;                   ///< positive errno after the answer, 0 is success
  Completion* answered = nullptr;  ///< put on the ready queue when the request is answered
  ProviderClient* client = nullptr;
};

/// What the engine offers to a gate. Loop thread only.
class Provider {
 public:
  virtual ~Provider() = default;

  virtual uint64_t size_bytes() const = 0;
  /// Smallest unit of a request: offset and length are multiples of it (512 or 4096).
  virtual uint32_t block_bytes() const = 0;
  virtual bool can_trim() const = 0;

  /// Gives a free slot to `client`: at once (returned), or later (nullptr; then `waiter` runs with
  /// 0 and `*slot` set, or with -ESHUTDOWN and none). First come, first served; a client that holds
  /// kRequestsPerClientMax waits without holding up others. `slot` and `waiter` must stay until
  /// then. A client waits for one slot at a time.
  virtual Request* acquire(ProviderClient& client, Completion& waiter, Request** slot) = 0;
  /// Takes a filled request. The range was checked by the gate: inside size_bytes, block-aligned.
  virtual void submit(Request& request) = 0;
  /// The gate needs the slot no longer (answered, or never submitted).
  virtual void release(Request& request) = 0;
  /// The client goes, all its slots are released. The engine may still keep some of them, until the
  /// peer has reported: from now on they are nobody's.
  virtual void leave(ProviderClient& client) = 0;
};

}  // namespace hast
