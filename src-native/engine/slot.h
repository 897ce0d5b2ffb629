#pragma once

#include <cstdint>

#include "codec/compression.h"
#include "codec/rangelock.h"
#include "gate/provider.h"
#include "ring/completion.h"
#include "wire/packet.h"

/// One request slot of a primary: the gate's request, and what the two components said of it.
namespace hast {

class Primary;
class Link;

/// How a component stands towards one request.
enum class Outcome : uint8_t {
  kNone,      ///< takes no part in it
  kPending,   ///< asked, nothing heard
  kReceived,  ///< remote only: has the bytes in memory (memsync)
  kOk,        ///< stored
  kError,     ///< said no
  kLost,      ///< remote only: the connection ended before the final word
};

enum class Replication : uint8_t { kFullsync, kMemsync, kAsync };

/// What a write's answer is, once it is known. Rule 8 and spec replication 2.2 as one pure
/// function.
enum class Verdict : uint8_t { kWait, kSuccess, kFailure };
Verdict write_verdict(Replication mode, Outcome local, Outcome remote);

/// A slot is owned by the pool for the life of the engine. The packet goes out on the wire, the
/// range hold keeps overlapping requests apart, `disk` is the local operation.
struct Slot : Request {
  enum class Use : uint8_t { kFree, kClient, kSync };

  Primary* primary = nullptr;
  uint32_t index = 0;
  Use use = Use::kFree;
  Slot* next = nullptr;  // free list

  Replication mode = Replication::kFullsync;
  Outcome local = Outcome::kNone;
  Outcome remote = Outcome::kNone;
  int local_errno = 0;    // positive
  int remote_errno = 0;   // positive, of this system
  bool map_held = false;  // write_begin was called and write_end was not
  bool lock_held = false;
  bool is_answered = false;   // the gate was told
  bool gate_holds = false;    // the gate has not released it
  bool engine_holds = false;  // components still have to report
  bool flushing = false;      // done, but for the flush that FUA asks for
  bool uncounted = false;     // the counter that must speak of it could not be stored
  bool missed = false;        // some component did not confirm: its extents stay marked

  uint64_t losses = 0;  // of the primary when it was issued
  uint64_t seq = 0;     // on the wire, 0 when not there
  Slot* outstanding_previous = nullptr;
  Slot* outstanding_next = nullptr;
  Completion* remote_done =
      nullptr;               // who waits for the peer's final word; null: `progress` is told
  bool comparing = false;    // the question on the wire is COMPARE
  uint8_t remote_equal = 0;  // its answer
  RangeHold range;
  Packet packet;
  Link* link = nullptr;             // that `packet` goes out on
  bool final_early = false;         // the final word came while the packet still counted as queued
  int final_error = 0;              // what it was
  std::byte hole[kHoleBytes] = {};  // payload of an all-zero WRITE
  std::byte* room = nullptr;        // kRequestBytesMax, for the payload of a WRITE with lzf
  uint64_t began_us = 0;

  struct Disk : Completion {
    Slot* slot = nullptr;
  } disk;
};

/// Slots, first come first served, no client above its share, a reserve for synchronisation.
class SlotPool {
 public:
  /// `slab`: kRequestsMax buffers, `stride` bytes apart; behind them as many rooms, the same.
  SlotPool(Primary& primary, std::byte* slab, std::size_t stride);
  ~SlotPool();

  Request* acquire(ProviderClient& client, Completion& waiter, Request** slot);
  /// A slot for synchronisation, or null: from its reserve only.
  Slot* acquire_for_sync();
  void release(Slot& slot);
  /// Slots of this client that are not free yet belong to nobody any more.
  void leave(ProviderClient& client);
  /// Waiters get -ESHUTDOWN, now and from here on.
  void close();
  uint32_t free_count() const { return free_clients_ + free_sync_; }
  Slot& at(uint32_t index) { return slots_[index]; }

 private:
  struct Waiter {
    ProviderClient* client;
    Completion* completion;
    Request** slot;
  };
  Slot* take(ProviderClient& client);
  void serve_waiters();

  static constexpr uint32_t kWaitersMax = 1024;
  Slot slots_[kRequestsMax];
  Slot* free_ = nullptr;
  uint32_t free_clients_ = kRequestsMax - kRequestsReservedForSync;
  uint32_t free_sync_ = kRequestsReservedForSync;
  Waiter waiters_[kWaitersMax];
  uint32_t waiter_count_ = 0;
  bool closed_ = false;
};

}  // namespace hast
