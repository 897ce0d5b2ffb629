#pragma once

#include <cstdint>

#include "codec/metadata.h"
#include "disk/component.h"
#include "engine/deps.h"
#include "ring/task.h"

namespace hast {

/// The metadata block of the local component: read once, updated durably, one update at a time.
///
/// Loop thread only. After an update failed the block on disk may be the old or the new one; the
/// component counts as failed then (rule 6) and the owner stops using it.
class MetadataStore {
 public:
  explicit MetadataStore(Component& disk) : disk_(disk) {}
  ~MetadataStore();

  /// Flushes the disk, so that all that is found on it stays; then reads and checks the block, and
  /// repairs a torn first sector. 0, or -errno (-EINVAL: not ours,
  /// `why`).
  Task<int> load(std::string_view resource, const char** why);

  const Metadata& metadata() const { return block_.metadata(); }
  const Extra& extra() const { return block_.extra(); }
  /// A flush of its own has failed: what the disk has of anything written before is unknown.
  bool flush_failed() const { return flush_failed_; }
  bool extra_known() const { return block_.extra_known(); }
  /// What both nodes count, as a set-up compares it.
  void log_counters(EngineHost& host, uint64_t peer_localcnt, uint64_t peer_remotecnt) const;

  /// Stores new fields and facts and flushes; 0 when they are durable. Concurrent calls queue up;
  /// each must be computed from `metadata()` inside its turn, so callers use `lock`/`unlock`.
  Task<int> lock();
  void unlock();
  /// Requires the lock.
  Task<int> store(Metadata metadata, Extra extra);

 private:
  Task<int> carry_out(const BlockPlan& plan);

  Component& disk_;
  MetadataBlock block_;
  bool locked_ = false;
  bool flush_failed_ = false;
  WaitList waiters_;
  std::byte* buffer_ = nullptr;  // 4096 bytes, aligned for direct I/O
};

}  // namespace hast
