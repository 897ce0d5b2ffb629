// What a set-up that is cut off, forced or refused leaves behind.

#include "engine/stories.h"

namespace hast::test {

namespace {
/// Node b is primary and writes before the two have ever met, and is init then.
void write_before_meeting(Pair& pair) {
  pair.cut(true);
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  CHECK_EQ(pair.write(pair.b(), 0, pattern(1, 4096)), 0);
  pair.b().become_init();
  pair.mend();
}

/// How often a node has said it at this level in its life.
int said(Node& node, LogLevel level, std::string_view part) {
  const TestHost& host = node.life()->host;
  int count = 0;
  for (std::size_t i = 0; i < host.log_lines.size(); ++i) {
    count += host.log_levels[i] == level && host.log_lines[i].find(part) != std::string::npos;
  }
  return count;
}
}  // namespace

TEST(setup, "a first set-up that is cut off at any moment still ends in a whole copy") {
  for (uint64_t cut_us = 0; cut_us < 3000; cut_us += 150) {
    for (const bool crash : {false, true}) {
      Pair pair;
      pair.a().disk().set(kDataAt + 4096, pattern(cut_us + 1, 65536));
      pair.b().become_secondary();
      pair.a().become_primary();
      pair.loop.advance(cut_us);
      if (crash) {
        pair.a().crash();
        pair.a().become_primary();
      } else {
        pair.cut();
      }
      CHECK(pair.run_until_serving(pair.a()));
      CHECK(pair.settle(pair.a()));
      CHECK(pair.equal());
    }
  }
}

TEST(setup, "a secondary that was written before the two met is not overwritten unasked (R-11)") {
  Pair pair;
  write_before_meeting(pair);
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.loop.advance(20 * kSecond);
  CHECK(!pair.a().primary()->stats().complete);
  CHECK(pair.a().logged("split-brain"));
}

TEST(setup, "a primary whose disk has failed finds its peer again (rule 6)") {
  Pair pair;
  pair.connect();
  pair.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, UINT64_MAX, 0, UINT64_MAX});
  const auto bytes = pattern(3, 4096);
  CHECK_EQ(pair.write(pair.a(), 4096, bytes), 0);
  pair.cut();
  CHECK(pair.loop.run_until([&] { return pair.a().primary()->stats().complete; }, 30 * kSecond));
  CHECK_EQ(pair.write(pair.a(), 8192, bytes), 0);
  std::vector<std::byte> back(4096);
  CHECK_EQ(pair.read(pair.a(), 8192, back), 0);
  CHECK(back == bytes);
}

TEST(setup, "a failed flush of the secondary is remembered there (rule 9)") {
  Pair pair;
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(5, 4096)), 0);
  pair.b().life()->disk->add_fault({FaultComponent::kFlush, -EIO, 1, 0, UINT64_MAX});
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().crash();
  pair.loop.advance(5 * kSecond);
  CHECK(pair.b().extra().sync_target);
}

TEST(setup, "force is the operator's word once, and is not needed again (rule 16)") {
  Pair pair;
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 0, pattern(6, 131072)), 0);
  pair.b().life();
  pair.mend();
  // Stop the copy in its middle: B is an incomplete target from here on.
  CHECK(pair.loop.run_until([&] { return pair.b().extra().sync_target; }, 30 * kSecond));
  pair.a().crash();
  pair.b().become_primary();
  pair.loop.run_until([&] { return pair.b().role() == NodeRole::kInit; }, 60 * kSecond);
  CHECK(!pair.b().serving());
  pair.b().become_primary(true);
  CHECK(pair.run_until_serving(pair.b()));
  CHECK(!pair.b().extra().sync_target);
}

TEST(setup, "however far a set-up has come, a silent peer delays the start by 5 s at most (21)") {
  for (uint64_t us = 1; us < 900; us += 30) {
    PairOptions options;
    options.seed = us;
    Pair pair(options);
    pair.b().become_secondary();
    pair.a().become_primary();
    pair.loop.advance(us);
    if (pair.a().serving()) break;
    pair.silence();
    CHECK(pair.run_until_serving(pair.a(), 5'100'000));
  }
}

TEST(setup, "a peer that comes and goes is not asked without a pause (rule 20)") {
  Pair pair;
  pair.connect();
  uint64_t connections = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    pair.loop.advance(10000);
    if (!pair.a().primary()->stats().complete) continue;
    ++connections;
    pair.cut();
  }
  CHECK(connections < 10);
}

TEST(setup, "a dial that nobody answers does not delay a change of role (rule 21)") {
  Pair pair;
  pair.connect();
  pair.b().power_cut(1, true);
  pair.silence();
  // In every state of an attempt: before a dial, in its middle, in a pause.
  for (int round = 0; round < 12; ++round) {
    pair.a().become_init();
    pair.a().become_primary();
    CHECK(pair.run_until_serving(pair.a()));
    pair.loop.advance(static_cast<uint64_t>(round) * kSecond * 2 / 3);
    const uint64_t began_us = pair.loop.now_us();
    pair.a().become_secondary();
    CHECK(pair.loop.now_us() - began_us < kSecond);
  }
}

TEST(setup, "the same refusal is a warning once a minute, and a split-brain an error (20)") {
  Pair pair;
  write_before_meeting(pair);
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.loop.advance(55 * kSecond);
  constexpr std::string_view kNotReady = "acts as init for the resource and not as secondary.";
  CHECK_EQ(said(pair.a(), LogLevel::kWarning, "peer (the peer is not ready): Remote"), 1);
  CHECK(said(pair.a(), LogLevel::kDebug1, kNotReady) > 3);
  CHECK_EQ(said(pair.a(), LogLevel::kWarning, ".."), 0);
  pair.b().become_secondary();
  pair.loop.advance(55 * kSecond);
  constexpr std::string_view kSplit = "Split-brain condition! Neither copy is overwritten: hastctl";
  CHECK_EQ(said(pair.a(), LogLevel::kError, kSplit), 1);
  CHECK(said(pair.a(), LogLevel::kDebug1, kSplit) > 3);
  pair.loop.advance(20 * kSecond);
  CHECK_EQ(said(pair.a(), LogLevel::kError, kSplit), 2);
}

}  // namespace hast::test
