#include "engine/crash_tale.h"

#include <cstdio>
#include <string>

namespace hast::test {

namespace {
constexpr uint64_t kBlock = 4096;
constexpr uint64_t kSector = 512;
}  // namespace

PairOptions options_of(const Story& story) {
  PairOptions options;
  options.disk_bytes = 3 * kExtent + 8192;
  options.layout_hast = true;
  options.keepdirty = 1;
  options.replication = story.mode;
  return options;
}

// --- to tell it ----------------------------------------------------------------------------------

void Tale::change(Node& node, RequestOp op, uint64_t at, uint64_t seed, bool fua) {
  if (!going() || !node.serving()) return;
  const auto bytes =
      op == RequestOp::kWrite ? pattern(seed, kBlock) : std::vector<std::byte>(kBlock);
  Pair::Operation* operation = pair.begin(node, op, at, kBlock, bytes, fua);
  changes_.push_back({operation, at, bytes});
  wait([operation] { return operation->done; });
  // Until the pass has ended: docs/architecture.md, "Connecting".
  const bool stored_through = story_.through && node.extra().sync_target;
  if (fua || stored_through) changes_.back().durable = answered(changes_.back());
}

void Tale::flush(Node& node) {
  if (!going() || !node.serving()) return;
  const std::size_t before = changes_.size();
  const Pair::Operation* flush = pair.begin(node, RequestOp::kFlush, 0, 0);
  wait([flush] { return flush->done; });
  if (!flush->done || flush->error != 0) return;
  for (std::size_t i = 0; i < before; ++i) changes_[i].durable = answered(changes_[i]);
}

// --- to cut it -----------------------------------------------------------------------------------

void Tale::tell() {
  story_.prepare(*this);
  for (int node = 0; node < 2; ++node) before_[node] = pair.node(node).disk().boundaries();
  if (cut_.boundary != Cut::kNever) {
    pair.node(cut_.node).disk().freeze_at(before_[cut_.node] + cut_.boundary);
  }
  story_.act(*this);
}

std::size_t Tale::kill() {
  Node& node = pair.node(cut_.node);
  const std::size_t open = node.life() != nullptr ? node.life()->disk->outstanding() : 0;
  const std::size_t uncertain = node.disk().unflushed_writes() + open;
  b_had_all_ = holds_all(b());
  for (int dying = 0; dying < 2; ++dying) die(dying);
  node.disk().freeze_at(Cut::kNever);
  pair.loop.advance(kSecond / 10);
  return uncertain;
}

void Tale::die(int index) {
  Node& node = pair.node(index);
  const End& end = cut_.ends[index];
  followed_[index] = node.metadata().prevrole == Role::kSecondary;
  if (end.death == Death::kLives) return;
  if (end.death == Death::kCrash) return node.crash();
  if (end.death == Death::kLoseAll) node.disk().keep_at_cut(0);
  if (end.death == Death::kKeepAll) node.disk().keep_at_cut(~uint64_t{0});
  if (end.death == Death::kSubset) node.disk().keep_at_cut(end.variant);
  node.power_cut(end.variant);
}

/// All was answered, nothing is under way, and this node has it.
bool Tale::holds_all(const Node& node) const {
  for (const Change& change : changes_) {
    if (!answered(change)) return false;
    const Change* last = &change;
    for (const Change& later : changes_) last = later.at == change.at ? &later : last;
    if (!has(node, last->at, last->bytes)) return false;
  }
  return true;
}

// --- what was promised ---------------------------------------------------------------------------

/// An older version knows no memsync, and the primary waits for more.
Replication Tale::mode() const {
  const bool older = beside_original() && pair.options.version < 2;
  return older && story_.mode == Replication::kMemsync ? Replication::kFullsync : story_.mode;
}

/// docs/simulation.md, "What the model grants". What was flushed is there whatever happens; the
/// rest if a copy that has it was not cut off from its power, and is the one that counts.
bool Tale::promised(const Change& change, int leader) const {
  if (!answered(change)) return false;
  if (change.durable) return true;
  // Neither tells an original that it has lost power, so that nobody gives back the rest
  // (docs/reconnect.md, "What a pair with an original cannot prevent"); unless the other one lives
  // and was the primary: its demotion, a FLUSH without the peer, makes its copy the newer one.
  const bool counts = lives(1 - leader) && !followed_[1 - leader];
  if (beside_original() && lost_power(leader) && !counts) return false;
  if (story_.forced) return leader == 1 && !lost_power(1);
  if (story_.alone) return !lost_power(0);
  // The only whole copy.
  if (story_.lacks >= 0 && !story_.through) return !lost_power(1 - story_.lacks);
  if (mode() == Replication::kFullsync) return !lost_power(0) || !lost_power(1);
  // In memsync the peer stores what it has received, unless its process goes, too.
  if (mode() == Replication::kMemsync && (lives(0) || lives(1))) return true;
  // Node a has it. Node b lets its own copy count, unless it has lost power and asks for the rest,
  // or node a lives and is demoted in good order.
  return !lost_power(0) && (leader == 0 || lives(0) || lost_power(1));
}

/// Each sector of what was changed has what was promised last, or something later. `all`: what was
/// answered was promised, whatever has happened.
void Tale::check(int leader, bool all) {
  const ConstBytes data = pair.node(leader).data();
  for (const Change& first : changes_) {
    for (uint64_t at = 0; at < kBlock; at += kSector) {
      const ConstBytes now = data.subspan(first.at + at, kSector);
      bool good = true;  // as before the story: nothing was promised yet
      bool initial = true;
      for (const Change& change : changes_) {
        if (change.at != first.at) continue;
        const bool same = std::ranges::equal(now, ConstBytes(change.bytes).subspan(at, kSector));
        if (all ? answered(change) : promised(change, leader)) {
          good = same;
          initial = false;
        } else {
          good = good || same;
        }
      }
      if (initial) continue;
      if (!good) return complain("an answered change is not there");
    }
  }
}

// --- both come back ------------------------------------------------------------------------------

bool Tale::lead(Node& leader, bool force) {
  if (!leader.serving()) leader.become_primary(force);
  pair.loop.run_until([&] { return leader.serving() || leader.role() == NodeRole::kInit; },
                      60 * kSecond);
  return leader.serving();
}

/// Node b, that lost power as a secondary, or was incomplete, and nobody is there to be asked: it
/// refuses, or has all that was answered.
void Tale::lead_alone() {
  if (lives(0)) {
    cut_.ends[0].death = Death::kCrash;
    a().crash();
  }
  pair.cut(true);
  const bool incomplete = b().extra().sync_target || b().extra().local_stale;
  if (!lead(b())) return;
  if (incomplete) complain("half a copy leads");
  // A primary that has lost power serves what it has.
  if (b_had_all_) check(1, followed_[1] || !lost_power(1));
  b().become_init();
}

int Tale::first_leader() {
  // Two new nodes that both begin an identity are not of one resource.
  if (story_.alone || b().metadata().resuid == 0) return 0;
  if (story_.lacks == 0 || story_.forced) return 1;
  return cut_.its_node_leads ? cut_.node : 1 - cut_.node;
}

void Tale::recover() {
  const bool a_alone = story_.alone && story_.lacks != 1;
  const bool full = story_.mode == Replication::kFullsync;
  const bool ask_b = cut_.asks_b_alone && !lives(1);
  if (ask_b && full && !a_alone && !story_.forced && story_.lacks != 0) lead_alone();
  pair.mend();
  if (story_.lacks == 0 && a().serving()) {
    b().become_secondary();  // so that it can be told
    pair.loop.advance(5 * kSecond);
  }
  Node* const leader = &pair.node(first_leader());
  Node* const follower = leader == &a() ? &b() : &a();
  if (!story_.alone && !leader->serving()) follower->become_secondary();
  // Also a copy that is incomplete, or that lost power as a secondary: its peer is there.
  if (!lead(*leader, story_.forced && !lives(1))) return complain("refuses to lead");
  if (story_.forced) {
    read_all(*leader);  // while nobody else has it
    follower->become_init();
    follower->create();
  }
  if (follower->role() != NodeRole::kSecondary) follower->become_secondary();
  if (!story_.forced) read_all(*leader);
  come_in_sync(*leader);
}

void Tale::read_all(Node& leader) {
  for (const Change& change : changes_) {
    std::vector<std::byte> back(kBlock);
    if (pair.read(leader, change.at, back) != 0) return complain("a read fails");
  }
}

void Tale::come_in_sync(Node& leader) {
  if (!pair.settle(leader)) {
    return complain(said_split_brain(leader) ? "a split-brain" : "does not come in sync");
  }
  check(&leader == &a() ? 0 : 1, /*all=*/false);
  if (!pair.equal()) complain("the copies differ");
  if (beside_original()) meet_once_more(leader);
  for (int node = 0; node < 2; ++node) {
    const Extra extra = pair.node(node).extra();
    if (extra.sync_target || extra.local_stale) complain("is still called incomplete");
  }
}

/// That a pass has ended an original tells by the counters of the next handshake; that a stale copy
/// is whole again, never: it gets `create`, as the log says.
void Tale::meet_once_more(Node& leader) {
  Node& follower = &leader == &a() ? b() : a();
  if (follower.extra().local_stale) {
    follower.become_init();
    follower.create();
    follower.become_secondary();
    pair.settle(leader);
  }
  pair.cut();
  pair.loop.advance(kSecond / 10);
  if (!pair.settle(leader) || !pair.equal()) complain("does not come in sync again");
}

void Tale::complain(const char* what) const {
  char text[240];
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::snprintf(
      text, sizeof text, "%s%s %d: %s; cut at %llu of node %d; deaths %d %llu, %d %llu; %s leads%s",
      story_.name, beside_original() ? ", beside an original of version" : ", version",
      pair.options.version, what, number(cut_.boundary), cut_.node,
      static_cast<int>(cut_.ends[0].death), number(cut_.ends[0].variant),
      static_cast<int>(cut_.ends[1].death), number(cut_.ends[1].variant),
      cut_.its_node_leads ? "it" : "the other one", cut_.asks_b_alone ? ", b asked alone" : "");
  fail(__FILE__, __LINE__, text);
}

}  // namespace hast::test
