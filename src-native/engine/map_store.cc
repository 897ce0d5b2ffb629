#include "engine/map_store.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/assert.h"
#include "base/limits.h"

namespace hast {

namespace {
/// Writes of one batch in flight at a time: a whole map of a large device must not flood the ring.
constexpr uint32_t kBatchParallel = 32;
}  // namespace

MapStore::MapStore(Component& disk, Activemap& map, Scope& scope)
    : disk_(disk), map_(map), scope_(scope), sector_bytes_(disk.facts().sector_bytes) {
  HAST_ASSERT(map_.map_bytes() % sector_bytes_ == 0);
  const std::size_t bytes = static_cast<std::size_t>(round_up(map_.map_bytes(), 4096));
  image_ = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
  std::memset(image_, 0, bytes);
  sectors_.reserve(map_.sector_count());
}

MapStore::~MapStore() {
  HAST_ASSERT(!running_);
  std::free(image_);
}

Task<int> MapStore::load() {
  const Bytes image(image_, map_.map_bytes());
  const int rc = co_await disk_.read(kMetadataBytes, image);
  if (rc != 0) co_return rc;
  map_.load(image);
  co_return 0;
}

void MapStore::kick() {
  if (running_ || failure_ != 0) return;
  running_ = true;
  scope_.spawn(run_batches());
}

Task<int> MapStore::store() {
  // Whoever asks tries again: the sectors are written anew, so that a success means something.
  if (!running_) failure_ = 0;
  if (failure_ != 0) co_return failure_;
  // A batch under way took its snapshots before this call, so it takes the one after it.
  const uint64_t mine = batch_begun_ + 1;
  if (batch_wanted_ < mine) batch_wanted_ = mine;
  kick();
  while (batch_ended_ < mine && failure_ == 0) co_await waiters_.wait();
  co_return failure_;
}

Task<int> MapStore::store_all() {
  all_wanted_ = true;
  const int rc = co_await store();
  co_return rc;
}

void MapStore::tick() {
  if (failure_ != 0 || running_ || !map_.any_stale()) return;
  all_wanted_ = true;
  batch_wanted_ = batch_begun_ + 1;
  kick();
}

Task<void> MapStore::run_batches() {
  while (batch_ended_ < batch_wanted_ && failure_ == 0) {
    ++batch_begun_;
    const int rc = co_await write_batch();
    batch_ended_ = batch_begun_;
    if (rc != 0) failure_ = rc;
    waiters_.wake_all();
  }
  running_ = false;
}

Task<int> MapStore::write_batch() {
  sectors_.clear();
  const bool all = all_wanted_;
  all_wanted_ = false;
  if (all) {
    map_.collect_stale(sectors_);
  } else {
    map_.collect_urgent(sectors_);
  }
  if (sectors_.empty()) co_return 0;
  ++updates_;
  batch_result_ = 0;
  // One sector alone is written through; several share one flush.
  const bool alone = sectors_.size() == 1;
  Scope writes;
  for (uint32_t i = 0; i < sectors_.size(); ++i) {
    const uint32_t sector = sectors_[i];
    map_.store_begin(sector, Bytes(image_ + std::size_t{sector} * sector_bytes_, sector_bytes_));
    while (writes.running() >= kBatchParallel) co_await writes.wait_for_change();
    writes.spawn(write_sector(sector));
  }
  co_await writes.join();
  if (batch_result_ == 0 && flush_ && !alone) {
    const int rc = co_await disk_.flush();  // guard:map-is-flushed
    if (rc != 0) {
      batch_result_ = rc;
      flush_failed_ = true;
    }
  }
  for (const uint32_t sector : sectors_) map_.store_end(sector, batch_result_ == 0);
  if (batch_result_ != 0) ++write_errors_;
  co_return batch_result_;
}

Task<void> MapStore::write_sector(uint32_t sector) {
  const ConstBytes bytes(image_ + std::size_t{sector} * sector_bytes_, sector_bytes_);
  const uint64_t offset = kMetadataBytes + uint64_t{sector} * sector_bytes_;
  const bool durable = flush_ && sectors_.size() == 1;
  const int rc = co_await disk_.write(offset, bytes, durable);
  if (rc != 0) batch_result_ = rc;
}

Task<int> MapStore::overwrite(std::byte value) {
  HAST_ASSERT(!running_);
  constexpr uint32_t kStep = 65536;
  std::memset(image_, static_cast<int>(value), map_.map_bytes());
  for (uint32_t at = 0; at < map_.map_bytes(); at += kStep) {
    const uint32_t length = std::min(kStep, map_.map_bytes() - at);
    const int rc =
        co_await disk_.write(kMetadataBytes + at, ConstBytes(image_ + at, length), false);
    if (rc != 0) co_return rc;
  }
  const int flushed = co_await disk_.flush();  // guard:whole-map-is-flushed
  if (flushed != 0) flush_failed_ = true;
  co_return flushed;
}

}  // namespace hast
