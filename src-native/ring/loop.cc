#include "ring/loop.h"

#include <cerrno>

#include "base/assert.h"

namespace hast {

namespace {
thread_local Loop* current_loop = nullptr;
}  // namespace

Loop::Loop() {
  HAST_ASSERT(current_loop == nullptr);
  current_loop = this;
}

Loop::~Loop() {
  HAST_ASSERT(current_loop == this);
  current_loop = nullptr;
}

Loop& Loop::current() {
  HAST_ASSERT(current_loop != nullptr);
  return *current_loop;
}

void Loop::start(Timer& timer, uint64_t due_us) {
  HAST_ASSERT(!timer.armed);
  timer.armed = true;
  timer.due_us = due_us;
  if (timer.party == 0) timer.party = party_;
  // From the end: what runs again and again is short, and begins after others like it.
  Timer* before = last_timer_;
  Timer* after = nullptr;
  while (before != nullptr && before->due_us > due_us) {
    after = before;
    before = before->previous;
  }
  timer.previous = before;
  timer.following = after;
  (before != nullptr ? before->following : first_timer_) = &timer;
  (after != nullptr ? after->previous : last_timer_) = &timer;
}

void Loop::unlink(Timer& timer) {
  HAST_ASSERT(timer.armed);
  timer.armed = false;
  (timer.previous != nullptr ? timer.previous->following : first_timer_) = timer.following;
  (timer.following != nullptr ? timer.following->previous : last_timer_) = timer.previous;
}

void Loop::cancel(Timer& timer) {
  if (!timer.armed) return;
  unlink(timer);
  ready(timer, -ECANCELED);
}

void Loop::drop(Timer& timer) {
  if (timer.armed) unlink(timer);
}

void Loop::expire_timers() {
  const uint64_t now = now_us();
  while (first_timer_ != nullptr && first_timer_->due_us <= now) {
    Timer& timer = *first_timer_;
    unlink(timer);
    ready(timer, 0);
  }
}

uint64_t Loop::next_due_us() const {
  return first_timer_ == nullptr ? UINT64_MAX : first_timer_->due_us;
}

bool Loop::run_one() {
  Completion* c = ready_.pop();
  if (c == nullptr) return false;
  c->run(*c);
  return true;
}

uint64_t Loop::run_ready() {
  uint64_t ran = 0;
  while (run_one()) ++ran;
  return ran;
}

}  // namespace hast
