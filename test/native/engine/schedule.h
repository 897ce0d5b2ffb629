// Random schedules on two simulated nodes: one seed makes the options, the requests, the failures
// and their order; a model of every block says what may be read.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "sim/pair.h"

namespace hast::test {

/// What the blocks of the provider may hold: for each block every write that is not yet certainly
/// covered by a later one.
class BlockModel {
 public:
  static constexpr uint64_t kBlock = 512;
  explicit BlockModel(uint64_t blocks) : blocks_(blocks) {}

  /// A write begins; its blocks are to be filled with `content(tag, block)`. Tag 0 is zeroes.
  void begin(uint64_t id, uint64_t first, uint64_t count, uint64_t tag);
  enum class End { kAcknowledged, kUnknown };
  void end(uint64_t id, End end, bool durable);
  /// A flush that began at `begun` has succeeded.
  void flushed(uint64_t begun);
  /// Only what was flushed is promised from here on.
  void forget_unflushed();
  /// May a read that began at `begun` give these bytes for the block?
  bool allowed(uint64_t block, ConstBytes bytes, uint64_t begun) const;
  std::string describe(uint64_t block, ConstBytes bytes) const;
  uint64_t now() { return ++clock_; }
  uint64_t clock() const { return clock_; }
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
  struct Span {
    uint64_t first;
    uint64_t count;
  };
  static bool superseded(const std::vector<Version>& versions, const Version& version,
                         uint64_t before, bool durably);
  std::vector<std::vector<Version>> blocks_;
  std::map<uint64_t, Span> spans_;
  uint64_t clock_ = 1;
};

struct ScheduleResult {
  bool ok = true;
  std::string problem;
  std::vector<std::string> steps;
};

ScheduleResult run_schedule(uint64_t seed);

}  // namespace hast::test
