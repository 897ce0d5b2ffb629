// The peer goes away: what is marked, counted and answered; who may serve afterwards.

#include <algorithm>
#include <cerrno>

#include "engine/stories.h"

namespace hast::test {

namespace {
/// Steps until the node has so many writes in flight at the disk.
void until_on_disk(Pair& pair, Node& node, std::size_t count) {
  pair.loop.run_until([&] { return node.life()->disk->outstanding() >= count; }, kSecond);
}

/// Cuts the link when it has come up in the ready queue so many times.
struct Cutter : Timer {
  Pair& pair;
  uint32_t turns;
  Cutter(Pair& p, uint32_t t) : pair(p), turns(t) {
    run = [](Completion& c) {
      Cutter& self = static_cast<Cutter&>(c);
      if (self.turns == 0) return self.pair.cut(true);
      --self.turns;
      self.pair.loop.ready(self, 0);
    };
  }
};
/// Node b as the secondary with the newer data in every extent, node a as the primary that gets it.
void repair_from_peer(Pair& pair) {
  repair(pair, [&pair] {
    for (uint64_t at = 0; at < pair.b().data().size(); at += 131072) {
      CHECK_EQ(pair.write(pair.b(), at, pattern(at + 5, 4096)), 0);
    }
  });
}
}  // namespace

TEST(loss, "a reply that overtakes the end of its own send frees nothing early") {
  Pair pair;
  pair.network.options.capacity_bytes = 6000;  // a batch is sent in many pieces
  pair.connect();
  for (uint64_t round = 0; round < 20; ++round) {
    for (uint64_t i = 0; i < 32; ++i) {
      pair.begin(pair.a(), RequestOp::kWrite, i * 4096, 4096, pattern(round * 100 + i, 4096));
    }
    pair.loop.advance(50);
  }
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(loss, "bits are on disk before the first byte of data (1 of 13, rule 10)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->hold();
  pair.begin(pair.a(), RequestOp::kWrite, 900 * 1024, 4096, pattern(7, 4096));
  pair.loop.advance(1000);
  // Only the map's sector is under way, and nothing has gone to the peer.
  CHECK_EQ(pair.a().life()->disk->outstanding(), 1u);
  CHECK(!std::ranges::equal(pair.b().data().subspan(900 * 1024, 4096), pattern(7, 4096)));
  pair.a().life()->disk->release();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(loss, "every difference after a crash lies under a bit of the map (2 of 13)") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    PairOptions options;
    options.seed = seed;
    options.replication = static_cast<Replication>(seed % 3);
    Pair pair(options);
    pair.connect();
    for (uint64_t i = 0; i < 24; ++i) {
      pair.begin(pair.a(), RequestOp::kWrite, i * 122880, 8192, pattern(seed * 100 + i, 8192));
    }
    pair.loop.advance(20 * seed);
    if (seed % 2 == 0) {
      pair.a().crash();
    } else {
      pair.a().power_cut(seed);
    }
    pair.loop.advance(2 * kSecond);  // the other one carries out what it has received
    const std::vector<std::byte> map = pair.a().map();
    const ConstBytes left = pair.a().data();
    const ConstBytes right = pair.b().data();
    for (std::size_t at = 0; at < left.size(); at += 4096) {
      if (std::ranges::equal(left.subspan(at, 4096), right.subspan(at, 4096))) continue;
      const std::size_t extent = at / options.extent_bytes;
      const bool marked = (static_cast<unsigned>(map[extent / 8]) >> (extent % 8) & 1) != 0;
      if (!marked) fail(__FILE__, __LINE__, "unmarked difference, seed " + std::to_string(seed));
    }
  }
}

TEST(loss, "the counter is on disk before the first lone write is answered (R-12, R-13)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  pair.a().power_cut(0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
}

TEST(loss, "one lone period counts once, also with deletes only; a refused write never (rule 7)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.discard(pair.a(), 0, 8192), 0);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  CHECK_EQ(pair.write(pair.a(), 131072, pattern(1, 4096)), 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
}

TEST(loss, "a start without the peer counts anew on the first write (R-13)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  pair.a().crash();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 4096)), 0);
  CHECK_EQ(pair.a().metadata().localcnt, 2u);
}

TEST(loss, "writes in flight at the loss count before they are answered (rule 7)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  pair.b().life()->disk->hold();
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 0, 4096, pattern(2, 4096));
  pair.loop.advance(kSecond / 2);
  CHECK(!write->done);
  pair.cut(true);
  CHECK(pair.loop.run_until([write] { return write->done; }, 60 * kSecond));
  CHECK_EQ(write->error, 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  pair.b().life()->disk->release();
}

TEST(loss, "what the peer had not flushed is copied again when it lost power (rule 1)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 131072)), 0);
  pair.b().power_cut(4);  // loses its cache
  CHECK(!pair.equal());
  pair.b().become_secondary();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(loss, "demoted before the peer got back what it lost: the good copy wins") {
  for (const bool original : {false, true}) {  // beside an original, only counters can say so
    PairOptions options;
    options.original_peer = original;
    Pair pair(options);
    pair.connect();
    const auto bytes = pattern(2, 131072);
    CHECK_EQ(pair.write(pair.a(), 0, bytes), 0);
    pair.b().power_cut(4);
    CHECK(!pair.equal());
    pair.a().become_secondary();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK(read_back(pair, pair.b(), 0, 131072) == bytes);
    CHECK(pair.settle(pair.b()));
    CHECK(pair.equal());
  }
}

TEST(loss, "what a secondary called received is carried out and flushed at the end (R-17)") {
  PairOptions options;
  options.replication = Replication::kMemsync;
  Pair pair(options);
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  pair.b().life()->disk->set_delay(20000, 50000);
  for (uint64_t i = 0; i < 8; ++i) {
    CHECK_EQ(pair.write(pair.a(), i * 4096, pattern(10 + i, 4096)), 0);
  }
  pair.a().crash();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.b().power_cut(4);
  for (uint64_t i = 0; i < 8; ++i) {
    CHECK(std::ranges::equal(pair.b().data().subspan(i * 4096, 4096), pattern(10 + i, 4096)));
  }
}

TEST(loss, "a secondary with reads on its disk comes to its end") {
  Pair pair;
  pair.a().disk().set(2u << 20, pattern(5, 131072));
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  until_on_disk(pair, pair.b(), 4);  // comparisons of the first pass
  Life* const life = pair.b().life();
  pair.b().life()->disk->hold();
  pair.loop.advance(1000);
  pair.cut(true);
  pair.loop.advance(1000);
  life->disk->release();
  CHECK(pair.loop.run_until([life] { return life->ended; }, 60 * kSecond));
}

TEST(loss, "a flush that ends after the peer was lost confirms nothing there (rule 1)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  pair.a().life()->disk->hold();
  Pair::Operation* flush = pair.begin(pair.a(), RequestOp::kFlush, 0, 0);
  pair.loop.advance(kSecond / 2);  // the peer has answered, our disk has not
  pair.cut(true);
  pair.loop.advance(1000);
  pair.a().life()->disk->release();
  CHECK(pair.loop.run_until([flush] { return flush->done; }, 60 * kSecond));
  CHECK_EQ(flush->error, 0);
  pair.mend();
  CHECK(pair.settle(pair.a()));
}

TEST(loss, "after a FLUSH both disks have every answered write, in every mode (rule 9)") {
  for (const Replication mode :
       {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    PairOptions options;
    options.replication = mode;
    Pair pair(options);
    pair.connect();
    for (uint64_t i = 0; i < 8; ++i) {
      CHECK_EQ(pair.write(pair.a(), i * 8192, pattern(10 + i, 8192)), 0);
    }
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.b().power_cut(4);
    pair.a().power_cut(4);
    for (uint64_t i = 0; i < 8; ++i) {
      CHECK(std::ranges::equal(pair.a().data().subspan(i * 8192, 8192), pattern(10 + i, 8192)));
      CHECK(std::ranges::equal(pair.b().data().subspan(i * 8192, 8192), pattern(10 + i, 8192)));
    }
  }
}

TEST(loss, "FUA survives a power cut on both nodes, beside ours and beside an original (rule 9)") {
  for (const bool original : {false, true}) {
    PairOptions options;
    options.replication = Replication::kAsync;
    options.original_peer = original;
    Pair pair(options);
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(3, 4096), true), 0);
    pair.b().power_cut(4);
    pair.a().power_cut(4);
    CHECK(std::ranges::equal(pair.a().data().subspan(8192, 4096), pattern(3, 4096)));
    CHECK(std::ranges::equal(pair.b().data().subspan(8192, 4096), pattern(3, 4096)));
  }
}

TEST(loss, "fullsync waits for the peer's disk, memsync for its memory, async for neither") {
  for (const Replication mode :
       {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    PairOptions options;
    options.replication = mode;
    Pair pair(options);
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
    pair.b().life()->disk->hold();
    Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 0, 4096, pattern(2, 4096));
    pair.loop.advance(kSecond / 2);
    CHECK_EQ(write->done, mode != Replication::kFullsync);
    pair.b().life()->disk->release();
    CHECK(pair.settle(pair.a()));
  }
}

TEST(loss, "the source of a copy is not taken for its target (rule 16)") {
  Pair pair;
  pair.connect();
  pair.b().become_init();
  pair.loop.advance(100000);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(6, 131072)), 0);
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.loop.advance(50);
  CHECK(!pair.a().extra().sync_target);
  CHECK(pair.b().extra().sync_target);
  // The target dies in the middle: the source serves.
  pair.b().crash();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
}

TEST(loss, "half a copy is not served, until the pass is over (rule 16)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  for (uint64_t i = 0; i < 16; ++i) {
    CHECK_EQ(pair.write(pair.a(), i * 131072, pattern(10 + i, 131072)), 0);
  }
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
  pair.loop.advance(200);
  CHECK(pair.a().primary()->stats().dirty_bytes > 0);
  pair.a().crash();
  pair.b().become_primary();
  Life* life = pair.b().life();
  pair.loop.run_until([life] { return life->started; }, 60 * kSecond);
  CHECK(!life->serving);
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.b().become_secondary();
  CHECK(pair.settle(pair.a()));
  CHECK(!pair.b().extra().sync_target);
  CHECK(pair.equal());
}

TEST(loss, "with the newer data at the peer, success waits for the peer's disk in every mode") {
  for (const Replication mode : {Replication::kMemsync, Replication::kAsync}) {
    PairOptions options;
    options.replication = mode;
    Pair pair(options);
    pair.connect();
    pair.b().become_init();
    pair.loop.advance(100000);
    for (uint64_t i = 0; i < 16; ++i) {
      CHECK_EQ(pair.write(pair.a(), i * 131072, pattern(6 + i, 131072)), 0);
    }
    pair.a().become_secondary();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    const uint64_t last = 15 * 131072;
    pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, (1u << 20) + last, 4096});
    Pair::Operation* write = pair.begin(pair.b(), RequestOp::kWrite, last, 4096, pattern(99, 4096));
    CHECK(pair.loop.run_until([write] { return write->done; }, 60 * kSecond));
    CHECK_EQ(write->error, EIO);
    CHECK(pair.settle(pair.b()));
    CHECK(pair.equal());
  }
}

TEST(loss, "a demotion settles what is in flight, refuses what is new, and leaves nothing marked") {
  Pair pair;
  pair.connect();
  std::vector<Pair::Operation*> writes;
  for (uint64_t i = 0; i < 16; ++i) {
    writes.push_back(
        pair.begin(pair.a(), RequestOp::kWrite, i * 8192, 8192, pattern(10 + i, 8192)));
  }
  pair.loop.advance(20);
  pair.a().become_secondary();
  for (const Pair::Operation* write : writes) CHECK(write->done);
  CHECK(pair.equal());
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
}

TEST(loss, "a refusal is heard even when the second connection ends first") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    PairOptions options;
    options.seed = seed;
    Pair pair(options);
    pair.network.options.delay_max_us = 500;
    pair.connect();
    pair.cut(true);
    pair.loop.advance(kSecond);
    CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 4096)), 0);
    pair.a().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 0, pattern(3, 4096)), 0);
    pair.mend();
    pair.a().become_secondary();
    pair.loop.advance(12 * kSecond);
    CHECK(pair.b().logged("split-brain"));
    CHECK(!pair.b().logged("(no answer)"));
  }
}

TEST(loss, "both wrote before they ever met: nothing is taken for equal (R-11)") {
  for (const bool original : {false, true}) {
    PairOptions options;
    options.original_peer = original;
    Pair pair(options);
    pair.cut(true);
    for (Node* node : {&pair.a(), &pair.b()}) {
      node->become_primary();
      CHECK(pair.run_until_serving(*node));
      CHECK_EQ(pair.write(*node, 4096, pattern(node == &pair.a() ? 1 : 2, 4096)), 0);
      node->become_init();
    }
    pair.mend();
    pair.b().become_secondary();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    const bool same = pair.settle(pair.a(), 20 * kSecond) && pair.equal();
    CHECK(same || pair.a().logged("split-brain"));
  }
}

TEST(loss, "restarts as primary on both sides do not hide a divergence (R-13)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  pair.a().crash();
  pair.b().crash();
  for (Node* node : {&pair.a(), &pair.b()}) {
    node->become_primary();
    CHECK(pair.run_until_serving(*node));
    CHECK_EQ(pair.write(*node, 4096, pattern(node == &pair.a() ? 1 : 2, 4096)), 0);
    node->become_init();
  }
  pair.mend();
  pair.b().become_secondary();
  pair.a().become_primary();
  pair.loop.advance(20 * kSecond);
  CHECK(pair.a().logged("split-brain"));
}

TEST(loss, "confirmed by a peer that was lost before our own disk was done: marked (rule 1)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair;
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
    pair.loop.advance(10 * kSecond);  // flushed
    pair.a().life()->disk->hold();
    Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 0, 4096, pattern(2, 4096));
    pair.loop.advance(kSecond / 2);
    pair.b().power_cut(seed);
    pair.loop.advance(kSecond / 2);
    pair.a().life()->disk->release();
    CHECK(pair.loop.run_until([write] { return write->done; }, 60 * kSecond));
    pair.b().become_secondary();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(loss, "an incomplete copy is no source, though the counters are equal (rule 16)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 131072)), 0);
  pair.a().crash();
  pair.a().become_primary();  // its map still has bits: a pass with equal counters
  CHECK(pair.loop.run_until([&] { return pair.b().extra().sync_target; }, 60 * kSecond));
  pair.a().crash();
  pair.a().become_secondary();
  pair.b().become_primary();  // it says so, and is brought up by the other one
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(read_back(pair, pair.b(), 0, 131072) == pattern(2, 131072));
  CHECK(pair.settle(pair.b()));
  CHECK(std::ranges::equal(pair.a().data().first(131072), pattern(2, 131072)));
  CHECK(std::ranges::equal(pair.b().data().first(131072), pattern(2, 131072)));
}

TEST(loss, "the peer's marks are on our disk before the peer forgets them (rule 15)") {
  Pair pair;
  pair.connect();
  pair.b().become_init();
  pair.loop.advance(100000);
  CHECK_EQ(pair.write(pair.a(), 2u << 20, pattern(6, 131072)), 0);
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.loop.run_until([&] { return pair.b().primary()->stats().complete; }, 60 * kSecond));
  pair.loop.run_until(
      [&] { return pair.a().map() == std::vector<std::byte>(pair.a().map().size()); }, kSecond);
  pair.b().power_cut(4);
  const auto marked = [](const Node& node) { return node.map()[2] != std::byte{0}; };
  CHECK(marked(pair.a()) || marked(pair.b()));
}

TEST(loss, "half a copy of an original is not served either (rule 16)") {
  PairOptions options;
  options.original_peer = true;
  Pair pair(options);
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(10, 131072)), 0);
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
  pair.a().crash();
  pair.b().become_primary();
  Life* life = pair.b().life();
  pair.loop.run_until([life] { return life->started; }, 60 * kSecond);
  CHECK(!life->serving);
}

TEST(loss, "a write that had to wait is issued in the state that was checked (rule 7)") {
  // The link breaks when the map has just been stored, so many turns of the ready queue later.
  for (uint32_t turns = 0; turns < 24; ++turns) {
    Pair pair;
    pair.connect();
    pair.a().life()->disk->set_delay(40, 40);
    Cutter cutter(pair, turns);
    pair.loop.start(cutter, pair.loop.now_us() + 40);
    const auto bytes = pattern(turns, 4096);
    Pair::Operation* first = pair.begin(pair.a(), RequestOp::kWrite, 900 * 1024, 4096, bytes);
    Pair::Operation* second = pair.begin(pair.a(), RequestOp::kWrite, 904 * 1024, 4096, bytes);
    pair.loop.advance(2 * kSecond);
    CHECK(first->done && first->error == 0 && second->done && second->error == 0);
    const bool there = std::ranges::equal(pair.b().data().subspan(900 * 1024, 4096), bytes) &&
                       std::ranges::equal(pair.b().data().subspan(904 * 1024, 4096), bytes);
    // What the peer has not got is never a secret of this node alone.
    CHECK(there || pair.a().metadata().localcnt == 1);
    pair.mend();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(loss, "a client that leaves while its writes wait for the peer disturbs nothing (rule 12)") {
  for (const Replication mode : {Replication::kMemsync, Replication::kAsync}) {
    PairOptions options;
    options.replication = mode;
    Pair pair(options);
    pair.connect();
    Primary& primary = *pair.a().primary();
    const uint32_t idle = primary.stats().queue_idle;
    pair.b().life()->disk->hold();
    {
      ProviderClient client;
      Signal unused;
      Signal answered[8];
      Request* requests[8] = {};
      for (uint32_t i = 0; i < 8; ++i) {
        requests[i] = primary.acquire(client, unused, nullptr);
        REQUIRE(requests[i] != nullptr);
        requests[i]->op = RequestOp::kWrite;
        requests[i]->offset = i * 4096;
        requests[i]->length = 4096;
        requests[i]->answered = &answered[i];
        primary.submit(*requests[i]);
      }
      const auto all = [&] {
        return std::ranges::all_of(answered, [](const Signal& each) { return each.done; });
      };
      CHECK(pair.loop.run_until(all, kSecond));
      for (Request* request : requests) primary.release(*request);
      CHECK(client.slots_held > 0);
      primary.leave(client);
      CHECK_EQ(client.slots_held, 0u);
    }
    pair.b().life()->disk->release();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    CHECK_EQ(primary.stats().queue_idle, idle);
  }
}

TEST(loss, "a hole with FUA survives a power cut on both nodes (rule 9)") {
  Pair pair;
  pair.connect();
  const auto bytes = pattern(7, 8192);
  CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  const Pair::Operation* hole =
      pair.begin(pair.a(), RequestOp::kDelete, 8192, 8192, {}, /*fua=*/true);
  CHECK(pair.loop.run_until([&] { return hole->done; }, kSecond));
  CHECK_EQ(hole->error, 0);
  for (const Node* node : {&pair.a(), &pair.b()}) {
    const ConstBytes durable = const_cast<Node*>(node)->disk().durable();
    const ConstBytes there = durable.subspan(node->metadata().offset + 8192, 8192);
    CHECK(std::ranges::all_of(there, [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(loss, "a peer that is heard of during an attempt is asked again at once (rule 20)") {
  Pair pair;
  pair.connect();
  pair.silence();
  pair.loop.advance(5 * kSecond);  // noticed, and an attempt hangs
  CHECK(!pair.a().primary()->stats().complete);
  pair.a().primary()->kick();
  pair.mend();
  // The attempt ends 20 s after it began; the pause of a second that would follow is left out.
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 30 * kSecond));
  CHECK(pair.loop.now_us() < 25 * kSecond);
}

TEST(loss, "a disk that was put back to an older state is not taken for equal (rule 13)") {
  for (const bool as_primary : {false, true}) {
    Pair pair;
    pair.connect();
    const ConstBytes now = pair.a().disk().current();
    const std::vector<std::byte> image(now.begin(), now.end());
    // A lone period that the peer gets to know in full: the counters are as before it.
    pair.cut(true);
    pair.loop.advance(kSecond);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
    pair.mend();
    CHECK(pair.settle(pair.a()));
    CHECK_EQ(pair.a().metadata().localcnt, 0u);
    pair.a().crash();
    pair.a().disk().set(0, image);
    Node& primary = as_primary ? pair.a() : pair.b();
    Node& other = as_primary ? pair.b() : pair.a();
    other.become_init();
    other.become_secondary();
    primary.become_primary();
    CHECK(pair.run_until_serving(primary));
    pair.loop.advance(kSecond);
    CHECK(!primary.primary()->stats().complete);
    const auto& events = primary.life()->host.events;
    CHECK(std::ranges::find(events, EventName::kSplitBrain) != events.end());
  }
}

TEST(loss, "cut off at any moment of a pass's end, the two know each other again (13, rule 16)") {
  for (uint64_t us = 1; us <= 2500; us += 25) {
    PairOptions options;
    options.seed = us;
    Pair pair(options);
    pair.connect();
    pair.cut(true);
    pair.loop.advance(100000);
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(us, 4096)), 0);
    pair.mend();
    CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
    pair.loop.advance(us);
    // Now either of them dies; the other one writes alone.
    const bool first = us % 2 == 0;
    (first ? pair.a() : pair.b()).crash();
    Node& left = first ? pair.b() : pair.a();
    if (first) {
      left.become_init();
      left.become_primary();
      pair.loop.run_until([&] { return left.serving() || left.role() == NodeRole::kInit; },
                          60 * kSecond);
    }
    if (left.serving()) CHECK_EQ(pair.write(left, 8192, pattern(us + 1, 4096)), 0);
    Node& back = first ? pair.a() : pair.b();
    // Half a copy does not serve; then the one with the whole copy does.
    Node& primary = left.serving() ? left : back;
    Node& secondary = left.serving() ? back : left;
    secondary.become_secondary();
    if (!primary.serving()) primary.become_primary();
    CHECK(pair.run_until_serving(primary));
    CHECK(pair.settle(primary));
    CHECK(pair.equal());
  }
}

TEST(loss, "cut off at any moment of a pass from the peer, the two know each other again (13)") {
  for (uint64_t us = 1; us <= 1500; us += 25) {
    PairOptions options;
    options.seed = us;
    Pair pair(options);
    pair.connect();
    pair.a().crash();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 4096, pattern(us, 4096)), 0);
    pair.b().become_init();
    pair.b().become_secondary();
    pair.a().become_primary();  // and is brought up to date by its secondary
    CHECK(pair.run_until_serving(pair.a()));
    pair.loop.advance(us);
    pair.a().crash();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 8192, pattern(us + 1, 4096)), 0);
    pair.a().become_secondary();
    CHECK(pair.settle(pair.b()));
    CHECK(pair.equal());
  }
}

TEST(loss, "what was done beside an original is judged by its counters alone (rule 13)") {
  Pair pair;
  pair.connect();
  pair.options.original_peer = true;
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(1, 4096)), 0);
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
  CHECK(pair.settle(pair.a()));
  pair.a().become_init();
  pair.b().become_init();
  pair.b().become_primary(/*force=*/true);
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 8192, pattern(2, 4096)), 0);
  pair.a().become_secondary();
  CHECK(pair.settle(pair.b()));
  pair.options.original_peer = false;
  pair.cut();
  pair.loop.advance(20 * kSecond);
  CHECK(pair.b().primary()->stats().complete);
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(loss, "a power cut of the primary, which serves again, takes nothing that the peer has (F)") {
  for (const Replication mode : {Replication::kFullsync, Replication::kMemsync}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      PairOptions options;
      options.replication = mode;
      options.original_node = seed > 10 ? 1 : -1;
      Pair pair(options);
      pair.connect();
      const auto bytes = pattern(seed, 8192);
      CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
      pair.a().power_cut(seed);
      pair.loop.advance(kSecond);
      pair.a().become_primary();
      CHECK(pair.run_until_serving(pair.a()));
      CHECK(read_back(pair, pair.a(), 8192, 8192) == bytes);
      CHECK(pair.settle(pair.a()));
      CHECK(pair.equal());
      CHECK(read_back(pair, pair.a(), 8192, 8192) == bytes);
    }
  }
}

constexpr uint64_t kLate = (3u << 20) - 8192;  // what a pass comes to last

/// A new disk beside an original has taken the resource on, and the primary, whose copy is in sync
/// and flushed, loses power before it has noted that all is to be copied.
void lose_power_beside_a_new_disk(Pair& pair, const std::vector<std::byte>& bytes, uint64_t us) {
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), kLate, bytes), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.settle(pair.a()));
  pair.a().life()->disk->set_delay(1, 200000);
  pair.b().crash();
  pair.b().replace_disk();
  pair.b().become_secondary();
  CHECK(pair.loop.run_until([&] { return pair.b().metadata().resuid != 0; }, 5 * kSecond));
  pair.loop.advance(us);
  pair.a().power_cut(us);
  pair.loop.advance(kSecond);
  pair.a().become_primary();
}

PairOptions beside_an_original(bool both) {
  PairOptions options;
  options.original_peer = both;
  options.original_node = both ? -1 : 1;
  return options;
}

TEST(loss, "a new disk beside an original gives nothing back after the primary's power cut (F)") {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Pair pair(beside_an_original(seed % 2 == 0));
    const auto bytes = pattern(seed, 8192);
    lose_power_beside_a_new_disk(pair, bytes, seed * 125);
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(read_back(pair, pair.a(), kLate, 8192) == bytes);
    CHECK(pair.settle(pair.a()));
    CHECK(read_back(pair, pair.a(), kLate, 8192) == bytes);
  }
}

TEST(loss, "nor does it after a second power cut, in the pass to it (F)") {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Pair pair(beside_an_original(seed % 2 == 0));
    const auto bytes = pattern(seed, 8192);
    lose_power_beside_a_new_disk(pair, bytes, seed * 125);
    const auto copies = [&] {
      return pair.a().primary() != nullptr &&
             pair.a().primary()->stats().counters.sync_bytes_done > 0;
    };
    CHECK(pair.run_until_serving(pair.a()));
    pair.a().life()->disk->set_delay(1, 50000);
    CHECK(pair.loop.run_until(copies, 10 * kSecond));
    CHECK(pair.a().primary()->stats().sync_bytes_left > 0);
    pair.a().power_cut(seed);
    pair.loop.advance(kSecond);
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(read_back(pair, pair.a(), kLate, 8192) == bytes);
  }
}

TEST(loss, "what an original has not been given yet is not taken back after a power cut (F)") {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    PairOptions options = beside_an_original(seed % 2 == 0);
    options.replication = Replication::kAsync;
    Pair pair(options);
    pair.connect();
    CHECK(pair.settle(pair.a()));
    // Answered, and on its way when the process dies.
    pair.silence_one_way(0);
    CHECK_EQ(pair.write(pair.a(), kLate, pattern(seed, 8192)), 0);
    pair.a().crash();
    pair.cut(true);
    pair.mend();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    // The pass gives it nothing, yet.
    pair.a().life()->disk->add_fault(data_fault(FaultComponent::kRead));
    CHECK(until_connected(pair, pair.a()));
    CHECK_EQ(pair.flush(pair.a()), 0);
    CHECK_EQ(pair.write(pair.a(), 0, pattern(seed + 1, 8192)), 0);
    pair.a().power_cut(seed);
    pair.loop.advance(kSecond);
    CHECK(!has(pair.b(), kLate, pattern(seed, 8192)));
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(read_back(pair, pair.a(), kLate, 8192) == pattern(seed, 8192));
    CHECK(read_back(pair, pair.a(), 0, 8192) == pattern(seed + 1, 8192));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(loss, "what was flushed alone is not taken back from an original that lost power (F)") {
  unsigned marks = 0;
  for (uint64_t us = 0; us < 400; us += 10) {
    Pair pair(beside_an_original(true));
    pair.connect();
    CHECK(pair.settle(pair.a()));
    CHECK_EQ(pair.write(pair.a(), 0, pattern(us, 8192)), 0);
    pair.a().power_cut(us);
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK_EQ(pair.flush(pair.b()), 0);
    // Not counted yet, but marked.
    pair.begin(pair.b(), RequestOp::kWrite, 16384, 4096, pattern(us + 1, 4096));
    pair.loop.advance(us);
    pair.b().power_cut(us);
    if (pair.b().metadata().localcnt == 0 && marked(pair.b(), 0)) ++marks;
    pair.a().become_secondary();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK(read_back(pair, pair.b(), 0, 8192) == pattern(us, 8192));
    CHECK(pair.settle(pair.b()));
    CHECK(read_back(pair, pair.b(), 0, 8192) == pattern(us, 8192));
  }
  CHECK(marks > 2);
}

TEST(loss, "what an original was to be given is forgotten when the roles are changed (F)") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Pair pair(beside_an_original(false));
    pair.connect();
    part(pair);
    CHECK_EQ(pair.flush(pair.a()), 0);
    CHECK(pair.a().extra().peer_behind);
    pair.a().crash();
    pair.mend();
    pair.b().become_init();
    pair.a().become_secondary();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK(pair.settle(pair.b()));
    CHECK_EQ(pair.write(pair.b(), 8192, pattern(seed, 8192)), 0);
    pair.b().crash();
    pair.a().power_cut(seed);
    pair.loop.advance(kSecond);
    pair.b().become_secondary();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(has(pair.a(), 8192, pattern(seed, 8192)));
    CHECK(pair.equal());
  }
}

TEST(loss, "a secondary that lost power is not promoted unasked while its peer is away (rule 16)") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Pair pair;
    pair.connect();
    const auto bytes = pattern(seed, 8192);
    CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
    pair.b().power_cut(seed);
    CHECK(pair.loop.run_until([&] { return !pair.a().primary()->stats().complete; }, 10 * kSecond));
    pair.loop.advance(kSecond);
    CHECK_EQ(pair.flush(pair.a()), 0);
    pair.a().crash();
    pair.b().become_primary();
    pair.loop.run_until([&] { return pair.b().role() == NodeRole::kInit; }, 60 * kSecond);
    CHECK(!pair.b().serving());
    // With its peer it is made whole, and knows it.
    pair.b().become_secondary();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    pair.a().crash();
    pair.b().become_init();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
    CHECK(read_back(pair, pair.b(), 8192, 8192) == bytes);
  }
}

TEST(loss, "after an orderly end or a mere crash a secondary without its peer may serve") {
  for (const bool orderly : {false, true}) {
    Pair pair;
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 8192, pattern(1, 8192)), 0);
    if (orderly) {
      pair.b().become_init();
      pair.b().power_cut(1);
    } else {
      pair.b().crash();
    }
    pair.a().crash();
    pair.b().become_primary();
    CHECK(pair.run_until_serving(pair.b()));
  }
}

TEST(loss, "the word of a peer that has been lost since is none (rules 1, 7)") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Pair pair;
    pair.connect();
    const auto bytes = pattern(seed, 8192);
    FaultComponent& disk = *pair.a().life()->disk;
    disk.hold(FaultComponent::kWrite, pair.a().metadata().offset + 8192, 8192);
    const Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 8192, 8192, bytes);
    pair.loop.advance(kSecond / 5);
    pair.b().power_cut(seed);
    CHECK(pair.loop.run_until([&] { return !pair.a().primary()->stats().complete; }, 10 * kSecond));
    pair.b().become_secondary();
    CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 30 * kSecond));
    pair.loop.advance(3 * kSecond);
    disk.release();
    CHECK(pair.loop.run_until([&] { return write->done; }, kSecond));
    CHECK_EQ(write->error, 0);
    // Until it is copied, this node's copy counts as the newer one.
    const bool there = std::ranges::equal(pair.b().data().subspan(8192, 8192), bytes);
    CHECK(there || pair.a().metadata().localcnt == 1);
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(loss, "a secondary that lost power knows it from the handshake on, whoever dies then (16)") {
  for (uint64_t us = 1; us < 400; us += 8) {
    PairOptions options;
    options.seed = us;
    Pair pair(options);
    pair.connect();
    const auto bytes = pattern(us, 8192);
    CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
    pair.b().power_cut(us);
    pair.b().become_secondary();
    CHECK(pair.loop.run_until([&] { return pair.b().life() != nullptr; }, 60 * kSecond));
    pair.loop.advance(us);
    pair.a().crash();
    pair.b().become_init();
    pair.b().become_primary();
    pair.loop.run_until([&] { return pair.b().serving() || pair.b().role() == NodeRole::kInit; },
                        60 * kSecond);
    if (pair.b().serving()) CHECK(read_back(pair, pair.b(), 8192, 8192) == bytes);
  }
}

TEST(loss, "what fails while a pass is ended stays known (rule 16)") {
  PairOptions options;
  options.replication = Replication::kAsync;
  Pair pair(options);
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(1, 4096)), 0);
  pair.mend();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 60 * kSecond));
  // All is copied and flushed; only the counters are missing.
  FaultComponent& disk = *pair.a().life()->disk;
  disk.hold(FaultComponent::kWrite, 0, kMetadataBytes);
  const uint64_t writes = disk.submitted(FaultComponent::kWrite);
  CHECK(pair.loop.run_until([&] { return disk.submitted(FaultComponent::kWrite) > writes; },
                            60 * kSecond));
  FaultComponent& peer = *pair.b().life()->disk;
  const uint64_t at = pair.b().metadata().offset + 12288;
  peer.add_fault({FaultComponent::kWrite, -EIO, 1, at, 4096});
  peer.hold(FaultComponent::kWrite, at, 4096);
  CHECK_EQ(pair.write(pair.a(), 12288, pattern(2, 4096)), 0);
  pair.loop.advance(kSecond / 10);
  disk.release();
  pair.loop.advance(kSecond / 10);
  peer.release();
  pair.loop.advance(kSecond / 10);
  CHECK(!std::ranges::equal(pair.b().data().subspan(12288, 4096), pattern(2, 4096)));
  CHECK(pair.b().extra().sync_target);
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(loss, "a second pass over one connection, cut off at its end, is no split-brain (13)") {
  for (uint64_t us = 1; us <= 2000; us += 25) {
    PairOptions options;
    options.seed = us;
    Pair pair(options);
    pair.connect();
    pair.cut(true);
    pair.loop.advance(kSecond);
    CHECK_EQ(pair.write(pair.a(), 0, pattern(us, 4096)), 0);
    pair.mend();
    CHECK(pair.settle(pair.a()));  // the first pass, with a generation of its own
    pair.b().life()->disk->add_fault(
        {FaultComponent::kWrite, -EIO, 1, pair.b().metadata().offset, UINT64_MAX});
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(us + 1, 4096)), 0);  // and another one
    const Extra counted = pair.a().extra();
    pair.loop.run_until([&] { return pair.a().extra().history != counted.history; }, 10 * kSecond);
    pair.loop.advance(us);
    pair.a().crash();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(loss, "async: a switch of roles right after a crash loses nothing that this node has") {
  PairOptions options;
  options.replication = Replication::kAsync;
  Pair pair(options);
  pair.connect();
  pair.silence();
  const auto bytes = pattern(1, 8192);
  CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);  // the peer has not got it
  pair.a().crash();
  pair.b().become_init();
  pair.mend();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.a().become_init();  // before the two have met
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(read_back(pair, pair.b(), 8192, 8192) == bytes);
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(loss, "of two incomplete copies neither is served unasked, nor copied over the other (16)") {
  Pair pair;
  pair.connect();
  pair.a().become_init();
  pair.b().become_init();
  flag_incomplete(pair.a());
  flag_incomplete(pair.b());
  pair.b().become_secondary();
  pair.a().become_primary();
  Life* life = pair.a().life();
  CHECK(pair.loop.run_until([life] { return life->started; }, 60 * kSecond));
  CHECK(!life->serving);
}

TEST(loss, "all copied and not yet ended: the peer is needed until the end (rule 16)") {
  for (uint64_t us = 1; us <= 4000; us += 50) {
    Pair pair;
    repair_from_peer(pair);
    pair.loop.advance(us);
    pair.cut();
    const auto connected = [&pair] { return pair.a().primary()->stats().complete; };
    pair.loop.run_until([&connected] { return !connected(); }, kSecond);
    CHECK(pair.loop.run_until(connected, 30 * kSecond));
    pair.begin(pair.a(), RequestOp::kWrite, 0, 4096, pattern(us, 4096));
    pair.cut();
    pair.loop.advance(1000);
    pair.a().crash();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(loss, "a write that waits for its peer does not keep the peer away (rule 7)") {
  Pair pair;
  repair_from_peer(pair);
  constexpr uint64_t kLast = 20 * 131072;
  FaultComponent& disk = *pair.a().life()->disk;
  disk.hold(FaultComponent::kWrite, (1u << 20) + kLast, 131072);
  // The second waits for the first, and the chunk that is copied for the second.
  pair.begin(pair.a(), RequestOp::kWrite, kLast, 4096, pattern(1, 4096));
  pair.begin(pair.a(), RequestOp::kWrite, kLast, 4096, pattern(2, 4096));
  pair.loop.advance(kSecond / 10);
  pair.cut(true);
  pair.loop.advance(kSecond / 10);
  disk.release();
  pair.loop.advance(kSecond / 10);
  pair.mend();
  const auto connected = [&pair] { return pair.a().primary()->stats().complete; };
  CHECK(!connected());
  CHECK(pair.loop.run_until(connected, 5 * kSecond));
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(loss, "a peer that alone has all the data stores what it confirms (rules 1, 16)") {
  for (const bool original : {false, true}) {
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      PairOptions options;
      options.original_peer = original;
      Pair pair(options);
      repair_from_peer(pair);
      pair.b().life()->disk->hold(FaultComponent::kRead);
      const uint64_t at = 20 * 131072 + 8192;
      Pair::Operation* write =
          pair.begin(pair.a(), RequestOp::kWrite, at, 4096, pattern(seed, 4096));
      CHECK(pair.loop.run_until([write] { return write->done; }, 10 * kSecond));
      CHECK_EQ(write->error, 0);
      pair.b().power_cut(seed);
      pair.b().become_secondary();
      CHECK(pair.settle(pair.a()));
      CHECK_EQ(read_back(pair, pair.a(), at, 4096), pattern(seed, 4096));
      CHECK(pair.equal());
    }
  }
}

TEST(loss, "a write lost on the way to the good copy is no success over the next connection") {
  Pair pair;
  repair_from_peer(pair);
  constexpr uint64_t kLast = 20 * 131072;
  // Its local half takes longer than the next connection.
  pair.a().life()->disk->hold(FaultComponent::kWrite, (1u << 20) + kLast, 4096);
  pair.silence_one_way(0);
  Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, kLast, 4096, pattern(1, 4096));
  pair.loop.advance(kSecond / 10);
  pair.mend();
  const auto connected = [&pair] { return pair.a().primary()->stats().complete; };
  pair.loop.run_until([&connected] { return !connected(); }, kSecond);
  CHECK(pair.loop.run_until(connected, 30 * kSecond));
  pair.a().life()->disk->release();
  CHECK(pair.loop.run_until([write] { return write->done; }, 30 * kSecond));
  CHECK(pair.settle(pair.a()));
  CHECK(write->error == EIO || read_back(pair, pair.a(), kLast, 4096) == pattern(1, 4096));
  CHECK(pair.equal());
}

TEST(loss, "refused at its end, a pass from the peer is not repeated over what came since (16)") {
  uint32_t answered = 0;
  for (uint64_t us = 1; us <= 1500; us += 5) {
    PairOptions options;
    options.disk_bytes = 2u << 20;
    options.seed = us;
    Pair pair(options);
    repair_from_peer(pair);
    pair.loop.advance(us);
    pair.b().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, (1u << 20) + 4096, 4096});
    Pair::Operation* write = pair.begin(pair.a(), RequestOp::kWrite, 4096, 4096, pattern(us, 4096));
    CHECK(pair.loop.run_until([write] { return write->done; }, 30 * kSecond));
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    if (write->error != 0) continue;
    ++answered;
    CHECK_EQ(read_back(pair, pair.a(), 4096, 4096), pattern(us, 4096));
  }
  CHECK(answered > 0);
}

TEST(loss, "nor is one whose end the peer could not write down (16)") {
  uint32_t answered = 0;
  for (uint64_t times = 1; times <= 8; ++times) {
    PairOptions options;
    options.seed = times;
    Pair pair(options);
    repair_from_peer(pair);
    FaultComponent& theirs = *pair.b().life()->disk;
    theirs.add_fault({FaultComponent::kWrite, -EIO, times, 0, 4096});
    CHECK(pair.loop.run_until([&] { return !pair.a().extra().sync_target; }, 10 * kSecond));
    pair.loop.advance(kSecond / 100);
    theirs.add_fault({FaultComponent::kWrite, -EIO, 1, kDataAt, UINT64_MAX});
    if (pair.write(pair.a(), 4096, pattern(times, 4096)) == 0) ++answered;
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
    CHECK_EQ(read_back(pair, pair.a(), 4096, 4096), pattern(times, 4096));
  }
  CHECK(answered > 0);
}

TEST(loss, "a chunk that is stored after the peer has gone leaves its extent marked (rule 1)") {
  Pair pair;
  repair_from_peer(pair);
  FaultComponent& disk = *pair.a().life()->disk;
  disk.hold(FaultComponent::kWrite, (1u << 20) + 20 * 131072, 131072);
  pair.loop.advance(kSecond / 10);
  pair.cut(true);
  pair.loop.advance(kSecond / 10);
  const uint64_t dirty = pair.a().primary()->stats().dirty_bytes;
  disk.release();
  pair.loop.advance(kSecond / 10);
  CHECK_EQ(pair.a().primary()->stats().dirty_bytes, dirty);
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(loss,
     "async: what a restarted primary has flushed alone counts, though it wrote nothing (7)") {
  PairOptions options;
  options.replication = Replication::kAsync;
  Pair pair(options);
  pair.connect();
  pair.silence_one_way(0);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().crash();
  survives_flushed_alone(pair);
}

TEST(loss, "async: a start that is refused, with the peer primary, counts nothing (7)") {
  PairOptions options;
  options.replication = Replication::kAsync;
  Pair pair(options);
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().crash();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  pair.a().become_primary();
  CHECK(pair.loop.run_until([&] { return pair.a().role() == NodeRole::kInit; }, 60 * kSecond));
  CHECK_EQ(pair.write(pair.b(), 8192, pattern(8, 4096)), 0);
  pair.a().become_secondary();
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(loss, "memsync: what only a restarted primary has is promised by its FLUSH for good (7)") {
  PairOptions options;
  options.replication = Replication::kMemsync;
  Pair pair(options);
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(6, 4096)), 0);  // the extent is marked now
  pair.b().life()->disk->hold(FaultComponent::kWrite, kDataAt);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.b().crash();
  pair.a().crash();
  survives_flushed_alone(pair);
}

}  // namespace hast::test
