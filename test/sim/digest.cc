// The simulator hashes some megabytes a schedule, and its SHA-256 has only to tell contents apart:
// this one stands in front of OpenSSL's in hast_sim, and is ten times as fast. The tests of the
// codec see the real one, and so does the proof of the secret (HMAC).

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

/// Four numbers of 64 bits, each over every fourth word; contents that differ in one word of a
/// number never give the same.
struct Lanes {
  uint64_t lanes[4] = {0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0,
                       0x082efa98ec4e6c89};

  void take(const unsigned char* stripe) {
    for (std::size_t i = 0; i < 4; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, stripe + i * sizeof word, sizeof word);
      lanes[i] = (lanes[i] ^ word) * 0x9e3779b97f4a7c15;
      lanes[i] ^= lanes[i] >> 29;
    }
  }
};

}  // namespace

extern "C" unsigned char* SHA256(const unsigned char* data, std::size_t size, unsigned char* out);

extern "C" unsigned char* SHA256(const unsigned char* data, std::size_t size, unsigned char* out) {
  Lanes all;
  std::size_t at = 0;
  for (; size - at >= 32; at += 32) all.take(data + at);
  unsigned char rest[32] = {};
  if (at < size) std::memcpy(rest, data + at, size - at);
  all.take(rest);
  unsigned char sizes[32] = {};
  std::memcpy(sizes, &size, sizeof size);
  all.take(sizes);
  std::memcpy(out, all.lanes, 32);
  return out;
}
