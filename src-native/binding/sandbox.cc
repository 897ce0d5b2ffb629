#include "binding/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace hast::binding {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

constexpr int kAllowed[] = {
    // Descriptors that are open.
    __NR_read,
    __NR_write,
    __NR_readv,
    __NR_writev,
    __NR_pread64,
    __NR_pwrite64,
    __NR_preadv,
    __NR_pwritev,
    __NR_preadv2,
    __NR_pwritev2,
    __NR_close,
    __NR_close_range,
    __NR_dup,
    __NR_dup3,
    __NR_fcntl,
    __NR_ioctl,
    __NR_lseek,
    __NR_fstat,
    __NR_newfstatat,
    __NR_statx,
    __NR_fstatfs,
    __NR_fsync,
    __NR_fdatasync,
    __NR_fallocate,
    __NR_flock,
    __NR_pipe2,
    __NR_eventfd2,
    // Waiting.
    __NR_io_uring_setup,
    __NR_io_uring_enter,
    __NR_io_uring_register,
    __NR_epoll_create1,
    __NR_epoll_ctl,
    __NR_epoll_pwait,
    __NR_ppoll,
    __NR_pselect6,
    __NR_futex,
    __NR_nanosleep,
    __NR_clock_nanosleep,
    __NR_clock_gettime,
    __NR_clock_getres,
    __NR_gettimeofday,
    __NR_restart_syscall,
    // Connections; `socket` is looked at below.
    __NR_connect,
    __NR_bind,
    __NR_accept,
    __NR_accept4,
    __NR_shutdown,
    __NR_getsockname,
    __NR_getpeername,
    __NR_setsockopt,
    __NR_getsockopt,
    __NR_sendto,
    __NR_sendmsg,
    __NR_recvfrom,
    __NR_recvmsg,
    // Memory.
    __NR_mmap,
    __NR_munmap,
    __NR_mprotect,
    __NR_mremap,
    __NR_madvise,
    __NR_brk,
    __NR_mlock,
    __NR_mlock2,
    __NR_munlock,
    __NR_membarrier,
    // Threads and signals of its own; `clone`, `prctl` and `tgkill` are looked at below.
    __NR_set_robust_list,
    __NR_rseq,
    __NR_set_tid_address,
    __NR_sched_yield,
    __NR_sched_getaffinity,
    __NR_gettid,
    __NR_getpid,
    __NR_getppid,
    __NR_getuid,
    __NR_geteuid,
    __NR_getgid,
    __NR_getegid,
    __NR_rt_sigaction,
    __NR_rt_sigprocmask,
    __NR_rt_sigreturn,
    __NR_sigaltstack,
    __NR_exit,
    __NR_exit_group,
    // Asking how things are.
    __NR_getrandom,
    __NR_getrusage,
    __NR_sysinfo,
    __NR_uname,
    __NR_getcpu,
    __NR_times,
    __NR_getcwd,
    __NR_capget,
#if defined(__x86_64__)
    __NR_epoll_wait,
    __NR_poll,
    __NR_select,
    __NR_dup2,
    __NR_pipe,
    __NR_eventfd,
    __NR_time,
    __NR_epoll_create,
    __NR_getrlimit,
#endif
};

/// What looks for a file by its name is told that there is none: libraries take that well.
constexpr int kNotFound[] = {
    __NR_openat, __NR_openat2,  __NR_readlinkat, __NR_faccessat, __NR_faccessat2,
#if defined(__x86_64__)
    __NR_open,   __NR_readlink, __NR_access,     __NR_stat,      __NR_lstat,
#endif
};

class Filter {
 public:
  Filter() {
    load(offsetof(seccomp_data, arch));
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
    answer(SECCOMP_RET_ERRNO | EPERM);
    load(offsetof(seccomp_data, nr));
    for (const int number : kAllowed) on(number, SECCOMP_RET_ALLOW);
    for (const int number : kNotFound) on(number, SECCOMP_RET_ERRNO | ENOENT);
    // Its flags cannot be looked at; the C library falls back to clone.
    on(__NR_clone3, SECCOMP_RET_ERRNO | ENOSYS);
    on_argument(__NR_socket, 0, {AF_INET, AF_INET6});
    on_argument(__NR_prctl, 0, {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE});
    on_argument(__NR_tgkill, 0, {static_cast<uint32_t>(getpid())});
    // Limits may be read, and not be set.
    on_no_pointer(__NR_prlimit64, 2);
    on_clone();
    answer(SECCOMP_RET_ERRNO | EPERM);
  }

  sock_fprog program() { return {static_cast<unsigned short>(code_.size()), code_.data()}; }

 private:
  void load(std::size_t at) {
    code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(at)));
  }
  /// Half an argument, the low one first: so all machines here have it.
  void load_argument(unsigned index, unsigned half = 0) {
    load(offsetof(seccomp_data, args) + index * sizeof(uint64_t) + half * sizeof(uint32_t));
  }
  void answer(uint32_t what) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, what)); }

  template <typename Then>
  void if_equal(uint32_t value, Then then) {
    const std::size_t jump = code_.size();
    code_.push_back({});
    then();
    const auto over = static_cast<uint8_t>(code_.size() - jump - 1);
    code_[jump] = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, over);
  }
  void on(int number, uint32_t what) {
    if_equal(static_cast<uint32_t>(number), [this, what] { answer(what); });
  }
  void on_argument(int number, unsigned index, std::initializer_list<uint32_t> values) {
    if_equal(static_cast<uint32_t>(number), [&] {
      load_argument(index);
      for (const uint32_t value : values) if_equal(value, [this] { answer(SECCOMP_RET_ALLOW); });
      answer(SECCOMP_RET_ERRNO | EPERM);
    });
  }
  /// An int is its low half; of a pointer both halves must be zero.
  void on_no_pointer(int number, unsigned index) {
    if_equal(static_cast<uint32_t>(number), [&] {
      load_argument(index);
      if_equal(0, [&] {
        load_argument(index, 1);
        if_equal(0, [this] { answer(SECCOMP_RET_ALLOW); });
      });
      answer(SECCOMP_RET_ERRNO | EPERM);
    });
  }
  /// Threads, no processes.
  void on_clone() {
    if_equal(__NR_clone, [this] {
      load_argument(0);
      code_.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1));
      answer(SECCOMP_RET_ALLOW);
      answer(SECCOMP_RET_ERRNO | EPERM);
    });
  }

  std::vector<sock_filter> code_;
};

}  // namespace

bool deny_system_calls() {
  if (kArchitecture == 0) return false;
  Filter filter;
  sock_fprog program = filter.program();
  return syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

bool deny_paths() {
  // Everything that the first version of landlock knows, and no rule that gives any of it back.
  landlock_ruleset_attr all{};
  all.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
  const long fd = syscall(__NR_landlock_create_ruleset, &all, sizeof all.handled_access_fs, 0);
  if (fd < 0) return false;
  const bool done = syscall(__NR_landlock_restrict_self, fd, 0) == 0;
  close(static_cast<int>(fd));
  return done;
}

}  // namespace hast::binding
