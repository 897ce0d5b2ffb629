// tcp_echo SIZE DEPTH SECONDS
//
// What the network alone costs: DEPTH messages of SIZE bytes are kept in flight over one TCP
// connection on loopback, each answered with 64 bytes. Prints one line of JSON.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kAnswerBytes = 64;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(71);
}

/// False when the other end has gone.
bool read_all(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t got = recv(fd, data, size, 0);
    if (got <= 0) return false;
    data += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

bool write_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t put = send(fd, data, size, MSG_NOSIGNAL);
    if (put < 0) return false;
    data += put;
    size -= static_cast<size_t>(put);
  }
  return true;
}

void set_no_delay(int fd) {
  const int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) fail("TCP_NODELAY");
}

void serve(int listener, size_t size) {
  const int fd = accept(listener, nullptr, nullptr);
  if (fd < 0) fail("accept");
  set_no_delay(fd);
  std::vector<char> message(size);
  const std::vector<char> answer(kAnswerBytes);
  while (read_all(fd, message.data(), size) && write_all(fd, answer.data(), answer.size())) {
  }
  close(fd);
}

int connect_to(const sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail("connect");
  }
  set_no_delay(fd);
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: tcp_echo SIZE DEPTH SECONDS\n");
    return 64;
  }
  const size_t size = std::strtoull(argv[1], nullptr, 10);
  const size_t depth = std::strtoull(argv[2], nullptr, 10);
  const std::chrono::duration<double> length(std::strtod(argv[3], nullptr));

  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t address_size = sizeof address;
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 1) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &address_size) != 0) {
    fail("listen");
  }
  std::thread server(serve, listener, size);
  const int fd = connect_to(address);

  const std::vector<char> message(size, 'x');
  std::vector<char> answer(kAnswerBytes);
  std::deque<Clock::time_point> sent;
  std::vector<double> latencies_us;
  const auto send = [&] {
    sent.push_back(Clock::now());
    if (!write_all(fd, message.data(), size)) fail("the server has gone");
  };
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < depth; ++i) send();
  while (Clock::now() - start < length) {
    if (!read_all(fd, answer.data(), answer.size())) fail("the server has gone");
    latencies_us.push_back(
        std::chrono::duration<double, std::micro>(Clock::now() - sent.front()).count());
    sent.pop_front();
    send();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  shutdown(fd, SHUT_RDWR);
  close(fd);
  server.detach();  // it may be in the middle of a message; leaving ends it

  std::sort(latencies_us.begin(), latencies_us.end());
  const size_t count = latencies_us.size();
  if (count == 0) return 1;
  std::printf("{\"iops\":%.1f,\"requests\":%zu,\"p50\":%.1f,\"p99\":%.1f}\n",
              static_cast<double>(count) / seconds, count, latencies_us[count / 2],
              latencies_us[count * 99 / 100]);
  std::fflush(stdout);
  _exit(0);
}
