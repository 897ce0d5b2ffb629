// nbd_null SOCKET [--size BYTES] [--block BYTES] [--name NAME] [--memory]
//
// The NBD gate on a UNIX socket without an engine behind it: for measuring the gate alone, and for
// running foreign clients against it. Without --memory nothing is kept. Ends by SIGTERM or SIGINT,
// and then prints what a request has cost.

#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "gate/memory_provider.h"
#include "gate/nbd_gate.h"
#include "ring/ring.h"
#include "ring/socket.h"

namespace hast {
namespace {

struct Arguments {
  std::string socket;
  std::string name = "null";
  test::MemoryProviderOptions disk = {.size_bytes = 1u << 30, .null = true};
};

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--memory") {
      arguments.disk.null = false;
    } else if (!word.starts_with("-")) {
      arguments.socket = word;
    } else if (++i == argc) {
      return false;
    } else if (word == "--size") {
      arguments.disk.size_bytes = std::strtoull(argv[i], nullptr, 10);
    } else if (word == "--block") {
      arguments.disk.block_bytes = static_cast<uint32_t>(std::strtoul(argv[i], nullptr, 10));
    } else if (word == "--name") {
      arguments.name = argv[i];
    } else {
      return false;
    }
  }
  return !arguments.socket.empty();
}

int listen_at(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return -1;
  std::memcpy(address.sun_path, path.data(), path.size());
  unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 64) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

/// Blocks the signals that end us; they are read from the descriptor.
int ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

Task<void> end_by_signal(Ring& ring, int signals, NbdGate& gate, bool& stop) {
  co_await RingPoll(ring, signals, POLLIN);
  co_await gate.close();
  stop = true;
}

void report(const test::MemoryProvider& provider, const Ring& ring) {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const double cpu_us = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
                        static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  const double requests = static_cast<double>(provider.submitted());
  const double enters = static_cast<double>(ring.stats().enters);
  std::printf("%.0f requests, %.2f us CPU each, %.2f requests a system call\n", requests,
              requests > 0 ? cpu_us / requests : 0, enters > 0 ? requests / enters : 0);
}

int run(const Arguments& arguments) {
  const int signals = ending_signals();
  const int door = listen_at(arguments.socket);
  if (door < 0) {
    std::perror(arguments.socket.c_str());
    return 71;
  }
  std::string error;
  const std::unique_ptr<Ring> ring = Ring::create(256, error);
  if (ring == nullptr) {
    std::fprintf(stderr, "nbd_null: %s\n", error.c_str());
    return 71;
  }
  test::MemoryProvider provider(arguments.disk);
  {
    NbdGate gate(provider, arguments.name);
    Scope scope;
    bool stop = false;
    scope.spawn(gate.serve(std::make_unique<SocketListener>(*ring, door)));
    scope.spawn(end_by_signal(*ring, signals, gate, stop));
    std::printf("ready\n");
    std::fflush(stdout);
    ring->run(stop);
    while (scope.running() > 0) ring->run_once();
  }
  report(provider, *ring);
  unlink(arguments.socket.c_str());
  return 0;
}

}  // namespace
}  // namespace hast

int main(int argc, char** argv) {
  hast::Arguments arguments;
  if (hast::parse(argc, argv, arguments)) return hast::run(arguments);
  std::fprintf(stderr,
               "usage: nbd_null SOCKET [--size BYTES] [--block BYTES] [--name NAME] [--memory]\n");
  return 64;
}
