// Assertions that stay on in release builds.
//
// They are for our own mistakes only: foreign bytes and failed system calls return errors.
// Two facts, two assertions. On failure: expression, values and place to stderr, then abort.
// Any thread.

#pragma once

#include <cstdint>
#include <type_traits>

namespace hast {

[[noreturn]] void assert_failed(const char* expression, const char* file, int line,
                                const char* function) noexcept;
[[noreturn]] void assert_failed_signed(const char* expression, const char* op, int64_t left,
                                       int64_t right, const char* file, int line,
                                       const char* function) noexcept;
[[noreturn]] void assert_failed_unsigned(const char* expression, const char* op, uint64_t left,
                                         uint64_t right, const char* file, int line,
                                         const char* function) noexcept;

/// Prints two values of an integral or enumeration type; signed when the left one is.
template <typename L, typename R>
[[noreturn]] void assert_failed_values(const char* expression, const char* op, const L& left,
                                       const R& right, const char* file, int line,
                                       const char* function) noexcept {
  if constexpr (std::is_signed_v<L>) {
    assert_failed_signed(expression, op, static_cast<int64_t>(left), static_cast<int64_t>(right),
                         file, line, function);
  } else {
    assert_failed_unsigned(expression, op, static_cast<uint64_t>(left),
                           static_cast<uint64_t>(right), file, line, function);
  }
}

}  // namespace hast

#define HAST_ASSERT(expr)                                         \
  do {                                                            \
    if (!(expr)) [[unlikely]]                                     \
      ::hast::assert_failed(#expr, __FILE__, __LINE__, __func__); \
  } while (false)

/// HAST_ASSERT_OP(index, <, count): like HAST_ASSERT(index < count), and prints both numbers.
#define HAST_ASSERT_OP(left, op, right)                                                            \
  do {                                                                                             \
    const auto& hast_left = (left);                                                                \
    const auto& hast_right = (right);                                                              \
    if (!(hast_left op hast_right)) [[unlikely]]                                                   \
      ::hast::assert_failed_values(#left " " #op " " #right, #op, hast_left, hast_right, __FILE__, \
                                   __LINE__, __func__);                                            \
  } while (false)
