#include "base/assert.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace hast {

void assert_failed(const char* expression, const char* file, int line,
                   const char* function) noexcept {
  std::fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", file, line, function, expression);
  std::abort();
}

void assert_failed_signed(const char* expression, const char* op, int64_t left, int64_t right,
                          const char* file, int line, const char* function) noexcept {
  std::fprintf(stderr, "%s:%d: %s: assertion failed: %s (%" PRId64 " %s %" PRId64 ")\n", file, line,
               function, expression, left, op, right);
  std::abort();
}

void assert_failed_unsigned(const char* expression, const char* op, uint64_t left, uint64_t right,
                            const char* file, int line, const char* function) noexcept {
  std::fprintf(stderr, "%s:%d: %s: assertion failed: %s (%" PRIu64 " %s %" PRIu64 ")\n", file, line,
               function, expression, left, op, right);
  std::abort();
}

}  // namespace hast
