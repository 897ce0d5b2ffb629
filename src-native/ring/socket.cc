#include "ring/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <coroutine>

#include "base/assert.h"

namespace hast {

namespace {

constexpr std::size_t kPartsMax = 1024;  // IOV_MAX

/// With O_NONBLOCK the ring would answer -EAGAIN instead of waiting.
void make_blocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) != 0) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

void close_descriptor(Ring& ring, int fd) {
  ring.unregister_file(fd);
  ::close(fd);
}

}  // namespace

// ---- SocketStream
// ----------------------------------------------------------------------------------

SocketStream::SocketStream(Ring& ring, int fd) : ring_(ring), fd_(fd) {
  HAST_ASSERT_OP(fd, >=, 0);
  make_blocking(fd);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // fails on UNIX sockets, rightly
  ring.register_file(fd);
  recv_.run = Operation::finish;
  send_.run = Operation::finish;
}

SocketStream::~SocketStream() {
  HAST_ASSERT(recv_.user == nullptr);
  HAST_ASSERT(send_.user == nullptr);
  // The ring may hold the file a little longer than we do; the peer shall not wait for that.
  ::shutdown(fd_, SHUT_RDWR);
  close_descriptor(ring_, fd_);
}

void SocketStream::Operation::finish(Completion& c) {
  Operation& operation = static_cast<Operation&>(c);
  Completion* user = std::exchange(operation.user, nullptr);
  user->result = operation.result;
  user->run(*user);
}

void SocketStream::submit_recv(Completion& done, Bytes into) {
  HAST_ASSERT(recv_.user == nullptr);
  HAST_ASSERT(!into.empty());
  recv_.user = &done;
  ring_.recv(recv_, fd_, into);
}

void SocketStream::submit_send(Completion& done, std::span<const iovec> parts) {
  HAST_ASSERT(send_.user == nullptr);
  HAST_ASSERT(!parts.empty());
  send_.user = &done;
  if (parts.size() == 1) {
    const std::byte* begin = static_cast<const std::byte*>(parts.front().iov_base);
    ring_.send(send_, fd_, ConstBytes(begin, parts.front().iov_len));
    return;
  }
  message_.msg_iov = const_cast<iovec*>(parts.data());  // sendmsg only reads it
  message_.msg_iovlen = std::min(parts.size(), kPartsMax);
  ring_.sendmsg(send_, fd_, message_);
}

void SocketStream::shut_down() {
  if (std::exchange(is_shut_down_, true)) return;
  ::shutdown(fd_, SHUT_RDWR);
  if (recv_.user != nullptr) ring_.cancel(recv_);
  if (send_.user != nullptr) ring_.cancel(send_);
}

std::string SocketStream::description() const {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "unknown";
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto& peer = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(peer.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& peer = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(peer.sin6_port));
  }
  ucred peer = {};
  size = sizeof peer;
  if (getsockopt(fd_, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return "unknown";
  return "pid " + std::to_string(peer.pid) + ", uid " + std::to_string(peer.uid);
}

// ---- SocketListener
// --------------------------------------------------------------------------------

SocketListener::SocketListener(Ring& ring, int fd) : ring_(ring), fd_(fd) {
  HAST_ASSERT_OP(fd, >=, 0);
  make_blocking(fd);
  accept_.owner = this;
  accept_.run = [](Completion& c) { static_cast<Operation&>(c).owner->finish(); };
}

SocketListener::~SocketListener() {
  HAST_ASSERT(accept_.user == nullptr);
  ::close(fd_);
}

void SocketListener::submit_accept(Completion& done, std::unique_ptr<Stream>& accepted) {
  HAST_ASSERT(accept_.user == nullptr);
  if (closed_) {
    ring_.ready(done, -ECANCELED);
    return;
  }
  accept_.user = &done;
  accept_.accepted = &accepted;
  ring_.accept(accept_, fd_);
}

void SocketListener::finish() {
  Completion* user = std::exchange(accept_.user, nullptr);
  user->result = accept_.result;
  if (accept_.result >= 0) {
    if (closed_) {
      ::close(accept_.result);
      user->result = -ECANCELED;
    } else {
      *accept_.accepted = std::make_unique<SocketStream>(ring_, accept_.result);
      user->result = 0;
    }
  }
  user->run(*user);
}

void SocketListener::close() {
  if (std::exchange(closed_, true)) return;
  if (accept_.user != nullptr) ring_.cancel(accept_);
}

// ---- Connecting
// ------------------------------------------------------------------------------------

namespace {

/// A connect and its deadline, whichever ends first; resumes when both have run.
struct Attempt {
  struct Connecting : Completion {
    Attempt* attempt = nullptr;
  };
  struct Deadline : Timer {
    Attempt* attempt = nullptr;
  };

  Ring& ring;
  int fd;
  const TcpTarget& target;
  Connecting connecting;
  Deadline deadline;
  bool connected_or_failed = false;
  bool expired = false;
  bool cancelled = false;
  std::coroutine_handle<> handle;

  Attempt(Ring& r, int f, const TcpTarget& t) : ring(r), fd(f), target(t) {
    connecting.attempt = this;
    connecting.run = [](Completion& c) { static_cast<Connecting&>(c).attempt->connect_ended(); };
    deadline.attempt = this;
    deadline.run = [](Completion& c) { static_cast<Deadline&>(c).attempt->deadline_ended(); };
  }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    ring.connect(connecting, fd, reinterpret_cast<const sockaddr*>(&target.to), target.to_size);
    ring.start(deadline, ring.now_us() + target.timeout_us);
  }
  int await_resume() const noexcept {
    if (cancelled) return -ECANCELED;
    if (connecting.result == -ECANCELED && expired) return -ETIMEDOUT;
    return connecting.result;
  }

  bool deadline_has_run = false;
  void connect_ended() {
    connected_or_failed = true;
    if (deadline_has_run) {
      handle.resume();
    } else {
      static_cast<Loop&>(ring).cancel(deadline);
    }
  }
  void deadline_ended() {
    deadline_has_run = true;
    if (connected_or_failed) {
      handle.resume();
      return;
    }
    expired = deadline.result == 0;
    cancelled = !expired;
    ring.cancel(connecting);
  }
};

int open_socket(const TcpTarget& target) {
  const int fd = ::socket(target.to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int result = 0;
  if (target.user_timeout_ms > 0 && target.to.ss_family != AF_UNIX) {
    result = setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &target.user_timeout_ms,
                        sizeof target.user_timeout_ms);
  }
  if (result == 0 && target.source_size > 0) {
    result = ::bind(fd, reinterpret_cast<const sockaddr*>(&target.source), target.source_size);
  }
  if (result == 0) return fd;
  const int error = -errno;
  ::close(fd);
  return error;
}

}  // namespace

void ConnectCancel::cancel() {
  cancelled_ = true;
  if (deadline_ != nullptr) Loop::current().cancel(*deadline_);
}

Task<int> connect_tcp(Ring& ring, TcpTarget target, std::unique_ptr<Stream>& connected,
                      ConnectCancel* cancel) {
  if (cancel != nullptr && cancel->cancelled_) co_return -ECANCELED;
  const int fd = open_socket(target);
  if (fd < 0) co_return fd;
  Attempt attempt(ring, fd, target);
  if (cancel != nullptr) cancel->deadline_ = &attempt.deadline;
  const int result = co_await attempt;
  if (cancel != nullptr) cancel->deadline_ = nullptr;
  if (result < 0) {
    ::close(fd);
    co_return result;
  }
  connected = std::make_unique<SocketStream>(ring, fd);
  co_return 0;
}

}  // namespace hast
