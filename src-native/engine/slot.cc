#include "engine/slot.h"

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "ring/loop.h"

namespace hast {

Verdict write_verdict(Replication mode, Outcome local, Outcome remote) {
  const bool remote_final = remote == Outcome::kOk || remote == Outcome::kError ||
                            remote == Outcome::kLost || remote == Outcome::kNone;
  if (local == Outcome::kPending) return Verdict::kWait;
  if (local == Outcome::kOk) {
    if (remote_final) return Verdict::kSuccess;
    if (mode == Replication::kAsync) return Verdict::kSuccess;
    if (mode == Replication::kMemsync && remote == Outcome::kReceived) return Verdict::kSuccess;
    return Verdict::kWait;
  }
  // Local failed or is detached: "received" is not stored, so only the final word counts.
  // guard:no-success-without-copy
  if (!remote_final) return Verdict::kWait;
  return remote == Outcome::kOk ? Verdict::kSuccess : Verdict::kFailure;
}

SlotPool::SlotPool(Primary& primary, std::byte* slab, std::size_t stride) {
  for (uint32_t i = kRequestsMax; i-- > 0;) {
    Slot& slot = slots_[i];
    slot.primary = &primary;
    slot.index = i;
    slot.buffer = slab + static_cast<std::size_t>(i) * stride;
    slot.room = slab + static_cast<std::size_t>(kRequestsMax + i) * stride;
    slot.disk.slot = &slot;
    slot.packet.owner = &slot;
    slot.next = free_;
    free_ = &slot;
  }
}

SlotPool::~SlotPool() { HAST_ASSERT(free_count() == kRequestsMax); }

Slot* SlotPool::take(ProviderClient& client) {
  if (free_clients_ == 0 || client.slots_held >= kRequestsPerClientMax) return nullptr;
  Slot* slot = free_;
  HAST_ASSERT(slot != nullptr);
  free_ = slot->next;
  --free_clients_;
  ++client.slots_held;
  slot->client = &client;
  slot->use = Slot::Use::kClient;
  slot->gate_holds = true;
  slot->error = 0;
  slot->fua = false;
  slot->zeroes = false;
  slot->is_answered = false;
  return slot;
}

Request* SlotPool::acquire(ProviderClient& client, Completion& waiter, Request** slot) {
  if (closed_) {
    Loop::current().ready(waiter, -ESHUTDOWN);
    return nullptr;
  }
  if (Slot* taken = take(client)) return taken;
  HAST_ASSERT(waiter_count_ < kWaitersMax);
  waiters_[waiter_count_++] = {&client, &waiter, slot};
  return nullptr;
}

void SlotPool::serve_waiters() {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < waiter_count_; ++i) {
    const Waiter waiter = waiters_[i];
    // A client at its limit waits without holding up those behind it.
    Slot* slot = take(*waiter.client);
    if (slot == nullptr) {
      waiters_[kept++] = waiter;
      continue;
    }
    *waiter.slot = slot;
    Loop::current().ready(*waiter.completion, 0);
  }
  waiter_count_ = kept;
}

Slot* SlotPool::acquire_for_sync() {
  if (free_sync_ == 0) return nullptr;
  Slot* slot = free_;
  HAST_ASSERT(slot != nullptr);
  free_ = slot->next;
  --free_sync_;
  slot->use = Slot::Use::kSync;
  slot->client = nullptr;
  slot->error = 0;
  slot->fua = false;
  slot->zeroes = false;
  return slot;
}

void SlotPool::release(Slot& slot) {
  HAST_ASSERT(slot.use != Slot::Use::kFree);
  HAST_ASSERT(!slot.lock_held);
  HAST_ASSERT(!slot.map_held);
  if (slot.use == Slot::Use::kClient) {
    if (slot.client != nullptr) {
      HAST_ASSERT(slot.client->slots_held > 0);
      --slot.client->slots_held;
    }
    ++free_clients_;
  } else {
    ++free_sync_;
  }
  slot.use = Slot::Use::kFree;
  slot.client = nullptr;
  slot.seq = 0;
  slot.next = free_;
  free_ = &slot;
  if (waiter_count_ > 0) serve_waiters();
}

void SlotPool::leave(ProviderClient& client) {
  for (Slot& slot : slots_) {
    if (slot.client != &client) continue;
    HAST_ASSERT(!slot.gate_holds);
    slot.client = nullptr;
    --client.slots_held;
  }
  HAST_ASSERT(client.slots_held == 0);
}

void SlotPool::close() {
  closed_ = true;
  for (uint32_t i = 0; i < waiter_count_; ++i) {
    Loop::current().ready(*waiters_[i].completion, -ESHUTDOWN);
  }
  waiter_count_ = 0;
}

}  // namespace hast
