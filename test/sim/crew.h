// Many schedules on many processors: processes that take one seed after the other.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hast::test {

struct Finding {
  uint64_t seed;
  std::string problem;
};

struct CrewResult {
  uint64_t schedules = 0;
  uint64_t operations_median = 0;
  uint64_t faults_median = 0;
  uint64_t operations = 0;
  uint64_t faults = 0;
  std::vector<Finding> findings;
};

/// Fresh schedules, `first`, `first` + 1 ..., until `seconds` are over; what they find is told on
/// stderr as it comes, with a line of progress now and then.
CrewResult run_crew(uint64_t first, unsigned seconds, unsigned jobs);

}  // namespace hast::test
