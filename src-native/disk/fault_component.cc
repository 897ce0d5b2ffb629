#include "disk/fault_component.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace hast {

namespace {

constexpr std::byte kUnread{0xdb};  // what a buffer holds until its read has completed

bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
  // Lengths may be UINT64_MAX: compare distances, not ends.
  return a < b ? b - a < a_length : a - b < b_length;
}

}  // namespace

// ---- MemoryDisk
// ------------------------------------------------------------------------------------

MemoryDisk::MemoryDisk(uint64_t size_bytes, uint32_t sector_bytes)
    : sector_bytes_(sector_bytes), current_(size_bytes), durable_(size_bytes) {
  HAST_ASSERT(std::has_single_bit(sector_bytes));
  HAST_ASSERT_OP(size_bytes % sector_bytes, ==, 0u);
}

void MemoryDisk::set(uint64_t offset, ConstBytes from) {
  write_cached(offset, from);
  write_durable(offset, from);
}

void MemoryDisk::write_cached(uint64_t offset, ConstBytes from) {
  std::memcpy(current_.data() + offset, from.data(), from.size());
  add_version(offset, from);
}

void MemoryDisk::add_version(uint64_t offset, ConstBytes from) {
  ++sequence_;
  const uint64_t first = offset / sector_bytes_;
  for (uint64_t i = 0; i * sector_bytes_ < from.size(); ++i) {
    const ConstBytes sector = from.subspan(i * sector_bytes_, sector_bytes_);
    unflushed_[first + i].push_back({sequence_, {sector.begin(), sector.end()}});
  }
}

/// The write itself is durable; older versions below it can never come back.
void MemoryDisk::write_durable(uint64_t offset, ConstBytes from) {
  std::memcpy(current_.data() + offset, from.data(), from.size());
  std::memcpy(durable_.data() + offset, from.data(), from.size());
  const uint64_t first = offset / sector_bytes_;
  unflushed_.erase(unflushed_.lower_bound(first),
                   unflushed_.lower_bound(first + from.size() / sector_bytes_));
}

void MemoryDisk::write_some(uint64_t offset, ConstBytes from, Random& random) {
  for (uint64_t at = 0; at < from.size(); at += sector_bytes_) {
    if (random.chance(1, 2)) write_cached(offset + at, from.subspan(at, sector_bytes_));
  }
}

void MemoryDisk::flush(uint64_t sequence) {
  for (auto it = unflushed_.begin(); it != unflushed_.end();) {
    std::vector<Version>& versions = it->second;
    const auto newer = std::find_if(versions.begin(), versions.end(),
                                    [sequence](const Version& v) { return v.sequence > sequence; });
    if (newer != versions.begin()) {
      std::memcpy(durable_.data() + it->first * sector_bytes_, std::prev(newer)->bytes.data(),
                  sector_bytes_);
      versions.erase(versions.begin(), newer);
    }
    it = versions.empty() ? unflushed_.erase(it) : std::next(it);
  }
}

/// As after a failed fsync in Linux: the pages count as clean, so no later flush writes them.
void MemoryDisk::forget_some(uint64_t sequence, Random& random) {
  for (auto it = unflushed_.begin(); it != unflushed_.end();) {
    std::vector<Version>& versions = it->second;
    if (random.chance(1, 2)) {
      std::erase_if(versions, [sequence](const Version& v) { return v.sequence <= sequence; });
    }
    it = versions.empty() ? unflushed_.erase(it) : std::next(it);
  }
}

void MemoryDisk::power_cut(uint64_t seed) {
  Random random(seed);
  enum Manner : uint64_t { kLoseAll, kKeepAll, kKeepUpTo, kTear, kManners };
  const uint64_t manner = random.below(kManners);
  const uint64_t last_kept = random.below(sequence_ + 1);
  for (const auto& [sector, versions] : unflushed_) {
    // Which of the versions is found: 0 is the durable one.
    uint64_t found = 0;
    if (manner == kKeepAll) {
      found = versions.size();
    } else if (manner == kTear) {
      found = random.below(versions.size() + 1);
    } else if (manner == kKeepUpTo) {
      while (found < versions.size() && versions[found].sequence <= last_kept) ++found;
    }
    if (found == 0) continue;
    std::memcpy(durable_.data() + sector * sector_bytes_, versions[found - 1].bytes.data(),
                sector_bytes_);
  }
  unflushed_.clear();
  current_ = durable_;
}

// ---- FaultComponent
// --------------------------------------------------------------------------------

FaultComponent::FaultComponent(Loop& loop, MemoryDisk& disk, uint64_t seed, uint32_t granule_bytes)
    : loop_(loop), disk_(disk), random_(seed) {
  HAST_ASSERT(std::has_single_bit(granule_bytes));
  HAST_ASSERT_OP(disk.size_bytes() % granule_bytes, ==, 0u);
  facts_.size_bytes = disk.size_bytes();
  facts_.sector_bytes = disk.sector_bytes();
  facts_.granule_bytes = std::max(granule_bytes, disk.sector_bytes());
}

FaultComponent::~FaultComponent() { HAST_ASSERT(outstanding_.empty()); }

void FaultComponent::submit_read(Completion& done, uint64_t offset, Bytes into) {
  std::fill(into.begin(), into.end(), kUnread);
  Operation& operation = start_operation(done, kRead, offset, into.size());
  operation.into = into;
  begin(operation);
}

void FaultComponent::submit_write(Completion& done, uint64_t offset, ConstBytes from,
                                  bool durable) {
  Operation& operation = start_operation(done, kWrite, offset, from.size());
  operation.from = from;
  operation.copy.assign(from.begin(), from.end());
  operation.durable = durable;
  begin(operation);
}

void FaultComponent::submit_discard(Completion& done, uint64_t offset, uint64_t length) {
  HAST_ASSERT_OP(offset, <=, facts_.size_bytes);
  HAST_ASSERT_OP(length, <=, facts_.size_bytes - offset);
  const uint64_t inner = round_up(offset, facts_.granule_bytes);
  const uint64_t end = round_down(offset + length, facts_.granule_bytes);
  Operation& operation =
      start_operation(done, kDiscard, inner < end ? inner : offset, inner < end ? end - inner : 0);
  operation.copy.assign(operation.length, std::byte{0});
  begin(operation);
}

void FaultComponent::submit_flush(Completion& done) {
  Operation& operation = start_operation(done, kFlush, 0, 0);
  operation.flush_sequence = disk_.sequence_;
  begin(operation);
}

void FaultComponent::set_delay(uint64_t min_us, uint64_t max_us) {
  HAST_ASSERT_OP(min_us, <=, max_us);
  delay_min_us_ = min_us;
  delay_max_us_ = max_us;
}

uint64_t FaultComponent::submitted(uint32_t kinds) const {
  uint64_t sum = 0;
  for (uint32_t bit = 0; bit < kKinds; ++bit) {
    if ((kinds & (1u << bit)) != 0) sum += submitted_[bit];
  }
  return sum;
}

FaultComponent::Operation& FaultComponent::start_operation(Completion& done, uint32_t kind,
                                                           uint64_t offset, uint64_t length) {
  HAST_ASSERT_OP(offset, <=, facts_.size_bytes);
  HAST_ASSERT_OP(length, <=, facts_.size_bytes - offset);
  HAST_ASSERT_OP((offset | length) % facts_.sector_bytes, ==, 0u);
  if (spare_.empty()) spare_.push_back(std::make_unique<Operation>());
  outstanding_.push_back(std::move(spare_.back()));
  spare_.pop_back();
  Operation& operation = *outstanding_.back();
  operation.owner = this;
  operation.run = [](Completion& c) {
    Operation& ended = static_cast<Operation&>(c);
    ended.owner->finish(ended);
  };
  operation.user = &done;
  operation.kind = kind;
  operation.durable = false;
  operation.held = false;
  operation.offset = offset;
  operation.length = length;
  operation.copy.clear();
  ++submitted_[std::countr_zero(kind)];
  assert_no_overlap(operation);
  return operation;
}

void FaultComponent::assert_no_overlap(const Operation& operation) const {
  if (operation.kind == kFlush || operation.length == 0) return;
  for (const std::unique_ptr<Operation>& other : outstanding_) {
    if (other.get() == &operation || other->kind == kFlush || other->length == 0) continue;
    if (other->kind == kRead && operation.kind == kRead) continue;
    HAST_ASSERT(!overlap(operation.offset, operation.length, other->offset, other->length));
  }
}

void FaultComponent::begin(Operation& operation) {
  const bool touched = operation.kind == kFlush ||
                       overlap(operation.offset, operation.length, held_.offset, held_.length);
  if ((held_.kinds & operation.kind) != 0 && touched && powered_) {
    operation.held = true;
    return;
  }
  loop_.start(operation, loop_.now_us() + random_.between(delay_min_us_, delay_max_us_));
}

void FaultComponent::release() {
  held_ = {};
  for (const std::unique_ptr<Operation>& operation : outstanding_) {
    if (std::exchange(operation->held, false)) begin(*operation);
  }
}

void FaultComponent::finish(Operation& operation) {
  const int result = carry_out(operation);
  Completion* user = operation.user;
  const auto it =
      std::find_if(outstanding_.begin(), outstanding_.end(),
                   [&operation](const auto& other) { return other.get() == &operation; });
  HAST_ASSERT(it != outstanding_.end());
  spare_.push_back(std::move(*it));
  outstanding_.erase(it);
  user->result = result;
  user->run(*user);
}

int FaultComponent::carry_out(Operation& operation) {
  if (operation.kind == kWrite) {
    // The caller promised that the bytes stay.
    HAST_ASSERT(std::equal(operation.from.begin(), operation.from.end(), operation.copy.begin()));
  }
  if (!powered_) return -EIO;
  const int error = take_fault(operation);
  if (error != 0) {
    fail(operation);
    return error;
  }
  switch (operation.kind) {
    case kRead:
      std::memcpy(operation.into.data(), disk_.current_.data() + operation.offset,
                  operation.length);
      return 0;
    case kDiscard:
      if (!facts_.can_discard) return -EOPNOTSUPP;
      disk_.write_cached(operation.offset, operation.copy);
      return 0;
    case kWrite:
      if (operation.durable) {
        disk_.write_durable(operation.offset, operation.copy);
      } else {
        disk_.write_cached(operation.offset, operation.copy);
      }
      return 0;
    default:
      disk_.flush(operation.flush_sequence);
      return 0;
  }
}

int FaultComponent::take_fault(const Operation& operation) {
  for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
    if ((fault->kinds & operation.kind) == 0) continue;
    if (operation.kind != kFlush &&
        !overlap(fault->offset, fault->length, operation.offset, operation.length)) {
      continue;
    }
    const int error = fault->error;
    if (fault->times != UINT64_MAX && --fault->times == 0) faults_.erase(fault);
    return error;
  }
  return 0;
}

/// What a failed operation leaves behind.
void FaultComponent::fail(Operation& operation) {
  if (operation.kind == kWrite) disk_.write_some(operation.offset, operation.copy, random_);
  if (operation.kind == kFlush) disk_.forget_some(operation.flush_sequence, random_);
}

void FaultComponent::crash() {
  HAST_ASSERT(powered_);
  for (const std::unique_ptr<Operation>& operation : outstanding_) {
    if (operation->kind == kWrite || operation->kind == kDiscard) {
      disk_.write_some(operation->offset, operation->copy, random_);
    }
  }
  powered_ = false;
  release();
}

void FaultComponent::power_cut(uint64_t seed) {
  crash();
  disk_.power_cut(seed);
}

}  // namespace hast
