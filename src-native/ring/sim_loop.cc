#include "ring/sim_loop.h"

#include <algorithm>

namespace hast {

SimLoop::~SimLoop() = default;

void SimLoop::run_now() {
  expire_timers();
  while (has_ready()) {
    run_ready();
    expire_timers();
  }
}

bool SimLoop::step() {
  const uint64_t due_us = next_due_us();
  if (due_us == UINT64_MAX) return false;
  now_us_ = std::max(now_us_, due_us);
  run_now();
  return true;
}

void SimLoop::run_events(uint64_t count) {
  for (; count > 0; --count) {
    expire_timers();
    if (run_one()) continue;
    const uint64_t due_us = next_due_us();
    if (due_us == UINT64_MAX) return;
    now_us_ = std::max(now_us_, due_us);
  }
}

bool SimLoop::run_until_idle(uint64_t turns_max) {
  run_now();
  for (uint64_t turn = 0; turn < turns_max; ++turn) {
    if (!step()) return true;
  }
  return false;
}

void SimLoop::advance(uint64_t us) {
  const uint64_t end_us = now_us_ + us;
  run_now();
  while (next_due_us() <= end_us) step();
  now_us_ = end_us;
  run_now();
}

}  // namespace hast
