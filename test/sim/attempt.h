// Running a plan where it can do no harm, and making a failing one shorter.

#pragma once

#include <string>

#include "sim/run.h"

namespace hast::test {

/// In this process. A failed CHECK of the harness counts, too.
Outcome attempt(const Plan& plan, std::FILE* notes);

/// In a process of its own: an assertion that fails, or a program without an end, is a finding like
/// any other. Only `ok` and `problem` are set.
Outcome attempt_apart(const Plan& plan, unsigned seconds_max);

/// Leaves out steps as long as the plan fails in the same manner.
Plan shorten(Plan plan, const std::string& problem, unsigned seconds_max);

}  // namespace hast::test
