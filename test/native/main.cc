// hast_test [--list] [WORD]...: runs the tests whose "suite: sentence" contains any of the words.
// The last line is "N passed, N failed, N skipped"; exit 1 when one failed, 64 for wrong usage.

#include <chrono>
#include <cstdio>
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

int run(const std::vector<std::string_view>& words) {
  int passed = 0;
  int failed = 0;
  int skipped = 0;
  for (const Case& test : cases()) {
    if (!wanted(test, words)) continue;
    Running& state = running();
    state.failures = 0;
    state.skipped = false;
    const auto start = std::chrono::steady_clock::now();
    run_body(test);
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
    if (state.failures > 0) {
      ++failed;
      std::printf("FAILED  %s\n", test.name.c_str());
    } else if (state.skipped) {
      ++skipped;
      std::printf("skipped %s: %s\n", test.name.c_str(), state.reason.c_str());
    } else {
      ++passed;
      std::printf("ok      %s", test.name.c_str());
      if (took.count() >= 100) std::printf(" (%lld ms)", static_cast<long long>(took.count()));
      std::printf("\n");
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed > 0 ? 1 : 0;
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
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--list") {
      list = true;
    } else if (word.starts_with("-")) {
      std::fprintf(stderr, "usage: hast_test [--list] [WORD]...\n");
      return 64;
    } else {
      words.push_back(word);
    }
  }
  if (!list) return hast::test::run(words);
  for (const auto& test : hast::test::cases()) {
    if (hast::test::wanted(test, words)) std::printf("%s\n", test.name.c_str());
  }
  return 0;
}
