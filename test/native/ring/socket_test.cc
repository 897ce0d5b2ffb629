#include "ring/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "harness.h"

namespace {

using hast::Bytes;
using hast::Ring;
using hast::Scope;
using hast::SocketStream;
using hast::Stream;
using hast::Task;
using hast::TcpTarget;

std::unique_ptr<Ring> make_ring() {
  std::string error;
  return Ring::create(64, error);
}

/// A listening TCP socket on a free port of the loopback, and its address.
int listen_on_loopback(int backlog, TcpTarget& target) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, backlog) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    ::close(fd);
    return -1;
  }
  std::memcpy(&target.to, &address, sizeof address);
  target.to_size = sizeof address;
  target.timeout_us = 2'000'000;
  return fd;
}

Task<void> connect_and_note(Ring& ring, TcpTarget target, std::unique_ptr<Stream>& connected,
                            int& result, hast::ConnectCancel* cancel) {
  result = co_await hast::connect_tcp(ring, target, connected, cancel);
}

Task<void> accept_and_note(hast::Listener& listener, std::unique_ptr<Stream>& accepted,
                           int& result) {
  result = co_await listener.accept(accepted);
}

Task<void> send_and_note(Stream& stream, std::span<iovec> parts, int& result) {
  result = co_await hast::send_all(stream, parts);
}

Task<void> recv_and_note(Stream& stream, Bytes into, int& result) {
  result = co_await hast::recv_exact(stream, into);
}

Task<void> recv_some_and_note(Stream& stream, Bytes into, int& result) {
  result = co_await stream.recv(into);
}

void run(Ring& ring, const Scope& scope) {
  const uint64_t end = ring.now_us() + 20'000'000;
  while (scope.running() > 0 && ring.now_us() < end) ring.run_once(100'000);
}

constexpr int kPending = 12345;

TEST(socket, "connects, accepts and carries megabytes in parts both ways") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  TcpTarget target;
  target.user_timeout_ms = 3000;
  const int fd = listen_on_loopback(4, target);
  REQUIRE(fd >= 0);
  hast::SocketListener listener(*ring, fd);
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> server;
  Scope scope;
  int connected = kPending;
  int accepted = kPending;
  scope.spawn(accept_and_note(listener, server, accepted));
  scope.spawn(connect_and_note(*ring, target, client, connected, nullptr));
  run(*ring, scope);
  CHECK_EQ(connected, 0);
  CHECK_EQ(accepted, 0);
  REQUIRE(client != nullptr && server != nullptr);
  int value = 0;
  socklen_t value_size = sizeof value;
  getsockopt(static_cast<SocketStream&>(*client).fd(), IPPROTO_TCP, TCP_USER_TIMEOUT, &value,
             &value_size);
  CHECK_EQ(value, 3000);
  getsockopt(static_cast<SocketStream&>(*server).fd(), IPPROTO_TCP, TCP_NODELAY, &value,
             &value_size);
  CHECK(value != 0);

  constexpr std::size_t kSize = 8u << 20;
  std::vector<std::byte> out(kSize);
  for (std::size_t i = 0; i < kSize; ++i) out[i] = std::byte((i * 7) >> 3);
  std::vector<std::byte> there(kSize);
  std::vector<std::byte> back(kSize);
  std::vector<iovec> parts;
  for (std::size_t at = 0; at < kSize; at += 4096) parts.push_back({out.data() + at, 4096});
  iovec whole = {out.data(), kSize};
  int results[4] = {kPending, kPending, kPending, kPending};
  scope.spawn(send_and_note(*client, parts, results[0]));
  scope.spawn(recv_and_note(*server, there, results[1]));
  scope.spawn(send_and_note(*server, {&whole, 1}, results[2]));
  scope.spawn(recv_and_note(*client, back, results[3]));
  run(*ring, scope);
  for (const int result : results) CHECK_EQ(result, 0);
  CHECK(there == out);
  CHECK(back == out);
  listener.close();
}

TEST(socket, "shut_down ends what is outstanding on both sides") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  SocketStream a(*ring, ends[0]);
  SocketStream b(*ring, ends[1]);
  CHECK_EQ(fcntl(a.fd(), F_GETFL) & O_NONBLOCK, 0);
  std::vector<std::byte> big(16u << 20);
  iovec part = {big.data(), big.size()};
  std::byte in[4];
  int sent = kPending;
  int received = kPending;
  Scope scope;
  scope.spawn(send_and_note(a, {&part, 1}, sent));
  scope.spawn(recv_some_and_note(a, in, received));
  for (int turn = 0; turn < 5; ++turn) ring->run_once(1000);
  CHECK_EQ(sent, kPending);
  CHECK_EQ(received, kPending);
  a.shut_down();
  a.shut_down();
  run(*ring, scope);
  CHECK_EQ(scope.running(), 0u);
  CHECK(sent < 0);
  CHECK(received == 0 || received == -ECANCELED);
  int after = kPending;
  scope.spawn(recv_some_and_note(a, in, after));
  run(*ring, scope);
  CHECK(after <= 0);
}

TEST(socket, "the end of the peer is the end of the stream, then sends fail without a signal") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  SocketStream a(*ring, ends[0]);
  { const SocketStream b(*ring, ends[1]); }
  std::byte in[4];
  iovec part = {in, sizeof in};
  int received = kPending;
  int sent = kPending;
  Scope scope;
  scope.spawn(recv_and_note(a, in, received));
  run(*ring, scope);
  CHECK_EQ(received, -ECONNRESET);
  scope.spawn(send_and_note(a, {&part, 1}, sent));
  run(*ring, scope);
  CHECK_EQ(sent, -EPIPE);
}

TEST(socket, "a closed listener ends an outstanding accept and refuses the next") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  TcpTarget target;
  const int fd = listen_on_loopback(4, target);
  REQUIRE(fd >= 0);
  hast::SocketListener listener(*ring, fd);
  std::unique_ptr<Stream> accepted;
  int results[2] = {kPending, kPending};
  Scope scope;
  scope.spawn(accept_and_note(listener, accepted, results[0]));
  ring->run_once(1000);
  listener.close();
  run(*ring, scope);
  scope.spawn(accept_and_note(listener, accepted, results[1]));
  run(*ring, scope);
  CHECK_EQ(results[0], -ECANCELED);
  CHECK_EQ(results[1], -ECANCELED);
  CHECK(accepted == nullptr);
}

TEST(socket, "a refused connect fails at once") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  TcpTarget target;
  const int fd = listen_on_loopback(4, target);
  REQUIRE(fd >= 0);
  ::close(fd);
  std::unique_ptr<Stream> client;
  int result = kPending;
  Scope scope;
  scope.spawn(connect_and_note(*ring, target, client, result, nullptr));
  run(*ring, scope);
  CHECK_EQ(result, -ECONNREFUSED);
  CHECK(client == nullptr);
}

TEST(socket, "a connect to a full listener ends at its deadline, or earlier when cancelled") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  TcpTarget target;
  const int fd = listen_on_loopback(0, target);
  REQUIRE(fd >= 0);
  // Fill the queue: from then on the kernel ignores whoever knocks.
  std::vector<std::unique_ptr<Stream>> fillers;
  target.timeout_us = 100'000;
  Scope scope;
  int result = 0;
  for (int i = 0; i < 8 && result == 0; ++i) {
    fillers.emplace_back();
    scope.spawn(connect_and_note(*ring, target, fillers.back(), result, nullptr));
    run(*ring, scope);
  }
  const uint64_t start = ring->now_us();
  std::unique_ptr<Stream> client;
  result = kPending;
  scope.spawn(connect_and_note(*ring, target, client, result, nullptr));
  run(*ring, scope);
  CHECK_EQ(result, -ETIMEDOUT);
  CHECK(ring->now_us() - start >= 100'000);
  CHECK(ring->now_us() - start < 1'000'000);

  hast::ConnectCancel cancel;
  target.timeout_us = 10'000'000;
  result = kPending;
  scope.spawn(connect_and_note(*ring, target, client, result, &cancel));
  ring->run_once(1000);
  cancel.cancel();
  run(*ring, scope);
  CHECK_EQ(result, -ECANCELED);
  CHECK(client == nullptr);
  result = kPending;
  scope.spawn(connect_and_note(*ring, target, client, result, &cancel));  // nor a later one
  CHECK_EQ(result, -ECANCELED);
  CHECK_EQ(hast::task_frames_alive(), 0u);
  ::close(fd);
}

TEST(socket, "binds its source address, or says that it cannot") {
  auto ring = make_ring();
  REQUIRE(ring != nullptr);
  TcpTarget target;
  const int fd = listen_on_loopback(4, target);
  REQUIRE(fd >= 0);
  sockaddr_in source = {};
  source.sin_family = AF_INET;
  inet_pton(AF_INET, "127.0.0.2", &source.sin_addr);
  std::memcpy(&target.source, &source, sizeof source);
  target.source_size = sizeof source;
  std::unique_ptr<Stream> client;
  int result = kPending;
  Scope scope;
  scope.spawn(connect_and_note(*ring, target, client, result, nullptr));
  run(*ring, scope);
  CHECK_EQ(result, 0);
  sockaddr_in name = {};
  socklen_t size = sizeof name;
  getsockname(static_cast<SocketStream&>(*client).fd(), reinterpret_cast<sockaddr*>(&name), &size);
  CHECK_EQ(name.sin_addr.s_addr, source.sin_addr.s_addr);
  inet_pton(AF_INET, "192.0.2.1", &source.sin_addr);
  std::memcpy(&target.source, &source, sizeof source);
  std::unique_ptr<Stream> none;
  scope.spawn(connect_and_note(*ring, target, none, result, nullptr));
  run(*ring, scope);
  CHECK_EQ(result, -EADDRNOTAVAIL);
  ::close(fd);
}

}  // namespace
