#include "sim/crew.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "sim/attempt.h"

namespace hast::test {

namespace {

constexpr unsigned kJobsMax = 64;
constexpr unsigned kFindingsMax = 256;
constexpr unsigned kScheduleSecondsMax = 60;
constexpr std::size_t kBins = 64;

/// What the processes share. Counts of operations and faults go into bins, for the medians.
struct Board {
  std::atomic<uint64_t> next_seed;
  std::atomic<uint64_t> schedules;
  std::atomic<uint64_t> operations;
  std::atomic<uint64_t> faults;
  std::atomic<uint64_t> operation_bins[kBins];  // of 16
  std::atomic<uint64_t> fault_bins[kBins];
  std::atomic<uint32_t> findings;
  struct {
    uint64_t seed;
    char problem[512];
  } found[kFindingsMax];
  struct {
    pid_t pid;
    std::atomic<uint64_t> seed;
    std::atomic<int64_t> since_s;
  } workers[kJobsMax];
};

/// Processor time that a process has used; -1: it is no more. Not that of the clock on the wall:
/// where others have the processor, a schedule takes as long as they like.
int64_t used_s(pid_t pid) {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return -1;
  return used.tv_sec;
}

int64_t now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void add_finding(Board& board, uint64_t seed, const std::string& problem) {
  const uint32_t index = board.findings++;
  if (index >= kFindingsMax) return;
  board.found[index].seed = seed;
  std::snprintf(board.found[index].problem, sizeof board.found[index].problem, "%s",
                problem.c_str());
  std::fprintf(stderr, "finding: seed %llu: %s\n", static_cast<unsigned long long>(seed),
               problem.c_str());
}

[[noreturn]] void work(Board& board, unsigned index, int64_t until_s) {
  auto& me = board.workers[index];
  while (now_s() < until_s) {
    const uint64_t seed = board.next_seed++;
    me.seed = seed;
    me.since_s = used_s(getpid());
    const Outcome outcome = attempt(make_plan(seed), nullptr);
    ++board.schedules;
    board.operations += outcome.operations;
    board.faults += outcome.faults;
    ++board.operation_bins[std::min<std::size_t>(kBins - 1, outcome.operations / 16)];
    ++board.fault_bins[std::min<std::size_t>(kBins - 1, outcome.faults)];
    if (!outcome.ok) add_finding(board, seed, outcome.problem);
  }
  std::fflush(nullptr);
  std::exit(0);  // the sanitizer looks for leaks
}

void start(Board& board, unsigned index, int64_t until_s) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) std::abort();
  if (pid == 0) work(board, index, until_s);
  board.workers[index].since_s = 0;
  board.workers[index].pid = pid;
}

/// A process that died takes its schedule with it; another one takes its place. False: all done.
bool reap(Board& board, unsigned jobs, int64_t until_s) {
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid == 0) return true;
    if (pid < 0) return false;
    if (status == 0) continue;
    for (unsigned i = 0; i < jobs; ++i) {
      if (board.workers[i].pid != pid) continue;
      const Outcome again = attempt_apart(make_plan(board.workers[i].seed), kScheduleSecondsMax);
      add_finding(board, board.workers[i].seed,
                  again.ok ? "a process died of it, but not again" : again.problem);
      if (now_s() < until_s) start(board, i, until_s);
    }
  }
}

void kill_late(Board& board, unsigned jobs) {
  for (unsigned i = 0; i < jobs; ++i) {
    auto& worker = board.workers[i];
    if (used_s(worker.pid) - worker.since_s > kScheduleSecondsMax) {
      kill(worker.pid, SIGKILL);
    }
  }
}

void show_progress(const Board& board, int64_t began_s) {
  const auto seconds = static_cast<double>(std::max<int64_t>(1, now_s() - began_s));
  std::fprintf(stderr, "%llu schedules, %.0f per minute, %u findings\n",
               static_cast<unsigned long long>(board.schedules),
               static_cast<double>(board.schedules) * 60 / seconds, board.findings.load());
}

uint64_t median(const std::atomic<uint64_t>* bins, uint64_t schedules, uint64_t width) {
  uint64_t before = 0;
  for (std::size_t i = 0; i < kBins; ++i) {
    before += bins[i];
    if (before * 2 > schedules) return i * width;
  }
  return 0;
}

}  // namespace

CrewResult run_crew(uint64_t first, unsigned seconds, unsigned jobs) {
  jobs = std::clamp(jobs, 1u, kJobsMax);
  void* const shared =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) std::abort();
  Board& board = *new (shared) Board{};
  board.next_seed = first;
  const int64_t began_s = now_s();
  const int64_t until_s = began_s + seconds;
  for (unsigned i = 0; i < jobs; ++i) start(board, i, until_s);
  for (int64_t shown_s = began_s; reap(board, jobs, until_s);) {
    usleep(100'000);
    kill_late(board, jobs);
    if (now_s() - shown_s < 10) continue;
    shown_s = now_s();
    show_progress(board, began_s);
  }
  show_progress(board, began_s);
  CrewResult result;
  result.schedules = board.schedules;
  result.operations = board.operations;
  result.faults = board.faults;
  result.operations_median = median(board.operation_bins, board.schedules, 16);
  result.faults_median = median(board.fault_bins, board.schedules, 1);
  for (uint32_t i = 0; i < std::min<uint32_t>(board.findings, kFindingsMax); ++i) {
    result.findings.push_back({board.found[i].seed, board.found[i].problem});
  }
  munmap(shared, sizeof(Board));
  return result;
}

}  // namespace hast::test
