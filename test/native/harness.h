// A small test harness: TEST, CHECK, CHECK_EQ, SKIP.
//
//   TEST(activemap, "marks an extent once") {
//     CHECK_EQ(map.dirty_count(), 1u);
//   }
//
// A failed CHECK is noted and the test goes on; REQUIRE ends the test (it returns from a void
// function). Names are "suite: sentence"; main.cc has the command line. One thread runs the
// tests; CHECK may be used from any.

#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <type_traits>

namespace hast::test {

using Body = void (*)();

/// Called before main by TEST.
bool add(const char* suite, const char* sentence, const char* file, int line, Body body);

/// Notes a failure of the running test.
void fail(const char* file, int line, const std::string& what);

/// Marks the running test as skipped, with the reason for the report.
void skip(const std::string& reason);

/// Any value as text: by operator<<, bytes and enumerations as numbers, the rest as its size.
template <typename T>
std::string show(const T& value) {
  std::ostringstream out;
  if constexpr (std::is_same_v<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (std::is_enum_v<T>) {
    out << +static_cast<std::underlying_type_t<T>>(value);
  } else if constexpr (std::is_integral_v<T> && sizeof(T) == 1) {
    out << +value;
  } else if constexpr (requires { out << value; }) {
    out << value;
  } else {
    out << "<" << sizeof(T) << " bytes>";
  }
  return out.str();
}

template <typename L, typename R>
bool check_eq(const L& left, const R& right, const char* text, const char* file, int line) {
  if (left == right) return true;
  fail(file, line,
       std::string(text) + "\n      left:  " + show(left) + "\n      right: " + show(right));
  return false;
}

}  // namespace hast::test

#define HAST_TEST_JOIN2(a, b) a##b
#define HAST_TEST_JOIN(a, b) HAST_TEST_JOIN2(a, b)

#define TEST(suite, sentence) HAST_TEST_DEFINE(suite, sentence, HAST_TEST_JOIN(suite##_, __LINE__))
#define HAST_TEST_DEFINE(suite, sentence, id)                                                  \
  static void HAST_TEST_JOIN(hast_test_, id)();                                                \
  [[maybe_unused]] static const bool HAST_TEST_JOIN(hast_test_added_, id) =                    \
      ::hast::test::add(#suite, sentence, __FILE__, __LINE__, HAST_TEST_JOIN(hast_test_, id)); \
  static void HAST_TEST_JOIN(hast_test_, id)()

#define CHECK(...)                                                            \
  do {                                                                        \
    if (!(__VA_ARGS__)) ::hast::test::fail(__FILE__, __LINE__, #__VA_ARGS__); \
  } while (false)

#define CHECK_EQ(left, right) \
  static_cast<void>(::hast::test::check_eq(left, right, #left " == " #right, __FILE__, __LINE__))

#define REQUIRE(...)                                        \
  do {                                                      \
    if (!(__VA_ARGS__)) {                                   \
      ::hast::test::fail(__FILE__, __LINE__, #__VA_ARGS__); \
      return;                                               \
    }                                                       \
  } while (false)

#define SKIP(reason)            \
  do {                          \
    ::hast::test::skip(reason); \
    return;                     \
  } while (false)
