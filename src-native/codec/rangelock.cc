#include "codec/rangelock.h"

#include "base/assert.h"

namespace hast {
namespace {

/// Spreads neighbouring granules over the buckets (multiplicative hashing).
uint32_t bucket_of(uint64_t granule) {
  return static_cast<uint32_t>((granule * 0x9e3779b97f4a7c15u) >> 54);  // 10 bits: kBuckets
}

}  // namespace

RangeLock::~RangeLock() { HAST_ASSERT_OP(count_, ==, 0u); }

bool RangeLock::conflict(const RangeHold& a, const RangeHold& b) {
  if (a.mode == RangeMode::kShared && b.mode == RangeMode::kShared) return false;
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

bool RangeLock::is_wide(const RangeHold& hold) {
  const uint64_t first = hold.offset >> kGranuleShift;
  const uint64_t last = (hold.offset + hold.length - 1) >> kGranuleShift;
  return last - first >= kGranulesCounted;
}

bool RangeLock::maybe_conflict(const RangeHold& hold) const {
  if (count_ == 0) return false;
  if (wide_ > 0 || is_wide(hold)) return true;
  const uint64_t last = (hold.offset + hold.length - 1) >> kGranuleShift;
  for (uint64_t granule = hold.offset >> kGranuleShift; granule <= last; granule++) {
    if (granules_[bucket_of(granule)] != 0) return true;
  }
  return false;
}

void RangeLock::count_granules(const RangeHold& hold, int change) {
  if (is_wide(hold)) {
    wide_ += static_cast<uint32_t>(change);
    return;
  }
  const uint64_t last = (hold.offset + hold.length - 1) >> kGranuleShift;
  for (uint64_t granule = hold.offset >> kGranuleShift; granule <= last; granule++) {
    uint32_t& count = granules_[bucket_of(granule)];
    HAST_ASSERT(change > 0 || count > 0);
    count += static_cast<uint32_t>(change);
  }
}

bool RangeLock::acquire(RangeHold& hold) {
  HAST_ASSERT(!hold.listed);
  HAST_ASSERT_OP(hold.length, >, 0u);
  HAST_ASSERT_OP(hold.length, <=, UINT64_MAX - hold.offset);
  hold.blockers = 0;
  if (maybe_conflict(hold)) {
    for (const RangeHold* other = first_; other != nullptr; other = other->next) {
      if (conflict(*other, hold)) hold.blockers++;  // guard:overlap-waits
    }
  }
  hold.next_granted = nullptr;
  hold.next = nullptr;
  hold.previous = last_;
  (last_ == nullptr ? first_ : last_->next) = &hold;
  last_ = &hold;
  hold.listed = true;
  count_++;
  count_granules(hold, 1);
  if (hold.blockers > 0) waiting_++;
  return hold.blockers == 0;
}

RangeHold* RangeLock::release(RangeHold& hold) {
  HAST_ASSERT(hold.listed);
  if (hold.blockers > 0) waiting_--;
  RangeHold* granted = nullptr;
  RangeHold** end = &granted;
  // Only later ones can wait for this one.
  for (RangeHold* other = hold.next; other != nullptr && waiting_ > 0; other = other->next) {
    if (other->blockers == 0 || !conflict(*other, hold)) continue;
    other->blockers--;  // no guard: else nobody is let in
    if (other->blockers > 0) continue;
    waiting_--;
    other->next_granted = nullptr;
    *end = other;
    end = &other->next_granted;
  }
  (hold.previous == nullptr ? first_ : hold.previous->next) = hold.next;
  (hold.next == nullptr ? last_ : hold.next->previous) = hold.previous;
  hold.previous = nullptr;
  hold.next = nullptr;
  hold.blockers = 0;
  hold.listed = false;
  count_--;
  count_granules(hold, -1);
  return granted;
}

}  // namespace hast
