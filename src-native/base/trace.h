#pragma once

#include <cstdint>

namespace hast {

/// Digest of everything that a simulation did, in its order: the same seed gives the same one.
class Trace {
 public:
  void note(uint64_t a, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0) {
    for (const uint64_t word : {a, b, c, d}) {
      digest_ = (digest_ ^ word) * 0x9e3779b97f4a7c15u;
      digest_ ^= digest_ >> 29;
    }
    ++events_;
  }
  uint64_t digest() const { return digest_; }
  uint64_t events() const { return events_; }

 private:
  uint64_t digest_ = 0x243f6a8885a308d3u;
  uint64_t events_ = 0;
};

}  // namespace hast
