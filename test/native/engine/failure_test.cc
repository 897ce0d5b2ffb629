// Disks that fail, on either node, and what may be answered and read afterwards.

#include <algorithm>
#include <cerrno>

#include "engine/stories.h"

namespace hast::test {

namespace {

/// Nothing is flushed before we say so, and a pass can be caught in its middle.
PairOptions roomy() {
  PairOptions options;
  options.disk_bytes = 16u << 20;
  options.keepdirty = 256;
  return options;
}

/// Also marks all of it: the next pass is one over the whole disk.
void write_everywhere(Pair& pair, uint64_t seed) {
  for (uint64_t at = 0; at < pair.a().data().size(); at += 131072) {
    CHECK_EQ(pair.write(pair.a(), at, pattern(seed + at, 131072)), 0);
  }
}

/// The next pass ends in its middle, and the secondary in order: all that it has is flushed then.
void interrupt_pass(Pair& pair, Node& primary, Node& secondary) {
  const auto copies = [&primary] {
    const EngineStats stats = primary.primary()->stats();
    return stats.complete && stats.dirty_bytes > 0;
  };
  CHECK(pair.loop.run_until(copies, 30 * kSecond));
  FaultComponent& disk = *secondary.life()->disk;
  disk.hold(FaultComponent::kWrite, kDataAt);
  pair.loop.advance(kSecond / 100);
  pair.cut();
  disk.release();
  CHECK(pair.loop.run_until([&secondary] { return secondary.extra().boot == 0; }, kSecond));
}

}  // namespace

TEST(failure, "a disk that was given up is never the source of a copy (rule 6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  const auto bytes = pattern(7, 4096);
  CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
  pair.loop.advance(10 * kSecond);
  CHECK(std::ranges::equal(pair.b().data().subspan(4096, 4096), bytes));
  CHECK(read_back(pair, pair.a(), 4096, 4096) == bytes);
}

TEST(failure, "a stale copy is remembered, refused, and made whole by the peer (rule 6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK(pair.a().extra().local_stale);
  CHECK_EQ(pair.b().metadata().localcnt, 1u);
  pair.a().crash();
  pair.b().become_init();
  pair.a().become_primary();
  pair.loop.run_until([&] { return pair.a().role() == NodeRole::kInit; }, 60 * kSecond);
  CHECK(!pair.a().serving());
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.a().become_secondary();
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
  CHECK(!pair.a().extra().local_stale);
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
}

TEST(failure, "a full disk's primary that comes back leaves the peer's marks alone (rule 6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault({.kinds = FaultComponent::kWrite, .error = -ENOSPC});
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.cut();
  const auto again = [&pair] { return pair.a().primary()->stats().complete; };
  CHECK(pair.loop.run_until([&again] { return !again(); }, 10 * kSecond));
  CHECK(pair.loop.run_until(again, 10 * kSecond));
  pair.loop.advance(5 * kSecond);
  // Nothing but these says that the copies differ.
  const std::vector<std::byte> map = pair.b().map();
  CHECK(std::ranges::any_of(map, [](std::byte b) { return b != std::byte{0}; }));
}

TEST(failure, "success that rests on the peer waits until the stale copy is recorded (rule 6)") {
  Pair pair;
  pair.connect();
  // Nothing can be written here any more, and the peer cannot record it either.
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO});
  pair.b().life()->disk->add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, kDataAt});
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), EIO);
  // Nor may the peer have been given what it would have alone, with nobody knowing.
  CHECK(pair.equal());
}

TEST(failure, "that a disk was given up is recorded by the next connection, if not by this (6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault({.kinds = FaultComponent::kWrite, .error = -ENOSPC});
  pair.begin(pair.a(), RequestOp::kWrite, 4096, 4096, pattern(7, 4096));
  CHECK(pair.loop.run_until([&pair] { return pair.a().logged("detached"); }, kSecond));
  pair.cut();
  CHECK(pair.loop.run_until([&pair] { return pair.a().logged("recorded nowhere"); }, kSecond));
  const auto again = [&pair] { return pair.a().primary()->stats().complete; };
  CHECK(pair.loop.run_until(again, 10 * kSecond));
  const auto written = pattern(8, 4096);
  CHECK_EQ(pair.write(pair.a(), 8192, written), 0);
  pair.a().crash();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK_EQ(read_back(pair, pair.a(), 8192, 4096), written);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(failure, "a node whose peer lacks something does not give up its own disk (rule 6)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(100000);
  const auto kept = pattern(3, 4096);
  CHECK_EQ(pair.write(pair.a(), 0, kept), 0);
  // The pass to the peer cannot end: its disk fails.
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond) ||
        true);
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite));
  pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond);
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, kept), 0);
  pair.mend();
  // From the first moment of the connection the peer's disk refuses writes.
  pair.loop.run_until(
      [&] {
        Life* life = pair.b().life();
        if (life != nullptr && !life->ended)
          life->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
        return pair.a().primary()->stats().complete;
      },
      60 * kSecond);
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 1u << 20, pattern(4, 4096)), EIO);
  CHECK(!pair.a().primary()->stats().local_stale);
  CHECK(read_back(pair, pair.a(), 0, 4096) == kept);
}

TEST(failure, "a write that the peer failed counts as written alone before it is answered (8)") {
  Pair pair;
  pair.connect();
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  const auto bytes = pattern(7, 4096);
  CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  CHECK(pair.b().extra().sync_target);  // it knows by itself that it lacks something
  // Planned change of roles before it was repaired: the good copy wins.
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(read_back(pair, pair.b(), 4096, 4096) == bytes);
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(failure, "a write that the peer failed is repaired by itself, and a later lone one counts") {
  Pair pair;
  pair.connect();
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(8, 4096)), 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
}

TEST(failure, "a node that failed a write does not take over (rule 16)") {
  Pair pair;
  pair.connect();
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().crash();
  pair.b().become_primary();
  Life* life = pair.b().life();
  pair.loop.run_until([life] { return life->started; }, 60 * kSecond);
  CHECK(!life->serving);
}

TEST(failure, "a read that fails here is not served by a peer with an older block (5 of 13)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.mend();
  // Both reads fail: the synchroniser's, so that the extent stays marked, and the client's.
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kRead));
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
  std::vector<std::byte> back(4096);
  CHECK_EQ(pair.read(pair.a(), 4096, back), EIO);
}

TEST(failure, "a read that fails here is served by a peer that has the block (replication 3)") {
  Pair pair;
  pair.connect();
  const auto bytes = pattern(7, 4096);
  CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kRead));
  CHECK(read_back(pair, pair.a(), 4096, 4096) == bytes);
}

TEST(failure, "a flush that failed is never followed by one that succeeds (rule 6)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  CHECK_EQ(pair.flush(pair.a()), EIO);
}

TEST(failure, "a failed flush with the peer there moves all I/O to the peer (rule 6, R-5)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.a().primary()->stats().local_stale);
  CHECK_EQ(pair.b().metadata().localcnt, 1u);
}

TEST(failure,
     "the peer's failed flush ends the connection and marks all; local success counts (9)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(8, 4096)), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.a().logged("failed to flush"));
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(failure, "a map that cannot be stored alone fails the write, and is tried again (R-4)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, 4096, 512});
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), EIO);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(failure, "a failed chunk keeps its extent marked, and the pass is not over (R-14)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(7, 131072)), 0);
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kRead, 1));
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().logged("it stays marked"); }, 60 * kSecond));
  CHECK(pair.a().primary()->stats().dirty_bytes > 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(failure, "memsync with no copy stored is no success (R-3)") {
  PairOptions options;
  options.replication = Replication::kMemsync;
  Pair pair(options);
  pair.connect();
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), EIO);
  const auto marked = [](const Node& node) {
    return (node.map()[0] & std::byte{1}) != std::byte{0};
  };
  CHECK(marked(pair.a()) || marked(pair.b()));  // nobody may take the two for equal
}

TEST(failure, "given up after lone writes were copied: no split-brain, the peer counts as newer") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  // Our own block cannot be written any more: the counter of the lone write stays in it.
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, 4096});
  pair.mend();
  pair.loop.run_until([&] { return pair.a().primary()->stats().local_stale; }, 60 * kSecond);
  pair.loop.advance(kSecond);
  CHECK(std::ranges::equal(pair.b().data().subspan(4096, 4096), pattern(7, 4096)));
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(failure, "a copy that was given up is written again, not compared (rule 6)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(7, 131072)), 0);
  // The flush loses what it should have kept, though reads still give it.
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.settle(pair.b()));
  pair.a().power_cut(4);
  CHECK(pair.equal());
}

TEST(failure, "a stale copy is copied in full, whatever its map says (rule 6)") {
  PairOptions options;
  options.original_peer = true;  // which cannot be told that it has the good data
  Pair pair(options);
  pair.connect();
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  for (uint64_t i = 0; i < 8; ++i) {
    CHECK_EQ(pair.write(pair.a(), i * 131072, pattern(7 + i, 4096)), 0);
  }
  pair.a().crash();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.a().become_secondary();
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(failure, "a flush for the metadata that failed makes every later FLUSH fail (rule 6)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), EIO);  // it could not be counted
  CHECK_EQ(pair.flush(pair.a()), EIO);
}

TEST(failure, "what only the given-up disk has stored is no success when the peer goes (rule 6)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  CHECK_EQ(pair.write(pair.a(), 131072, pattern(1, 4096)), 0);
  pair.b().life()->disk->hold();
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 0, 4096, pattern(2, 4096));
  pair.loop.advance(10000);  // stored here, not there
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  pair.begin(pair.a(), RequestOp::kWrite, 131072, 4096, pattern(3, 4096));
  pair.loop.advance(10000);
  CHECK(pair.a().primary()->stats().local_stale);
  pair.cut(true);
  pair.loop.run_until([write] { return write->done; }, 60 * kSecond);
  CHECK_EQ(write->error, EIO);
  pair.b().life()->disk->release();
}

TEST(failure, "after the peer failed a flush its copy is written again, not compared (rule 1)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    PairOptions options;
    options.keepdirty = 64;  // nothing is flushed before we say so
    Pair pair(options);
    pair.connect();
    write_everywhere(pair, seed);
    pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
    CHECK_EQ(pair.flush(pair.a()), 0);
    CHECK(pair.settle(pair.a()));
    pair.b().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "so it is when that could not be written down there (rule 1)") {
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    PairOptions options;
    options.keepdirty = 64;
    Pair pair(options);
    pair.connect();
    write_everywhere(pair, seed);
    // The last flush of this life succeeds, and proves nothing.
    const bool no_room = seed % 2 == 0;
    FaultComponent& disk = *pair.b().life()->disk;
    disk.add_fault({FaultComponent::kFlush, -EIO, no_room ? 1u : 3u});
    if (no_room) disk.add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, 4096});
    CHECK_EQ(pair.flush(pair.a()), 0);
    CHECK(pair.settle(pair.a()));
    pair.b().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "a disk that fails while a pass ends stays known as stale (rule 6)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(100000);
  // More extents than keepdirty: when the pass is over, bits of the map have to be turned off.
  const uint64_t extent_bytes = pair.options.extent_bytes;
  for (uint64_t i = 0; i < 8; ++i) {
    CHECK_EQ(pair.write(pair.a(), i * extent_bytes, pattern(i, 4096)), 0);
  }
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
  FaultComponent& disk = *pair.a().life()->disk;
  disk.hold(FaultComponent::kWrite, kMetadataBytes, kDataAt - kMetadataBytes);
  // All is copied and flushed; the last store of the map hangs.
  const uint64_t writes = disk.submitted(FaultComponent::kWrite);
  CHECK(pair.loop.run_until([&] { return disk.submitted(FaultComponent::kWrite) > writes; },
                            60 * kSecond));
  // A failed flush marks no extent, so that nothing else keeps the pass from its end.
  disk.add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.loop.run_until([&] { return pair.a().extra().local_stale; }, kSecond));
  disk.release();
  pair.loop.advance(2 * kSecond);
  CHECK(pair.a().extra().local_stale);
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
}

TEST(failure, "given up, and no room to say so here: still written again, not compared (rule 6)") {
  unsigned only_the_peer_knows = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    PairOptions options;
    options.seed = seed;
    Pair pair(options);
    pair.connect();
    const auto bytes = pattern(seed, 8192);
    CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
    FaultComponent& disk = *pair.a().life()->disk;
    disk.add_fault({FaultComponent::kFlush, -EIO, 1});
    disk.add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, kMetadataBytes});
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.loop.advance(kSecond);
    if (pair.a().extra().local_stale) continue;  // a write that fails may have been done
    ++only_the_peer_knows;
    pair.a().crash();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    pair.a().become_secondary();
    CHECK(pair.settle(pair.b()));
    pair.a().power_cut(seed);
    CHECK(std::ranges::equal(pair.a().data().subspan(8192, 8192), bytes));
  }
  CHECK(only_the_peer_knows > 2);
}

TEST(failure, "a flush that failed is known after the role has changed (rule 6)") {
  Pair pair;
  pair.connect();
  const auto bytes = pattern(3, 8192);
  CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
  pair.cut(true);
  pair.loop.advance(100000);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  pair.a().become_init();
  CHECK(pair.a().extra().local_stale);
  // As secondary all of it is written again: a power cut takes nothing that the peer has flushed.
  pair.mend();
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.a().become_secondary();
  CHECK(pair.settle(pair.b()));
  pair.a().power_cut(3);
  CHECK(std::ranges::equal(pair.a().data().subspan(8192, 8192), bytes));
}

TEST(failure, "a copy whose flush failed is not compared after an orderly end in between, either") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Pair pair(roomy());
    pair.connect();
    write_everywhere(pair, seed);
    pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
    CHECK_EQ(pair.flush(pair.a()), 0);
    interrupt_pass(pair, pair.a(), pair.b());
    CHECK(pair.settle(pair.a()));
    pair.b().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "so with a disk that was given up, where only the peer could be told (rule 6)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    PairOptions options = roomy();
    options.seed = seed;
    Pair pair(options);
    pair.connect();
    write_everywhere(pair, seed);
    FaultComponent& disk = *pair.a().life()->disk;
    disk.add_fault({FaultComponent::kFlush, -EIO, 1});
    disk.add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, kMetadataBytes});
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.loop.advance(kSecond);
    pair.a().crash();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    pair.a().become_secondary();
    interrupt_pass(pair, pair.b(), pair.a());
    CHECK(pair.settle(pair.b()));
    pair.a().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "the only good copy that fails a write is not taken for an incomplete one (rule 6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.cut();  // the next connection finds it as the good one
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 30 * kSecond));
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(8, 4096)), EIO);
  CHECK(!pair.b().extra().sync_target);
  pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  pair.flush(pair.a());
  CHECK(!pair.b().extra().sync_target && !pair.b().extra().local_stale);
  pair.a().crash();
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
}

TEST(failure,
     "once the primary is whole again, a write that the secondary fails counts (rule 16)") {
  Pair pair;
  repair_one_block(pair);
  CHECK(pair.settle(pair.a()));
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK(pair.b().extra().sync_target);
}

namespace {
/// The two change roles and come together.
void switch_roles(Pair& pair) {
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
  CHECK(std::ranges::equal(pair.b().data().subspan(4096, 4096), pattern(7, 4096)));
}
}  // namespace

TEST(failure,
     "given up before the peer has heard that it has all: it is told later (rules 6, 16)") {
  Pair pair;
  copied_and_untold(pair);
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, pattern(8, 4096));
  const auto given_up = [&pair] { return pair.a().primary()->stats().local_stale; };
  CHECK(pair.loop.run_until(given_up, kSecond));
  forget_the_end(pair);
  CHECK(pair.loop.run_until([write] { return write->done; }, 60 * kSecond));
  CHECK(pair.loop.run_until([&pair] { return !pair.b().extra().sync_target; }, 60 * kSecond));
  switch_roles(pair);
}

TEST(failure, "given up, the peer not told that it has all, and restarted: no dead end (6, 16)") {
  Pair pair;
  copied_and_untold(pair);
  give_up(pair);
  pair.cut(true);
  forget_the_end(pair);
  pair.loop.advance(2 * kSecond);
  pair.a().crash();
  pair.mend();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK(pair.settle(pair.a()));
  switch_roles(pair);
}

TEST(failure, "a flush that fails before the peer knows that it has all is no dead end (6, 16)") {
  Pair pair;
  copied_and_untold(pair);
  pair.cut(true);
  forget_the_end(pair);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  pair.a().become_init();
  pair.mend();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK(pair.loop.run_until([&] { return pair.a().extra().local_stale; }, 60 * kSecond));
  switch_roles(pair);
}

TEST(failure, "what the only good copy fails while it is told of a second one is no success (16)") {
  Pair pair;
  repair_one_block(pair);
  FaultComponent& ours = *pair.a().life()->disk;
  FaultComponent& theirs = *pair.b().life()->disk;
  // All is copied and flushed; that it is so is written down here only when a write is under way.
  ours.hold(FaultComponent::kWrite, 0, 4096);
  pair.loop.advance(kSecond / 10);
  theirs.hold(FaultComponent::kWrite, kDataAt);
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 4096, 4096, pattern(7, 4096));
  pair.loop.advance(kSecond / 10);
  CHECK(pair.a().extra().sync_target);
  ours.release();
  pair.loop.advance(kSecond / 10);
  CHECK(!pair.a().extra().sync_target && !write->done);
  theirs.add_fault(data_fault(FaultComponent::kWrite, 1));
  theirs.release();
  CHECK(pair.loop.run_until([&] { return write->done; }, kSecond));
  CHECK_EQ(write->error, EIO);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

namespace {
/// Node a has given up its disk, and a new one comes in the place of the only good one.
void replace_good_disk(Pair& pair) {
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(6, 4096)), 0);
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.b().become_init();
  CHECK(pair.loop.run_until([&] { return pair.b().life() == nullptr; }, 30 * kSecond));
  pair.b().replace_disk();
  pair.b().become_secondary();
}
}  // namespace

TEST(failure, "a primary without a disk reads nothing from a new disk of its peer (rule 6)") {
  for (const bool original : {false, true}) {
    PairOptions options;
    options.original_peer = original;
    Pair pair(options);
    replace_good_disk(pair);
    std::vector<std::byte> bytes(4096);
    CHECK_EQ(pair.read(pair.a(), 0, bytes), EIO);
    pair.loop.advance(60 * kSecond);
    CHECK(!pair.a().primary()->stats().complete);
    CHECK_EQ(pair.write(pair.a(), 0, pattern(8, 4096)), EIO);
  }
}

TEST(failure, "a disk that is given up and hangs keeps no answer of the peer back (rule 6)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(6, 4096)), 0);  // the extent is marked now
  FaultComponent& disk = *pair.a().life()->disk;
  disk.add_fault(data_fault(FaultComponent::kWrite, 1));
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 4096, 4096, pattern(7, 4096));
  disk.hold();
  CHECK(pair.loop.run_until([&] { return write->done; }, 2 * kSecond));
  pair.cut();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 30 * kSecond));
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(8, 4096)), 0);
  CHECK(read_back(pair, pair.a(), 4096, 4096) == pattern(7, 4096));
  disk.release();
}

TEST(failure, "the newest copy is not given up because a flush fails without the peer (rule 6)") {
  for (const bool again : {false, true}) {
    Pair pair;
    pair.connect();
    pair.cut(true);
    pair.loop.advance(kSecond);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
    if (again) {
      pair.a().crash();
      pair.a().become_primary();
      CHECK(pair.run_until_serving(pair.a()));
    }
    pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
    CHECK_EQ(pair.flush(pair.a()), EIO);
    pair.a().become_secondary();
    pair.loop.advance(kSecond);
    CHECK(!pair.a().extra().local_stale);
    pair.mend();
    pair.a().become_init();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.loop.run_until([&] { return pair.a().extra().local_stale; }, 60 * kSecond));
    switch_roles(pair);
    CHECK(pair.equal());
  }
}

namespace {
/// Node a writes alone, and a flush of its disk fails.
void fail_alone(Pair& pair, uint64_t times) {
  pair.connect();
  part(pair);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, times});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  pair.loop.advance(kSecond);
}

/// The newest copy has become the secondary, and the other one gets it.
void hand_over(Pair& pair) {
  pair.mend();
  pair.b().become_init();
  pair.b().become_primary();
  pair.a().become_secondary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(until_connected(pair, pair.b()));
}
}  // namespace

TEST(failure, "the newest copy whose flush failed is written again once the peer has it (rule 6)") {
  for (const uint64_t times : {1, 20}) {
    for (const bool crashed : {false, true}) {
      Pair pair;
      fail_alone(pair, times);
      if (crashed) pair.a().crash();
      if (!crashed) pair.a().become_init();
      hand_over(pair);
      CHECK(pair.settle(pair.b()));
      // Not at once, but within seconds: nobody should have to ask for it.
      CHECK(pair.loop.run_until([&] { return !pair.a().extra().flush_failed; }, 10 * kSecond));
      CHECK(pair.settle(pair.b()));
      pair.a().power_cut(times);
      CHECK(pair.equal());
      CHECK(has(pair.a(), 4096, pattern(7, 4096)));
    }
  }
}

TEST(failure, "nor is it compared, should that be interrupted (rule 6)") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Pair pair(roomy());
    pair.connect();
    part(pair);
    write_everywhere(pair, seed);
    pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
    CHECK_EQ(pair.flush(pair.a()), EIO);
    pair.a().become_init();
    hand_over(pair);
    CHECK(pair.loop.run_until([&] { return pair.a().extra().local_stale; }, 60 * kSecond));
    interrupt_pass(pair, pair.b(), pair.a());
    CHECK(pair.settle(pair.b()));
    pair.a().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "an original that ignores our failed flush copies all at the next set-up (rule 6)") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    PairOptions options;
    options.original_node = 0;
    Pair pair(options);
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
    pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
    pair.flush(pair.a());
    CHECK(pair.loop.run_until([&] { return pair.b().extra().flush_failed; }, 10 * kSecond));
    pair.cut();
    CHECK(pair.loop.run_until([&] { return !pair.b().extra().flush_failed; }, 60 * kSecond));
    CHECK(pair.settle(pair.a()));
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.b().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "so when its machine goes down in between (rule 6)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair;
    fail_alone(pair, 1);
    pair.a().become_init();
    hand_over(pair);
    if (seed % 2 == 0) CHECK(pair.settle(pair.b()));
    pair.a().power_cut(seed);
    pair.a().become_secondary();
    CHECK(pair.settle(pair.b()));
    pair.loop.advance(5 * kSecond);
    CHECK(pair.settle(pair.b()));
    pair.a().power_cut(seed);
    CHECK(pair.equal());
  }
}

TEST(failure, "a primary that is primary again gives up its disk when the peer has all (rule 6)") {
  Pair pair;
  fail_alone(pair, 1);
  pair.a().crash();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK_EQ(pair.flush(pair.a()), EIO);  // who reads it back does not know what is stored
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().extra().local_stale; }, 60 * kSecond));
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().power_cut(1);
  CHECK(has(pair.b(), 4096, pattern(7, 4096)));
}

TEST(failure, "a primary whose machine was started again copies all (rule 6)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair;
    fail_alone(pair, 1);
    pair.a().crash();
    pair.a().become_primary();
    pair.mend();
    CHECK(pair.run_until_serving(pair.a()));
    if (seed % 2 == 0) pair.loop.advance(5 * kSecond);
    pair.a().power_cut(seed);
    const bool given_up = pair.a().extra().local_stale;
    pair.a().become_primary();
    if (!given_up) CHECK(pair.run_until_serving(pair.a()));
    if (!given_up) CHECK(pair.settle(pair.a()));
    pair.a().power_cut(seed);
    CHECK(given_up || pair.equal());
    CHECK(given_up || !pair.a().extra().flush_failed);
  }
}

TEST(failure, "so when what is lost had been copied before the restart (rule 6)") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    PairOptions options;
    options.disk_bytes = 16u << 20;
    Pair pair(options);
    fail_alone(pair, 1);
    CHECK_EQ(pair.write(pair.a(), 20 * kExtent, pattern(8, 4096)), 0);
    pair.a().crash();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    FaultComponent& disk = *pair.a().life()->disk;
    disk.hold(FaultComponent::kRead, kDataAt + 20 * kExtent);  // the pass comes to no end
    pair.mend();
    CHECK(until_connected(pair, pair.a()));
    // Flushed there by itself after five seconds; then the next write stores the map without it.
    pair.loop.advance(8 * kSecond);
    CHECK_EQ(pair.write(pair.a(), 40 * kExtent, pattern(9, 4096)), 0);
    CHECK(!marked(pair.a(), 0));
    disk.release();
    pair.a().power_cut(seed);
    if (seed % 2 == 0) {  // and once more, before it has met the peer
      pair.cut(true);
      pair.a().become_primary();
      CHECK(pair.run_until_serving(pair.a()));
      pair.a().power_cut(seed);
      pair.mend();
    }
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(failure, "by force FLUSH says yes after a failed one, and it is remembered still (rule 6)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair;
    fail_alone(pair, 1);
    pair.a().become_init();
    if (seed % 2 == 0) pair.mend();
    pair.a().become_primary(true);
    CHECK(pair.run_until_serving(pair.a()));
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.mend();
    CHECK(pair.settle(pair.a()));
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.a().power_cut(seed);
    pair.loop.advance(kSecond);
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(has(pair.a(), 4096, pattern(7, 4096)));
    CHECK(pair.equal());
  }
}

}  // namespace hast::test
