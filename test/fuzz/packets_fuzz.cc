// Arbitrary bytes as each message between nodes. The first byte chooses which; the rest is its
// area. What is decoded must survive encoding, within the sizes that the encoder is given.
#include "fuzz_input.h"
#include "wire/format.h"

namespace hast::fuzz {
namespace {

/// Would we ever send this? Foreign hashes and names need not be what an encoder takes.
bool can_be_sent(const PayloadInfo& info) {
  return info.checksum == Checksum::kNone ||
         (info.checksum != Checksum::kUnknown && info.hash_bytes == checksum_bytes(info.checksum));
}

bool can_be_sent(const FirstRequest&) { return true; }
bool can_be_sent(const FirstReply&) { return true; }
bool can_be_sent(const SecondRequest&) { return true; }
bool can_be_sent(const SecondReply& message) { return can_be_sent(message.payload); }
bool can_be_sent(const RequestMessage& message) {
  const bool hash_alone = message.has(kHasHash) && !message.has(kHasSize);
  return can_be_sent(message.payload) &&
         (!hash_alone || message.payload.hash_bytes <= kHashBytesMax);
}
bool can_be_sent(const ReplyMessage& message) { return can_be_sent(message.payload); }

/// Encodes into exactly what is needed; one byte less must be refused.
template <typename Message, typename Encode>
Buffer encode(const Message& message, Encode encoder) {
  static Buffer out(kHeadBytes + 2 * kMessageBytesMax);
  const size_t size = encoder(out, kWireVersion, message);
  HAST_ASSERT_OP(size, >=, kHeadBytes);
  Buffer fits(size);
  HAST_ASSERT_OP(encoder(fits, kWireVersion, message), ==, size);
  HAST_ASSERT(same_bytes(fits, ConstBytes(out).first(size)));
  Buffer less(size - 1);
  HAST_ASSERT_OP(encoder(less, kWireVersion, message), ==, 0u);

  const auto head = decode_head(std::span<const std::byte, kHeadBytes>(fits.data(), kHeadBytes));
  HAST_ASSERT(head.has_value() || size > kMessageBytesMax);
  return fits;
}

template <typename Message, typename Decode, typename Encode>
void check_message(ConstBytes area, Decode decode, Encode encoder) {
  const Result<Message> message = decode(area);
  if (!message || !can_be_sent(*message)) return;
  const Buffer once = encode(*message, encoder);
  const Result<Message> again = decode(ConstBytes(once).subspan(kHeadBytes));
  HAST_ASSERT(again.has_value());
  HAST_ASSERT(same_bytes(encode(*again, encoder), once));
}

/// Whatever the message is: signed it is proven, and no longer with one bit changed, by another
/// secret, or as the answer.
void check_signature(ConstBytes area) {
  AuthKey key;
  key.secret = "correct horse";
  key.primary.fill(std::byte{1});
  key.secondary.fill(std::byte{2});
  Buffer message(kHeadBytes + area.size() + 64);
  std::copy(area.begin(), area.end(), message.begin() + kHeadBytes);
  const size_t size = sign_second_request(message, kHeadBytes + area.size(), key);
  HAST_ASSERT_OP(size, >, kHeadBytes + area.size());
  Buffer signed_area = exact(ConstBytes(message).first(size).subspan(kHeadBytes));
  HAST_ASSERT(second_request_proven(signed_area, key));
  HAST_ASSERT(!second_reply_proven(signed_area, key));
  AuthKey other = key;
  other.secret.back() ^= 1;
  HAST_ASSERT(!second_request_proven(signed_area, other));
  const size_t bit = (area.empty() ? 0 : static_cast<size_t>(area[0]) * 31) % (size * 8 - 40);
  signed_area[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
  HAST_ASSERT(!second_request_proven(signed_area, key));
  const Buffer unsigned_area = exact(area);
  (void)second_request_proven(unsigned_area, key);
  (void)second_reply_proven(unsigned_area, key);
}

Result<RequestMessage> request_of(ConstBytes area) {
  RequestMessage message;
  const Result<void> decoded = decode_request(area, message);
  if (!decoded) return decoded.error();
  return message;
}

Result<ReplyMessage> reply_of(ConstBytes area) {
  ReplyMessage message;
  const Result<void> decoded = decode_reply(area, message);
  if (!decoded) return decoded.error();
  return message;
}

void check_range(ConstBytes area) {
  const Result<RequestMessage> request = request_of(area);
  if (!request) return;
  constexpr uint64_t kDataBytes = 8u << 20;
  for (const uint32_t sector : {kSectorBytesMin, kSectorBytesMax}) {
    if (!request_range_valid(*request, kDataBytes, sector)) continue;
    HAST_ASSERT_OP(request->length, >, 0u);
    HAST_ASSERT_OP(request->length, <=, kDataBytes);
    HAST_ASSERT_OP(request->offset, <=, kDataBytes - request->length);
    HAST_ASSERT_OP((request->offset | request->length) % sector, ==, 0u);
  }
}

void check_head(ConstBytes bytes) {
  if (bytes.size() < kHeadBytes) return;
  const auto head = decode_head(bytes.first<kHeadBytes>());
  if (!head) return;
  HAST_ASSERT_OP(head->version, <=, kWireVersion);
  HAST_ASSERT_OP(head->nv_bytes, <=, kMessageBytesMax);
}

void check(Input input) {
  const uint8_t kind = input.byte();
  const ConstBytes area = input.rest();
  switch (kind % 7) {
    case 0:
      return check_message<FirstRequest>(area, decode_first_request, encode_first_request);
    case 1:
      return check_message<FirstReply>(area, decode_first_reply, encode_first_reply);
    case 2:
      (void)is_second_request(area);
      check_signature(area);
      return check_message<SecondRequest>(area, decode_second_request, encode_second_request);
    case 3:
      return check_message<SecondReply>(area, decode_second_reply, encode_second_reply);
    case 4:
      check_range(area);
      return check_message<RequestMessage>(area, request_of, encode_request);
    case 5:
      return check_message<ReplyMessage>(area, reply_of, encode_reply);
    default:
      check_head(area);
  }
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size));
  return 0;
}
