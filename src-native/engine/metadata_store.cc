#include "engine/metadata_store.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/assert.h"

namespace hast {

MetadataStore::~MetadataStore() {
  HAST_ASSERT(!locked_);
  std::free(buffer_);
}

/// No guard: what cannot be read cannot be used, and a torn sector is repaired before any store,
/// which asserts it.
Task<int> MetadataStore::load(std::string_view resource, const char** why) {
  *why = "cannot be flushed";
  // What a process that has died was about to store may be in the disk's cache only. From here on
  // what is read, marks too, is on the disk: guard:found-is-durable
  const int flushed = co_await disk_.flush();
  if (flushed != 0 && flushed != -EOPNOTSUPP) co_return flushed;
  *why = "cannot be read";
  if (buffer_ == nullptr) {
    buffer_ = static_cast<std::byte*>(std::aligned_alloc(kMetadataBytes, kMetadataBytes));
  }
  const int rc = co_await disk_.read(0, Bytes(buffer_, kMetadataBytes));
  if (rc != 0) co_return rc;
  const Result<MetadataBlock> decoded = MetadataBlock::decode(ConstBytes(buffer_, kMetadataBytes));
  if (!decoded) {
    *why = decoded.error().what;
    co_return -EINVAL;
  }
  block_ = *decoded;
  if (block_.metadata().resource.view() != resource) {
    *why = "belongs to another resource";
    co_return -EINVAL;
  }
  const Result<void> geometry =
      check_geometry(block_.metadata(), disk_.facts().size_bytes, disk_.facts().sector_bytes);
  if (!geometry) {
    *why = geometry.error().what;
    co_return -EINVAL;
  }
  if (block_.needs_rewrite()) {
    const BlockPlan plan = block_.plan_rewrite(disk_.facts().sector_bytes);
    *why = "its torn first sector cannot be repaired";
    const int repaired = co_await carry_out(plan);
    if (repaired != 0) co_return repaired;
  }
  *why = "";
  co_return 0;
}

void MetadataStore::log_counters(EngineHost& host, uint64_t peer_localcnt,
                                 uint64_t peer_remotecnt) const {
  const auto count = [](uint64_t n) { return static_cast<unsigned long long>(n); };
  logf(host, LogLevel::kDebug1, "Counters here: local %llu, remote %llu; at the peer: %llu, %llu.",
       count(metadata().localcnt), count(metadata().remotecnt), count(peer_localcnt),
       count(peer_remotecnt));
}

Task<int> MetadataStore::lock() {
  while (locked_) co_await waiters_.wait();
  locked_ = true;
  co_return 0;
}

void MetadataStore::unlock() {
  HAST_ASSERT(locked_);
  locked_ = false;
  waiters_.wake_one();
}

Task<int> MetadataStore::store(Metadata metadata, Extra extra) {
  HAST_ASSERT(locked_);
  const BlockPlan plan = block_.plan_update(metadata, extra, disk_.facts().sector_bytes);
  const int rc = co_await carry_out(plan);  // no guard: the callers are
  co_return rc;
}

Task<int> MetadataStore::carry_out(const BlockPlan& plan) {
  std::memcpy(buffer_, plan.after.bytes().data(), kMetadataBytes);
  for (uint32_t i = 0; i < plan.step_count; ++i) {
    const BlockPlan::Step step = plan.steps[i];
    const int rc =
        co_await disk_.write(step.offset, ConstBytes(buffer_ + step.offset, step.length), true);
    if (rc != 0) co_return rc;
    const int flushed = co_await disk_.flush();  // guard:metadata-is-flushed
    if (flushed != 0) {
      flush_failed_ = true;
      co_return flushed;
    }
  }
  block_ = plan.after;
  co_return 0;
}

}  // namespace hast
