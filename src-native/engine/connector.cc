#include "engine/connector.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/assert.h"

namespace hast {

namespace {

void say(Attempt& attempt, AttemptKind kind, const char* text) {
  attempt.kind = kind;
  std::snprintf(attempt.text, sizeof attempt.text, "%s", text);
}

void say_errno(Attempt& attempt, const char* what, int rc) {
  attempt.kind = rc == -ECONNREFUSED ? AttemptKind::kRefusedTcp : AttemptKind::kNoAnswer;
  std::snprintf(attempt.text, sizeof attempt.text, "%s: %s", what, std::strerror(-rc));
}

}  // namespace

const char* attempt_kind_name(AttemptKind kind) {
  switch (kind) {
    case AttemptKind::kConnected:
      return "connected";
    case AttemptKind::kNoPeer:
      return "no peer configured";
    case AttemptKind::kRefusedTcp:
      return "connection refused";
    case AttemptKind::kNoAnswer:
      return "no answer";
    case AttemptKind::kBusy:
      return "the peer is primary";
    case AttemptKind::kPeerIdle:
      return "the peer is not ready";
    case AttemptKind::kSplitBrain:
      return "split-brain";
    case AttemptKind::kRefused:
      return "refused";
    case AttemptKind::kMismatch:
      return "mismatch";
    case AttemptKind::kChanged:
      return "counters changed";
    case AttemptKind::kLocalFailed:
      return "local metadata failed";
  }
  return "?";
}

/// Ends whatever an attempt waits for, when all of it has taken too long or nobody wants it any
/// more.
struct SetupTimer : Timer {
  Stream* first = nullptr;
  Link* link = nullptr;
  bool expired = false;
  bool done = false;
  SetupTimer() {
    run = [](Completion& c) {
      SetupTimer& self = static_cast<SetupTimer&>(c);
      self.done = true;
      if (self.result == 0) self.expire();
    };
  }
  void expire() {
    expired = true;
    if (first != nullptr) first->shut_down();
    if (link != nullptr) link->shut_down("the set-up took too long", ETIMEDOUT);
  }
};

uint64_t count_told(const Metadata& own, std::optional<uint64_t> counted_there) {
  // guard:given-up-is-not-newer
  return std::min(own.localcnt, counted_there.value_or(own.localcnt));
}

void Connector::stop() {
  stopped_ = true;
  dialer_.cancel();
  if (timer_ != nullptr) timer_->expire();
}

uint32_t Connector::left_ms() const {
  const uint64_t now = Loop::current().now_us();
  return now < deadline_us_ ? static_cast<uint32_t>((deadline_us_ - now + 999) / 1000) : 0;
}

Task<void> Connector::attempt(const ConnectorFacts& facts, Attempt& attempt, Scope& scope) {
  first_.reset();
  first_reader_.reset();
  if (!dialer_.has_peer()) {
    say(attempt, AttemptKind::kNoPeer, "no peer is configured (remote none)");
    co_return;
  }
  if (stopped_) {
    say(attempt, AttemptKind::kNoAnswer, "this node ends being primary");
    co_return;
  }
  Loop& loop = Loop::current();
  deadline_us_ = loop.now_us() + uint64_t{facts.timeout_ms} * 1000;
  int rc = co_await dialer_.dial(first_, facts.timeout_ms);
  if (rc == 0 && stopped_) rc = -ECANCELED;
  if (rc != 0) {
    say_errno(attempt, "cannot connect to the peer", rc);
    first_.reset();
    co_return;
  }
  SetupTimer timer;
  timer_ = &timer;
  timer.first = first_.get();
  loop.start(timer, deadline_us_);
  attempt.kind = AttemptKind::kConnected;
  co_await converse(facts, attempt, scope);
  timer_ = nullptr;
  loop.cancel(timer);
  while (!timer.done) {  // its completion is on the ready queue and must run before it goes
    SleepTimer pause;
    co_await pause.sleep_us(0);
  }
  if (attempt.kind == AttemptKind::kConnected) co_return;
  if (timer.expired && !stopped_) {
    attempt.kind = AttemptKind::kNoAnswer;
    std::snprintf(attempt.text, sizeof attempt.text, "the peer has not answered within %u s",
                  facts.timeout_ms / 1000);
  }
  if (attempt.link != nullptr) co_await fail_link(attempt, scope);
  // Closed now, not when the next attempt begins: the peer must not take it for half open.
  first_reader_.reset();
  first_.reset();
}

/// M1 to the map. `attempt.kind` stays kConnected when all of it went well.
Task<void> Connector::converse(const ConnectorFacts& facts, Attempt& attempt, Scope& scope) {
  co_await first_connection(facts, attempt);
  if (timer_->expired || stopped_) say(attempt, AttemptKind::kNoAnswer, "the set-up was ended");
  if (attempt.kind != AttemptKind::kConnected) co_return;
  timer_->first = nullptr;
  co_await second_connection(facts, attempt, scope);
  if (attempt.kind != AttemptKind::kConnected) co_return;
  timer_->link = attempt.link.get();
  // The time may have ended while the second connection was dialled, with nothing to shut down.
  if (timer_->expired || stopped_) timer_->expire();
  co_await read_answer(facts, attempt);
}

Task<void> Connector::fail_link(Attempt& attempt, Scope& scope) {
  attempt.link->shut_down("the set-up failed", ECONNABORTED);
  while (attempt.link_running) co_await scope.wait_for_change();
  attempt.link.reset();
}

Task<int> Connector::send_message(Stream& stream, std::size_t bytes) {
  HAST_ASSERT(bytes > 0);
  iovec part{out_, bytes};
  const int rc = co_await send_all(stream, std::span<iovec>(&part, 1));
  co_return rc;
}

/// No guard: without a whole message there is nothing to go on with.
Task<int> Connector::read_message(PacketReader& reader, ConstBytes& area) {
  for (;;) {
    const PacketReader::Head head = reader.head(area);
    if (head == PacketReader::Head::kReady) co_return 0;
    if (head != PacketReader::Head::kIncomplete) co_return -EBADMSG;
    const int rc = co_await reader.receive_more();
    if (rc != 0) co_return rc == -ENODATA ? -ECONNRESET : rc;
  }
}

/// No guard: the peer has refused.
void Connector::refuse(Attempt& attempt, std::string_view text, bool wait) {
  const std::size_t length = std::min(text.size(), sizeof attempt.text - 1);
  std::memcpy(attempt.text, text.data(), length);
  attempt.text[length] = '\0';
  if (wait) {
    attempt.kind = AttemptKind::kBusy;
  } else if (text == kSplitBrainText) {
    attempt.kind = AttemptKind::kSplitBrain;
  } else if (text == "Resource not configured." ||
             text.starts_with("Remote node acts as init for the resource")) {
    attempt.kind = AttemptKind::kPeerIdle;
  } else {
    attempt.kind = AttemptKind::kRefused;
  }
}

/// No guard: without a whole answer there is nothing to go on with.
Task<void> Connector::first_connection(const ConnectorFacts& facts, Attempt& attempt) {
  FirstRequest hello;
  hello.resource = metadata_.metadata().resource.view();
  hello.ext = kExtExtended;
  auth_ = {};
  auth_.secret = facts.secret;
  if (auth_.on()) {
    for (std::size_t i = 0; i < kNonceBytes; i += 8) {
      store_le(auth_.primary.data() + i, host_.random());
    }
    hello.nonce = auth_.primary;
  }
  const std::size_t bytes = encode_first_request(Bytes(out_), version_, hello);
  int rc = co_await send_message(*first_, bytes);
  if (rc != 0) {
    say_errno(attempt, "cannot send the first message", rc);
    co_return;
  }
  first_reader_ = std::make_unique<PacketReader>(*first_, PacketReader::kSetUpRoom);
  ConstBytes area;
  rc = co_await read_message(*first_reader_, area);
  if (rc == -EBADMSG) {
    say(attempt, AttemptKind::kMismatch, "the peer's first answer is malformed");
    co_return;
  }
  if (rc != 0) {
    say_errno(attempt, "the peer did not answer the first message", rc);
    attempt.kind = AttemptKind::kNoAnswer;
    co_return;
  }
  const Result<FirstReply> reply = decode_first_reply(area);
  if (!reply) {
    say(attempt, AttemptKind::kMismatch, reply.error().what);
    co_return;
  }
  if (reply->errmsg) {
    refuse(attempt, *reply->errmsg, reply->wait);
    co_return;
  }
  if (!first_reply_fits(*reply, attempt)) co_return;
  version_ = reply->version;
  // The first originals do not know the field and have 0 in their heads.
  if (version_ == 1) version_ = std::min(version_, first_reader_->version());
  token_ = reply->token;
  extended_ = (reply->ext & kExtExtended) != 0;
  first_reader_->consume_head();
}

/// Also ends it for a peer that cannot prove anything, before it is told more than our name.
/// No guard: peer-proves-secret is the one.
bool Connector::first_reply_fits(const FirstReply& reply, Attempt& attempt) {
  if (reply.version > kWireVersion) {
    say(attempt, AttemptKind::kMismatch, "the peer chose a protocol version above 2");
    return false;
  }
  if (!auth_.on()) return true;
  if (!reply.nonce || (reply.ext & kExtExtended) == 0 || reply.version < kWireVersion) {
    say(attempt, AttemptKind::kRefused,
        "the peer has no secret for the resource: configure the same file on both nodes");
    return false;
  }
  auth_.secondary = *reply.nonce;
  return true;
}

Task<int> Connector::ensure_identity() {
  virgin_ = equal_ = false;
  if (metadata_.metadata().resuid != 0) {
    co_return 0;
  }
  co_await metadata_.lock();
  Metadata metadata = metadata_.metadata();
  // guard:identity-before-it-is-told
  while (metadata.resuid == 0) metadata.resuid = host_.random();
  metadata.prevrole = Role::kPrimary;
  Extra extra = metadata_.extra();
  const bool equal = extra.generation == kGenerationOfEqualContents;
  Generations ids = extra.generations();
  // No guard: the first pass would begin one.
  if (ids.current == 0) ids.begin(host_.random());
  // A fresh peer takes it over together with the resource id. No guard: likewise.
  ids.offer();
  extra.set(ids);
  const int rc = co_await metadata_.store(metadata, extra);  // no guard: the id above is
  metadata_.unlock();
  virgin_ = rc == 0;
  equal_ = virgin_ && equal;
  co_return rc;
}

Task<void> Connector::second_connection(const ConnectorFacts& facts, Attempt& attempt,
                                        Scope& scope) {
  std::unique_ptr<Stream> second;
  int rc = co_await dialer_.dial(second, std::max(left_ms(), 1u));
  if (rc != 0) {
    say_errno(attempt, "cannot open the second connection", rc);
    co_return;
  }
  rc = co_await ensure_identity();
  if (rc != 0) {
    say(attempt, AttemptKind::kLocalFailed, "the new resource id cannot be stored");
    second->shut_down();
    co_return;
  }
  const Metadata& metadata = metadata_.metadata();
  SecondRequest message;
  message.resource = metadata.resource.view();
  message.token = token_;
  message.virgin = virgin_;
  message.resuid = metadata.resuid;
  message.localcnt = attempt.sent_localcnt = count_told(metadata, facts.counted_there);
  message.remotecnt = metadata.remotecnt;
  if (extended_) {
    message.extension = {our_bits(facts), host_.random(), facts.bootid,
                         metadata_.extra().generations()};
  }
  attempt.settings.epoch = message.extension.epoch;
  const std::size_t plain = encode_second_request(Bytes(out_), version_, message);
  const std::size_t bytes = sign_second_request(Bytes(out_), plain, auth_);
  rc = co_await send_message(*second, bytes);
  if (rc != 0) {
    say_errno(attempt, "cannot send the second message", rc);
    second->shut_down();
    co_return;
  }
  attempt.link = std::make_unique<Link>(std::move(first_), std::move(second), events_, host_);
  attempt.link_running = true;
  scope.spawn(run_link(attempt));
}

/// What the peer must know of our copy; nothing, when the operator has said that it counts.
uint32_t Connector::our_bits(const ConnectorFacts& facts) const {
  const Extra& own = metadata_.extra();
  uint32_t bits = kExtExtended;
  if (equal_) bits |= kExtContentsEqual;
  if (facts.counted_there) bits |= kExtIncomplete;
  if (facts.forced) return bits;
  if (own.lost_cache(facts.bootid)) bits |= kExtLostCache | (facts.led ? kExtLed : 0);
  if (own.sync_target || own.local_stale) bits |= kExtIncomplete;
  return bits;
}

Task<void> Connector::run_link(Attempt& attempt) {
  co_await attempt.link->run();
  attempt.link_running = false;
}

bool Connector::sizes_fit(const ConnectorFacts& facts, const SecondReply& reply, Attempt& attempt) {
  // guard:of-one-size
  if (reply.datasize != facts.data_bytes || reply.extentsize != facts.extent_bytes) {
    attempt.kind = AttemptKind::kMismatch;
    std::snprintf(attempt.text, sizeof attempt.text,
                  "sizes differ: data %llu here, %llu there; extents %u here, %u there "
                  "(a pair with an original needs 'hastctl create --layout hast' on this node)",
                  static_cast<unsigned long long>(facts.data_bytes),
                  static_cast<unsigned long long>(reply.datasize), facts.extent_bytes,
                  reply.extentsize);
    return false;
  }
  return true;
}

Task<void> Connector::read_answer(const ConnectorFacts& facts, Attempt& attempt) {
  ConstBytes area;
  const int rc = co_await read_message(*first_reader_, area);
  if (rc != 0) {
    if (attempt.link->refusal()[0] != '\0') {
      refuse(attempt, attempt.link->refusal(), false);
    } else if (rc == -EBADMSG) {  // no guard: there is nothing to go on with
      say(attempt, AttemptKind::kMismatch, "the peer's second answer is malformed");
    } else {
      say_errno(attempt, "the peer did not answer the second message", rc);
      attempt.kind = AttemptKind::kNoAnswer;
    }
    co_return;
  }
  const Result<SecondReply> decoded = decode_second_reply(area);
  if (!decoded) {  // no guard: there is nothing to go on with
    say(attempt, AttemptKind::kMismatch, decoded.error().what);
    co_return;
  }
  const SecondReply& reply = *decoded;
  if (reply.errmsg) {
    refuse(attempt, *reply.errmsg, false);
    co_return;
  }
  if (auth_.on() && !second_reply_proven(area, auth_)) {  // guard:peer-proves-secret
    say(attempt, AttemptKind::kRefused, "the peer could not prove that it knows the secret");
    co_return;
  }
  if (!sizes_fit(facts, reply, attempt)) co_return;
  const bool ours = extended_ && (reply.extension.ext & kExtExtended) != 0;
  if (ours && reply.extension.epoch != attempt.settings.epoch) {  // guard:answer-of-this-epoch
    say(attempt, AttemptKind::kMismatch, "the peer's second answer is to another question");
    co_return;
  }
  attempt.peer_localcnt = reply.localcnt;
  attempt.peer_remotecnt = reply.remotecnt;
  attempt.peer_virgin = reply.virgin;
  attempt.peer_generation = reply.extension.generations.current;
  attempt.source = reply.syncsrc;
  attempt.settings.version = version_;
  attempt.settings.extended = ours;
  if (reply.mapsize > 0) {
    // guard:peer-marks-are-whole
    if (reply.mapsize * 8ull * facts.extent_bytes < facts.data_bytes) {
      say(attempt, AttemptKind::kMismatch, "the peer's map is too short");
      co_return;
    }
    const SecondReply kept = reply;  // `area` goes when more is received
    first_reader_->consume_head();
    const int received = co_await receive_map(kept, attempt);
    if (received != 0) {  // guard:peer-marks-have-come
      say(attempt, AttemptKind::kMismatch, "the peer's map cannot be received");
      co_return;
    }
  }
  // No guard: adopted-as-decided looks again. This one asks again at once.
  if (count_told(metadata_.metadata(), facts.counted_there) != attempt.sent_localcnt) {
    say(attempt, AttemptKind::kChanged, "a write was counted during the set-up");
    co_return;
  }
  if (attempt.link->failed()) say(attempt, AttemptKind::kNoAnswer, attempt.link->failure());
}

Task<int> Connector::receive_map(const SecondReply& reply, Attempt& attempt) {
  if (reply.mapsize > kMapBytesMax) co_return -EMSGSIZE;
  const Result<void> sane = check_payload_info(reply.payload, reply.mapsize);
  if (!sane) co_return -EBADMSG;  // no guard: it bounds what is read
  attempt.map.resize(reply.mapsize);
  std::vector<std::byte> payload(reply.payload.size_bytes);
  const int rc = co_await first_reader_->payload(Bytes(payload));
  if (rc != 0) co_return rc;
  const Result<void> accepted =
      accept_payload(reply.payload, ConstBytes(payload), Bytes(attempt.map));
  if (!accepted) co_return -EBADMSG;  // guard:peer-marks-are-checked
  co_return 0;
}

}  // namespace hast
