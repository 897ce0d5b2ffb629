// What the blocks of the provider may hold: every block is a register, and what was written to it
// and when says which values a read may give.

#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"

namespace hast::test {

/// For each block every write that is not yet certainly covered by a later one. Times are the
/// model's own: each event has one.
class BlockModel {
 public:
  static constexpr uint64_t kBlock = 512;
  explicit BlockModel(uint64_t blocks) : blocks_(blocks) {}

  uint64_t block_count() const { return blocks_.size(); }
  /// A write begins; its blocks are to be filled with `fill(tag, block)`. Tag 0 is zeroes.
  void begin(uint64_t id, uint64_t first, uint64_t count, uint64_t tag);
  enum class End { kAcknowledged, kUnknown };
  void end(uint64_t id, End end, bool durable);
  /// A flush that began at `begun` has succeeded.
  void flushed(uint64_t begun);
  /// Only what was flushed is promised from here on, of all writes that have begun.
  void forget_unflushed();
  /// The operator has decided that what is on this copy counts, whatever it is.
  /// `durable`: what a power cut leaves of it at least.
  void take_as_is(ConstBytes data, ConstBytes durable);
  /// Every write under way ends without a word: its node will never answer.
  void end_all_unknown();
  /// Both models were one until `since`: what has not been written here since is as it is there.
  /// Nothing may be under way in either.
  void take_untouched(const BlockModel& there, uint64_t since);
  /// May a read that began at `begun` give these bytes for the block?
  bool allowed(uint64_t block, ConstBytes bytes, uint64_t begun) const;
  std::string describe(uint64_t block, ConstBytes bytes) const;
  uint64_t now() { return ++clock_; }
  /// Drops what no later read can see. Only while no read is under way.
  void prune();

  static void fill(Bytes block, uint64_t tag, uint64_t number);

 private:
  struct Version {
    uint64_t id;
    uint64_t tag;
    uint64_t begun;
    uint64_t ended = UINT64_MAX;
    bool acknowledged = false;
    bool durable = false;
  };
  struct Block {
    std::vector<Version> versions;
    bool wild = false;  // the copy that counts has, or may fall back to, what no version tells
  };
  struct Span {
    uint64_t first;
    uint64_t count;
  };
  /// When the newest write began that had certainly ended before; 0 without one.
  static uint64_t newest_certain(const Block& block, uint64_t before, bool durably);
  void end_version(Version& version, uint64_t at, bool acknowledged, bool durable);

  std::vector<Block> blocks_;
  std::unordered_map<uint64_t, Span> spans_;
  uint64_t clock_ = 1;
  bool changed_ = false;    // since `prune`
  uint64_t forgotten_ = 0;  // when unflushed writes were last forgotten
};

}  // namespace hast::test
