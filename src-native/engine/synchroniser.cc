#include "engine/synchroniser.h"

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "base/units.h"
#include "engine/primary.h"

namespace hast {

namespace {
constexpr uint64_t kSecond = 1000000;
}  // namespace

Task<void> Synchroniser::run(bool compare, bool target_told) {
  while (!stopped_) {
    // A disk that was given up is neither source nor target.
    while (!stopped_ && primary_.local_detached_)
      co_await wake_.wait();  // guard:detached-is-no-source
    if (stopped_) break;
    const bool work = primary_.map_->sync_count() > 0;
    const uint64_t began_us = Loop::current().now_us();
    if (work) {
      logf(primary_.host_, LogLevel::kInfo, "Synchronisation started. %s to go.",
           size_text(bytes_to_go()).text);
      primary_.counters_.sync_bytes_done = 0;
      primary_.host_.event(EventName::kSyncStart);
    }
    pass_bytes_ = 0;
    // guard:target-is-told: what the peer missed makes it a target (rule 16), also when it was none
    // at the handshake.
    if (work && !target_told && primary_.source_ != SyncSource::kSecondary) {
      primary_.source_ = SyncSource::kPrimary;
      co_await tell_target();
      target_told = true;
    }
    const bool done = co_await pass(compare);
    if (stopped_) {
      if (work) tell_interrupted();
      break;
    }
    if (done && work) {
      const uint64_t us = std::max<uint64_t>(1, Loop::current().now_us() - began_us);
      logf(primary_.host_, LogLevel::kInfo, "Synchronisation complete. %s in %s (%s/s).",
           size_text(pass_bytes_).text, duration_text(us).text,
           size_text(pass_bytes_ * kSecond / us).text);
      primary_.host_.event(EventName::kSyncDone);
    } else if (done) {
      primary_.host_.log(LogLevel::kInfo, "The nodes are in sync.");
    }
    if (done) {
      compare = target_told = false;
      while (!stopped_ && primary_.map_->sync_count() == 0) co_await wake_.wait();
    }
    // What failed is tried again, but not at once: the disk or the peer has just said no.
    if (!stopped_) co_await retry_.sleep_us(kSecond);
  }
}

uint64_t Synchroniser::bytes_to_go() const {
  return uint64_t{primary_.map_->sync_count()} * primary_.map_->extent_bytes();
}

void Synchroniser::tell_interrupted() {
  logf(primary_.host_, LogLevel::kInfo, "Synchronisation interrupted. %s copied, %s to go.",
       size_text(pass_bytes_).text, size_text(bytes_to_go()).text);
  primary_.host_.event(EventName::kSyncIntr);
}

/// Before the first byte of a pass; the message before it may still be on its way.
Task<void> Synchroniser::tell_target() {
  constexpr uint64_t kPauseUs = 1000;
  while (!stopped_ && primary_.attached() && primary_.link_->settings().extended) {
    const uint64_t extents = primary_.map_->sync_count();
    if (primary_.link_->tell_map_stored(extents * primary_.map_->extent_bytes())) break;
    SleepTimer pause;
    co_await pause.sleep_us(kPauseUs);
  }
}

/// One run over the sync set. True when it is empty, stored and counted.
Task<bool> Synchroniser::pass(bool compare) {
  failed_chunk_ = false;
  uint32_t extent = 0;
  while (!stopped_ && !failed_chunk_) {
    extent = primary_.map_->next_sync(extent);
    if (extent == Activemap::kNone) break;
    ExtentCopy* copy = free_copy();
    if (copy == nullptr) {
      co_await wake_.wait();
      continue;
    }
    *copy = ExtentCopy{};
    copy->used = true;
    copy->extent = extent;
    const bool begun = co_await copy_extent(*copy, compare);
    if (!begun) break;
    ++extent;
  }
  co_await scope_.join();
  if (stopped_ || failed_chunk_) co_return false;
  const bool finished = co_await finish_pass();
  co_return finished;
}

Synchroniser::ExtentCopy* Synchroniser::free_copy() {
  for (ExtentCopy& copy : copies_) {
    if (!copy.used) return &copy;
  }
  return nullptr;
}

uint32_t Synchroniser::chunks_allowed() const {
  const bool users = Loop::current().now_us() - last_user_us_ < kUserQuietUs;
  return users ? kChunksBesideUsers : kChunksMax;
}

/// Bytes; the last extent may be a short one.
uint64_t Synchroniser::length_of(uint32_t extent) const {
  const uint64_t bytes = primary_.map_->extent_bytes();
  return std::min(bytes, primary_.metadata_.metadata().datasize - extent * bytes);
}

/// Begins all chunks of an extent. False: stopped before all were begun.
Task<bool> Synchroniser::copy_extent(ExtentCopy& copy, bool compare) {
  Activemap& map = *primary_.map_;
  const uint64_t begin = uint64_t{copy.extent} * map.extent_bytes();
  const uint64_t end = begin + length_of(copy.extent);
  map.sync_begin(copy.extent);
  for (uint64_t offset = begin; offset < end && !stopped_;) {
    Slot* slot = chunks_ < chunks_allowed() ? primary_.pool_.acquire_for_sync() : nullptr;
    if (slot == nullptr) {
      co_await wake_.wait();
      continue;
    }
    slot->offset = offset;
    slot->length = std::min<uint64_t>(kRequestBytesMax, end - offset);
    offset += slot->length;
    ++chunks_;
    ++copy.chunks_open;
    if (offset >= end) copy.all_begun = true;
    scope_.spawn(copy_chunk(*slot, copy, compare));
  }
  if (copy.all_begun) co_return true;
  copy.all_begun = true;
  if (copy.chunks_open == 0) finish_chunk(copy, -ECANCELED, 0);
  co_return false;
}

Task<void> Synchroniser::copy_chunk(Slot& slot, ExtentCopy& copy, bool compare) {
  slot.engine_holds = true;
  slot.local = slot.remote = Outcome::kNone;
  slot.remote_done = nullptr;
  co_await primary_.lock(slot, RangeMode::kExclusive);
  int rc = -ECANCELED;
  if (!stopped_) {
    if (primary_.source_ == SyncSource::kSecondary) {
      rc = co_await chunk_from_peer(slot);
    } else {
      rc = co_await chunk_to_peer(slot, compare);
    }
  }
  primary_.unlock(slot);
  const uint64_t bytes = slot.length;
  slot.engine_holds = false;
  primary_.pool_.release(slot);
  --chunks_;
  HAST_ASSERT(copy.chunks_open > 0);
  --copy.chunks_open;
  finish_chunk(copy, rc, bytes);
}

Task<int> Synchroniser::chunk_to_peer(Slot& slot, bool compare) {
  const int read = co_await primary_.disk_.read(primary_.data_offset_ + slot.offset,
                                                Bytes(slot.buffer, slot.length));
  if (read != 0) {
    ++primary_.counters_.read_errors;
    co_return read;
  }
  if (compare && !stopped_ && primary_.attached()) {
    Signal answered;
    slot.op = RequestOp::kRead;
    slot.remote_done = &answered;
    slot.remote = Outcome::kPending;
    slot.remote_equal = 0;
    primary_.link_->send_compare(slot);
    const int rc = co_await answered;
    if (rc != 0) co_return rc;
    if (slot.remote_equal == 1) co_return 0;
  }
  if (stopped_ || !primary_.attached() || primary_.local_detached_) co_return -ENOTCONN;
  Signal stored;
  slot.op = RequestOp::kWrite;
  slot.mode = Replication::kFullsync;
  slot.remote_done = &stored;
  slot.remote = Outcome::kPending;
  primary_.link_->send_write(slot, true);
  // Wholly queued: overlapping user writes go behind it from here on (rule 3).
  primary_.unlock(slot);
  const int rc = co_await stored;
  co_return rc;
}

Task<int> Synchroniser::chunk_from_peer(Slot& slot) {
  if (!primary_.attached()) co_return -ENOTCONN;
  slot.op = RequestOp::kRead;
  const int rc = co_await primary_.read_remote(slot);
  if (rc != 0) co_return rc;
  if (stopped_) co_return -ECANCELED;  // a chunk of an old connection is dropped
  const int written = co_await primary_.disk_.write(primary_.data_offset_ + slot.offset,
                                                    ConstBytes(slot.buffer, slot.length), false);
  if (written != 0) ++primary_.counters_.write_errors;
  co_return written;
}

void Synchroniser::finish_chunk(ExtentCopy& copy, int rc, uint64_t bytes) {
  if (rc != 0) {
    failed_chunk_ = true;
    if (rc != -ECANCELED && rc != -ENOTCONN) {
      logf(primary_.host_, LogLevel::kWarning,
           "Copying extent %u failed (error %d); it stays marked and is tried again.", copy.extent,
           -rc);
    }
  } else {
    copy.confirmed += bytes;
    measure(bytes);
  }
  if (copy.all_begun && copy.chunks_open == 0) {
    const uint8_t target = primary_.source_ == SyncSource::kSecondary ? kLocal : kRemote;
    // guard:sync-all-chunks (I1)
    const bool copied = copy.confirmed == length_of(copy.extent) && !stopped_;
    primary_.map_->sync_end(copy.extent, target, copied);  // no guard: it is `copied`
    if (primary_.unflushed_since_us_ == 0) {
      primary_.unflushed_since_us_ = Loop::current().now_us();
    }
    copy.used = false;
  }
  wake_.wake_all();
}

/// Target flushed, bits cleared durably, then counters (rule 10).
Task<bool> Synchroniser::finish_pass() {
  Primary& p = primary_;
  const int flushed = co_await p.flush_covering();  // guard:copied-is-flushed
  if (flushed != 0 || stopped_ || !p.attached() || p.map_->sync_count() > 0) co_return false;
  if (p.local_detached_) co_return false;
  const int stored = co_await p.map_store_->store_all();  // no guard: bits that stay cost a copy
  if (stored != 0 || stopped_ || !p.attached() || p.map_->sync_count() > 0) co_return false;
  // No guard: it takes back what guards have set; when it may not, says a guard within.
  const int rc = co_await p.update_metadata([](Metadata& metadata, Extra& extra, Primary& self) {
    // Only what is still true in our turn; a write that is counted from here on comes after this.
    // guard:count-after-pass; and a disk that has failed meanwhile is stale, whatever was copied to
    // it.
    // guard:failed-disk-ends-no-pass
    if (!self.attached() || self.map_->sync_count() > 0 || self.local_detached_) return;
    self.counted_ = self.peer_lacks_ = false;
    metadata.localcnt = self.peer_.remotecnt;
    metadata.remotecnt = self.peer_.localcnt;
    extra.sync_target = extra.discarded = false;
    extra.local_stale = extra.peer_stale = extra.peer_behind = false;
    extra.boot = self.config_.bootid;
    if (self.link_->settings().extended) self.offer_generation(extra);
  });
  if (rc != 0 || stopped_ || !p.attached() || p.map_->sync_count() > 0) co_return false;
  if (p.local_detached_) co_return false;
  p.needs_peer_ = false;
  const bool from_peer = p.source_ == SyncSource::kSecondary;
  // guard:whole-is-no-target: should the peer refuse the end, what it lacks by then is here.
  if (from_peer) p.source_ = SyncSource::kPrimary;
  if (p.link_->settings().extended) {
    p.whole_untold_ = from_peer;
    Signal done;
    const Generations ids = p.metadata_.extra().generations();
    HAST_ASSERT(ids.current == ids.offered || ids.current == ids.shared);  // I2
    const uint64_t offered = ids.current;
    p.link_->ask_sync_done(done, offered);
    const int told = co_await done;
    p.whole_untold_ = false;
    if (told != 0 || stopped_) co_return false;
    p.peer_.generation = offered;
    // guard:told-is-shared: a peer that comes with an older one from here on was put back.
    if (ids.shared != offered) co_await p.update_metadata(Primary::hear_of_end);
    if (stopped_) co_return false;
  }
  p.source_ = SyncSource::kNone;
  p.caught_up_ = true;
  co_return true;
}

void Synchroniser::measure(uint64_t bytes) {
  EngineCounters& counters = primary_.counters_;
  counters.sync_bytes_done += bytes;
  pass_bytes_ += bytes;
  const uint64_t now = Loop::current().now_us();
  if (window_began_us_ == 0) window_began_us_ = now;
  window_bytes_ += bytes;
  const uint64_t us = now - window_began_us_;
  if (us < kSecond / 4) return;
  counters.sync_bytes_per_second = window_bytes_ * kSecond / us;
  window_began_us_ = now;
  window_bytes_ = 0;
}

}  // namespace hast
