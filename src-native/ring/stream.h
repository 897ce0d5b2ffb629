#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "ring/task.h"

namespace hast {

/// A connected byte stream: a socket in production, a pipe with faults in the simulator.
///
/// Loop thread only. At most one receive and one send are outstanding at a time; both must have
/// completed before the stream is destroyed (`shut_down` makes them complete).
class Stream {
 public:
  virtual ~Stream() = default;

  /// Completes with the bytes received (1 or more), 0 at the end of the stream, or -errno.
  virtual void submit_recv(Completion& done, Bytes into) = 0;
  /// Completes with the bytes taken (may be fewer than given), or -errno. The parts array and the
  /// bytes must stay until then.
  virtual void submit_send(Completion& done, std::span<const iovec> parts) = 0;
  /// Ends both directions, now; outstanding operations complete. May be called more than once.
  virtual void shut_down() = 0;
  /// Who is at the other end, for people: credentials or address. May allocate.
  virtual std::string description() const { return "unknown"; }

  struct Recv : CompletionAwait<Recv> {
    Stream& stream;
    Bytes into;
    Recv(Stream& s, Bytes b) : stream(s), into(b) {}
    void submit() { stream.submit_recv(*this, into); }
  };
  struct Send : CompletionAwait<Send> {
    Stream& stream;
    std::span<const iovec> parts;
    Send(Stream& s, std::span<const iovec> p) : stream(s), parts(p) {}
    void submit() { stream.submit_send(*this, parts); }
  };
  Recv recv(Bytes into) { return Recv(*this, into); }
  Send send(std::span<const iovec> parts) { return Send(*this, parts); }
};

/// Accepts connections. Loop thread only.
class Listener {
 public:
  virtual ~Listener() = default;
  /// Completes with 0 and `accepted` set, or -errno (-ECANCELED after `close`). One at a time.
  virtual void submit_accept(Completion& done, std::unique_ptr<Stream>& accepted) = 0;
  /// Stops accepting; an outstanding accept completes.
  virtual void close() = 0;

  struct Accept : CompletionAwait<Accept> {
    Listener& listener;
    std::unique_ptr<Stream>& accepted;
    Accept(Listener& l, std::unique_ptr<Stream>& a) : listener(l), accepted(a) {}
    void submit() { listener.submit_accept(*this, accepted); }
  };
  Accept accept(std::unique_ptr<Stream>& accepted) { return Accept(*this, accepted); }
};

/// Receives exactly `into.size()` bytes. 0, or -errno; -ECONNRESET when the stream ends before.
Task<int> recv_exact(Stream& stream, Bytes into);
/// Sends all parts (the array is changed on the way). 0 or -errno.
Task<int> send_all(Stream& stream, std::span<iovec> parts);

}  // namespace hast
