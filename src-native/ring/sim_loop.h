#pragma once

#include <cstdint>

#include "ring/loop.h"

namespace hast {

/// A loop with a virtual clock, for tests and the simulator: time passes only when nothing is
/// ready, and then it jumps to the next timer.
class SimLoop final : public Loop {
 public:
  ~SimLoop() override;
  uint64_t now_us() const override { return now_us_; }

  /// Runs what is ready and due now; the clock stands still.
  void run_now();
  /// Jumps to the next timer and runs. False, and nothing happens, without a timer.
  bool step();
  /// Runs so many events, one by one; what is ready then stays so, for a crash in between.
  void run_events(uint64_t count);
  /// Runs until there is nothing ready and no timer. `turns_max` bounds endless programs; false
  /// when it was reached.
  bool run_until_idle(uint64_t turns_max = 1u << 24);
  /// Lets `us` pass, running everything due on the way.
  void advance(uint64_t us);
  /// Steps until `condition()` holds; false when the loop became idle or `limit_us` passed before:
  /// timers that come again and again would keep it going for ever.
  template <typename Condition>
  bool run_until(Condition condition, uint64_t limit_us = kPatienceUs) {
    const uint64_t end_us = now_us_ + limit_us;
    run_now();
    while (!condition()) {
      if (next_due_us() > end_us || !step()) return false;
    }
    return true;
  }

 private:
  static constexpr uint64_t kPatienceUs = 600'000'000;

  uint64_t now_us_ = 1'000'000;
};

}  // namespace hast
