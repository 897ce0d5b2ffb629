#include "ring/buffers.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/assert.h"

namespace hast {

namespace {
constexpr uint64_t kPageBytes = 4096;
}  // namespace

std::unique_ptr<BufferSlab> BufferSlab::create(uint32_t count, uint64_t stride_bytes,
                                               uint64_t used_bytes, int& error) {
  HAST_ASSERT_OP(count, >, 0u);
  HAST_ASSERT_OP(stride_bytes % kPageBytes, ==, 0u);
  HAST_ASSERT_OP(used_bytes % kPageBytes, ==, 0u);
  HAST_ASSERT_OP(used_bytes, >, 0u);
  HAST_ASSERT_OP(used_bytes, <=, stride_bytes);
  const uint64_t bytes = count * stride_bytes;
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    error = -errno;
    return nullptr;
  }
  // Large pages would fill the gaps between the used parts with memory.
  if (used_bytes < stride_bytes) madvise(base, bytes, MADV_NOHUGEPAGE);
  error = 0;
  return std::unique_ptr<BufferSlab>(
      new BufferSlab(static_cast<std::byte*>(base), count, stride_bytes, used_bytes));
}

BufferSlab::~BufferSlab() { munmap(base_, total_bytes()); }

LockReport BufferSlab::lock(uint32_t slots) {
  HAST_ASSERT_OP(slots, <=, count_);
  LockReport report;
  report.total_bytes = slots * used_bytes_;
  for (uint32_t index = 0; index < slots; ++index) {
    if (mlock(base_ + index * stride_bytes_, used_bytes_) != 0) {
      report.error = -errno;
      break;
    }
    report.locked_bytes += used_bytes_;
  }
  return report;
}

Bytes BufferSlab::slot(uint32_t index) const {
  HAST_ASSERT_OP(index, <, count_);
  return Bytes(base_ + index * stride_bytes_, stride_bytes_);
}

}  // namespace hast
