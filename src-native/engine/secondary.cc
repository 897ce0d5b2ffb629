#include "engine/secondary.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/assert.h"
#include "wire/errno_map.h"

namespace hast {

namespace {
constexpr uint64_t kSecond = 1000000;
constexpr uint64_t kSilenceOursUs = 3 * kSecond;
constexpr uint64_t kSilenceOriginalUs = 20 * kSecond;
constexpr uint64_t kAliveOursUs = kSecond * 3 / 4;
constexpr int16_t kWireEinval = 22;

bool all_bytes(ConstBytes bytes, std::byte value) {
  return std::all_of(bytes.begin(), bytes.end(), [value](std::byte b) { return b == value; });
}
}  // namespace

Secondary::Secondary(Component& disk, EngineHost& host, SecondaryConfig config,
                     std::unique_ptr<Stream> requests, std::unique_ptr<Stream> replies,
                     std::byte* slab, std::size_t stride)
    : disk_(disk),
      host_(host),
      config_(std::move(config)),
      requests_(std::move(requests)),
      replies_(std::move(replies)),
      reader_(*requests_),
      writer_(*replies_),
      metadata_(disk),
      jobs_(new Job[kRequestsMax]),
      staging_(new std::byte[kPeerRequestBytesMax]) {
  for (uint32_t i = kRequestsMax; i-- > 0;) {
    Job& job = jobs_[i];
    job.self = this;
    job.buffer = slab + std::size_t{i} * stride;
    job.next = free_;
    job.received.owner = job.final.owner = &job;
    job.received.sent = &Secondary::received_sent;
    job.final.sent = &Secondary::final_sent;
    free_ = &job;
  }
}

Secondary::~Secondary() { HAST_ASSERT(free_count_ == kRequestsMax); }

// --- set-up
// ---------------------------------------------------------------------------------------

Task<int> Secondary::load(SecondaryEnd& end) {
  const char* why = "";
  const int rc = co_await metadata_.load(config_.resource, &why);
  if (rc != 0) {
    end = {66, "META_UNREADABLE", {}};
    std::snprintf(end.text, sizeof end.text, "the metadata of the local component %s", why);
    co_return rc;
  }
  const Metadata& metadata = metadata_.metadata();
  map_ = std::make_unique<Activemap>(metadata.datasize, metadata.extentsize, metadata.keepdirty,
                                     disk_.facts().sector_bytes);
  map_store_ = std::make_unique<MapStore>(disk_, *map_, scope_);
  const int loaded = co_await map_store_->load();
  if (loaded != 0) {
    end = {66, "META_UNREADABLE", {}};
    std::snprintf(end.text, sizeof end.text, "the activemap cannot be read: %s",
                  std::strerror(-loaded));
  }
  co_return loaded;
}

void Secondary::refusal_text(const Decision& decision, char* out, std::size_t size) const {
  if (decision.refusal == Refusal::kSplitBrain) {
    std::snprintf(out, size, "%.*s", static_cast<int>(kSplitBrainText.size()),
                  kSplitBrainText.data());
    return;
  }
  if (decision.refusal == Refusal::kIncomplete && metadata_.metadata().resuid == 0) {
    std::snprintf(out, size,
                  "The secondary's disk is a new one, and the primary's copy is no good one.");
    return;
  }
  if (decision.refusal == Refusal::kIncomplete) {
    std::snprintf(out, size, "The secondary's copy is incomplete, and it cannot be the source.");
    return;
  }
  std::snprintf(out, size, "Resource unique ID mismatch (primary=%llu, secondary=%llu).",
                static_cast<unsigned long long>(config_.primary.resuid),
                static_cast<unsigned long long>(metadata_.metadata().resuid));
}

/// `change` may refer to what outlives this call. No guard: its callers are.
template <typename Change>
Task<int> Secondary::update_metadata(Change change) {
  co_await metadata_.lock();
  Metadata metadata = metadata_.metadata();
  Extra extra = metadata_.extra();
  change(metadata, extra);
  int rc = 0;
  if (!(metadata == metadata_.metadata()) || !(extra == metadata_.extra())) {
    metadata.prevrole = Role::kSecondary;
    rc = co_await metadata_.store(metadata, extra);
  }
  metadata_.unlock();
  co_return rc;
}

/// The primary has given up its disk, which it only does when we have everything: also all that its
/// counter spoke of at the handshake.
Task<int> Secondary::become_good(uint64_t generation) {
  // No guard: each line that adds something is.
  const int rc = co_await update_metadata([this, generation](Metadata& metadata, Extra& extra) {
    ++metadata.localcnt;  // guard:good-copy-counts
    Generations ids = extra.generations();
    if (generation != 0) ids.agree(generation);  // the primary's, to which nothing is added there
    ids.begin(host_.random());                   // guard:good-copy-begins-a-generation
    extra.set(ids);
    metadata.remotecnt =
        std::max(metadata.remotecnt, config_.primary.localcnt);  // guard:stale-is-known
    extra.sync_target = extra.local_stale = false;
    extra.peer_stale = true;  // guard:peer-is-known-as-stale
  });
  primary_is_stale_ = primary_is_stale_ || rc == 0;
  co_return rc;
}

/// What the decision changes here, durably, before the primary hears of it.
Task<int> Secondary::adopt(const Decision& decision) {
  if (decision.map == MapAnswer::kFull) {
    // That everything must be copied is known here alone until the primary has stored it: without
    // this, a connection that ends before leaves two nodes that look equal.
    const int rc = co_await map_store_->overwrite(std::byte{0xff});  // guard:whole-pass-remembered
    if (rc != 0) co_return rc;
    own_map_set_ = true;
  }
  // No guard: what `apply` changes has guards of its own.
  const int rc = co_await update_metadata(
      [this, &decision](Metadata& metadata, Extra& extra) { apply(decision, metadata, extra); });
  co_return rc;
}

void Secondary::apply(const Decision& decision, Metadata& metadata, Extra& extra) const {
  if (decision.adopt) {
    metadata.resuid = config_.primary.resuid;    // guard:identity-is-taken
    metadata.localcnt = metadata.remotecnt = 0;  // no guard: it was refused if there was more
  }
  if (decision.discards) {
    // As if nothing had been written here since the two were equal; the map says where it was.
    metadata.localcnt = config_.primary.remotecnt;  // no guard: else it is refused as before
    // Below the primary's, for an original: it tells the end of the pass by equal counters only.
    const uint64_t theirs = config_.primary.localcnt;
    const uint64_t below = config_.extended || theirs == 0 ? theirs : theirs - 1;
    // No guard: it matters only where the primary has written nothing alone.
    metadata.remotecnt = std::min(metadata.remotecnt, below);
  }
  // Now this copy is the one that is given something: guard:behind-ends-with-the-role
  extra.discarded = extra.peer_behind = false;
  extra.set(generations_after(decision, extra.generations()));
  const bool repaired = config_.extended && decision.source == SyncSource::kPrimary;
  const bool lost_cache = repaired && extra.lost_cache(config_.bootid);
  if (config_.bootid != 0) extra.boot = config_.bootid;  // guard:boot-before-writes
  note_target(decision, extra);
  if (extra.flush_failed && decision.source == SyncSource::kPrimary) {
    extra.flush_failed = false;
    // Not only compared. An original says no end of it: guard:failed-flush-is-not-compared
    extra.local_stale = extra.local_stale || config_.extended;
  }
  // The primary has marked what it saw unflushed here when it lost us.
  if (lost_cache) extra.sync_target = true;  // guard:power-cut-secondary
}

void Secondary::note_target(const Decision& decision, Extra& extra) const {
  if (decision.counters_equal) {
    // With an original the end of a pass can only be told from the counters (rule 16); ours say it.
    if (!config_.extended) extra.sync_target = false;  // no guard: it takes one back
    return;
  }
  // The primary has what we lack: known from here on, even if it dies before it begins a pass.
  // guard:target-from-the-handshake
  if (decision.source == SyncSource::kPrimary && decision.map != MapAnswer::kNone) {
    extra.sync_target = true;
  }
}

Generations Secondary::generations_after(const Decision& decision, Generations ids) const {
  // An original cannot tell what becomes of the data while it is connected.
  if (!config_.extended) return {};
  const uint64_t theirs = config_.primary.generations.current;
  const uint64_t parted = ids.shared;  // what both had, when the maps tell all
  if (decision.adopt) {
    ids = {};  // a pass begins, at whose end both have theirs
    // No guard: without it, a split-brain that is none.
    if (decision.map == MapAnswer::kNone && theirs != 0) ids.agree(theirs);
    return ids;
  }
  if (decision.discards) {
    ids = {};
    // No guard: without it, the next set-up asks nothing of the generations.
    if (decision.map == MapAnswer::kOwn && parted != 0) ids.agree(parted);
    return ids;
  }
  ids.hear(theirs);  // no guard: likewise
  // guard:offered-before-it-is-taken
  if (decision.source == SyncSource::kSecondary) ids.offer();
  return ids;
}

Task<int> Secondary::set_up(SecondaryEnd& end) {
  const bool map_empty = map_->sync_count() == 0;
  flushed_before_ = metadata_.extra().boot == 0;
  metadata_.log_counters(host_, config_.primary.localcnt, config_.primary.remotecnt);
  const Decision decision =
      decide(secondary_facts(metadata_.metadata(), metadata_.extra(), map_empty, config_.bootid),
             config_.primary);
  if (decision.impossible) {
    host_.log(LogLevel::kWarning,
              "The counters of both nodes contradict each other; everything is synchronised.");
  }
  if (decision.refusal == Refusal::kNone) {
    // guard:good-copy-is-known-as-such
    primary_is_stale_ = decision.source == SyncSource::kSecondary;
    // It does not say when that has ended: guard:original-tells-no-end
    if (!config_.extended) primary_is_stale_ = false;
    const int rc = co_await adopt(decision);
    if (rc != 0) {
      end = {66, "META_WRITE", {}};
      std::snprintf(end.text, sizeof end.text, "the metadata cannot be stored: %s",
                    std::strerror(-rc));
      co_return rc;
    }
  }
  const int rc = co_await send_setup_reply(decision, end);
  co_return rc;
}

Task<int> Secondary::send_setup_reply(const Decision& decision, SecondaryEnd& end) {
  const Metadata& metadata = metadata_.metadata();
  char text[128];
  SecondReply reply;
  reply.datasize = metadata.datasize;
  reply.extentsize = metadata.extentsize;
  reply.localcnt = metadata.localcnt;
  reply.remotecnt = metadata.remotecnt;
  reply.virgin = decision.adopt;
  reply.syncsrc = decision.source;
  if (config_.extended) {
    reply.extension = {kExtExtended, config_.epoch, config_.bootid,
                       metadata_.extra().generations()};
  }
  std::unique_ptr<std::byte[]> map;
  std::unique_ptr<std::byte[]> packed;
  ConstBytes payload;
  const bool refused = decision.refusal != Refusal::kNone;
  if (refused) {
    refusal_text(decision, text, sizeof text);
    reply.errmsg = text;
  } else if (decision.map != MapAnswer::kNone) {
    reply.mapsize = map_->map_bytes();
    map.reset(new std::byte[reply.mapsize]);
    const Bytes bytes(map.get(), reply.mapsize);
    if (decision.map == MapAnswer::kFull) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
    } else {
      map_->render(bytes);
    }
    packed.reset(new std::byte[reply.mapsize]);
    payload = prepare_payload(config_.compression, config_.checksum, bytes,
                              Bytes(packed.get(), reply.mapsize), tables_, reply.payload);
  }
  std::size_t head = encode_second_reply(Bytes(setup_head_), config_.version, reply);
  if (!refused) head = sign_second_reply(Bytes(setup_head_), head, config_.auth);
  HAST_ASSERT(head > 0);
  iovec parts[2] = {{setup_head_, head}, {const_cast<std::byte*>(payload.data()), payload.size()}};
  const int rc = co_await send_all(*requests_, std::span<iovec>(parts, payload.empty() ? 1 : 2));
  if (refused) {
    const bool split = decision.refusal == Refusal::kSplitBrain;
    const bool incomplete = decision.refusal == Refusal::kIncomplete;
    end = {78, split ? "PEER_SPLIT_BRAIN" : incomplete ? "PEER_INCOMPLETE" : "PEER_IDENTITY", {}};
    std::snprintf(end.text, sizeof end.text, "%s", text);
    if (split) host_.event(EventName::kSplitBrain);
    co_return -EPERM;
  }
  if (rc != 0) {
    end = {75, "", {}};
    std::snprintf(end.text, sizeof end.text, "the set-up answer cannot be sent: %s",
                  std::strerror(-rc));
  }
  co_return rc;
}

// --- life
// -----------------------------------------------------------------------------------------

Task<void> Secondary::run(SecondaryEnd& end) {
  int rc = co_await load(end);
  if (rc == 0) rc = co_await set_up(end);
  if (rc != 0) {
    closed_ = true;
    requests_->shut_down();
    replies_->shut_down();
    co_return;
  }
  ready_ = true;
  host_.event(EventName::kConnect);
  host_.ready();
  scope_.spawn(run_writer());
  scope_.spawn(watch_silence());
  co_await read_requests();
  // Everything received is carried out, also what the peer will never hear of (rule 8, R-17).
  replies_->shut_down();
  while (order_first_ != nullptr) co_await order_waiters_.wait();
  co_await jobs_scope_.join();
  // Reads are still on the disk; their replies go to the writer, which drops them.
  while (free_count_ < kRequestsMax) co_await free_waiters_.wait();
  writer_.close();
  silence_.wake();
  const int flushed = co_await flush_disk();  // guard:received-is-flushed
  if (flushed != 0) {
    logf(host_, LogLevel::kError, "The final flush failed: %s.", std::strerror(-flushed));
    co_await note_failed_flush(flushed);  // guard:last-flush-is-remembered
  } else {  // no guard: it takes back what was noted, when all is stored
    co_await update_metadata([](Metadata&, Extra& extra) {
      if (!extra.flush_failed) extra.boot = 0;
    });
  }
  co_await scope_.join();
  end = {75, "", {}};
  std::snprintf(end.text, sizeof end.text, "%s", why_);
}

void Secondary::close(const char* why) {
  if (closed_) return;
  closed_ = true;
  why_ = why;
  requests_->shut_down();
  // Said now, not when everything is stored: whoever wants to take over waits for it (rule 21).
  if (ready_ && !stopped_) host_.event(EventName::kDisconnect);
}

void Secondary::stop() {
  stopped_ = true;
  close("stopped");
}

Task<void> Secondary::run_writer() {
  const int rc = co_await writer_.run();
  if (rc != 0) close("sending to the primary failed");
}

void Secondary::say_alive() {
  if (!config_.extended || alive_.queued) return;
  alive_.head_bytes = static_cast<uint32_t>(
      encode_reply(Bytes(alive_.head), config_.version, ReplyMessage::alive()));
  writer_.queue(alive_);
}

Task<void> Secondary::watch_silence() {
  if (config_.version < 1) co_return;  // it does not know KEEPALIVE
  const uint64_t limit =
      config_.extended ? std::min<uint64_t>(kSilenceOursUs, uint64_t{config_.timeout_ms} * 1000)
                       : kSilenceOriginalUs;
  // Often enough for a primary that waits while we do not read; each waking costs an idle machine.
  const uint64_t step = std::min(limit / 4, kAliveOursUs);
  uint64_t wait = step;
  while (!closed_) {
    co_await silence_.sleep_us(wait);
    wait = step;
    if (closed_) break;
    const uint64_t now = Loop::current().now_us();
    // While we do not read, the silence is ours: then the primary must hear that we live, however
    // slow the disk is.
    if (handling_ || free_ == nullptr) {
      reading_since_us_ = now;
      say_alive();
      continue;
    }
    const uint64_t last = std::max(reader_.last_byte_us(), reading_since_us_);
    if (now > last && now - last > limit) close("the primary is silent");
    wait = std::clamp<uint64_t>(last + limit + 1 - std::min(now, last + limit), 1, step);
  }
}

// --- reading
// --------------------------------------------------------------------------------------

Task<void> Secondary::read_requests() {
  while (!closed_) {
    ConstBytes area;
    const PacketReader::Head head = reader_.head(area);
    if (head == PacketReader::Head::kIncomplete) {
      const int rc = co_await reader_.receive_more();
      if (rc == 0) continue;
      close(rc == -ENODATA ? "the primary closed the connection"
                           : "receiving from the primary failed");
      co_return;
    }
    if (head != PacketReader::Head::kReady) {
      close("the primary sent a malformed message");
      co_return;
    }
    const int rc = co_await handle(area);
    if (rc != 0) {
      if (rc == -EBADMSG) host_.log(LogLevel::kError, "A malformed request; the connection ends.");
      close(rc == -EBADMSG ? "the primary sent a malformed request"
                           : "receiving from the primary failed");
      co_return;
    }
  }
}

Task<int> Secondary::handle(ConstBytes area) {
  RequestMessage message;
  const Result<void> decoded = decode_request(area, message);
  if (!decoded) co_return -EBADMSG;  // guard:malformed-is-not-done
  reader_.consume_head();
  switch (message.cmd) {
    case Command::kKeepalive:
      say_alive();
      if (to_be_rewritten_) close("a flush has failed here: this copy is to be written again");
      co_return 0;
    case Command::kRead:
    case Command::kWrite:
    case Command::kDelete:
    case Command::kFlush: {
      const int rc = co_await handle_data_request(message);
      co_return rc;
    }
    case Command::kMapStored:
    case Command::kSyncDone:
    case Command::kStale:
    case Command::kCompare:
      if (config_.extended) {
        handling_ = true;
        const int rc = co_await handle_extension(message);
        handling_ = false;
        co_return rc;
      }
      break;
    case Command::kNone:
      break;
  }
  // A command that we do not know: say so where that is possible, then end in an orderly way.
  // No guard: it is not carried out.
  if (message.has(kHasCmd) && message.seq != 0) reject(message, kWireEinval);
  co_return -EBADMSG;  // no guard: likewise
}

/// Answers an invalid request at once. Takes a job, so it never outruns memory.
void Secondary::reject(const RequestMessage& message, int16_t wire_error) {
  Job* job = free_;
  if (job == nullptr) return;  // the primary is told by the end of the connection
  free_ = job->next;
  --free_count_;
  job->used = true;
  job->done = false;
  job->changes = false;
  job->message = message;
  ReplyMessage reply = ReplyMessage::done(message.seq, wire_error);
  if (message.cmd == Command::kWrite && message.has(kHasMemsync)) {
    reply.fields |= kReplyReceived;  // one reply with both, as the original sends it
  }
  count_error(message.cmd);
  reply_final(*job, reply);
}

Task<Secondary::Job*> Secondary::take_job() {
  while (free_ == nullptr) co_await free_waiters_.wait();
  Job* job = free_;
  free_ = job->next;
  --free_count_;
  job->used = true;
  job->done = false;
  job->changes = false;
  job->arrival = ++arrivals_;
  co_return job;
}

Task<int> Secondary::handle_data_request(const RequestMessage& message) {
  const bool is_flush = message.cmd == Command::kFlush;
  const bool is_write = message.cmd == Command::kWrite;
  const bool valid =
      message.seq != 0 &&
      (is_flush || request_range_valid(message, metadata_.metadata().datasize, kSectorBytesMin));
  if (!valid) {  // guard:out-of-range-is-rejected
    // A rejected WRITE's payload must still leave the stream, if its size can be believed.
    if (is_write && message.payload.size_bytes > kPeerRequestBytesMax) co_return -EBADMSG;
    if (is_write) {
      // guard:rejected-payload-is-read
      const int rc = co_await reader_.skip(message.payload.size_bytes);
      if (rc != 0) co_return rc;
    }
    if (free_ == nullptr) co_await free_waiters_.wait();
    reject(message, kWireEinval);
    co_return 0;
  }
  Job* const job = co_await take_job();
  job->message = message;
  if (is_write) {
    const int rc = co_await take_payload(*job);
    if (rc != 0) {
      job->done = true;
      maybe_free(*job);
      co_return rc;
    }
  }
  if (!map_cleared_ && !config_.extended) {
    const int rc = co_await before_first_request();
    if (rc != 0) host_.log(LogLevel::kWarning, "The own activemap cannot be cleared; tried again.");
  }
  switch (message.cmd) {
    case Command::kRead:
      ++counters_.reads;
      break;
    case Command::kWrite:
      ++counters_.writes;
      break;
    case Command::kDelete:
      ++counters_.deletes;
      break;
    default:
      ++counters_.flushes;
      break;
  }
  start(*job);
  co_return 0;
}

Task<int> Secondary::take_payload(Job& job) {
  const PayloadInfo& info = job.message.payload;
  const Bytes data(job.buffer, job.message.length);
  const Result<void> sane = check_payload_info(info, data.size());
  if (!sane) co_return -EBADMSG;  // guard:payload-fits
  const bool plain = info.compression == Compression::kNone;
  const Bytes into = plain ? data : Bytes(staging_.get(), info.size_bytes);
  if (!reader_.payload_now(into)) {
    const int rc = co_await reader_.payload(into);
    if (rc != 0) co_return rc;
  }
  const Result<void> accepted = accept_payload(info, into, data);
  co_return accepted ? 0 : -EBADMSG;  // guard:payload-is-checked
}

/// The primary has stored the merged map: ours may go (wire-protocol 5.3). Never before.
Task<int> Secondary::before_first_request() {
  HAST_ASSERT(!config_.extended || handling_);  // I1: MAP_STORED, of this epoch
  // Nothing to clear is the common case: then no write either.
  const uint32_t bytes = map_->map_bytes();
  std::unique_ptr<std::byte[]> map(new std::byte[bytes]);
  map_->render(Bytes(map.get(), bytes));
  int rc = 0;
  // No guard: the primary has stored them, which is one.
  if (own_map_set_ || !all_bytes(ConstBytes(map.get(), bytes), std::byte{0})) {
    rc = co_await map_store_->overwrite(std::byte{0});
  }
  map_cleared_ = rc == 0;
  co_return rc;
}

Task<int> Secondary::handle_extension(const RequestMessage& message) {
  if (message.cmd == Command::kCompare) {
    if (message.seq == 0 ||
        !request_range_valid(message, metadata_.metadata().datasize, kSectorBytesMin) ||
        message.payload.hash_bytes != 32) {
      co_return -EBADMSG;  // no guard: it only reads
    }
    Job* const job = co_await take_job();
    job->message = message;
    start(*job);
    co_return 0;
  }
  // guard:old-epoch-has-no-effect
  if (message.epoch != config_.epoch) {
    host_.log(LogLevel::kWarning, "A message of another connection was ignored.");
    co_return 0;  // I3: it has no effect
  }
  int rc = 0;
  if (message.cmd == Command::kMapStored) {
    if (message.dirty > 0) {  // guard:target-flag-before-the-first-byte
      failed_since_ = false;  // a pass begins that repairs it
      rc = co_await update_metadata([](Metadata&, Extra& extra) { extra.sync_target = true; });
    }
    if (rc == 0) rc = co_await before_first_request();
    co_return rc == 0 ? 0 : -EIO;
  }
  if (message.cmd == Command::kSyncDone) {
    rc = co_await end_pass(message.generation);
  } else if (message.stale == 1) {
    // The primary's copy is stale: our counter says so to every later handshake, and since nobody
    // knows which extents it misses from now on, all of them are marked.
    rc = co_await map_store_->overwrite(std::byte{0xff});        // guard:good-copy-marks-all
    if (rc == 0) rc = co_await become_good(message.generation);  // no guard: what it changes is
    host_.log(LogLevel::kWarning, "The primary's own copy is stale; this node has the good data.");
  }
  Job* const job = co_await take_job();
  job->message = message;
  reply_final(*job, ReplyMessage::done(message.seq, errno_to_wire(-rc)));
  co_return 0;
}

/// All is here, but for what has failed since the pass began: that, the primary has been told.
Task<int> Secondary::end_pass(uint64_t generation) {
  // It has said so, whether that can be written down here or not: guard:both-are-whole
  primary_is_stale_ = false;
  while (order_first_ != nullptr) co_await order_waiters_.wait();
  if (failed_since_) {      // guard:failed-within-the-pass
    failed_since_ = false;  // what is copied next comes after this
    co_return -EIO;
  }
  // guard:sync-done-clears
  const int rc = co_await update_metadata([generation](Metadata&, Extra& extra) {
    extra.sync_target = extra.local_stale = extra.peer_stale = false;
    Generations ids = extra.generations();
    if (generation != 0) ids.agree(generation);
    extra.set(ids);
  });
  // The primary has all of it now: guard:rewritten-at-once
  to_be_rewritten_ = rc == 0 && metadata_.extra().flush_failed;
  co_return rc;
}

// --- carrying out
// ---------------------------------------------------------------------------------

void Secondary::start(Job& job) {
  const Command cmd = job.message.cmd;
  if (cmd == Command::kWrite || cmd == Command::kDelete) {
    job.changes = true;
    job.order_next = nullptr;
    job.order_previous = order_last_;
    (order_last_ == nullptr ? order_first_ : order_last_->order_next) = &job;
    order_last_ = &job;
  }
  if (cmd == Command::kWrite && job.message.has(kHasMemsync)) {
    job.received.head_bytes = static_cast<uint32_t>(encode_reply(
        Bytes(job.received.head), config_.version, ReplyMessage::received(job.message.seq)));
    writer_.queue(job.received);
  }
  if (cmd == Command::kFlush) {
    jobs_scope_.spawn(run_flush(job));
    return;
  }
  job.range.offset = job.message.offset;
  job.range.length = job.message.length;
  const bool reads = cmd == Command::kRead || cmd == Command::kCompare;
  job.range.mode = reads ? RangeMode::kShared : RangeMode::kExclusive;
  job.range.owner = &job;
  if (ranges_.acquire(job.range)) run_on_disk(job);
}

void Secondary::run_on_disk(Job& job) {
  ++on_disk_;
  const uint64_t at = metadata_.metadata().offset + job.message.offset;
  job.run = &Secondary::disk_done;
  switch (job.message.cmd) {
    case Command::kRead:
      disk_.submit_read(job, at, Bytes(job.buffer, job.message.length));
      break;
    case Command::kCompare:
      disk_.submit_read(job, at, Bytes(job.buffer, job.message.length));
      break;
    case Command::kDelete:
      // Ours wants exactly this range punched. If our disk would leave edges, we say that we
      // cannot, and the primary copies the range; with an original the edges do not count (rule
      // 11).
      if (config_.extended && ((at | job.message.length) & (kDeleteGranule - 1)) != 0) {
        Loop::current().ready(job, -EOPNOTSUPP);
      } else {
        disk_.submit_discard(job, at, job.message.length);
      }
      break;
    default:
      disk_.submit_write(job, at, ConstBytes(job.buffer, job.message.length),
                         job.message.has(kHasFua));
      break;
  }
}

void Secondary::disk_done(Completion& c) {
  Job& job = static_cast<Job&>(c);
  Secondary& self = *job.self;
  --self.on_disk_;
  const int rc = job.result;
  self.release_range(job);
  if (rc != 0 && rc != -EOPNOTSUPP && job.changes) {
    self.jobs_scope_.spawn(self.finish_failed(job, -rc));
  } else {
    self.finish(job, -rc);
  }
}

/// A write that failed here makes this copy an incomplete one until the primary has repaired it,
/// and if the primary dies first nobody else knows.
Task<void> Secondary::finish_failed(Job& job, int error) {
  co_await note_incomplete();  // guard:failed-write-is-remembered
  finish(job, error);
}

void Secondary::release_range(Job& job) {
  for (RangeHold* hold = ranges_.release(job.range); hold != nullptr;) {
    RangeHold* next = hold->next_granted;
    run_on_disk(*static_cast<Job*>(hold->owner));
    hold = next;
  }
}

/// Where the data of a READ may be compressed: behind them, where the buffer is long enough.
Bytes Secondary::room_behind(Job& job) const {
  const std::size_t length = job.message.length;
  const bool lzf = config_.compression == Compression::kLzf;
  if (!lzf || length > kPeerRequestBytesMax / 2) return Bytes(job.hole);
  return Bytes(job.buffer + length, length);
}

void Secondary::finish(Job& job, int error) {
  if (error != 0) {
    count_error(job.message.cmd);
    logf(host_, LogLevel::kError, "Local request %u failed at %llu: %s.",
         static_cast<unsigned>(job.message.cmd),
         static_cast<unsigned long long>(job.message.offset), std::strerror(error));
  }
  ReplyMessage reply = ReplyMessage::done(job.message.seq, errno_to_wire(error));
  if (error == 0 && job.message.cmd == Command::kRead) {
    PayloadInfo info;
    const ConstBytes payload = prepare_payload(config_.compression, config_.checksum,
                                               ConstBytes(job.buffer, job.message.length),
                                               room_behind(job), tables_, info);
    job.final.payload = payload.data();
    job.final.payload_bytes = static_cast<uint32_t>(payload.size());
    reply = ReplyMessage::data(job.message.seq, info);
  }
  if (error == 0 && job.message.cmd == Command::kCompare) {
    const std::array<std::byte, 32> own = sha256_of(ConstBytes(job.buffer, job.message.length));
    // What a disk gives back after a flush has failed need not be stored: all of it is written
    // again.
    const bool trusted = flushed_before_ &&               // guard:unflushed-is-not-compared
                         !metadata_.extra().local_stale;  // guard:stale-copy-is-not-compared
    const bool equal = trusted && std::memcmp(own.data(), job.message.payload.hash.data(), 32) == 0;
    reply = ReplyMessage::comparison(job.message.seq, equal);
  }
  reply_final(job, reply);
}

/// Covers every earlier write: waits until none that arrived before is in hand.
Task<void> Secondary::run_flush(Job& job) {
  // guard:flush-after-earlier-writes
  while (order_first_ != nullptr && order_first_->arrival < job.arrival) {
    co_await order_waiters_.wait();
  }
  const int rc = co_await flush_disk();         // guard:flush-is-carried-out
  if (rc != 0) co_await note_failed_flush(rc);  // guard:failed-flush-is-remembered
  finish(job, -rc);
}

/// Once a flush has failed, also one for the map or the metadata, nobody knows what is stored, and
/// a later one that succeeds proves nothing.
Task<int> Secondary::flush_disk() {
  int rc = co_await disk_.flush();  // no guard: flush-is-carried-out is the call
  const bool failed = flush_failed_ || metadata_.flush_failed() || map_store_->flush_failed();
  if (rc == 0 && failed) rc = -EIO;  // guard:failed-flush-is-final-there
  co_return rc;
}

/// Nobody knows what is stored now, whatever a read gives: all of it must be written again, and not
/// only compared. An original cannot be made to do that.
Task<void> Secondary::note_failed_flush(int rc) {
  if (rc == -EOPNOTSUPP) co_return;  // a disk without a cache
  flush_failed_ = true;
  co_await note_incomplete();  // no guard: failed-flush-is-remembered is the call
  const bool stale = !primary_is_stale_ && config_.extended;
  // No guard: each line that changes something is.
  co_await update_metadata([stale](Metadata&, Extra& extra) {
    if (stale) extra.local_stale = true;    // guard:failed-flush-is-stale
    if (!stale) extra.flush_failed = true;  // guard:failed-flush-of-the-good-copy
  });
}

/// What was stored here may be gone: this copy is incomplete until a pass has repaired it.
/// No guard: its callers are.
Task<void> Secondary::note_incomplete() {
  if (primary_is_stale_) co_return;  // it has nothing better
  failed_since_ = true;
  co_await update_metadata([](Metadata&, Extra& extra) { extra.sync_target = true; });
}

void Secondary::reply_final(Job& job, const ReplyMessage& reply) {
  if (job.changes) {
    (job.order_previous == nullptr ? order_first_ : job.order_previous->order_next) =
        job.order_next;
    (job.order_next == nullptr ? order_last_ : job.order_next->order_previous) = job.order_previous;
    order_waiters_.wake_all();
  }
  if (reply.payload.size_bytes == 0) job.final.payload_bytes = 0;
  job.final.head_bytes =
      static_cast<uint32_t>(encode_reply(Bytes(job.final.head), config_.version, reply));
  writer_.queue(job.final);
}

void Secondary::final_sent(Packet& packet, int) {
  Job& job = *static_cast<Job*>(packet.owner);
  job.done = true;
  job.self->maybe_free(job);
}

void Secondary::received_sent(Packet& packet, int) {
  Job& job = *static_cast<Job*>(packet.owner);
  job.self->maybe_free(job);
}

void Secondary::maybe_free(Job& job) {
  if (!job.done || job.received.queued || job.final.queued) return;
  HAST_ASSERT(job.used);
  job.used = false;
  job.done = false;
  job.next = free_;
  free_ = &job;
  ++free_count_;
  free_waiters_.wake_all();
}

void Secondary::count_error(Command cmd) {
  if (cmd == Command::kRead) ++counters_.read_errors;
  if (cmd == Command::kWrite) ++counters_.write_errors;
  if (cmd == Command::kDelete) ++counters_.delete_errors;
  if (cmd == Command::kFlush) ++counters_.flush_errors;
}

EngineStats Secondary::stats() const {
  EngineStats stats;
  stats.complete = ready_ && !closed_;
  stats.state = EngineState::kSecondary;
  stats.has_peer = stats.complete;
  stats.peer_is_ours = config_.extended;
  stats.protocol_version = config_.version;
  stats.counters = counters_;
  stats.queue_local = on_disk_;
  stats.queue_send = writer_.queued();
  stats.queue_idle = free_count_;
  stats.in_flight = kRequestsMax - free_count_;
  if (map_ != nullptr) stats.extent_bytes = map_->extent_bytes();
  return stats;
}

}  // namespace hast
