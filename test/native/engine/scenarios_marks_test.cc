// What went wrong elsewhere, told as stories of our two nodes: marks that were lost or stayed, and
// what never came to its end. docs/scenarios.md has the table.

#include "codec/activemap.h"
#include "engine/stories.h"

namespace hast::test {

namespace {

/// Marks all of it, so that the next pass is one over the whole disk.
void write_everywhere(Pair& pair, uint64_t seed) {
  for (uint64_t at = 0; at < pair.a().data().size(); at += kExtent) {
    CHECK_EQ(pair.write(pair.a(), at, pattern(seed + at, kExtent)), 0);
  }
}

/// Something that only this node has, and only its map says so.
void differ(Node& node, uint64_t extent, uint64_t seed) {
  node.disk().set(kDataAt + extent * kExtent, pattern(seed, 4096));
  std::vector<std::byte> map = node.map();
  map[extent / 8] |= std::byte{1} << (extent % 8);
  node.disk().set(kMetadataBytes, map);
}

bool pass_has_ended(Pair& pair) {
  return pair.a().primary()->stats().sync_bytes_left == 0 && pair.a().metadata().localcnt == 0 &&
         !pair.b().extra().sync_target;
}

}  // namespace

TEST(scenarios, "marks of both nodes under equal counters are all copied") {
  for (const bool a_is_primary : {false, true}) {
    Pair pair;
    pair.connect();
    pair.a().become_init();
    pair.b().become_init();
    differ(pair.a(), 3, 1);
    differ(pair.b(), 9, 2);
    Node& primary = a_is_primary ? pair.a() : pair.b();
    (a_is_primary ? pair.b() : pair.a()).become_secondary();
    primary.become_primary();
    CHECK(pair.run_until_serving(primary));
    CHECK(pair.settle(primary));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "a set-up clears no mark, wherever it ends") {
  for (uint64_t us = 0; us < 1500; us += 125) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    part(pair);
    CHECK_EQ(pair.write(pair.a(), 5 * kExtent, pattern(us, 4096)), 0);
    const Life* const before = pair.b().life();
    pair.mend();
    pair.a().primary()->kick();
    CHECK(pair.loop.run_until([&] { return pair.b().life() != before; }, 30 * kSecond));
    Life* const life = pair.b().life();
    life->disk->hold(FaultComponent::kWrite, kDataAt);
    pair.loop.advance(us);
    pair.cut(true);
    pair.loop.advance(kSecond);
    CHECK(marked(pair.a(), 5) || marked(pair.b(), 5));
    CHECK(!unmarked_difference(pair));
    life->disk->release();
    pair.mend();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "with metaflush off a crash of the process still loses no mark") {
  for (uint64_t seed = 1; seed <= 9; ++seed) {
    PairOptions options;
    options.seed = seed;
    Pair pair(options);
    pair.connect();
    PrimarySettings settings;
    settings.replication = static_cast<Replication>(seed % 3);
    settings.metaflush = false;
    pair.a().primary()->reconfigure(settings);
    for (uint64_t i = 0; i < 24; ++i) {
      pair.begin(pair.a(), RequestOp::kWrite, i * kExtent, 8192, pattern(seed * 100 + i, 8192));
    }
    pair.loop.advance(45 * seed);
    pair.a().crash();
    pair.loop.advance(2 * kSecond);
    CHECK(!unmarked_difference(pair));
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "writes that cross a narrow and broken-up connection arrive in whole") {
  for (const Checksum checksum : {Checksum::kNone, Checksum::kSha256}) {
    PairOptions options;
    options.checksum = checksum;
    Pair pair(options);
    pair.network.options.capacity_bytes = 700;
    pair.network.options.partial = true;
    pair.network.options.delay_max_us = 200;
    pair.connect();
    std::vector<Pair::Operation*> writes;
    for (uint64_t i = 0; i < 60; ++i) {
      const uint64_t bytes = 512 * (1 + i * 7 % 48);
      writes.push_back(
          pair.begin(pair.a(), RequestOp::kWrite, i * 24576, bytes, pattern(i, bytes)));
    }
    for (const Pair::Operation* write : writes) {
      CHECK(until_done(pair, write) && write->error == 0);
      CHECK(has(pair.b(), write->offset, write->bytes));
    }
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "a hole that one of the disks cannot punch leaves both copies equal") {
  for (const bool here : {false, true}) {
    Pair pair;
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 0, pattern(1, kExtent)), 0);
    (here ? pair.a() : pair.b()).life()->disk->set_can_discard(false);
    CHECK_EQ(pair.discard(pair.a(), 4096, 65536), 0);
    CHECK_EQ(pair.discard(pair.a(), 80 * 1024 + 512, 20000), 0);
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "the map's last extents are found, wherever a sector or a page ends") {
  for (const uint32_t extents : {4095u, 4096u, 4097u, 32767u, 32768u, 32769u, 65536u}) {
    const uint32_t last = extents - 1;
    Activemap map(uint64_t{extents} * kExtent, kExtent, 2, 512);
    CHECK_EQ(map.next_sync(0), Activemap::kNone);
    map.mark_sync(uint64_t{last} * kExtent, kExtent);
    CHECK_EQ(map.next_sync(0), last);
    CHECK_EQ(map.next_sync(last), last);
    CHECK_EQ(map.next_sync(extents), Activemap::kNone);
    std::vector<std::byte> image(map.map_bytes());
    map.render(image);
    Activemap copy(uint64_t{extents} * kExtent, kExtent, 2, 512);
    copy.load(image);
    CHECK_EQ(copy.sync_count(), 1u);
    CHECK_EQ(copy.next_sync(1), last);
    Activemap merged(uint64_t{extents} * kExtent, kExtent, 2, 512);
    image.resize(image.size() + 512, std::byte{0xff});
    merged.merge(image);
    CHECK_EQ(merged.sync_count(), 1u);
  }
}

TEST(scenarios, "however high the timeout, a silent peer is given up within seconds") {
  PairOptions options;
  options.timeout_ms = 100'000;  // the simulated dialler has no way to give up before
  Pair pair(options);
  pair.connect();
  pair.loop.advance(10 * kSecond);
  pair.silence();
  const Pair::Operation* write =
      pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, pattern(1, 4096));
  pair.loop.advance(5 * kSecond);
  CHECK(write->done && write->error == 0);
  CHECK(marked(pair.a(), 0));
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
}

TEST(scenarios, "a whole pass that is cut off goes on where it was") {
  PairOptions options;
  options.disk_bytes = 10u << 20;
  Pair pair(options);
  pair.connect();
  write_everywhere(pair, 1);
  pair.b().become_init();
  pair.b().replace_disk();
  pair.b().become_secondary();
  CHECK(until_connected(pair, pair.a()));
  pair.b().life()->disk->set_delay(2 * kSecond, 2 * kSecond);
  const uint64_t whole = pair.a().data().size();
  const auto left = [&] { return pair.a().primary()->stats().sync_bytes_left; };
  CHECK(pair.loop.run_until([&] { return left() < whole / 4; }, 120 * kSecond));
  pair.cut();
  CHECK(pair.loop.run_until([&] { return !connected(pair.a()); }, 10 * kSecond));
  CHECK(until_connected(pair, pair.a()));
  CHECK(left() < whole * 3 / 4);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(scenarios, "after an orderly end only what is kept dirty is copied, whoever is next") {
  Pair pair;
  pair.connect();
  for (Node* next : {&pair.a(), &pair.b(), &pair.a()}) {
    Node& now = pair.a().serving() ? pair.a() : pair.b();
    for (uint64_t i = 0; i < 20; ++i) {
      CHECK_EQ(pair.write(now, i * kExtent, pattern(i, 4096)), 0);
    }
    now.become_init();
    Node& other = next == &pair.a() ? pair.b() : pair.a();
    other.become_init();
    other.become_secondary();
    next->become_primary();
    CHECK(pair.run_until_serving(*next));
    CHECK(pair.settle(*next));
    const uint64_t copied = next->primary()->stats().counters.sync_bytes_done;
    CHECK(copied <= pair.options.keepdirty * kExtent);
    CHECK(pair.equal());
  }
}

TEST(scenarios, "writes at any moment of a set-up are on both in the end") {
  for (uint64_t us = 0; us < 1200; us += 80) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    part(pair);
    for (uint64_t i = 0; i < 10; ++i) {
      CHECK_EQ(pair.write(pair.a(), i * kExtent, pattern(i, 4096)), 0);
    }
    pair.mend();
    pair.a().primary()->kick();
    pair.loop.advance(us);
    std::vector<Pair::Operation*> writes;
    for (uint64_t i = 0; i < 20; i += 3) {
      writes.push_back(
          pair.begin(pair.a(), RequestOp::kWrite, i * kExtent, 4096, pattern(50 + i, 4096)));
    }
    for (const Pair::Operation* write : writes) {
      CHECK(until_done(pair, write) && write->error == 0);
    }
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    for (const Pair::Operation* write : writes) CHECK(has(pair.b(), write->offset, write->bytes));
  }
}

TEST(scenarios, "losses in a row with writes before, between and after leave nothing behind") {
  for (uint64_t seed = 1; seed <= 9; ++seed) {
    PairOptions options;
    options.seed = seed;
    options.replication = static_cast<Replication>(seed % 3);
    Pair pair(options);
    pair.connect();
    std::vector<Pair::Operation*> writes;
    for (uint64_t i = 0; i < 18; ++i) {
      writes.push_back(
          pair.begin(pair.a(), RequestOp::kWrite, i * kExtent, 4096, pattern(i, 4096)));
      pair.loop.advance(seed * i % 130);
      if (i % 6 == 3) pair.cut();
      if (i % 6 == 4) pair.a().primary()->kick();
    }
    for (const Pair::Operation* write : writes) {
      CHECK(until_done(pair, write) && write->error == 0);
    }
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(scenarios, "writes that race a pass leave nothing marked but what is kept dirty") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    PairOptions options;
    options.seed = seed;
    Pair pair(options);
    pair.connect();
    part(pair);
    write_everywhere(pair, seed);
    pair.mend();
    pair.a().primary()->kick();
    pair.loop.advance(seed * 100);
    for (uint64_t i = 0; i < 24; ++i) {
      pair.begin(pair.a(), RequestOp::kWrite, i * kExtent, 4096, pattern(seed + i, 4096));
    }
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    pair.a().become_init();
    pair.loop.advance(kSecond);
    uint32_t left = 0;
    for (uint64_t extent = 0; extent < 24; ++extent) {
      left += marked(pair.a(), extent) ? 1 : 0;
      CHECK(!marked(pair.b(), extent));
    }
    CHECK(left <= pair.options.keepdirty);
  }
}

TEST(scenarios, "holes made while a pass runs are on both") {
  for (uint64_t us = 0; us < 1500; us += 300) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    part(pair);
    write_everywhere(pair, us);
    pair.mend();
    CHECK(until_connected(pair, pair.a()));
    pair.loop.advance(us);
    for (uint64_t i = 0; i < 24; i += 5) {
      CHECK_EQ(pair.discard(pair.a(), i * kExtent + 4096, kExtent), 0);
    }
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    CHECK(has(pair.b(), 4096, std::vector<std::byte>(kExtent)));
  }
}

TEST(scenarios, "writes in the pause of a pass are copied with it") {
  Pair pair;
  pair.connect();
  part(pair);
  CHECK_EQ(pair.write(pair.a(), 2 * kExtent, pattern(1, kExtent)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kRead, -EIO, 1, kDataAt, UINT64_MAX});
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().logged("it stays marked"); }, 60 * kSecond));
  CHECK_EQ(pair.write(pair.a(), 2 * kExtent + 4096, pattern(2, 4096)), 0);
  CHECK_EQ(pair.write(pair.a(), 9 * kExtent, pattern(3, 4096)), 0);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(scenarios, "writes of every size and place arrive as they are") {
  Pair pair;
  pair.connect();
  const uint64_t end = pair.a().data().size();
  std::vector<std::byte> expected(end);
  uint64_t seed = 0;
  const auto put = [&](uint64_t at, uint64_t length) {
    const auto bytes = pattern(++seed, length);
    CHECK_EQ(pair.write(pair.a(), at, bytes), 0);
    std::ranges::copy(bytes, expected.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(512, 512);
  put(kExtent - 512, 1024);
  put(3 * kExtent - 4096, kExtent);
  put(kExtent + 1536, kExtent);
  put(end - 512, 512);
  put(end - kExtent, kExtent);
  put(kExtent, kExtent - 512);
  CHECK(std::ranges::equal(pair.a().data(), expected));
  CHECK(std::ranges::equal(pair.b().data(), expected));
}

// --- what must come to its end -------------------------------------------------------------------

TEST(scenarios, "a write to a cold extent is not starved by hot ones") {
  PairOptions options;
  options.keepdirty = 1;
  Pair pair(options);
  pair.connect();
  Load load(pair, pair.a(), 4);
  pair.loop.advance(kSecond / 10);
  const Pair::Operation* write =
      pair.begin(pair.a(), RequestOp::kWrite, 20 * kExtent, 4096, pattern(1, 4096));
  pair.loop.advance(kSecond / 100);
  CHECK(write->done && write->error == 0);
  load.stop();
  CHECK(pair.settle(pair.a()));
}

TEST(scenarios, "no answer waits for a timer or for company") {
  for (const Replication mode :
       {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    PairOptions options;
    options.replication = mode;
    Pair pair(options);
    pair.connect();
    pair.loop.advance(10 * kSecond);
    const uint64_t before = pair.loop.now_us();
    CHECK_EQ(pair.write(pair.a(), 8 * kExtent, pattern(1, 4096)), 0);
    CHECK_EQ(pair.write(pair.a(), 9 * kExtent, pattern(2, 4096), /*fua=*/true), 0);
    CHECK_EQ(pair.discard(pair.a(), 10 * kExtent, 8192), 0);
    CHECK_EQ(pair.flush(pair.a()), 0);
    CHECK(pair.loop.now_us() - before < kSecond / 100);
  }
}

TEST(scenarios, "a disk that hangs for half a minute ends no connection") {
  Pair pair;
  pair.connect();
  for (Node* node : {&pair.a(), &pair.b()}) {
    node->life()->disk->hold();
    const Pair::Operation* write =
        pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, pattern(1, 4096));
    pair.loop.advance(30 * kSecond);
    CHECK(connected(pair.a()));
    CHECK(!write->done);
    node->life()->disk->release();
    CHECK(until_done(pair, write));
    CHECK_EQ(write->error, 0);
  }
}

TEST(scenarios, "a pass ends though clients write as fast as it copies") {
  Pair pair;
  pair.connect();
  part(pair);
  write_everywhere(pair, 1);
  Load load(pair, pair.a(), 24);
  pair.mend();
  pair.a().primary()->kick();
  CHECK(pair.loop.run_until([&] { return pass_has_ended(pair); }, 5 * kSecond));
  load.stop();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(scenarios, "a pass that compares ends under load, too") {
  PairOptions options;
  options.checksum = Checksum::kSha256;
  Pair pair(options);
  pair.connect();
  part(pair);
  write_everywhere(pair, 1);
  for (uint64_t extent = 0; extent < 24; extent += 2) {  // half of it is there already
    pair.b().disk().set(kDataAt + extent * kExtent, pattern(1 + extent * kExtent, kExtent));
  }
  Load load(pair, pair.a(), 4);
  pair.mend();
  pair.a().primary()->kick();
  CHECK(pair.loop.run_until([&] { return pass_has_ended(pair); }, 5 * kSecond));
  load.stop();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

}  // namespace hast::test
