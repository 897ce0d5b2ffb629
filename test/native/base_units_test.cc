#include <string>

#include "base/units.h"
#include "harness.h"

namespace hast {
namespace {

TEST(units, "sizes in the log are those of list") {
  const struct {
    uint64_t bytes;
    const char* text;
  } rows[] = {{0, "0B"},           {512, "512B"},         {999, "999B"},
              {1000, "1.0KB"},     {1024, "1.0KB"},       {10000, "9.8KB"},
              {65536, "64KB"},     {1022976, "999KB"},    {1023410176, "976MB"},
              {2097152, "2.0MB"},  {10737418240, "10GB"}, {1099511627776, "1.0TB"},
              {UINT64_MAX, "16EB"}};
  for (const auto& [bytes, text] : rows) CHECK_EQ(std::string(size_text(bytes).text), text);
}

TEST(units, "durations in the log leave out what is nothing at the end") {
  const uint64_t second = 1000000;
  const struct {
    uint64_t us;
    const char* text;
  } rows[] = {{0, "0ms"},
              {148999, "148ms"},
              {9999999, "9999ms"},
              {10 * second, "10s"},
              {60 * second, "1m"},
              {3723 * second, "1h2m3s"},
              {86400 * second, "1d"},
              {(365 * 86400 + 1) * second, "1y0d0h0m1s"}};
  for (const auto& [us, text] : rows) CHECK_EQ(std::string(duration_text(us).text), text);
}

}  // namespace
}  // namespace hast
