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
    : sector_bytes_(sector_bytes),
      current_(size_bytes),
      durable_(size_bytes),
      settled_(size_bytes / sector_bytes) {
  HAST_ASSERT(std::has_single_bit(sector_bytes));
  HAST_ASSERT_OP(size_bytes % sector_bytes, ==, 0u);
}

void MemoryDisk::reset() {
  std::fill(current_.begin(), current_.end(), std::byte{0});
  std::fill(durable_.begin(), durable_.end(), std::byte{0});
  std::fill(settled_.begin(), settled_.end(), 0);
  drop_unflushed(unflushed_.size());
  sequence_ = 0;
  boundaries_ = freeze_at_ = 0;
  kept_.reset();
  forgot_ = false;
}

std::size_t MemoryDisk::unflushed_sectors() const {
  std::vector<bool> seen(settled_.size());
  std::size_t sectors = 0;
  for (const Unflushed& write : unflushed_) {
    for (uint64_t i = 0; i < write.count; ++i) {
      if (!counts(write, write.sector + i) || seen[write.sector + i]) continue;
      seen[write.sector + i] = true;
      ++sectors;
    }
  }
  return sectors;
}

void MemoryDisk::set(uint64_t offset, ConstBytes from) { write_durable(offset, from); }

void MemoryDisk::write_cached(uint64_t offset, std::vector<std::byte> bytes) {
  std::memcpy(current_.data() + offset, bytes.data(), bytes.size());
  const uint64_t sectors = bytes.size() / sector_bytes_;
  unflushed_.push_back({++sequence_, offset / sector_bytes_, sectors, std::move(bytes)});
}

std::vector<std::byte> MemoryDisk::take_spare() {
  if (spare_.empty()) return {};
  std::vector<std::byte> bytes = std::move(spare_.back());
  spare_.pop_back();
  bytes.clear();
  return bytes;
}

/// The write itself is durable; older versions below it can never come back.
void MemoryDisk::write_durable(uint64_t offset, ConstBytes from) {
  std::memcpy(current_.data() + offset, from.data(), from.size());
  std::memcpy(durable_.data() + offset, from.data(), from.size());
  ++sequence_;
  const uint64_t first = offset / sector_bytes_;
  for (uint64_t i = 0; i < from.size() / sector_bytes_; ++i) settled_[first + i] = sequence_;
}

void MemoryDisk::write_some(uint64_t offset, ConstBytes from, Random& random) {
  for (uint64_t at = 0; at < from.size(); at += sector_bytes_) {
    if (!random.chance(1, 2)) continue;
    std::vector<std::byte> sector = take_spare();
    sector.assign(from.begin() + static_cast<std::ptrdiff_t>(at),
                  from.begin() + static_cast<std::ptrdiff_t>(at + sector_bytes_));
    write_cached(offset + at, std::move(sector));
  }
}

void MemoryDisk::make_durable(const Unflushed& write, uint64_t sector) {
  std::memcpy(durable_.data() + sector * sector_bytes_,
              write.bytes.data() + (sector - write.sector) * sector_bytes_, sector_bytes_);
  settled_[sector] = write.sequence;
}

void MemoryDisk::flush(uint64_t sequence) {
  for (const Unflushed& write : unflushed_) {
    if (write.sequence > sequence) break;
    for (uint64_t sector = write.sector; sector < write.sector + write.count; ++sector) {
      if (counts(write, sector)) make_durable(write, sector);
    }
  }
  drop_settled();
}

/// Forgets the oldest writes of which nothing is left to be lost.
void MemoryDisk::drop_settled() {
  std::size_t gone = 0;
  const auto is_settled = [this](const Unflushed& write) {
    for (uint64_t i = 0; i < write.count; ++i) {
      if (counts(write, write.sector + i)) return false;
    }
    return true;
  };
  while (gone < unflushed_.size() && is_settled(unflushed_[gone])) ++gone;
  drop_unflushed(gone);
}

/// The oldest ones; the next writes use their memory.
void MemoryDisk::drop_unflushed(std::size_t count) {
  constexpr std::size_t kSpareMax = 64;
  const auto end = unflushed_.begin() + static_cast<std::ptrdiff_t>(count);
  for (auto write = unflushed_.begin(); write != end && spare_.size() < kSpareMax; ++write) {
    spare_.push_back(std::move(write->bytes));
  }
  unflushed_.erase(unflushed_.begin(), end);
}

/// As after a failed fsync in Linux: the pages count as clean, so no later flush writes them.
void MemoryDisk::forget_some(uint64_t sequence, Random& random) {
  forgot_ = true;
  std::vector<bool> forgotten(settled_.size());
  for (std::size_t i = 0; i < forgotten.size(); ++i) forgotten[i] = random.chance(1, 2);
  for (const Unflushed& write : unflushed_) {
    if (write.sequence > sequence) break;
    for (uint64_t sector = write.sector; sector < write.sector + write.count; ++sector) {
      if (forgotten[sector]) settled_[sector] = std::max(settled_[sector], write.sequence);
    }
  }
  drop_settled();
}

void MemoryDisk::power_cut(uint64_t seed) {
  if (kept_) {
    for (std::size_t i = 0; i < unflushed_.size(); ++i) {
      if (i >= 64 || (*kept_ >> i & 1) == 0) continue;
      const Unflushed& write = unflushed_[i];
      for (uint64_t sector = write.sector; sector < write.sector + write.count; ++sector) {
        if (counts(write, sector)) make_durable(write, sector);
      }
    }
    kept_.reset();
    forget_unflushed();
    return;
  }
  Random random(seed);
  enum Manner : uint64_t { kLoseAll, kKeepAll, kKeepUpTo, kTear, kManners };
  const uint64_t manner = random.below(kManners);
  const uint64_t last_kept = random.below(sequence_ + 1);
  // How many versions of a torn sector are kept; 0 leaves the durable one.
  std::vector<uint32_t> versions(manner == kTear ? settled_.size() : 0);
  if (manner == kTear) {
    for (const Unflushed& write : unflushed_) {
      for (uint64_t i = 0; i < write.count; ++i) {
        if (counts(write, write.sector + i)) ++versions[write.sector + i];
      }
    }
    for (uint32_t& count : versions) {
      if (count > 0) count = static_cast<uint32_t>(random.below(count + 1));
    }
  }
  for (const Unflushed& write : unflushed_) {
    if (manner == kLoseAll || (manner == kKeepUpTo && write.sequence > last_kept)) break;
    for (uint64_t sector = write.sector; sector < write.sector + write.count; ++sector) {
      if (!counts(write, sector)) continue;
      if (manner == kTear && versions[sector] == 0) continue;
      if (manner == kTear) --versions[sector];
      make_durable(write, sector);
    }
  }
  forget_unflushed();
}

void MemoryDisk::forget_unflushed() {
  if (forgot_) {
    current_ = durable_;
  } else {
    for (const Unflushed& write : unflushed_) {
      const uint64_t at = write.sector * sector_bytes_;
      std::memcpy(current_.data() + at, durable_.data() + at, write.count * sector_bytes_);
    }
  }
  drop_unflushed(unflushed_.size());
  forgot_ = false;
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
  operation.copy = disk_.take_spare();
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
  HAST_ASSERT((kind & kAllKinds) != 0);
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
  operation.carried_out = false;
  operation.offset = offset;
  operation.length = length;
  operation.copy.clear();
  ++submitted_[std::countr_zero(kind) % static_cast<int>(kKinds)];
  pass_boundary(operation);
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
  if (powered_ && (disk_.frozen() || ((held_.kinds & operation.kind) != 0 && touched))) {
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

void FaultComponent::pass_boundary(const Operation& operation) {
  if (powered_ && operation.kind != kRead && !disk_.frozen()) ++disk_.boundaries_;
}

void FaultComponent::finish(Operation& operation) {
  if (powered_ && disk_.frozen()) {
    operation.held = true;
    return;
  }
  const int result = carry_out(operation);
  pass_boundary(operation);
  if (powered_ && operation.kind != kRead && disk_.frozen()) {
    operation.held = operation.carried_out = true;
    return;
  }
  if (trace_ != nullptr) {
    trace_->note(operation.kind | (operation.durable ? 16u : 0u), operation.offset,
                 operation.length << 16 | static_cast<uint16_t>(result), loop_.now_us());
  }
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
  if (operation.kind == kWrite && !operation.carried_out) {
    // The caller promised that the bytes stay.
    HAST_ASSERT(std::memcmp(operation.from.data(), operation.copy.data(), operation.length) == 0);
  }
  if (!powered_) return -EIO;
  int error = 0;
  if (take_fault(operation, error)) {
    if (error != 0) {
      fail(operation);
      return error;
    }
    lead_astray(operation);
  }
  switch (operation.kind) {
    case kRead:
      std::memcpy(operation.into.data(), disk_.current_.data() + operation.offset,
                  operation.length);
      return 0;
    case kDiscard:
      if (!facts_.can_discard) return -EOPNOTSUPP;
      disk_.write_cached(operation.offset, std::move(operation.copy));
      return 0;
    case kWrite:
      if (operation.durable) {
        disk_.write_durable(operation.offset, operation.copy);
      } else {
        disk_.write_cached(operation.offset, std::move(operation.copy));
      }
      return 0;
    default:
      disk_.flush(operation.flush_sequence);
      return 0;
  }
}

bool FaultComponent::take_fault(const Operation& operation, int& error) {
  for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
    if ((fault->kinds & operation.kind) == 0) continue;
    if (operation.kind != kFlush &&
        !overlap(fault->offset, fault->length, operation.offset, operation.length)) {
      continue;
    }
    error = fault->error;
    if (fault->times != UINT64_MAX && --fault->times == 0) faults_.erase(fault);
    return true;
  }
  return false;
}

void FaultComponent::lead_astray(Operation& operation) {
  if (operation.kind != kRead && operation.kind != kWrite) return;
  const uint64_t places = (facts_.size_bytes - operation.length) / facts_.sector_bytes + 1;
  const uint64_t offset = random_.below(places) * facts_.sector_bytes;
  if (offset == operation.offset) return;
  operation.offset = offset;
  ++astray_;
}

/// What a failed operation leaves behind.
void FaultComponent::fail(Operation& operation) {
  if (operation.kind == kWrite) disk_.write_some(operation.offset, operation.copy, random_);
  if (operation.kind == kFlush) disk_.forget_some(operation.flush_sequence, random_);
}

void FaultComponent::crash() {
  HAST_ASSERT(powered_);
  for (const std::unique_ptr<Operation>& operation : outstanding_) {
    if (operation->carried_out) continue;
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
