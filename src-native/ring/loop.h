#pragma once

#include <cstdint>

#include "ring/completion.h"

namespace hast {

/// A timer is a completion that comes due. Result is 0, or -ECANCELED after `cancel`.
struct Timer : Completion {
  uint64_t due_us = 0;
  Timer* previous = nullptr;
  Timer* following = nullptr;
  bool armed = false;
};

/// The seam between the engine and time: a ready queue, timers, and a clock.
///
/// `Ring` implements it over io_uring, the simulator over a virtual clock. One thread only.
/// Everything that finishes is put on the ready queue and run from there, so that no stack grows
/// and nothing is resumed while completions are harvested.
class Loop {
 public:
  Loop();
  virtual ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// The loop of this thread; set while a loop exists.
  static Loop& current();

  /// Monotonic microseconds. The ring caches it once a turn.
  virtual uint64_t now_us() const = 0;

  /// Puts `c` on the ready queue; it runs in this turn.
  void ready(Completion& c, int result) {
    c.result = result;
    if (c.party == 0) c.party = party_;
    ready_.push(c);
  }

  /// Runs `timer` when `due_us` has come. The timer must not be armed.
  void start(Timer& timer, uint64_t due_us);
  /// Puts an armed timer on the ready queue with -ECANCELED; does nothing to one that is not armed.
  void cancel(Timer& timer);
  /// Forgets an armed timer: it does not run. For owners that end while they wait.
  void drop(Timer& timer);

  /// Runs the first of what is ready. False: nothing is.
  bool run_one();
  /// Runs what is ready until nothing is. Returns how many completions ran.
  uint64_t run_ready();
  /// Moves due timers to the ready queue.
  void expire_timers();
  /// When the earliest timer is due; UINT64_MAX without one.
  uint64_t next_due_us() const;
  bool has_ready() const { return !ready_.empty(); }
  /// In simulations: the operation belongs to the party that is running, whoever completes it.
  void claim(Completion& c) {
    if (c.party == 0) c.party = party_;
    c.claimed = true;
  }

 protected:
  uint8_t party_ = 0;  // that is running; always 0 outside of simulations
  CompletionQueue ready_;

 private:
  void unlink(Timer& timer);

  Timer* first_timer_ = nullptr;  // sorted by due time; there are tens, not thousands
  Timer* last_timer_ = nullptr;
};

}  // namespace hast
