// `hastctl discard`: of two histories the operator gives up one, and only what either has written
// since the two were equal is copied.

#include "engine/stories.h"

namespace hast::test {

namespace {

constexpr uint64_t kByA = 8192;
constexpr uint64_t kByB = 5 * kExtent;
constexpr uint64_t kByBoth = 10 * kExtent;

/// Both were primary without the other one and have written; node b, a secondary now, is refused.
void diverge(Pair& pair) {
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 20 * kExtent, pattern(1, 4096)), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.settle(pair.a()));
  part(pair);
  CHECK_EQ(pair.write(pair.a(), kByA, pattern(2, 4096)), 0);
  CHECK_EQ(pair.write(pair.a(), kByBoth, pattern(3, 4096)), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), kByB, pattern(4, 4096)), 0);
  CHECK_EQ(pair.write(pair.b(), kByBoth, pattern(5, 4096)), 0);
  pair.b().become_secondary();
  CHECK(pair.loop.run_until([&] { return pair.b().life() == nullptr; }, 10 * kSecond));
  pair.mend();
}

void discard_and_return(Node& node) {
  node.become_init();
  node.discard();
  node.become_secondary();
}

/// What `a` had is what both have.
void check_kept(Pair& pair) {
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
  CHECK(read_back(pair, pair.a(), kByA, 4096) == pattern(2, 4096));
  CHECK(read_back(pair, pair.a(), kByBoth, 4096) == pattern(3, 4096));
  CHECK(read_back(pair, pair.a(), kByB, 4096) == std::vector<std::byte>(4096));
  CHECK(!pair.b().extra().discarded);
  // An original tells the end of a pass with the counters of the next set-up only.
  CHECK(pair.options.original_peer || !pair.b().extra().sync_target);
}

PairOptions of_peer(bool original) {
  PairOptions options;
  options.original_peer = original;
  return options;
}

}  // namespace

TEST(discard, "only the union of both maps is copied, and nothing is asked of what is given up") {
  for (const bool original : {false, true}) {
    Pair pair(of_peer(original));
    diverge(pair);
    CHECK(pair.loop.run_until([&] { return said_split_brain(pair.a()); }, 60 * kSecond));
    discard_and_return(pair.b());
    CHECK(until_connected(pair, pair.a()));
    check_kept(pair);
    // Three extents were written, some are kept dirty; the disk has 24.
    CHECK(pair.a().primary()->stats().counters.sync_bytes_done <= 8 * kExtent);
    CHECK(!said_split_brain(pair.b()));
  }
}

TEST(discard, "cut off at any moment, the pass goes on from there, and no split-brain returns") {
  for (const bool original : {false, true}) {
    for (uint64_t moment = 0; moment < 60; ++moment) {
      Pair pair(of_peer(original));
      diverge(pair);
      discard_and_return(pair.b());
      pair.loop.advance(moment * 100);
      Node& dies = moment % 2 == 0 ? pair.a() : pair.b();
      moment % 3 == 0 ? dies.power_cut(moment) : dies.crash();
      pair.loop.advance(kSecond);
      if (&dies == &pair.a()) {
        pair.a().become_primary();
        CHECK(pair.run_until_serving(pair.a()));
      } else {
        pair.b().become_secondary();
      }
      CHECK(until_connected(pair, pair.a()));
      check_kept(pair);
    }
  }
}

TEST(discard, "what is given up is no source, and is not promoted unless by force") {
  Pair pair;
  diverge(pair);
  pair.a().crash();
  pair.b().become_init();
  pair.b().discard();
  pair.b().become_primary();
  pair.loop.run_until([&] { return pair.b().role() == NodeRole::kInit; }, 60 * kSecond);
  CHECK(!pair.b().serving());
  pair.b().become_primary(/*force=*/true);
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(read_back(pair, pair.b(), kByB, 4096) == pattern(4, 4096));
  CHECK(!pair.b().extra().discarded);
}

TEST(discard, "a primary that is incomplete itself is no reason to give anything up") {
  Pair pair;
  diverge(pair);
  pair.a().become_init();
  flag_incomplete(pair.a());
  discard_and_return(pair.b());
  pair.a().become_primary();
  pair.loop.advance(20 * kSecond);
  CHECK(!connected(pair.a()));
  CHECK(pair.b().extra().discarded);
  CHECK(has(pair.b(), kByB, pattern(4, 4096)));
}

TEST(discard, "a copy that was put back to another state is copied whole") {
  SecondaryFacts s;
  s.resuid = 7;
  s.localcnt = 5;
  s.discarded = s.incomplete = true;
  s.generations = {11, 10, 0};
  PrimaryFacts p;
  p.resuid = 7;
  p.localcnt = 3;
  p.remotecnt = 4;
  p.extended = true;
  p.generations = {21, 10, 0};
  CHECK(decide(s, p).map == MapAnswer::kOwn);
  CHECK(decide(s, p).source == SyncSource::kPrimary);
  p.generations = {21, 20, 0};  // it knows another state as the last common one
  CHECK(decide(s, p).map == MapAnswer::kFull);
  p.generations = {21, 20, 10};
  CHECK(decide(s, p).map == MapAnswer::kOwn);
  s.stale = true;  // which extents it misses was not recorded
  CHECK(decide(s, p).map == MapAnswer::kFull);
  s.stale = false;
  s.generations = {};  // unknown: the counters count
  CHECK(decide(s, p).map == MapAnswer::kOwn);
  s.resuid = 8;
  CHECK(decide(s, p).refusal == Refusal::kIdentity);
}

}  // namespace hast::test
