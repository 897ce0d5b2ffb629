// hast_sim: schedules of requests, failures and role changes on two simulated nodes.
//   hast_sim --seconds N [--seed S] [--jobs N]     fresh schedules from S on, on all processors
//   hast_sim --seed S [--steps WHICH] [--hash]     one of them, or some of its steps, with notes
//   hast_sim --seed S --count N                    N from S on in this process: digest and cost
//   hast_sim --kept FILE                           the seeds that failed once
//   hast_sim --reconnect [WORD]...                 all short stories, docs/reconnect.md
// The last line is "N schedules, N findings"; exit 1 with findings, 64 for wrong usage.

#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>

#include "sim/attempt.h"
#include "sim/crew.h"
#include "sim/reconnect.h"

namespace hast::test {
namespace {

constexpr unsigned kShownMax = 5;
constexpr unsigned kShortenSeconds = 30;
constexpr unsigned kAloneSecondsMax = 120;

struct Wish {
  bool usable = false;
  bool has_seed = false;
  uint64_t seed = 0;
  unsigned seconds = 0;
  uint64_t count = 0;
  unsigned jobs = static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  bool hash = false;
  std::string steps;
  std::string kept;
};

Wish read_arguments(int argc, char** argv) {
  Wish wish;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const char* const value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (word == "--hash") {
      wish.hash = true;
      continue;
    }
    if (value == nullptr) return {};
    ++i;
    if (word == "--seconds") {
      wish.seconds = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    } else if (word == "--count") {
      wish.count = std::strtoull(value, nullptr, 10);
    } else if (word == "--seed") {
      wish.has_seed = true;
      wish.seed = std::strtoull(value, nullptr, 10);
    } else if (word == "--jobs") {
      wish.jobs = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    } else if (word == "--steps") {
      wish.steps = value;
    } else if (word == "--kept") {
      wish.kept = value;
    } else {
      return {};
    }
  }
  wish.usable = wish.seconds > 0 || wish.has_seed || !wish.kept.empty();
  return wish;
}

std::string command_for(const Plan& plan, bool part) {
  std::string text = "npm run sim -- --seed " + std::to_string(plan.seed);
  if (part) text += " --steps " + which_steps(plan);
  return text;
}

/// Runs it once more, aside, with its notes.
void tell(const Plan& plan) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(kAloneSecondsMax);
    attempt(plan, stdout);
    std::fflush(nullptr);
    _exit(0);
  }
  int status = 0;
  if (pid > 0) waitpid(pid, &status, 0);
}

void explain(const Finding& finding) {
  const Plan whole = make_plan(finding.seed);
  const Plan plan = shorten(whole, finding.problem, kShortenSeconds);
  std::printf("\nseed %llu: %s\nshortened from %zu to %zu steps:\n",
              static_cast<unsigned long long>(finding.seed), finding.problem.c_str(),
              whole.steps.size(), plan.steps.size());
  tell(plan);
  std::printf("repeat with: %s\n        all: %s\n", command_for(plan, true).c_str(),
              command_for(whole, false).c_str());
}

unsigned long long wide(uint64_t number) { return number; }

int last_line(uint64_t schedules, uint64_t findings) {
  std::printf("%llu schedules, %llu findings\n", wide(schedules), wide(findings));
  return findings > 0 ? 1 : 0;
}

int run_one(const Wish& wish) {
  Plan plan = make_plan(wish.seed);
  if (!keep_steps(plan, wish.steps)) {
    std::fprintf(stderr, "hast_sim: --steps takes a count, or a list like 0-3,7-7\n");
    return 64;
  }
  const Outcome outcome = attempt(plan, wish.hash ? nullptr : stdout);
  if (wish.hash) {
    std::printf("%016llx %llu events\n", wide(outcome.digest), wide(outcome.events));
  }
  if (!outcome.ok) std::printf("seed %llu: %s\n", wide(wish.seed), outcome.problem.c_str());
  if (!outcome.ok && wish.steps.empty() && !wish.hash) explain({wish.seed, outcome.problem});
  return last_line(1, outcome.ok ? 0 : 1);
}

/// What a change costs, and whether it leaves every schedule as it was.
int run_count(const Wish& wish) {
  Trace all;
  uint64_t findings = 0;
  const std::clock_t began = std::clock();
  for (uint64_t seed = wish.seed; seed < wish.seed + wish.count; ++seed) {
    const Outcome outcome = attempt(make_plan(seed), nullptr);
    all.note(outcome.digest, outcome.events, outcome.operations, outcome.faults);
    if (outcome.ok) continue;
    ++findings;
    std::printf("seed %llu: %s\n", wide(seed), outcome.problem.c_str());
  }
  const double ms = 1e3 * static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
  std::printf("digest %016llx, %.2f ms of processor time a schedule\n", wide(all.digest()),
              ms / static_cast<double>(wish.count));
  return last_line(wish.count, findings);
}

/// Lines "SEED[:STEPS] REASON"; each is also run twice, which must give the same events.
int run_kept(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    std::fprintf(stderr, "hast_sim: %s cannot be read\n", path.c_str());
    return 66;
  }
  uint64_t schedules = 0;
  uint64_t findings = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::string word = line.substr(0, line.find(' '));
    Plan plan = make_plan(std::strtoull(word.c_str(), nullptr, 10));
    const std::size_t colon = word.find(':');
    if (colon != word.npos && !keep_steps(plan, word.substr(colon + 1))) return 65;
    ++schedules;
    Outcome outcome = attempt_apart(plan, kAloneSecondsMax);
    if (outcome.ok && attempt(plan, nullptr).digest != attempt(plan, nullptr).digest) {
      outcome.ok = false;
      outcome.problem = "the same seed took another course";
    }
    if (outcome.ok) continue;
    ++findings;
    std::printf("seed %s: %s\n  once: %s\n", word.c_str(), outcome.problem.c_str(), line.c_str());
  }
  return last_line(schedules, findings);
}

int run_fresh(const Wish& wish) {
  std::random_device device;
  const uint64_t first = wish.has_seed ? wish.seed : (uint64_t{device()} << 16) + device() % 65536;
  std::fprintf(stderr, "seeds from %llu on, %u processes, %u s\n", wide(first), wish.jobs,
               wish.seconds);
  const CrewResult result = run_crew(first, wish.seconds, wish.jobs);
  for (std::size_t i = 0; i < std::min<std::size_t>(kShownMax, result.findings.size()); ++i) {
    explain(result.findings[i]);
  }
  std::printf("requests: %llu, median about %llu; faults: %llu, median %llu\n",
              wide(result.operations), wide(result.operations_median), wide(result.faults),
              wide(result.faults_median));
  return last_line(result.schedules, result.findings.size());
}

int run(const Wish& wish) {
  if (!wish.usable) {
    std::fprintf(stderr,
                 "usage: hast_sim --seconds N [--seed S] [--jobs N]\n"
                 "       hast_sim --seed S [--steps WHICH] [--hash]\n"
                 "       hast_sim --seed S --count N\n"
                 "       hast_sim --kept FILE\n"
                 "       hast_sim --reconnect [WORD]...\n");
    return 64;
  }
  if (!wish.kept.empty()) return run_kept(wish.kept);
  if (wish.seconds > 0) return run_fresh(wish);
  return wish.count > 0 ? run_count(wish) : run_one(wish);
}

}  // namespace
}  // namespace hast::test

int main(int argc, char** argv) {
  // What a life gives back is what the next one takes: never to the system.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most it takes
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  if (argc > 1 && std::string_view(argv[1]) == "--reconnect") {
    return hast::test::reconnect({argv + 2, argv + argc});
  }
  return hast::test::run(hast::test::read_arguments(argc, argv));
}
