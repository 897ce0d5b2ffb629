// Data of many kinds by seed, for what compresses.

#pragma once

#include <random>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace hast::test {

inline constexpr unsigned kSampleKinds = 9;

/// One byte of what `lzf_sample` makes, given those before it.
inline std::byte lzf_sample_byte(unsigned kind, std::mt19937_64& random,
                                 const std::vector<std::byte>& before, uint64_t choice) {
  static constexpr std::string_view kWords =
      "the resource was started and its peer is in sync again after a copy of one extent ";
  const auto repeat = [&before](size_t distance) {
    return before.size() < distance ? std::byte{1} : before[before.size() - distance];
  };
  switch (kind) {
    case 0:  // one value
      return static_cast<std::byte>(choice);
    case 1:  // noise
      return static_cast<std::byte>(random());
    case 2:  // few values
      return static_cast<std::byte>(random() % (2 + choice % 5));
    case 3:  // a short period, with few mistakes
      return random() % 300 == 0 ? static_cast<std::byte>(random()) : repeat(1 + choice % 40);
    case 4:  // words
      return static_cast<std::byte>(kWords[(before.size() + random() % 9 / 8 * 17) % 82]);
    case 5:  // what repeats is just within reach, or just not
      return random() % 64 == 0 ? static_cast<std::byte>(random()) : repeat(8190 + choice % 5);
    case 6:  // records: a counter, a flag, zeros
      return static_cast<std::byte>(before.size() % 16 == 0   ? before.size() / 16
                                    : before.size() % 16 == 5 ? random() % 2
                                                              : 0);
    case 7:  // noise, then one value, in turn
      return before.size() / (64 + choice % 512) % 2 == 0 ? static_cast<std::byte>(random())
                                                          : std::byte{3};
    default:  // what repeats comes from far away and is short
      return random() % 5 == 0 || before.empty() ? static_cast<std::byte>(random())
                                                 : before[random() % before.size()];
  }
}

inline std::vector<std::byte> lzf_sample(unsigned kind, uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  const uint64_t choice = random();
  std::vector<std::byte> bytes;
  bytes.reserve(size);
  while (bytes.size() < size) bytes.push_back(lzf_sample_byte(kind, random, bytes, choice));
  return bytes;
}

}  // namespace hast::test
