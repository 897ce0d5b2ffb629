#include "codec/checksum.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <zlib.h>

#include <vector>

#include "base/assert.h"

namespace hast {

uint32_t crc32_of(ConstBytes data, uint32_t seed) {
  HAST_ASSERT_OP(data.size(), <=, UINT32_MAX);
  if (data.empty()) return seed;  // zlib takes a null pointer for a reset
  return static_cast<uint32_t>(
      ::crc32(seed, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size())));
}

namespace {

constexpr std::array<uint32_t, 256> make_crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78u : 0);
    table[i] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrc32cTable = make_crc32c_table();

}  // namespace

uint32_t crc32c_of(ConstBytes data) {
  uint32_t value = 0xffffffffu;
  for (const std::byte b : data) {
    value = (value >> 8) ^ kCrc32cTable[(value ^ static_cast<uint32_t>(b)) & 0xff];
  }
  return ~value;
}

std::array<std::byte, 32> sha256_of(ConstBytes data) {
  std::array<std::byte, 32> hash;
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(),
         reinterpret_cast<unsigned char*>(hash.data()));
  return hash;
}

std::array<std::byte, 32> hmac_sha256(ConstBytes key, std::span<const ConstBytes> parts) {
  HAST_ASSERT(!key.empty() && key.size() <= INT32_MAX);
  std::vector<std::byte> message;
  for (const ConstBytes part : parts) message.insert(message.end(), part.begin(), part.end());
  std::array<std::byte, 32> hash;
  const unsigned char* done =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(),
           reinterpret_cast<unsigned char*>(hash.data()), nullptr);
  HAST_ASSERT(done != nullptr);
  return hash;
}

bool same_bytes(ConstBytes a, ConstBytes b) {
  if (a.size() != b.size()) return false;
  uint8_t difference = 0;
  for (size_t i = 0; i < a.size(); i++) difference |= static_cast<uint8_t>(a[i] ^ b[i]);
  return difference == 0;
}

std::string_view checksum_name(Checksum checksum) {
  if (checksum == Checksum::kCrc32) return "crc32";
  if (checksum == Checksum::kSha256) return "sha256";
  return "none";
}

Checksum checksum_from_name(std::string_view name) {
  if (name == "crc32") return Checksum::kCrc32;
  if (name == "sha256") return Checksum::kSha256;
  return Checksum::kUnknown;
}

size_t checksum_bytes(Checksum checksum) {
  if (checksum == Checksum::kCrc32) return 4;
  if (checksum == Checksum::kSha256) return 32;
  return 0;
}

size_t checksum_compute(Checksum checksum, ConstBytes data,
                        std::span<std::byte, kHashBytesMax> out) {
  HAST_ASSERT(checksum != Checksum::kUnknown);
  if (checksum == Checksum::kCrc32) store_le(out.data(), crc32_of(data));
  if (checksum == Checksum::kSha256) {
    const std::array<std::byte, 32> hash = sha256_of(data);
    std::memcpy(out.data(), hash.data(), hash.size());
  }
  return checksum_bytes(checksum);
}

bool checksum_matches(Checksum checksum, ConstBytes data, ConstBytes hash) {
  if (checksum == Checksum::kNone) return true;
  if (checksum == Checksum::kUnknown || hash.size() != checksum_bytes(checksum)) return false;
  std::array<std::byte, kHashBytesMax> ours;
  const size_t size = checksum_compute(checksum, data, ours);
  return std::memcmp(ours.data(), hash.data(), size) == 0;
}

}  // namespace hast
