#pragma once

#include <cstdint>

namespace hast {

/// Counters since the engine's start.
struct EngineCounters {
  uint64_t reads = 0, writes = 0, deletes = 0, flushes = 0;
  uint64_t read_errors = 0, write_errors = 0, delete_errors = 0, flush_errors = 0;
  uint64_t sync_bytes_done = 0;  ///< in the pass that goes on, or in the last one
  uint64_t sync_bytes_per_second = 0;
};

enum class EngineState : uint8_t {
  kConnecting,
  kDegraded,
  kSyncing,
  kInSync,
  kSecondary,
  kStopping
};

/// A snapshot for status, list and metrics. Bytes and counts.
struct EngineStats {
  bool complete = false;
  EngineState state = EngineState::kConnecting;
  char reason[256] = {};
  bool has_peer = false;
  bool peer_is_ours = false;
  uint32_t protocol_version = 0;
  uint8_t replication = 0;  ///< Replication
  uint8_t sync_source = 0;  ///< 0 none, 1 local, 2 remote
  bool local_stale = false;
  uint32_t extent_bytes = 0;
  uint32_t keepdirty = 0;
  uint64_t dirty_bytes = 0;
  uint64_t sync_bytes_left = 0;
  uint64_t activemap_updates = 0;
  uint32_t in_flight = 0;
  uint32_t queue_local = 0, queue_send = 0, queue_recv = 0, queue_done = 0, queue_idle = 0;
  EngineCounters counters;
};

}  // namespace hast
