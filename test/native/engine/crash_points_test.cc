// Short stories of two nodes, each told again and again: every time one node dies at another
// boundary of its disk (an operation is submitted; it has taken effect), in every manner; then both
// do at that moment; then the same beside an original. docs/simulation.md, "Crash points".

#include <cstdio>
#include <cstdlib>
#include <span>

#include "engine/crash_stories.h"

namespace hast::test {

namespace {

/// Who dies, and of what kind the nodes are.
struct Way {
  const char* name;
  bool both = false;
  bool original = false;
  uint8_t version = 2;
  uint64_t share = 0;  ///< of the boundaries in the short form: those beside originals share them
};

constexpr std::array kWays = {
    Way{.name = "one dies"},
    Way{.name = "both die", .both = true},
    Way{.name = "beside version 2", .original = true},
    Way{.name = "beside version 1", .original = true, .version = 1, .share = 1},
    Way{.name = "beside version 0", .original = true, .version = 0, .share = 2},
    Way{.name = "both die, beside version 2", .both = true, .original = true, .share = 3},
};
constexpr uint64_t kSharesOfOriginals = 4;

/// A story told one way.
class Cutter {
 public:
  Cutter(const Story& story, const Way& way)
      : story_(story), way_(way), options_(options_of(story)) {
    options_.original_peer = way.original;
    options_.version = way.version;
  }

  uint64_t boundaries(int node) const { return boundaries_[node]; }
  uint64_t cuts() const { return cuts_; }

  /// Tells it without a cut: how many boundaries each node passes.
  void measure() {
    Tale tale(story_, {}, options_);
    tale.tell();
    for (int node = 0; node < 2; ++node) boundaries_[node] = tale.count(node);
  }
  void cut_whole();
  void cut_some();

 private:
  void cut_whole_at(Cut cut);
  uint64_t times_at(int node, uint64_t boundary) const;
  Cut cut_in_turn(int node, uint64_t boundary) const;
  std::size_t tell(const Cut& cut) {
    Tale tale(story_, cut, options_);
    tale.tell();
    const std::size_t uncertain = tale.kill();
    tale.recover();
    ++cuts_;
    return uncertain;
  }

  const Story& story_;
  const Way& way_;
  PairOptions options_;
  std::array<uint64_t, 2> boundaries_ = {};
  uint64_t cuts_ = 0;
};

constexpr std::array kOtherLives = {Death::kLives};
/// What the other node loses that dies at the same moment: what it was doing, all or little.
constexpr std::array kOtherDies = {Death::kCrash, Death::kLoseAll, Death::kKeepAll};

/// Every manner in which the disk of that node may be left at that boundary.
void Cutter::cut_whole_at(Cut cut) {
  const auto others = way_.both ? std::span<const Death>(kOtherDies) : kOtherLives;
  const auto die = [&](Death death, uint64_t variant) {
    cut.ends[cut.node] = {death, variant};
    std::size_t uncertain = 0;
    for (const Death other : others) {
      cut.ends[1 - cut.node].death = other;
      cut.its_node_leads = (cut.boundary / 2 + cuts_) % 2 != 0;
      cut.asks_b_alone = cuts_ / 2 % 2 != 0;
      uncertain = tell(cut);
    }
    return uncertain;
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

void Cutter::cut_whole() {
  for (int node = 0; node < 2; ++node) {
    for (uint64_t at = 1; at <= boundaries(node); ++at) {
      cut_whole_at({.node = node, .boundary = at});
    }
  }
  std::printf("%s, %s: %llu boundaries on a, %llu on b, %llu cuts\n", story_.name, way_.name,
              static_cast<unsigned long long>(boundaries(0)),
              static_cast<unsigned long long>(boundaries(1)),
              static_cast<unsigned long long>(cuts_));
}

/// How often the short form cuts there. Of the ways beside the first one, in a long story, only
/// every third boundary.
uint64_t Cutter::times_at(int node, uint64_t boundary) const {
  const bool is_long = boundaries(0) + boundaries(1) > 40;
  if (!way_.both && !way_.original) return is_long ? 1 : 2;
  const uint64_t place = boundary + static_cast<uint64_t>(node);
  if (is_long && place % 3 != 0) return 0;
  if (!way_.original) return 1;
  return (is_long ? place / 3 : place) % kSharesOfOriginals == way_.share ? 1 : 0;
}

/// One manner after the other.
Cut Cutter::cut_in_turn(int node, uint64_t boundary) const {
  constexpr std::array kInTurn = {Death::kCrash, Death::kLoseAll, Death::kTorn,
                                  Death::kCrash, Death::kLoseAll, Death::kSubset};
  const uint64_t turn = cuts_ + way_.share;
  Cut cut{.node = node, .boundary = boundary};
  cut.ends[node] = {kInTurn[turn % kInTurn.size()], Random(turn).next()};
  if (way_.both) {
    cut.ends[1 - node].death = kOtherDies[(turn + turn / kInTurn.size()) % kOtherDies.size()];
  }
  cut.its_node_leads = turn / 2 % 2 == 0;
  cut.asks_b_alone = turn / 3 % 2 == 0;
  return cut;
}

void Cutter::cut_some() {
  for (int node = 0; node < 2; ++node) {
    for (uint64_t at = 1; at <= boundaries(node); ++at) {
      const uint64_t times = times_at(node, at);
      for (uint64_t i = 0; i < times; ++i) tell(cut_in_turn(node, at));
    }
  }
}

void tell_all(const Story& story) {
  uint64_t cuts = 0;
  for (const Way& way : kWays) {
    Cutter cutter(story, way);
    cutter.measure();
    if (std::getenv("HAST_TEST_CUTS") != nullptr) {  // docs/simulation.md
      cutter.cut_whole();
    } else {
      cutter.cut_some();
    }
    cuts += cutter.cuts();
  }
  CHECK(cuts > 0);
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
