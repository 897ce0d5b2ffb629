// Two primaries behind a cut link. When both have written alone, that must be said, and not
// otherwise.

#include <algorithm>

#include "sim/run.h"

namespace hast::test {

namespace {
constexpr uint64_t kSecond = 1000000;

bool says_split_brain(Node& node) {
  const std::vector<EventName>& events = node.life()->host.events;
  return std::find(events.begin(), events.end(), EventName::kSplitBrain) != events.end();
}
}  // namespace

/// Both in sync and quiet, the link cut, and the second one primary, too.
bool Run::begin_two(Random& random) {
  thaw();
  if (!serving() || is_.lost[0] || is_.lost[1] || is_.sick[0] || is_.sick[1]) return false;
  const int other = 1 - is_.primary;
  if (!is_.up[other] || !network_whole() || !wait_until(&Run::answered, 20 * kSecond)) return false;
  if (!outcome_.ok || !pair_.settle(node(is_.primary), 60 * kSecond)) return false;
  const bool flushed = random.chance(1, 2);
  if (flushed) pair_.loop.advance(8 * kSecond);
  poll();
  if (!is_.second_good || !is_.first_good || is_.lone) return false;
  note("the link breaks, and node %d becomes primary, too", other);
  ++outcome_.faults;
  pair_.cut(true);
  pair_.loop.advance(random.below(5 * kSecond));
  second_ = model_;
  const int first = is_.primary;
  first_unflushed_ = flushed ? -1 : first;
  const bool promoted = promote(other);
  is_.primary = first;
  two_ = promoted;
  return promoted;
}

void Run::two_primaries(Random random) {
  if (!begin_two(random)) return;
  bool wrote[2] = {random.chance(2, 3), random.chance(2, 3)};
  for (int i = 0; i < 2; ++i) {
    if (!wrote[i]) continue;
    for (uint64_t bursts = random.between(0, 4); bursts > 0; --bursts) {
      requests(i, Random(random.next()));
      pass_time(Random(random.next()));
      poll();
    }
    const uint64_t first = random.below(blocks_ - 8);
    start_request(i, ++last_id_, RequestOp::kWrite, first, 8, false, false);
  }
  if (!wait_until(&Run::answered, 100 * kSecond)) problem("requests are left unanswered");
  if (!outcome_.ok) return;
  pair_.mend();
  pair_.loop.advance(random.below(4 * kSecond));
  for (int i = 0; i < 2; ++i) {
    if (!node(i).serving()) return problem("a primary gave up its role by itself");
    if (node(i).primary()->stats().complete) return problem("two primaries are connected");
  }
  judge_two(static_cast<int>(random.below(2)), wrote);
}

/// The operator demotes one of them. What was written on one side only is what counts.
void Run::judge_two(int demoted, const bool wrote[2]) {
  const int kept = 1 - demoted;
  note("node %d wrote: %d, node %d wrote: %d; node %d is demoted", kept, wrote[kept], demoted,
       wrote[demoted], demoted);
  node(demoted).become_init();
  poll();
  BlockModel& truth = model_of(wrote[demoted] && !wrote[kept] ? demoted : kept);
  BlockModel chosen = truth;
  secondary(demoted);
  is_.primary = kept;
  two_ = false;
  model_ = std::move(chosen);
  is_.second_good = false;
  is_.lone = true;
  const bool healed = pair_.loop.run_until(
      [this, kept] {
        return says_split_brain(node(kept)) ||
               (stats().complete && stats().state == EngineState::kInSync);
      },
      100 * kSecond);
  const bool split = says_split_brain(node(kept));
  if (!healed) return problem("neither in sync nor split-brain: " + std::string(stats().reason));
  // What the first one had not flushed may be lost at the other, so its demotion counts as a write:
  // it says split-brain where nothing has diverged.
  const bool cautious = demoted == first_unflushed_ && wrote[kept];
  if (split && !cautious && !(wrote[0] && wrote[1])) {
    return problem("split-brain, but only one side wrote");
  }
  if (!split && wrote[0] && wrote[1]) return problem("both wrote alone, and nobody says so");
  if (split) resolve_split(demoted);
}

void Run::resolve_split(int demoted) {
  if (stats().complete) return problem("connected in spite of a split-brain");
  note("split-brain; node %d is created anew", demoted);
  node(demoted).become_init();
  node(demoted).create();
  secondary(demoted);
  node(1 - demoted).life()->host.events.clear();
}

}  // namespace hast::test
