// What each node knows of the other one, and what it may conclude: nothing that the other has not
// said, and nothing that was only about to be so.

#include <algorithm>
#include <cerrno>

#include "engine/stories.h"

namespace hast::test {

namespace {

PairOptions mode(Replication replication) {
  PairOptions options;
  options.replication = replication;
  return options;
}

/// Somebody can be primary without force.
bool one_leads(Pair& pair) {
  pair.b().become_secondary();
  pair.a().become_primary();
  if (pair.run_until_serving(pair.a(), 30 * kSecond)) return true;
  pair.a().become_secondary();
  pair.b().become_primary();
  return pair.run_until_serving(pair.b(), 30 * kSecond);
}

}  // namespace

TEST(knows, "a write that the secondary fails after it was the source is remembered (16)") {
  for (const bool original : {false, true}) {
    PairOptions options;
    options.original_peer = original;
    Pair pair(options);
    repair_one_block(pair);
    CHECK(pair.settle(pair.a()));
    pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite));
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
    CHECK(pair.b().extra().sync_target);
  }
}

TEST(knows, "so is a last flush that fails (16)") {
  PairOptions options;
  options.original_peer = true;
  Pair pair(options);
  repair_one_block(pair);
  CHECK(pair.settle(pair.a()));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  pair.a().crash();
  pair.loop.advance(30 * kSecond);
  CHECK(pair.b().extra().sync_target);
}

TEST(knows, "to lead alone without a write, after an orderly demotion, is no divergence") {
  for (const Replication r : {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    Pair pair(mode(r));
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.loop.advance(10 * kSecond);
    CHECK(pair.settle(pair.a()));
    pair.a().become_init();  // in order: all is on both disks
    CHECK(pair.equal());
    pair.cut(true);
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.a().become_secondary();
    CHECK_EQ(pair.a().metadata().localcnt, 0u);
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 8192, pattern(8, 4096)), 0);
    pair.mend();
    CHECK(pair.settle(pair.b()));
    CHECK(!said_split_brain(pair.b()));
  }
}

namespace {
/// Node a died ahead of its peer, and meets it again, of which that hears nothing.
void meet_in_vain(Pair& pair) {
  pair.connect();
  die_ahead(pair);
  pair.b().become_init();
  pair.mend();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.loop.run_until([&] { return pair.b().life() != nullptr; }, 30 * kSecond));
  pair.silence_one_way(0);  // so MAP_STORED gets lost
  CHECK(pair.loop.run_until([&] { return connected(pair.a()); }, 30 * kSecond));
  pair.cut(true);
  pair.loop.advance(kSecond);
}
}  // namespace

TEST(knows, "async: flushed alone after a meeting of which the peer knows nothing counts (7)") {
  Pair pair(mode(Replication::kAsync));
  meet_in_vain(pair);
  CHECK(!pair.b().extra().sync_target);
  survives_flushed(pair);
}

TEST(knows, "async: nor is it overwritten after an orderly change of roles (7)") {
  for (const bool original : {false, true}) {
    PairOptions options = mode(Replication::kAsync);
    options.original_peer = original;
    Pair pair(options);
    meet_in_vain(pair);
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.a().become_secondary();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 8192, pattern(8, 4096)), 0);
    pair.mend();
    const bool settled = pair.settle(pair.b(), 30 * kSecond);
    // Either a split-brain is said, or the flushed block is there.
    CHECK(said_split_brain(pair.b()) || !settled ||
          read_back(pair, pair.b(), 4096, 4096) == pattern(7, 4096));
  }
}

TEST(knows, "given up, the peer untold over two connections: no dead end (6, 16)") {
  Pair pair;
  copied_and_untold(pair);
  give_up(pair);
  pair.cut(true);
  forget_the_end(pair);
  pair.loop.advance(2 * kSecond);
  CHECK(!pair.a().extra().local_stale);
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.b().life() != nullptr; }, 30 * kSecond));
  pair.b().life()->disk->hold(FaultComponent::kWrite, 4096, kDataAt - 4096);
  CHECK(pair.loop.run_until([&] { return connected(pair.a()); }, 30 * kSecond));
  pair.loop.advance(kSecond / 10);
  pair.cut(true);
  forget_the_end(pair);
  pair.loop.advance(2 * kSecond);
  CHECK(!pair.a().extra().local_stale);
  pair.a().crash();
  pair.mend();
  CHECK(one_leads(pair));
}

namespace {
/// Node a died with marks on its disk and leads alone again, without a write; node b has led alone
/// and written, and is gone again when node a knows that it is the target.
void newer_peer_comes(Pair& pair) {
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().crash();
  pair.cut(true);
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 8192, pattern(8, 4096)), 0);
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.b().become_secondary();
  pair.a().life()->disk->hold(FaultComponent::kWrite, 0, 4096);
  pair.mend();
  pair.a().primary()->kick();
  pair.loop.advance(2 * kSecond);
  CHECK(!connected(pair.a()));  // it is about to write down that it is the target
  pair.cut(true);
  pair.a().life()->disk->release();
  pair.loop.advance(kSecond);
  CHECK(pair.a().extra().sync_target);
}
}  // namespace

TEST(knows, "a FLUSH while the peer with newer data is gone again counts nothing (7)") {
  Pair pair(mode(Replication::kMemsync));
  newer_peer_comes(pair);
  CHECK_EQ(pair.flush(pair.a()), EIO);  // what is here will be overwritten
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
  CHECK(!said_split_brain(pair.a()));
}

TEST(knows, "nor does a demotion then (7)") {
  Pair pair(mode(Replication::kMemsync));
  newer_peer_comes(pair);
  pair.a().become_secondary();
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.mend();
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(knows, "what was written in async and flushed alone in fullsync counts (7)") {
  Pair pair(mode(Replication::kAsync));
  pair.connect();
  die_ahead(pair);
  pair.options.replication = Replication::kFullsync;
  survives_flushed_alone(pair);
}

TEST(knows, "so it is when the mode was changed while it ran (7)") {
  Pair pair(mode(Replication::kFullsync));
  pair.connect();
  pair.loop.advance(10 * kSecond);
  PrimarySettings settings;
  settings.replication = Replication::kAsync;
  pair.a().primary()->reconfigure(settings);
  pair.loop.advance(kSecond / 10);
  CHECK_EQ(pair.a().primary()->stats().replication, static_cast<uint8_t>(Replication::kAsync));
  die_ahead(pair);
  survives_flushed_alone(pair);
}

TEST(knows, "the mode that was asked for last holds, however soon it was") {
  Pair pair(mode(Replication::kFullsync));
  pair.connect();
  pair.loop.advance(10 * kSecond);
  PrimarySettings settings;
  for (const Replication r : {Replication::kAsync, Replication::kFullsync}) {
    settings.replication = r;
    pair.a().primary()->reconfigure(settings);
  }
  pair.loop.advance(kSecond / 10);
  CHECK_EQ(pair.a().primary()->stats().replication, static_cast<uint8_t>(Replication::kFullsync));
}

TEST(knows, "the peer's old disk can be brought back, as the log says (6)") {
  for (const bool original : {false, true}) {
    PairOptions options;
    options.original_peer = original;
    Pair pair(options);
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 0, pattern(6, 4096)), 0);
    pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
    pair.b().become_init();
    CHECK(pair.loop.run_until([&] { return pair.b().life() == nullptr; }, 30 * kSecond));
    const ConstBytes now = pair.b().disk().current();
    const std::vector<std::byte> old(now.begin(), now.end());
    pair.b().replace_disk();
    pair.b().become_secondary();
    pair.loop.advance(30 * kSecond);
    CHECK(!connected(pair.a()));
    pair.b().become_init();
    pair.b().disk().set(0, old);
    pair.a().become_secondary();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK(read_back(pair, pair.b(), 0, 4096) == pattern(6, 4096));
    CHECK(read_back(pair, pair.b(), 4096, 4096) == pattern(7, 4096));
    CHECK(pair.settle(pair.b()));
    CHECK(original || pair.equal());
  }
}

TEST(knows, "what was flushed without the peer is there when both have lost power (9, F)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.b().power_cut(0);  // with what it had not flushed
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().power_cut(0);
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(read_back(pair, pair.b(), 4096, 4096) == pattern(7, 4096));
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(knows, "a stale copy that is forced to lead is copied whole, to an original, too (6)") {
  for (const bool original : {false, true}) {
    PairOptions options;
    options.original_peer = original;
    Pair pair(options);
    pair.connect();
    pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
    CHECK_EQ(pair.write(pair.a(), 20 * kExtent, pattern(7, 4096)), 0);
    CHECK(pair.a().extra().local_stale);
    pair.loop.advance(10 * kSecond);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(6, 4096)), 0);
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.a().crash();
    pair.b().become_init();
    pair.a().become_primary(true);
    CHECK(pair.run_until_serving(pair.a()));
    pair.b().become_secondary();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(knows, "a promotion that is called off in the middle of its set-up counts nothing (21)") {
  Pair pair(mode(Replication::kMemsync));
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().become_init();
  pair.b().become_init();
  pair.b().become_primary();  // alone, without a write
  CHECK(pair.run_until_serving(pair.b()));
  pair.b().become_secondary();
  const uint64_t before = pair.b().metadata().localcnt;
  CHECK_EQ(before, 0u);
  // Marks that the other one does not have, so that the merged map is written.
  pair.b().become_init();
  std::vector<std::byte> map(512, std::byte{0});
  map[1] = std::byte{0x01};
  pair.b().disk().set(4096, map);
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.loop.run_until([&] { return pair.a().life() != nullptr; }, kSecond));
  pair.a().life()->disk->hold(FaultComponent::kWrite, 4096, kDataAt - 4096);
  pair.loop.advance(kSecond / 2);
  CHECK(!pair.a().serving());
  pair.a().primary()->stop_admission();
  pair.loop.advance(kSecond / 10);
  pair.a().life()->disk->release();
  pair.loop.advance(kSecond);
  pair.a().become_secondary();
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
}

namespace {
/// Node a died as a process, in sync, and is about to copy what it had marked to node b; nobody has
/// written alone.
void repeats_its_marks(Pair& pair) {
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().crash();
  CHECK(pair.loop.run_until([&] { return pair.b().extra().boot == 0; }, 10 * kSecond));
  pair.b().become_init();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.loop.run_until([&] { return pair.b().life() != nullptr; }, 30 * kSecond));
  pair.b().life()->disk->hold(FaultComponent::kWrite, kDataAt);
  CHECK(pair.loop.run_until([&] { return connected(pair.a()); }, 30 * kSecond));
  CHECK(pair.loop.run_until([&] { return pair.b().extra().sync_target; }, 30 * kSecond));
  pair.loop.advance(kSecond / 10);
}

/// The peer, still a target, loses all that it was about to write down, and node a dies.
void no_dead_end(Pair& pair) {
  pair.cut(true);
  pair.b().power_cut(0);
  pair.b().become_secondary();
  pair.loop.advance(2 * kSecond);
  CHECK(pair.b().extra().sync_target);
  CHECK(!pair.a().extra().local_stale);
  pair.a().crash();
  pair.mend();
  CHECK(one_leads(pair));
}
}  // namespace

TEST(knows, "equal generations are no proof while a pass runs: a disk given up (6, 16)") {
  Pair pair;
  repeats_its_marks(pair);
  pair.b().life()->disk->release();
  pair.b().life()->disk->hold(FaultComponent::kFlush);
  pair.loop.advance(kSecond / 2);
  CHECK(pair.b().extra().sync_target);
  give_up(pair);
  no_dead_end(pair);
}

TEST(knows, "so it is when the flush at the end of the pass fails (6, 16)") {
  Pair pair;
  repeats_its_marks(pair);
  pair.b().life()->disk->release();
  pair.b().life()->disk->hold(FaultComponent::kFlush);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  const auto given_up = [&pair] { return pair.a().primary()->stats().local_stale; };
  CHECK(pair.loop.run_until(given_up, 10 * kSecond));
  no_dead_end(pair);
}

TEST(knows, "so it is when a flush fails alone in the middle of the pass (6, 16)") {
  Pair pair;
  repeats_its_marks(pair);
  pair.b().life()->disk->hold(FaultComponent::kWrite, kDataAt);
  pair.loop.advance(kSecond / 10);
  pair.cut(true);
  pair.b().crash();
  pair.loop.advance(kSecond);
  CHECK(pair.b().extra().sync_target);
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  pair.a().become_init();
  CHECK(!pair.a().extra().local_stale);
  pair.mend();
  CHECK(one_leads(pair));
}

TEST(knows, "the end of a pass that its source could not write down is the end all the same (16)") {
  Pair pair;
  repair_one_block(pair);
  FaultComponent& theirs = *pair.b().life()->disk;
  theirs.add_fault({FaultComponent::kWrite, -EIO, 1, 0, 4096});
  CHECK(pair.loop.run_until([&] { return !pair.a().extra().sync_target; }, 10 * kSecond));
  pair.loop.advance(kSecond / 10);
  CHECK(pair.a().primary()->stats().dirty_bytes > 0);  // the end has not been taken
  theirs.add_fault(data_fault(FaultComponent::kWrite, 1));
  const int rc = pair.write(pair.a(), 4096, pattern(7, 4096));
  const bool noted = pair.b().extra().sync_target;
  CHECK(rc != 0 || noted);
  pair.a().crash();
  pair.b().become_init();
  pair.b().become_primary();
  if (pair.run_until_serving(pair.b(), 30 * kSecond) && rc == 0) {
    CHECK(read_back(pair, pair.b(), 4096, 4096) == pattern(7, 4096));
  }
}

TEST(knows, "given up after a write was counted while connected: no split-brain (6)") {
  Pair pair;
  pair.connect();
  pair.b().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  pair.b().life()->disk->hold(FaultComponent::kFlush);
  pair.loop.advance(5 * kSecond);
  pair.b().life()->disk->release();
  pair.b().life()->disk->hold(FaultComponent::kFlush);
  pair.loop.advance(2 * kSecond);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  pair.a().life()->disk->add_fault({FaultComponent::kWrite | FaultComponent::kFlush, -EIO});
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, pattern(8, 4096));
  pair.loop.advance(kSecond / 10);
  pair.b().life()->disk->release();
  CHECK(until_done(pair, write));
  CHECK_EQ(write->error, 0);
  pair.cut();
  pair.loop.advance(30 * kSecond);
  CHECK(!said_split_brain(pair.a()));
  CHECK(connected(pair.a()));
}

TEST(knows, "untold of the end, restarted, and a flush fails alone: no dead end (6, 16)") {
  Pair pair;
  copied_and_untold(pair);
  pair.cut(true);
  forget_the_end(pair);
  pair.a().crash();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.a().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1});
  CHECK_EQ(pair.flush(pair.a()), EIO);
  pair.a().become_init();
  CHECK(!pair.a().extra().local_stale);
  pair.mend();
  CHECK(one_leads(pair));
}

TEST(knows, "a secondary put back to before the last pass is no source after a power cut (13)") {
  for (const bool heard_again : {false, true}) {
    Pair pair;
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(1, 4096)), 0);
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.b().become_init();
    const ConstBytes now = pair.b().disk().current();
    const std::vector<std::byte> old(now.begin(), now.end());
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(2, 4096)), 0);  // alone
    pair.b().become_secondary();
    CHECK(pair.settle(pair.a()));  // and copied: both know that it is
    CHECK_EQ(pair.b().extra().generation, pair.a().extra().generation);
    if (heard_again) {
      pair.cut();
      pair.loop.advance(5 * kSecond);
      CHECK(pair.settle(pair.a()));
    }
    // Long after that; far away from what is marked, too.
    CHECK_EQ(pair.write(pair.a(), 20 * kExtent, pattern(3, 4096)), 0);
    for (uint64_t extent = 1; extent < 10; ++extent) {
      CHECK_EQ(pair.write(pair.a(), extent * kExtent, pattern(10 + extent, 4096)), 0);
    }
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.loop.advance(10 * kSecond);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(4, 4096)), 0);
    CHECK_EQ(pair.flush(pair.a()), 0);
    CHECK(pair.settle(pair.a()));
    pair.a().power_cut(0);
    pair.b().become_init();
    pair.b().disk().set(0, old);  // a snapshot of it is rolled back
    pair.b().become_secondary();
    pair.a().become_primary();
    pair.run_until_serving(pair.a(), 30 * kSecond);
    if (!pair.settle(pair.a(), 30 * kSecond)) {
      CHECK(said_split_brain(pair.a()));
      continue;
    }
    CHECK(pair.equal());
    CHECK(read_back(pair, pair.a(), 4096, 4096) == pattern(4, 4096));
  }
}

}  // namespace hast::test
