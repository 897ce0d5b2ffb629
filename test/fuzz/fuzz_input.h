// What the fuzz targets share: reading decisions and bytes off an input.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"

// A broken property ends the target the same way as a broken assertion of the core: HAST_ASSERT.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace hast::fuzz {

using Buffer = std::vector<std::byte>;

/// Takes numbers and bytes from the front of an input; gives zeros and no bytes when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return left_.empty(); }
  ConstBytes rest() const { return left_; }
  ConstBytes take(size_t count) {
    const ConstBytes taken = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  template <typename T>
  T number() {
    T value = 0;
    const ConstBytes bytes = take(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  uint8_t byte() { return number<uint8_t>(); }
  /// In [0, limit); `limit` is not 0.
  uint32_t below(uint32_t limit) { return number<uint16_t>() % limit; }

 private:
  ConstBytes left_;
};

inline bool same_bytes(ConstBytes a, ConstBytes b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

/// A copy in a heap block of exactly its size, so that reading beyond it is noticed.
inline Buffer exact(ConstBytes bytes) { return Buffer(bytes.begin(), bytes.end()); }

}  // namespace hast::fuzz
