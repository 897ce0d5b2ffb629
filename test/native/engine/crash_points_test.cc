// Short stories of two nodes, each told again and again: every time one node dies at another
// boundary of its disk (an operation is submitted; it has taken effect), in every manner. Then both
// come back, and what was promised must be there. docs/simulation.md, "Crash points".

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "engine/stories.h"

namespace hast::test {

namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kSector = 512;
constexpr uint64_t kNever = 0;

/// How a node dies. A power cut takes of the unflushed writes all, none, or some.
enum class Death : uint8_t { kCrash, kLoseAll, kKeepAll, kTorn, kSubset };

struct Cut {
  int node = 0;
  uint64_t boundary = kNever;
  Death death = Death::kCrash;
  uint64_t variant = 0;  // seed, or which writes are kept
  bool dead_one_leads = false;
  bool other_dies = false;  // later, as a process; the first one is asked to lead alone
};

/// What the operator may rely on when a node has died in the story.
struct Story {
  const char* name;
  Replication mode;
  void (*prepare)(class Tale&);
  void (*act)(class Tale&);
  bool alone = false;    ///< node a has no peer meanwhile: only its own copy counts
  int lacks = -1;        ///< this node's copy is incomplete or stale meanwhile, or may be so
  bool forced = false;   ///< node b writes, whatever node a has: that is given up in the end
  bool through = false;  ///< the whole copy stores every write before it is answered
};

/// One telling of a story, with one cut.
class Tale {
 public:
  Tale(const Story& story, Cut cut, PairOptions options)
      : pair(options), story_(story), cut_(cut) {}

  Pair pair;

  Node& a() { return pair.a(); }
  Node& b() { return pair.b(); }

  /// Nothing more is begun once a disk stands still.
  bool going() const { return !pair.frozen(); }
  template <typename Condition>
  void wait(Condition condition, uint64_t us = 60 * kSecond) {
    pair.loop.run_until([&] { return pair.frozen() || condition(); }, us);
  }
  void pass(uint64_t us) {
    wait([] { return false; }, us);
  }
  void write(Node& node, uint64_t at, uint64_t seed, bool fua = false) {
    change(node, RequestOp::kWrite, at, seed, fua);
  }
  void remove(Node& node, uint64_t at) { change(node, RequestOp::kDelete, at, 0, false); }
  void flush(Node& node) {
    if (!going() || !node.serving()) return;
    const std::size_t before = changes_.size();
    const Pair::Operation* flush = pair.begin(node, RequestOp::kFlush, 0, 0);
    wait([flush] { return flush->done; });
    if (!flush->done || flush->error != 0) return;
    for (std::size_t i = 0; i < before; ++i) changes_[i].durable = answered(changes_[i]);
  }

  /// Boundaries on either node.
  uint64_t count(int node) { return pair.node(node).disk().boundaries() - before_[node]; }
  void begin() {
    for (int node = 0; node < 2; ++node) before_[node] = pair.node(node).disk().boundaries();
    if (cut_.boundary == kNever) return;
    victim().disk().freeze_at(before_[cut_.node] + cut_.boundary);
  }
  /// Nothing of what was answered before is asked for.
  void forget() { changes_.clear(); }
  std::size_t kill();
  void recover();

 private:
  struct Change {
    Pair::Operation* operation;
    uint64_t at;
    std::vector<std::byte> bytes;
    bool durable = false;
  };

  Node& victim() { return pair.node(cut_.node); }
  static bool answered(const Change& change) {
    return change.operation->done && change.operation->error == 0;
  }
  void change(Node& node, RequestOp op, uint64_t at, uint64_t seed, bool fua) {
    if (!going() || !node.serving()) return;
    const auto bytes =
        op == RequestOp::kWrite ? pattern(seed, kBlock) : std::vector<std::byte>(kBlock);
    Pair::Operation* operation = pair.begin(node, op, at, kBlock, bytes, fua);
    changes_.push_back({operation, at, bytes});
    wait([operation] { return operation->done; });
    if (fua) changes_.back().durable = answered(changes_.back());
  }
  bool promised(const Change& change, const Node& leader) const;
  bool may_refuse(int node) const;
  bool holds_all(const Node& node) const;
  bool lead(Node& leader, bool force = false);
  void lead_alone();
  void check(Node& leader, ConstBytes data);
  void complain(const char* what);

  const Story& story_;
  Cut cut_;
  bool had_all_ = false;  // the dead node, of what was answered by then
  uint64_t before_[2] = {};
  std::vector<Change> changes_;
};

void Tale::complain(const char* what) {
  char text[200];
  std::snprintf(text, sizeof text, "%s: %s; node %d at %llu, death %d, variant %llu, %s leads",
                story_.name, what, cut_.node, static_cast<unsigned long long>(cut_.boundary),
                static_cast<int>(cut_.death), static_cast<unsigned long long>(cut_.variant),
                cut_.dead_one_leads ? "the dead one" : "the other one");
  fail(__FILE__, __LINE__, text);
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

/// How many writes might be lost or kept.
std::size_t Tale::kill() {
  Node& node = victim();
  const bool lose_all = cut_.death == Death::kLoseAll;
  if (cut_.death == Death::kSubset || lose_all || cut_.death == Death::kKeepAll) {
    node.disk().keep_at_cut(lose_all                        ? 0
                            : cut_.death == Death::kKeepAll ? ~uint64_t{0}
                                                            : cut_.variant);
  }
  const std::size_t open = node.life() != nullptr ? node.life()->disk->outstanding() : 0;
  const std::size_t uncertain = node.disk().unflushed_writes() + open;
  had_all_ = holds_all(node);
  if (cut_.death == Death::kCrash) {
    node.crash();
  } else {
    node.power_cut(cut_.variant);
  }
  node.disk().freeze_at(kNever);
  pair.loop.advance(kSecond / 10);
  return uncertain;
}

/// docs/simulation.md, "What the model grants".
bool Tale::promised(const Change& change, const Node& leader) const {
  if (!answered(change)) return false;
  const bool is_victim = &leader == &const_cast<Tale*>(this)->victim();
  const bool survivor_of_both = !story_.alone && story_.mode != Replication::kAsync;
  if (change.durable) return true;
  // The only whole copy has lost what it had not flushed.
  if (story_.lacks == 1 - cut_.node && cut_.death != Death::kCrash && !story_.through) return false;
  if (survivor_of_both && !story_.forced) return true;
  if (cut_.node == 1 && !story_.forced) return true;  // node a has it, and lives
  // Only the dead node's copy is certain to have had it.
  return is_victim && cut_.death == Death::kCrash;
}

/// Where a node need not lead: it was a secondary without power, or a copy was incomplete.
bool Tale::may_refuse(int node) const {
  if (story_.lacks == node) return true;
  return node == cut_.node && cut_.death != Death::kCrash;
}

bool Tale::lead(Node& leader, bool force) {
  if (!leader.serving()) leader.become_primary(force);
  pair.loop.run_until([&] { return leader.serving() || leader.role() == NodeRole::kInit; },
                      60 * kSecond);
  return leader.serving();
}

/// Each sector of what was changed has what was promised last, or something later.
void Tale::check(Node& leader, ConstBytes data) {
  for (const Change& first : changes_) {
    for (uint64_t at = 0; at < kBlock; at += kSector) {
      const ConstBytes now = data.subspan(first.at + at, kSector);
      bool good = true;  // as before the story: nothing was promised yet
      bool initial = true;
      for (const Change& change : changes_) {
        if (change.at != first.at) continue;
        const bool same = std::ranges::equal(now, ConstBytes(change.bytes).subspan(at, kSector));
        if (promised(change, leader)) {
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

/// The copy that lost power as a secondary, or was incomplete, and nobody is there to be asked: it
/// refuses, or has all that was answered.
void Tale::lead_alone() {
  Node& dead = victim();
  Node& other = pair.node(1 - cut_.node);
  other.crash();
  pair.cut(true);
  const bool incomplete = dead.extra().sync_target || dead.extra().local_stale;
  if (!lead(dead)) return;
  if (incomplete) complain("half a copy leads");
  if (had_all_) check(dead, dead.data());
  dead.become_init();
}

void Tale::recover() {
  const bool secondary = cut_.node == 1 && story_.mode == Replication::kFullsync;
  const bool alone = story_.alone && story_.lacks != 1;
  if (cut_.other_dies && secondary && !alone && !story_.forced && story_.lacks != 0) lead_alone();
  Node& dead = victim();
  Node& other = pair.node(1 - cut_.node);
  pair.mend();
  const bool given_up = story_.lacks == 0;
  int first = cut_.dead_one_leads ? cut_.node : 1 - cut_.node;
  if (given_up || story_.forced) first = 1;
  // Two new nodes that both begin an identity are not of one resource.
  if (story_.alone || pair.b().metadata().resuid == 0) first = 0;
  Node* leader = &pair.node(first);
  Node* follower = &pair.node(1 - first);
  if (given_up && other.serving()) {
    dead.become_secondary();  // so that it can be told
    pair.loop.advance(5 * kSecond);
  }
  if (!story_.alone && !leader->serving()) follower->become_secondary();
  bool led = lead(*leader, story_.forced && leader == &dead);
  if (!led) {
    if (!may_refuse(first)) complain("a good copy refuses to lead");
    leader->become_secondary();
    std::swap(leader, follower);
    led = lead(*leader);
  }
  if (!led) return complain("nobody leads");
  if (!story_.forced && follower->role() != NodeRole::kSecondary) follower->become_secondary();
  for (const Change& change : changes_) {
    std::vector<std::byte> back(kBlock);
    if (pair.read(*leader, change.at, back) != 0) return complain("a read fails");
  }
  if (story_.forced) {
    follower->become_init();
    follower->create();
  }
  if (follower->role() != NodeRole::kSecondary) follower->become_secondary();
  if (!pair.settle(*leader)) {
    return complain(said_split_brain(*leader) ? "a split-brain" : "does not come in sync");
  }
  check(*leader, leader->data());
  if (!pair.equal()) complain("the copies differ");
  if (dead.extra().sync_target || dead.extra().local_stale) complain("is still called incomplete");
}

PairOptions options_of(const Story& story) {
  PairOptions options;
  options.disk_bytes = 3 * kExtent + 8192;
  options.layout_hast = true;
  options.keepdirty = 1;
  options.replication = story.mode;
  return options;
}

/// Tells it without a cut: how many boundaries each node passes.
std::array<uint64_t, 2> measure(const Story& story) {
  Tale tale(story, {}, options_of(story));
  story.prepare(tale);
  tale.begin();
  story.act(tale);
  return {tale.count(0), tale.count(1)};
}

std::size_t tell(const Story& story, const Cut& cut) {
  Tale tale(story, cut, options_of(story));
  story.prepare(tale);
  tale.begin();
  story.act(tale);
  const std::size_t uncertain = tale.kill();
  tale.recover();
  return uncertain;
}

/// Every manner in which the disk of that node may be left at that boundary.
void tell_whole(const Story& story, Cut cut, uint64_t& cuts) {
  const auto die = [&](Death death, uint64_t variant) {
    cut.death = death;
    cut.variant = variant;
    cut.dead_one_leads = (cut.boundary / 2 + ++cuts) % 2 == 0;
    cut.other_dies = !cut.other_dies;
    return tell(story, cut);
  };
  die(Death::kCrash, 0);
  const std::size_t uncertain = die(Death::kLoseAll, 0);
  if (uncertain == 0) return;  // every power cut is the same
  die(Death::kKeepAll, 0);
  die(Death::kTorn, 3 + cut.boundary);
  const bool few = uncertain <= 3;
  const uint64_t subsets = few ? (1u << uncertain) - 1 : 3;
  for (uint64_t i = 1; i < subsets; ++i) {
    die(Death::kSubset, few ? i : Random(cut.boundary * 31 + i).next());
  }
}

/// One manner after the other, at neighbouring boundaries; in a short story two at each.
void tell_some(const Story& story, Cut cut, uint64_t times, uint64_t& cuts) {
  constexpr std::array kInTurn = {Death::kCrash, Death::kLoseAll, Death::kTorn,
                                  Death::kCrash, Death::kLoseAll, Death::kSubset};
  for (uint64_t i = 0; i < times; ++i) {
    const uint64_t turn = cut.boundary * times + i;
    cut.death = kInTurn[turn % kInTurn.size()];
    cut.variant = Random(turn).next();
    cut.dead_one_leads = turn / 2 % 2 == 0;
    cut.other_dies = turn % 4 < 2;
    tell(story, cut);
    ++cuts;
  }
}

void tell_all(const Story& story) {
  const char* const whole = std::getenv("HAST_TEST_CUTS");  // docs/simulation.md
  const std::array<uint64_t, 2> counts = measure(story);
  uint64_t cuts = 0;
  for (int node = 0; node < 2; ++node) {
    for (uint64_t at = 1; at <= counts[static_cast<std::size_t>(node)]; ++at) {
      Cut cut;
      cut.node = node;
      cut.boundary = at;
      if (whole != nullptr) {
        tell_whole(story, cut, cuts);
      } else {
        tell_some(story, cut, counts[0] + counts[1] > 40 ? 1 : 2, cuts);
      }
    }
  }
  if (whole != nullptr) {
    std::printf("%s: %llu boundaries on a, %llu on b, %llu cuts\n", story.name,
                static_cast<unsigned long long>(counts[0]),
                static_cast<unsigned long long>(counts[1]), static_cast<unsigned long long>(cuts));
  }
  CHECK(cuts > 0);
}

// --- how stories begin ---------------------------------------------------------------------------

/// Two new disks, of which one has something on it.
void new_disks(Tale& tale) { tale.a().disk().set(kExtent, pattern(9, kExtent)); }

void in_sync(Tale& tale) {
  tale.pair.connect();
  tale.write(tale.a(), 0, 1);
  tale.flush(tale.a());
  tale.pass(3 * kSecond);
}

void without_peer(Tale& tale) {
  in_sync(tale);
  tale.b().become_init();
  tale.pair.cut(true);
  tale.pass(kSecond / 10);
}

/// Node a has written alone, in two extents.
void lone_writes(Tale& tale) {
  without_peer(tale);
  tale.write(tale.a(), 8192, 2);
  tale.write(tale.a(), 2 * kExtent, 3);
  tale.flush(tale.a());
}

// --- what happens --------------------------------------------------------------------------------

void set_up(Tale& tale) {
  tale.b().become_secondary();
  tale.a().become_primary();
  tale.wait([&] { return tale.a().serving(); });
  tale.write(tale.a(), 8192, 5);
  tale.wait([&] { return tale.a().serving() && !tale.b().extra().sync_target; }, kSecond);
  tale.pass(kSecond / 100);
}

void write_twice(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.write(tale.a(), 8192, 6);
}

void write_new_extent(Tale& tale) {
  tale.write(tale.a(), kExtent + 4096, 5);
  tale.write(tale.a(), kExtent + 4096, 6);
}

void write_and_delete(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.remove(tale.a(), 8192);
}

void write_and_flush(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.flush(tale.a());
  tale.write(tale.a(), 8192, 6);
}

void write_durably(Tale& tale) {
  tale.write(tale.a(), 8192, 5, /*fua=*/true);
  tale.write(tale.a(), 8192, 6, /*fua=*/true);
}

/// Extents leave keepdirty, and the map is stored without them later.
void write_around(Tale& tale) {
  for (uint64_t extent = 0; extent < 3; ++extent)
    tale.write(tale.a(), extent * kExtent, 5 + extent);
  tale.flush(tale.a());
  tale.pass(2 * kSecond);
  tale.write(tale.a(), 0, 9);
}

void meet_again(Tale& tale) {
  tale.pair.mend();
  tale.b().become_secondary();
  tale.a().primary()->kick();
  tale.wait([&] { return tale.a().metadata().localcnt == 0 && !tale.b().extra().sync_target; });
  tale.pass(kSecond / 100);
  tale.write(tale.a(), 8192, 5);
}

void change_roles(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.a().become_secondary();
  if (tale.going()) tale.b().become_primary();
  tale.wait([&] { return tale.b().serving(); });
  tale.write(tale.b(), 8192, 6);
}

/// Node a was away while node b wrote; it is made primary and copies from there.
void be_repaired(Tale& tale) {
  if (tale.going()) tale.a().become_secondary();
  if (tale.going()) tale.b().become_primary();
  tale.wait([&] { return tale.b().serving(); });
  tale.write(tale.b(), kExtent, 5);
  tale.wait([&] { return tale.b().serving() && tale.b().primary()->stats().dirty_bytes == 0; },
            kSecond);
  tale.write(tale.b(), kExtent + 8192, 6);
}

void peer_fails(Tale& tale) {
  tale.b().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, 2 * kExtent, kExtent});
  tale.write(tale.a(), 2 * kExtent, 5);
  tale.pass(2 * kSecond);  // it is repaired
}

void give_up_disk(Tale& tale) {
  tale.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, kExtent, 2 * kExtent});
  tale.write(tale.a(), kExtent + 8192, 5);
  tale.write(tale.a(), kExtent + 8192, 6);
  tale.flush(tale.a());
}

/// Node a dies in the middle of a pass, and node b is forced to lead.
void half_a_copy(Tale& tale) {
  lone_writes(tale);
  tale.pair.mend();
  tale.b().become_secondary();
  tale.wait([&] { return tale.b().extra().sync_target; });
  tale.a().crash();
  tale.b().become_init();
  tale.forget();
}

void force(Tale& tale) {
  tale.b().become_primary(/*force=*/true);
  tale.wait([&] { return tale.b().serving(); });
  tale.write(tale.b(), 4096, 5);
  tale.flush(tale.b());
}

constexpr Replication kFull = Replication::kFullsync;
constexpr Replication kMem = Replication::kMemsync;
constexpr Replication kAsy = Replication::kAsync;

}  // namespace

TEST(crash_points, "the first set-up of two new nodes") {
  tell_all({.name = "set-up", .mode = kFull, .prepare = new_disks, .act = set_up, .lacks = 1});
}
TEST(crash_points, "writes in fullsync") {
  tell_all({.name = "fullsync", .mode = kFull, .prepare = in_sync, .act = write_twice});
}
TEST(crash_points, "writes in memsync") {
  tell_all({.name = "memsync", .mode = kMem, .prepare = in_sync, .act = write_twice});
}
TEST(crash_points, "writes in async") {
  tell_all({.name = "async", .mode = kAsy, .prepare = in_sync, .act = write_twice});
}
TEST(crash_points, "lone writes: the counter and the map") {
  tell_all({.name = "lone",
            .mode = kFull,
            .prepare = without_peer,
            .act = write_new_extent,
            .alone = true});
}
TEST(crash_points, "a write that turns an extent dirty") {
  tell_all({.name = "new extent", .mode = kFull, .prepare = in_sync, .act = write_new_extent});
}
TEST(crash_points, "a delete") {
  tell_all({.name = "delete", .mode = kFull, .prepare = in_sync, .act = write_and_delete});
}
TEST(crash_points, "a flush, in async") {
  tell_all({.name = "flush", .mode = kAsy, .prepare = in_sync, .act = write_and_flush});
}
TEST(crash_points, "durable writes, in async") {
  tell_all({.name = "FUA", .mode = kAsy, .prepare = in_sync, .act = write_durably});
}
TEST(crash_points, "extents that leave the map") {
  tell_all({.name = "keepdirty", .mode = kFull, .prepare = in_sync, .act = write_around});
}
TEST(crash_points, "a pass from its handshake to its end") {
  tell_all({.name = "pass",
            .mode = kFull,
            .prepare = lone_writes,
            .act = meet_again,
            .alone = true,
            .lacks = 1});
}
TEST(crash_points, "a change of roles") {
  tell_all({.name = "roles", .mode = kFull, .prepare = in_sync, .act = change_roles});
}
TEST(crash_points, "a primary that is repaired by its secondary") {
  tell_all({.name = "repair",
            .mode = kFull,
            .prepare =
                [](Tale& tale) {
                  lone_writes(tale);
                  tale.pair.mend();
                  tale.a().become_init();
                },
            .act = be_repaired,
            .lacks = 1,
            .through = true});
}
TEST(crash_points, "a write that the secondary's disk fails") {
  tell_all(
      {.name = "peer fails", .mode = kFull, .prepare = in_sync, .act = peer_fails, .lacks = 1});
}
TEST(crash_points, "a disk that is given up") {
  tell_all(
      {.name = "given up", .mode = kFull, .prepare = in_sync, .act = give_up_disk, .lacks = 0});
}
TEST(crash_points, "a forced promotion") {
  tell_all({.name = "force", .mode = kFull, .prepare = half_a_copy, .act = force, .forced = true});
}

}  // namespace hast::test
