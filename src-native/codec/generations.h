#pragma once

#include <cstdint>

/// Which state of the data a node has, and which ones its peer may have: random numbers that say
/// what counters cannot. Pure values; docs/architecture.md, "Generations".
namespace hast {

struct Generations {
  uint64_t current = 0;  ///< the data as it is now; 0: unknown, then only the counters decide
  uint64_t shared = 0;   ///< the last one of which the peer has said that it has it; 0: none
  uint64_t offered = 0;  ///< one that the peer may have been given since; 0: none

  bool operator==(const Generations&) const = default;

  /// Is `id` of our own line? Then whoever has it has nothing that we lack.
  bool knows(uint64_t id) const { return id == current || id == shared || id == offered; }

  /// The data is about to become what the peer does not have.
  void begin(uint64_t id) { current = id; }
  /// To be durable before the peer may learn of `current`: it might take it and not say so.
  void offer() { offered = current; }
  /// Both have `id`.
  void agree(uint64_t id) { *this = {id, id, 0}; }
  /// The peer has told which one it has.
  void hear(uint64_t id) {
    if (id == 0 || !knows(id)) return;
    shared = id;
    offered = 0;
  }
};

}  // namespace hast
