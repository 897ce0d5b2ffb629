#include "base/error_codes.h"

#include "base/assert.h"

namespace hast {
namespace {

struct Row {
  const char* name;
  const char* message;
  const char* hint;
  int exit;
};

constexpr Row kRows[] = {
#define HAST_ERROR(code, message, hint, exit) {#code, message, hint, exit},
#include "base/error_codes.def"
#undef HAST_ERROR
};

const Row& row(Code code) {
  const auto index = static_cast<uint16_t>(code);
  HAST_ASSERT_OP(index, <, sizeof kRows / sizeof kRows[0]);
  return kRows[index];
}

}  // namespace

const char* code_name(Code code) { return row(code).name; }
const char* code_message(Code code) { return row(code).message; }
const char* code_hint(Code code) { return row(code).hint; }
int code_exit(Code code) { return row(code).exit; }

}  // namespace hast
