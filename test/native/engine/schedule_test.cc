// Random schedules. HAST_SEED=n runs one of them and prints its steps; HAST_SCHEDULES=n runs more.

#include "engine/schedule.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "harness.h"
#include "ring/task.h"

namespace hast::test {

namespace {

constexpr uint64_t kSchedules = 80;

/// Seeds that once failed. What they showed then:
constexpr uint64_t kKnown[] = {
    4,    // a reply that overtook the end of its own send: the slot was used again too early
    20,   // beside an original, nobody says when a pass has ended
    28,   // split-brain said as "no answer": connection 2 ended before the refusal was read
    30,   // a secondary with reads on the disk never came to its end
    31,   // demoted with marks that no counter spoke of: the peer's older blocks won
    199,  // a peer that had failed a write took over and served the old block
    206,  // took over between the handshake and the first message of a pass
    238,  // half a copy after a second start
    308,  // a write that only the given-up disk had was answered as done
    533,  // demoted when all was copied, but before the peer knew
    796,  // one failed map write kept the pair apart for good
};
uint64_t running_seed = 0;

void show_seed(int) {
  char text[64];
  const int length = std::snprintf(text, sizeof text, "died in schedule HAST_SEED=%llu\n",
                                   static_cast<unsigned long long>(running_seed));
  if (write(2, text, static_cast<size_t>(length)) < 0) _exit(1);
  std::signal(SIGABRT, SIG_DFL);
  std::abort();
}

uint64_t number_of(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

bool runs(uint64_t seed, bool show_steps) {
  running_seed = seed;
  const ScheduleResult result = run_schedule(seed);
  const std::size_t frames = task_frames_alive();
  if (result.ok && frames == 0) return true;
  const bool loud = show_steps || std::getenv("HAST_QUIET") == nullptr;
  if (loud) {
    for (const std::string& step : result.steps) std::printf("    %s\n", step.c_str());
  }
  std::printf("    repeat with: HAST_SEED=%llu hast_test 'schedule: random'\n",
              static_cast<unsigned long long>(seed));
  fail(__FILE__, __LINE__,
       "seed " + std::to_string(seed) + ": " +
           (result.ok ? std::to_string(frames) + " coroutines are left over" : result.problem));
  return false;
}

}  // namespace

TEST(schedule, "seeds that failed once pass") {
  const auto before = std::signal(SIGABRT, show_seed);
  for (const uint64_t seed : kKnown) runs(seed, false);
  std::signal(SIGABRT, before);
}

TEST(schedule, "random requests, failures and role changes lose nothing and heal by themselves") {
  const auto before = std::signal(SIGABRT, show_seed);
  if (const uint64_t seed = number_of("HAST_SEED", 0)) {
    runs(seed, true);
  } else {
    const uint64_t first = number_of("HAST_FIRST", 1);
    const uint64_t count = number_of("HAST_SCHEDULES", kSchedules);
    uint64_t bad = 0;
    for (uint64_t i = 0; i < count && bad < 25; ++i) {
      if (!runs(first + i, false)) ++bad;
    }
  }
  std::signal(SIGABRT, before);
}

}  // namespace hast::test
