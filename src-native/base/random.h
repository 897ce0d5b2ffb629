#pragma once

#include <cstdint>

namespace hast {

/// Repeatable randomness for tests and the simulator (splitmix64). Never for secrets.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// Evenly in [0, limit); 0 when `limit` is 0.
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  /// Evenly in [low, high].
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  /// True `times` in `of` cases.
  bool chance(uint64_t times, uint64_t of) { return below(of) < times; }

 private:
  uint64_t state_;
};

}  // namespace hast
