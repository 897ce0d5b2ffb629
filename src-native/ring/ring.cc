#include "ring/ring.h"

#include <liburing.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "base/assert.h"

namespace hast {

namespace {

constexpr uint32_t kCompletionsPerEntry = 8;  // more in flight than submitted in one turn
constexpr uint32_t kFileSlots = 64;
constexpr std::size_t kCommandBytesMax = 16;
/// In the address of a completion: it does not count as in flight.
constexpr uint64_t kUncounted = 1;
static_assert(alignof(Completion) > kUncounted);
constexpr uint32_t kFeaturesNeeded = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;

/// What newer kernels offer, best first: the first set that the kernel knows is used.
constexpr uint32_t kSetupFlags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SUBMIT_ALL,
    0,
};

int setup(io_uring& ring, uint32_t entries) {
  int error = -EINVAL;
  for (const uint32_t flags : kSetupFlags) {
    io_uring_params params = {};
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = entries * kCompletionsPerEntry;
    error = io_uring_queue_init_params(entries, &ring, &params);
    if (error != -EINVAL) return error;
  }
  return error;
}

std::string refusal(int error) {
  std::string text = "the kernel refuses io_uring: ";
  text += std::strerror(-error);
  if (error == -EPERM) {
    text += " (see sysctl kernel.io_uring_disabled, and the seccomp rules of the container)";
  } else if (error == -ENOSYS) {
    text +=
        " (it is not built in, or a seccomp rule hides it; see sysctl kernel.io_uring_disabled)";
  } else if (error == -ENOMEM) {
    text += " (see the limit on locked memory, ulimit -l)";
  }
  return text;
}

}  // namespace

std::unique_ptr<Ring> Ring::create(uint32_t entries, std::string& error) {
  auto ring = std::make_unique<io_uring>();
  const int result = setup(*ring, entries);
  if (result < 0) {
    error = refusal(result);
    errno = -result;
    return nullptr;
  }
  if ((ring->features & kFeaturesNeeded) != kFeaturesNeeded) {
    io_uring_queue_exit(ring.get());
    error = "the kernel's io_uring is too old: Linux 5.11 or newer is needed";
    errno = ENOSYS;
    return nullptr;
  }
  return std::unique_ptr<Ring>(new Ring(std::move(ring)));
}

Ring::Ring(std::unique_ptr<io_uring> ring) : ring_(std::move(ring)) {
  // Both only save work for the kernel; without them everything goes by plain descriptors.
  io_uring_register_ring_fd(ring_.get());
  if (io_uring_register_files_sparse(ring_.get(), kFileSlots) == 0) {
    for (int slot = kFileSlots - 1; slot >= 0; --slot) free_file_slots_.push_back(slot);
  }
  read_clock();
}

Ring::~Ring() {
  HAST_ASSERT_OP(in_flight_, ==, 0u);
  if (must_enter()) enter(0, true);  // detached closes and cancels
  io_uring_queue_exit(ring_.get());
}

uint32_t Ring::setup_flags() const { return ring_->flags; }

void Ring::read_clock() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  now_us_ =
      static_cast<uint64_t>(now.tv_sec) * 1'000'000u + static_cast<uint64_t>(now.tv_nsec) / 1000u;
}

// ---- Turns
// -----------------------------------------------------------------------------------------

uint64_t Ring::run_once(uint64_t max_wait_us) {
  read_clock();
  expire_timers();
  harvest();
  uint64_t wait_us = 0;
  if (!has_ready()) {
    const uint64_t due_us = next_due_us();
    wait_us = due_us == UINT64_MAX ? max_wait_us : std::min(max_wait_us, due_us - now_us_);
  }
  if (wait_us > 0 || must_enter()) {
    enter(wait_us, true);
    harvest();
    read_clock();
    expire_timers();
  }
  return run_ready();
}

void Ring::run(const bool& stop) {
  while (!stop) run_once();
}

bool Ring::must_enter() const {
  if (io_uring_sq_ready(ring_.get()) > 0) return true;
  return (IO_URING_READ_ONCE(*ring_->sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

/// The one system call of a turn. liburing's own functions submit and wait in two calls, or skip
/// the deferred work when a completion is there already; so this is its body, made to measure.
void Ring::enter(uint64_t wait_us, bool reap) {
  io_uring_sq& sq = ring_->sq;
  if (sq.sqe_head != sq.sqe_tail) {
    sq.sqe_head = sq.sqe_tail;
    io_uring_smp_store_release(sq.ktail, sq.sqe_tail);
  }
  const uint32_t to_submit = sq.sqe_tail - io_uring_smp_load_acquire(sq.khead);

  __kernel_timespec timeout = {};
  timeout.tv_sec = static_cast<int64_t>(wait_us / 1'000'000u);
  timeout.tv_nsec = static_cast<int64_t>(wait_us % 1'000'000u) * 1000;
  io_uring_getevents_arg argument = {};
  argument.sigmask_sz = _NSIG / 8;
  if (wait_us != UINT64_MAX) argument.ts = reinterpret_cast<uintptr_t>(&timeout);

  uint32_t flags = IORING_ENTER_EXT_ARG;
  if (reap) flags |= IORING_ENTER_GETEVENTS;
  if (ring_->enter_ring_fd != ring_->ring_fd) flags |= IORING_ENTER_REGISTERED_RING;
  const int result =
      io_uring_enter2(static_cast<uint32_t>(ring_->enter_ring_fd), to_submit, wait_us > 0 ? 1 : 0,
                      flags, reinterpret_cast<sigset_t*>(&argument), sizeof argument);
  ++stats_.enters;
  if (result == -EINTR || result == -ETIME || result == -EAGAIN || result == -EBUSY) return;
  HAST_ASSERT_OP(result, >=, 0);
}

void Ring::harvest() {
  for (;;) {
    uint32_t head = 0;
    uint32_t count = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(ring_.get(), head, entry) {
      ++count;
      if (entry->user_data == 0) continue;
      if ((entry->user_data & kUncounted) == 0) {
        HAST_ASSERT_OP(in_flight_, >, 0u);
        --in_flight_;
      }
      ++stats_.completed;
      ready(*reinterpret_cast<Completion*>(entry->user_data & ~kUncounted), entry->res);
    }
    io_uring_cq_advance(ring_.get(), count);
    // Completions that found no room wait in the kernel and are moved by the next call.
    if ((IO_URING_READ_ONCE(*ring_->sq.kflags) & IORING_SQ_CQ_OVERFLOW) == 0) return;
    enter(0, true);
  }
}

// ---- Submissions
// -----------------------------------------------------------------------------------

io_uring_sqe& Ring::next_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
  if (entry == nullptr) {
    make_room();
    entry = io_uring_get_sqe(ring_.get());
  }
  HAST_ASSERT(entry != nullptr);
  return *entry;
}

/// The kernel takes less than all only when it is short of memory or of room for completions, so
/// take those and try again; losing an operation would be worse than standing still for a while.
void Ring::make_room() {
  constexpr timespec kPause = {0, 200'000};
  for (uint32_t attempt = 0;; ++attempt) {
    enter(0, attempt > 0);
    if (io_uring_sq_space_left(ring_.get()) > 0) return;
    harvest();
    if (attempt > 8) nanosleep(&kPause, nullptr);
  }
}

void Ring::finish_entry(io_uring_sqe& entry, int fd, Completion* done) {
  entry.user_data = reinterpret_cast<uintptr_t>(done);
  ++stats_.submitted;
  if (done != nullptr) ++in_flight_;
  if (fd < 0 || static_cast<std::size_t>(fd) >= file_slots_.size()) return;
  const int slot = file_slots_[static_cast<std::size_t>(fd)];
  if (slot < 0) return;
  entry.fd = slot;
  entry.flags = static_cast<uint8_t>(entry.flags | IOSQE_FIXED_FILE);
}

void Ring::read(Completion& done, int fd, uint64_t offset, Bytes into) {
  io_uring_sqe& entry = next_entry();
  const uint32_t size = static_cast<uint32_t>(into.size());
  const int index = buffer_index(into.data(), into.size());
  if (index >= 0) {
    io_uring_prep_read_fixed(&entry, fd, into.data(), size, offset, index);
  } else {
    io_uring_prep_read(&entry, fd, into.data(), size, offset);
  }
  finish_entry(entry, fd, &done);
}

void Ring::write(Completion& done, int fd, uint64_t offset, ConstBytes from, bool durable) {
  io_uring_sqe& entry = next_entry();
  const uint32_t size = static_cast<uint32_t>(from.size());
  const int index = buffer_index(from.data(), from.size());
  if (index >= 0) {
    io_uring_prep_write_fixed(&entry, fd, from.data(), size, offset, index);
  } else {
    io_uring_prep_write(&entry, fd, from.data(), size, offset);
  }
  if (durable) entry.rw_flags = RWF_DSYNC;
  finish_entry(entry, fd, &done);
}

void Ring::fdatasync(Completion& done, int fd) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_fsync(&entry, fd, IORING_FSYNC_DATASYNC);
  finish_entry(entry, fd, &done);
}

void Ring::fallocate(Completion& done, int fd, int mode, uint64_t offset, uint64_t length) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_rw(IORING_OP_FALLOCATE, &entry, fd, nullptr, static_cast<uint32_t>(mode), offset);
  entry.addr = length;  // liburing 2.3 passes it through off_t and a pointer
  finish_entry(entry, fd, &done);
}

void Ring::recv(Completion& done, int fd, Bytes into) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_recv(&entry, fd, into.data(), into.size(), 0);
  finish_entry(entry, fd, &done);
}

void Ring::send(Completion& done, int fd, ConstBytes from) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_send(&entry, fd, from.data(), from.size(), MSG_NOSIGNAL | MSG_WAITALL);
  finish_entry(entry, fd, &done);
}

void Ring::sendmsg(Completion& done, int fd, const msghdr& message) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_sendmsg(&entry, fd, &message, MSG_NOSIGNAL | MSG_WAITALL);
  finish_entry(entry, fd, &done);
}

void Ring::accept(Completion& done, int fd) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_accept(&entry, fd, nullptr, nullptr, SOCK_CLOEXEC);
  finish_entry(entry, fd, &done);
}

void Ring::connect(Completion& done, int fd, const sockaddr* to, socklen_t to_size) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_connect(&entry, fd, to, to_size);
  finish_entry(entry, fd, &done);
}

void Ring::poll(Completion& done, int fd, uint32_t events) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_poll_add(&entry, fd, events);
  finish_entry(entry, fd, &done);
}

void Ring::shutdown(Completion& done, int fd, int how) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_shutdown(&entry, fd, how);
  finish_entry(entry, fd, &done);
}

void Ring::command(Completion& done, int fd, uint32_t operation, ConstBytes payload) {
  HAST_ASSERT_OP(payload.size(), <=, kCommandBytesMax);
  io_uring_sqe& entry = next_entry();
  io_uring_prep_rw(IORING_OP_URING_CMD, &entry, fd, nullptr, 0, 0);
  entry.cmd_op = operation;
  // The payload takes the last 16 bytes of the entry.
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(&entry, 1));
  std::memcpy(bytes.subspan(sizeof entry - kCommandBytesMax).data(), payload.data(),
              payload.size());
  finish_entry(entry, fd, nullptr);
  entry.user_data = reinterpret_cast<uintptr_t>(&done) | kUncounted;
}

void Ring::cancel(Completion& target) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_cancel64(&entry, reinterpret_cast<uintptr_t>(&target), 0);
  finish_entry(entry, -1, nullptr);
}

void Ring::close_later(int fd) {
  io_uring_sqe& entry = next_entry();
  io_uring_prep_close(&entry, fd);
  finish_entry(entry, -1, nullptr);
}

// ---- Registration
// ----------------------------------------------------------------------------------

RegisteredBuffers Ring::register_buffers(std::byte* base, uint64_t bytes, uint64_t group_bytes,
                                         uint64_t used_bytes) {
  HAST_ASSERT(buffers_base_ == nullptr);
  HAST_ASSERT_OP(group_bytes, >, 0u);
  if (used_bytes == 0) used_bytes = group_bytes;
  HAST_ASSERT_OP(used_bytes, <=, group_bytes);
  RegisteredBuffers report;
  const uint64_t groups = (bytes + group_bytes - 1) / group_bytes;
  for (uint64_t group = 0; group < groups; ++group) {
    report.total_bytes += std::min(used_bytes, bytes - group * group_bytes);
  }
  report.error = io_uring_register_buffers_sparse(ring_.get(), static_cast<uint32_t>(groups));
  if (report.error < 0) return report;

  buffers_base_ = base;
  buffer_group_bytes_ = group_bytes;
  buffer_used_bytes_ = used_bytes;
  for (; buffer_groups_ < groups; ++buffer_groups_) {
    const uint64_t offset = buffer_groups_ * group_bytes;
    const iovec part = {base + offset, std::min(used_bytes, bytes - offset)};
    const __u64 tag = 0;
    const int result = io_uring_register_buffers_update_tag(
        ring_.get(), static_cast<uint32_t>(buffer_groups_), &part, &tag, 1);
    if (result < 0) {
      report.error = result;
      return report;
    }
    buffers_end_ = part.iov_len + static_cast<std::byte*>(part.iov_base);
    report.registered_bytes += part.iov_len;
  }
  return report;
}

/// The pinned group that holds all of [begin, begin + size), or -1.
int Ring::buffer_index(const std::byte* begin, std::size_t size) const {
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t base = reinterpret_cast<uintptr_t>(buffers_base_);
  if (address < base || address + size > reinterpret_cast<uintptr_t>(buffers_end_)) return -1;
  const uint64_t offset = address - base;
  const uint64_t group = offset / buffer_group_bytes_;
  if (offset - group * buffer_group_bytes_ + size > buffer_used_bytes_) return -1;
  return static_cast<int>(group);
}

bool Ring::register_file(int fd) {
  HAST_ASSERT_OP(fd, >=, 0);
  if (free_file_slots_.empty()) return false;
  const std::size_t index = static_cast<std::size_t>(fd);
  if (index >= file_slots_.size()) file_slots_.resize(index + 1, -1);
  HAST_ASSERT_OP(file_slots_[index], ==, -1);
  const int slot = free_file_slots_.back();
  if (io_uring_register_files_update(ring_.get(), static_cast<uint32_t>(slot), &fd, 1) != 1) {
    return false;
  }
  free_file_slots_.pop_back();
  file_slots_[index] = slot;
  return true;
}

void Ring::unregister_file(int fd) {
  const std::size_t index = static_cast<std::size_t>(fd);
  if (fd < 0 || index >= file_slots_.size() || file_slots_[index] < 0) return;
  // What has not entered the kernel yet names the slot, not the descriptor.
  if (io_uring_sq_ready(ring_.get()) > 0) enter(0, false);
  const int nothing = -1;
  io_uring_register_files_update(ring_.get(), static_cast<uint32_t>(file_slots_[index]), &nothing,
                                 1);
  free_file_slots_.push_back(file_slots_[index]);
  file_slots_[index] = -1;
}

}  // namespace hast
