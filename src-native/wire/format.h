#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "codec/checksum.h"
#include "codec/compression.h"
#include "codec/generations.h"

/// Messages between two nodes: framing, and each message as a struct. See docs/wire.md.
///
/// `encode_*` writes head and nv area into the caller's span and returns their length, or 0 when it
/// does not fit. `decode_*` takes an nv area (without the head), checks it in full, and reads it in
/// one pass. Text and bytes of a decoded message point into that area. No allocation; any thread.
namespace hast {

inline constexpr uint8_t kWireVersion = 2;
inline constexpr size_t kHeadBytes = 5;  // version byte, length of the nv area
inline constexpr size_t kTokenBytes = 16;
inline constexpr size_t kNonceBytes = 16;
inline constexpr size_t kSecretBytesMax = 1024;
inline constexpr uint16_t kDefaultPort = 8457;

/// No request or reply of ours is longer than this (head and nv area).
inline constexpr size_t kRequestHeaderBytesMax = 320;
inline constexpr size_t kReplyHeaderBytesMax = 256;

/// Texts that a peer compares byte by byte.
inline constexpr std::string_view kSplitBrainText = "Split-brain condition!";

// --- framing
// --------------------------------------------------------------------------------------

struct MessageHead {
  uint8_t version = 0;
  uint32_t nv_bytes = 0;  ///< may be 0: a message without fields
};

/// Errors: PEER_VERSION (greater than 2), MESSAGE_INVALID (nv area over kMessageBytesMax).
Result<MessageHead> decode_head(std::span<const std::byte, kHeadBytes> head);

// --- payload
// --------------------------------------------------------------------------------------

/// How the bytes behind a message are to be read.
struct PayloadInfo {
  uint32_t size_bytes = 0;  ///< as transmitted
  Compression compression = Compression::kNone;
  Checksum checksum = Checksum::kNone;
  uint8_t hash_bytes = 0;  ///< used bytes of `hash`; 255: longer than any hash we know
  std::array<std::byte, kHashBytesMax> hash{};
};

/// Chooses how to send `data`: fills `info` and returns the bytes to transmit, which are `data` or
/// lie in `room` (see `compress`). Both must stay until they are sent.
ConstBytes prepare_payload(Compression configured, Checksum checksum, ConstBytes data, Bytes room,
                           LzfTables& tables, PayloadInfo& info);

/// Is what a peer announces worth reading, for data of exactly `data_bytes`? Error: PEER_PAYLOAD.
/// When it holds, info.size_bytes is 1 to data_bytes.
Result<void> check_payload_info(const PayloadInfo& info, uint64_t data_bytes);

/// Verifies and decompresses what was received (all of it) into `data`. The two do not overlap,
/// except that an uncompressed payload may have been received into `data` itself.
/// Error: PEER_PAYLOAD: the connection pair must end.
Result<void> accept_payload(const PayloadInfo& info, ConstBytes payload, Bytes data);

// --- set-up
// ---------------------------------------------------------------------------------------

/// Announced in the first messages, confirmed in the second ones; 0: plain HAST.
inline constexpr uint32_t kExtExtended = 1;
/// In the second message of a virgin: it was created with the promise of equal contents.
inline constexpr uint32_t kExtContentsEqual = 2;
/// In the second message: the primary's machine went down, and what was not flushed may be gone.
inline constexpr uint32_t kExtLostCache = 4;
/// In the second message: the primary's own copy is stale or half written.
inline constexpr uint32_t kExtIncomplete = 8;
/// In the second message, with kExtLostCache: it was the primary when it went down.
inline constexpr uint32_t kExtLed = 16;

using Token = std::array<std::byte, kTokenBytes>;
/// In constant time.
bool tokens_equal(const Token& a, const Token& b);

using Nonce = std::array<std::byte, kNonceBytes>;

/// What the second messages of one pair of connections are signed with, on both nodes the same.
struct AuthKey {
  std::string secret;  ///< 1 to kSecretBytesMax bytes; empty: nothing is signed, nothing asked for
  Nonce primary{};
  Nonce secondary{};

  bool on() const { return !secret.empty(); }
};

/// What our kind adds to the second messages. Written only when `ext` is not 0.
struct Extension {
  uint32_t ext = 0;
  uint64_t epoch = 0;
  uint64_t bootid = 0;
  Generations generations;
};

/// M1: primary to secondary on connection 1.
struct FirstRequest {
  std::string_view resource;
  uint8_t version = kWireVersion;  ///< absent or 0 is read as 1
  uint32_t ext = 0;
  std::optional<Nonce> nonce;  ///< the sender has a secret
};

/// R1: the answer to M1, and any refusal.
struct FirstReply {
  uint8_t version = 1;  ///< absent or 0 is read as 1
  Token token{};
  uint32_t ext = 0;
  std::optional<Nonce> nonce;              ///< the sender has a secret
  std::optional<std::string_view> errmsg;  ///< set: refused, nothing else counts but `wait`
  bool wait = false;                       ///< the peer is still primary, try again for a while
};

/// M2: primary to secondary on connection 2.
struct SecondRequest {
  std::string_view resource;
  Token token{};
  bool virgin = false;
  uint64_t resuid = 0;
  uint64_t localcnt = 0;
  uint64_t remotecnt = 0;
  Extension extension;
};

enum class SyncSource : uint8_t { kNone = 0, kPrimary = 1, kSecondary = 2 };

/// R2: the answer to M2, on connection 1.
struct SecondReply {
  uint64_t datasize = 0;
  uint32_t extentsize = 0;
  uint64_t localcnt = 0;
  uint64_t remotecnt = 0;
  std::optional<std::string_view> errmsg;  ///< set: refused, nothing below counts
  bool virgin = false;
  SyncSource syncsrc = SyncSource::kNone;
  uint32_t mapsize = 0;  ///< bytes of the map before compression; 0: no map, no payload
  Extension extension;
  PayloadInfo payload;
};

/// The second message has a token, the first has none.
Result<bool> is_second_request(ConstBytes area);

size_t encode_first_request(Bytes out, uint8_t version, const FirstRequest& message);
size_t encode_first_reply(Bytes out, uint8_t version, const FirstReply& message);
size_t encode_second_request(Bytes out, uint8_t version, const SecondRequest& message);
size_t encode_second_reply(Bytes out, uint8_t version, const SecondReply& message);

/// Appends the signature to the message that `out` begins with, `bytes` long (not a refusal).
/// Returns the new length, or 0 when it does not fit. Without a secret: does nothing.
size_t sign_second_request(Bytes out, size_t bytes, const AuthKey& key);
size_t sign_second_reply(Bytes out, size_t bytes, const AuthKey& key);

/// Error of each: MESSAGE_INVALID with the reason.
Result<FirstRequest> decode_first_request(ConstBytes area);
Result<FirstReply> decode_first_reply(ConstBytes area);
Result<SecondRequest> decode_second_request(ConstBytes area);
Result<SecondReply> decode_second_reply(ConstBytes area);

/// Does the area end with the signature that this key makes of all before it? Compared in constant
/// time. The key has a secret.
bool second_request_proven(ConstBytes area, const AuthKey& key);
bool second_reply_proven(ConstBytes area, const AuthKey& key);

// --- requests (connection 1) and replies (connection 2)
// -------------------------------------------

// Named ...Message because a Request is what a gate hands to the engine (gate/provider.h).

/// Values beyond those named may come from a peer.
enum class Command : uint8_t {
  kNone = 0,
  kRead = 1,
  kWrite = 2,
  kDelete = 3,
  kFlush = 4,
  kKeepalive = 5,
  // Only between nodes that both confirmed kExtExtended:
  kMapStored = 6,  ///< the merged map is on disk: the secondary may clear its own
  kSyncDone = 7,   ///< a pass ended, all of it confirmed
  kStale = 8,      ///< the primary's own copy is (1) or is no longer (0) stale: remember that
  kCompare = 9,    ///< is your range's SHA-256 this?
};

/// Which fields of a request are there. A field that came with another type is not there.
enum RequestField : uint32_t {
  kHasCmd = 1u << 0,
  kHasSeq = 1u << 1,
  kHasOffset = 1u << 2,
  kHasLength = 1u << 3,
  kHasMemsync = 1u << 4,  ///< by presence, of any type
  kHasFua = 1u << 5,      ///< extension: make it durable before the final reply
  kHasSync = 1u << 6,     ///< extension: a synchronisation write
  kHasEpoch = 1u << 7,
  kHasDirty = 1u << 8,
  kHasStale = 1u << 9,
  kHasHash = 1u << 10,
  kHasSize = 1u << 11,
  kHasGeneration = 1u << 12,
};

struct RequestMessage {
  uint32_t fields = 0;  ///< what is there, and what encode_request writes
  Command cmd = Command::kNone;
  uint8_t stale = 0;
  uint64_t seq = 0;
  uint64_t offset = 0;  ///< bytes, relative to the data area
  uint64_t length = 0;  ///< bytes
  uint64_t epoch = 0;
  uint64_t dirty = 0;       ///< bytes, for MAP_STORED
  uint64_t generation = 0;  ///< SYNC_DONE: what both have now; STALE: what the primary had
  PayloadInfo payload;      ///< WRITE; COMPARE uses its hash only

  bool has(uint32_t field) const { return (fields & field) != 0; }

  static RequestMessage read(uint64_t seq, uint64_t offset, uint64_t length);
  /// `flags`: any of kHasMemsync, kHasFua, kHasSync.
  static RequestMessage write(uint64_t seq, uint64_t offset, uint64_t length, uint32_t flags,
                              const PayloadInfo& payload);
  static RequestMessage discard(uint64_t seq, uint64_t offset, uint64_t length);
  static RequestMessage flush(uint64_t seq);
  static RequestMessage keepalive();
  static RequestMessage map_stored(uint64_t epoch, uint64_t dirty_bytes);
  static RequestMessage sync_done(uint64_t seq, uint64_t epoch, uint64_t generation);
  static RequestMessage stale_copy(uint64_t seq, uint64_t epoch, uint64_t generation, bool stale);
  static RequestMessage compare(uint64_t seq, uint64_t offset, uint64_t length,
                                const std::array<std::byte, 32>& sha256);
};

/// Which fields of a reply are there.
enum ReplyField : uint32_t {
  kReplySeq = 1u << 0,
  kReplyReceived = 1u << 1,  ///< by presence: first of the two replies to a memsync WRITE
  kReplyError = 1u << 2,
  kReplyEqual = 1u << 3,  ///< extension: answer to COMPARE
  kReplyAlive = 1u << 4,  ///< extension: answer to KEEPALIVE, by presence; no seq
  kReplySize = 1u << 5,
};

struct ReplyMessage {
  uint32_t fields = 0;
  int16_t error = 0;  ///< FreeBSD's number (see errno_map.h); 0: success
  uint8_t equal = 0;
  uint64_t seq = 0;     ///< 0 when absent: to be ignored, unless it is `alive`
  PayloadInfo payload;  ///< READ without error

  bool has(uint32_t field) const { return (fields & field) != 0; }

  static ReplyMessage done(uint64_t seq, int16_t wire_error);  ///< wire_error 0: success
  static ReplyMessage received(uint64_t seq);
  static ReplyMessage data(uint64_t seq, const PayloadInfo& payload);
  static ReplyMessage comparison(uint64_t seq, bool equal);
  static ReplyMessage alive();
};

size_t encode_request(Bytes out, uint8_t version, const RequestMessage& request);
size_t encode_reply(Bytes out, uint8_t version, const ReplyMessage& reply);
/// Error: MESSAGE_INVALID when the area is not valid. What the fields say is for the caller to
/// judge.
Result<void> decode_request(ConstBytes area, RequestMessage& request);
Result<void> decode_reply(ConstBytes area, ReplyMessage& reply);

/// A request's own sanity, in the spec's order (wire-protocol 6.3, 4 to 10). `sector_bytes`: what
/// offset and length must be multiples of (512 serves every peer). Not for KEEPALIVE, FLUSH.
/// True when READ, WRITE, DELETE or COMPARE may be carried out; false: answer 22. READ, WRITE and
/// COMPARE may be kPeerRequestBytesMax long.
bool request_range_valid(const RequestMessage& request, uint64_t data_bytes, uint32_t sector_bytes);

}  // namespace hast
