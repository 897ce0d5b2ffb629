#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "ring/loop.h"
#include "ring/task.h"

struct io_uring;
struct io_uring_sqe;

namespace hast {

/// What the ring has done since it was made.
struct RingStats {
  uint64_t enters = 0;     ///< system calls that submit or wait
  uint64_t submitted = 0;  ///< operations handed in, detached ones included
  uint64_t completed = 0;  ///< completions harvested, detached ones not included
};

/// How much of the buffers the kernel has agreed to keep pinned; the rest works unpinned.
struct RegisteredBuffers {
  uint64_t registered_bytes = 0;
  uint64_t total_bytes = 0;
  int error = 0;  ///< why it is not all: -errno of the first refusal
};

/// The production loop: one io_uring, one thread.
///
/// Created, run and destroyed by the same thread. An operation is a system call that finishes
/// later: its `Completion` goes to the ready queue with the result of the call or -errno. Buffers,
/// addresses and message headers must stay until then. Submissions never fail and are never lost:
/// they gather in the submission queue and enter the kernel once a turn. Nothing but commands may
/// be outstanding when the ring is destroyed.
///
/// Descriptors must not be O_NONBLOCK: the kernel would answer -EAGAIN where it should wait.
class Ring final : public Loop {
 public:
  /// A ring with room for `entries` submissions a turn (a power of two) and many more in flight.
  /// nullptr, a sentence with a hint in `error`, and errno, when the kernel has no io_uring for us.
  static std::unique_ptr<Ring> create(uint32_t entries, std::string& error);
  ~Ring() override;

  /// CLOCK_MONOTONIC, read when the turn begins and again when a wait ends.
  uint64_t now_us() const override { return now_us_; }

  /// One turn: submits, waits for the first completion, timer or `max_wait_us`, then runs all that
  /// is ready. Does not wait when something is ready already. Returns how many completions ran.
  uint64_t run_once(uint64_t max_wait_us = UINT64_MAX);
  /// Turns until `stop` is true; only what runs on the loop may set it.
  void run(const bool& stop);

  void read(Completion& done, int fd, uint64_t offset, Bytes into);
  /// `durable`: RWF_DSYNC.
  void write(Completion& done, int fd, uint64_t offset, ConstBytes from, bool durable);
  void fdatasync(Completion& done, int fd);
  void fallocate(Completion& done, int fd, int mode, uint64_t offset, uint64_t length);
  void recv(Completion& done, int fd, Bytes into);
  /// Sends add MSG_NOSIGNAL and MSG_WAITALL (newer kernels then go on after a partial transfer).
  void send(Completion& done, int fd, ConstBytes from);
  void sendmsg(Completion& done, int fd, const msghdr& message);
  /// Result: the new descriptor, close-on-exec.
  void accept(Completion& done, int fd);
  void connect(Completion& done, int fd, const sockaddr* to, socklen_t to_size);
  /// Waits once for any of the poll(2) `events`. Result: those that came.
  void poll(Completion& done, int fd, uint32_t events);
  void shutdown(Completion& done, int fd, int how);
  /// A driver's own command (IORING_OP_URING_CMD) with at most 16 bytes of payload. A driver may
  /// keep it for as long as it likes, and nothing but the end of the ring takes it back: so it does
  /// not count as in flight, and `done` must outlive the ring.
  void command(Completion& done, int fd, uint32_t operation, ConstBytes payload);

  /// Asks the kernel to give up the outstanding operation of `target`, which then completes with
  /// -ECANCELED or with what it did before. Harmless when it is just completing.
  void cancel(Completion& target);
  using Loop::cancel;
  /// Closes a descriptor that is not registered, later, without a report.
  void close_later(int fd);

  /// Pins [base, base + bytes) in groups until the kernel refuses; transfers that lie inside one
  /// pinned group then save the page look-up. Of each group only the first `used_bytes` are pinned
  /// (0: all of it); transfers beyond them work unpinned. Sizes are multiples of the page.
  /// At most once per ring; the memory must outlive the ring.
  RegisteredBuffers register_buffers(std::byte* base, uint64_t bytes,
                                     uint64_t group_bytes = kBufferGroupBytes,
                                     uint64_t used_bytes = 0);
  static constexpr uint64_t kBufferGroupBytes = 1u << 20;

  /// Saves the descriptor look-up of every later operation on `fd`. Refused silently (false) when
  /// the table is full or the kernel has none. Must be undone before `fd` is closed.
  bool register_file(int fd);
  /// Does nothing to a descriptor that is not registered.
  void unregister_file(int fd);

  const RingStats& stats() const { return stats_; }
  /// Operations in the kernel or waiting to be submitted, detached ones and commands not included.
  uint64_t in_flight() const { return in_flight_; }
  /// The IORING_SETUP flags the kernel has granted.
  uint32_t setup_flags() const;

 private:
  explicit Ring(std::unique_ptr<io_uring> ring);

  io_uring_sqe& next_entry();
  void finish_entry(io_uring_sqe& entry, int fd, Completion* done);
  int buffer_index(const std::byte* begin, std::size_t size) const;
  bool must_enter() const;
  void enter(uint64_t wait_us, bool reap);
  void make_room();
  void harvest();
  void read_clock();

  std::unique_ptr<io_uring> ring_;
  uint64_t now_us_ = 0;
  uint64_t in_flight_ = 0;
  RingStats stats_;

  std::byte* buffers_base_ = nullptr;
  uint64_t buffer_group_bytes_ = 0;
  uint64_t buffer_used_bytes_ = 0;
  uint64_t buffer_groups_ = 0;        // pinned ones, from the start
  std::byte* buffers_end_ = nullptr;  // of the last pinned group

  std::vector<int> file_slots_;  // by descriptor; -1: not registered
  std::vector<int> free_file_slots_;
};

/// `co_await RingRead(ring, fd, offset, into)` and so on, for flows that sit directly on the ring.
struct RingRead : CompletionAwait<RingRead> {
  Ring& ring;
  int fd;
  uint64_t offset;
  Bytes into;
  RingRead(Ring& r, int f, uint64_t o, Bytes b) : ring(r), fd(f), offset(o), into(b) {}
  void submit() { ring.read(*this, fd, offset, into); }
};
struct RingWrite : CompletionAwait<RingWrite> {
  Ring& ring;
  int fd;
  uint64_t offset;
  ConstBytes from;
  bool durable;
  RingWrite(Ring& r, int f, uint64_t o, ConstBytes b, bool d)
      : ring(r), fd(f), offset(o), from(b), durable(d) {}
  void submit() { ring.write(*this, fd, offset, from, durable); }
};
struct RingPoll : CompletionAwait<RingPoll> {
  Ring& ring;
  int fd;
  uint32_t events;
  RingPoll(Ring& r, int f, uint32_t e) : ring(r), fd(f), events(e) {}
  void submit() { ring.poll(*this, fd, events); }
};

}  // namespace hast
