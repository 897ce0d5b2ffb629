// Two primaries behind a cut link. When both have written alone, that must be said, and not
// otherwise.

#include <algorithm>

#include "sim/run.h"

namespace hast::test {

namespace {
constexpr uint64_t kSecond = 1000000;
constexpr uint64_t kForever = 100000 * kSecond;  // until it is told to go on

bool says_split_brain(Node& node) {
  const std::vector<EventName>& events = node.life()->host.events;
  return std::find(events.begin(), events.end(), EventName::kSplitBrain) != events.end();
}
}  // namespace

/// Both have all that was acknowledged, and nothing is under way.
bool Run::both_hold_all() {
  thaw();
  if (!serving() || is_.lost[0] || is_.lost[1] || is_.sick[0] || is_.sick[1]) return false;
  const int other = 1 - is_.primary;
  if (!is_.up[other] || !network_whole() || !wait_until(&Run::answered, 20 * kSecond)) return false;
  if (!outcome_.ok || !pair_.settle(node(is_.primary), 60 * kSecond)) return false;
  return true;
}

/// The second one leads, too; what it has is what the first one had acknowledged, or `less`: only
/// what was flushed.
bool Run::promote_second(int first, bool less) {
  second_ = model_;
  if (less) second_.forget_unflushed();
  parted_at_ = second_.now();
  two_ = promote(1 - first);
  is_.primary = first;
  return two_;
}

/// The link cut, and the second one primary, too.
bool Run::begin_two(Random& random) {
  if (!both_hold_all()) return false;
  const bool flushed = random.chance(1, 2);
  if (flushed) pair_.loop.advance(8 * kSecond);
  poll();
  if (!is_.second_good || !is_.first_good || is_.lone) return false;
  const int first = is_.primary;
  note("the link breaks, and node %d becomes primary, too", 1 - first);
  ++outcome_.faults;
  pair_.cut(true);
  pair_.loop.advance(random.below(5 * kSecond));
  first_unflushed_ = flushed ? -1 : first;
  in_hand_ = false;
  return promote_second(first, false);
}

/// The first one stands still with requests in its hands, and the operator takes it for dead.
bool Run::begin_overtake(Random& random) {
  if (!both_hold_all()) return false;
  poll();
  if (!is_.second_good || !is_.first_good || is_.lone) return false;
  const int first = is_.primary;
  for (uint64_t bursts = random.between(1, 3); bursts > 0; --bursts) {
    requests(first, Random(random.next()));
  }
  pair_.loop.run_events(random.below(400));
  poll();
  if (!outcome_.ok) return false;
  // A link that broke with them in hand has made the other copy one that is being repaired, or the
  // first node has answered alone what the other one never got.
  if (node(1 - first).extra().sync_target || is_.lone) return false;
  note("node %d stands still, and node %d becomes primary, too", first, 1 - first);
  ++outcome_.faults;
  node(first).freeze(kForever, random.chance(1, 2));
  if (random.chance(1, 2)) pair_.loop.advance(random.below(40 * kSecond));
  first_unflushed_ = first;
  in_hand_ = true;
  // What async had acknowledged and not handed on is not there, and nobody can know.
  return promote_second(first, is_.was_async);
}

void Run::write_alone(int index, Random& random) {
  for (uint64_t bursts = random.between(0, 4); bursts > 0; --bursts) {
    requests(index, Random(random.next()));
    pass_time(Random(random.next()));
    poll();
  }
  const uint64_t first = random.below(blocks_ - 8);
  start_request(index, ++last_id_, RequestOp::kWrite, first, 8, false, false);
}

void Run::two_primaries(Random random) {
  if (!begin_two(random)) return;
  const bool wrote[2] = {random.chance(2, 3), random.chance(2, 3)};
  for (int i = 0; i < 2; ++i) {
    if (wrote[i]) write_alone(i, random);
  }
  if (lead_both(random)) judge_two(static_cast<int>(random.below(2)), wrote);
}

/// When it goes on it still is primary, and answers what it had in its hands.
void Run::overtake(Random random) {
  const bool begun = begin_overtake(random);
  const int first = is_.primary;
  const int other = 1 - first;
  bool wrote[2] = {random.chance(1, 2), random.chance(1, 2)};
  if (begun && wrote[other]) write_alone(other, random);
  if (begun && random.chance(1, 2)) pair_.loop.advance(random.below(30 * kSecond));
  thaw();
  if (!begun) return;
  in_hand_ = !wrote[first];
  if (wrote[first]) write_alone(first, random);
  wrote[first] = true;
  if (lead_both(random)) judge_two(static_cast<int>(random.below(2)), wrote);
}

bool Run::lead_both(Random& random) {
  if (!wait_until(&Run::answered, 100 * kSecond)) problem("requests are left unanswered");
  if (!outcome_.ok) return false;
  pair_.mend();
  pair_.loop.advance(random.below(4 * kSecond));
  for (int i = 0; i < 2; ++i) {
    if (!node(i).serving()) {
      problem("a primary gave up its role by itself");
    } else if (node(i).primary()->stats().complete) {
      problem("two primaries are connected");
    }
  }
  return outcome_.ok;
}

/// The operator demotes one of them. What was written on one side only is what counts.
void Run::judge_two(int demoted, const bool wrote[2]) {
  const int kept = 1 - demoted;
  note("node %d wrote: %d, node %d wrote: %d; node %d is demoted", kept, wrote[kept], demoted,
       wrote[demoted], demoted);
  node(demoted).become_init();
  poll();
  const bool both = wrote[0] && wrote[1];
  const int first = is_.primary;
  secondary(demoted);
  is_.primary = kept;
  is_.second_good = false;
  is_.lone = true;
  const bool healed = pair_.loop.run_until(
      [this, kept] {
        return says_split_brain(node(kept)) ||
               (stats().complete && stats().state == EngineState::kInSync);
      },
      100 * kSecond);
  const bool split = says_split_brain(node(kept));
  take_model(first, both ? (split ? kept : 1 - first) : (wrote[demoted] ? demoted : kept),
             both && !split);
  if (!healed) return problem("neither in sync nor split-brain: " + std::string(stats().reason));
  // What the first one had not flushed may be lost at the other, so its demotion counts as a write:
  // it says split-brain where nothing has diverged.
  const bool cautious = demoted == first_unflushed_ && wrote[kept];
  if (split && !cautious && !both) return problem("split-brain, but only one side wrote");
  // What the first one had in its hands when it was overtaken the other one may have, all of it.
  if (!split && both && !in_hand_) return problem("both wrote alone, and nobody says so");
  if (split) resolve_split(demoted);
}

/// `all`: also what the other one than `truth` had where this one has not written.
void Run::take_model(int first, int truth, bool all) {
  two_ = false;
  if (truth == first) return;
  second_.end_all_unknown();
  if (all) second_.take_untouched(model_, parted_at_);
  model_ = std::move(second_);
}

void Run::resolve_split(int demoted) {
  if (stats().complete) return problem("connected in spite of a split-brain");
  const bool discards = !pair_.options.original_peer && plan_.seed % 2 == 0;
  note("split-brain; node %d %s", demoted, discards ? "discards its own" : "is created anew");
  node(demoted).become_init();
  if (discards) {
    node(demoted).discard();
  } else {
    node(demoted).create();
  }
  secondary(demoted);
  node(1 - demoted).life()->host.events.clear();
}

}  // namespace hast::test
