#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "base/assert.h"
#include "harness.h"

namespace {

struct Death {
  int signal = 0;
  std::string text;
};

/// Runs body in a child and returns how it died and what it said on stderr.
Death run_in_child(void (*body)()) {
  int ends[2];
  Death death;
  if (pipe(ends) != 0) return death;
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    body();
    _exit(0);
  }
  close(ends[1]);
  char buffer[512];
  ssize_t size = 0;
  while ((size = read(ends[0], buffer, sizeof buffer)) > 0) {
    death.text.append(buffer, static_cast<size_t>(size));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) death.signal = WTERMSIG(status);
  return death;
}

}  // namespace

TEST(assert, "a true expression has no effect") {
  HAST_ASSERT(1 + 1 == 2);
  HAST_ASSERT_OP(1, <, 2);
}

TEST(assert, "a false expression prints itself and its place, then aborts") {
  const Death death = run_in_child([] {
    const int sheep = 1;
    HAST_ASSERT(sheep == 2);
  });
  CHECK_EQ(death.signal, SIGABRT);
  CHECK(death.text.find("sheep == 2") != std::string::npos);
  CHECK(death.text.find("base_assert_test.cc:") != std::string::npos);
}

TEST(assert, "a false comparison prints both values") {
  const Death death = run_in_child([] { HAST_ASSERT_OP(uint64_t{7}, <, uint64_t{5}); });
  CHECK_EQ(death.signal, SIGABRT);
  CHECK(death.text.find("(7 < 5)") != std::string::npos);
}
