#include "gate/nbd_format.h"

#include <cerrno>

namespace hast::nbd {

namespace {

/// Takes fields off the front of received bytes; once too few are left, everything is nothing.
class Reader {
 public:
  explicit Reader(ConstBytes bytes) : bytes_(bytes) {}

  uint16_t u16() {
    const std::byte* at = take(2);
    return at == nullptr ? uint16_t{0} : load_be16(at);
  }
  uint32_t u32() {
    const std::byte* at = take(4);
    return at == nullptr ? 0 : load_be32(at);
  }
  /// A length of 32 bits and as many characters.
  std::string_view text() {
    const uint32_t length = u32();
    const std::byte* at = take(length);
    return at == nullptr ? std::string_view()
                         : std::string_view(reinterpret_cast<const char*>(at), length);
  }
  bool failed() const { return failed_; }
  bool at_end() const { return !failed_ && bytes_.empty(); }

 private:
  const std::byte* take(std::size_t size) {
    if (failed_ || size > bytes_.size()) {
      failed_ = true;
      return nullptr;
    }
    const std::byte* at = bytes_.data();
    bytes_ = bytes_.subspan(size);
    return at;
  }

  ConstBytes bytes_;
  bool failed_ = false;
};

void encode_chunk_header(std::byte* to, bool done, ChunkType type, uint64_t cookie,
                         std::size_t length) {
  store_be32(to, kStructuredReplyMagic);
  store_be16(to + 4, done ? kChunkDone : uint16_t{0});
  store_be16(to + 6, static_cast<uint16_t>(type));
  store_be64(to + 8, cookie);
  store_be32(to + 16, static_cast<uint32_t>(length));
}

}  // namespace

std::optional<OptionHeader> decode_option(const std::byte* from) {
  if (load_be64(from) != kOptionMagic) return std::nullopt;
  return OptionHeader{.option = load_be32(from + 8), .length = load_be32(from + 12)};
}

std::optional<InfoRequest> decode_info_request(ConstBytes data) {
  Reader reader(data);
  InfoRequest request;
  request.name = reader.text();
  const uint16_t count = reader.u16();
  for (uint16_t i = 0; i < count && !reader.failed(); ++i) {
    if (reader.u16() == static_cast<uint16_t>(Info::kName)) request.wants_name = true;
  }
  if (!reader.at_end()) return std::nullopt;
  return request;
}

std::optional<MetaRequest> decode_meta_request(ConstBytes data) {
  Reader reader(data);
  MetaRequest request;
  request.name = reader.text();
  request.queries = reader.u32();
  for (uint32_t i = 0; i < request.queries && !reader.failed(); ++i) {
    const std::string_view query = reader.text();
    if (query == kAllocationContext) request.names_allocation = true;
    if (query == "base:") request.names_base_prefix = true;
  }
  if (!reader.at_end()) return std::nullopt;
  return request;
}

std::size_t encode_greeting(std::byte* to) {
  store_be64(to, kGreetingMagic);
  store_be64(to + 8, kOptionMagic);
  store_be16(to + 16, kFixedNewstyle | kNoZeroes);
  return kGreetingBytes;
}

std::size_t encode_option_reply(std::byte* to, uint32_t option, OptionReply type, uint32_t length) {
  store_be64(to, kOptionReplyMagic);
  store_be32(to + 8, option);
  store_be32(to + 12, static_cast<uint32_t>(type));
  store_be32(to + 16, length);
  return kOptionReplyHeaderBytes;
}

std::size_t encode_export_name_reply(std::byte* to, uint64_t size_bytes, uint16_t flags) {
  store_be64(to, size_bytes);
  store_be16(to + 8, flags);
  return kExportNameReplyBytes;
}

std::optional<RequestHeader> decode_request(const std::byte* from) {
  if (load_be32(from) != kRequestMagic) return std::nullopt;
  return RequestHeader{.flags = load_be16(from + 4),
                       .type = static_cast<CommandType>(load_be16(from + 6)),
                       .cookie = load_be64(from + 8),
                       .offset = load_be64(from + 16),
                       .length = load_be32(from + 24)};
}

std::size_t encode_request(std::byte* to, const RequestHeader& request) {
  store_be32(to, kRequestMagic);
  store_be16(to + 4, request.flags);
  store_be16(to + 6, static_cast<uint16_t>(request.type));
  store_be64(to + 8, request.cookie);
  store_be64(to + 16, request.offset);
  store_be32(to + 24, request.length);
  return kRequestBytes;
}

uint32_t error_on_wire(int error) {
  switch (error) {
    case 0:
      return 0;
    case EPERM:
      return 1;
    case ENOMEM:
      return 12;
    case EINVAL:
      return 22;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return 28;
    case EOVERFLOW:
      return 75;
    case ENOTSUP:
      return 95;
    case ESHUTDOWN:
      return 108;
    default:
      return 5;  // EIO
  }
}

std::size_t encode_simple_reply(std::byte* to, uint64_t cookie, int error) {
  store_be32(to, kSimpleReplyMagic);
  store_be32(to + 4, error_on_wire(error));
  store_be64(to + 8, cookie);
  return kSimpleReplyBytes;
}

std::size_t encode_offset_data(std::byte* to, uint64_t cookie, uint64_t offset, uint32_t length,
                               bool done) {
  encode_chunk_header(to, done, ChunkType::kOffsetData, cookie, 8u + length);
  store_be64(to + kChunkHeaderBytes, offset);
  return kChunkHeaderBytes + 8;
}

std::size_t encode_error(std::byte* to, uint64_t cookie, int error, bool done) {
  encode_chunk_header(to, done, ChunkType::kError, cookie, 6);
  store_be32(to + kChunkHeaderBytes, error_on_wire(error));
  store_be16(to + kChunkHeaderBytes + 4, 0);  // no message
  return kChunkHeaderBytes + 6;
}

std::size_t encode_error_offset(std::byte* to, uint64_t cookie, int error, uint64_t offset,
                                bool done) {
  encode_chunk_header(to, done, ChunkType::kErrorOffset, cookie, 14);
  store_be32(to + kChunkHeaderBytes, error_on_wire(error));
  store_be16(to + kChunkHeaderBytes + 4, 0);
  store_be64(to + kChunkHeaderBytes + 6, offset);
  return kChunkHeaderBytes + 14;
}

std::size_t encode_block_status(std::byte* to, uint64_t cookie, uint32_t context, uint32_t length) {
  encode_chunk_header(to, true, ChunkType::kBlockStatus, cookie, 12);
  store_be32(to + kChunkHeaderBytes, context);
  store_be32(to + kChunkHeaderBytes + 4, length);
  store_be32(to + kChunkHeaderBytes + 8, 0);
  return kChunkHeaderBytes + 12;
}

}  // namespace hast::nbd
