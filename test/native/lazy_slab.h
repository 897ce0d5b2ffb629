// Much memory for tests, of which little is used.

#pragma once

#include <sys/mman.h>

#include <cstddef>

#include "base/assert.h"
#include "base/bytes.h"

namespace hast::test {

/// Zeroed address space, of which only what is touched becomes memory; none can be read or written
/// right before and behind it. An allocator that checks its use would write a map of all of it.
class LazySlab {
 public:
  explicit LazySlab(std::size_t bytes) : bytes_(bytes) {
    void* at =
        mmap(nullptr, mapped(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    HAST_ASSERT(at != MAP_FAILED);
    data_ = static_cast<std::byte*>(at) + kGuard;
    const int failed = mprotect(data_, mapped() - 2 * kGuard, PROT_READ | PROT_WRITE);
    HAST_ASSERT(failed == 0);
  }
  ~LazySlab() { munmap(data_ - kGuard, mapped()); }
  LazySlab(const LazySlab&) = delete;
  LazySlab& operator=(const LazySlab&) = delete;

  std::byte* data() { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kGuard = 4096;
  std::size_t mapped() const { return round_up(bytes_, kGuard) + 2 * kGuard; }

  std::byte* data_;
  std::size_t bytes_;
};

}  // namespace hast::test
