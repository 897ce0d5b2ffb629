// The simulator hashes some megabytes a schedule, and its SHA-256 has only to tell contents apart:
// this one stands in front of OpenSSL's in hast_sim, and is ten times as fast. The tests of the
// codec see the real one, and so does the proof of the secret (HMAC).

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kStripe = kLanes * 8;

uint64_t mix(uint64_t lane, uint64_t word) {
  lane = (lane ^ word) * 0x9e3779b97f4a7c15;
  return lane ^ lane >> 29;
}

/// Eight numbers side by side, each over every eighth word.
struct Lanes {
  uint64_t lanes[kLanes] = {1, 2, 3, 4, 5, 6, 7, 8};

  void take(const unsigned char* stripe) {
    for (std::size_t i = 0; i < kLanes; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, stripe + i * sizeof word, sizeof word);
      lanes[i] = mix(lanes[i], word);
    }
  }
};

}  // namespace

extern "C" unsigned char* SHA256(const unsigned char* data, std::size_t size, unsigned char* out);

extern "C" unsigned char* SHA256(const unsigned char* data, std::size_t size, unsigned char* out) {
  Lanes all;
  std::size_t at = 0;
  for (; size - at >= kStripe; at += kStripe) all.take(data + at);
  unsigned char rest[kStripe] = {};
  if (at < size) std::memcpy(rest, data + at, size - at);
  all.take(rest);
  for (std::size_t i = 0; i < 4; ++i) {
    const uint64_t number = mix(mix(all.lanes[i], all.lanes[i + 4]), size);
    std::memcpy(out + i * sizeof number, &number, sizeof number);
  }
  return out;
}
