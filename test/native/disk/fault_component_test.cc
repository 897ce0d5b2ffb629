#include "disk/fault_component.h"

#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "harness.h"
#include "ring/sim_loop.h"

namespace {

using hast::Bytes;
using hast::Component;
using hast::ConstBytes;
using hast::FaultComponent;
using hast::MemoryDisk;
using hast::Scope;
using hast::SimLoop;
using hast::Task;

constexpr int kPending = 12345;

std::vector<std::byte> filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, std::byte(value));
}

Task<void> write_and_note(Component& disk, uint64_t offset, ConstBytes from, bool durable,
                          int& result) {
  result = co_await disk.write(offset, from, durable);
}
Task<void> read_and_note(Component& disk, uint64_t offset, Bytes into, int& result) {
  result = co_await disk.read(offset, into);
}
Task<void> flush_and_note(Component& disk, int& result) { result = co_await disk.flush(); }
Task<void> discard_and_note(Component& disk, uint64_t offset, uint64_t length, int& result) {
  result = co_await disk.discard(offset, length);
}

/// A loop, a disk and ways to use it one operation after the other.
struct Bench {
  SimLoop loop;
  MemoryDisk medium{64 * 1024};
  FaultComponent disk{loop, medium, 1};
  Scope scope;

  int write(uint64_t offset, ConstBytes from, bool durable = false) {
    int result = kPending;
    scope.spawn(write_and_note(disk, offset, from, durable, result));
    loop.run_until_idle();
    return result;
  }
  int read(uint64_t offset, Bytes into) {
    int result = kPending;
    scope.spawn(read_and_note(disk, offset, into, result));
    loop.run_until_idle();
    return result;
  }
  int flush() {
    int result = kPending;
    scope.spawn(flush_and_note(disk, result));
    loop.run_until_idle();
    return result;
  }
  int discard(uint64_t offset, uint64_t length) {
    int result = kPending;
    scope.spawn(discard_and_note(disk, offset, length, result));
    loop.run_until_idle();
    return result;
  }
};

TEST(fault, "reads see writes at once, the durable image only after a flush") {
  Bench bench;
  const auto ones = filled(1024, 1);
  std::vector<std::byte> in(1024);
  CHECK_EQ(bench.write(512, ones), 0);
  CHECK_EQ(bench.read(512, in), 0);
  CHECK(in == ones);
  CHECK_EQ(bench.medium.durable()[512], std::byte{0});
  CHECK_EQ(bench.medium.unflushed_sectors(), 2u);
  CHECK_EQ(bench.flush(), 0);
  CHECK_EQ(bench.medium.durable()[512], std::byte{1});
  CHECK_EQ(bench.medium.unflushed_sectors(), 0u);
}

TEST(fault, "a durable write makes itself durable and nothing else") {
  Bench bench;
  CHECK_EQ(bench.write(0, filled(512, 1)), 0);
  CHECK_EQ(bench.write(4096, filled(512, 2)), 0);
  CHECK_EQ(bench.write(0, filled(512, 3), true), 0);
  CHECK_EQ(bench.medium.durable()[0], std::byte{3});
  CHECK_EQ(bench.medium.durable()[4096], std::byte{0});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    // The older version of the sector never comes back.
    MemoryDisk copy = bench.medium;
    copy.power_cut(seed);
    CHECK_EQ(copy.durable()[0], std::byte{3});
  }
}

TEST(fault, "a flush covers what had completed when it was submitted") {
  Bench bench;
  const auto ones = filled(512, 1);
  const auto twos = filled(512, 2);
  CHECK_EQ(bench.write(0, ones), 0);
  bench.disk.set_delay(1000, 1000);
  int flushed = kPending;
  bench.scope.spawn(flush_and_note(bench.disk, flushed));
  bench.disk.set_delay(1, 1);
  int written = kPending;
  bench.scope.spawn(write_and_note(bench.disk, 512, twos, false, written));
  bench.loop.run_until_idle();
  CHECK_EQ(flushed, 0);
  CHECK_EQ(written, 0);
  CHECK_EQ(bench.medium.durable()[0], std::byte{1});
  CHECK_EQ(bench.medium.durable()[512], std::byte{0});
}

TEST(fault, "a power cut keeps, loses or tears unflushed sectors, and nothing flushed") {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Bench bench;
    bench.write(0, filled(2048, 1));
    bench.flush();
    bench.write(512, filled(1024, 2));
    bench.write(512, filled(1024, 3));
    bench.disk.power_cut(seed);
    std::string outcome;
    for (int sector = 0; sector < 4; ++sector) {
      const ConstBytes bytes =
          bench.medium.current().subspan(static_cast<size_t>(sector) * 512, 512);
      for (const std::byte byte : bytes) CHECK(byte == bytes[0]);  // a sector is never torn
      outcome += static_cast<char>('0' + static_cast<int>(bytes[0]));
    }
    CHECK_EQ(outcome.front(), '1');
    CHECK_EQ(outcome.back(), '1');
    outcomes.insert(outcome);
    CHECK_EQ(bench.write(0, filled(512, 9)), -EIO);
    // The next program finds what the cut has left.
    FaultComponent next(bench.loop, bench.medium, seed);
    int result = kPending;
    std::vector<std::byte> in(512);
    bench.scope.spawn(read_and_note(next, 512, in, result));
    bench.loop.run_until_idle();
    CHECK_EQ(result, 0);
    CHECK_EQ(std::memcmp(in.data(), bench.medium.durable().data() + 512, 512), 0);
  }
  for (const char* possible : {"1111", "1221", "1331", "1121", "1211", "1231", "1131", "1311"}) {
    CHECK(outcomes.contains(possible));
  }
}

TEST(fault, "a power cut fails what is outstanding, and a write may have reached any sector") {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SimLoop loop;
    MemoryDisk medium(4096);
    FaultComponent disk(loop, medium, seed);
    Scope scope;
    const auto ones = filled(1024, 1);
    int results[2] = {kPending, kPending};
    scope.spawn(write_and_note(disk, 0, ones, true, results[0]));
    disk.hold();
    scope.spawn(flush_and_note(disk, results[1]));
    disk.power_cut(seed);
    loop.run_until_idle();
    CHECK_EQ(results[0], -EIO);
    CHECK_EQ(results[1], -EIO);
    outcomes.insert({static_cast<char>('0' + static_cast<int>(medium.durable()[0])),
                     static_cast<char>('0' + static_cast<int>(medium.durable()[512]))});
  }
  CHECK_EQ(outcomes.size(), 4u);
}

TEST(fault, "fails the operations it is told to, as often as it is told to") {
  Bench bench;
  std::vector<std::byte> in(512);
  bench.disk.add_fault({.kinds = FaultComponent::kWrite | FaultComponent::kRead,
                        .error = -EIO,
                        .times = 2,
                        .offset = 1024,
                        .length = 512});
  CHECK_EQ(bench.write(0, filled(1024, 1)), 0);
  CHECK_EQ(bench.write(1536, filled(512, 1)), 0);
  CHECK_EQ(bench.write(512, filled(1024, 1)), -EIO);
  CHECK_EQ(bench.read(1024, in), -EIO);
  CHECK_EQ(in[0], std::byte{0xdb});
  CHECK_EQ(bench.read(1024, in), 0);
  bench.disk.add_fault({.kinds = FaultComponent::kDiscard, .error = -ENOSPC});
  for (int i = 0; i < 3; ++i) CHECK_EQ(bench.discard(0, 4096), -ENOSPC);
  bench.disk.clear_faults();
  CHECK_EQ(bench.discard(0, 4096), 0);
  CHECK_EQ(bench.disk.submitted(FaultComponent::kDiscard), 4u);
  CHECK_EQ(bench.disk.submitted(FaultComponent::kWrite | FaultComponent::kRead), 5u);
}

TEST(fault, "what a failed flush should have kept may never become durable") {
  int lost = 0;
  int kept = 0;
  Bench bench;
  for (uint64_t sector = 0; sector < 32; ++sector) bench.write(sector * 512, filled(512, 1));
  bench.disk.add_fault({.kinds = FaultComponent::kFlush, .error = -EIO, .times = 1});
  CHECK_EQ(bench.flush(), -EIO);
  CHECK_EQ(bench.flush(), 0);
  for (uint64_t sector = 0; sector < 32; ++sector) {
    CHECK_EQ(bench.medium.current()[sector * 512], std::byte{1});
    ++(bench.medium.durable()[sector * 512] == std::byte{1} ? kept : lost);
  }
  CHECK(lost > 0);
  CHECK(kept > 0);
}

TEST(fault, "discards the aligned inner part, or says that it cannot") {
  SimLoop loop;
  MemoryDisk medium(64 * 1024);
  FaultComponent disk(loop, medium, 1, 4096);
  medium.set(0, filled(64 * 1024, 1));
  Scope scope;
  int results[3] = {kPending, kPending, kPending};
  scope.spawn(discard_and_note(disk, 512, 8192, results[0]));
  loop.run_until_idle();
  CHECK_EQ(results[0], 0);
  CHECK_EQ(medium.current()[4095], std::byte{1});
  CHECK_EQ(medium.current()[4096], std::byte{0});
  CHECK_EQ(medium.current()[8191], std::byte{0});
  CHECK_EQ(medium.current()[8192], std::byte{1});
  scope.spawn(discard_and_note(disk, 512, 4096, results[1]));
  disk.set_can_discard(false);
  loop.run_until_idle();
  scope.spawn(discard_and_note(disk, 16384, 4096, results[2]));
  loop.run_until_idle();
  CHECK_EQ(results[2], -EOPNOTSUPP);
  CHECK_EQ(medium.current()[16384], std::byte{1});
}

TEST(fault, "completes in an order of its own, the same for the same seed") {
  const auto order_of = [](uint64_t seed) {
    SimLoop loop;
    MemoryDisk medium(64 * 1024);
    FaultComponent disk(loop, medium, seed);
    struct Noting : hast::Completion {
      std::vector<int>* order = nullptr;
      int name = 0;
    };
    std::vector<int> order;
    std::vector<Noting> reads(16);
    std::vector<std::byte> in(16 * 512);
    for (int i = 0; i < 16; ++i) {
      Noting& read = reads[static_cast<size_t>(i)];
      read.order = &order;
      read.name = i;
      read.run = [](hast::Completion& c) {
        Noting& noting = static_cast<Noting&>(c);
        noting.order->push_back(noting.name);
      };
      disk.submit_read(read, 0, Bytes(in).subspan(static_cast<size_t>(i) * 512, 512));
    }
    CHECK_EQ(disk.outstanding(), 16u);
    loop.run_until_idle();
    CHECK_EQ(order.size(), 16u);
    return order;
  };
  CHECK(order_of(1) == order_of(1));
  CHECK(order_of(1) != order_of(2));
}

}  // namespace
