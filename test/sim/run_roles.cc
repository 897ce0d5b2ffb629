// Who lives, and who serves.

#include "sim/checkers.h"
#include "sim/run.h"

namespace hast::test {

namespace {
constexpr uint64_t kSecond = 1000000;
}  // namespace

/// Takes the role; false when it was refused.
bool Run::promote(int index, bool may_refuse, bool by_force) {
  Node& chosen = node(index);
  // Beside an original nobody says when a pass has ended, until the next handshake: the operator
  // has to know.
  const bool force =
      by_force || (pair_.options.original_peer && !may_refuse && chosen.extra().sync_target);
  note("promote node %d%s", index, force ? " by force" : "");
  is_.sick[index] = false;
  chosen.become_primary(force);
  is_.up[index] = true;
  is_.primary = index;
  is_.ends_wanted = 0;
  Life* const life = chosen.life();
  pair_.loop.run_until([life] { return life->started; }, 200 * kSecond);
  if (!life->started) {
    problem("a start as primary never ends");
    return false;
  }
  if (life->serving) return true;
  note("refused: %s", life->failure.text);
  pair_.loop.run_until([life] { return life->ended; }, 200 * kSecond);
  is_.primary = -1;
  const Extra extra = chosen.extra();
  if (!may_refuse || !(extra.sync_target || extra.local_stale || is_.fell[index])) {
    problem(std::string("a start as primary was refused: ") + life->failure.text);
  }
  return false;
}

void Run::secondary(int index) {
  note("node %d is secondary", index);
  is_.sick[index] = false;
  node(index).become_secondary();
  is_.up[index] = true;
}

void Run::kill(int index, bool power, bool silently, uint64_t seed) {
  note("node %d %s%s", index, power ? "loses power" : "dies", silently ? " silently" : "");
  if (power) {
    node(index).power_cut(seed, silently);
  } else {
    node(index).crash();
  }
  ++outcome_.faults;
  if (power && index != is_.primary) is_.fell[index] = true;
  is_.up[index] = false;
}

/// The primary's process or machine dies; then the other takes over if it has all, or it comes back
/// itself.
void Run::lose_primary(Random random, bool both) {
  if (!serving()) return;
  const int dead = is_.primary;
  const int other = 1 - dead;
  poll();
  // Its disk, the link and now itself: three failures at once.
  if (is_.sick[dead] && (!is_.second_good || is_.lone || !network_whole())) return;
  const EngineStats now = stats();
  const bool in_sync = now.complete && now.state == EngineState::kInSync;
  const bool has_all = is_.up[other] && !is_.sick[other] && !is_.lost[other] && !is_.lone &&
                       is_.second_good && (in_sync || !now.complete || !is_.first_good);
  const bool was_stale = !is_.first_good;
  const bool was_up = is_.up[other];
  // An original does not say that it has lost power, and its peer would not hear it.
  const bool peer_has_it =
      has_all && !is_.was_async && !both && !is_.fell[other] && !pair_.options.original_peer;
  // What a disk that went astray would give back is no repair: that were two failures.
  bool power = random.chance(1, 2) && !is_.lost[other] && !is_.fragile[dead];
  kill(dead, power, random.chance(1, 2), random.next());
  is_.cut[dead] = is_.cut[dead] || power;
  is_.primary = -1;
  if (both && was_up && !is_.sick[dead]) {
    const bool power_too = random.chance(1, 2) && !is_.fragile[other];
    kill(other, power_too, false, random.next());
    power = power || power_too;
  }
  poll();
  const std::string uncovered =
      is_.lost[0] || is_.lost[1] ? std::string() : uncovered_difference(pair_);
  if (!uncovered.empty()) return problem("after a crash " + uncovered);
  if (has_all && (was_stale || random.chance(2, 3))) {
    // What memsync's peer had received and not stored goes with its process.
    if (is_.was_async || (both && (power || is_.was_loose))) model_.forget_unflushed();
    // Between the loss of a connection and the end of the pass on the next one it refuses.
    // So it does when it has lost power itself: what it had not flushed may be missing.
    if (promote(other, !in_sync || is_.fell[other])) {
      is_.first_good = true;
      is_.second_good = false;
    }
    if (is_.primary >= 0 || !outcome_.ok) return;
    secondary(other);
    return come_back(random, dead, power, was_stale, peer_has_it);
  }
  // Half a copy must not be served: ours refuse it.
  const bool half = !pair_.options.original_peer && now.complete && was_up && !both &&
                    !is_.lost[other] && !is_.sick[other] && !is_.second_good && !is_.lone &&
                    !is_blank(other);
  if (half && random.chance(1, 2) && take_over_refused(random, other)) return;
  if (outcome_.ok) come_back(random, dead, power, was_stale, peer_has_it);
}

/// True when the other one serves although it may lack something: then it must have all.
bool Run::take_over_refused(Random&, int other) {
  // What async promises: all that the peer had received.
  if (is_.was_async) model_.forget_unflushed();
  if (promote(other, true)) {
    note("node %d took over although it may lack something", other);
    is_.first_good = true;
    return true;
  }
  if (outcome_.ok) secondary(other);
  return false;
}

/// `peer_has_it`: all that was acknowledged, though perhaps not flushed.
void Run::come_back(Random& random, int dead, bool power, bool was_stale, bool peer_has_it) {
  const int other = 1 - dead;
  if (random.chance(1, 2)) mend();
  // Half a copy is not served here either: then the other one has the good data.
  const Extra extra = node(dead).extra();
  const bool half = was_stale || extra.sync_target || extra.local_stale || is_.fell[dead] ||
                    (power && is_.cut[dead]);
  if (half) {
    mend();
    if (!is_.up[other]) secondary(other);
    is_.may_fail = true;
  }
  if (power) is_.may_fail = true;  // it may need the peer for what it had not flushed
  is_.second_good = false;
  const bool serves = promote(dead, half);
  // The peer gives back what the power cut took, if it is there to be asked.
  const bool given_back = peer_has_it && (!serves || stats().complete);
  if (power && !given_back) model_.forget_unflushed();
  if (serves || !outcome_.ok) return;
  secondary(dead);
  // Both have lost power since they were in sync: then neither may be whole, and the operator
  // decides.
  const auto fell = [this](int i) { return is_.cut[i] || is_.fell[i]; };
  const bool decides = fell(0) && fell(1);
  if (!promote(other, decides) && decides && outcome_.ok && promote(other, false, true)) {
    model_.take_as_is(node(other).data(), node(other).durable_data());
    node(dead).become_init();
    node(dead).replace_disk();
    is_.fragile[dead] = false;
    is_.up[dead] = false;
    is_.lone = true;
  }
  is_.first_good = true;
  is_.second_good = false;
}

void Run::lose_secondary(Random random) {
  const int other = 1 - is_.primary;
  if (is_.primary < 0 || !is_.up[other]) return;
  poll();
  const bool power = random.chance(1, 2) && !is_.fragile[other];
  if (power && !is_.first_good) return;  // the only good copy: not promised
  // With a failing disk at the primary this would be the second failure at once.
  if (is_.sick[is_.primary]) return;
  if (serving() && !pending_.empty()) is_.lone = true;
  doubt_second();
  // It has the only complete copy while the primary is being repaired from it.
  const bool is_source = serving() && stats().sync_source == 2;
  if (power && (is_source || node(is_.primary).extra().sync_target)) model_.forget_unflushed();
  kill(other, power, random.chance(1, 2), random.next());
}

void Run::switch_over() {
  thaw();
  if (!serving()) return;
  const int old = is_.primary;
  const int other = 1 - old;
  if (!is_.up[other] || is_.lost[other] || !network_whole() || is_blank(other)) return;
  // Not in the middle of a repair after a disk has failed; and an original cannot refuse.
  const bool unsure = is_.sick[0] || is_.sick[1] || pair_.options.original_peer;
  if (unsure && !is_.second_good && is_.first_good) return;
  note("planned switch from node %d", old);
  is_.may_fail = true;  // requests may wait in vain for the peer with the newer data
  const bool was_lone = is_.lone;
  const bool was_sick = is_.sick[other];
  node(old).become_init();
  poll();
  for (const Pending& p : pending_) {
    if (!p.operation->done) problem("a request was left over by a demotion");
  }
  secondary(old);
  const bool stale = !is_.first_good;
  // A former primary that lost power, and that nobody has repaired since: with equal counters it
  // counts as good, as it does when it serves again itself.
  if (is_.cut[other]) model_.forget_unflushed();
  if (!promote(other, was_lone || !is_.second_good || was_sick || is_.fell[other])) {
    if (!outcome_.ok) return;
    secondary(other);
    promote(old);
    return;
  }
  if (stale) is_.first_good = true;
  is_.second_good = false;
}

/// The operator takes what the other node has, whatever that is: it is what counts from then on.
void Run::force_take_over(Random random) {
  if (!serving()) return;
  const int dead = is_.primary;
  const int other = 1 - dead;
  if (!is_.up[other] || is_.lost[other] || is_blank(other)) return;
  kill(dead, random.chance(1, 2) && !is_.fragile[dead], false, random.next());
  is_.primary = -1;
  poll();
  is_.fragile[other] = is_.fragile[other] || node(other).extra().local_stale;
  if (!promote(other, false, true)) return;
  model_.take_as_is(node(other).data(), node(other).durable_data());
  node(dead).replace_disk();
  is_.lost[dead] = is_.fragile[dead] = is_.cut[dead] = is_.cut[other] = false;
  is_.first_good = true;
  is_.second_good = false;
  is_.lone = true;
}

}  // namespace hast::test
