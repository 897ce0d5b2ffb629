// The primary's requests: READ, WRITE, DELETE, FLUSH, and what happens when a component fails.

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "engine/primary.h"
#include "engine/synchroniser.h"

namespace hast {

namespace {

constexpr uint64_t kSecond = 1000000;
bool is_final(Outcome outcome) {
  return outcome != Outcome::kPending && outcome != Outcome::kReceived;
}

/// Waits for a range that is in use.
struct RangeWait : CompletionAwait<RangeWait> {
  RangeHold& hold;
  explicit RangeWait(RangeHold& h) : hold(h) {}
  void submit() { hold.owner = static_cast<Completion*>(this); }
};

}  // namespace

// --- the provider's side
// --------------------------------------------------------------------------

Request* Primary::acquire(ProviderClient& client, Completion& waiter, Request** slot) {
  return pool_.acquire(client, waiter, slot);
}

void Primary::submit(Request& request) {
  Slot& slot = static_cast<Slot&>(request);
  HAST_ASSERT(slot.use == Slot::Use::kClient);
  HAST_ASSERT(!slot.engine_holds);
  HAST_ASSERT(slot.offset + slot.length <= size_bytes());
  slot.engine_holds = true;
  slot.is_answered = false;
  slot.error = 0;
  slot.local = slot.remote = Outcome::kNone;
  ++in_flight_;
  slot.began_us = Loop::current().now_us();
  sync_->note_user_request(slot.began_us);
  requests_.spawn(serve(slot));
}

void Primary::release(Request& request) {
  Slot& slot = static_cast<Slot&>(request);
  HAST_ASSERT(slot.gate_holds);
  slot.gate_holds = false;
  maybe_free(slot);
}

void Primary::leave(ProviderClient& client) { pool_.leave(client); }

void Primary::maybe_free(Slot& slot) {
  if (!slot.gate_holds && !slot.engine_holds) pool_.release(slot);
}

void Primary::answer(Slot& slot, int error) {
  HAST_ASSERT(!slot.is_answered);
  slot.is_answered = true;
  slot.error = error;
  Loop::current().ready(*slot.answered, 0);
}

/// Ends a request that was never given to a component, or whose components all have reported.
void Primary::finish(Slot& slot, int error) {
  if (slot.map_held) {
    map_->write_end(slot.offset, slot.length, 0, false);  // no guard: nothing was written
    slot.map_held = false;
  }
  unlock(slot);
  answer(slot, error);
  slot.engine_holds = false;
  --in_flight_;
  settled_.wake_all();
  maybe_free(slot);
}

Task<void> Primary::serve(Slot& slot) {
  switch (slot.op) {
    case RequestOp::kRead:
      ++counters_.reads;
      co_await serve_read(slot);
      break;
    case RequestOp::kWrite:
      ++counters_.writes;
      co_await serve_write(slot);
      break;
    case RequestOp::kDelete:
      ++counters_.deletes;
      co_await serve_delete(slot);
      break;
    case RequestOp::kFlush:
      ++counters_.flushes;
      co_await serve_flush(slot);
      break;
  }
}

// --- ranges
// ---------------------------------------------------------------------------------------

Task<int> Primary::lock(Slot& slot, RangeMode mode) {
  HAST_ASSERT(!slot.lock_held);
  slot.range.offset = slot.offset;
  slot.range.length = slot.length;
  slot.range.mode = mode;
  slot.lock_held = true;
  if (!ranges_.acquire(slot.range)) co_await RangeWait(slot.range);
  co_return 0;
}

void Primary::unlock(Slot& slot) {
  if (!slot.lock_held) return;
  slot.lock_held = false;
  Loop& loop = Loop::current();
  for (RangeHold* hold = ranges_.release(slot.range); hold != nullptr;) {
    RangeHold* next = hold->next_granted;
    loop.ready(*static_cast<Completion*>(hold->owner), 0);
    hold = next;
  }
}

// --- READ
// -----------------------------------------------------------------------------------------

bool Primary::must_read_remotely(const Slot& slot) const {
  if (local_detached_) return true;
  if (!needs_peer_) return false;
  const uint32_t extent_bytes = map_->extent_bytes();
  const uint64_t last = (slot.offset + slot.length - 1) / extent_bytes;
  for (uint64_t extent = slot.offset / extent_bytes; extent <= last; ++extent) {
    if (map_->in_sync_set(static_cast<uint32_t>(extent))) return true;
  }
  return false;
}

/// Has the peer what was last written to the range?
bool Primary::peer_may_serve(const Slot& slot) const {
  if (local_detached_ || source_ == SyncSource::kSecondary) return true;
  const uint32_t extent_bytes = map_->extent_bytes();
  const uint64_t last = (slot.offset + slot.length - 1) / extent_bytes;
  for (uint64_t extent = slot.offset / extent_bytes; extent <= last; ++extent) {
    if (map_->in_sync_set(static_cast<uint32_t>(extent))) return false;
  }
  return true;
}

Task<void> Primary::serve_read(Slot& slot) {
  co_await lock(slot, RangeMode::kShared);
  bool local_failed = false;
  int error = 0;
  for (;;) {
    while (!admission_open_) co_await admission_.wait();
    if (stopping_) {
      error = ESHUTDOWN;
      break;
    }
    if (!local_failed && !must_read_remotely(slot)) {
      ++local_queue_;
      const int rc =
          co_await disk_.read(data_offset_ + slot.offset, Bytes(slot.buffer, slot.length));
      --local_queue_;
      if (rc == 0) break;
      count_error(RequestOp::kRead);
      logf(host_, LogLevel::kWarning, "Local read failed at %llu (%llu bytes): %s%s",
           static_cast<unsigned long long>(slot.offset),
           static_cast<unsigned long long>(slot.length), std::strerror(-rc),
           attached() ? "; reading from the peer." : ".");
      local_failed = true;
    }
    // guard:old-copy-is-not-read
    if (attached() && peer_may_serve(slot)) {
      const int rc = co_await read_remote(slot);
      if (rc == 0) break;
      if (rc == -ENOTCONN) continue;  // the loss is settled first, then we look again
      error = -rc;
      break;
    }
    if (local_failed && !local_detached_) {
      error = EIO;
      break;
    }
    const int held = co_await hold_for_peer(slot);
    if (held != 0) {
      error = EIO;
      break;
    }
  }
  finish(slot, error);
}

Task<int> Primary::read_remote(Slot& slot) {
  Signal done;
  slot.remote_done = &done;
  slot.remote = Outcome::kPending;
  link_->send_read(slot);
  const int rc = co_await done;
  slot.remote = Outcome::kNone;
  co_return rc;
}

/// The peer has the good data and is away: wait for it as long as a request may wait.
Task<int> Primary::hold_for_peer(Slot& slot) {
  constexpr uint64_t kStepUs = kSecond / 10;
  // guard:held-without-its-range: a chunk that is being copied may wait for the range, and the next
  // connection for that chunk.
  const RangeMode mode = slot.range.mode;
  unlock(slot);
  int rc = -EIO;
  SleepTimer timer;
  for (uint64_t waited = 0; waited < uint64_t{settings_.timeout_ms} * 1000; waited += kStepUs) {
    rc = attached() || stopping_ || !(needs_peer_ || local_detached_) ? 0 : -EIO;
    if (rc == 0) break;
    co_await timer.sleep_us(kStepUs);
  }
  co_await lock(slot, mode);
  co_return rc;
}

// --- WRITE, DELETE
// --------------------------------------------------------------------------------

Replication Primary::effective_mode() const {
  if (settings_.replication == Replication::kMemsync && attached() &&
      link_->settings().version < 2) {
    return Replication::kFullsync;
  }
  return settings_.replication;
}

Task<void> Primary::serve_write(Slot& slot) {
  co_await lock(slot, RangeMode::kExclusive);
  map_->write_begin(slot.offset, slot.length);
  slot.map_held = true;
  // A task that has waited comes back through the ready queue, behind what else was ready: the link
  // may have gone or come since it looked. So the last look is here, with nothing in between.
  // guard:issued-as-checked
  while (!may_issue(slot)) {
    const int rc = co_await make_ready(slot);
    if (rc != 0) {
      finish(slot, -rc);
      co_return;
    }
  }
  issue(slot);
}

/// Admitted, map durable, and either the peer takes part or this lone period is counted.
bool Primary::may_issue(const Slot& slot) const {
  if (stopping_ || !admission_open_) return false;
  if (local_detached_) return attached() && stale_recorded_;  // guard:stale-before-peer
  if (!attached() && needs_peer_) return false;               // guard:target-writes-not-alone
  if (!attached() && !counted_) return false;                 // guard:count-before-lone-write
  return map_->ready(slot.offset, slot.length);               // guard:map-before-data
}

Task<void> Primary::serve_delete(Slot& slot) {
  // Aligned on the disk, where the hole is punched.
  const uint64_t begin = round_up(data_offset_ + slot.offset, kDeleteGranule) - data_offset_;
  const uint64_t end_on_disk = round_down(data_offset_ + slot.offset + slot.length, kDeleteGranule);
  const uint64_t end = end_on_disk > data_offset_ ? end_on_disk - data_offset_ : 0;
  if (begin >= end || !can_trim_) {
    finish(slot, 0);
    co_return;
  }
  slot.offset = begin;
  slot.length = end - begin;
  co_await serve_write(slot);
}

/// Waits until the write may reach both components: admitted, map durable, counted when alone. 0:
/// look again with `may_issue`. No guard: that is one.
Task<int> Primary::make_ready(Slot& slot) {
  for (;;) {
    if (stopping_) co_return -ESHUTDOWN;
    if (!admission_open_) {
      co_await admission_.wait();
      continue;
    }
    if (!attached() && (needs_peer_ || local_detached_)) {
      const int rc = co_await hold_for_peer(slot);
      if (rc != 0) co_return rc;
      continue;
    }
    // What the peer gets alone would differ, and nobody knew.
    if (local_detached_ && !stale_recorded_) {
      if (stale_impossible_) co_return -EIO;
      co_await settled_.wait();
      continue;
    }
    if (!local_detached_ && !map_->ready(slot.offset, slot.length)) {
      const int rc = co_await map_store_->store();
      if (rc == 0) continue;
      if (!detach_local("storing the activemap", -rc)) co_return -EIO;
      continue;
    }
    if (!attached() && !counted_ && counting_) {
      co_await counted_waiters_.wait();  // by then there may be a peer, and nothing to count
      continue;
    }
    if (!attached() && !counted_) {
      const int rc = co_await ensure_counted();
      if (rc != 0) co_return -EIO;
      continue;
    }
    co_return 0;
  }
}

void Primary::issue(Slot& slot) {
  HAST_ASSERT(attached() || (counted_ && !needs_peer_));                  // I2
  HAST_ASSERT(local_detached_ || map_->ready(slot.offset, slot.length));  // I1
  slot.uncounted = slot.flushing = false;
  slot.losses = losses_;
  // guard:target-writes-through: what this copy has counts for nothing yet, and the peer may lose
  // what is not stored.
  slot.fua = slot.fua || needs_peer_;
  slot.mode = slot.fua ? Replication::kFullsync : effective_mode();
  slot.missed = false;
  slot.local_errno = local_detached_ ? EIO : 0;
  slot.remote_errno = 0;
  slot.remote_done = nullptr;
  slot.local = local_detached_ ? Outcome::kError : Outcome::kPending;
  if (attached()) {
    slot.remote = Outcome::kPending;
    if (slot.op == RequestOp::kWrite) {
      link_->send_write(slot, false);
    } else {
      link_->send_delete(slot);
    }
  } else {
    slot.remote = Outcome::kNone;
    map_->mark_sync(slot.offset, slot.length);  // guard:mark-lone-write
  }
  if (slot.local == Outcome::kPending) {
    submit_local(slot);
  } else {
    unlock(slot);
    progress(slot);
  }
}

void Primary::submit_local(Slot& slot) {
  ++local_queue_;
  slot.disk.run = &Primary::local_done;
  const uint64_t at = data_offset_ + slot.offset;
  if (slot.op == RequestOp::kWrite) {
    // guard:beside-one-behind-it-is-stored: nothing is taken back from there after a power cut.
    const bool through = slot.fua || (attached() && metadata_.extra().peer_behind);
    disk_.submit_write(slot.disk, at, ConstBytes(slot.buffer, slot.length), through);
  } else {
    disk_.submit_discard(slot.disk, at, slot.length);
  }
}

void Primary::local_done(Completion& c) {
  Slot& slot = *static_cast<Slot::Disk&>(c).slot;
  Primary& self = *slot.primary;
  --self.local_queue_;
  self.note_local(slot, c.result);
  // Complete locally, and long since queued on the stream: the next overlapping one may start (rule
  // 2).
  self.unlock(slot);
  self.progress(slot);
}

void Primary::note_local(Slot& slot, int rc) {
  if (rc == 0) {
    slot.local = Outcome::kOk;
    return;
  }
  if (slot.op == RequestOp::kDelete && rc == -EOPNOTSUPP) {
    // Nothing was punched here. Between ours the copies must stay equal, so the range is copied.
    can_trim_ = false;
    slot.local = Outcome::kOk;
    slot.missed = attached() && link_->settings().extended;
    return;
  }
  slot.local = Outcome::kError;
  slot.local_errno = -rc;
  count_error(slot.op);
  const bool peer_has_it = slot.remote != Outcome::kNone && slot.remote != Outcome::kLost;
  if (!peer_has_it || !detach_local("a write", -rc)) {
    logf(host_, LogLevel::kError, "Local write failed at %llu (%llu bytes): %s.",
         static_cast<unsigned long long>(slot.offset), static_cast<unsigned long long>(slot.length),
         std::strerror(-rc));
  }
}

void Primary::remote_received(Slot& slot) {
  HAST_ASSERT(link_ == nullptr || slot.link == link_);  // I3
  slot.remote = Outcome::kReceived;
  progress(slot);
}

void Primary::remote_final(Slot& slot, int error) {
  HAST_ASSERT(link_ == nullptr || slot.link == link_);  // I3
  slot.remote_errno = error;
  if (slot.remote_done != nullptr) {
    Completion* done = slot.remote_done;
    slot.remote_done = nullptr;
    Loop::current().ready(*done, -error);
    return;
  }
  if (slot.op == RequestOp::kDelete && error == EOPNOTSUPP) {
    can_trim_ = false;
    slot.missed = attached() && link_->settings().extended;
    error = 0;
  }
  if (error != 0) {
    logf(host_, LogLevel::kWarning,
         "The peer failed a %s at %llu (%llu bytes): %s; the range is marked to be copied.",
         slot.op == RequestOp::kWrite ? "write" : "delete",
         static_cast<unsigned long long>(slot.offset), static_cast<unsigned long long>(slot.length),
         std::strerror(error));
    requests_.spawn(settle_missed(slot));
    return;
  } else if (slot.fua && slot.op == RequestOp::kWrite && attached() &&
             !link_->settings().extended) {
    requests_.spawn(flush_fua(slot));
    return;
  } else {
    slot.remote = Outcome::kOk;
  }
  progress(slot);
}

/// The peer has failed a write that we have: as after its loss, our copy counts as the newer one
/// before the write is answered (rule 8).
Task<void> Primary::settle_missed(Slot& slot) {
  map_->mark_sync(slot.offset, slot.length);  // guard:missed-before-its-end
  // Of what fails there meanwhile, the peer notes nothing: guard:only-whole-copy-notes-nothing
  if (whole_untold_) slot.uncounted = true;
  if (slot.local != Outcome::kError && !needs_peer_ && !local_detached_) {
    const int rc = co_await ensure_counted();  // guard:count-missed-write
    if (rc != 0) slot.uncounted = true;
  }
  slot.remote = Outcome::kError;
  progress(slot);
}

/// An original knows no FUA: its write becomes durable by the FLUSH that follows.
Task<void> Primary::flush_fua(Slot& slot) {
  const int rc = co_await flush_covering();  // guard:fua-is-flushed
  const bool durable = rc == 0 && attached() && slot.losses == losses_;
  if (durable) {
    slot.remote = Outcome::kOk;
    progress(slot);
    co_return;
  }
  // It is stored there, nobody knows how safely: the same as if the peer had failed it.
  co_await settle_missed(slot);
}

/// No disk punches a hole durably by itself: a flush follows, of both, before the answer.
Task<void> Primary::flush_delete(Slot& slot) {
  const int rc = co_await flush_covering();  // guard:hole-is-flushed
  // What only this copy has is overwritten when the peer with the good one is back.
  const bool undone = needs_peer_ && slot.losses != losses_;
  answer(slot, undone ? EIO : -rc);
  slot.flushing = false;
  progress(slot);
}

void Primary::progress(Slot& slot) {
  if (slot.flushing) return;
  if (!slot.is_answered && slot.remote == Outcome::kOk && is_final(slot.local) &&
      slot.losses != losses_) {
    // The peer that said so has been lost since, with its cache perhaps, and what is connected now
    // may lack it: guard:word-of-a-lost-peer
    slot.remote = Outcome::kPending;
    requests_.spawn(settle_missed(slot));
    return;
  }
  if (!slot.is_answered) {
    // While the peer has the newer data, only its final word makes a write safe: what it lacks is
    // overwritten from there.
    const Replication mode =
        needs_peer_ ? Replication::kFullsync : slot.mode;  // guard:target-waits
    // Once the disk is given up, what it has stored counts for nothing.
    const Outcome local = local_detached_ && slot.local == Outcome::kOk
                              ? Outcome::kError
                              : slot.local;  // guard:detached-counts-nothing
    Verdict verdict = write_verdict(mode, local, slot.remote);
    // A success that rests on the peer alone must first be remembered somewhere (rule 6).
    if (verdict == Verdict::kSuccess && local == Outcome::kError && !stale_recorded_) {
      verdict = stale_impossible_ || !local_detached_
                    ? Verdict::kFailure
                    : Verdict::kWait;  // guard:stale-before-answer
    }
    const bool lacking = slot.remote == Outcome::kError || slot.remote == Outcome::kLost;
    if (lacking && (needs_peer_ || slot.uncounted)) {
      verdict = Verdict::kFailure;  // guard:target-needs-peer
    }
    if (verdict == Verdict::kSuccess && slot.fua && slot.op == RequestOp::kDelete) {
      slot.flushing = true;
      requests_.spawn(flush_delete(slot));
      return;
    }
    if (verdict == Verdict::kSuccess) answer(slot, 0);
    if (verdict == Verdict::kFailure) answer(slot, slot.local_errno != 0 ? slot.local_errno : EIO);
  }
  if (slot.is_answered && is_final(slot.local) && is_final(slot.remote)) settle(slot);
}

/// Every component has reported: only now the extents may become clean.
void Primary::settle(Slot& slot) {
  if (!slot.map_held) return;
  uint8_t stored = 0;
  if (slot.local == Outcome::kOk) stored |= kLocal;
  if (slot.remote == Outcome::kOk) stored |= kRemote;
  // A lone write was marked when it was issued. Everything else without a final OK of both is
  // marked here, before its pending count goes.
  // A peer that was lost after its word has it unflushed at best, like all that was marked then.
  const bool lost_since =
      slot.remote == Outcome::kOk && slot.losses != losses_;  // guard:lost-since
  if (lost_since) peer_lacks_ = true;
  const bool unconfirmed =
      slot.remote == Outcome::kError || slot.remote == Outcome::kLost || lost_since;
  const bool missed = slot.missed || slot.local == Outcome::kError || unconfirmed;  // guard:missed
  map_->write_end(slot.offset, slot.length, stored, missed);  // no guard: `missed` is
  slot.map_held = false;
  if (missed) sync_->kick();
  if (unflushed_since_us_ == 0) unflushed_since_us_ = Loop::current().now_us();
  slot.engine_holds = false;
  --in_flight_;
  settled_.wake_all();
  maybe_free(slot);
  if (map_->unflushed_count() > metadata_.metadata().keepdirty && !flushing_) {
    flushing_ = true;
    flush_wanted_ = flush_begun_ + 1;
    scope_.spawn(run_flushes());
  }
}

// --- FLUSH
// ----------------------------------------------------------------------------------------

Task<void> Primary::serve_flush(Slot& slot) {
  if (stopping_) {
    finish(slot, ESHUTDOWN);
    co_return;
  }
  const int rc = co_await flush_covering();  // guard:flush-before-its-answer
  finish(slot, -rc);
}

/// Returns when a flush that began after this call has ended.
Task<int> Primary::flush_covering() {
  const uint64_t mine = flush_begun_ + 1;
  if (flush_wanted_ < mine) flush_wanted_ = mine;
  FlushWaiter waiter{mine, flush_waiters_};
  flush_waiters_ = &waiter;
  if (!flushing_) {
    flushing_ = true;
    scope_.spawn(run_flushes());
  }
  const int rc = co_await waiter.ended;
  co_return rc;
}

Task<void> Primary::run_flushes() {
  while (flush_ended_ < flush_wanted_) {
    while (!admission_open_) co_await admission_.wait();
    ++flush_begun_;
    const int rc = co_await flush_both();
    flush_ended_ = flush_begun_;
    tell_flushed(rc);
  }
  flushing_ = false;
}

/// Everybody whose flush has ended is told how that one went, whatever the next one says.
void Primary::tell_flushed(int rc) {
  FlushWaiter** at = &flush_waiters_;
  while (FlushWaiter* waiter = *at) {
    if (waiter->wanted > flush_ended_) {
      at = &waiter->next;
      continue;
    }
    *at = waiter->next;
    Loop::current().ready(waiter->ended, rc);
  }
}

Task<int> Primary::flush_both() {
  map_->flush_begin();
  unflushed_since_us_ = 0;
  Link* link = link_;
  const uint64_t losses = losses_;
  Signal remote;
  if (link != nullptr) link->ask_flush(remote);  // guard:the-peer-flushes
  const int local = co_await flush_local();
  map_->flush_end(kLocal, local == 0);  // guard:failed-flush-cleans-nothing
  int peer = 0;
  if (link != nullptr) {
    peer = co_await remote;
    if (peer == -EOPNOTSUPP) {
      if (!uncached_warned_) {
        host_.log(LogLevel::kWarning,
                  "The peer cannot flush its disk; taken as one without a cache.");
      }
      uncached_warned_ = true;
      peer = 0;
    }
    if (peer != 0 && losses == losses_) {
      logf(host_, LogLevel::kError, "The peer failed to flush: %s.", std::strerror(-peer));
      link->shut_down("the peer failed to flush", -peer);
    }
  }
  // A peer that was lost meanwhile has taken its unflushed extents to the sync set with it:
  // guard:flushed-by-a-lost-peer
  map_->flush_end(kRemote, link != nullptr && peer == 0 && losses == losses_);
  if (peer != 0) {
    // Rule 9: the loss is settled first (rule 7), then the local flush alone decides.
    while (!admission_open_) co_await admission_.wait();
  }
  if (peer != 0 || link == nullptr) {
    if (local != 0 || local_detached_) co_return -EIO;
    // What is promised from here on, the peer may never have been given.
    const bool alone = started_ && may_be_ahead() && map_->sync_count() > 0;
    if (alone && needs_peer_) co_return -EIO;                   // guard:behind-promises-nothing
    const int counted = alone ? co_await ensure_counted() : 0;  // guard:count-before-lone-flush
    if (counted != 0 || !started_) co_return counted;
    const int noted = co_await note_peer_behind();  // guard:lone-flush-is-noted
    co_return noted;
  }
  if (local == 0) co_return 0;
  // The peer has flushed all of it; success once it is known that our own copy is stale.
  while (local_detached_ && !stale_recorded_ && !stale_impossible_) co_await settled_.wait();
  co_return stale_recorded_ ? 0 : -EIO;
}

Task<int> Primary::flush_local() {
  if (local_detached_) co_return -EIO;
  int rc = -EIO;
  if (!flush_failed_) rc = co_await disk_.flush();  // guard:this-node-flushes
  // guard:any-failed-flush: one for the map or the metadata loses user data just the same.
  if (metadata_.flush_failed() || map_store_->flush_failed()) rc = -EIO;
  if (rc == 0) co_return 0;
  ++counters_.flush_errors;
  // After a failed flush nobody knows what is stored; a second one that succeeds would prove
  // nothing.
  const bool first = !flush_failed_;
  if (first) logf(host_, LogLevel::kError, "Local flush failed: %s.", std::strerror(-rc));
  flush_failed_ = true;  // guard:failed-flush-is-final
  // guard:failed-flush-outlives-a-crash
  if (!detach_local("a flush", -rc) && first) scope_.spawn(tell_next_life());
  co_return rc;
}

// --- a local component that fails (rule 6)
// --------------------------------------------------------

void Primary::count_error(RequestOp op) {
  if (op == RequestOp::kRead) ++counters_.read_errors;
  if (op == RequestOp::kWrite) ++counters_.write_errors;
  if (op == RequestOp::kDelete) ++counters_.delete_errors;
}

bool Primary::peer_has_all() const {
  return attached() && (source_ == SyncSource::kSecondary || map_->sync_count() == 0);
}

bool Primary::detach_local(const char* what, int error) {
  if (local_detached_) return true;
  if (!peer_has_all()) return false;  // guard:no-detach-without-copy
  logf(host_, LogLevel::kError,
       "The local component failed (%s: %s): detached. All I/O goes to the peer from here on; "
       "replace the disk, then 'hastctl role init', 'hastctl create', 'hastctl role secondary'.",
       what, std::strerror(error));
  local_detached_ = true;
  scope_.spawn(record_stale());
  return true;
}

/// With the peer and here. One of them makes it safe (rule 6); a disk that hangs is not waited for
/// any longer than this.
Task<void> Primary::record_stale() {
  stale_impossible_ = false;
  Scope patience;
  SleepTimer timer;
  bool recorded = false;
  if (attached() && link_->settings().extended) {  // guard:stale-is-told
    Signal done;
    link_->ask_stale(done, metadata_.extra().generation, true);
    const int rc = co_await done;
    recorded = rc == 0;
    if (recorded) patience.spawn(note_stale_recorded_after(timer));
  }
  // A peer that does not know that it has all would be no source either:
  // guard:stale-is-not-recorded-here-alone
  const bool here = recorded || peer_knows_all();
  // No guard: what it changes is.
  const int rc = here ? co_await update_metadata(note_own_stale) : -EAGAIN;
  timer.wake();
  co_await patience.join();
  stale_recorded_ = stale_recorded_ || recorded || rc == 0;
  stale_impossible_ = !stale_recorded_;
  if (stale_impossible_) {
    host_.log(LogLevel::kError,
              "That the local data is stale could be recorded nowhere: writes fail from here on.");
  }
  let_stale_go_on();
}

/// guard:stale-is-recorded; and the peer has all that our counter spoke of.
void Primary::note_own_stale(Metadata& metadata, Extra& extra, Primary& self) {
  extra.local_stale = true;
  metadata.localcnt = std::min(metadata.localcnt, self.peer_.remotecnt);
  extra.set({});
}

Task<void> Primary::note_stale_recorded_after(SleepTimer& timer) {
  const int woken = co_await timer.sleep_us(kSecond);
  if (woken != 0) co_return;
  stale_recorded_ = true;
  let_stale_go_on();
}

/// For those that wait until it is known whether it could be recorded.
void Primary::let_stale_go_on() {
  settled_.wake_all();
  for (uint32_t i = 0; i < kRequestsMax; ++i) {
    Slot& slot = pool_.at(i);
    const bool waits = slot.use == Slot::Use::kClient && slot.engine_holds && !slot.is_answered &&
                       slot.local != Outcome::kNone;
    if (waits) progress(slot);
  }
}

}  // namespace hast
