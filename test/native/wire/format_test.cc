#include "wire/format.h"

#include <random>

#include "harness.h"
#include "vectors.h"
#include "wire/errno_map.h"

using namespace hast;
using namespace hast::test;

namespace {

enum class Kind { kM1, kR1, kM2, kR2, kRequest, kReply };

bool has_field(const Json& fields, const char* name) {
  for (const Json& field : fields) {
    if (field["name"] == name) return true;
  }
  return false;
}

/// Which message has these fields, when it came from the primary or not?
Kind kind_of(const Json& fields, bool from_primary) {
  if (has_field(fields, "resource")) return has_field(fields, "token") ? Kind::kM2 : Kind::kM1;
  if (from_primary) return Kind::kRequest;
  if (has_field(fields, "datasize")) return Kind::kR2;
  if (has_field(fields, "token") || has_field(fields, "errmsg")) return Kind::kR1;
  return Kind::kReply;
}

template <typename T, typename Encode>
size_t again(Bytes out, uint8_t version, const Result<T>& message, Encode encode) {
  return message ? encode(out, version, *message) : 0;
}

/// Decodes an area into its struct and encodes that; empty when it is not accepted.
ByteVector round_trip(Kind kind, uint8_t version, ConstBytes area) {
  ByteVector out(kMessageBytesMax);
  size_t size = 0;
  RequestMessage request;
  ReplyMessage reply;
  switch (kind) {
    case Kind::kM1:
      size = again(out, version, decode_first_request(area), encode_first_request);
      break;
    case Kind::kR1:
      size = again(out, version, decode_first_reply(area), encode_first_reply);
      break;
    case Kind::kM2:
      size = again(out, version, decode_second_request(area), encode_second_request);
      break;
    case Kind::kR2:
      size = again(out, version, decode_second_reply(area), encode_second_reply);
      break;
    case Kind::kRequest:
      if (decode_request(area, request)) size = encode_request(out, version, request);
      break;
    case Kind::kReply:
      if (decode_reply(area, reply)) size = encode_reply(out, version, reply);
      break;
  }
  out.resize(size);
  return out;
}

MessageHead head_of(ConstBytes bytes) {
  const Result<MessageHead> head = decode_head(bytes.first<kHeadBytes>());
  CHECK(head.has_value());
  return head ? *head : MessageHead{};
}

/// A recorded message decodes to its fields, and our struct of it encodes to the same bytes.
void check_message(const std::string& text, const Json& fields, bool from_primary) {
  const ByteVector bytes = unhex(text);
  REQUIRE(bytes.size() >= kHeadBytes);
  const MessageHead head = head_of(bytes);
  REQUIRE(bytes.size() >= kHeadBytes + head.nv_bytes);
  const ConstBytes area = ConstBytes(bytes).subspan(kHeadBytes, head.nv_bytes);
  CHECK(holds_fields(area, fields));
  const ByteVector back = round_trip(kind_of(fields, from_primary), head.version, area);
  CHECK_EQ(hex(back), text.substr(0, 2 * (kHeadBytes + head.nv_bytes)));
}

const Json* find_case(const Json& file, const char* name) {
  for (const Json& c : file["cases"]) {
    if (c["name"] == name) return &c;
  }
  fail(__FILE__, __LINE__, std::string("no case ") + name);
  return nullptr;
}

/// The request of a recorded case and the payload behind it.
struct Recorded {
  RequestMessage request;
  ByteVector payload;
};
Recorded recorded(const Json& file, const char* name) {
  Recorded result;
  const Json* c = find_case(file, name);
  if (c == nullptr) return result;
  const ByteVector bytes = unhex((*c)["request_hex"].text());
  const MessageHead head = head_of(bytes);
  const ConstBytes area = ConstBytes(bytes).subspan(kHeadBytes, head.nv_bytes);
  CHECK(decode_request(area, result.request).has_value());
  result.payload.assign(bytes.begin() + static_cast<std::ptrdiff_t>(kHeadBytes + head.nv_bytes),
                        bytes.end());
  return result;
}

}  // namespace

namespace {

// In these a scripted secondary sends a first reply that we never send: without a version (which is
// read as 1), or one that the primary must refuse.
enum class OddReply { kNone, kVersionOne, kRefused };
OddReply odd_reply(const Json& fields) {
  if (kind_of(fields, false) != Kind::kR1 || has_field(fields, "errmsg")) return OddReply::kNone;
  if (!has_field(fields, "version")) return OddReply::kVersionOne;
  for (const Json& field : fields) {
    if (field["name"] == "version" && field["value"].number() > 2) return OddReply::kRefused;
    if (field["name"] == "token" && field["value"].text().size() != 2 * kTokenBytes) {
      return OddReply::kRefused;
    }
  }
  return OddReply::kNone;
}

}  // namespace

TEST(format, "every message of every recorded session is decoded and encoded again byte by byte") {
  const Json file = load_vectors("sessions");
  unsigned messages = 0, odd_replies = 0;
  for (const Json& session : file["sessions"]) {
    for (const Json& m : session["messages"]) {
      if (!m.contains("header_hex")) continue;  // an end of stream
      const bool from_primary = m["direction"] == "primary->secondary";
      const OddReply odd = from_primary ? OddReply::kNone : odd_reply(m["fields"]);
      if (odd != OddReply::kNone) {
        const ByteVector bytes = unhex(m["header_hex"].text());
        const auto reply = decode_first_reply(ConstBytes(bytes).subspan(kHeadBytes));
        CHECK_EQ(reply.has_value(), odd == OddReply::kVersionOne);
        if (reply) CHECK_EQ(reply->version, 1);
        odd_replies++;
        continue;
      }
      check_message(m["header_hex"].text(), m["fields"], from_primary);
      messages++;
    }
  }
  CHECK(messages > 150);
  CHECK_EQ(odd_replies, 3u);
}

TEST(format, "every recorded payload is accepted and none of it is lost") {
  const Json file = load_vectors("sessions");
  unsigned payloads = 0;
  for (const Json& session : file["sessions"]) {
    for (const Json& m : session["messages"]) {
      if (!m.contains("payload_hex")) continue;
      const ByteVector payload = unhex(m["payload_hex"].text());
      const ByteVector bytes = unhex(m["header_hex"].text());
      const ConstBytes area = ConstBytes(bytes).subspan(kHeadBytes);
      PayloadInfo info;
      uint64_t length = 0;
      if (has_field(m["fields"], "mapsize")) {
        const Result<SecondReply> reply = decode_second_reply(area);
        REQUIRE(reply.has_value());
        info = reply->payload;
        length = reply->mapsize;
      } else if (has_field(m["fields"], "cmd")) {
        RequestMessage request;
        REQUIRE(decode_request(area, request).has_value());
        info = request.payload;
        length = request.length;
      } else {
        ReplyMessage reply;
        REQUIRE(decode_reply(area, reply).has_value());
        info = reply.payload;
        length = info.compression == Compression::kNone ? payload.size()
                                                        : load_le<uint32_t>(payload.data());
      }
      if (payload.empty()) continue;
      CHECK(check_payload_info(info, length).has_value());
      ByteVector data(length);
      CHECK(accept_payload(info, payload, data).has_value());
      ByteVector shorter(length - 8);
      CHECK(!check_payload_info(info, 2).has_value());
      if (info.compression == Compression::kNone) CHECK(!check_payload_info(info, length + 1));
      if (info.checksum == Checksum::kNone) continue;
      ByteVector damaged = payload;
      damaged[damaged.size() / 2] ^= std::byte{4};
      CHECK(!accept_payload(info, damaged, data).has_value());
      payloads++;
    }
  }
  CHECK(payloads > 5);
}

TEST(format, "every recorded request and reply is decoded and encoded again byte by byte") {
  const Json file = load_vectors("requests");
  CHECK(file["cases"].size() >= 22);
  for (const Json& c : file["cases"]) {
    // What we would never send: a compression without a name of ours.
    if (c["name"] != "unknown-compression") {
      check_message(c["request_hex"].text(), c["request_fields"], true);
    }
    for (const Json& reply : c["replies"]) {
      if (!reply.contains("header_hex")) continue;
      check_message(reply["header_hex"].text(), reply["fields"], false);
    }
  }
}

TEST(format, "every recorded set-up message is decoded and encoded again, or dropped as required") {
  const Json file = load_vectors("handshake-errors");
  unsigned replies = 0;
  for (const Json& c : file["cases"]) {
    const std::string name = c["name"];
    const ByteVector bytes = unhex(c["request_hex"].text());
    const Result<MessageHead> head = decode_head(ConstBytes(bytes).first<kHeadBytes>());
    CHECK_EQ(head.has_value(), name != "header-version-3");
    if (!head) CHECK(head.error().code == Code::PEER_VERSION);
    if (c["reply"].contains("header_hex")) {
      check_message(c["reply"]["header_hex"].text(), c["reply"]["fields"], false);
      replies++;
    }
    if (!head) continue;
    const ConstBytes area = ConstBytes(bytes).subspan(kHeadBytes, head->nv_bytes);
    const Result<bool> second = is_second_request(area);
    const bool dropped = !c["reply"].contains("header_hex");
    const bool accepted = second && (*second ? decode_second_request(area).has_value()
                                             : decode_first_request(area).has_value());
    if (accepted == dropped) fail(__FILE__, __LINE__, name);
    if (name == "ok-no-version") CHECK_EQ(decode_first_request(area)->version, 1);
    if (name == "ok-newer-offer") CHECK_EQ(decode_first_request(area)->version, 9);
    // The other messages of this file leave fields out that we always send.
    if (name == "ok-v2") check_message(c["request_hex"].text(), c["request_fields"], true);
  }
  CHECK(replies >= 9);
}

TEST(format, "broken input is refused as required, and nothing is read past its end") {
  const Json file = load_vectors("malformed");
  const auto bytes_of = [&file](const char* name) {
    const Json* c = find_case(file, name);
    return c != nullptr ? unhex((*c)["bytes_hex"].text()) : ByteVector(kHeadBytes);
  };
  const ByteVector empty = bytes_of("empty-nv");
  CHECK_EQ(head_of(empty).nv_bytes, 0u);
  CHECK(!*is_second_request({}));
  CHECK(!decode_first_request({}).has_value());  // no resource
  RequestMessage request;
  CHECK(decode_request({}, request).has_value());
  CHECK_EQ(request.fields, 0u);

  const ByteVector huge = bytes_of("nv-length-4g");
  const Result<MessageHead> head = decode_head(ConstBytes(huge).first<kHeadBytes>());
  CHECK(!head.has_value() && head.error().code == Code::MESSAGE_INVALID);

  const ByteVector wrap = bytes_of("data-length-wrap");
  CHECK(!is_second_request(ConstBytes(wrap).subspan(kHeadBytes)).has_value());
  CHECK(!decode_request(ConstBytes(wrap).subspan(kHeadBytes), request).has_value());

  const ByteVector zero = bytes_of("zero-token-without-M1");
  const Result<SecondRequest> m2 = decode_second_request(ConstBytes(zero).subspan(kHeadBytes));
  CHECK(m2.has_value() && m2->virgin && m2->resuid == 77 && tokens_equal(m2->token, Token{}));
}

TEST(format, "requests are judged as the specification lists it") {
  const Json file = load_vectors("requests");
  const uint64_t data_bytes = 8388608;
  const auto valid = [&](const char* name) {
    return request_range_valid(recorded(file, name).request, data_bytes, 512);
  };
  for (const char* name : {"read-ok", "read-max", "delete-ok", "write-memsync"}) CHECK(valid(name));
  for (const char* name : {"read-length-0", "read-unaligned-offset", "read-unaligned-length",
                           "read-beyond-end", "no-offset"}) {
    CHECK(!valid(name));
  }
  CHECK(valid("read-too-long"));  // for the original; newer ones may send up to 1 MiB
  RequestMessage wrap = RequestMessage::read(1, UINT64_MAX - 511, 512);
  CHECK(!request_range_valid(wrap, data_bytes, 512));
  wrap = RequestMessage::read(1, 0, kPeerRequestBytesMax + 512);
  CHECK(!request_range_valid(wrap, data_bytes, 512));
  wrap = RequestMessage::discard(1, 512, UINT64_MAX - 511);
  CHECK(!request_range_valid(wrap, data_bytes, 512));
}

TEST(format, "a payload without size, of another length or with an unknown name is refused") {
  const Json file = load_vectors("requests");
  ByteVector data(512);
  CHECK(!check_payload_info(recorded(file, "write-without-size").request.payload, 512).has_value());
  CHECK(!check_payload_info(recorded(file, "unknown-compression").request.payload, 512));
  const Recorded hole = recorded(file, "hole-wrong-length");
  CHECK(!accept_payload(hole.request.payload, hole.payload, data).has_value());
  const Recorded checksum = recorded(file, "bad-checksum");
  CHECK(!accept_payload(checksum.request.payload, checksum.payload, data).has_value());
  const Recorded good = recorded(file, "write-fullsync");
  CHECK(accept_payload(good.request.payload, good.payload, data).has_value());
  CHECK(data == good.payload);
}

TEST(format, "what is prepared for sending is accepted, whatever is configured") {
  LzfTables tables;
  for (const Compression c : {Compression::kNone, Compression::kHole, Compression::kLzf}) {
    for (const Checksum k : {Checksum::kNone, Checksum::kCrc32, Checksum::kSha256}) {
      for (const char* rule : {"zero", "text", "lcg"}) {
        const ByteVector data = content(rule, 4096);
        ByteVector room(data.size());
        PayloadInfo info;
        const ConstBytes sent = prepare_payload(c, k, data, room, tables, info);
        if (c == Compression::kLzf && std::string_view(rule) == "text") {
          CHECK(info.compression == Compression::kLzf && sent.size() < data.size());
        }
        std::array<std::byte, kRequestHeaderBytesMax> header;
        const size_t size = encode_request(
            header, 2, RequestMessage::write(9, 4096, 4096, kHasMemsync | kHasFua, info));
        REQUIRE(size > 0);
        RequestMessage request;
        const ConstBytes area = ConstBytes(header).first(size).subspan(kHeadBytes);
        REQUIRE(decode_request(area, request).has_value());
        CHECK(request.has(kHasFua) && request.has(kHasMemsync) && !request.has(kHasSync));
        ByteVector back(4096, std::byte{1});
        CHECK(accept_payload(request.payload, sent, back).has_value());
        CHECK(back == data);
      }
    }
  }
}

TEST(format, "extensions are written only when asked for, and come back as they went") {
  std::array<std::byte, 1024> out;
  const auto area = [&out](size_t size) {
    CHECK(size > 0);
    return ConstBytes(out).first(size).subspan(kHeadBytes);
  };
  FirstRequest m1;
  m1.resource = "data";
  CHECK(!NvReader::open(area(encode_first_request(out, 1, m1)))->has("ext"));
  m1.ext = kExtExtended;
  CHECK_EQ(decode_first_request(area(encode_first_request(out, 1, m1)))->ext, kExtExtended);

  SecondRequest m2;
  m2.resource = "data";
  m2.extension.epoch = 5;
  CHECK(!NvReader::open(area(encode_second_request(out, 2, m2)))->has("epoch"));
  m2.extension = {kExtExtended, 5, 6, {7, 8, 9}};
  const Extension back = decode_second_request(area(encode_second_request(out, 2, m2)))->extension;
  CHECK(back.ext == kExtExtended && back.epoch == 5 && back.bootid == 6);
  CHECK(back.generations == (Generations{7, 8, 9}));

  RequestMessage r;
  CHECK(decode_request(area(encode_request(out, 2, RequestMessage::map_stored(3, 1 << 20))), r));
  CHECK(r.cmd == Command::kMapStored && r.epoch == 3 && r.dirty == 1 << 20 && !r.has(kHasSeq));
  CHECK(decode_request(area(encode_request(out, 2, RequestMessage::sync_done(8, 3, 4))), r));
  CHECK(r.cmd == Command::kSyncDone && r.seq == 8 && r.epoch == 3 && r.generation == 4);
  CHECK(decode_request(area(encode_request(out, 2, RequestMessage::stale_copy(9, 3, 4, true))), r));
  CHECK(r.cmd == Command::kStale && r.has(kHasStale) && r.stale == 1 && r.epoch == 3 &&
        r.generation == 4);
  std::array<std::byte, 32> hash;
  hash.fill(std::byte{0xcd});
  CHECK(decode_request(area(encode_request(out, 2, RequestMessage::compare(1, 2, 3, hash))), r));
  CHECK(r.cmd == Command::kCompare && r.payload.hash == hash && r.payload.hash_bytes == 32);
  CHECK(r.has(kHasHash) && !r.has(kHasSize));

  ReplyMessage reply;
  CHECK(decode_reply(area(encode_reply(out, 2, ReplyMessage::alive())), reply));
  CHECK(reply.has(kReplyAlive) && !reply.has(kReplySeq));
  CHECK(decode_reply(area(encode_reply(out, 2, ReplyMessage::comparison(4, true))), reply));
  CHECK(reply.has(kReplyEqual) && reply.equal == 1 && reply.seq == 4);
}

TEST(format, "the longest request and reply fit the rooms that are set aside for them") {
  PayloadInfo info;
  info.compression = Compression::kHole;
  info.checksum = Checksum::kSha256;
  info.hash_bytes = 32;
  std::array<std::byte, kRequestHeaderBytesMax> request;
  CHECK(encode_request(request, 2,
                       RequestMessage::write(1, 2, 3, kHasMemsync | kHasFua | kHasSync, info)));
  std::array<std::byte, kReplyHeaderBytesMax> reply;
  CHECK(encode_reply(reply, 2, ReplyMessage::data(1, info)));
  CHECK_EQ(encode_reply(Bytes(reply).first(30), 2, ReplyMessage::data(1, info)), 0u);
  CHECK_EQ(encode_reply({}, 2, ReplyMessage::alive()), 0u);
}

TEST(format, "the first entry of a name counts, and a wrong type is as good as none") {
  std::array<std::byte, 512> room;
  NvWriter nv(room);
  nv.number<uint64_t>("seq", 3);
  nv.number<uint64_t>("seq", 4);
  nv.string("cmd", "2");
  nv.number<uint8_t>("cmd", 1);
  nv.number<int64_t>("offset", 512);
  nv.string("memsync", "no");
  nv.number<uint8_t>("compression", 1);
  nv.string("checksummed", "crc32");
  nv.string("compress", "lzf");
  RequestMessage r;
  CHECK(decode_request(Bytes(room).first(nv.size()), r).has_value());
  CHECK(r.seq == 3 && r.cmd == Command::kNone && !r.has(kHasCmd) && !r.has(kHasOffset));
  CHECK(r.has(kHasMemsync));
  CHECK(r.payload.compression == Compression::kNone && r.payload.checksum == Checksum::kNone);
}

TEST(format, "a second reply that no honest peer sends is refused") {
  std::array<std::byte, 1024> out;
  const auto accepted = [&out](auto change) {
    SecondReply reply;
    reply.datasize = 1 << 20;
    reply.extentsize = 1 << 20;
    reply.syncsrc = SyncSource::kPrimary;
    change(reply);
    const size_t size = encode_second_reply(out, 2, reply);
    return decode_second_reply(ConstBytes(out).first(size).subspan(kHeadBytes)).has_value();
  };
  CHECK(accepted([](SecondReply&) {}));
  CHECK(accepted([](SecondReply& r) { r.virgin = true; }));
  CHECK(!accepted([](SecondReply& r) { r.syncsrc = SyncSource::kNone; }));
  CHECK(!accepted([](SecondReply& r) { r.syncsrc = static_cast<SyncSource>(3); }));
  CHECK(!accepted([](SecondReply& r) { r.virgin = true, r.localcnt = 1; }));
  CHECK(!accepted([](SecondReply& r) { r.virgin = true, r.syncsrc = SyncSource::kSecondary; }));
  CHECK(!accepted([](SecondReply& r) { r.mapsize = kMapBytesMax + 1; }));
  CHECK(!accepted([](SecondReply& r) { r.datasize = 0; }));
  CHECK(accepted([](SecondReply& r) { r.errmsg = kSplitBrainText, r.datasize = 0; }));
}

TEST(format, "random and mutated messages never crash a decoder") {
  std::mt19937_64 random(4);
  const Json file = load_vectors("sessions");
  std::vector<ByteVector> seeds;
  for (const Json& session : file["sessions"]) {
    for (const Json& m : session["messages"]) {
      if (!m.contains("header_hex")) continue;
      const ByteVector bytes = unhex(m["header_hex"].text());
      seeds.emplace_back(bytes.begin() + kHeadBytes, bytes.end());
    }
  }
  REQUIRE(!seeds.empty());
  for (int round = 0; round < 30000; round++) {
    ByteVector bytes = seeds[random() % seeds.size()];
    if (random() % 4 == 0) {
      const ByteVector& other = seeds[random() % seeds.size()];
      bytes.insert(bytes.end(), other.begin(), other.end());
    }
    for (uint64_t i = random() % 4; i > 0; i--) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    if (random() % 3 == 0) bytes.resize(random() % (bytes.size() + 1));
    const ByteVector area(bytes.begin(), bytes.end());
    RequestMessage request;
    ReplyMessage reply;
    const bool valid = NvReader::open(area).has_value();
    CHECK_EQ(decode_request(area, request).has_value(), valid);
    CHECK_EQ(decode_reply(area, reply).has_value(), valid);
    CHECK_EQ(is_second_request(area).has_value(), valid);
    check_payload_info(request.payload, request.length).has_value();
    decode_first_request(area).has_value();
    decode_first_reply(area).has_value();
    decode_second_request(area).has_value();
    const Result<SecondReply> r2 = decode_second_reply(area);
    if (r2) CHECK(r2->mapsize <= kMapBytesMax);
  }
}

TEST(errno_map, "numbers are translated both ways, and unknown ones are EIO") {
  const std::pair<int, int16_t> table[] = {
      {EIO, 5},           {EINVAL, 22},       {EDEADLK, 11},      {EAGAIN, 35},   {EOPNOTSUPP, 45},
      {ENOBUFS, 55},      {ECONNABORTED, 53}, {ECONNRESET, 54},   {ENOTCONN, 57}, {ETIMEDOUT, 60},
      {ECONNREFUSED, 61}, {ENAMETOOLONG, 63}, {EHOSTUNREACH, 65}, {EDQUOT, 69},   {ENOSYS, 78},
      {EOVERFLOW, 84},    {ECANCELED, 85},    {EILSEQ, 86},       {EBADMSG, 89},  {0, 0}};
  for (const auto& [host, wire] : table) {
    CHECK_EQ(errno_to_wire(host), wire);
    CHECK_EQ(errno_from_wire(wire), host);
  }
  CHECK_EQ(errno_from_wire(79), EINVAL);
  CHECK_EQ(errno_to_wire(4095), 5);
  CHECK_EQ(errno_to_wire(-5), 5);
  CHECK_EQ(errno_from_wire(-1), EIO);
  CHECK_EQ(errno_from_wire(30000), EIO);
  for (int number = 0; number < 200; number++) {
    const int16_t wire = errno_to_wire(number);
    CHECK(wire >= 0 && (number == 0) == (wire == 0));
    if (wire != 5) CHECK_EQ(errno_from_wire(wire), number);
  }
}

namespace {

AuthKey auth_key() {
  AuthKey key;
  key.secret = "key";
  key.primary.fill(std::byte{1});
  key.secondary.fill(std::byte{2});
  return key;
}

ByteVector second_request_signed(const AuthKey& key) {
  SecondRequest message;
  message.resource = "data";
  message.resuid = 7;
  message.extension.ext = kExtExtended;
  ByteVector out(1024);
  const size_t plain = encode_second_request(out, kWireVersion, message);
  out.resize(sign_second_request(out, plain, key));
  return out;
}

ByteVector second_reply_signed(const AuthKey& key) {
  SecondReply message;
  message.datasize = 1 << 20;
  message.extentsize = 131072;
  message.syncsrc = SyncSource::kPrimary;
  message.mapsize = 512;
  message.payload.size_bytes = 512;
  message.extension.ext = kExtExtended;
  ByteVector out(1024);
  const size_t plain = encode_second_reply(out, kWireVersion, message);
  out.resize(sign_second_reply(out, plain, key));
  return out;
}

ConstBytes area_of(const ByteVector& message) { return ConstBytes(message).subspan(kHeadBytes); }

}  // namespace

TEST(format, "HMAC-SHA256 is that of RFC 4231 and of every other node") {
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  const ConstBytes parts[] = {bytes("what do ya want "), bytes("for nothing?")};
  const auto hash = hmac_sha256(bytes("Jefe"), parts);
  CHECK(ByteVector(hash.begin(), hash.end()) ==
        unhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
}

TEST(format, "a signature is the last entry, and the head counts it") {
  for (const ByteVector& message :
       {second_request_signed(auth_key()), second_reply_signed(auth_key())}) {
    REQUIRE(message.size() > kHeadBytes);
    CHECK_EQ(head_of(message).nv_bytes, area_of(message).size());
    const Result<NvReader> nv = NvReader::open(area_of(message));
    REQUIRE(nv.has_value());
    CHECK_EQ(nv->bytes("auth").value_or(ConstBytes()).size(), 32u);
  }
  CHECK(second_request_proven(area_of(second_request_signed(auth_key())), auth_key()));
  CHECK(second_reply_proven(area_of(second_reply_signed(auth_key())), auth_key()));
  // Without a secret nothing changes.
  CHECK_EQ(second_request_signed({}).size() + 46, second_request_signed(auth_key()).size());
}

TEST(format, "no bit of a signed message can change") {
  const AuthKey key = auth_key();
  ByteVector request = second_request_signed(key);
  for (size_t bit = kHeadBytes * 8; bit < request.size() * 8; ++bit) {
    request[bit / 8] ^= std::byte(1u << (bit % 8));
    CHECK(!second_request_proven(area_of(request), key));
    request[bit / 8] ^= std::byte(1u << (bit % 8));
  }
  ByteVector reply = second_reply_signed(key);
  for (size_t bit = kHeadBytes * 8; bit < reply.size() * 8; ++bit) {
    reply[bit / 8] ^= std::byte(1u << (bit % 8));
    CHECK(!second_reply_proven(area_of(reply), key));
    reply[bit / 8] ^= std::byte(1u << (bit % 8));
  }
}

TEST(format, "a signature is of one secret, one set-up and one direction") {
  const AuthKey key = auth_key();
  AuthKey secret = key, later = key, swapped = key;
  secret.secret = "kez";
  later.secondary[0] = std::byte{9};
  std::swap(swapped.primary, swapped.secondary);
  const ByteVector request = second_request_signed(key);
  for (const AuthKey& other : {secret, later, swapped}) {
    CHECK(!second_request_proven(area_of(request), other));
  }
  CHECK(!second_reply_proven(area_of(request), key));
  ByteVector longer = request;
  longer.push_back(std::byte{0});
  CHECK(!second_request_proven(area_of(longer), key));
  CHECK(!second_request_proven(area_of(second_request_signed({})), key));
  CHECK(!second_request_proven({}, key));
}

TEST(format, "the nonces of the first messages come back") {
  Nonce nonce;
  nonce.fill(std::byte{5});
  FirstRequest request;
  request.resource = "data";
  request.nonce = nonce;
  ByteVector out(1024);
  out.resize(encode_first_request(out, 1, request));
  CHECK(decode_first_request(area_of(out))->nonce == nonce);
  FirstReply reply;
  reply.nonce = nonce;
  out.resize(1024);
  out.resize(encode_first_reply(out, 2, reply));
  CHECK(decode_first_reply(area_of(out))->nonce == nonce);
}
