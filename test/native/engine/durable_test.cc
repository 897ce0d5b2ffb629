// What must be on a disk, marked or counted before something else may happen: each of these tests
// fails without one guard of the engine (docs/hacking.md, "Guards").

#include <algorithm>
#include <cerrno>

#include "engine/stories.h"

namespace hast::test {

TEST(durable, "the boot id is stored before the first write is answered (F)") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Pair pair;
    pair.connect();
    pair.a().become_init();  // all is flushed, and no boot id needed
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.a().life()->disk->hold(FaultComponent::kWrite, 0, kMetadataBytes);
    const auto bytes = pattern(seed, 8192);
    CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
    pair.a().power_cut(seed);
    pair.loop.advance(kSecond);
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(read_back(pair, pair.a(), 8192, 8192) == bytes);
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(durable, "marks that a process has left in the disk's cache are no durable ones (rule 10)") {
  constexpr uint64_t kAt = 9 * 131072;
  const auto is_marked = [](ConstBytes disk) {
    return (static_cast<unsigned>(disk[kMetadataBytes + 1]) >> 1 & 1) != 0;
  };
  int found = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    PairOptions options;
    options.seed = seed;
    Pair pair(options);
    pair.connect();
    pair.cut(true);
    pair.a().life()->disk->hold(FaultComponent::kWrite, kMetadataBytes, kDataAt - kMetadataBytes);
    pair.begin(pair.a(), RequestOp::kWrite, kAt, 4096, pattern(1, 4096));
    pair.loop.advance(kSecond / 10);
    pair.a().crash();
    const MemoryDisk& disk = pair.a().disk();
    if (!is_marked(disk.current()) || is_marked(disk.durable())) continue;
    ++found;
    pair.mend();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.a().life()->disk->hold(FaultComponent::kFlush);
    pair.begin(pair.a(), RequestOp::kWrite, kAt, 4096, pattern(2, 4096));
    CHECK(pair.loop.run_until([&] { return has(pair.a(), kAt, pattern(2, 4096)); }, kSecond));
    CHECK(is_marked(disk.durable()));
    pair.a().life()->disk->release();
  }
  CHECK(found > 0);
}

TEST(durable, "a power cut is not forgotten by a start without the peer (F)") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Pair pair;
    pair.connect();
    const auto bytes = pattern(seed, 8192);
    CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
    pair.a().power_cut(seed);
    pair.b().become_init();
    pair.loop.advance(kSecond);
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.b().become_secondary();
    CHECK(until_connected(pair, pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(read_back(pair, pair.a(), 8192, 8192) == bytes);
    CHECK(pair.equal());
  }
}

TEST(durable, "a lone write that is counted during a set-up is not overwritten by it (rule 7)") {
  for (uint64_t us = 0; us < 1200; us += 40) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    pair.a().become_init();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 4096, pattern(1, 4096)), 0);  // the newer data is there
    pair.b().become_init();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.b().become_secondary();
    CHECK(pair.loop.run_until([&] { return pair.b().life() != nullptr; }, 60 * kSecond));
    pair.loop.advance(us);
    const auto bytes = pattern(us, 4096);
    Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, bytes);
    CHECK(pair.loop.run_until([write] { return write->done; }, 60 * kSecond));
    CHECK_EQ(write->error, 0);
    pair.loop.advance(2 * kSecond);
    CHECK(read_back(pair, pair.a(), 8192, 4096) == bytes);
  }
}

TEST(durable, "a node is not promoted while its peer is primary (rule 21)") {
  Pair pair;
  pair.connect();
  Life* const secondary = pair.b().life();
  pair.b().become_primary();
  CHECK(pair.loop.run_until(
      [&] { return pair.b().life() != secondary && pair.b().role() == NodeRole::kInit; },
      60 * kSecond));
  CHECK(!pair.b().serving());
}

TEST(durable, "a node whose peer has the newer data writes nothing without it (rule 7)") {
  Pair pair;
  pair.connect();
  pair.a().become_init();
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 0, pattern(1, 131072)), 0);
  pair.b().become_init();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK(pair.a().extra().sync_target);
  pair.cut(true);
  CHECK(pair.loop.run_until([&] { return !pair.a().primary()->stats().complete; }, 10 * kSecond));
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(2, 4096)), EIO);
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
}

TEST(durable,
     "half a first copy, forced to serve beside an original, is not taken for newer (13)") {
  PairOptions options;
  options.original_peer = true;
  Pair pair(options);
  pair.connect();
  const auto bytes = pattern(1, 131072);
  CHECK_EQ(pair.write(pair.a(), 0, bytes), 0);
  pair.b().become_init();
  pair.b().replace_disk();
  pair.b().become_secondary();
  CHECK(until_connected(pair, pair.a()));
  pair.a().crash();
  pair.b().become_primary(/*force=*/true);
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 1u << 20, pattern(2, 4096)), 0);
  pair.a().become_secondary();
  pair.loop.advance(15 * kSecond);
  CHECK(!pair.b().primary()->stats().complete);
  CHECK(has(pair.a(), 0, bytes));
}

TEST(durable, "a stale copy is copied in full when its node is the primary, too (rule 6)") {
  PairOptions options;
  options.original_peer = true;  // which cannot be told that it has the good data
  Pair pair(options);
  pair.connect();
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, kDataAt, UINT64_MAX});
  for (uint64_t i = 0; i < 8; ++i) {
    CHECK_EQ(pair.write(pair.a(), i * 131072, pattern(7 + i, 4096)), 0);
  }
  pair.a().crash();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 20 * 131072, pattern(1, 4096)), 0);  // the one extent it marks
  pair.b().become_init();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(durable, "what was done beside an original ends with the next pass between ours (rule 13)") {
  Pair pair;
  pair.options.original_peer = true;
  pair.connect();
  pair.options.original_peer = false;
  pair.cut();
  pair.loop.advance(kSecond);
  CHECK(until_connected(pair, pair.a()));
  CHECK(pair.settle(pair.a()));
  const Generations ids = pair.a().extra().generations();
  CHECK(ids.current != 0);
  CHECK_EQ(pair.b().extra().generations().current, ids.current);
}

TEST(durable, "a pass does not end while a write that the peer lacks is on our disk (7, 8)") {
  for (const bool lost : {false, true}) {
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      PairOptions options;
      options.seed = seed;
      Pair pair(options);
      pair.connect();
      const auto bytes = pattern(seed, 8192);
      FaultComponent& disk = *pair.a().life()->disk;
      FaultComponent& peer = *pair.b().life()->disk;
      disk.hold(FaultComponent::kWrite, kDataAt + 8192, 8192);
      if (lost) {
        peer.hold(FaultComponent::kWrite, kDataAt + 8192, 8192);
      } else {
        peer.add_fault({FaultComponent::kWrite, -EIO, 1, kDataAt + 8192, 8192});
      }
      const Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 8192, 8192, bytes);
      pair.loop.advance(kSecond / 5);
      pair.b().power_cut(seed);
      CHECK(
          pair.loop.run_until([&] { return !pair.a().primary()->stats().complete; }, 10 * kSecond));
      pair.b().become_secondary();
      CHECK(until_connected(pair, pair.a()));
      pair.loop.advance(3 * kSecond);
      disk.release();
      CHECK(pair.loop.run_until([write] { return write->done; }, kSecond));
      CHECK_EQ(write->error, 0);
      // Until it is copied, this node's copy counts as the newer one.
      CHECK(has(pair.b(), 8192, bytes) || pair.a().metadata().localcnt == 1);
      CHECK(pair.settle(pair.a()));
      CHECK(pair.equal());
    }
  }
}

TEST(durable, "a flush that fails at a demotion makes the copy a stale one (rules 6, 22)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(1, 8192)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  pair.a().become_init();
  pair.loop.advance(5 * kSecond);
  CHECK(pair.a().extra().local_stale);
}

TEST(durable, "a write that the peer may lack and nobody could count is no success (rule 7)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  pair.b().life()->disk->hold();
  const Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 0, 4096, pattern(2, 4096));
  pair.loop.advance(kSecond / 5);
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, kMetadataBytes});
  pair.cut(true);
  CHECK(pair.loop.run_until([write] { return write->done; }, 60 * kSecond));
  CHECK_EQ(write->error, EIO);
  pair.b().life()->disk->release();
}

TEST(durable, "what a failed flush has not stored keeps its mark (rule 1)") {
  PairOptions options;
  options.keepdirty = 1;
  Pair pair(options);
  pair.connect();
  // The peer lacks an extent and cannot get it, so that this disk is not given up.
  pair.b().life()->disk->add_fault(
      {FaultComponent::kWrite, -EIO, UINT64_MAX, kDataAt + 8 * 131072, 131072});
  CHECK_EQ(pair.write(pair.a(), 8 * 131072, pattern(1, 4096)), 0);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 4096)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  CHECK_EQ(pair.write(pair.a(), 8 * 131072, pattern(3, 4096)), 0);  // is now the dirty one
  pair.loop.advance(5 * kSecond);
  CHECK((pair.a().map()[0] & std::byte{1}) != std::byte{0});
}

TEST(durable, "the good copy is of no older line once the primary has given up its own (13)") {
  Pair pair;
  pair.connect();
  const uint64_t before = pair.b().extra().generations().current;
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, kDataAt, UINT64_MAX});
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK(pair.b().extra().generations().current != before);
}

TEST(durable, "a last flush that fails when the connection has ended is remembered (R-17)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(5, 4096)), 0);
  pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  pair.a().crash();
  pair.loop.advance(5 * kSecond);
  CHECK(pair.b().extra().sync_target);
}

TEST(durable, "what a pass has copied is flushed before the copy counts as whole (rule 10)") {
  for (uint64_t us = 0; us < 2000; us += 50) {
    PairOptions options;
    options.seed = us + 1;
    Pair pair(options);
    pair.connect();
    pair.a().become_init();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    const auto bytes = pattern(us, 65536);
    CHECK_EQ(pair.write(pair.b(), 0, bytes), 0);
    CHECK_EQ(pair.flush(pair.b()), 0);
    pair.b().become_init();
    pair.b().become_secondary();
    pair.a().become_primary();  // and is brought up to date by its secondary
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.a().extra().sync_target);
    pair.loop.advance(us);
    pair.a().power_cut(us);
    CHECK(pair.a().extra().sync_target || has(pair.a(), 0, bytes));
  }
}

TEST(durable, "a hole with FUA is marked when the peer is lost while it is flushed (1, 9)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair;
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(seed, 8192)), 0);
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.b().life()->disk->hold(FaultComponent::kFlush);
    const Pair::Operation* hole =
        pair.begin(pair.a(), RequestOp::kDelete, 8192, 8192, {}, /*fua=*/true);
    pair.loop.advance(kSecond / 5);  // stored on both, flushed here
    pair.b().power_cut(seed);
    CHECK(pair.loop.run_until([hole] { return hole->done; }, 60 * kSecond));
    CHECK_EQ(hole->error, 0);
    pair.b().become_secondary();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

}  // namespace hast::test
