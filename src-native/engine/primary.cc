// The primary's life: loading, the first decision, the connection, the loss of the peer.

#include "engine/primary.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "base/assert.h"
#include "engine/synchroniser.h"

namespace hast {

namespace {
constexpr uint64_t kSecond = 1000000;
constexpr uint64_t kTickUs = kSecond;
constexpr uint64_t kUnflushedMaxUs = 5 * kSecond;
constexpr uint64_t kReconnectMaxUs = 10 * kSecond;
constexpr uint32_t kFirstAnswerMsMax = 5000;

PeerWord word_of(const Attempt& attempt) {
  const bool ours = attempt.settings.extended;
  return {ours, attempt.source == SyncSource::kSecondary, attempt.peer_localcnt,
          attempt.peer_remotecnt, ours ? attempt.peer_generation : 0};
}

/// As a new disk does until a primary has stored that all is to be copied to it.
bool wants_all(const Attempt& attempt, uint32_t extents) {
  return marks_all(ConstBytes(attempt.map), extents);
}

/// Has an original what our machine lost with its power? Of two of ours the secondary says so
/// (`decide`); an original cannot be asked, but nobody has written alone since. One that wants all
/// to be copied to it has nothing.
bool has_what_we_lost(const Attempt& attempt, const Metadata& own, uint32_t extents) {
  if (wants_all(attempt, extents)) return false;  // guard:new-disk-gives-nothing-back
  return !attempt.settings.extended && !attempt.peer_virgin &&
         attempt.peer_localcnt == own.remotecnt && attempt.peer_remotecnt == own.localcnt;
}

[[gnu::format(printf, 4, 5)]] void fail(StartFailure& failure, int exit, const char* code,
                                        const char* format, ...) {
  failure.exit = exit;
  failure.code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(failure.text, sizeof failure.text, format, arguments);
  va_end(arguments);
}
}  // namespace

Primary::Primary(Component& disk, Dialer& dialer, EngineHost& host, PrimaryConfig config,
                 std::byte* slab, std::size_t stride)
    : disk_(disk),
      dialer_(dialer),
      host_(host),
      config_(std::move(config)),
      settings_(config_.settings),
      metadata_(disk),
      connector_(dialer, metadata_, host, *this),
      pool_(*this, slab, stride),
      sync_(std::make_unique<Synchroniser>(*this)) {}

Primary::~Primary() = default;

uint64_t Primary::size_bytes() const {
  return round_down(metadata_.metadata().datasize, block_bytes_);
}

// --- start
// ----------------------------------------------------------------------------------------

Task<int> Primary::load(StartFailure& failure) {
  const char* why = "";
  const int rc = co_await metadata_.load(config_.resource, &why);
  if (rc != 0) {
    fail(failure, 66, "META_UNREADABLE", "the metadata of the local component %s%s%s", why,
         rc == -EINVAL ? "" : ": ", rc == -EINVAL ? "" : std::strerror(-rc));
    co_return rc;
  }
  const Metadata& metadata = metadata_.metadata();
  last_role_ = metadata.prevrole;
  const uint32_t sector = disk_.facts().sector_bytes;
  block_bytes_ = config_.block_bytes == 0 ? sector : config_.block_bytes;
  data_offset_ = metadata.offset;
  can_trim_ = disk_.facts().can_discard;
  map_ = std::make_unique<Activemap>(metadata.datasize, metadata.extentsize, metadata.keepdirty,
                                     sector);
  map_store_ = std::make_unique<MapStore>(disk_, *map_, scope_);
  map_store_->set_flush(settings_.metaflush);
  const int loaded = co_await map_store_->load();
  if (loaded != 0) {
    fail(failure, 66, "META_UNREADABLE", "the activemap cannot be read: %s",
         std::strerror(-loaded));
    co_return loaded;
  }
  inherit_failed_flush();
  co_return 0;
}

Task<bool> Primary::start(StartFailure& failure) {
  const int rc = co_await load(failure);
  if (rc != 0) co_return false;
  scope_.spawn(tick());
  const bool serve = co_await decide_start(failure);
  started_ = serve;
  if (serve) co_await note_life();  // guard:boot-before-serving
  co_return serve;
}

/// What a life before knew of the disk. Since the machine has started anew a read gives what is
/// stored, but what the peer has of the rest was not recorded.
void Primary::inherit_failed_flush() {
  const Extra& own = metadata_.extra();
  // By force its FLUSH may say yes, but what is stored is as unknown as before.
  if (!own.flush_failed || config_.force) return;
  flush_failed_ = own.boot == config_.bootid;  // guard:failed-flush-is-inherited
  if (!flush_failed_) mark_all();              // guard:failed-flush-before-a-restart
  marked_all_ = !flush_failed_;
  host_.log(LogLevel::kWarning,
            flush_failed_
                ? "A flush of the local disk has failed before: every FLUSH fails until the peer "
                  "has all data, unless 'hastctl role -f primary' says that what is here counts."
                : "A flush of the local disk had failed before this machine was started again: "
                  "everything is synchronised.");
}

/// Rule 21: one attempt to reach the peer decides how to begin.
Task<bool> Primary::decide_start(StartFailure& failure) {
  std::unique_ptr<Attempt> attempt;
  const bool alone = co_await no_second_primary(attempt, failure);
  if (!alone) co_return false;
  keeping_ = true;
  scope_.spawn(keep_connected(std::move(attempt)));
  // Routing is known when the attempt's maps are merged, or when it is clear that there is no peer.
  while (keeping_ && last_kind_ == AttemptKind::kConnected && !attached()) {
    co_await attached_waiters_.wait();
  }
  if (attached()) co_return true;
  if (stopping_) {  // guard:called-off-counts-nothing
    fail(failure, 0, "ROLE_REFUSED", "stopped while it was starting");
    co_return false;
  }
  if (config_.force) {
    const int rc = co_await trust_own_copy();
    if (rc == 0) co_return true;
    fail(failure, 66, "META_WRITE", "the metadata cannot be stored: %s", std::strerror(-rc));
    co_return false;
  }
  if (!may_lead_alone(failure)) co_return false;
  logf(host_, LogLevel::kWarning, "Serving without the peer: %s%s", last_attempt_,
       full_stop(last_attempt_));
  co_return true;
}

/// One attempt, or as many as it takes until the peer's own demotion has ended. False: it stays
/// primary, or this start was called off.
Task<bool> Primary::no_second_primary(std::unique_ptr<Attempt>& attempt, StartFailure& failure) {
  Loop& loop = Loop::current();
  const uint64_t busy_until = loop.now_us() + uint64_t{settings_.timeout_ms} * 1000;
  while (!stopping_) {
    attempt = std::make_unique<Attempt>();
    co_await attempt_once(*attempt);
    if (attempt->kind == AttemptKind::kChanged) continue;
    if (attempt->kind != AttemptKind::kBusy || config_.force) break;
    if (loop.now_us() >= busy_until) {  // guard:no-second-primary
      fail(failure, 69, "ROLE_REFUSED",
           "the peer is primary. Demote it first ('hastctl role secondary %s' there), or, if it is "
           "certain that its data is to be given up, use 'hastctl role -f primary %s'",
           config_.resource.c_str(), config_.resource.c_str());
      co_return false;
    }
    co_await reconnect_.sleep_us(kSecond);
  }
  if (stopping_) fail(failure, 0, "ROLE_REFUSED", "stopped while it was starting");
  co_return !stopping_;
}

/// Is what is here whole, as far as this node knows?
bool Primary::may_lead_alone(StartFailure& failure) const {
  const Extra& extra = metadata_.extra();
  if (extra.sync_target || extra.local_stale) {  // guard:incomplete-is-not-promoted
    fail(failure, 69, "ROLE_REFUSED",
         "this node's copy is %s and the peer that has the good one cannot be reached (%s). "
         "Make the peer primary, or bring it up as secondary first; 'hastctl role -f primary %s' "
         "serves what is here",
         extra.sync_target ? "incomplete: it was being synchronised" : "stale", last_attempt_,
         config_.resource.c_str());
    return false;
  }
  // guard:power-cut-secondary-is-not-promoted
  if (extra.lost_cache(config_.bootid) && last_role_ == Role::kSecondary) {
    fail(
        failure, 69, "ROLE_REFUSED",
        "this machine went down while it was the secondary: what it had not flushed may be missing "
        "here, and the peer cannot be reached (%s). Bring the peer up as secondary or make it "
        "primary; 'hastctl role -f primary %s' serves what is here",
        last_attempt_, config_.resource.c_str());
    return false;
  }
  return true;
}

/// `role -f`: the operator has decided that what is here counts. From now on it does, once and for
/// all.
Task<int> Primary::trust_own_copy() {
  config_.force = false;
  const Extra& own = metadata_.extra();
  if (!own.sync_target && !own.local_stale && !own.lost_cache(config_.bootid)) co_return 0;
  if (own.local_stale) {
    mark_all();                                       // guard:forced-stale-is-copied-whole
    const int stored = co_await map_store_->store();  // no guard: it is one with the line above
    if (stored != 0) co_return stored;
  }
  // guard:force-counts-for-good
  const int rc = co_await update_metadata([](Metadata&, Extra& extra, Primary& self) {
    extra.sync_target = extra.local_stale = extra.discarded = false;
    extra.boot = self.config_.bootid;
  });
  co_return rc;
}

/// Which extents a stale copy misses was not recorded (rule 6). No guard: its callers are.
void Primary::mark_all() {
  const std::vector<std::byte> all(map_->map_bytes(), std::byte{0xff});
  map_->merge(ConstBytes(all));
}

void Primary::take_boot(Metadata&, Extra& extra, Primary& self) {
  extra.boot = self.config_.bootid;  // no guard: it is one with its callers
}

/// From now on there is something that a power cut may take, and that the peer may not have. A
/// power cut that has taken something is remembered until that is settled.
Task<void> Primary::note_life() {
  const Extra& own = metadata_.extra();
  const bool ahead = own.ahead || loose();
  const bool fell = own.lost_cache(config_.bootid);
  if (marked_all_) {
    const int stored = co_await map_store_->store();  // guard:all-marked-first
    marked_all_ = stored == 0 && !local_detached_;
  }
  if ((own.boot == config_.bootid || fell) && own.ahead == ahead && !marked_all_) co_return;
  // No guard: it is one with the call.
  co_await update_metadata([](Metadata&, Extra& extra, Primary& self) {
    // No guard: it takes back what a guard has set.
    if (self.marked_all_) extra.flush_failed = false;
    // guard:power-cut-is-not-forgotten
    if (!extra.lost_cache(self.config_.bootid)) extra.boot = self.config_.bootid;
    extra.ahead = extra.ahead || self.loose();  // guard:mode-outlives-its-life
  });
}

Task<void> Primary::attempt_once(Attempt& attempt) {
  const Metadata& metadata = metadata_.metadata();
  ConnectorFacts facts;
  facts.data_bytes = metadata.datasize;
  facts.extent_bytes = metadata.extentsize;
  facts.map_bytes = map_->map_bytes();
  facts.timeout_ms =
      started_ ? settings_.timeout_ms : std::min(settings_.timeout_ms, kFirstAnswerMsMax);
  facts.bootid = config_.bootid;
  facts.led = last_role_ == Role::kPrimary;
  facts.forced = config_.force;
  facts.counted_there = counted_there();
  facts.secret = settings_.secret;
  co_await connector_.attempt(facts, attempt, scope_);
  last_kind_ = attempt.kind;
  std::snprintf(last_attempt_, sizeof last_attempt_, "%s",
                attempt.kind == AttemptKind::kConnected ? "connected" : attempt.text);
  if (attempt.kind != AttemptKind::kConnected) report_refusal(attempt);
}

void Primary::report_refusal(const Attempt& attempt) {
  const bool quiet = attempt.kind == AttemptKind::kNoPeer ||
                     attempt.kind == AttemptKind::kChanged ||
                     attempt.kind == AttemptKind::kRefusedTcp;
  const bool split = attempt.kind == AttemptKind::kSplitBrain;
  const LogLevel level = quiet || said_lately(attempt.text) ? LogLevel::kDebug1
                         : split                            ? LogLevel::kError
                                                            : LogLevel::kWarning;
  logf(host_, level, "No connection to the peer (%s): %s%s%s", attempt_kind_name(attempt.kind),
       attempt.text, full_stop(attempt.text),
       split ? " Neither copy is overwritten: hastctl why tells what to do." : "");
  if (split) host_.event(EventName::kSplitBrain);
}

/// The same is said once a minute, however often it is met. Notes that it is said now.
bool Primary::said_lately(const char* text) {
  constexpr uint64_t kAgainUs = 60 * kSecond;
  const uint64_t now_us = Loop::current().now_us();
  if (std::strcmp(said_, text) == 0 && now_us - said_us_ < kAgainUs) return true;
  std::snprintf(said_, sizeof said_, "%s", text);
  said_us_ = now_us;
  return false;
}

// --- the connection
// -------------------------------------------------------------------------------

Task<void> Primary::keep_connected(std::unique_ptr<Attempt> attempt) {
  uint64_t pause_us = kSecond;
  while (!stopping_) {
    if (attempt == nullptr) {
      heard_of_ = false;
      attempt = std::make_unique<Attempt>();
      co_await attempt_once(*attempt);
    }
    const AttemptKind kind = attempt->kind;
    if (kind == AttemptKind::kConnected) {
      const uint64_t since_us = Loop::current().now_us();
      const bool was_attached = co_await serve_link(*attempt);
      // Again at once, but not without end to one that comes and goes (rule 20).
      const bool lasted = Loop::current().now_us() - since_us >= kSecond;
      if (was_attached && lasted) pause_us = 0;
    }
    attempt.reset();
    attached_waiters_.wake_all();
    if (stopping_) break;
    if (kind == AttemptKind::kChanged) continue;
    if (pause_us > 0 && !heard_of_) co_await reconnect_.sleep_us(pause_us);
    if (heard_of_) pause_us = 0;
    pause_us = pause_us == 0 ? kSecond : std::min(pause_us * 2, kReconnectMaxUs);
  }
  keeping_ = false;
  attached_waiters_.wake_all();
}

/// From a finished set-up to the end of the connection. True if requests went over it.
Task<bool> Primary::serve_link(Attempt& attempt) {
  Link& link = *attempt.link;
  connecting_ = &link;
  link.establish(attempt.settings);
  // As they are now: they may have changed since the attempt began, whose patience was another.
  link.set_codecs(settings_.checksum, settings_.compression, settings_.timeout_ms);
  const int rc = co_await adopt(attempt);
  const bool good = rc == 0 && !link.failed() && !stopping_;
  Scope synchronising;
  if (good) {
    attach(link);
    const bool whole = map_->sync_count() == map_->extent_count();
    // What a disk gives back that was given up need not be stored: guard:peer-stale-is-written
    const bool compare = whole && link.settings().extended && !metadata_.extra().peer_stale;
    sync_ = std::make_unique<Synchroniser>(*this);
    const bool target_told = source_ == SyncSource::kPrimary && map_->sync_count() > 0;
    synchronising.spawn(sync_->run(compare, target_told));
    while (attempt.link_running) co_await scope_.wait_for_change();
  }
  if (!good && !stopping_) {
    // The set-up went well, but we could not follow it: that is no connection.
    last_kind_ = AttemptKind::kMismatch;
    std::snprintf(last_attempt_, sizeof last_attempt_, "the set-up could not be completed (%s)",
                  link.failed() ? link.failure() : std::strerror(-rc));
  }
  link.shut_down("the connection was given up", ECONNABORTED);
  sync_->stop();
  while (attempt.link_running) co_await scope_.wait_for_change();
  connecting_ = nullptr;
  co_await settle_loss(link);
  co_await synchronising.join();
  if (good) {
    logf(host_, stopping_ ? LogLevel::kInfo : LogLevel::kWarning, "Disconnected from the peer: %s.",
         link.failure());
    std::snprintf(last_attempt_, sizeof last_attempt_, "%s", link.failure());
    host_.event(EventName::kDisconnect);
  }
  attempt.link.reset();
  co_return good;
}

/// From here on requests go to the peer, too.
void Primary::attach(Link& link) {
  link_ = &link;
  met_ = true;
  counted_ = false;
  // guard:unstored-map-is-not-told: a disk that was given up has stored nothing, and what the peer
  // has marked is all that says so.
  if (link.settings().extended && !local_detached_) {
    // guard:source-is-no-target: only the side that a pass writes to is told of it.
    const uint32_t extents = source_ == SyncSource::kPrimary ? map_->sync_count() : 0;
    const bool told = link.tell_map_stored(uint64_t{extents} * map_->extent_bytes());
    HAST_ASSERT(told || link.failed());
  }
  said_[0] = '\0';
  logf(host_, LogLevel::kInfo, "Connected to the peer (protocol version %u%s).",
       link.settings().version, link.settings().extended ? ", extended" : "");
  host_.event(EventName::kConnect);
  attached_waiters_.wake_all();
  // One of ours that does not take its copy for the good one has not heard that it is:
  // guard:stale-is-told-again
  if (peer_.ours && !peer_.good) stale_recorded_ = false;
  if (local_detached_ && !stale_recorded_) scope_.spawn(record_stale());
}

/// Takes over what the set-up has agreed on. 0: requests may go over the link.
Task<int> Primary::adopt(Attempt& attempt) {
  const uint64_t told = count_told(metadata_.metadata(), counted_there());
  // A lone write may have been counted since the peer decided; then it decided on old facts:
  // guard:adopted-as-decided
  if (counting_ || told != attempt.sent_localcnt) co_return -EAGAIN;
  peer_ = word_of(attempt);
  metadata_.log_counters(host_, attempt.peer_localcnt, attempt.peer_remotecnt);
  const bool fell = metadata_.extra().lost_cache(config_.bootid) && !config_.force;
  const bool behind = metadata_.extra().peer_behind;  // guard:behind-gives-nothing-back
  if (fell && !behind && has_what_we_lost(attempt, metadata_.metadata(), map_->extent_count())) {
    attempt.source = SyncSource::kSecondary;  // guard:power-cut-beside-an-original
    host_.log(LogLevel::kInfo,
              "This machine went down: what it had not flushed is copied from the peer.");
  }
  const int usable =
      local_detached_ ? adopt_without_disk(attempt) : co_await agree_on_source(attempt);
  if (usable != 0) co_return usable;
  if (!attempt.map.empty()) map_->merge(ConstBytes(attempt.map));  // guard:peer-marks-count
  if (local_detached_) co_return 0;
  const int stored = co_await store_agreement(attempt);
  co_return stored;
}

/// Of what we have counted, how much the peer has: all that it had heard of, once our own disk was
/// given up.
std::optional<uint64_t> Primary::counted_there() const {
  if (!local_detached_) return std::nullopt;
  return peer_.remotecnt;
}

/// The peer has the only good copy, whatever its counters say; and nothing can be stored here, by
/// a disk that may never answer again.
int Primary::adopt_without_disk(const Attempt& attempt) {
  peer_is_new_ = peer_is_new_ || attempt.peer_virgin;
  if (peer_is_new_) {  // guard:new-disk-is-not-the-good-one
    host_.log(LogLevel::kError,
              "The peer's disk is a new one, and this node has given up its own: neither has the "
              "data. Bring back the peer's old disk and make the peer primary, or repair this "
              "node's, and make this node init and primary again.");
    return -EINVAL;
  }
  needs_peer_ = true;
  source_ = SyncSource::kSecondary;
  return 0;
}

/// Which copy is the source, and may it be one?
Task<int> Primary::agree_on_source(const Attempt& attempt) {
  const bool from_peer = attempt.source == SyncSource::kSecondary;
  const Extra& own = metadata_.extra();
  // An original cannot say that a pass has ended; counters that mirror each other do (rule 16).
  // No guard: it takes back what a guard has set.
  if (!attempt.settings.extended && own.sync_target &&
      attempt.peer_localcnt == metadata_.metadata().remotecnt &&
      attempt.peer_remotecnt == metadata_.metadata().localcnt) {
    const int rc = co_await update_metadata(
        [](Metadata&, Extra& extra, Primary&) { extra.sync_target = false; });
    if (rc != 0) co_return rc;
  }
  const bool incomplete = own.sync_target || own.local_stale;
  // guard:incomplete-is-no-source
  if (!from_peer && incomplete && !config_.force) {
    logf(host_, LogLevel::kError,
         "This node's copy is %s, but the peer takes it for the good one. Make the peer primary "
         "instead.",
         own.sync_target ? "incomplete (a synchronisation to it never finished)" : "stale");
    co_return -EINVAL;
  }
  if (!from_peer && incomplete) {
    const int rc = co_await trust_own_copy();
    if (rc != 0) co_return rc;
  }
  // An original tells nothing, and what becomes of the data beside it cannot be told to others: our
  // generations end there (rule 13). That they could not be erased costs at most a split-brain that
  // is none.
  if (!peer_.ours && own.generations() != Generations{}) {
    // No guard: see there.
    co_await update_metadata([](Metadata&, Extra& extra, Primary&) { extra.set({}); });
  }
  if (from_peer) needs_peer_ = true;  // nothing may be written here alone from now on
  if (!from_peer && own.lost_cache(config_.bootid)) {
    // The peer has nothing better. No guard: it takes back what a guard has set.
    co_await update_metadata(take_boot);
  }
  co_return 0;
}

/// Counters, map and flags as both sides must find them whatever happens from here on.
Task<int> Primary::store_agreement(const Attempt& attempt) {
  const bool from_peer = attempt.source == SyncSource::kSecondary;
  // Also when an original took the resource on over a connection that ended before this was stored;
  // one of ours says by itself what it lacks.
  const bool original = !attempt.settings.extended && !from_peer;
  const bool lacks_all =
      attempt.peer_virgin || (original && wants_all(attempt, map_->extent_count()));
  // guard:first-pass-counts
  if (lacks_all && metadata_.metadata().localcnt == 0) {
    const int rc = co_await update_metadata(
        [](Metadata& metadata, Extra&, Primary&) { metadata.localcnt = 1; });
    if (rc != 0) co_return rc;
  }
  if (from_peer && metadata_.extra().local_stale) {
    mark_all();  // guard:stale-primary-is-copied-whole
  }
  const int stored = co_await map_store_->store();  // guard:merged-map-stored
  if (stored != 0) co_return stored;
  source_ = from_peer ? SyncSource::kSecondary : attempt.source;
  // guard:needed-until-the-end: also when nothing is left to copy, as long as no pass has ended.
  needs_peer_ = from_peer;
  if (needs_peer_) {  // guard:target-flag-before-its-pass
    const int rc = co_await update_metadata(
        [](Metadata&, Extra& extra, Primary&) { extra.sync_target = true; });
    if (rc != 0) co_return rc;
  }
  HAST_ASSERT(!local_detached_);  // only beside a peer that is in use
  // After a power cut here nothing else tells what it lacks from what it has and we have lost.
  // guard:pass-to-an-original-is-noted
  const int noted = original && map_->sync_count() > 0 ? co_await note_peer_behind() : 0;
  co_return noted;
}

/// A peer that lost power may lack what was flushed here, and an original cannot say so. Not needed
/// once this copy counts as the newer one. No guard: its callers are.
Task<int> Primary::note_peer_behind() {
  if (counted_ || metadata_.extra().peer_behind) co_return 0;
  const int rc =
      co_await update_metadata([](Metadata&, Extra& extra, Primary&) { extra.peer_behind = true; });
  co_return rc;
}

/// At the end of a pass: what both have from now on, once the peer has heard of it.
void Primary::offer_generation(Extra& extra) {
  Generations ids = extra.generations();
  ids.hear(peer_.generation);  // no guard: without it, a split-brain that is none
  if (source_ == SyncSource::kSecondary && peer_.generation != 0) {
    ids.agree(peer_.generation);  // no guard: likewise
  } else {
    // guard:a-pass-ends-the-unknown
    if (ids.current == 0 || source_ == SyncSource::kSecondary) ids.begin(host_.random());
    ids.offer();  // guard:offered-before-it-is-told
  }
  extra.set(ids);
}

/// The peer has said that it has what it was offered. No guard: it is one with the call.
void Primary::hear_of_end(Metadata&, Extra& extra, Primary& self) {
  Generations ids = extra.generations();
  ids.hear(self.peer_.generation);
  extra.set(ids);
}

void Primary::link_failed(const char*, int) {
  if (link_ == nullptr) return;  // it was not in use yet
  link_ = nullptr;
  ++losses_;
  admission_open_ = false;  // until the loss is settled (rule 7)
  sync_->stop();
}

/// Rule 7: everything without a final OK is marked, the counter is made durable, then the waiting
/// requests are answered and new ones admitted.
Task<void> Primary::settle_loss(Link& link) {
  const uint32_t marked = map_->sync_count();
  map_->peer_lost();  // guard:unflushed-lost
  if (map_->sync_count() > marked) peer_lacks_ = true;
  bool writes = false;
  for (Slot* slot = link.outstanding(); slot != nullptr; slot = slot->outstanding_next) {
    if (slot->use != Slot::Use::kClient || slot->op == RequestOp::kRead) continue;
    map_->mark_sync(slot->offset, slot->length);  // guard:lost-on-the-way
    writes = true;
  }
  // While the peer had the newer data, a write that it did not confirm cannot be promised by us.
  bool uncounted = needs_peer_;
  // A detached disk has nothing that the peer might lack: it must never count as newer.
  if (writes && !needs_peer_ && !local_detached_) {
    const int rc = co_await ensure_counted();  // guard:count-before-answer
    uncounted = rc != 0;
  }
  while (Slot* slot = link.outstanding()) {
    link.forget(*slot);
    if (slot->remote_done != nullptr) {
      remote_final(*slot, ENOTCONN);
      continue;
    }
    slot->remote = Outcome::kLost;
    // Of the slot, which may be answered over the next connection: guard:uncounted-is-no-success
    slot->uncounted = uncounted;
    progress(*slot);
  }
  admission_open_ = true;
  admission_.wake_all();
}

/// No guard: its callers are.
Task<int> Primary::update_metadata(MetadataChange change) {
  co_await metadata_.lock();
  Metadata metadata = metadata_.metadata();
  Extra extra = metadata_.extra();
  metadata.prevrole = Role::kPrimary;
  change(metadata, extra, *this);
  const int rc = co_await metadata_.store(metadata, extra);
  metadata_.unlock();
  if (rc != 0) {
    logf(host_, LogLevel::kError, "The metadata cannot be stored: %s.", std::strerror(-rc));
  }
  co_return rc;
}

/// Raises the local counter once in every lone period, durably (I2, rule 7). No guard: its callers
/// are.
Task<int> Primary::ensure_counted() {
  while (counting_) co_await counted_waiters_.wait();
  if (counted_) co_return 0;
  counting_ = true;
  const int rc = co_await update_metadata([](Metadata& metadata, Extra& extra, Primary& self) {
    ++metadata.localcnt;
    Generations ids = extra.generations();
    ids.begin(self.host_.random());  // guard:count-begins-a-generation
    extra.set(ids);
    extra.boot = self.config_.bootid;  // what was lost before is lost: this is the data now
  });
  counting_ = false;
  counted_ = rc == 0;
  counted_waiters_.wake_all();
  co_return rc;
}

// --- time
// -----------------------------------------------------------------------------------------

Task<void> Primary::tick() {
  while (!ended_) {
    // At whole seconds, as the link's keepalives are.
    co_await tick_timer_.sleep_us(kTickUs - Loop::current().now_us() % kTickUs);
    if (ended_) break;
    map_store_->tick();
    const uint64_t now = Loop::current().now_us();
    const bool old = unflushed_since_us_ != 0 && now - unflushed_since_us_ >= kUnflushedMaxUs;
    if (old && !flushing_ && map_->unflushed_count() > 0) {
      flushing_ = true;
      flush_wanted_ = std::max(flush_wanted_, flush_begun_ + 1);
      scope_.spawn(run_flushes());
    }
  }
}

// --- the end
// --------------------------------------------------------------------------------------

void Primary::stop_admission() {
  if (stopping_) return;
  stopping_ = true;
  connector_.stop();
  pool_.close();
  admission_.wake_all();
  reconnect_.wake();
}

/// A pass that has copied everything is brought to its end, so that the peer is told.
Task<void> Primary::finish_running_pass() {
  constexpr uint64_t kStepUs = kSecond / 100;
  for (uint64_t waited = 0; waited < kSecond; waited += kStepUs) {
    const bool ending = attached() && source_ != SyncSource::kNone && map_->sync_count() == 0;
    if (!ending || local_detached_) co_return;
    SleepTimer pause;
    co_await pause.sleep_us(kStepUs);
  }
}

Task<void> Primary::drain() {
  HAST_ASSERT(stopping_);
  while (in_flight_ > 0) co_await settled_.wait();
  co_await requests_.join();
  if (map_ != nullptr) {
    const int flushed = co_await flush_covering();  // guard:flush-at-demotion
    co_await finish_running_pass();
    // What the peer may lack and no counter speaks of would be overwritten if the peer became
    // primary.
    co_await note_failed_flush();  // guard:failed-flush-outlives-the-role
    const bool lacking = map_->sync_count() > 0 && (peer_lacks_ || attached());
    const bool stale = metadata_.extra().local_stale;
    if (lacking && started_ && !needs_peer_ && !local_detached_ && !stale) {
      co_await ensure_counted();  // guard:count-before-demotion
    }
    if (flushed == 0 && !map_store_->failed()) {
      map_->forget_kept();
      // No guard: bits that stay cost a copy.
      const int stored = co_await map_store_->store_all();
      if (stored != 0)
        host_.log(LogLevel::kWarning, "The activemap could not be stored at the end.");
      co_await note_clean();
    }
  }
  ended_ = true;
  if (connecting_ != nullptr) connecting_->shut_down("this node ends being primary", ESHUTDOWN);
  reconnect_.wake();
  tick_timer_.wake();
  co_await scope_.join();
}

/// May a life before have answered what the peer was never given, and this disk have it?
bool Primary::may_be_ahead() const {
  // guard:ahead-until-the-end-of-a-pass
  return metadata_.extra().ahead && !caught_up_ && !metadata_.extra().lost_cache(config_.bootid);
}

bool Primary::peer_knows_all() const {
  return hast::peer_knows_all(peer_, source_, metadata_.metadata(), metadata_.extra());
}

/// Has this copy what the peer has not, as far as we know? Beside an original that was not met in
/// this life nothing is known.
bool Primary::is_newest() const {
  if (counted_) return true;
  if (met_) return !peer_knows_all();  // guard:newest-until-the-peer-knows
  const Generations ids = metadata_.extra().generations();
  return ids.current != ids.shared;  // guard:offered-is-not-heard
}

/// At the end. A disk that failed a flush may give back what a power cut takes: it must not count
/// as whole again, and if it is the only one that has all, not from then on when the peer has it,
/// too. No guard: its caller is.
Task<void> Primary::note_failed_flush() {
  if (!flush_failed_ || local_detached_ || needs_peer_) co_return;
  if (!is_newest()) {
    co_await update_metadata([](Metadata&, Extra& extra, Primary&) { extra.local_stale = true; });
  } else if (!metadata_.extra().flush_failed) {
    co_await tell_next_life();
  }
}

/// That a flush has failed; what becomes of it depends on what the peer has by then. No guard: its
/// callers are.
Task<void> Primary::tell_next_life() {
  co_await update_metadata([](Metadata&, Extra& extra, Primary&) { extra.flush_failed = true; });
}

/// All is flushed: a power cut from here on takes nothing. No guard: it takes back what a guard has
/// set.
Task<void> Primary::note_clean() {
  const bool noted = metadata_.extra().boot != 0 && metadata_.extra().boot == config_.bootid;
  if (!noted || local_detached_ || flush_failed_) co_return;
  co_await update_metadata([](Metadata&, Extra& extra, Primary&) {
    extra.boot = 0;
    extra.ahead = false;
  });
}

// --- settings and numbers
// -------------------------------------------------------------------------

void Primary::reconfigure(const PrimarySettings& settings) {
  settings_ = settings;
  wanted_ = settings.replication;
  if (loose() && started_ && !metadata_.extra().ahead) {
    settings_.replication = Replication::kFullsync;
    scope_.spawn(loosen());
  }
  map_store_->set_flush(settings.metaflush);
  if (attached()) {
    link_->set_codecs(settings.checksum, settings.compression, settings.timeout_ms);
  }
}

void Primary::note_ahead(Metadata&, Extra& extra, Primary&) {
  extra.ahead = true;  // no guard: it is one with the call
}

/// Not before it is known on disk that from here on the peer may lack what is answered.
Task<void> Primary::loosen() {
  // guard:mode-is-noted-first
  const int rc = co_await update_metadata(note_ahead);
  if (rc == 0 || local_detached_) {
    settings_.replication = wanted_;  // it may have been changed again
  } else {
    host_.log(LogLevel::kWarning, "The replication mode stays fullsync.");
  }
}

/// Counts also while an attempt is under way, which may have begun before the peer was there.
void Primary::kick() {
  heard_of_ = true;
  reconnect_.wake();
}

void Primary::reconnect() {
  if (connecting_ != nullptr)
    connecting_->shut_down("the peer's address has changed", ECONNABORTED);
  kick();
}

EngineStats Primary::stats() const {
  EngineStats stats;
  stats.complete = attached();
  stats.counters = counters_;
  stats.replication = static_cast<uint8_t>(effective_mode());
  stats.local_stale = local_detached_ || metadata_.extra().local_stale;
  stats.queue_idle = pool_.free_count();
  stats.queue_local = local_queue_;
  stats.in_flight = in_flight_;
  if (map_ == nullptr) return stats;
  stats.extent_bytes = map_->extent_bytes();
  stats.keepdirty = metadata_.metadata().keepdirty;
  // Until both nodes know that a pass has ended, it has not: `dirty: 0` must mean safe to fail
  // over.
  const bool passing = attached() && source_ != SyncSource::kNone;
  stats.dirty_bytes =
      uint64_t{std::max(map_->dirty_count(), passing ? 1u : 0u)} * map_->extent_bytes();
  stats.sync_bytes_left = uint64_t{map_->sync_count()} * map_->extent_bytes();
  stats.activemap_updates = map_store_->updates();
  stats.counters.write_errors += map_store_->write_errors();
  if (attached()) {
    stats.has_peer = true;
    stats.peer_is_ours = link_->settings().extended;
    stats.protocol_version = link_->settings().version;
    stats.queue_send = link_->queued();
    stats.queue_recv = link_->outstanding_count();
    stats.sync_source = static_cast<uint8_t>(source_);
  }
  stats.state = stopping_                           ? EngineState::kStopping
                : !started_                         ? EngineState::kConnecting
                : !attached()                       ? EngineState::kDegraded
                : map_->sync_count() > 0 || passing ? EngineState::kSyncing
                                                    : EngineState::kInSync;
  std::snprintf(stats.reason, sizeof stats.reason, "%s", attached() ? "" : last_attempt_);
  return stats;
}

}  // namespace hast
