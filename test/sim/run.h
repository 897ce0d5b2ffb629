// One schedule, carried out: clients, an operator and the failures act on two nodes, and after each
// step the checkers look.

#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "sim/model.h"
#include "sim/plan.h"

namespace hast::test {

struct Outcome {
  bool ok = true;
  std::string problem;
  uint64_t digest = 0;      ///< of steps, answers, disk and network, with their times
  uint64_t events = 0;      ///< that went into it
  uint64_t operations = 0;  ///< of clients
  uint64_t faults = 0;      ///< crashes, cuts, silences, failing disks, two primaries
};

/// Also checks that nothing is left over: coroutines, slots, lives. `notes`: what happens, a line
/// each, or null.
Outcome run_plan(const Plan& plan, std::FILE* notes);

/// What is promised depends on who has all that was acknowledged. Said by the schedule from what it
/// did, never asked of the engine's own counters.
struct Belief {
  int primary = -1;
  bool up[2] = {};         ///< secondary or primary
  bool cut[2] = {};        ///< lost power as primary, and has not been in sync since
  bool fell[2] = {};       ///< lost power as secondary, and has not been in sync since
  bool sick[2] = {};       ///< its disk was told to fail, in this life
  bool lost[2] = {};       ///< something went astray on its disk: nothing there is promised
  bool fragile[2] = {};    ///< served by force after a failed flush: a power cut may take any of it
  bool may_fail = false;   ///< a disk has failed: requests may fail, too
  bool first_good = true;  ///< the primary's disk has all that was acknowledged
  bool second_good = false;  ///< so has the other one
  /// The primary may not have noticed yet that the other copy is worse than it thinks: so many
  /// ends of a connection it must have told of before its word counts again.
  uint64_t ends_wanted = 0;
  bool lone = false;        ///< the primary may have acknowledged something alone
  bool was_async = false;   ///< once, in this schedule
  bool was_loose = false;   ///< once not fullsync
  bool distrusted = false;  ///< reads of the primary prove nothing
};

class Run {
 public:
  Run(const Plan& plan, std::FILE* notes);
  void run();
  Outcome take();

 private:
  struct Pending {
    Pair::Operation* operation;
    int node;
    uint64_t id;
    uint64_t begun;
    uint64_t since_us;
    bool proves = true;  // what it reads is held against the model
  };

  // run.cc: steps, requests, looking
  void execute(const Step& step);
  [[gnu::format(printf, 2, 3)]] void note(const char* format, ...);
  void problem(const std::string& text);
  Node& node(int index) { return pair_.node(index); }
  bool serving() { return is_.primary >= 0 && node(is_.primary).serving(); }
  EngineStats stats() { return node(is_.primary).primary()->stats(); }
  BlockModel& model_of(int index) { return two_ && index != is_.primary ? second_ : model_; }
  bool network_whole() {
    return !pair_.link_down() && !pair_.silent() && pair_.network.options.stillborn == 0;
  }
  /// A new disk: whoever promotes it has lost everything.
  bool is_blank(int index) { return node(index).metadata().resuid == 0; }
  uint64_t ends_told();
  void doubt_second();
  bool has_noticed() { return serving() && ends_told() >= is_.ends_wanted; }
  bool wait_until(bool (Run::*condition)(), uint64_t limit_us);
  bool answered() { return pending_.empty() || !outcome_.ok; }
  void pass_time(Random random);
  void poll();
  void look_at_state();
  void end(const Pending& p);
  void check(const BlockModel& model, uint64_t offset, ConstBytes bytes, uint64_t begun,
             const char* what);
  void requests(int index, Random random);
  void request(int index, Random& random);
  void start_request(int index, uint64_t id, RequestOp op, uint64_t first, uint64_t count,
                     bool zeroes, bool fua);
  void finish();
  bool settle();
  void check_end();

  // run_faults.cc: the link, the disks, the operator
  void change_network(Random random);
  void cut(Random random);
  void silence(Random random);
  void note_link_fault();
  void mend();
  void freeze(Random random);
  void thaw();
  void disk_fault(Random random, bool full);
  void disk_slow(Random random);
  void astray(Random random);
  void astray_first(FaultComponent::Fault fault);
  void replace_secondary();
  void reload(Random random);

  // run_roles.cc: who lives, who serves
  bool promote(int index, bool may_refuse = false, bool force = false);
  void secondary(int index);
  void kill(int index, bool power, bool silently, uint64_t seed);
  void lose_primary(Random random, bool both);
  bool take_over_refused(Random& random, int other);
  void come_back(Random& random, int dead, bool power, bool was_stale, bool peer_has_it);
  void lose_secondary(Random random);
  void switch_over();
  void force_take_over(Random random);

  // run_two.cc
  void two_primaries(Random random);
  void overtake(Random random);
  bool both_hold_all();
  bool begin_two(Random& random);
  bool begin_overtake(Random& random);
  bool promote_second(int first, bool less);
  void write_alone(int index, Random& random);
  bool lead_both(Random& random);
  void judge_two(int demoted, const bool wrote[2]);
  void take_model(int first, int truth, bool all);
  void resolve_split(int demoted);

  const Plan& plan_;
  std::FILE* const notes_;
  Outcome outcome_;
  Pair pair_;
  BlockModel model_;
  BlockModel second_;  // of the other primary, while there are two
  bool two_ = false;
  int first_unflushed_ = -1;  // of the two: was cut off with unflushed writes
  uint64_t parted_at_ = 0;    // a time of both models: before it they were one
  bool in_hand_ = false;  // of the two: all that the first one can have written alone it had begun
  Belief is_;
  uint64_t blocks_ = 0;
  uint64_t data_offset_ = 0;
  std::vector<Pending> pending_;
  uint64_t last_id_ = 0;
  uint64_t checks_ = 0;
};

}  // namespace hast::test
