// One telling of a short story of two nodes that is cut off: one of them dies at a boundary of its
// disk, or both do. Then both come back, and what was promised must be there. docs/simulation.md,
// "Crash points".

#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/stories.h"

namespace hast::test {

/// How a node dies, if it does. A power cut takes of the unflushed writes all, none, or some.
enum class Death : uint8_t { kLives, kCrash, kLoseAll, kKeepAll, kTorn, kSubset };

struct End {
  Death death = Death::kLives;
  uint64_t variant = 0;  ///< seed, or which writes are kept
};

struct Cut {
  static constexpr uint64_t kNever = 0;
  int node = 0;  ///< at whose boundary
  uint64_t boundary = kNever;
  std::array<End, 2> ends{};    ///< of nodes a and b, at one moment
  bool its_node_leads = false;  ///< first, when both have come back
  bool asks_b_alone = false;    ///< before: without node a, which is dead by then
};

/// What the operator may rely on when nodes have died in the story.
struct Story {
  const char* name;
  Replication mode;
  void (*prepare)(class Tale&);
  void (*act)(class Tale&);
  bool alone = false;    ///< node a has no peer meanwhile: only its own copy counts
  int lacks = -1;        ///< this node's copy is incomplete or stale meanwhile, or may be so
  bool forced = false;   ///< node b writes, whatever node a has: that is given up in the end
  bool through = false;  ///< the whole copy stores every write before it is answered
};

PairOptions options_of(const Story& story);

class Tale {
 public:
  Tale(const Story& story, const Cut& cut, const PairOptions& options)
      : pair(options), story_(story), cut_(cut) {}

  Pair pair;

  // --- to tell it ---

  Node& a() { return pair.a(); }
  Node& b() { return pair.b(); }
  bool beside_original() const { return pair.options.original_peer; }

  /// Nothing more is begun once a disk stands still.
  bool going() const { return !pair.frozen(); }
  template <typename Condition>
  void wait(Condition condition, uint64_t us = 60 * kSecond) {
    pair.loop.run_until([&] { return pair.frozen() || condition(); }, us);
  }
  void pass(uint64_t us) {
    wait([] { return false; }, us);
  }
  void write(Node& node, uint64_t at, uint64_t seed, bool fua = false) {
    change(node, RequestOp::kWrite, at, seed, fua);
  }
  void remove(Node& node, uint64_t at) { change(node, RequestOp::kDelete, at, 0, false); }
  void flush(Node& node);
  /// That a pass has ended an original is told by the next handshake only.
  bool knows_all(const Node& node) const { return beside_original() || !node.extra().sync_target; }
  /// Nothing of what was answered before is asked for.
  void forget() { changes_.clear(); }

  // --- to cut it ---

  /// From its act on boundaries are counted, of either node, and one of them is the last.
  void tell();
  uint64_t count(int node) { return pair.node(node).disk().boundaries() - before_[node]; }
  /// How many writes of the node of the boundary might be lost or kept.
  std::size_t kill();
  void recover();

 private:
  struct Change {
    Pair::Operation* operation;
    uint64_t at;
    std::vector<std::byte> bytes;
    bool durable = false;
  };

  static bool answered(const Change& change) {
    return change.operation->done && change.operation->error == 0;
  }
  void change(Node& node, RequestOp op, uint64_t at, uint64_t seed, bool fua);

  bool lives(int node) const { return cut_.ends[node].death == Death::kLives; }
  bool lost_power(int node) const { return cut_.ends[node].death > Death::kCrash; }
  void die(int node);
  Replication mode() const;
  bool promised(const Change& change, int leader) const;
  bool holds_all(const Node& node) const;

  int first_leader();
  bool lead(Node& leader, bool force = false);
  void lead_alone();
  void read_all(Node& leader);
  void come_in_sync(Node& leader);
  void meet_once_more(Node& leader);
  void check(int leader, bool all);
  void complain(const char* what) const;

  const Story& story_;
  Cut cut_;  // and who has died since
  uint64_t before_[2] = {};
  std::vector<Change> changes_;
  bool b_had_all_ = false;  // of what was answered when it died
  bool followed_[2] = {};   // was the secondary when it died
};

}  // namespace hast::test
