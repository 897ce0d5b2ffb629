#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/activemap.h"
#include "disk/component.h"
#include "engine/deps.h"
#include "ring/task.h"

namespace hast {

/// Keeps the activemap on disk as rule 10 says: at most one write in flight per map sector, a
/// snapshot at submission, bits that turn on durable before data, bits that turn off lazily.
///
/// All extents that turn on while a batch is being stored share the next batch: one group of writes
/// and one flush. Loop thread only.
class MapStore {
 public:
  MapStore(Component& disk, Activemap& map, Scope& scope);
  ~MapStore();

  /// Reads the map from disk into the activemap. 0 or -errno.
  Task<int> load();
  /// Waits until a batch that was begun after this call has ended: what is wanted now is durable
  /// when this returns 0. -errno: it is not, the component has failed.
  Task<int> store();
  /// Stores everything that differs, also bits that turned off.
  Task<int> store_all();
  /// The lazy tick: stores stale sectors without anybody waiting.
  void tick();
  /// Overwrites the whole map on disk with zeros or ones, durably (secondary).
  Task<int> overwrite(std::byte value);

  void set_flush(bool on) { flush_ = on; }
  /// The last batch has failed; nothing is stored by itself until somebody asks again.
  bool failed() const { return failure_ != 0; }
  /// A flush of its own has failed: what the disk has of anything written before is unknown.
  bool flush_failed() const { return flush_failed_; }
  uint64_t updates() const { return updates_; }
  uint64_t write_errors() const { return write_errors_; }

 private:
  Task<void> run_batches();
  Task<int> write_batch();
  Task<void> write_sector(uint32_t index);
  void kick();

  Component& disk_;
  Activemap& map_;
  Scope& scope_;
  bool flush_ = true;
  bool running_ = false;
  bool all_wanted_ = false;
  int failure_ = 0;
  bool flush_failed_ = false;
  uint64_t batch_begun_ = 0;  // number of the batch being stored or last stored
  uint64_t batch_ended_ = 0;
  uint64_t batch_wanted_ = 0;  // run until this one has ended
  int batch_result_ = 0;
  uint64_t updates_ = 0;
  uint64_t write_errors_ = 0;
  WaitList waiters_;
  std::vector<uint32_t> sectors_;  // reserved for all sectors at start
  uint32_t sector_bytes_;
  std::byte* image_ = nullptr;  // map_bytes, aligned; each sector's place holds its last snapshot
};

}  // namespace hast
