#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "ring/ring.h"
#include "ring/stream.h"

namespace hast {

/// A connected TCP or UNIX stream socket on the ring.
class SocketStream final : public Stream {
 public:
  /// Takes the descriptor over: makes it blocking (as the ring needs it), TCP_NODELAY where it is
  /// TCP, registered with the ring where there is room, and closes it in the end.
  SocketStream(Ring& ring, int fd);
  ~SocketStream() override;

  void submit_recv(Completion& done, Bytes into) override;
  void submit_send(Completion& done, std::span<const iovec> parts) override;
  void shut_down() override;
  /// "pid 123, uid 0" on a UNIX socket, "192.0.2.1:4711" or "[2001:db8::1]:4711" on TCP.
  std::string description() const override;

  int fd() const { return fd_; }

 private:
  /// One direction; passes the result on and knows whether something is outstanding.
  struct Operation : Completion {
    Completion* user = nullptr;
    static void finish(Completion& c);
  };

  Ring& ring_;
  int fd_;
  Operation recv_;
  Operation send_;
  msghdr message_ = {};
  bool is_shut_down_ = false;
};

/// A listening socket on the ring.
class SocketListener final : public Listener {
 public:
  /// Takes over a descriptor on which listen(2) was called, and closes it in the end.
  SocketListener(Ring& ring, int fd);
  ~SocketListener() override;

  void submit_accept(Completion& done, std::unique_ptr<Stream>& accepted) override;
  void close() override;

  int fd() const { return fd_; }

 private:
  struct Operation : Completion {
    SocketListener* owner = nullptr;
    Completion* user = nullptr;
    std::unique_ptr<Stream>* accepted = nullptr;
  };
  void finish();

  Ring& ring_;
  int fd_;
  bool closed_ = false;
  Operation accept_;
};

/// Where to connect and how long to try.
struct TcpTarget {
  sockaddr_storage to = {};
  socklen_t to_size = 0;
  sockaddr_storage source = {};  ///< local address to bind; port 0 for any
  socklen_t source_size = 0;     ///< 0: the kernel chooses
  uint64_t timeout_us = 0;
  uint32_t user_timeout_ms = 0;  ///< TCP_USER_TIMEOUT; 0: the kernel's default
};

/// Lets somebody else end a `connect_tcp` early. Must outlive it.
class ConnectCancel {
 public:
  /// The connect that runs gives -ECANCELED, and so does every later one.
  void cancel();

 private:
  friend Task<int> connect_tcp(Ring& ring, TcpTarget target, std::unique_ptr<Stream>& connected,
                               ConnectCancel* cancel);
  Timer* deadline_ = nullptr;
  bool cancelled_ = false;
};

/// Connects a TCP (or UNIX) stream socket to a numeric address.
/// 0 and `connected` set, or -errno: -ETIMEDOUT at the deadline, -ECANCELED by `cancel`.
Task<int> connect_tcp(Ring& ring, TcpTarget target, std::unique_ptr<Stream>& connected,
                      ConnectCancel* cancel = nullptr);

}  // namespace hast
