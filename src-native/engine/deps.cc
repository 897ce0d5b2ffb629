#include "engine/deps.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace hast {

void logf(EngineHost& host, LogLevel level, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  host.log(level,
           std::string_view(text, std::min(static_cast<std::size_t>(length), sizeof text - 1)));
}

const char* full_stop(std::string_view text) {
  return text.ends_with('.') || text.ends_with('!') ? "" : ".";
}

}  // namespace hast
