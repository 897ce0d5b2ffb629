// Arbitrary bytes as an LZF stream, as the payload that some message has announced, and as data to
// send.
// Input: choices (1 byte), length of the data (2), announced size (2), the bytes.
#include "codec/compression.h"
#include "fuzz_input.h"
#include "wire/format.h"
#ifdef HAST_HAVE_LZF
#include <liblzf/lzf.h>
#endif

namespace hast::fuzz {
namespace {

/// What liblzf makes of the same stream: nothing, or the same bytes.
void compare_with_liblzf(ConstBytes stream, const Result<size_t>& ours, ConstBytes out) {
#ifdef HAST_HAVE_LZF
  if (stream.empty() || out.empty()) return;  // liblzf takes neither
  Buffer theirs(out.size());
  const unsigned produced = lzf_decompress(stream.data(), static_cast<unsigned>(stream.size()),
                                           theirs.data(), static_cast<unsigned>(theirs.size()));
  HAST_ASSERT_OP(ours.has_value(), ==, (produced > 0));
  if (!ours) return;
  HAST_ASSERT_OP(*ours, ==, size_t{produced});
  HAST_ASSERT(same_bytes(ConstBytes(theirs).first(produced), out.first(produced)));
#else
  (void)stream, (void)ours, (void)out;
#endif
}

void check_decoder(ConstBytes stream, size_t room) {
  Buffer out(room);
  const Result<size_t> produced = lzf_decode(stream, out);
  compare_with_liblzf(stream, produced, out);
  if (!produced) {
    HAST_ASSERT(produced.error().code == Code::PEER_PAYLOAD);
    return;
  }
  HAST_ASSERT_OP(*produced, <=, room);
  Buffer fits(*produced);
  const Result<size_t> again = lzf_decode(stream, fits);
  HAST_ASSERT(again.has_value());
  HAST_ASSERT_OP(*again, ==, *produced);
  HAST_ASSERT(same_bytes(fits, ConstBytes(out).first(*produced)));
  if (fits.empty()) return;
  Buffer less(fits.size() - 1);
  HAST_ASSERT(!lzf_decode(stream, less));
}

/// As announced by a peer; a right hash in half of the cases, else one from the input.
PayloadInfo announcement(uint8_t choices, uint32_t size, ConstBytes payload) {
  constexpr Compression kCompressions[] = {Compression::kNone, Compression::kHole,
                                           Compression::kLzf, Compression::kUnknown};
  constexpr Checksum kChecksums[] = {Checksum::kNone, Checksum::kCrc32, Checksum::kSha256,
                                     Checksum::kUnknown};
  PayloadInfo info;
  info.size_bytes = size;
  info.compression = kCompressions[choices & 3];
  info.checksum = kChecksums[choices >> 2 & 3];
  const bool right_hash = (choices & 16) != 0 && info.checksum != Checksum::kUnknown;
  if (right_hash) {
    info.hash_bytes = static_cast<uint8_t>(checksum_compute(info.checksum, payload, info.hash));
  } else {
    const ConstBytes hash = payload.first(std::min(payload.size(), kHashBytesMax));
    std::copy(hash.begin(), hash.end(), info.hash.begin());
    info.hash_bytes = (choices & 32) != 0 ? 255 : static_cast<uint8_t>(hash.size());
  }
  return info;
}

void check_payload(const PayloadInfo& info, ConstBytes payload, size_t data_bytes) {
  const Result<void> worth_reading = check_payload_info(info, data_bytes);
  if (!worth_reading) {
    HAST_ASSERT(worth_reading.error().code == Code::PEER_PAYLOAD);
    return;
  }
  HAST_ASSERT_OP(info.size_bytes, >=, 1u);
  HAST_ASSERT_OP(info.size_bytes, <=, data_bytes);
  if (payload.size() < info.size_bytes) return;  // the connection ended before
  const Buffer received = exact(payload.first(info.size_bytes));
  Buffer data(data_bytes);
  const Result<void> accepted = accept_payload(info, received, data);
  if (!accepted) {
    HAST_ASSERT(accepted.error().code == Code::PEER_PAYLOAD);
    return;
  }
  HAST_ASSERT(
      checksum_matches(info.checksum, received, ConstBytes(info.hash).first(info.hash_bytes)) ||
      info.checksum == Checksum::kNone);
  if (info.compression == Compression::kNone) HAST_ASSERT(same_bytes(received, data));
  if (info.compression == Compression::kHole) HAST_ASSERT(all_zero(data));
}

LzfTables tables;  // with what the input before has left there

/// Data survive encoding and decoding, by us and by liblzf; the stream fits into its length and not
/// into one byte less.
void check_encoder(ConstBytes data) {
  const size_t worst = data.size() + (data.size() + 31) / 32;
  Buffer stream(worst);
  const size_t length = lzf_encode(tables, data, stream);
  HAST_ASSERT_OP(length == 0, ==, data.empty());
  if (data.empty()) return;
  stream.resize(length);
  const Buffer exact_stream = exact(stream);
  Buffer out(data.size());
  const Result<size_t> produced = lzf_decode(exact_stream, out);
  HAST_ASSERT(produced.has_value() && *produced == data.size());
  HAST_ASSERT(same_bytes(out, data));
  compare_with_liblzf(exact_stream, produced, out);
  Buffer fits(length);
  HAST_ASSERT_OP(lzf_encode(tables, data, fits), ==, length);
  HAST_ASSERT(same_bytes(fits, exact_stream));
  Buffer less(length - 1);
  HAST_ASSERT_OP(lzf_encode(tables, data, less), ==, 0u);
}

/// The input again and again, so that its encoder has something to find: `bytes` long at most.
Buffer repeated(ConstBytes input, size_t bytes) {
  Buffer out;
  while (!input.empty() && out.size() < bytes) {
    const ConstBytes part = input.first(std::min(input.size(), bytes - out.size()));
    out.insert(out.end(), part.begin(), part.end());
    // One byte of difference moves through the copies.
    out[out.size() - 1 - out.size() / 7 % part.size()] ^= std::byte{1};
  }
  return out;
}

/// What we send ourselves is accepted, and is the same data.
void check_round_trip(uint8_t choices, ConstBytes data) {
  if (data.empty()) return;
  constexpr Compression kConfigured[] = {Compression::kNone, Compression::kHole, Compression::kLzf};
  constexpr Checksum kChecksums[] = {Checksum::kNone, Checksum::kCrc32, Checksum::kSha256};
  PayloadInfo info;
  Buffer room(std::max(data.size(), kHoleBytes));
  const ConstBytes payload = prepare_payload(kConfigured[choices % 3], kChecksums[choices / 3 % 3],
                                             data, room, tables, info);
  HAST_ASSERT_OP(payload.size(), ==, info.size_bytes);
  HAST_ASSERT(check_payload_info(info, data.size()).has_value());
  Buffer out(data.size());
  HAST_ASSERT(accept_payload(info, payload, out).has_value());
  HAST_ASSERT(same_bytes(out, data));
}

void check(Input input) {
  const uint8_t choices = input.byte();
  const size_t data_bytes = input.number<uint16_t>();
  uint32_t announced = input.number<uint16_t>();
  const ConstBytes bytes = input.rest();
  if ((choices & 64) != 0) announced = static_cast<uint32_t>(bytes.size());
  check_decoder(bytes, data_bytes);
  check_payload(
      announcement(choices, announced, bytes.first(std::min<size_t>(announced, bytes.size()))),
      bytes, data_bytes);
  check_round_trip(choices, bytes);
  check_encoder(exact(bytes));
  const Buffer more = repeated(bytes, data_bytes);
  check_round_trip(choices, more);
  check_encoder(more);
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size));
  return 0;
}
