#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"

/// The NBD protocol as bytes: constants, and pure encoding and decoding. No I/O, no state.
/// All numbers are big-endian. Source: the NBD project, doc/proto.md.
namespace hast::nbd {

// ---- Negotiation -------------------------------------------------------------------------------

inline constexpr uint64_t kGreetingMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;

inline constexpr std::size_t kGreetingBytes = 18;
inline constexpr std::size_t kClientFlagsBytes = 4;
inline constexpr std::size_t kOptionHeaderBytes = 16;
inline constexpr std::size_t kOptionReplyHeaderBytes = 20;
inline constexpr std::size_t kExportNameReplyBytes = 10;
inline constexpr std::size_t kExportNameZeroes = 124;
inline constexpr std::size_t kNameBytesMax = 4096;  // what the protocol allows

/// Greeting and client flags, bits.
inline constexpr uint16_t kFixedNewstyle = 1;
inline constexpr uint16_t kNoZeroes = 2;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsupported = 0x80000001,
  kErrInvalid = 0x80000003,
  kErrUnknown = 0x80000006,
  kErrShutdown = 0x80000007,
  kErrTooBig = 0x80000009,
};

enum class Info : uint16_t { kExport = 0, kName = 1, kBlockSize = 3 };

/// Transmission flags, bits.
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDontFragment = 1 << 7;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendCache = 1 << 10;

inline constexpr std::string_view kAllocationContext = "base:allocation";

struct OptionHeader {
  uint32_t option = 0;
  uint32_t length = 0;
};
/// Nothing when the magic is wrong. `from` has kOptionHeaderBytes.
std::optional<OptionHeader> decode_option(const std::byte* from);

/// Data of INFO and GO. The name points into the bytes that were decoded.
struct InfoRequest {
  std::string_view name;
  bool wants_name = false;
};
std::optional<InfoRequest> decode_info_request(ConstBytes data);

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
struct MetaRequest {
  std::string_view name;
  uint32_t queries = 0;
  bool names_allocation = false;   ///< one query is exactly base:allocation
  bool names_base_prefix = false;  ///< one query is "base:", all contexts of that space (LIST only)
};
std::optional<MetaRequest> decode_meta_request(ConstBytes data);

/// The encoders return how many bytes they have written.
std::size_t encode_greeting(std::byte* to);
std::size_t encode_option_reply(std::byte* to, uint32_t option, OptionReply type, uint32_t length);
std::size_t encode_export_name_reply(std::byte* to, uint64_t size_bytes, uint16_t flags);

// ---- Transmission ------------------------------------------------------------------------------

inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;

inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kSimpleReplyBytes = 16;
inline constexpr std::size_t kChunkHeaderBytes = 20;
/// No header of the transmission phase, with what follows it besides read data, is longer.
inline constexpr std::size_t kReplyHeaderBytesMax = 40;

/// Largest payload of one command: advertised, and enforced.
inline constexpr uint32_t kPayloadBytesMax = 32u << 20;
inline constexpr uint32_t kPreferredBlockBytes = 4096;

enum class CommandType : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

/// Command flags, bits.
inline constexpr uint16_t kFua = 1 << 0;
inline constexpr uint16_t kNoHole = 1 << 1;
inline constexpr uint16_t kDontFragment = 1 << 2;
inline constexpr uint16_t kRequestOne = 1 << 3;
inline constexpr uint16_t kFastZero = 1 << 4;

inline constexpr uint16_t kChunkDone = 1;

enum class ChunkType : uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kBlockStatus = 5,
  kError = 0x8001,
  kErrorOffset = 0x8002,
};

struct RequestHeader {
  uint16_t flags = 0;
  CommandType type = CommandType::kRead;
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
};
/// Nothing when the magic is wrong. `from` has kRequestBytes. The type may be an unknown one.
std::optional<RequestHeader> decode_request(const std::byte* from);
std::size_t encode_request(std::byte* to, const RequestHeader& request);

/// The errors below are errno values; on the wire they become those that NBD knows.
uint32_t error_on_wire(int error);

std::size_t encode_simple_reply(std::byte* to, uint64_t cookie, int error);
/// What goes before `length` bytes of read data.
std::size_t encode_offset_data(std::byte* to, uint64_t cookie, uint64_t offset, uint32_t length,
                               bool done);
std::size_t encode_error(std::byte* to, uint64_t cookie, int error, bool done);
std::size_t encode_error_offset(std::byte* to, uint64_t cookie, int error, uint64_t offset,
                                bool done);
/// One extent of `length` bytes with status 0 (allocated data), as the last chunk.
std::size_t encode_block_status(std::byte* to, uint64_t cookie, uint32_t context, uint32_t length);

}  // namespace hast::nbd
