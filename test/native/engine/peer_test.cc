// The engines against recorded conversations of the original: a script plays the other side.

#include <algorithm>
#include <cerrno>

#include "codec/layout.h"
#include "disk/fault_component.h"
#include "harness.h"
#include "ring/pipe_stream.h"
#include "ring/sim_loop.h"
#include "sim/pair.h"
#include "vectors.h"

namespace hast::test {

namespace {

constexpr uint64_t kSecond = 1'000'000;
constexpr uint64_t kDataBytes = 8388608;

/// A disk as the original's `create` makes it.
Metadata original_metadata() {
  Metadata metadata;
  metadata.resource = std::string_view("data");
  metadata.datasize = kDataBytes;
  metadata.extentsize = 1048576;
  metadata.keepdirty = 2;
  metadata.offset = 4608;
  return metadata;
}

struct Host : EngineHost {
  Random random_source{9};
  void log(LogLevel, std::string_view) override {}
  void event(EventName name) override { events.push_back(name); }
  void ready() override {}
  uint64_t random() override { return random_source.next(); }
  std::vector<EventName> events;
};

/// One end of a stream in the hands of a script.
class Wire {
 public:
  explicit Wire(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {
    scope_.spawn(receive());
  }
  ~Wire() { HAST_ASSERT(scope_.running() == 0); }

  void send(SimLoop& loop, const ByteVector& bytes) {
    if (bytes.empty()) return;
    scope_.spawn(send_bytes(bytes));
    loop.run_now();
  }
  /// The next message: head, nv area, and as many bytes of payload as its `size` says.
  ByteVector next(SimLoop& loop, ByteVector* payload = nullptr) {
    loop.run_until([this] { return complete() > 0 || ended; }, kSecond);
    const std::size_t whole = complete();
    if (whole == 0) return {};
    const std::size_t head = kHeadBytes + load_le<uint32_t>(got.data() + 1);
    ByteVector message(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(head));
    if (payload != nullptr) {
      payload->assign(got.begin() + static_cast<std::ptrdiff_t>(head),
                      got.begin() + static_cast<std::ptrdiff_t>(whole));
    }
    got.erase(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(whole));
    return message;
  }
  void close() { stream_->shut_down(); }

  ByteVector got;
  bool ended = false;

 private:
  std::size_t complete() const {
    if (got.size() < kHeadBytes) return 0;
    const std::size_t head = kHeadBytes + load_le<uint32_t>(got.data() + 1);
    if (got.size() < head) return 0;
    std::size_t size = 0;
    const ConstBytes area = ConstBytes(got).subspan(kHeadBytes, head - kHeadBytes);
    const Result<NvReader> reader = NvReader::open(area);
    if (reader) size = reader->number<uint32_t>("size").value_or(0);
    return got.size() < head + size ? 0 : head + size;
  }
  Task<void> receive() {
    for (;;) {
      const int count = co_await stream_->recv(Bytes(buffer_));
      if (count <= 0) break;
      got.insert(got.end(), buffer_, buffer_ + count);
    }
    ended = true;
  }
  Task<void> send_bytes(ByteVector bytes) {
    iovec part{bytes.data(), bytes.size()};
    co_await send_all(*stream_, std::span<iovec>(&part, 1));
  }

  std::unique_ptr<Stream> stream_;
  std::byte buffer_[65536];
  Scope scope_;
};

/// A secondary's engine with a script as its primary.
class ScriptedPrimary {
 public:
  ScriptedPrimary(const Metadata& metadata, const SecondaryConfig& config, ConstBytes map = {})
      : network_(loop, 3),
        disk_(metadata.offset + metadata.datasize),
        component_(loop, disk_, 5),
        slab_(std::size_t{kRequestsMax} * kPeerRequestBytesMax) {
    disk_.set(0, MetadataBlock::create(metadata).bytes());
    if (!map.empty()) disk_.set(kMetadataBytes, map);
    auto [first, first_peer] = network_.make_pair();
    auto [second, second_peer] = network_.make_pair();
    one = std::make_unique<Wire>(std::move(first));
    two = std::make_unique<Wire>(std::move(second));
    secondary_ =
        std::make_unique<Secondary>(component_, host, config, std::move(first_peer),
                                    std::move(second_peer), slab_.data(), kPeerRequestBytesMax);
    scope_.spawn(run());
  }
  ~ScriptedPrimary() {
    secondary_->stop();
    loop.advance(30 * kSecond);
    one->close();
    two->close();
    loop.advance(kSecond);
    CHECK(ended);
    one.reset();
    two.reset();
    secondary_.reset();
  }
  Metadata metadata() const {
    return MetadataBlock::decode(disk_.current().first(kMetadataBytes))->metadata();
  }
  ConstBytes data() const { return disk_.current().subspan(4608, kDataBytes); }
  FaultComponent& disk() { return component_; }

  SimLoop loop;
  Host host;
  SecondaryEnd end;
  bool ended = false;
  std::unique_ptr<Wire> one, two;

 private:
  Task<void> run() {
    co_await secondary_->run(end);
    ended = true;
  }
  PipeNetwork network_;
  MemoryDisk disk_;
  FaultComponent component_;
  LazySlab slab_;
  std::unique_ptr<Secondary> secondary_;
  Scope scope_;
};

SecondaryConfig plain_config() {
  SecondaryConfig config;
  config.resource = "data";
  config.primary.resuid = 7;
  config.primary.virgin = true;
  return config;
}

ByteVector request_bytes(const RequestMessage& message, ConstBytes payload = {}) {
  ByteVector bytes(kPacketHeadBytesMax);
  bytes.resize(encode_request(Bytes(bytes), 2, message));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

ByteVector write_bytes(uint64_t seq, uint64_t offset, ConstBytes payload, uint32_t flags = 0) {
  PayloadInfo info;
  info.size_bytes = static_cast<uint32_t>(payload.size());
  return request_bytes(RequestMessage::write(seq, offset, payload.size(), flags, info), payload);
}

ReplyMessage reply_of(const ByteVector& message) {
  ReplyMessage reply;
  CHECK(message.size() > kHeadBytes);
  if (message.size() <= kHeadBytes) return reply;
  CHECK(decode_reply(ConstBytes(message).subspan(kHeadBytes), reply).has_value());
  return reply;
}

const Json* field(const Json& message, const std::string& name) {
  for (const Json& one : message["fields"]) {
    if (one["name"] == name) return &one["value"];
  }
  return nullptr;
}

uint8_t version_of(const Json& message) {
  return static_cast<uint8_t>(message["header_version"].number());
}

uint64_t number_or(const Json& message, const std::string& name, uint64_t otherwise) {
  const Json* value = field(message, name);
  return value == nullptr ? otherwise : value->number();
}

}  // namespace

TEST(peer, "a secondary answers recorded single requests to the byte (wire-protocol 6.3)") {
  // Cases that record a defect, and what is required instead.
  const std::vector<std::string> ends = {
      "cmd-missing",       "bad-checksum",          "unknown-compression", "write-without-size",
      "hole-wrong-length", "write-memsync-too-long"};  // its size is 0 (11.16)
  const Json file = load_vectors("requests");
  for (const Json& one : file["cases"]) {
    const std::string name = one["name"];
    ScriptedPrimary script(original_metadata(), plain_config());
    script.one->next(script.loop);  // the set-up answer
    script.one->send(script.loop, unhex(one["request_hex"].text()));
    if (std::find(ends.begin(), ends.end(), name) != ends.end()) {
      script.loop.advance(kSecond);
      if (!script.ended || !script.two->got.empty()) fail(__FILE__, __LINE__, name);
      continue;
    }
    if (name == "cmd-unknown") {  // 11.14: said, then ended in an orderly way
      CHECK_EQ(reply_of(script.two->next(script.loop)).error, 22);
      script.loop.advance(kSecond);
      CHECK(script.ended);
      continue;
    }
    if (name.ends_with("-too-long")) {  // 8.3: up to 1 MiB is accepted
      const ReplyMessage reply = reply_of(script.two->next(script.loop));
      if (name.starts_with("read")) CHECK_EQ(reply.error, 0);
      continue;
    }
    for (const Json& expected : one["replies"]) {
      if (expected.contains("event")) continue;
      ByteVector payload;
      const ByteVector got = script.two->next(script.loop, &payload);
      if (hex(got) != expected["header_hex"].text()) {
        fail(__FILE__, __LINE__, name + ": " + hex(got));
      }
      if (expected.contains("payload_hex")) {
        CHECK_EQ(hex(payload), expected["payload_hex"].text());
      }
    }
    script.loop.advance(kSecond);
    CHECK(script.two->got.empty());
  }
}

TEST(peer, "a secondary repeats its part of recorded sessions to the byte") {
  const Json file = load_vectors("sessions");
  for (const Json& session : file["sessions"]) {
    const std::string name = session["name"];
    const Json& messages = session["messages"];
    if (messages.size() < 5 || name.starts_with("primary-")) continue;
    const Json& hello = messages[2];
    const Json& answer = messages[3];
    Metadata metadata = original_metadata();
    metadata.localcnt = number_or(answer, "localcnt", 0);
    metadata.remotecnt = number_or(answer, "remotecnt", 0);
    const uint64_t primary_id = number_or(hello, "resuid", 0);
    metadata.resuid = field(answer, "virgin") != nullptr ? 0 : primary_id;
    if (name == "resuid-mismatch") {
      const std::string text = *field(answer, "errmsg");
      metadata.resuid = std::stoull(text.substr(text.find("secondary=") + 10));
    }
    ByteVector map;
    if (metadata.resuid != 0 && !name.starts_with("counters-") &&
        answer.contains("payload_length") && answer["payload_length"].number() == 512) {
      map = unhex(answer["payload_hex"].text());
    }
    SecondaryConfig config = plain_config();
    config.version = version_of(answer);
    config.primary.resuid = primary_id;
    config.primary.localcnt = number_or(hello, "localcnt", 0);
    config.primary.remotecnt = number_or(hello, "remotecnt", 0);
    config.primary.virgin = field(hello, "virgin") != nullptr;
    if (const Json* checksum = field(answer, "checksum")) {
      config.checksum = *checksum == "crc32" ? Checksum::kCrc32 : Checksum::kSha256;
    }
    ScriptedPrimary script(metadata, config, map);
    for (std::size_t i = 3; i < messages.size(); ++i) {
      const Json& message = messages[i];
      if (!message.contains("fields") || message.contains("payload_sha256")) break;
      if (name == "errors-delete-flush" && i == 4) {  // the set-up itself flushes
        script.disk().add_fault({FaultComponent::kDiscard, -EOPNOTSUPP});
        script.disk().add_fault({FaultComponent::kFlush, -EIO, 1});
      }
      const std::string payload =
          message.contains("payload_hex") ? message["payload_hex"].text() : "";
      if (message["direction"] == "primary->secondary") {
        if (number_or(message, "cmd", 0) == 1) break;  // content of the disk is not recorded
        script.one->send(script.loop, unhex(message["header_hex"].text() + payload));
        continue;
      }
      ByteVector got_payload;
      Wire& wire = message["connection"].number() == 1 ? *script.one : *script.two;
      const ByteVector got = wire.next(script.loop, &got_payload);
      if (hex(got) != message["header_hex"].text() || hex(got_payload) != payload) {
        fail(__FILE__, __LINE__, name + ", message " + std::to_string(i) + ": " + hex(got));
        break;
      }
    }
  }
}

TEST(peer, "a write of which only a part arrives is not carried out (wire-protocol 11.13b)") {
  const Json file = load_vectors("malformed");
  for (const Json& one : file["cases"]) {
    if (one["name"] != "truncated-write-payload") continue;
    ScriptedPrimary script(original_metadata(), plain_config());
    script.one->next(script.loop);
    script.one->send(script.loop, unhex(one["bytes_hex"].text()));
    script.loop.advance(25 * kSecond);
    CHECK(script.ended);
    CHECK(script.two->got.empty());
    CHECK(std::ranges::all_of(script.data(), [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(peer, "a rejected write leaves the stream in step (R-19)") {
  ScriptedPrimary script(original_metadata(), plain_config());
  script.one->next(script.loop);
  script.one->send(script.loop, write_bytes(1, 100, pattern(1, 4096)));  // not on a sector
  script.one->send(script.loop, write_bytes(2, kDataBytes, pattern(1, 4096)));
  script.one->send(script.loop, write_bytes(3, UINT64_MAX - 511, pattern(1, 4096)));  // wraps
  script.one->send(script.loop, write_bytes(4, 8192, pattern(2, 4096)));
  for (const int error : {22, 22, 22, 0}) {
    CHECK_EQ(reply_of(script.two->next(script.loop)).error, error);
  }
  CHECK(std::ranges::equal(script.data().subspan(8192, 4096), pattern(2, 4096)));
}

TEST(peer, "a payload of another size than its write ends the connection (R-19, 11.16)") {
  for (const uint32_t size : {0u, 512u, 8192u}) {
    ScriptedPrimary script(original_metadata(), plain_config());
    script.one->next(script.loop);
    script.one->send(script.loop, write_bytes(1, 65536, pattern(2, 4096)));  // fills a buffer
    script.two->next(script.loop);
    PayloadInfo info;
    info.size_bytes = size;
    script.one->send(script.loop,
                     request_bytes(RequestMessage::write(2, 0, 4096, 0, info), pattern(1, size)));
    script.loop.advance(kSecond);
    CHECK(script.ended);
    CHECK(script.two->got.empty());
    CHECK(std::ranges::all_of(script.data().first(4096),
                              [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(peer, "a request that is malformed behind its fields is not carried out (wire-protocol 11)") {
  ScriptedPrimary script(original_metadata(), plain_config());
  script.one->next(script.loop);
  script.one->send(script.loop, write_bytes(1, 0, pattern(2, 4096)));
  script.two->next(script.loop);
  ByteVector discard = request_bytes(RequestMessage::discard(2, 0, 4096));
  const auto area = static_cast<uint32_t>(discard.size() - kHeadBytes);
  discard.insert(discard.end(), 8, std::byte{0xff});
  store_le(discard.data() + 1, area + 8);
  script.one->send(script.loop, discard);
  script.loop.advance(kSecond);
  CHECK(script.ended);
  CHECK(std::ranges::equal(script.data().first(4096), pattern(2, 4096)));
}

TEST(peer, "FLUSH covers every write that came before it, in whatever order the disk is done") {
  ScriptedPrimary script(original_metadata(), plain_config());
  script.one->next(script.loop);
  script.disk().set_delay(1000, 50000);
  for (uint64_t i = 1; i <= 8; ++i) {
    script.one->send(script.loop, write_bytes(i, i * 8192, pattern(i, 4096), kHasMemsync));
  }
  // A rejected request in between stands in no order.
  script.one->send(script.loop, write_bytes(9, 100, pattern(1, 4096)));
  script.one->send(script.loop, request_bytes(RequestMessage::flush(20)));
  uint64_t finals = 0;
  for (;;) {
    const ReplyMessage reply = reply_of(script.two->next(script.loop));
    if (reply.seq == 0 || reply.seq == 20) break;
    if (!reply.has(kReplyReceived) && reply.error == 0) ++finals;
  }
  CHECK_EQ(finals, 8u);
}

TEST(peer, "a message of another epoch has no effect (I3)") {
  SecondaryConfig config = plain_config();
  config.extended = config.primary.extended = true;
  config.epoch = 77;
  Metadata metadata = original_metadata();
  metadata.resuid = 7;
  metadata.localcnt = metadata.remotecnt = 0;
  config.primary.virgin = false;
  ByteVector map(512);
  map[0] = std::byte{0x81};
  ScriptedPrimary script(metadata, config, map);
  script.one->next(script.loop);
  script.one->send(script.loop, request_bytes(RequestMessage::stale_copy(1, 76, 0, true)));
  script.one->send(script.loop, request_bytes(RequestMessage::flush(2)));
  CHECK_EQ(reply_of(script.two->next(script.loop)).seq, 2u);
  CHECK_EQ(script.metadata().localcnt, 0u);
}

// --- the other side: a script as the secondary
// ------------------------------------------------------------

namespace {

/// A primary's engine with a script as its secondary.
class ScriptedSecondary {
 public:
  explicit ScriptedSecondary(Replication replication,
                             const Metadata& metadata = original_metadata())
      : network_(loop, 3),
        disk_(4608 + kDataBytes),
        component_(loop, disk_, 5),
        slab_(std::size_t{2} * kRequestsMax * kRequestBytesMax) {
    disk_.set(0, MetadataBlock::create(metadata).bytes());
    listener_ = network_.listen("peer");
    scope_.spawn(accept());
    dialer_ = std::make_unique<NetworkDialer>(network_);
    PrimaryConfig config;
    config.resource = "data";
    config.settings.replication = replication;
    primary = std::make_unique<Primary>(component_, *dialer_, host, config, slab_.data(),
                                        kRequestBytesMax);
    scope_.spawn(start());
  }
  ~ScriptedSecondary() {
    primary->stop_admission();
    loop.run_until([this] { return started; }, 120 * kSecond);
    scope_.spawn(drain());
    listener_->close();
    for (const std::unique_ptr<Wire>& wire : wires) wire->close();
    loop.advance(120 * kSecond);
    wires.clear();
    primary.reset();
  }
  Wire* wire(std::size_t index) {
    loop.run_until([this, index] { return wires.size() > index; }, kSecond);
    return wires.size() > index ? wires[index].get() : nullptr;
  }
  Task<void> request(RequestOp op, uint64_t offset, ByteVector bytes, bool& done, int& error) {
    ProviderClient client;
    Signal waiter;
    Request* slot = nullptr;
    Request* request = primary->acquire(client, waiter, &slot);
    HAST_ASSERT(request != nullptr);
    request->op = op;
    request->offset = offset;
    request->length = bytes.size();
    std::copy(bytes.begin(), bytes.end(), request->buffer);
    Signal answered;
    request->answered = &answered;
    primary->submit(*request);
    co_await answered;
    error = request->error;
    primary->release(*request);
    done = true;
    while (client.slots_held > 0) {
      SleepTimer pause;
      co_await pause.sleep_us(100);
    }
  }
  void begin(uint64_t offset, ByteVector bytes, bool& done, int& error) {
    scope_.spawn(request(RequestOp::kWrite, offset, std::move(bytes), done, error));
  }
  void begin_read(uint64_t offset, std::size_t size, bool& done, int& error) {
    scope_.spawn(request(RequestOp::kRead, offset, ByteVector(size), done, error));
  }
  Metadata metadata() const {
    return MetadataBlock::decode(disk_.current().first(kMetadataBytes))->metadata();
  }

  FaultComponent& disk() { return component_; }

  SimLoop loop;
  Host host;
  StartFailure failure;
  bool started = false;
  bool serving = false;
  std::vector<std::unique_ptr<Wire>> wires;
  std::unique_ptr<Primary> primary;

 private:
  class NetworkDialer final : public Dialer {
   public:
    explicit NetworkDialer(PipeNetwork& network) : network_(network) {}
    bool has_peer() const override { return true; }
    Task<int> dial(std::unique_ptr<Stream>& out, uint32_t timeout_ms) override {
      const int rc = co_await network_.connect("peer", 1, uint64_t{timeout_ms} * 1000, timer_, out);
      co_return rc;
    }
    void cancel() override { timer_.wake(); }

   private:
    PipeNetwork& network_;
    SleepTimer timer_;
  };
  Task<void> accept() {
    for (;;) {
      std::unique_ptr<Stream> stream;
      const int rc = co_await listener_->accept(stream);
      if (rc != 0) break;
      wires.push_back(std::make_unique<Wire>(std::move(stream)));
    }
  }
  Task<void> start() {
    serving = co_await primary->start(failure);
    started = true;
  }
  Task<void> drain() { co_await primary->drain(); }

  PipeNetwork network_;
  MemoryDisk disk_;
  FaultComponent component_;
  LazySlab slab_;
  std::unique_ptr<PipeListener> listener_;
  std::unique_ptr<Dialer> dialer_;
  Scope scope_;
};

/// Do all recorded fields stand in the message with the same values (but for these)?
bool has_fields(const ByteVector& message, const Json& expected,
                const std::vector<std::string>& but) {
  if (message.size() <= kHeadBytes) return false;
  for (const Json& one : expected["fields"]) {
    const std::string name = one["name"];
    if (std::find(but.begin(), but.end(), name) != but.end()) continue;
    NvType type{};
    const ByteVector data = field_data(one, type);
    NvCursor cursor(ConstBytes(message).subspan(kHeadBytes));
    NvEntry entry;
    bool found = false;
    while (cursor.next(entry) == NvCursor::Step::kEntry) {
      if (entry.name != name) continue;
      found = entry.type == type && hex(entry.data) == hex(data);
      break;
    }
    if (!found) return false;
  }
  return static_cast<unsigned>(message[0]) == version_of(expected);
}

}  // namespace

TEST(peer, "a primary says and refuses what the recorded ones did") {
  const Json file = load_vectors("sessions");
  for (const Json& session : file["sessions"]) {
    const std::string name = session["name"];
    if (!name.starts_with("primary-")) continue;
    ScriptedSecondary script(Replication::kMemsync);
    const Json& messages = session["messages"];
    Wire* one = script.wire(0);
    REQUIRE(one != nullptr);
    CHECK(has_fields(one->next(script.loop), messages[0], {}));
    one->send(script.loop, unhex(messages[1]["header_hex"].text()));
    if (messages[2].contains("fields")) {
      Wire* two = script.wire(1);
      REQUIRE(two != nullptr);
      CHECK(has_fields(two->next(script.loop), messages[2], {"resuid"}));
      one->send(script.loop, unhex(messages[3]["header_hex"].text()));
      script.loop.run_until([two] { return two->ended; }, kSecond / 2);
      CHECK(two->ended);
    }
    script.loop.run_until([one] { return one->ended; }, kSecond / 2);
    CHECK(one->ended);
    CHECK(!script.primary->stats().complete);
  }
}

TEST(peer, "a primary repeats its part of recorded virgin sessions, but for its sequence numbers") {
  const Json file = load_vectors("sessions");
  for (const Json& session : file["sessions"]) {
    const std::string name = session["name"];
    const bool old = name == "v1-secondary";
    if (name != "virgin-memsync-hole" && !old) continue;
    ScriptedSecondary script(Replication::kMemsync);
    const Json& messages = session["messages"];
    Wire* one = script.wire(0);
    REQUIRE(one != nullptr);
    CHECK(has_fields(one->next(script.loop), messages[0], {}));
    one->send(script.loop, unhex(messages[1]["header_hex"].text()));
    Wire* two = script.wire(1);
    REQUIRE(two != nullptr);
    CHECK(has_fields(two->next(script.loop), messages[2], {"resuid"}));
    one->send(script.loop, unhex(messages[3]["header_hex"].text()));
    script.loop.run_until([&] { return script.serving; }, kSecond);
    REQUIRE(script.serving);
    bool done = true;
    int error = 0;
    uint64_t seq = 0;
    for (std::size_t i = 4; i < messages.size(); ++i) {
      const Json& message = messages[i];
      if (!message.contains("fields")) break;
      if (message["direction"] == "secondary->primary") {
        // The recorded reply, with the number that we were asked with.
        ReplyMessage reply = ReplyMessage::done(seq, 0);
        if (field(message, "received") != nullptr) reply = ReplyMessage::received(seq);
        ByteVector bytes(kPacketHeadBytesMax);
        bytes.resize(encode_reply(Bytes(bytes), version_of(messages[1]), reply));
        two->send(script.loop, bytes);
        continue;
      }
      const uint64_t cmd = number_or(message, "cmd", 0);
      if (cmd != 2) break;  // deletes are rounded, flushes of our own may come between
      CHECK(done);
      done = false;
      std::string payload = message["payload_hex"];
      ByteVector bytes = unhex(payload);
      if (field(message, "compression") != nullptr)
        bytes.assign(number_or(message, "length", 0), {});
      script.begin(number_or(message, "offset", 0), bytes, done, error);
      ByteVector got_payload;
      ByteVector got;
      RequestMessage request;
      for (;;) {  // flushes of our own, at the end of a pass, may come between
        got = one->next(script.loop, &got_payload);
        REQUIRE(got.size() > kHeadBytes);
        request = RequestMessage{};
        REQUIRE(decode_request(ConstBytes(got).subspan(kHeadBytes), request).has_value());
        if (request.cmd != Command::kFlush) break;
        ByteVector done_bytes(kPacketHeadBytesMax);
        done_bytes.resize(encode_reply(Bytes(done_bytes), version_of(messages[1]),
                                       ReplyMessage::done(request.seq, 0)));
        two->send(script.loop, done_bytes);
      }
      CHECK(has_fields(got, message, {"seq"}));
      CHECK_EQ(hex(got_payload), payload);
      seq = request.seq;
      script.loop.advance(1000);
      CHECK_EQ(request.has(kHasMemsync), !old);
      CHECK(!done);
    }
    script.loop.advance(1000);
    CHECK(done);
    CHECK_EQ(error, 0);
    CHECK_EQ(script.metadata().localcnt, 0u);  // as recorded: mirrored at the end of the pass
  }
}

namespace {

constexpr uint32_t kSmallExtent = 65536;  // 128 of them: 16 bytes of map

Metadata small_extents() {
  Metadata metadata = original_metadata();
  metadata.extentsize = kSmallExtent;
  return metadata;
}

SecondReply good_answer() {
  SecondReply answer;
  answer.datasize = kDataBytes;
  answer.extentsize = kSmallExtent;
  answer.syncsrc = SyncSource::kPrimary;
  answer.mapsize = 16;
  answer.payload.size_bytes = 16;
  return answer;
}

/// Plays the set-up up to the answer, with an empty map of the size that it names. The replies'
/// wire. One of ours answers with the epoch that it was asked in, `off` by so much.
Wire* set_up(ScriptedSecondary& script, SecondReply answer, bool ours = false, uint64_t off = 0,
             uint8_t version = 2) {
  Wire* one = script.wire(0);
  one->next(script.loop);
  ByteVector bytes(1024);
  FirstReply hello;
  hello.version = version;
  if (ours) hello.ext = kExtExtended;
  bytes.resize(encode_first_reply(Bytes(bytes), version, hello));
  one->send(script.loop, bytes);
  Wire* two = script.wire(1);
  const ByteVector question = two->next(script.loop);
  if (ours) {
    const auto asked = decode_second_request(ConstBytes(question).subspan(kHeadBytes));
    answer.extension = {kExtExtended, asked->extension.epoch + off, 1, {}};
  }
  bytes.resize(1024);
  bytes.resize(encode_second_reply(Bytes(bytes), version, answer));
  bytes.resize(bytes.size() + answer.payload.size_bytes);
  one->send(script.loop, bytes);
  script.loop.advance(kSecond / 10);
  return two;
}

/// The next request of this kind; what comes before it stays without an answer.
RequestMessage next_request(ScriptedSecondary& script, Command cmd) {
  for (;;) {
    RequestMessage request;
    const ByteVector got = script.wires[0]->next(script.loop);
    CHECK(got.size() > kHeadBytes);
    if (got.size() <= kHeadBytes) return request;
    CHECK(decode_request(ConstBytes(got).subspan(kHeadBytes), request).has_value());
    if (request.cmd == cmd) return request;
  }
}

ByteVector reply_bytes(const ReplyMessage& message, ConstBytes payload = {}) {
  ByteVector bytes(kPacketHeadBytesMax);
  bytes.resize(encode_reply(Bytes(bytes), 2, message));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

}  // namespace

TEST(peer, "an answer that cannot be is no connection (wire-protocol 5.2)") {
  using Change = void (*)(SecondReply&);
  constexpr Change kChanges[] = {
      [](SecondReply&) {},  // the one that can be
      [](SecondReply& answer) { answer.datasize += 512; },
      [](SecondReply& answer) { answer.extentsize *= 2; },
      [](SecondReply& answer) { answer.syncsrc = SyncSource::kNone; },
      [](SecondReply& answer) {
        answer.virgin = true;
        answer.syncsrc = SyncSource::kSecondary;
      },
      [](SecondReply& answer) {
        answer.virgin = true;
        answer.localcnt = 1;
      },
      [](SecondReply& answer) { answer.mapsize = answer.payload.size_bytes = 8; },
      [](SecondReply& answer) {
        answer.payload.checksum = Checksum::kCrc32;
        answer.payload.hash_bytes = 4;  // of zeroes it is not zero
      },
  };
  for (const Change& change : kChanges) {
    ScriptedSecondary script(Replication::kFullsync, small_extents());
    SecondReply answer = good_answer();
    change(answer);
    set_up(script, answer);
    CHECK_EQ(script.primary->stats().complete, &change == &kChanges[0]);
  }
}

TEST(peer, "an answer of another epoch agrees on nothing (I3)") {
  for (const uint64_t off : {0, 1}) {
    ScriptedSecondary script(Replication::kFullsync, small_extents());
    set_up(script, good_answer(), true, off);
    CHECK_EQ(script.primary->stats().complete, off == 0);
  }
}

TEST(peer, "words of a secondary that are out of step confirm nothing (R-19)") {
  for (const bool malformed : {false, true}) {
    ScriptedSecondary script(Replication::kFullsync, small_extents());
    Wire* two = set_up(script, good_answer());
    REQUIRE(script.serving);
    bool done = false;
    int error = 0;
    script.begin(4096, pattern(1, 4096), done, error);
    const RequestMessage write = next_request(script, Command::kWrite);
    ByteVector bytes = reply_bytes(ReplyMessage::received(write.seq));  // it was not asked for
    if (malformed) bytes = reply_bytes(ReplyMessage::done(write.seq, 0));
    if (malformed) bytes[kHeadBytes] = std::byte{0xff};
    two->send(script.loop, bytes);
    script.loop.advance(kSecond / 10);
    CHECK(two->ended);
    CHECK(done);
    CHECK_EQ(script.metadata().localcnt, 1u);
  }
}

TEST(peer, "data of a secondary that are not what it says are not read (R-19)") {
  for (const bool short_of_it : {false, true}) {
    ScriptedSecondary script(Replication::kFullsync, small_extents());
    Wire* two = set_up(script, good_answer());
    REQUIRE(script.serving);
    script.disk().add_fault({FaultComponent::kRead, -EIO, 1, 4608, kDataBytes});
    bool done = false;
    int error = 0;
    script.begin_read(4096, 4096, done, error);
    const RequestMessage read = next_request(script, Command::kRead);
    PayloadInfo info;
    info.size_bytes = short_of_it ? 512 : 4096;
    if (!short_of_it) {
      info.checksum = Checksum::kCrc32;
      info.hash_bytes = 4;
    }
    two->send(script.loop,
              reply_bytes(ReplyMessage::data(read.seq, info), pattern(1, info.size_bytes)));
    script.loop.advance(kSecond / 10);
    CHECK(two->ended);
    CHECK(done);
    CHECK_EQ(error, EIO);
  }
}

TEST(peer, "an idle primary keeps originals of version 1 and 2 alive, and leaves version 0 alone") {
  for (const uint8_t version : {uint8_t{0}, uint8_t{1}, uint8_t{2}}) {
    ScriptedSecondary script(Replication::kFullsync, small_extents());
    Wire* two = set_up(script, good_answer(), false, 0, version);
    REQUIRE(two != nullptr);
    unsigned keepalives = 0;
    const uint64_t begin_us = script.loop.now_us();
    while (script.loop.now_us() < begin_us + 25 * kSecond) {
      const ByteVector got = script.wires[0]->next(script.loop);
      if (got.empty()) continue;
      RequestMessage request;
      REQUIRE(decode_request(ConstBytes(got).subspan(kHeadBytes), request).has_value());
      CHECK_EQ(static_cast<unsigned>(got[0]), unsigned{version});
      if (request.cmd == Command::kKeepalive) {
        CHECK_EQ(request.fields, kHasCmd);
        ++keepalives;
      } else {
        two->send(script.loop, reply_bytes(ReplyMessage::done(request.seq, 0)));
      }
    }
    CHECK(script.primary->stats().complete);
    CHECK_EQ(keepalives, version == 0 ? 0u : 2u);
  }
}

TEST(peer, "an original that owes an answer for the timeout is given up, and nothing is lost") {
  ScriptedSecondary script(Replication::kFullsync, small_extents());
  Wire* two = set_up(script, good_answer());
  REQUIRE(script.serving);
  bool done = false;
  int error = 0;
  script.begin(4096, pattern(1, 4096), done, error);
  next_request(script, Command::kWrite);
  script.loop.advance(18 * kSecond);
  CHECK(!done && !two->ended);
  script.loop.advance(4 * kSecond);
  CHECK(done && two->ended);
  CHECK_EQ(error, 0);
  CHECK_EQ(script.metadata().localcnt, 1u);
}

TEST(peer, "a silent original is given up after 20 s, unless it keeps alive or has version 0") {
  for (const uint8_t version : {uint8_t{0}, uint8_t{1}, uint8_t{2}}) {
    for (const bool alive : {false, true}) {
      if (version == 0 && alive) continue;  // it has no such message
      SecondaryConfig config = plain_config();
      config.version = version;
      config.timeout_ms = 1000;
      ScriptedPrimary script(original_metadata(), config);
      script.one->next(script.loop);
      for (unsigned i = 0; i < 6; ++i) {
        script.loop.advance(9 * kSecond);
        CHECK_EQ(script.ended, version > 0 && !alive && i >= 2);
        if (alive) script.one->send(script.loop, request_bytes(RequestMessage::keepalive()));
      }
      CHECK(script.two->got.empty());
    }
  }
}

}  // namespace hast::test
