// hast_test [--list] [--jobs N] [--first-failure] [WORD]...: runs the tests whose "suite: sentence"
// contains any of the words, in N processes at once; --first-failure: none after one that failed.
// The last line is "N passed, N failed, N skipped"; exit 1 when one failed, 64 for wrong usage.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "harness.h"

namespace hast::test {
namespace {

struct Case {
  std::string name;
  const char* file;
  int line;
  Body body;
};

struct Running {
  std::mutex mutex;
  int failures = 0;
  bool skipped = false;
  std::string reason;
};

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

Running& running() {
  static Running state;
  return state;
}

bool wanted(const Case& test, const std::vector<std::string_view>& words) {
  if (words.empty()) return true;
  for (const std::string_view word : words) {
    if (test.name.find(word) != std::string::npos) return true;
  }
  return false;
}

void run_body(const Case& test) {
  try {
    test.body();
  } catch (const std::exception& error) {
    fail(test.file, test.line, std::string("threw: ") + error.what());
  } catch (...) {
    fail(test.file, test.line, "threw something that is no std::exception");
  }
}

/// What the processes share.
struct Counts {
  std::atomic<uint32_t> next{0};  // of `cases`, that nobody has taken yet
  std::atomic<uint32_t> passed{0};
  std::atomic<uint32_t> failed{0};
  std::atomic<uint32_t> skipped{0};
};

/// Takes one test after the other, until none is left.
void run_tests(const std::vector<std::string_view>& words, bool first_failure, Counts& counts) {
  while (!first_failure || counts.failed == 0) {
    const uint32_t index = counts.next++;
    if (index >= cases().size()) return;
    const Case& test = cases()[index];
    if (!wanted(test, words)) continue;
    Running& state = running();
    state.failures = 0;
    state.skipped = false;
    const auto start = std::chrono::steady_clock::now();
    run_body(test);
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
    if (state.failures > 0) {
      ++counts.failed;
      std::printf("FAILED  %s\n", test.name.c_str());
    } else if (state.skipped) {
      ++counts.skipped;
      std::printf("skipped %s: %s\n", test.name.c_str(), state.reason.c_str());
    } else {
      ++counts.passed;
      std::printf("ok      %s", test.name.c_str());
      if (took.count() >= 100) std::printf(" (%lld ms)", static_cast<long long>(took.count()));
      std::printf("\n");
    }
    std::fflush(stdout);
  }
}

/// In processes of its own, of which one that dies is a failure.
void run_in_processes(const std::vector<std::string_view>& words, unsigned jobs, bool first_failure,
                      Counts& counts) {
  std::fflush(stdout);
  for (unsigned job = 0; job < jobs; ++job) {
    const pid_t child = fork();
    if (child == 0) {
      run_tests(words, first_failure, counts);
      std::exit(0);
    }
    if (child < 0) ++counts.failed;
  }
  int status = 0;
  while (wait(&status) > 0) {
    if (status == 0) continue;
    ++counts.failed;
    std::printf("FAILED  a process of the tests ended by %s %d\n",
                WIFSIGNALED(status) ? "signal" : "exit",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  }
}

int run(const std::vector<std::string_view>& words, unsigned jobs, bool first_failure) {
  void* shared =
      mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) std::abort();
  Counts& counts = *new (shared) Counts;
  if (jobs < 2) {
    run_tests(words, first_failure, counts);
  } else {
    run_in_processes(words, jobs, first_failure, counts);
  }
  std::printf("%u passed, %u failed, %u skipped\n", counts.passed.load(), counts.failed.load(),
              counts.skipped.load());
  return counts.failed > 0 ? 1 : 0;
}

}  // namespace

bool add(const char* suite, const char* sentence, const char* file, int line, Body body) {
  cases().push_back({std::string(suite) + ": " + sentence, file, line, body});
  return true;
}

void fail(const char* file, int line, const std::string& what) {
  Running& state = running();
  const std::lock_guard lock(state.mutex);
  ++state.failures;
  std::printf("  %s:%d: %s\n", file, line, what.c_str());
}

void skip(const std::string& reason) {
  Running& state = running();
  const std::lock_guard lock(state.mutex);
  state.skipped = true;
  state.reason = reason;
}

}  // namespace hast::test

int main(int argc, char** argv) {
  std::vector<std::string_view> words;
  bool list = false;
  bool first_failure = false;
  unsigned jobs = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--list") {
      list = true;
    } else if (word == "--first-failure") {
      first_failure = true;
    } else if (word == "--jobs" && i + 1 < argc) {
      jobs = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
    } else if (word.starts_with("-")) {
      std::fprintf(stderr, "usage: hast_test [--list] [--jobs N] [--first-failure] [WORD]...\n");
      return 64;
    } else {
      words.push_back(word);
    }
  }
  if (!list) return hast::test::run(words, jobs, first_failure);
  for (const auto& test : hast::test::cases()) {
    if (hast::test::wanted(test, words)) std::printf("%s\n", test.name.c_str());
  }
  return 0;
}
