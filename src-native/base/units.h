#pragma once

#include <cstdint>

namespace hast {

/// Numbers as a person reads them in the log; src/units.ts is the twin for all that is TypeScript.
/// A buffer of their own: where they are printed, nothing is allocated.
struct NumberText {
  char text[32];
};

/// At most four characters and a `B`, as `9.8KB`.
NumberText size_text(uint64_t bytes);
/// `1h2m3s`; below ten seconds in milliseconds, as most of what is told does not take longer.
NumberText duration_text(uint64_t us);

}  // namespace hast
