// Named scenarios of replication on two simulated nodes. Rules: docs/architecture.md.

#include "harness.h"
#include "sim/pair.h"

namespace hast::test {

TEST(replication, "two fresh nodes of ours are made equal and are in sync") {
  Pair pair;
  pair.a().disk().set(2u << 20, pattern(5, 4096));  // left-over content on one side
  pair.connect();
  CHECK(pair.equal());
  CHECK_EQ(pair.a().metadata().resuid, pair.b().metadata().resuid);
  CHECK(pair.a().metadata().resuid != 0);
}

TEST(replication, "a write is on both disks when it is answered in fullsync") {
  Pair pair;
  pair.connect();
  const auto bytes = pattern(1, 8192);
  CHECK_EQ(pair.write(pair.a(), 65536, bytes), 0);
  CHECK(pair.equal());
  std::vector<std::byte> back(8192);
  CHECK_EQ(pair.read(pair.a(), 65536, back), 0);
  CHECK(back == bytes);
}

TEST(replication, "writes made alone are copied when the peer comes back") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(100000);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 4096)), 0);
  CHECK_EQ(pair.a().metadata().localcnt, 1u);
  CHECK(!pair.equal());
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
  CHECK_EQ(pair.a().metadata().localcnt, 0u);
}

TEST(replication, "writes in flight when the link breaks are copied afterwards (R-1)") {
  Pair pair;
  pair.connect();
  for (uint64_t i = 0; i < 16; ++i) {
    pair.begin(pair.a(), RequestOp::kWrite, i * 131072, 4096, pattern(10 + i, 4096));
  }
  pair.loop.advance(30);
  pair.cut();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

TEST(replication, "the survivor has every acknowledged write after a crash of the primary") {
  Pair pair;
  pair.connect();
  const auto bytes = pattern(3, 4096);
  CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
  pair.a().crash();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  std::vector<std::byte> back(4096);
  CHECK_EQ(pair.read(pair.b(), 4096, back), 0);
  CHECK(back == bytes);
  CHECK_EQ(pair.write(pair.b(), 1u << 20, pattern(4, 4096)), 0);
  pair.a().become_secondary();
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(replication, "both written alone is refused as split-brain") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(100000);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(2, 4096)), 0);
  pair.a().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 0, pattern(3, 4096)), 0);
  pair.mend();
  pair.a().become_secondary();
  pair.loop.advance(30'000'000);
  CHECK(!pair.b().primary()->stats().complete);
  CHECK(pair.b().logged("split-brain"));
}

TEST(replication, "an out-of-date node that is promoted reads from its newer peer") {
  Pair pair;
  pair.connect();
  pair.b().become_init();
  pair.loop.advance(100000);
  const auto bytes = pattern(6, 4096);
  CHECK_EQ(pair.write(pair.a(), 0, bytes), 0);
  pair.a().become_secondary();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  std::vector<std::byte> back(4096);
  CHECK_EQ(pair.read(pair.b(), 0, back), 0);
  CHECK(back == bytes);
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
}

TEST(replication, "a local write error moves all I/O to the peer and is remembered (rule 6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, 1u << 20, UINT64_MAX});
  const auto bytes = pattern(7, 4096);
  CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
  std::vector<std::byte> back(4096);
  CHECK_EQ(pair.read(pair.a(), 4096, back), 0);
  CHECK(back == bytes);
  CHECK(pair.a().extra().local_stale);
  CHECK_EQ(pair.b().metadata().localcnt, 1u);
}

TEST(replication, "every mode and a plain version 2, 1 or 0 peer work") {
  for (const Replication mode :
       {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    for (const uint8_t version : {uint8_t{2}, uint8_t{1}, uint8_t{0}}) {
      PairOptions options;
      options.replication = mode;
      options.original_peer = true;
      options.version = version;
      Pair pair(options);
      pair.connect();
      for (uint64_t i = 0; i < 8; ++i) {
        CHECK_EQ(pair.write(pair.a(), i * 8192, pattern(i, 8192), i == 3), 0);
      }
      CHECK_EQ(pair.flush(pair.a()), 0);
      CHECK_EQ(pair.discard(pair.a(), 0, 8192), 0);
      CHECK(pair.settle(pair.a()));
      CHECK(pair.equal());
    }
  }
}

}  // namespace hast::test
