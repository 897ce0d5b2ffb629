#include "ring/ring.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness.h"
#include "ring/buffers.h"
#include "ring/driver_call.h"
#include "ring/mailbox.h"
#include "ring/temp_file.h"

namespace {

using hast::Bytes;
using hast::ConstBytes;
using hast::Ring;
using hast::Scope;
using hast::Task;

/// Counts down; for tests without coroutines.
struct Noting : hast::Completion {
  int runs = 0;
  Noting() {
    run = [](hast::Completion& c) { ++static_cast<Noting&>(c).runs; };
  }
};

std::unique_ptr<Ring> make_ring(uint32_t entries = 64) {
  std::string error;
  std::unique_ptr<Ring> ring = Ring::create(entries, error);
  if (ring == nullptr) std::printf("  no ring: %s\n", error.c_str());
  return ring;
}

void run_until_done(Ring& ring, const Noting& noting) {
  for (int turn = 0; turn < 1000 && noting.runs == 0; ++turn) ring.run_once(100'000);
}

TEST(ring, "writes and reads a file, and reports the end of the file") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  const int fd = hast::test::temp_file(8192, 0);
  REQUIRE(fd >= 0);
  std::vector<std::byte> out(4096, std::byte{0x5a});
  std::vector<std::byte> in(8192);
  Noting write;
  ring->write(write, fd, 4096, out, true);
  CHECK_EQ(ring->in_flight(), 1u);
  run_until_done(*ring, write);
  CHECK_EQ(write.result, 4096);
  Noting read;
  ring->read(read, fd, 4096, in);
  run_until_done(*ring, read);
  CHECK_EQ(read.result, 4096);
  CHECK_EQ(std::memcmp(in.data(), out.data(), 4096), 0);
  Noting sync;
  ring->fdatasync(sync, fd);
  run_until_done(*ring, sync);
  CHECK_EQ(sync.result, 0);
  Noting bad;
  ring->read(bad, -1, 0, in);
  run_until_done(*ring, bad);
  CHECK_EQ(bad.result, -EBADF);
  CHECK_EQ(ring->in_flight(), 0u);
  ::close(fd);
}

/// Their driver is the one of /dev/null, which does nothing (Linux 6.1; before it refuses).
TEST(ring, "a driver's command completes, and does not count as in flight meanwhile") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const std::array<std::byte, 16> payload = {};
  Noting done;
  ring->command(done, fd, 1, payload);
  CHECK_EQ(ring->in_flight(), 0u);
  run_until_done(*ring, done);
  CHECK_EQ(done.runs, 1);
  // What nobody waits for any more is no reason to keep the ring.
  Noting left;
  ring->command(left, fd, 1, payload);
  ring.reset();
  CHECK_EQ(left.runs, 0);
  ::close(fd);
}

TEST(ring, "a caller without a loop hears what a driver says of its command") {
  const std::array<std::byte, hast::kDriverCallBytesMax> payload = {};
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const int result = hast::driver_call(fd, 1, payload, 1000);
  if (result == -EOPNOTSUPP || result == -EINVAL) hast::test::skip("no commands on /dev/null");
  CHECK(result == 0 || result == -EOPNOTSUPP || result == -EINVAL);
  ::close(fd);
  CHECK_EQ(hast::driver_call(-1, 1, payload, 1000), -EBADF);
}

/// From here on this process cannot have an io_uring.
bool forbid_io_uring(uint32_t error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {static_cast<uint16_t>(std::size(filter)), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(ring, "a kernel that refuses gives an error that names the sysctl") {
  for (const uint32_t refusal : {EPERM, ENOSYS}) {
    const pid_t child = fork();
    if (child == 0) {
      if (!forbid_io_uring(refusal)) _exit(2);
      std::string error;
      const bool made = Ring::create(8, error) != nullptr;
      const bool named = error.find(std::strerror(static_cast<int>(refusal))) != error.npos &&
                         error.find("kernel.io_uring_disabled") != error.npos;
      _exit(!made && named ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 2) SKIP("seccomp is not available");
    CHECK_EQ(status, 0);
  }
}

TEST(ring, "loses nothing when far more is submitted in a turn than there are entries") {
  auto ring = make_ring(8);
  REQUIRE(ring != nullptr);
  const int fd = hast::test::temp_file(4096, 0);
  std::vector<Noting> reads(5000);
  std::vector<std::byte> in(512);
  for (Noting& read : reads) ring->read(read, fd, 0, in);
  CHECK_EQ(ring->in_flight(), 5000u);
  for (int turn = 0; turn < 20000 && ring->in_flight() > 0; ++turn) ring->run_once(100'000);
  ring->run_once(0);
  int good = 0;
  for (const Noting& read : reads) good += read.runs == 1 && read.result == 512 ? 1 : 0;
  CHECK_EQ(good, 5000);
  CHECK_EQ(ring->stats().completed, 5000u);
  ::close(fd);
}

TEST(ring, "wakes for the earliest timer, for max_wait and at once when something is ready") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  hast::Timer timer;
  static int runs;
  runs = 0;
  timer.run = [](hast::Completion&) { ++runs; };
  const uint64_t start = ring->now_us();
  ring->start(timer, start + 20'000);
  CHECK_EQ(ring->run_once(1000), 0u);
  CHECK(ring->now_us() - start >= 1000);
  CHECK(ring->now_us() - start < 20'000);
  for (int turn = 0; turn < 100 && runs == 0; ++turn) ring->run_once();
  CHECK_EQ(runs, 1);
  CHECK(ring->now_us() - start >= 20'000);
  CHECK(ring->now_us() - start < 200'000);
  Noting ready;
  ring->ready(ready, 0);
  const uint64_t enters = ring->stats().enters;
  CHECK_EQ(ring->run_once(), 1u);
  CHECK_EQ(ring->stats().enters, enters);
}

TEST(ring, "cancels an outstanding receive, and harmlessly one that has completed") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  std::array<std::byte, 16> in = {};
  Noting recv;
  ring->recv(recv, ends[0], in);
  ring->run_once(1000);
  CHECK_EQ(recv.runs, 0);
  ring->cancel(recv);
  run_until_done(*ring, recv);
  CHECK_EQ(recv.result, -ECANCELED);
  ring->cancel(recv);
  Noting again;
  ring->recv(again, ends[0], in);
  ring->run_once(1000);
  CHECK_EQ(again.runs, 0);
  Noting send;
  ring->send(send, ends[1], ConstBytes(in).first(5));
  run_until_done(*ring, again);
  CHECK_EQ(again.result, 5);
  ring->close_later(ends[0]);
  ring->close_later(ends[1]);
  ring->run_once(0);
}

TEST(ring, "polls, shuts down and uses registered descriptors") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  CHECK(ring->register_file(ends[0]));
  Noting poll;
  ring->poll(poll, ends[0], POLLIN);
  ring->run_once(0);
  CHECK_EQ(poll.runs, 0);
  Noting shutdown;
  ring->shutdown(shutdown, ends[1], SHUT_WR);
  run_until_done(*ring, poll);
  CHECK_EQ(shutdown.result, 0);
  CHECK((poll.result & POLLIN) != 0);
  std::array<std::byte, 4> in = {};
  Noting recv;
  ring->recv(recv, ends[0], in);
  ring->unregister_file(ends[0]);  // what is under way is not disturbed
  run_until_done(*ring, recv);
  CHECK_EQ(recv.result, 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(ring, "transfers through registered buffers, and beside them, alike") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  int error = 0;
  auto slab = hast::BufferSlab::create(4, 1u << 20, 128u << 10, error);
  REQUIRE(slab != nullptr);
  const auto report = ring->register_buffers(slab->base(), slab->total_bytes(),
                                             slab->stride_bytes(), slab->used_bytes());
  CHECK_EQ(report.total_bytes, 4u * (128u << 10));
  if (report.registered_bytes == 0) SKIP("the kernel registers no buffers");
  CHECK(report.registered_bytes <= report.total_bytes);
  const int fd = hast::test::temp_file(2u << 20, O_DIRECT);
  REQUIRE(fd >= 0);
  CHECK(ring->register_file(fd));
  std::vector<std::byte> expected;
  for (uint32_t slot = 0; slot < 4; ++slot) {
    // The second half of the first lies behind what is pinned.
    const Bytes bytes = slab->slot(slot).subspan(slot == 0 ? 0 : 4096u * slot, 256u << 10);
    std::memset(bytes.data(), static_cast<int>(0x11 * (slot + 1)), bytes.size());
    Noting write;
    ring->write(write, fd, slot * (256u << 10), bytes, false);
    run_until_done(*ring, write);
    CHECK_EQ(write.result, static_cast<int>(256u << 10));
    Noting small;
    ring->write(small, fd, (1u << 20) + slot * 4096u, bytes.first(4096), slot == 1);
    run_until_done(*ring, small);
    CHECK_EQ(small.result, 4096);
  }
  for (uint32_t slot = 0; slot < 4; ++slot) {
    const Bytes bytes = slab->slot(3 - slot).first(8192);
    Noting read;
    ring->read(read, fd, slot * (256u << 10), bytes.first(4096));
    run_until_done(*ring, read);
    Noting small;
    ring->read(small, fd, (1u << 20) + slot * 4096u, bytes.subspan(4096));
    run_until_done(*ring, small);
    CHECK_EQ(read.result, 4096);
    CHECK_EQ(bytes[0], std::byte(0x11 * (slot + 1)));
    CHECK_EQ(bytes[8191], std::byte(0x11 * (slot + 1)));
  }
  ring->unregister_file(fd);
  ::close(fd);
}

TEST(ring, "a slab gives aligned zeroed slots and says how much it could lock") {
  int error = 0;
  auto slab = hast::BufferSlab::create(3, 1u << 20, 64u << 10, error);
  REQUIRE(slab != nullptr);
  for (uint32_t index = 0; index < 3; ++index) {
    const Bytes slot = slab->slot(index);
    CHECK_EQ(slot.size(), 1u << 20);
    CHECK_EQ(reinterpret_cast<uintptr_t>(slot.data()) % 4096, 0u);
    CHECK_EQ(slot[slot.size() - 1], std::byte{0});
  }
  const hast::LockReport report = slab->lock(2);
  CHECK_EQ(report.total_bytes, 2u * (64u << 10));
  CHECK(report.locked_bytes == report.total_bytes || report.error < 0);
}

TEST(ring, "a mailbox delivers in order from other threads, refuses when full or closed") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  struct State {
    std::vector<uint64_t> next = {0, 0};
    int wrong = 0;
    int seen = 0;
  } state;
  constexpr uint64_t kEach = 20'000;
  hast::Mailbox<uint64_t> mailbox(*ring, 16);
  CHECK(!mailbox.post(1));
  REQUIRE(mailbox.start([&state](uint64_t&& value) {
    const std::size_t sender = value >> 32;
    if ((value & 0xffffffffu) != state.next[sender]++) ++state.wrong;
    ++state.seen;
  }) == 0);
  std::atomic<uint64_t> refused = 0;
  const auto send = [&mailbox, &refused](uint64_t sender) {
    for (uint64_t i = 0; i < kEach;) {
      if (mailbox.post(sender << 32 | i)) {
        ++i;
      } else {
        ++refused;
        std::this_thread::yield();
      }
    }
  };
  std::thread first(send, 0);
  std::thread second(send, 1);
  for (int turn = 0; turn < 1'000'000 && state.seen < 2 * static_cast<int>(kEach); ++turn) {
    ring->run_once(1'000'000);
  }
  first.join();
  second.join();
  CHECK_EQ(state.seen, 2 * static_cast<int>(kEach));
  CHECK_EQ(state.wrong, 0);
  CHECK(mailbox.post(2 * kEach));  // delivered by stop
  mailbox.stop();
  CHECK_EQ(state.seen, 2 * static_cast<int>(kEach) + 1);
  CHECK(!mailbox.post(1));
  while (!mailbox.stopped()) ring->run_once(100'000);
}

TEST(ring, "a mailbox wakes a loop that sleeps") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  bool stop = false;
  hast::Mailbox<int> mailbox(*ring, 4);
  REQUIRE(mailbox.start([&](int&&) {
    stop = true;
    mailbox.stop();
  }) == 0);
  std::thread other([&mailbox] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    mailbox.post(1);
  });
  ring->run(stop);
  other.join();
  while (!mailbox.stopped()) ring->run_once(100'000);
}

Task<void> read_in_chain(Ring& ring, int fd, int count, int& good) {
  std::array<std::byte, 512> in = {};
  for (int i = 0; i < count; ++i) {
    hast::RingRead read(ring, fd, 0, in);
    const int got = co_await read;
    if (got == 512) ++good;
  }
}

TEST(ring, "runs many flows of awaited reads to their end") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  const int fd = hast::test::temp_file(4096, 0);
  int good = 0;
  {
    Scope scope;
    for (int flow = 0; flow < 50; ++flow) scope.spawn(read_in_chain(*ring, fd, 100, good));
    while (scope.running() > 0) ring->run_once(100'000);
  }
  CHECK_EQ(good, 5000);
  CHECK_EQ(hast::task_frames_alive(), 0u);
  ::close(fd);
}

}  // namespace
