#include "sim/attempt.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>

#include "harness.h"

namespace hast::test {

namespace {

std::string first_failure;

/// Problems are alike when they differ in numbers only.
std::string manner_of(const std::string& problem) {
  std::string manner;
  for (const char c : problem.substr(0, 60)) {
    if (c < '0' || c > '9') manner += c;
  }
  return manner.substr(0, 24);
}

void say(int descriptor, const std::string& text) {
  if (::write(descriptor, text.data(), text.size()) < 0) _exit(2);
}

[[noreturn]] void child(const Plan& plan, int out, unsigned seconds_max) {
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  alarm(seconds_max);
  const Outcome outcome = attempt(plan, nullptr);
  if (!outcome.ok) say(out, outcome.problem);
  _exit(outcome.ok ? 0 : 1);
}

}  // namespace

/// The harness's CHECK.
void fail(const char* file, int line, const std::string& what) {
  if (first_failure.empty()) {
    first_failure = std::string(file) + ":" + std::to_string(line) + ": " + what;
  }
}
void skip(const std::string&) {}

Outcome attempt(const Plan& plan, std::FILE* notes) {
  first_failure.clear();
  Outcome outcome = run_plan(plan, notes);
  if (outcome.ok && !first_failure.empty()) {
    outcome.ok = false;
    outcome.problem = first_failure;
  }
  return outcome;
}

Outcome attempt_apart(const Plan& plan, unsigned seconds_max) {
  int ends[2];
  Outcome outcome;
  if (pipe(ends) != 0) std::abort();
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) std::abort();
  if (pid == 0) {
    close(ends[0]);
    child(plan, ends[1], seconds_max);
  }
  close(ends[1]);
  char bytes[4096];
  for (;;) {
    const ssize_t got = read(ends[0], bytes, sizeof bytes);
    if (got <= 0) break;
    if (outcome.problem.size() < 65536) outcome.problem.append(bytes, static_cast<size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  outcome.ok = status == 0;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
    outcome.problem = "no end after " + std::to_string(seconds_max) + " s";
  }
  return outcome;
}

Plan shorten(Plan plan, const std::string& problem, unsigned seconds_max) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds_max);
  const std::string manner = manner_of(problem);
  for (std::size_t chunk = std::max<std::size_t>(1, plan.steps.size() / 2); chunk > 0;) {
    bool shorter = false;
    // From the end: what comes after the failure goes first.
    for (std::size_t end = plan.steps.size(); end > 0; end -= std::min(chunk, end)) {
      if (std::chrono::steady_clock::now() > until) return plan;
      const std::size_t begin = end - std::min(chunk, end);
      Plan candidate = plan;
      const auto cut = [begin, end](auto& list) {
        list.erase(list.begin() + static_cast<std::ptrdiff_t>(begin),
                   list.begin() + static_cast<std::ptrdiff_t>(end));
      };
      cut(candidate.steps);
      cut(candidate.indices);
      const Outcome outcome = attempt_apart(candidate, 20);
      if (outcome.ok || manner_of(outcome.problem) != manner) continue;
      plan = std::move(candidate);
      shorter = true;
    }
    if (!shorter || chunk > plan.steps.size()) chunk /= 2;
  }
  return plan;
}

}  // namespace hast::test
