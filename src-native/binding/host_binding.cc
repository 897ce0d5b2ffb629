#include "binding/host_binding.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <netdb.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "binding/arguments.h"
#include "binding/sandbox.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace hast::binding {
namespace {

constexpr int kListenBacklog = 128;
/// In one message.
constexpr size_t kDescriptorsMax = 4;
constexpr uint32_t kFileSectorBytes = 512;
/// Memory alignment that every direct I/O is content with, and the largest granule we meet.
constexpr size_t kBufferAlign = 4096;
/// The largest area read or written here: the map, and what lies in front of it.
constexpr int64_t kAreaBytesMax = int64_t{kMapBytesMax} + kMetadataBytes;

/// Closes on every early return; `release` hands the descriptor on. Keeps errno.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1) {
    const int saved = errno;
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
    errno = saved;
  }

 private:
  int fd_;
};

/// Undefined with an exception pending.
Napi::Value system_failure(const Napi::CallbackInfo& info, const char* syscall,
                           const std::string& subject) {
  throw_system(info.Env(), syscall, subject, errno);
  return info.Env().Undefined();
}

Napi::Value refused(const Napi::CallbackInfo& info, const char* syscall, const std::string& subject,
                    int error) {
  throw_system(info.Env(), syscall, subject, error);
  return info.Env().Undefined();
}

// ---- Components ----------------------------------------------------------------------------

struct FreeDeleter {
  void operator()(void* memory) const { free(memory); }
};
using AlignedBytes = std::unique_ptr<std::byte, FreeDeleter>;

/// Null when there is no memory.
AlignedBytes aligned_bytes(size_t length) {
  const size_t whole = (std::max<size_t>(length, 1) + kBufferAlign - 1) & ~(kBufferAlign - 1);
  return AlignedBytes(static_cast<std::byte*>(aligned_alloc(kBufferAlign, whole)));
}

/// The alignment that direct I/O on the open file asks for; 0 when the kernel does not say.
uint32_t direct_granule(int fd) {
#ifdef STATX_DIOALIGN
  struct statx facts {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) == 0 &&
      (facts.stx_mask & STATX_DIOALIGN) != 0 && facts.stx_dio_offset_align != 0) {
    return std::max(facts.stx_dio_offset_align, facts.stx_dio_mem_align);
  }
#endif
  return 0;
}

/// For kernels and file systems that do not tell: does a read of one 512-byte sector work?
uint32_t probed_granule(int fd) {
  const AlignedBytes buffer = aligned_bytes(kBufferAlign);
  if (buffer == nullptr) return kBufferAlign;
  const ssize_t got = pread(fd, buffer.get(), kFileSectorBytes, kFileSectorBytes);
  return got >= 0 ? kFileSectorBytes : kBufferAlign;
}

struct Opened {
  Descriptor fd{-1};
  struct stat facts {};
  bool direct = true;
  const char* failed = nullptr;  // the system call, errno is set
};

/// Looks before it opens, so that a FIFO or a terminal at the path is never touched.
void open_component(const std::string& path, bool write, bool lock, Opened& out) {
  struct stat before {};
  if (stat(path.c_str(), &before) != 0) {
    out.failed = "stat";
    return;
  }
  const bool block = S_ISBLK(before.st_mode);
  if (!block && !S_ISREG(before.st_mode)) {
    errno = S_ISDIR(before.st_mode) ? EISDIR : EINVAL;
    out.failed = "open";
    return;
  }
  const int flags = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | (block && lock ? O_EXCL : 0);
  out.fd.reset(open(path.c_str(), flags | O_DIRECT));
  if (!out.fd.valid() && errno == EINVAL && !block) {
    out.direct = false;
    out.fd.reset(open(path.c_str(), flags));
  }
  if (!out.fd.valid()) {
    out.failed = "open";
    return;
  }
  if (fstat(out.fd.get(), &out.facts) != 0) {
    out.failed = "fstat";
    return;
  }
  if (out.facts.st_dev != before.st_dev || out.facts.st_ino != before.st_ino) {
    errno = ESTALE;  // the path was exchanged between the two calls
    out.failed = "open";
    return;
  }
  // The open file itself is locked: a descriptor that is passed on keeps the lock.
  if (lock && flock(out.fd.get(), LOCK_EX | LOCK_NB) != 0) out.failed = "flock";
}

Napi::Value open_component_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "openComponent");
  const std::string path = arguments.text(0);
  const bool write = arguments.boolean(1);
  const bool lock = arguments.boolean(2);
  if (arguments.bad()) return info.Env().Undefined();

  Opened opened;
  open_component(path, write, lock, opened);
  if (opened.failed != nullptr) return system_failure(info, opened.failed, path);

  const int fd = opened.fd.get();
  const bool block = S_ISBLK(opened.facts.st_mode);
  uint64_t size = static_cast<uint64_t>(opened.facts.st_size);
  uint32_t sector = kFileSectorBytes;
  std::string device;
  if (block) {
    int logical = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0) return system_failure(info, "BLKGETSIZE64", path);
    if (ioctl(fd, BLKSSZGET, &logical) != 0) return system_failure(info, "BLKSSZGET", path);
    sector = static_cast<uint32_t>(logical);
    device = "block:" + std::to_string(major(opened.facts.st_rdev)) + ":" +
             std::to_string(minor(opened.facts.st_rdev));
  } else {
    device = "file:" + std::to_string(major(opened.facts.st_dev)) + ":" +
             std::to_string(minor(opened.facts.st_dev)) + ":" + std::to_string(opened.facts.st_ino);
  }
  uint32_t granule = sector;
  if (opened.direct) {
    const uint32_t told = direct_granule(fd);
    if (told != 0) {
      granule = std::max(granule, told);
    } else if (!block) {
      granule = probed_granule(fd);
    }
  }

  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("sizeBytes", Napi::BigInt::New(env, size));
  result.Set("sectorBytes", Napi::Number::New(env, sector));
  result.Set("granuleBytes", Napi::Number::New(env, granule));
  result.Set("blockDevice", Napi::Boolean::New(env, block));
  result.Set("direct", Napi::Boolean::New(env, opened.direct));
  result.Set("device", Napi::String::New(env, device));
  result.Set("fd", Napi::Number::New(env, opened.fd.release()));
  return result;
}

Napi::Value close_fd(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "closeFd");
  const int fd = arguments.descriptor(0);
  if (arguments.bad()) return info.Env().Undefined();
  // On Linux the descriptor is gone even after EINTR.
  if (close(fd) != 0 && errno != EINTR) return system_failure(info, "close", "");
  return info.Env().Undefined();
}

Napi::Value read_at(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "readAt");
  const int fd = arguments.descriptor(0);
  const uint64_t offset = arguments.unsigned64(1, std::numeric_limits<int64_t>::max() / 2);
  const size_t length = static_cast<size_t>(arguments.integer(2, 0, kAreaBytesMax));
  if (arguments.bad()) return info.Env().Undefined();

  const AlignedBytes buffer = aligned_bytes(length);
  if (buffer == nullptr) return refused(info, "aligned_alloc", "", ENOMEM);
  size_t done = 0;
  while (done < length) {
    const ssize_t got =
        pread(fd, buffer.get() + done, length - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_failure(info, "pread", "");
    if (got == 0) return refused(info, "pread", "read beyond the end", EIO);
    done += static_cast<size_t>(got);
  }
  return Napi::Buffer<std::byte>::Copy(info.Env(), buffer.get(), length);
}

Napi::Value write_at(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "writeAt");
  const int fd = arguments.descriptor(0);
  const uint64_t offset = arguments.unsigned64(1, std::numeric_limits<int64_t>::max() / 2);
  const std::span<const uint8_t> data = arguments.bytes(2);
  if (!arguments.bad() && data.size() > static_cast<size_t>(kAreaBytesMax)) {
    arguments.refuse(2, "a Buffer of at most 64 MiB and 4 KiB");
  }
  if (arguments.bad()) return info.Env().Undefined();

  const AlignedBytes buffer = aligned_bytes(data.size());
  if (buffer == nullptr) return refused(info, "aligned_alloc", "", ENOMEM);
  if (!data.empty()) memcpy(buffer.get(), data.data(), data.size());
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t put =
        pwrite(fd, buffer.get() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return system_failure(info, "pwrite", "");
    if (put == 0) return refused(info, "pwrite", "", EIO);
    done += static_cast<size_t>(put);
  }
  return info.Env().Undefined();
}

Napi::Value flush(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "flush");
  const int fd = arguments.descriptor(0);
  if (arguments.bad()) return info.Env().Undefined();
  // Never retried: after a failure the kernel may already have dropped the pages.
  if (fdatasync(fd) != 0) return system_failure(info, "fdatasync", "");
  return info.Env().Undefined();
}

Napi::Value flock_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "flock");
  const int fd = arguments.descriptor(0);
  if (arguments.bad()) return info.Env().Undefined();
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
  return system_failure(info, "flock", "");
}

// ---- Sockets -------------------------------------------------------------------------------

/// 0 when nobody answers on the socket at the address; else the reason for leaving it alone.
int in_use(const sockaddr_un& address) {
  const Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return errno;
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return EADDRINUSE;
  }
  // EAGAIN: its queue is full. EPROTOTYPE: a socket of another type is bound there.
  if (errno == EAGAIN || errno == EPROTOTYPE) return EADDRINUSE;
  return errno == ECONNREFUSED || errno == ENOENT ? 0 : errno;
}

/// 0, or why the path cannot be taken. Removes a socket that nobody answers on, and nothing else.
int clear_path(const char* path, const sockaddr_un& address) {
  struct stat facts {};
  if (lstat(path, &facts) != 0) return errno == ENOENT ? 0 : errno;
  if (!S_ISSOCK(facts.st_mode)) return EEXIST;
  const int problem = in_use(address);
  if (problem != 0) return problem;
  return unlink(path) == 0 || errno == ENOENT ? 0 : errno;
}

/// Gives a socket that we have just bound to another user. What somebody may have put in its place
/// meanwhile, a link or another file, is left alone.
bool give_away(const char* path, uid_t uid, gid_t gid) {
  const Descriptor file(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return false;
  struct stat facts {};
  if (fstat(file.get(), &facts) != 0) return false;
  if (!S_ISSOCK(facts.st_mode) || facts.st_uid != geteuid() || facts.st_nlink != 1) {
    errno = EPERM;
    return false;
  }
  return fchownat(file.get(), "", uid, gid, AT_EMPTY_PATH) == 0;
}

Napi::Value listen_unix(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "listenUnix");
  const std::string path = arguments.text(0);
  const mode_t mode = static_cast<mode_t>(arguments.integer(1, 0, 0777));
  const uid_t uid = static_cast<uid_t>(arguments.integer(2, -1, UINT32_MAX));
  const gid_t gid = static_cast<gid_t>(arguments.integer(3, -1, UINT32_MAX));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!arguments.bad() && (path.empty() || path.size() >= sizeof address.sun_path)) {
    arguments.refuse(0, "a path of 1 to 107 bytes");
  }
  if (arguments.bad()) return info.Env().Undefined();
  memcpy(address.sun_path, path.data(), path.size());

  const int problem = clear_path(path.c_str(), address);
  if (problem != 0) return refused(info, "bind", path, problem);
  Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return system_failure(info, "socket", path);
  // The umask alone decides on the mode, so that it is right from the first moment and no path is
  // looked up again for it.
  const mode_t before = umask(0777 & ~mode);
  const int bound = bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int bind_error = errno;
  umask(before);
  if (bound != 0) return refused(info, "bind", path, bind_error);
  const char* failed = nullptr;
  const bool owned = uid != static_cast<uid_t>(-1) || gid != static_cast<gid_t>(-1);
  if (owned && !give_away(path.c_str(), uid, gid)) {
    failed = "chown";
  } else if (listen(fd.get(), kListenBacklog) != 0) {
    failed = "listen";
  }
  if (failed != nullptr) {
    const int error = errno;
    unlink(path.c_str());
    return refused(info, failed, path, error);
  }
  return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value listen_tcp(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "listenTcp");
  const std::string host = arguments.text(0);
  const std::string port = std::to_string(arguments.integer(1, 0, 65535));
  if (arguments.bad()) return info.Env().Undefined();

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    arguments.refuse(0, "a numeric IPv4 or IPv6 address");
    return info.Env().Undefined();
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> address(found, freeaddrinfo);
  const bool six = address->ai_family == AF_INET6;
  const std::string place = (six ? "[" + host + "]" : host) + ":" + port;
  Descriptor fd(socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return system_failure(info, "socket", place);
  const int on = 1;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
    return system_failure(info, "SO_REUSEADDR", place);
  }
  // Both wildcards are listened on; without this the IPv6 one would take the IPv4 port too.
  if (six && setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) {
    return system_failure(info, "IPV6_V6ONLY", place);
  }
  if (bind(fd.get(), address->ai_addr, address->ai_addrlen) != 0) {
    return system_failure(info, "bind", place);
  }
  if (listen(fd.get(), kListenBacklog) != 0) return system_failure(info, "listen", place);
  return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value peer_credentials(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "peerCredentials");
  const int fd = arguments.descriptor(0);
  if (arguments.bad()) return info.Env().Undefined();
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return system_failure(info, "SO_PEERCRED", "");
  }
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("pid", Napi::Number::New(env, peer.pid));
  result.Set("uid", Napi::Number::New(env, peer.uid));
  result.Set("gid", Napi::Number::New(env, peer.gid));
  return result;
}

// ---- Descriptors for another process -------------------------------------------------------

/// A pair of connected sockets that keep the borders of messages.
Napi::Value socket_pair(const Napi::CallbackInfo& info) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return system_failure(info, "socketpair", "");
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  for (uint32_t i = 0; i < 2; ++i) result.Set(i, Napi::Number::New(info.Env(), ends[i]));
  return result;
}

/// Room for the descriptors of one message, as the kernel wants it to be aligned.
struct DescriptorMessage {
  alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))] = {};
  char byte = 0;
  iovec part{&byte, 1};
  msghdr head{};

  explicit DescriptorMessage(size_t count) {
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    head.msg_control = control;
    head.msg_controllen = CMSG_SPACE(count * sizeof(int));
  }
};

Napi::Value send_descriptors(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "sendDescriptors");
  const int fd = arguments.descriptor(0);
  const Napi::Object list = arguments.object(1);
  if (arguments.bad()) return info.Env().Undefined();
  const auto count = static_cast<size_t>(
      arguments.integer_of(list, "length", 1, static_cast<int64_t>(kDescriptorsMax)));
  int fds[kDescriptorsMax] = {};
  for (size_t i = 0; i < count && !arguments.bad(); ++i) {
    fds[i] = static_cast<int>(arguments.integer_of(list, std::to_string(i).c_str(), 0, INT32_MAX));
  }
  if (arguments.bad()) return info.Env().Undefined();

  DescriptorMessage message(count);
  cmsghdr* header = CMSG_FIRSTHDR(&message.head);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  if (sendmsg(fd, &message.head, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) {
    return system_failure(info, "sendmsg", "");
  }
  return info.Env().Undefined();
}

Napi::Value receive_descriptors(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "receiveDescriptors");
  const int fd = arguments.descriptor(0);
  if (arguments.bad()) return info.Env().Undefined();
  DescriptorMessage message(kDescriptorsMax);
  const ssize_t got = recvmsg(fd, &message.head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return system_failure(info, "recvmsg", "");
  const Napi::Env env = info.Env();
  Napi::Array result = Napi::Array::New(env);
  const cmsghdr* header = CMSG_FIRSTHDR(&message.head);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return result;
  const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  int fds[kDescriptorsMax] = {};
  memcpy(fds, CMSG_DATA(header), std::min(count, kDescriptorsMax) * sizeof(int));
  for (size_t i = 0; i < std::min(count, kDescriptorsMax); ++i) {
    result.Set(static_cast<uint32_t>(i), Napi::Number::New(env, fds[i]));
  }
  return result;
}

// ---- Other processes -----------------------------------------------------------------------

Napi::Value pidfd_open_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "pidfdOpen");
  const auto pid = static_cast<pid_t>(arguments.integer(0, 1, std::numeric_limits<pid_t>::max()));
  if (arguments.bad()) return info.Env().Undefined();
  const long fd = syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) return system_failure(info, "pidfd_open", std::to_string(pid));
  return Napi::Number::New(info.Env(), static_cast<double>(fd));
}

Napi::Value pidfd_signal(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "pidfdSignal");
  const int fd = arguments.descriptor(0);
  const int signal = static_cast<int>(arguments.integer(1, 0, SIGRTMAX));
  if (arguments.bad()) return info.Env().Undefined();
  const bool done = syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) == 0;
  if (!done && errno != ESRCH) return system_failure(info, "pidfd_send_signal", "");
  return Napi::Boolean::New(info.Env(), done);
}

// ---- The process ---------------------------------------------------------------------------

/// The name that ps -o comm and pgrep show; the kernel keeps 15 bytes of it.
Napi::Value set_title(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "setTitle");
  const std::string title = arguments.text(0);
  if (arguments.bad()) return info.Env().Undefined();
  if (prctl(PR_SET_NAME, title.c_str(), 0, 0, 0) != 0) {
    return system_failure(info, "PR_SET_NAME", "");
  }
  return info.Env().Undefined();
}

Napi::Value syslog_open(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "syslogOpen");
  const std::string ident = arguments.text(0);
  if (arguments.bad()) return info.Env().Undefined();
  static char kept[64];  // syslog(3) keeps the pointer
  closelog();
  kept[ident.copy(kept, sizeof kept - 1)] = '\0';
  openlog(kept, LOG_PID | LOG_NDELAY, LOG_DAEMON);
  return info.Env().Undefined();
}

Napi::Value syslog_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "syslog");
  const int priority = static_cast<int>(arguments.integer(0, LOG_EMERG, LOG_DEBUG));
  const std::string text = arguments.text(1);
  if (arguments.bad()) return info.Env().Undefined();
  syslog(priority, "%s", text.c_str());
  return info.Env().Undefined();
}

Napi::Value set_io_flusher(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "setIoFlusher");
  const bool on = arguments.boolean(0);
  if (arguments.bad()) return info.Env().Undefined();
  const bool done = prctl(PR_SET_IO_FLUSHER, on ? 1UL : 0UL, 0UL, 0UL, 0UL) == 0;
  return Napi::Boolean::New(info.Env(), done);
}

/// Never lowers the limit. Where the whole is refused, it goes as far as it may and says false.
Napi::Value set_memlock_limit(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "setMemlockLimit");
  const rlim_t wanted = arguments.unsigned64(0, RLIM_INFINITY);
  if (arguments.bad()) return info.Env().Undefined();
  const auto answer = [&info](bool done) { return Napi::Boolean::New(info.Env(), done); };
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return answer(false);
  if (limit.rlim_cur >= wanted) return answer(true);
  const rlimit raised{wanted, std::max(limit.rlim_max, wanted)};
  if (setrlimit(RLIMIT_MEMLOCK, &raised) == 0) return answer(true);
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_MEMLOCK, &limit);
  return answer(false);
}

/// Takes from this process what it never needs again; the names of what the kernel refused.
Napi::Value confine(const Napi::CallbackInfo& info) {
  std::vector<const char*> refused_steps;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) != 0) {
    refused_steps.push_back("no_new_privs");
  }
  // A core file would hold other people's data.
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) refused_steps.push_back("no core file");
  // In this order: the filter denies the calls of landlock.
  if (!deny_paths()) refused_steps.push_back("landlock");
  if (!deny_system_calls()) refused_steps.push_back("seccomp");

  const Napi::Env env = info.Env();
  Napi::Array result = Napi::Array::New(env, refused_steps.size());
  for (uint32_t i = 0; i < refused_steps.size(); ++i) {
    result.Set(i, Napi::String::New(env, refused_steps[i]));
  }
  return result;
}

Napi::Value lookup_user(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "lookupUser");
  const std::string name = arguments.text(0);
  if (arguments.bad()) return info.Env().Undefined();
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(4096);
  int error = 0;
  while ((error = getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found)) ==
             ERANGE &&
         buffer.size() < (1u << 20)) {
    buffer.resize(buffer.size() * 2);
  }
  if (found == nullptr) {
    // These are the ways in which getpwnam_r(3) says that there is no such name.
    const bool absent =
        error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM;
    if (absent) return info.Env().Null();
    return refused(info, "getpwnam_r", name, error);
  }
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("uid", Napi::Number::New(env, found->pw_uid));
  result.Set("gid", Napi::Number::New(env, found->pw_gid));
  return result;
}

}  // namespace

void register_host(Napi::Env env, Napi::Object exports) {
  Napi::Object host = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    host.Set(name, Napi::Function::New(env, function, name));
  };
  add("openComponent", open_component_js);
  add("closeFd", close_fd);
  add("readAt", read_at);
  add("writeAt", write_at);
  add("flush", flush);
  add("listenUnix", listen_unix);
  add("listenTcp", listen_tcp);
  add("peerCredentials", peer_credentials);
  add("flock", flock_js);
  add("socketPair", socket_pair);
  add("sendDescriptors", send_descriptors);
  add("receiveDescriptors", receive_descriptors);
  add("pidfdOpen", pidfd_open_js);
  add("pidfdSignal", pidfd_signal);
  add("setTitle", set_title);
  add("syslogOpen", syslog_open);
  add("syslog", syslog_js);
  add("setIoFlusher", set_io_flusher);
  add("setMemlockLimit", set_memlock_limit);
  add("confine", confine);
  add("lookupUser", lookup_user);
  exports.Set("host", host);
}

}  // namespace hast::binding
