#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/random.h"
#include "base/trace.h"
#include "disk/component.h"

namespace hast {

/// The platters of the simulated disk: what reads see, what survives, and what is in between.
///
/// Belongs to the simulated machine: it outlives the `FaultComponent`s (programs) that use it.
class MemoryDisk {
 public:
  /// Zeroes at first. `size_bytes` is a multiple of `sector_bytes`.
  MemoryDisk(uint64_t size_bytes, uint32_t sector_bytes = 512);

  uint64_t size_bytes() const { return current_.size(); }
  uint32_t sector_bytes() const { return sector_bytes_; }
  /// What a read gives now.
  ConstBytes current() const { return current_; }
  /// What is certain to survive a power cut. A cut may leave any unflushed sector newer than this.
  ConstBytes durable() const { return durable_; }
  std::size_t unflushed_sectors() const;
  /// As it was when new: zeroes. For schedules that use one disk after the other.
  void reset();

  /// The power fails: each unflushed sector keeps its durable content or becomes one of its
  /// unflushed versions, by `seed`; some seeds lose or keep everything. What is left is durable.
  void power_cut(uint64_t seed);

  /// Both at once, for tests that prepare a disk.
  void set(uint64_t offset, ConstBytes from);

  /// Boundaries of writes, discards and flushes so far, in all lives: one when an operation is
  /// submitted, one when it has taken effect and nobody has been told.
  uint64_t boundaries() const { return boundaries_; }
  /// At this boundary everything stands still: what is submitted takes no effect and nothing ends,
  /// until the program or the machine dies. 0: never.
  void freeze_at(uint64_t boundary) { freeze_at_ = boundary; }
  bool frozen() const { return freeze_at_ != 0 && boundaries_ >= freeze_at_; }
  /// Writes that no flush has covered, oldest first: the next power cut keeps those whose bit is
  /// set, and no other.
  std::size_t unflushed_writes() const { return unflushed_.size(); }
  void keep_at_cut(uint64_t writes) { kept_ = writes; }

 private:
  friend class FaultComponent;
  /// One write that no flush has covered yet.
  struct Unflushed {
    uint64_t sequence;
    uint64_t sector;
    uint64_t count;
    std::vector<std::byte> bytes;
  };

  void write_cached(uint64_t offset, std::vector<std::byte> bytes);
  void write_durable(uint64_t offset, ConstBytes from);
  void write_some(uint64_t offset, ConstBytes from, Random& random);
  void flush(uint64_t sequence);
  void forget_some(uint64_t sequence, Random& random);
  bool counts(const Unflushed& write, uint64_t sector) const {
    return write.sequence > settled_[sector];
  }
  void make_durable(const Unflushed& write, uint64_t sector);
  void drop_settled();
  void forget_unflushed();
  void drop_unflushed(std::size_t count);
  std::vector<std::byte> take_spare();

  uint32_t sector_bytes_;
  std::vector<std::byte> current_;
  std::vector<std::byte> durable_;
  std::vector<uint64_t> settled_;     // by sector: versions up to this one are durable, or gone
  std::vector<Unflushed> unflushed_;  // oldest first
  std::vector<std::vector<std::byte>> spare_;
  uint64_t sequence_ = 0;  // of the last version
  uint64_t boundaries_ = 0;
  uint64_t freeze_at_ = 0;
  std::optional<uint64_t> kept_;
  bool forgot_ = false;  // some of `current_` is neither durable nor unflushed
};

/// A disk with a volatile write cache, delays and faults, for tests and the simulator; any loop.
///
/// Asserts what the interface asks of its caller: no overlapping outstanding operations of which
/// one writes, stable write buffers, ranges inside the disk. Completion order follows the random
/// delays. One seed, one behaviour.
class FaultComponent final : public Component {
 public:
  /// Kinds of operation, to be combined.
  static constexpr uint32_t kRead = 1;
  static constexpr uint32_t kWrite = 2;
  static constexpr uint32_t kDiscard = 4;
  static constexpr uint32_t kFlush = 8;
  static constexpr uint32_t kKinds = 4;
  static constexpr uint32_t kAllKinds = (1u << kKinds) - 1;

  /// Operations of these kinds that touch the range fail; flushes have no range. After a failed
  /// flush some of what it should have kept can never become durable any more, as in Linux; a
  /// failed write may have reached any of its sectors. A read or write that goes astray is done at
  /// another place of the disk, and reported as good.
  struct Fault {
    uint32_t kinds = 0;
    int error = 0;                ///< -errno; 0: the operation goes astray
    uint64_t times = UINT64_MAX;  ///< how many operations; then it is gone
    uint64_t offset = 0;
    uint64_t length = UINT64_MAX;
  };

  FaultComponent(Loop& loop, MemoryDisk& disk, uint64_t seed, uint32_t granule_bytes = 512);
  /// Nothing may be outstanding.
  ~FaultComponent() override;

  void submit_read(Completion& done, uint64_t offset, Bytes into) override;
  void submit_write(Completion& done, uint64_t offset, ConstBytes from, bool durable) override;
  void submit_discard(Completion& done, uint64_t offset, uint64_t length) override;
  void submit_flush(Completion& done) override;

  /// Every operation takes an even random time between the two.
  void set_delay(uint64_t min_us, uint64_t max_us);
  void add_fault(const Fault& fault) { faults_.push_back(fault); }
  void clear_faults() { faults_.clear(); }
  /// Every operation that ends is noted there.
  void set_trace(Trace* trace) { trace_ = trace; }
  /// Operations that went astray.
  uint64_t astray() const { return astray_; }
  void set_can_discard(bool can) { facts_.can_discard = can; }
  /// Operations of these kinds that touch the range, submitted from now on, hang until `release`.
  void hold(uint32_t kinds = kAllKinds, uint64_t offset = 0, uint64_t length = UINT64_MAX) {
    held_ = {kinds, offset, length};
  }
  void release();

  /// The program dies: outstanding operations fail with -EIO, writes among them may have reached
  /// any of their sectors, all later operations give -EIO. What is in the disk's cache stays.
  void crash();
  /// Outstanding operations fail with -EIO, writes among them may have reached any of their
  /// sectors; then the disk loses power by `seed`. All later operations give -EIO.
  void power_cut(uint64_t seed);

  std::size_t outstanding() const { return outstanding_.size(); }
  /// Operations submitted so far: one kind, or several together.
  uint64_t submitted(uint32_t kinds) const;

 private:
  struct Operation : Timer {
    FaultComponent* owner = nullptr;
    Completion* user = nullptr;
    uint32_t kind = 0;
    bool durable = false;
    bool held = false;
    bool carried_out = false;  // and frozen before anybody was told
    uint64_t offset = 0;
    uint64_t length = 0;
    Bytes into;
    ConstBytes from;
    std::vector<std::byte> copy;  // of `from`, to see that it stays
    uint64_t flush_sequence = 0;
  };

  Operation& start_operation(Completion& done, uint32_t kind, uint64_t offset, uint64_t length);
  void begin(Operation& operation);
  void pass_boundary(const Operation& operation);
  void finish(Operation& operation);
  int carry_out(Operation& operation);
  bool take_fault(const Operation& operation, int& error);
  void lead_astray(Operation& operation);
  void fail(Operation& operation);
  void assert_no_overlap(const Operation& operation) const;

  Loop& loop_;
  MemoryDisk& disk_;
  Random random_;
  uint64_t delay_min_us_ = 1;
  uint64_t delay_max_us_ = 100;
  struct Held {
    uint32_t kinds = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
  } held_;
  bool powered_ = true;
  Trace* trace_ = nullptr;
  uint64_t astray_ = 0;
  std::vector<Fault> faults_;
  uint64_t submitted_[kKinds] = {};
  std::vector<std::unique_ptr<Operation>> outstanding_;
  std::vector<std::unique_ptr<Operation>> spare_;
};

}  // namespace hast
