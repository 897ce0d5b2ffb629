#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/deps.h"
#include "engine/primary.h"
#include "engine/secondary.h"
#include "engine/stats.h"

namespace hast {

/// A numeric address, as the parent resolved it.
struct PeerAddress {
  sockaddr_storage address = {};
  socklen_t size = 0;
};

/// Settings that may change while an engine runs.
struct EngineTuning {
  PrimarySettings settings;
  std::vector<PeerAddress> peers;  ///< tried in order; empty: `remote none`
  PeerAddress source;              ///< size 0: any
};

/// All that one engine needs. It owns the descriptors from `Engine::start` on.
struct EngineSpec {
  std::string resource;
  std::string provider;  ///< export name
  bool primary = false;
  bool force = false;
  int disk_fd = -1;
  int export_fd = -1;  ///< listening socket (primary), or -1
  /// Connections of the kernel's NBD client, or a node of its ublk driver (primary).
  std::vector<int> kernel_fds;
  int requests_fd = -1;  ///< connections 1 and 2 (secondary)
  int replies_fd = -1;
  uint32_t block_bytes = 0;
  EngineTuning tuning;
  SecondaryConfig secondary;
  uint64_t bootid = 0;
  uint32_t sharers = 1;  ///< workers that the limit on locked memory is for, this one included
};

/// What an engine tells its owner, from its own thread and in order. `kEnd` is the last.
struct EngineEvent {
  enum class Type : uint8_t { kLog, kReady, kEvent, kEnd };
  Type type = Type::kLog;
  LogLevel level = LogLevel::kInfo;
  EventName name = EventName::kConnect;
  std::string text;
  std::string code;
  int exit = 0;
};

/// A snapshot with the names of the provider's clients.
struct EngineSnapshot {
  EngineStats stats;
  std::vector<std::string> clients;
};

/// One resource in one role: a thread with its ring, disk, engine and gate. The functions may be
/// called from any thread (in fact: JavaScript's).
class Engine {
 public:
  using Sink = std::function<void(EngineEvent&&)>;

  Engine(EngineSpec spec, Sink sink);
  /// Stops and joins.
  ~Engine();

  void start();
  void stop();
  void reconfigure(EngineTuning tuning);
  void kick();
  /// `answer` is called on the engine's thread; or at once with nothing when it has ended.
  void snapshot(std::function<void(const EngineSnapshot*)> answer);

 private:
  struct Thread;
  struct Door;  // the mailbox while the thread runs
  bool post(std::function<void(Thread&)> command);

  EngineSpec spec_;
  Sink sink_;
  std::shared_ptr<Door> door_;
  std::thread thread_;
};

}  // namespace hast
