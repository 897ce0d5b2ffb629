// What went wrong elsewhere, told as stories of our two nodes: who knows which state of the data,
// who may be primary, and when a pass has ended. docs/scenarios.md has the table.

#include "codec/layout.h"
#include "engine/stories.h"

namespace hast::test {

namespace {

/// Each has written alone; both are in role init, and the link is whole again.
void diverge(Pair& pair) {
  pair.connect();
  pair.a().become_init();
  pair.b().become_init();
  pair.cut(true);
  for (Node* node : {&pair.a(), &pair.b()}) {
    node->become_primary();
    CHECK(pair.run_until_serving(*node));
    CHECK_EQ(pair.write(*node, 8192, pattern(node == &pair.a() ? 1 : 2, 4096)), 0);
    node->become_init();
  }
  pair.mend();
}

/// Node b has what node a lacks, in every extent; node a is the primary and gets it.
void copy_from_peer(Pair& pair) {
  pair.connect();
  pair.a().become_init();
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  for (uint64_t at = 0; at < pair.b().data().size(); at += kExtent) {
    CHECK_EQ(pair.write(pair.b(), at, pattern(at + 5, kExtent)), 0);
  }
  pair.b().become_init();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
}

/// As `create` makes it on a smaller device, or with other extents.
void create_other(Node& node, uint64_t bytes, uint32_t extent_bytes) {
  LayoutRequest request;
  request.provider_bytes = bytes;
  request.extent_bytes = extent_bytes;
  const Result<Layout> layout = plan_layout(request);
  REQUIRE(layout.has_value());
  node.disk().set(0, MetadataBlock::create(initial_metadata("data", *layout)).bytes());
}

}  // namespace

TEST(scenarios, "a node promoted while it connects serves nothing older than it was told of") {
  for (uint64_t us = 0; us < 1200; us += 75) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    part(pair);
    const auto bytes = pattern(us, 4096);
    CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
    const Life* const before = pair.b().life();
    pair.mend();
    pair.a().primary()->kick();
    CHECK(pair.loop.run_until([&] { return pair.b().life() != before; }, 30 * kSecond));
    pair.loop.advance(us);
    pair.a().crash();
    pair.b().become_primary();
    pair.loop.run_until([&] { return pair.b().serving() || pair.b().role() == NodeRole::kInit; },
                        60 * kSecond);
    CHECK(!pair.b().serving() || has(pair.b(), 4096, bytes));
  }
}

TEST(scenarios, "a state of the data that the peer never got is not taken for a common one") {
  for (uint64_t us = 1; us <= 2500; us += 200) {
    PairOptions options;
    options.seed = us;
    Pair pair(options);
    pair.connect();
    part(pair);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(us, 4096)), 0);
    pair.mend();
    CHECK(until_connected(pair, pair.a()));
    pair.loop.advance(us);  // somewhere in the pass, or in its end
    pair.a().crash();
    pair.b().crash();
    pair.cut(true);
    for (Node* node : {&pair.a(), &pair.b()}) {
      node->become_primary(/*force=*/true);
      CHECK(pair.run_until_serving(*node));
      CHECK_EQ(pair.write(*node, 8192, pattern(node == &pair.a() ? 1 : 2, 4096)), 0);
      node->become_init();
    }
    pair.mend();
    pair.b().become_secondary();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.loop.advance(3 * kSecond);
    CHECK(!connected(pair.a()));
    CHECK(said_split_brain(pair.a()));
  }
}

TEST(scenarios, "lone periods of both nodes in turn are no split-brain") {
  Pair pair;
  pair.connect();
  Node* primary = &pair.a();
  Node* other = &pair.b();
  for (uint64_t round = 0; round < 12; ++round) {
    part(pair);
    CHECK_EQ(pair.write(*primary, round * kExtent, pattern(round, 4096)), 0);
    pair.mend();
    // In every second round roles change before the copy has been made.
    if (round % 2 == 0) CHECK(pair.settle(*primary));
    primary->become_secondary();
    other->become_primary();
    CHECK(pair.run_until_serving(*other));
    std::swap(primary, other);
    CHECK(read_back(pair, *primary, round * kExtent, 4096) == pattern(round, 4096));
    CHECK(pair.settle(*primary));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "a new disk in the place of the old one is made whole, wherever the link breaks") {
  for (uint64_t us = 0; us < 2000; us += 200) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 3 * kExtent, pattern(1, 8192)), 0);
    pair.loop.advance(10 * kSecond);
    const Life* const before = pair.b().life();
    pair.b().become_init();
    pair.b().replace_disk();
    pair.b().become_secondary();
    CHECK(pair.loop.run_until(
        [&] { return pair.b().life() != nullptr && pair.b().life() != before; }, 30 * kSecond));
    pair.loop.advance(us);
    pair.cut();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "the end of a pass that only the source has seen is told again") {
  uint32_t unseen = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    PairOptions options;
    options.seed = seed;
    Pair pair(options);
    pair.connect();
    part(pair);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(seed, 4096)), 0);
    pair.mend();
    CHECK(pair.loop.run_until([&] { return pair.a().metadata().localcnt == 0; }, 60 * kSecond));
    pair.b().life()->disk->hold(FaultComponent::kWrite, 0, kMetadataBytes);
    pair.loop.advance(kSecond / 10);  // nothing is left to copy, and b does not know it
    pair.b().crash();
    unseen += pair.b().extra().sync_target ? 1 : 0;
    pair.b().become_secondary();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    CHECK(!pair.b().extra().sync_target);
    pair.a().crash();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
  }
  CHECK(unseen > 0);
}

TEST(scenarios, "a split-brain is refused whoever of the two is primary, and after restarts") {
  Pair pair;
  diverge(pair);
  for (uint64_t round = 0; round < 4; ++round) {
    Node& primary = round % 2 == 0 ? pair.a() : pair.b();
    Node& other = round % 2 == 0 ? pair.b() : pair.a();
    other.become_secondary();
    primary.become_primary();
    CHECK(pair.run_until_serving(primary));
    pair.loop.advance(3 * kSecond);
    CHECK(!connected(primary));
    CHECK(said_split_brain(primary));
    if (round % 2 == 1) primary.crash();
    primary.become_init();
    other.become_init();
    CHECK(has(pair.a(), 8192, pattern(1, 4096)));
    CHECK(has(pair.b(), 8192, pattern(2, 4096)));
  }
}

TEST(scenarios, "a refused split-brain changes neither counters nor identity nor marks") {
  Pair pair;
  diverge(pair);
  const std::vector<std::byte> maps[] = {pair.a().map(), pair.b().map()};
  const Metadata metadata[] = {pair.a().metadata(), pair.b().metadata()};
  const Generations ids[] = {pair.a().extra().generations(), pair.b().extra().generations()};
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.loop.advance(20 * kSecond);
  CHECK(said_split_brain(pair.a()));
  for (int i = 0; i < 2; ++i) {
    CHECK(pair.node(i).map() == maps[i]);
    CHECK_EQ(pair.node(i).metadata().resuid, metadata[i].resuid);
    CHECK_EQ(pair.node(i).metadata().localcnt, metadata[i].localcnt);
    CHECK_EQ(pair.node(i).metadata().remotecnt, metadata[i].remotecnt);
    CHECK(pair.node(i).extra().generations() == ids[i]);
  }
}

TEST(scenarios, "a split-brain that the operator settles is copied whole, marked or not") {
  Pair pair;
  diverge(pair);
  pair.b().disk().set(kDataAt + 20 * kExtent, pattern(3, 4096));
  pair.b().create();  // what is there is given up
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
  CHECK(has(pair.a(), 8192, pattern(1, 4096)));
}

TEST(scenarios, "a promotion and a demotion at one time leave one primary and no split-brain") {
  for (uint64_t us = 0; us < 1'500'000; us += 140'000) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    const auto bytes = pattern(us, 4096);
    CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
    Pair::Operation* late = pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, bytes);
    pair.b().become_primary();  // is told to wait, and asks again
    pair.loop.advance(us);
    CHECK(!pair.b().serving());
    pair.a().become_secondary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK(late->done && late->error == 0);
    CHECK(read_back(pair, pair.b(), 4096, 4096) == bytes);
    CHECK(read_back(pair, pair.b(), 8192, 4096) == bytes);
    CHECK(pair.settle(pair.b()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "two primaries do not touch each other's data when their link comes back") {
  Pair pair;
  pair.connect();
  pair.loop.advance(10 * kSecond);  // all is flushed
  part(pair);
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(1, 4096)), 0);
  CHECK_EQ(pair.write(pair.b(), 8192, pattern(2, 4096)), 0);
  pair.mend();
  pair.loop.advance(15 * kSecond);
  CHECK(!connected(pair.a()) && !connected(pair.b()));
  pair.a().become_secondary();
  pair.loop.advance(15 * kSecond);
  CHECK(said_split_brain(pair.b()));
  CHECK(has(pair.a(), 8192, pattern(1, 4096)));
  CHECK(has(pair.b(), 8192, pattern(2, 4096)));
}

TEST(scenarios, "two primaries of which one has written come together over its data") {
  for (const bool first : {false, true}) {
    Pair pair;
    pair.connect();
    pair.loop.advance(10 * kSecond);
    part(pair);
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(first ? pair.a() : pair.b(), 8192, pattern(1, 4096)), 0);
    pair.mend();
    pair.a().become_secondary();
    CHECK(pair.settle(pair.b()));
    CHECK(pair.equal());
    CHECK(has(pair.b(), 8192, pattern(1, 4096)));
  }
}

TEST(scenarios, "writes that wait on a hanging disk when the peer goes begin one generation") {
  Pair pair;
  pair.connect();
  pair.loop.advance(10 * kSecond);
  const uint64_t before = pair.a().extra().generations().current;
  pair.a().life()->disk->hold();
  std::vector<Pair::Operation*> writes;
  for (uint64_t i = 0; i < 8; ++i) {
    writes.push_back(
        pair.begin(pair.a(), RequestOp::kWrite, (2 + i) * kExtent, 4096, pattern(i, 4096)));
  }
  pair.loop.advance(kSecond / 100);
  part(pair);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
  pair.a().life()->disk->release();
  for (const Pair::Operation* write : writes) CHECK(until_done(pair, write) && write->error == 0);
  const uint64_t begun = pair.a().extra().generations().current;
  CHECK(begun != before);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(9, 4096)), 0);
  CHECK_EQ(pair.a().extra().generations().current, begun);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(scenarios, "a lone period without a write begins no generation and copies nothing") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(1, 4096)), 0);
  pair.loop.advance(10 * kSecond);
  const uint64_t before = pair.a().extra().generations().current;
  part(pair);
  CHECK(read_back(pair, pair.a(), 4096, 4096) == pattern(1, 4096));
  CHECK_EQ(pair.flush(pair.a()), 0);
  const uint64_t copied = pair.a().primary()->stats().counters.sync_bytes_done;
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK_EQ(pair.a().extra().generations().current, before);
  CHECK_EQ(pair.a().primary()->stats().counters.sync_bytes_done, copied);
}

TEST(scenarios, "what is said to be synchronised is that of one pass") {
  Pair pair;
  pair.connect();
  CHECK(pair.settle(pair.a()));
  const uint64_t first = pair.a().primary()->stats().counters.sync_bytes_done;
  part(pair);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(1, 4096)), 0);
  pair.mend();
  CHECK(pair.settle(pair.a()));
  const uint64_t second = pair.a().primary()->stats().counters.sync_bytes_done;
  CHECK(second > 0);
  CHECK(second < first);
}

TEST(scenarios, "a new generation of the source while it copies is no split-brain") {
  for (uint64_t us = 0; us < 1500; us += 200) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    part(pair);
    for (uint64_t i = 0; i < 20; ++i) {
      CHECK_EQ(pair.write(pair.a(), i * kExtent, pattern(i, kExtent)), 0);
    }
    pair.mend();
    CHECK(until_connected(pair, pair.a()));
    const uint64_t before = pair.a().extra().generations().current;
    pair.loop.advance(us);
    part(pair);
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(us, 4096)), 0);
    CHECK(pair.a().extra().generations().current != before);
    pair.mend();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "what a lone write has begun survives a power cut in the next moment") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair;
    pair.connect();
    const uint64_t before = pair.a().extra().generations().current;
    part(pair);
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(1, 4096)), 0);
    pair.a().power_cut(seed);
    CHECK_EQ(pair.a().metadata().localcnt, 1u);
    CHECK(pair.a().extra().generations().current != before);
    CHECK(marked(pair.a(), 0));
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 8192, pattern(2, 4096)), 0);
    pair.mend();
    pair.a().become_secondary();
    pair.loop.advance(15 * kSecond);
    CHECK(said_split_brain(pair.b()));
  }
}

TEST(scenarios, "two incomplete copies keep what they have marked") {
  Pair pair;
  pair.connect();
  pair.a().become_init();
  pair.b().become_init();
  for (Node* node : {&pair.a(), &pair.b()}) {
    flag_incomplete(*node);
    std::vector<std::byte> map = node->map();
    map[0] = node == &pair.a() ? std::byte{0x0f} : std::byte{0x3c};
    node->disk().set(kMetadataBytes, map);
  }
  pair.b().become_secondary();
  pair.a().become_primary();
  pair.loop.run_until([&] { return pair.a().role() == NodeRole::kInit; }, 60 * kSecond);
  CHECK(!pair.a().serving());
  for (uint64_t extent = 0; extent < 4; ++extent) CHECK(marked(pair.a(), extent));
  for (uint64_t extent = 2; extent < 6; ++extent) CHECK(marked(pair.b(), extent));
}

TEST(scenarios, "writes during a copy from the peer leave marked what is not copied yet") {
  for (uint64_t us = 0; us < 1500; us += 200) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    copy_from_peer(pair);
    pair.loop.advance(us);
    const uint64_t at = 15 * kExtent;
    CHECK_EQ(pair.write(pair.a(), at, pattern(us, 4096)), 0);
    pair.a().crash();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    CHECK(has(pair.a(), at, pattern(us, 4096)));
    auto rest = pattern(at + 5, kExtent);
    rest.erase(rest.begin(), rest.begin() + 4096);
    CHECK(has(pair.a(), at + 4096, rest));
  }
}

TEST(scenarios, "copies of different sizes do not connect, and nothing hangs") {
  for (const bool extents : {false, true}) {
    Pair pair;
    create_other(pair.b(), extents ? pair.options.disk_bytes : 3u << 20,
                 extents ? 262144 : kExtent);
    const std::vector<std::byte> before(pair.b().data().begin(), pair.b().data().end());
    pair.b().become_secondary();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a(), 6 * kSecond));
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(1, 4096)), 0);
    pair.loop.advance(20 * kSecond);
    CHECK(!connected(pair.a()));
    CHECK(pair.a().logged("sizes differ"));
    CHECK(std::ranges::equal(pair.b().data(), before));
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(2, 4096)), 0);
  }
}

}  // namespace hast::test
