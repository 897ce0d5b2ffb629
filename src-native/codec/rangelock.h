#pragma once

#include <array>
#include <cstdint>

/// Byte ranges in use: overlapping operations run in the order in which they came.
///
/// Pure and intrusive: no allocation, no clock, nothing is called. The list keeps every hold,
/// granted or waiting, in order of arrival; each hold counts the earlier ones it conflicts with and
/// is granted when that count is zero. So nobody is overtaken and nobody starves. Two shared holds
/// never conflict. Loop thread only.
namespace hast {

enum class RangeMode : uint8_t { kShared, kExclusive };

/// A place in the list. Owned by the operation; must stay until it was released.
struct RangeHold {
  uint64_t offset = 0;  ///< bytes
  uint64_t length = 0;  ///< bytes, at least 1; offset + length does not wrap
  RangeMode mode = RangeMode::kExclusive;
  void* owner = nullptr;  ///< the caller's own, not looked at

  bool granted() const { return listed && blockers == 0; }

  /// Link of the list that `release` returns.
  RangeHold* next_granted = nullptr;

  // RangeLock's own.
  RangeHold* previous = nullptr;
  RangeHold* next = nullptr;
  uint32_t blockers = 0;
  bool listed = false;
};

class RangeLock {
 public:
  RangeLock() = default;
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  ~RangeLock();  ///< asserts that nothing is held

  /// True: granted now. False: waits behind those it conflicts with, held and waiting; a later
  /// `release` hands it out. Constant time when nothing near is in use, else linear in the holds.
  bool acquire(RangeHold& hold);

  /// Gives back a hold, granted or (to cancel it) still waiting. Returns those that are granted by
  /// this, in order of arrival, linked by `next_granted`; take the next before waking one:
  ///   for (RangeHold* h = lock.release(mine); h != nullptr;) { auto* n = h->next_granted; ... }
  /// They are out of the lock's hands, so waking one may acquire and release others.
  RangeHold* release(RangeHold& hold);

  uint32_t count() const { return count_; }      ///< granted and waiting
  uint32_t waiting() const { return waiting_; }  ///< waiting only

 private:
  static constexpr uint32_t kGranuleShift = 17;  // a full request of 128 KiB touches one or two
  static constexpr uint32_t kBuckets = 1024;
  static constexpr uint64_t kGranulesCounted = 16;  // longer holds are `wide_`: always scanned for

  static bool conflict(const RangeHold& a, const RangeHold& b);
  static bool is_wide(const RangeHold& hold);
  bool maybe_conflict(const RangeHold& hold) const;
  void count_granules(const RangeHold& hold, int change);

  RangeHold* first_ = nullptr;
  RangeHold* last_ = nullptr;
  uint32_t count_ = 0;
  uint32_t waiting_ = 0;
  uint32_t wide_ = 0;
  std::array<uint32_t, kBuckets> granules_{};  // holds by hashed granule
};

}  // namespace hast
