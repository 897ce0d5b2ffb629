#include "base/units.h"

#include <cstdio>

namespace hast {

NumberText size_text(uint64_t bytes) {
  static constexpr char kLetters[] = "KMGTPE";
  uint64_t value = bytes;
  uint64_t rest = 0;  // in 1024ths of the unit
  const char* letter = nullptr;
  // A value of 999 that rounding would make 1000 goes to the next unit.
  while (value >= 1000 || (value == 999 && rest >= 512)) {
    rest = value % 1024;
    value /= 1024;
    letter = letter == nullptr ? kLetters : letter + 1;
  }
  NumberText out{};
  const uint64_t tenths = ((value * 1024 + rest) * 10 + 512) / 1024;
  const auto number = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  if (letter == nullptr) {
    std::snprintf(out.text, sizeof out.text, "%lluB", number(value));
  } else if (tenths < 100) {
    std::snprintf(out.text, sizeof out.text, "%llu.%llu%cB", number(tenths / 10),
                  number(tenths % 10), *letter);
  } else {
    std::snprintf(out.text, sizeof out.text, "%llu%cB", number(value + (rest + 512) / 1024),
                  *letter);
  }
  return out;
}

NumberText duration_text(uint64_t us) {
  NumberText out{};
  if (us < 10000000) {
    std::snprintf(out.text, sizeof out.text, "%llums", static_cast<unsigned long long>(us / 1000));
    return out;
  }
  static constexpr struct {
    char letter;
    uint64_t seconds;
  } kSpans[] = {{'y', 365 * 86400}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
  uint64_t rest = us / 1000000;
  std::size_t used = 0;
  for (const auto& [letter, seconds] : kSpans) {
    const uint64_t count = rest / seconds;
    rest -= count * seconds;
    if (count > 0 || used > 0) {
      used +=
          static_cast<std::size_t>(std::snprintf(out.text + used, sizeof out.text - used, "%llu%c",
                                                 static_cast<unsigned long long>(count), letter));
    }
    if (rest == 0) break;
  }
  return out;
}

}  // namespace hast
