#pragma once

#include <cstdint>

#include "ring/loop.h"

namespace hast {

/// A loop with a virtual clock, for tests and the simulator: time passes only when nothing is
/// ready, and then it jumps to the next timer.
///
/// What runs belongs to a party, and so does all that it starts. A party can be frozen: time goes
/// on, and nothing of it runs, as in a process that is stopped or a machine that is suspended.
class SimLoop final : public Loop {
 public:
  SimLoop();
  ~SimLoop() override;
  uint64_t now_us() const override { return now_us_; }

  bool run_one();
  void run_ready();
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

  static constexpr uint8_t kParties = 2;  ///< 1 and 2
  static constexpr uint8_t kNobody = 255;

  /// Who calls from outside of the loop; restores what was when it goes.
  class As {
   public:
    As(SimLoop& loop, uint8_t party) : loop_(loop), before_(loop.party_) { loop.party_ = party; }
    ~As() { loop_.party_ = before_; }
    As(const As&) = delete;
    As& operator=(const As&) = delete;

   private:
    SimLoop& loop_;
    uint8_t before_;
  };

  /// For so long, or until `thaw`. What came due and what has completed then runs at once, and
  /// `timers_first` before what has completed. A party that is frozen stays so.
  void freeze(uint8_t party, uint64_t us, bool timers_first);
  void thaw(uint8_t party);
  bool frozen(uint8_t party) const { return parties_[party - 1].is_frozen; }

 private:
  struct Party;
  struct Thaw : Timer {
    SimLoop* loop = nullptr;
    Party* of = nullptr;
  };
  struct Party {
    Thaw thaws;
    bool is_frozen = false;
    bool timers_first = false;
    CompletionQueue due;
    CompletionQueue completed;
  };

  bool held_back(Completion& c);
  void release(Party& party);

  Party parties_[kParties];
  static constexpr uint64_t kPatienceUs = 600'000'000;

  uint64_t now_us_ = 1'000'000;
};

}  // namespace hast
