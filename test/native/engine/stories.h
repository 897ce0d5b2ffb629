// Words that stories of two nodes share.

#pragma once

#include <algorithm>
#include <cerrno>

#include "harness.h"
#include "sim/pair.h"

namespace hast::test {

inline constexpr uint64_t kSecond = 1'000'000;
inline constexpr uint64_t kDataAt = 1u << 20;  // where user data begin on the disk
inline constexpr uint64_t kExtent = 131072;

inline bool has(const Node& node, uint64_t offset, const std::vector<std::byte>& bytes) {
  return std::ranges::equal(node.data().subspan(offset, bytes.size()), bytes);
}

inline bool marked(const Node& node, uint64_t extent) {
  return (static_cast<unsigned>(node.map()[extent / 8]) >> (extent % 8) & 1) != 0;
}

inline bool connected(Node& primary) {
  return primary.serving() && primary.primary()->stats().complete;
}

inline bool until_connected(Pair& pair, Node& primary) {
  return pair.loop.run_until([&primary] { return connected(primary); }, 60 * kSecond);
}

inline bool until_done(Pair& pair, const Pair::Operation* operation) {
  return pair.loop.run_until([operation] { return operation->done; }, 60 * kSecond);
}

/// The peer is away, the primary has noticed, and new connections fail.
inline void part(Pair& pair) {
  pair.cut(true);
  pair.loop.advance(kSecond / 10);
}

/// As if a pass to this node, which is in role init, had never finished.
inline void flag_incomplete(Node& node) {
  const auto block = MetadataBlock::decode(node.disk().current().first(kMetadataBytes));
  REQUIRE(block.has_value());
  Extra extra = block->extra();
  extra.sync_target = true;
  node.disk().set(0, block->plan_update(block->metadata(), extra, 512).after.bytes());
}

inline bool said_split_brain(Node& node) {
  if (node.life() == nullptr) return false;
  const std::vector<EventName>& events = node.life()->host.events;
  return std::ranges::find(events, EventName::kSplitBrain) != events.end();
}

/// An extent that differs and that neither map on disk speaks of.
inline bool unmarked_difference(Pair& pair) {
  const ConstBytes left = pair.a().data();
  const ConstBytes right = pair.b().data();
  for (uint64_t at = 0; at < left.size(); at += kExtent) {
    if (std::ranges::equal(left.subspan(at, kExtent), right.subspan(at, kExtent))) continue;
    if (!marked(pair.a(), at / kExtent) && !marked(pair.b(), at / kExtent)) return true;
  }
  return false;
}

inline FaultComponent::Fault data_fault(uint32_t kinds, uint64_t times = UINT64_MAX) {
  return {kinds, -EIO, times, kDataAt, UINT64_MAX};
}

/// Node b leads alone and writes; then node a is the primary that gets it.
template <typename Write>
void repair(Pair& pair, Write write) {
  pair.connect();
  pair.a().crash();
  pair.b().become_init();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  write();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
}

inline void repair_one_block(Pair& pair) {
  repair(pair, [&pair] { CHECK_EQ(pair.write(pair.b(), 4096, pattern(5, 4096)), 0); });
}

/// Node a has copied all to node b, which cannot hear yet that the pass has ended.
inline void copied_and_untold(Pair& pair) {
  pair.connect();
  pair.cut(true);
  pair.loop.advance(kSecond);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.mend();
  const auto connected = [&pair] { return pair.a().primary()->stats().complete; };
  CHECK(pair.loop.run_until(connected, 30 * kSecond));
  CHECK(pair.b().extra().sync_target);
  pair.b().life()->disk->hold(FaultComponent::kWrite, 0, 4096);
  const auto ended = [&pair] { return pair.a().metadata().localcnt == 0; };
  CHECK(pair.loop.run_until(ended, 30 * kSecond));
  pair.loop.advance(kSecond / 10);
}

/// Node b goes and comes back, and what it was about to write down is lost.
inline void forget_the_end(Pair& pair) {
  pair.b().power_cut(0);
  CHECK(pair.b().extra().sync_target);
  pair.b().become_secondary();
}

/// Node a fails a write beside a peer that has all, and gives up its disk.
inline void give_up(Pair& pair) {
  pair.a().life()->disk->add_fault(data_fault(FaultComponent::kWrite, 1));
  pair.begin(pair.a(), RequestOp::kWrite, 8192, 4096, pattern(8, 4096));
  const auto given_up = [&pair] { return pair.a().primary()->stats().local_stale; };
  CHECK(pair.loop.run_until(given_up, kSecond));
}

/// Node a has answered a write that its peer was never given, and dies.
inline void die_ahead(Pair& pair) {
  pair.silence_one_way(0);
  CHECK_EQ(pair.write(pair.a(), 4096, pattern(7, 4096)), 0);
  pair.a().crash();
}

/// Node a, which is primary alone, flushes and loses power; its block must still be there when both
/// are back.
inline void survives_flushed(Pair& pair) {
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().power_cut(0);
  pair.mend();
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  CHECK(read_back(pair, pair.a(), 4096, 4096) == pattern(7, 4096));
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
}

/// The same of a node that starts alone before.
inline void survives_flushed_alone(Pair& pair) {
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  survives_flushed(pair);
}

/// Writes of a client that never rests, to so many extents in turn.
struct Load : Timer {
  Pair& pair;
  Node& node;
  uint64_t extents;
  uint64_t count = 0;
  bool over = false;
  Load(Pair& p, Node& n, uint64_t e) : pair(p), node(n), extents(e) {
    run = [](Completion& c) {
      Load& self = static_cast<Load&>(c);
      if (self.over) return;
      const uint64_t at = self.count % self.extents * kExtent + self.count % 8 * 4096;
      self.pair.begin(self.node, RequestOp::kWrite, at, 4096, pattern(++self.count, 4096));
      self.pair.loop.start(self, self.pair.loop.now_us() + 500);
    };
    pair.loop.start(*this, pair.loop.now_us());
  }
  void stop() {
    over = true;
    pair.loop.advance(kSecond / 100);
  }
};

}  // namespace hast::test
