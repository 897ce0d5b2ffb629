#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"

namespace hast {

/// What `BufferSlab::lock` has reached; `error` is 0 or -errno of the first refusal.
struct LockReport {
  uint64_t locked_bytes = 0;
  uint64_t total_bytes = 0;
  int error = 0;
};

/// All memory for I/O, taken once: `count` slots of equal size, page-aligned, zero at first.
///
/// A slot may be larger than what is normally used of it: address space costs nothing until it is
/// touched. Any thread may use the bytes; the slab itself does not change after `create`.
class BufferSlab {
 public:
  /// `stride_bytes` is the size of a slot, `used_bytes` the part of it that is normally touched
  /// (and locked); both multiples of 4096. nullptr and -errno in `error` when memory is refused.
  static std::unique_ptr<BufferSlab> create(uint32_t count, uint64_t stride_bytes,
                                            uint64_t used_bytes, int& error);
  ~BufferSlab();
  BufferSlab(const BufferSlab&) = delete;
  BufferSlab& operator=(const BufferSlab&) = delete;

  /// Keeps the used part of the first `slots` slots in memory, one by one until the kernel refuses.
  /// A refusal is for the caller to report, once; everything works without.
  LockReport lock(uint32_t slots);

  Bytes slot(uint32_t index) const;
  std::byte* base() const { return base_; }
  uint64_t total_bytes() const { return count_ * stride_bytes_; }
  uint32_t count() const { return count_; }
  uint64_t stride_bytes() const { return stride_bytes_; }
  uint64_t used_bytes() const { return used_bytes_; }

 private:
  BufferSlab(std::byte* base, uint32_t count, uint64_t stride_bytes, uint64_t used_bytes)
      : base_(base), count_(count), stride_bytes_(stride_bytes), used_bytes_(used_bytes) {}

  std::byte* base_;
  uint32_t count_;
  uint64_t stride_bytes_;
  uint64_t used_bytes_;
};

}  // namespace hast
