#include "wire/format.h"

#include "codec/nv.h"

namespace hast {
namespace {

constexpr Error invalid(const char* what) { return Error{Code::MESSAGE_INVALID, 0, what}; }
constexpr Error damaged(const char* what) { return Error{Code::PEER_PAYLOAD, 0, what}; }

// --- encoding: the head is filled in last
// ----------------------------------------------------------

/// Writes the nv area behind the room for a head.
NvWriter after_head(Bytes out) {
  return NvWriter(out.size() < kHeadBytes ? Bytes() : out.subspan(kHeadBytes));
}

size_t finish(Bytes out, uint8_t version, const NvWriter& nv) {
  if (nv.overflowed() || out.size() < kHeadBytes) return 0;
  out[0] = static_cast<std::byte>(version);
  store_le(out.data() + 1, static_cast<uint32_t>(nv.size()));
  return kHeadBytes + nv.size();
}

void put_payload(NvWriter& nv, const PayloadInfo& info) {
  if (info.compression != Compression::kNone) {
    nv.string("compression", compression_name(info.compression));
  }
  if (info.checksum != Checksum::kNone) {
    nv.string("checksum", checksum_name(info.checksum));
    HAST_ASSERT_OP(info.hash_bytes, <=, kHashBytesMax);
    nv.bytes("hash", ConstBytes(info.hash).first(info.hash_bytes));
  }
  nv.scalar("size", info.size_bytes);
}

void put_extension(NvWriter& nv, const Extension& extension) {
  if (extension.ext == 0) return;
  nv.scalar("ext", extension.ext);
  nv.scalar("epoch", extension.epoch);
  nv.scalar("bootid", extension.bootid);
  const Generations& ids = extension.generations;
  if (ids.current == 0) return;
  nv.scalar("gen", ids.current);
  nv.number("genshared", ids.shared);
  nv.number("genoffer", ids.offered);
}

// --- signing
// ---------------------------------------------------------------------------------------

/// With their NUL, which no other text of ours goes on behind.
constexpr std::string_view kRequestLabel("hastd M2", 9);
constexpr std::string_view kReplyLabel("hastd R2", 9);

/// The entry `auth` is the last 46 bytes of an area.
constexpr size_t kAuthEntryBytes = kNvHeadBytes + 8 + 32;
using AuthEntry = std::array<std::byte, kAuthEntryBytes>;

AuthEntry auth_entry(std::string_view label, const AuthKey& key, ConstBytes before) {
  const ConstBytes parts[] = {std::as_bytes(std::span(label)), key.primary, key.secondary, before};
  const ConstBytes secret = std::as_bytes(std::span(key.secret));
  AuthEntry entry;
  NvWriter nv{Bytes(entry)};
  nv.bytes("auth", hmac_sha256(secret, parts));
  HAST_ASSERT(nv.size() == entry.size());
  return entry;
}

size_t sign(Bytes out, size_t bytes, std::string_view label, const AuthKey& key) {
  if (!key.on()) return bytes;
  const size_t whole = bytes + kAuthEntryBytes;
  if (bytes < kHeadBytes || whole > out.size()) return 0;
  const AuthEntry entry = auth_entry(label, key, out.first(bytes).subspan(kHeadBytes));
  std::memcpy(out.data() + bytes, entry.data(), entry.size());
  store_le(out.data() + 1, static_cast<uint32_t>(whole - kHeadBytes));
  return whole;
}

bool proven(ConstBytes area, std::string_view label, const AuthKey& key) {
  HAST_ASSERT(key.on());
  if (area.size() < kAuthEntryBytes) return false;
  const ConstBytes before = area.first(area.size() - kAuthEntryBytes);
  return same_bytes(auth_entry(label, key, before), area.last(kAuthEntryBytes));
}

// --- decoding: one pass, the first entry of a name counts
// --------------------------------------------

/// Names already met while walking; only the first entry of a name is looked at.
class Seen {
 public:
  /// True the first time.
  bool first(uint32_t bit) {
    const bool is_first = (bits_ & bit) == 0;
    bits_ |= bit;
    return is_first;
  }

 private:
  uint32_t bits_ = 0;
};

/// Takes a number of exactly type T from the first entry of its name; says if it did.
template <typename T, typename To>
bool take(Seen& seen, uint32_t bit, const NvEntry& entry, To& to) {
  if (!seen.first(bit)) return false;
  const std::optional<T> value = entry.number<T>();
  if (value) to = static_cast<To>(*value);
  return value.has_value();
}

// The bits of the payload's names; those of a message's own names are below.
constexpr uint32_t kSeenCompression = 1u << 28;
constexpr uint32_t kSeenChecksum = 1u << 29;
constexpr uint32_t kSeenHash = 1u << 30;
constexpr uint32_t kSeenSize = 1u << 31;

/// Reads the entry if it is one of the payload's. Returns kSeenHash or kSeenSize when that one was
/// there with its type, else 0. Entries of other names are left alone.
uint32_t take_payload(Seen& seen, const NvEntry& entry, PayloadInfo& info) {
  switch (entry.name_key()) {
    case nv_key("size"):
      return take<uint32_t>(seen, kSeenSize, entry, info.size_bytes) ? kSeenSize : 0;
    case nv_key("hash"): {
      const std::optional<ConstBytes> hash = entry.bytes();
      if (!seen.first(kSeenHash) || !hash) return 0;
      info.hash_bytes = 255;
      if (hash->size() > kHashBytesMax) return kSeenHash;
      info.hash_bytes = static_cast<uint8_t>(hash->size());
      std::memcpy(info.hash.data(), hash->data(), hash->size());
      return kSeenHash;
    }
    case nv_key("checksum"): {
      if (entry.name.size() != 8 || !seen.first(kSeenChecksum)) return 0;
      const std::optional<std::string_view> name = entry.string();
      if (name) info.checksum = checksum_from_name(*name);
      return 0;
    }
    case nv_key("compress"): {
      if (entry.name != "compression" || !seen.first(kSeenCompression)) return 0;
      const std::optional<std::string_view> name = entry.string();
      if (name) info.compression = compression_from_name(*name);
      return 0;
    }
    default:
      return 0;
  }
}

/// Walks all entries of a set-up message, so that what follows can look them up.
Result<NvReader> open_area(ConstBytes area) {
  Result<NvReader> nv = NvReader::open(area);
  if (!nv) return invalid(nv.error().what);
  return nv;
}

std::optional<Nonce> nonce_of(const NvReader& nv) {
  const std::optional<ConstBytes> bytes = nv.bytes("nonce");
  Nonce nonce;
  if (!bytes || bytes->size() != nonce.size()) return std::nullopt;
  std::memcpy(nonce.data(), bytes->data(), nonce.size());
  return nonce;
}

bool take_token(const NvReader& nv, Token& token) {
  const std::optional<ConstBytes> bytes = nv.bytes("token");
  if (!bytes || bytes->size() != token.size()) return false;
  std::memcpy(token.data(), bytes->data(), token.size());
  return true;
}

/// A protocol version: absent or 0 is that of the time before `version`.
uint8_t version_of(const NvReader& nv) {
  const uint8_t version = nv.number<uint8_t>("version").value_or(0);
  return version == 0 ? 1 : version;
}

Extension extension_of(const NvReader& nv) {
  Extension extension;
  extension.ext = nv.number<uint32_t>("ext").value_or(0);
  if (extension.ext == 0) return extension;
  extension.epoch = nv.number<uint64_t>("epoch").value_or(0);
  extension.bootid = nv.number<uint64_t>("bootid").value_or(0);
  extension.generations = {nv.number<uint64_t>("gen").value_or(0),
                           nv.number<uint64_t>("genshared").value_or(0),
                           nv.number<uint64_t>("genoffer").value_or(0)};
  return extension;
}

PayloadInfo payload_of(const NvReader& nv) {
  PayloadInfo info;
  Seen seen;
  NvCursor cursor = nv.cursor();
  NvEntry entry;
  while (cursor.next(entry) == NvCursor::Step::kEntry) take_payload(seen, entry, info);
  return info;
}

}  // namespace

Result<MessageHead> decode_head(std::span<const std::byte, kHeadBytes> head) {
  const MessageHead result{static_cast<uint8_t>(head[0]), load_le<uint32_t>(head.data() + 1)};
  if (result.version > kWireVersion) {
    return Error{Code::PEER_VERSION, 0, "the message's version is greater than 2"};
  }
  if (result.nv_bytes > kMessageBytesMax) return invalid("the message is longer than 64 KiB");
  return result;
}

// --- payload
// ----------------------------------------------------------------------------------------

ConstBytes prepare_payload(Compression configured, Checksum checksum, ConstBytes data, Bytes room,
                           LzfTables& tables, PayloadInfo& info) {
  HAST_ASSERT(!data.empty());
  const Compressed sent = compress(configured, data, room, tables);
  info.compression = sent.compression;
  info.size_bytes = static_cast<uint32_t>(sent.payload.size());
  info.checksum = checksum;
  info.hash_bytes = static_cast<uint8_t>(checksum_compute(checksum, sent.payload, info.hash));
  return sent.payload;
}

Result<void> check_payload_info(const PayloadInfo& info, uint64_t data_bytes) {
  if (info.size_bytes == 0) return damaged("data without a size");
  if (info.size_bytes > data_bytes) return damaged("more data than was announced");
  switch (info.compression) {
    case Compression::kNone:
      if (info.size_bytes != data_bytes) return damaged("less data than was announced");
      break;
    case Compression::kHole:
      if (info.size_bytes != kHoleBytes) return damaged("a hole that is not 4 bytes long");
      break;
    case Compression::kLzf:
      if (info.size_bytes <= kHoleBytes) return damaged("an lzf payload without a stream");
      break;
    default:
      return damaged("an unknown compression");
  }
  if (info.checksum == Checksum::kNone) return {};
  if (info.checksum == Checksum::kUnknown) return damaged("an unknown checksum");
  if (info.hash_bytes != checksum_bytes(info.checksum)) {
    return damaged("a hash that is missing or has the wrong length");
  }
  return {};
}

Result<void> accept_payload(const PayloadInfo& info, ConstBytes payload, Bytes data) {
  const Result<void> checked = check_payload_info(info, data.size());
  if (!checked) return checked;
  HAST_ASSERT_OP(payload.size(), ==, info.size_bytes);
  const bool checksum_used = info.checksum != Checksum::kNone;
  if (checksum_used &&
      !checksum_matches(info.checksum, payload, ConstBytes(info.hash).first(info.hash_bytes))) {
    return damaged("the checksum does not match");
  }
  if (info.compression == Compression::kNone && payload.data() == data.data()) return {};
  return decompress(info.compression, payload, data);
}

// --- set-up
// -----------------------------------------------------------------------------------------

bool tokens_equal(const Token& a, const Token& b) { return same_bytes(a, b); }

size_t encode_first_request(Bytes out, uint8_t version, const FirstRequest& message) {
  NvWriter nv = after_head(out);
  nv.string("resource", message.resource);
  nv.scalar("version", message.version);
  if (message.ext != 0) nv.scalar("ext", message.ext);
  if (message.nonce) nv.bytes("nonce", *message.nonce);
  return finish(out, version, nv);
}

size_t encode_first_reply(Bytes out, uint8_t version, const FirstReply& message) {
  NvWriter nv = after_head(out);
  if (message.errmsg) {
    nv.string("errmsg", *message.errmsg);
    if (message.wait) nv.scalar("wait", uint8_t{1});
    return finish(out, version, nv);
  }
  nv.scalar("version", message.version);
  nv.bytes("token", message.token);
  if (message.ext != 0) nv.scalar("ext", message.ext);
  if (message.nonce) nv.bytes("nonce", *message.nonce);
  return finish(out, version, nv);
}

size_t encode_second_request(Bytes out, uint8_t version, const SecondRequest& message) {
  NvWriter nv = after_head(out);
  nv.string("resource", message.resource);
  nv.bytes("token", message.token);
  if (message.virgin) nv.scalar("virgin", int8_t{1});
  nv.scalar("resuid", message.resuid);
  nv.number("localcnt", message.localcnt);
  nv.number("remotecnt", message.remotecnt);
  put_extension(nv, message.extension);
  return finish(out, version, nv);
}

size_t encode_second_reply(Bytes out, uint8_t version, const SecondReply& message) {
  HAST_ASSERT_OP(message.datasize, <=, uint64_t{INT64_MAX});
  HAST_ASSERT_OP(message.extentsize, <=, uint32_t{INT32_MAX});
  NvWriter nv = after_head(out);
  nv.number("datasize", static_cast<int64_t>(message.datasize));
  nv.number("extentsize", static_cast<int32_t>(message.extentsize));
  nv.number("localcnt", message.localcnt);
  nv.number("remotecnt", message.remotecnt);
  if (message.errmsg) {
    nv.string("errmsg", *message.errmsg);
    return finish(out, version, nv);
  }
  if (message.virgin) nv.scalar("virgin", int8_t{1});
  nv.scalar("syncsrc", static_cast<uint8_t>(message.syncsrc));
  nv.scalar("mapsize", message.mapsize);
  put_extension(nv, message.extension);
  if (message.mapsize > 0) put_payload(nv, message.payload);
  return finish(out, version, nv);
}

Result<bool> is_second_request(ConstBytes area) {
  const Result<NvReader> nv = open_area(area);
  if (!nv) return nv.error();
  return nv->bytes("token").has_value();
}

Result<FirstRequest> decode_first_request(ConstBytes area) {
  const Result<NvReader> nv = open_area(area);
  if (!nv) return nv.error();
  const std::optional<std::string_view> resource = nv->string("resource");
  if (!resource) return invalid("a first message without resource");
  FirstRequest message;
  message.resource = *resource;
  message.version = version_of(*nv);
  message.ext = nv->number<uint32_t>("ext").value_or(0);
  message.nonce = nonce_of(*nv);
  return message;
}

Result<FirstReply> decode_first_reply(ConstBytes area) {
  const Result<NvReader> nv = open_area(area);
  if (!nv) return nv.error();
  FirstReply message;
  message.errmsg = nv->string("errmsg");
  if (message.errmsg) {
    message.wait = nv->has("wait");
    return message;
  }
  message.version = version_of(*nv);
  if (message.version > kWireVersion) {
    return Error{Code::PEER_VERSION, 0, "the peer chose a version greater than 2"};
  }
  if (!take_token(*nv, message.token)) return invalid("a first reply without a token of 16 bytes");
  message.ext = nv->number<uint32_t>("ext").value_or(0);
  message.nonce = nonce_of(*nv);
  return message;
}

Result<SecondRequest> decode_second_request(ConstBytes area) {
  const Result<NvReader> nv = open_area(area);
  if (!nv) return nv.error();
  SecondRequest message;
  const std::optional<std::string_view> resource = nv->string("resource");
  if (!resource) return invalid("a second message without resource");
  message.resource = *resource;
  if (!take_token(*nv, message.token)) {
    return invalid("a second message without a token of 16 bytes");
  }
  message.virgin = nv->has("virgin");
  message.resuid = nv->number<uint64_t>("resuid").value_or(0);
  message.localcnt = nv->number<uint64_t>("localcnt").value_or(0);
  message.remotecnt = nv->number<uint64_t>("remotecnt").value_or(0);
  message.extension = extension_of(*nv);
  return message;
}

Result<SecondReply> decode_second_reply(ConstBytes area) {
  const Result<NvReader> nv = open_area(area);
  if (!nv) return nv.error();
  SecondReply message;
  message.localcnt = nv->number<uint64_t>("localcnt").value_or(0);
  message.remotecnt = nv->number<uint64_t>("remotecnt").value_or(0);
  const int64_t datasize = nv->number<int64_t>("datasize").value_or(0);
  const int32_t extentsize = nv->number<int32_t>("extentsize").value_or(0);
  message.datasize = datasize > 0 ? static_cast<uint64_t>(datasize) : 0;
  message.extentsize = extentsize > 0 ? static_cast<uint32_t>(extentsize) : 0;
  message.errmsg = nv->string("errmsg");
  if (message.errmsg) return message;

  if (message.datasize == 0 || message.extentsize == 0) {
    return invalid("a second reply without sizes");
  }
  message.virgin = nv->has("virgin");
  const uint8_t source = nv->number<uint8_t>("syncsrc").value_or(0);
  if (source != 1 && source != 2) return invalid("a synchronisation source that is not 1 or 2");
  message.syncsrc = static_cast<SyncSource>(source);
  if (message.virgin && (message.syncsrc != SyncSource::kPrimary || message.localcnt != 0)) {
    return invalid("a virgin peer that claims to have data");
  }
  message.mapsize = nv->number<uint32_t>("mapsize").value_or(0);
  if (message.mapsize > kMapBytesMax) return invalid("a map longer than 64 MiB");
  message.extension = extension_of(*nv);
  message.payload = payload_of(*nv);
  return message;
}

size_t sign_second_request(Bytes out, size_t bytes, const AuthKey& key) {
  return sign(out, bytes, kRequestLabel, key);
}

size_t sign_second_reply(Bytes out, size_t bytes, const AuthKey& key) {
  return sign(out, bytes, kReplyLabel, key);
}

bool second_request_proven(ConstBytes area, const AuthKey& key) {
  return proven(area, kRequestLabel, key);
}

bool second_reply_proven(ConstBytes area, const AuthKey& key) {
  return proven(area, kReplyLabel, key);
}

// --- requests
// ---------------------------------------------------------------------------------------

RequestMessage RequestMessage::read(uint64_t seq, uint64_t offset, uint64_t length) {
  RequestMessage r;
  r.fields = kHasCmd | kHasSeq | kHasOffset | kHasLength;
  r.cmd = Command::kRead;
  r.seq = seq;
  r.offset = offset;
  r.length = length;
  return r;
}

RequestMessage RequestMessage::write(uint64_t seq, uint64_t offset, uint64_t length, uint32_t flags,
                                     const PayloadInfo& payload) {
  HAST_ASSERT_OP(flags & ~uint32_t{kHasMemsync | kHasFua | kHasSync}, ==, 0u);
  RequestMessage r = read(seq, offset, length);
  r.cmd = Command::kWrite;
  r.fields |= flags | kHasSize;
  r.payload = payload;
  return r;
}

RequestMessage RequestMessage::discard(uint64_t seq, uint64_t offset, uint64_t length) {
  RequestMessage r = read(seq, offset, length);
  r.cmd = Command::kDelete;
  return r;
}

RequestMessage RequestMessage::flush(uint64_t seq) {
  RequestMessage r = read(seq, 0, 0);  // the original sends both as 0
  r.cmd = Command::kFlush;
  return r;
}

RequestMessage RequestMessage::keepalive() {
  RequestMessage r;
  r.fields = kHasCmd;
  r.cmd = Command::kKeepalive;
  return r;
}

RequestMessage RequestMessage::map_stored(uint64_t epoch, uint64_t dirty_bytes) {
  RequestMessage r;
  r.fields = kHasCmd | kHasEpoch | kHasDirty;
  r.cmd = Command::kMapStored;
  r.epoch = epoch;
  r.dirty = dirty_bytes;
  return r;
}

RequestMessage RequestMessage::sync_done(uint64_t seq, uint64_t epoch, uint64_t generation) {
  RequestMessage r;
  r.fields = kHasCmd | kHasSeq | kHasEpoch | kHasGeneration;
  r.cmd = Command::kSyncDone;
  r.seq = seq;
  r.epoch = epoch;
  r.generation = generation;
  return r;
}

RequestMessage RequestMessage::stale_copy(uint64_t seq, uint64_t epoch, uint64_t generation,
                                          bool stale) {
  RequestMessage r = sync_done(seq, epoch, generation);
  r.cmd = Command::kStale;
  r.fields |= kHasStale;
  r.stale = stale ? 1 : 0;
  return r;
}

RequestMessage RequestMessage::compare(uint64_t seq, uint64_t offset, uint64_t length,
                                       const std::array<std::byte, 32>& sha256) {
  RequestMessage r = read(seq, offset, length);
  r.cmd = Command::kCompare;
  r.fields |= kHasHash;
  r.payload.hash = sha256;
  r.payload.hash_bytes = static_cast<uint8_t>(sha256.size());
  return r;
}

size_t encode_request(Bytes out, uint8_t version, const RequestMessage& r) {
  NvWriter nv = after_head(out);
  if (r.has(kHasCmd)) nv.scalar("cmd", static_cast<uint8_t>(r.cmd));
  if (r.has(kHasSeq)) nv.scalar("seq", r.seq);
  if (r.has(kHasOffset)) nv.scalar("offset", r.offset);
  if (r.has(kHasLength)) nv.scalar("length", r.length);
  if (r.has(kHasMemsync)) nv.scalar("memsync", uint8_t{1});
  if (r.has(kHasFua)) nv.scalar("fua", uint8_t{1});
  if (r.has(kHasSync)) nv.scalar("sync", uint8_t{1});
  if (r.has(kHasEpoch)) nv.scalar("epoch", r.epoch);
  if (r.has(kHasGeneration)) nv.scalar("gen", r.generation);
  if (r.has(kHasDirty)) nv.scalar("dirty", r.dirty);
  if (r.has(kHasStale)) nv.scalar("stale", r.stale);
  if (r.has(kHasSize)) {
    put_payload(nv, r.payload);
  } else if (r.has(kHasHash)) {
    nv.bytes("hash", ConstBytes(r.payload.hash).first(r.payload.hash_bytes));
  }
  return finish(out, version, nv);
}

Result<void> decode_request(ConstBytes area, RequestMessage& r) {
  r = RequestMessage{};
  Seen seen;
  NvCursor cursor(area);
  NvEntry e;
  NvCursor::Step step;
  const auto note = [&r](uint32_t field, bool is_there) { r.fields |= is_there ? field : 0; };
  while ((step = cursor.next(e)) == NvCursor::Step::kEntry) {
    switch (e.name_key()) {
      case nv_key("cmd"):
        note(kHasCmd, take<uint8_t>(seen, kHasCmd, e, r.cmd));
        break;
      case nv_key("seq"):
        note(kHasSeq, take<uint64_t>(seen, kHasSeq, e, r.seq));
        break;
      case nv_key("offset"):
        note(kHasOffset, take<uint64_t>(seen, kHasOffset, e, r.offset));
        break;
      case nv_key("length"):
        note(kHasLength, take<uint64_t>(seen, kHasLength, e, r.length));
        break;
      case nv_key("memsync"):
        r.fields |= kHasMemsync;
        break;
      case nv_key("fua"):
        r.fields |= kHasFua;
        break;
      case nv_key("sync"):
        r.fields |= kHasSync;
        break;
      case nv_key("epoch"):
        note(kHasEpoch, take<uint64_t>(seen, kHasEpoch, e, r.epoch));
        break;
      case nv_key("gen"):
        note(kHasGeneration, take<uint64_t>(seen, kHasGeneration, e, r.generation));
        break;
      case nv_key("dirty"):
        note(kHasDirty, take<uint64_t>(seen, kHasDirty, e, r.dirty));
        break;
      case nv_key("stale"):
        note(kHasStale, take<uint8_t>(seen, kHasStale, e, r.stale));
        break;
      default: {
        const uint32_t there = take_payload(seen, e, r.payload);
        note(kHasHash, there == kSeenHash);
        note(kHasSize, there == kSeenSize);
      }
    }
  }
  if (step == NvCursor::Step::kInvalid) return invalid("a request that is malformed or cut off");
  return {};
}

bool request_range_valid(const RequestMessage& r, uint64_t data_bytes, uint32_t sector_bytes) {
  if (!r.has(kHasOffset) || !r.has(kHasLength) || r.length == 0) return false;
  if (r.cmd != Command::kDelete && r.length > kPeerRequestBytesMax) return false;
  if (r.offset % sector_bytes != 0 || r.length % sector_bytes != 0) return false;
  return r.length <= data_bytes && r.offset <= data_bytes - r.length;
}

// --- replies
// ----------------------------------------------------------------------------------------

ReplyMessage ReplyMessage::done(uint64_t seq, int16_t wire_error) {
  ReplyMessage r;
  r.fields = kReplySeq | (wire_error != 0 ? uint32_t{kReplyError} : 0);
  r.seq = seq;
  r.error = wire_error;
  return r;
}

ReplyMessage ReplyMessage::received(uint64_t seq) {
  ReplyMessage r = done(seq, 0);
  r.fields |= kReplyReceived;
  return r;
}

ReplyMessage ReplyMessage::data(uint64_t seq, const PayloadInfo& payload) {
  ReplyMessage r = done(seq, 0);
  r.fields |= kReplySize;
  r.payload = payload;
  return r;
}

ReplyMessage ReplyMessage::comparison(uint64_t seq, bool equal) {
  ReplyMessage r = done(seq, 0);
  r.fields |= kReplyEqual;
  r.equal = equal ? 1 : 0;
  return r;
}

ReplyMessage ReplyMessage::alive() {
  ReplyMessage r;
  r.fields = kReplyAlive;
  return r;
}

size_t encode_reply(Bytes out, uint8_t version, const ReplyMessage& r) {
  NvWriter nv = after_head(out);
  if (r.has(kReplySeq)) nv.scalar("seq", r.seq);
  if (r.has(kReplyReceived)) nv.number("received", int8_t{1});
  if (r.has(kReplyError)) nv.scalar("error", r.error);
  if (r.has(kReplyEqual)) nv.scalar("equal", r.equal);
  if (r.has(kReplyAlive)) nv.scalar("alive", int8_t{1});
  if (r.has(kReplySize)) put_payload(nv, r.payload);
  return finish(out, version, nv);
}

Result<void> decode_reply(ConstBytes area, ReplyMessage& r) {
  r = ReplyMessage{};
  Seen seen;
  NvCursor cursor(area);
  NvEntry e;
  NvCursor::Step step;
  const auto note = [&r](uint32_t field, bool is_there) { r.fields |= is_there ? field : 0; };
  while ((step = cursor.next(e)) == NvCursor::Step::kEntry) {
    switch (e.name_key()) {
      case nv_key("seq"):
        note(kReplySeq, take<uint64_t>(seen, kReplySeq, e, r.seq));
        break;
      case nv_key("received"):
        note(kReplyReceived, e.name.size() == 8);
        break;
      case nv_key("error"):
        note(kReplyError, take<int16_t>(seen, kReplyError, e, r.error));
        break;
      case nv_key("equal"):
        note(kReplyEqual, take<uint8_t>(seen, kReplyEqual, e, r.equal));
        break;
      case nv_key("alive"):
        r.fields |= kReplyAlive;
        break;
      default:
        note(kReplySize, take_payload(seen, e, r.payload) == kSeenSize);
    }
  }
  if (step == NvCursor::Step::kInvalid) return invalid("a reply that is malformed or cut off");
  return {};
}

}  // namespace hast
