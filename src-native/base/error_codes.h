#pragma once

#include <cstdint>

namespace hast {

/// One word per failure a caller can tell apart; the rows are in error_codes.def.
enum class Code : uint16_t {
#define HAST_ERROR(code, message, hint, exit) code,
#include "base/error_codes.def"
#undef HAST_ERROR
};

/// The code's own word, e.g. "META_INVALID". Never null.
const char* code_name(Code code);
/// What went wrong, without a full stop. Never null.
const char* code_message(Code code);
/// What a person can try; "" when there is nothing to say.
const char* code_hint(Code code);
/// The sysexits number a tool ends with.
int code_exit(Code code);

}  // namespace hast
