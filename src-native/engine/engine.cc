#include "engine/engine.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/assert.h"
#include "disk/file_component.h"
#include "gate/nbd_gate.h"
#include "gate/ublk_gate.h"
#include "ring/buffers.h"
#include "ring/mailbox.h"
#include "ring/ring.h"
#include "ring/socket.h"

namespace hast {

namespace {

constexpr uint32_t kRingEntries = 512;
constexpr std::size_t kCommandsMax = 64;

/// Connects to the peer's addresses in order, over the ring.
class RingDialer final : public Dialer {
 public:
  RingDialer(Ring& ring, const EngineTuning& tuning) : ring_(ring), tuning_(tuning) {}

  bool has_peer() const override { return !tuning_.peers.empty(); }

  Task<int> dial(std::unique_ptr<Stream>& out, uint32_t timeout_ms) override {
    const uint64_t end_us = ring_.now_us() + uint64_t{timeout_ms} * 1000;
    // The list may be replaced while a connect runs.
    const std::vector<PeerAddress> peers = tuning_.peers;
    const PeerAddress source = tuning_.source;
    int rc = -EHOSTUNREACH;
    for (const PeerAddress& peer : peers) {
      const uint64_t now = ring_.now_us();
      if (now >= end_us) co_return -ETIMEDOUT;
      TcpTarget target;
      target.to = peer.address;
      target.to_size = peer.size;
      target.source = source.address;
      target.source_size = source.size;
      target.timeout_us = end_us - now;
      target.user_timeout_ms = tuning_.settings.timeout_ms;
      rc = co_await connect_tcp(ring_, target, out, &cancel_);
      if (rc == 0 || rc == -ECANCELED) co_return rc;
    }
    co_return rc;
  }

  void cancel() override { cancel_.cancel(); }

 private:
  Ring& ring_;
  const EngineTuning& tuning_;
  ConnectCancel cancel_;
};

/// The kernel's NBD client is at the other end of a socket, its ublk driver behind a node.
bool is_socket(int fd) {
  struct stat facts = {};
  return fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode);
}

/// A primary of version 0 may be silent as long as it likes: the kernel asks whether it is there.
void probe_when_idle(int fd) {
  const int on = 1;
  const int idle_seconds = 10;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle_seconds, sizeof idle_seconds);
}

}  // namespace

/// What lives on the engine's thread.
struct Engine::Thread final : public EngineHost {
  Thread(EngineSpec s, const Sink& k) : spec(std::move(s)), sink(k) {}

  EngineSpec spec;
  const Sink& sink;
  std::unique_ptr<UblkGate> device;  // outlives the ring, as the kernel's driver does
  std::unique_ptr<Ring> ring;        // made and destroyed on the engine's thread
  std::unique_ptr<BufferSlab> slab;
  std::unique_ptr<RingDialer> dialer;
  std::unique_ptr<Primary> primary;
  std::unique_ptr<NbdGate> gate;
  std::unique_ptr<Secondary> secondary;
  bool stop_wanted = false;
  bool finished = false;
  WaitList stop_waiters;
  EngineEvent end;

  /// A peer that misbehaves in every message must not fill JavaScript's queue: at most this many
  /// lines a second, and then their number.
  static constexpr uint32_t kLogLinesPerSecond = 100;
  uint64_t log_second = 0;
  uint32_t log_lines = 0;
  uint32_t log_dropped = 0;

  void log(LogLevel level, std::string_view text) override {
    const uint64_t second = ring == nullptr ? 0 : ring->now_us() / 1000000;
    if (second != log_second) {
      const uint32_t dropped = std::exchange(log_dropped, 0);
      log_second = second;
      log_lines = 0;
      if (dropped > 0) logf(*this, LogLevel::kWarning, "%u log lines were dropped.", dropped);
    }
    if (++log_lines > kLogLinesPerSecond) {
      ++log_dropped;
      return;
    }
    EngineEvent event;
    event.level = level;
    event.text = text;
    sink(std::move(event));
  }
  void event(EventName name) override {
    EngineEvent event;
    event.type = EngineEvent::Type::kEvent;
    event.name = name;
    sink(std::move(event));
  }
  void ready() override {
    EngineEvent event;
    event.type = EngineEvent::Type::kReady;
    sink(std::move(event));
  }
  uint64_t random() override {
    uint64_t value = 0;
    const ssize_t got = getrandom(&value, sizeof value, 0);
    HAST_ASSERT(got == sizeof value);
    return value;
  }

  void stop() {
    stop_wanted = true;
    stop_waiters.wake_all();
    if (secondary != nullptr) secondary->stop();
    if (primary != nullptr) {
      primary->stop_admission();
      if (gate != nullptr) gate->stop_admission();
      if (device != nullptr) device->stop_admission();
    }
  }

  void fail(int exit, const char* code, std::string text) {
    end.exit = exit;
    end.code = code;
    end.text = std::move(text);
  }

  void live(Door& door);
  bool take_memory();
  void turn(Door& door, Component& disk);
  void close_unused();
  void serve_device(int fd);
  Task<void> run_primary(Component& disk);
  Task<void> run_secondary(Component& disk);
  Task<void> run(Component& disk);
  EngineSnapshot snapshot() const;
};

struct Engine::Door {
  std::mutex mutex;
  Mailbox<std::function<void(Thread&)>>* mailbox = nullptr;  // guarded; null: not running
  bool ended = false;                                        // guarded
  std::vector<std::function<void(Thread&)>> early;           // guarded; before the thread is up
};

/// Without it the export goes on, and the parent hears from the driver that nobody serves.
void Engine::Thread::serve_device(int fd) {
  auto channel = RingUblkChannel::open(*ring, fd);
  if (channel == nullptr) {
    logf(*this, LogLevel::kError, "The kernel's ublk driver gives no requests: %s.",
         std::strerror(errno));
    return;
  }
  device = std::make_unique<UblkGate>(*primary, std::move(channel));
  device->start();
}

Task<void> Engine::Thread::run_primary(Component& disk) {
  PrimaryConfig config;
  config.resource = spec.resource;
  config.settings = spec.tuning.settings;
  config.force = spec.force;
  config.block_bytes = spec.block_bytes;
  config.bootid = spec.bootid;
  primary = std::make_unique<Primary>(disk, *dialer, *this, std::move(config), slab->base(),
                                      slab->stride_bytes());
  StartFailure failure;
  if (stop_wanted) primary->stop_admission();
  const bool serve = co_await primary->start(failure);
  if (!serve) {
    fail(failure.exit, failure.code, failure.text);
    primary->stop_admission();
    co_await primary->drain();
    co_return;
  }
  gate = std::make_unique<NbdGate>(*primary, spec.provider);
  Scope serving;
  if (spec.export_fd >= 0) {
    const int fd = spec.export_fd;
    spec.export_fd = -1;
    serving.spawn(gate->serve(std::make_unique<SocketListener>(*ring, fd)));
  }
  for (const int fd : std::exchange(spec.kernel_fds, {})) {
    if (is_socket(fd)) {
      serving.spawn(gate->serve_kernel(std::make_unique<SocketStream>(*ring, fd)));
    } else {
      serve_device(fd);
    }
  }
  ready();
  while (!stop_wanted) co_await stop_waiters.wait();
  // Rule 22: admission has stopped; settle, flush, then close.
  gate->stop_admission();
  if (device != nullptr) device->stop_admission();
  primary->stop_admission();
  co_await primary->drain();
  if (device != nullptr) co_await device->close();
  co_await gate->close();
  co_await serving.join();
  gate.reset();
}

Task<void> Engine::Thread::run_secondary(Component& disk) {
  // A primary that is gone without a word must not keep us waiting for its acknowledgements.
  const int patience_ms = static_cast<int>(spec.tuning.settings.timeout_ms);
  for (const int fd : {spec.requests_fd, spec.replies_fd}) {
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
    if (spec.secondary.version < 1) probe_when_idle(fd);
  }
  auto requests = std::make_unique<SocketStream>(*ring, spec.requests_fd);
  auto replies = std::make_unique<SocketStream>(*ring, spec.replies_fd);
  spec.requests_fd = spec.replies_fd = -1;
  SecondaryConfig config = spec.secondary;
  config.bootid = spec.bootid;
  config.resource = spec.resource;
  config.checksum = spec.tuning.settings.checksum;
  config.compression = spec.tuning.settings.compression;
  config.timeout_ms = spec.tuning.settings.timeout_ms;
  secondary = std::make_unique<Secondary>(disk, *this, std::move(config), std::move(requests),
                                          std::move(replies), slab->base(), slab->stride_bytes());
  if (stop_wanted) secondary->stop();
  SecondaryEnd ended;
  co_await secondary->run(ended);
  fail(stop_wanted ? 0 : ended.exit, ended.code, ended.text);
}

Task<void> Engine::Thread::run(Component& disk) {
  if (spec.primary) {
    co_await run_primary(disk);
  } else {
    co_await run_secondary(disk);
  }
  finished = true;
}

EngineSnapshot Engine::Thread::snapshot() const {
  EngineSnapshot snapshot;
  if (primary != nullptr) snapshot.stats = primary->stats();
  if (secondary != nullptr) snapshot.stats = secondary->stats();
  if (gate != nullptr) {
    for (const NbdClientInfo& client : gate->clients())
      snapshot.clients.push_back(client.description);
  }
  return snapshot;
}

Engine::Engine(EngineSpec spec, Sink sink)
    : spec_(std::move(spec)), sink_(std::move(sink)), door_(std::make_shared<Door>()) {}

Engine::~Engine() {
  stop();
  if (thread_.joinable()) thread_.join();
}

namespace {

bool same_address(const PeerAddress& a, const PeerAddress& b) {
  return a.size == b.size && std::memcmp(&a.address, &b.address, a.size) == 0;
}

/// Pins the request buffers for the kernel. The limit is counted per user and shared by all
/// workers, whose rings need some of it too: where it is small, only the head of each slot is
/// pinned, which is what small requests use, and all workers together pin no more than an eighth of
/// the limit, or none: without its ring a worker cannot run.
RegisteredBuffers pin_buffers(Ring& ring, BufferSlab& slab, uint32_t sharers) {
  constexpr uint64_t kPage = 4096;
  const uint64_t all = uint64_t{kRequestsMax} * kRequestBytesMax;
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) limit.rlim_cur = 0;
  uint64_t used = kRequestBytesMax;
  if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < 4 * all * sharers) {
    used = round_down(limit.rlim_cur / 8 / sharers / kRequestsMax, kPage);
    used = std::min<uint64_t>(used, kRequestBytesMax);
  }
  RegisteredBuffers pinned;
  const uint64_t bytes = kRequestsMax * slab.stride_bytes();
  const bool whole = used == slab.stride_bytes();
  if (whole) pinned = ring.register_buffers(slab.base(), bytes);
  if (!whole && used > 0) {
    pinned = ring.register_buffers(slab.base(), bytes, slab.stride_bytes(), used);
  }
  pinned.total_bytes = all;
  return pinned;
}

}  // namespace

/// Takes memory and says once what the kernel refused of it.
bool Engine::Thread::take_memory() {
  // Where data are compressed: a primary has a second slot for each, a secondary compresses behind
  // the data. Only with lzf is it touched; a reload to it finds that memory not locked.
  const bool lzf = spec.tuning.settings.compression == Compression::kLzf;
  const uint64_t stride = spec.primary ? kRequestBytesMax : kPeerRequestBytesMax;
  const uint64_t used = lzf && !spec.primary ? 2 * kRequestBytesMax : kRequestBytesMax;
  const uint32_t slots = spec.primary ? 2 * kRequestsMax : kRequestsMax;
  int rc = 0;
  slab = BufferSlab::create(slots, stride, used, rc);
  if (slab == nullptr) {
    fail(71, "OUT_OF_MEMORY", "no memory for the request buffers");
    return false;
  }
  const LockReport locked = slab->lock(lzf ? slots : kRequestsMax);
  const RegisteredBuffers pinned = pin_buffers(*ring, *slab, spec.sharers);
  if (locked.error != 0 || pinned.registered_bytes < pinned.total_bytes) {
    logf(*this, LogLevel::kNotice,
         "Buffers: %llu of %llu KiB locked in memory, %llu of %llu KiB pinned by the kernel "
         "(RLIMIT_MEMLOCK); it works without, a little slower.",
         static_cast<unsigned long long>(locked.locked_bytes / 1024),
         static_cast<unsigned long long>(locked.total_bytes / 1024),
         static_cast<unsigned long long>(pinned.registered_bytes / 1024),
         static_cast<unsigned long long>(pinned.total_bytes / 1024));
  }
  return true;
}

/// The engine's life on its ring, with the mailbox open.
void Engine::Thread::turn(Door& door, Component& disk) {
  Mailbox<std::function<void(Thread&)>> mailbox(*ring, kCommandsMax);
  const int opened =
      mailbox.start([this](std::function<void(Thread&)>&& command) { command(*this); });
  HAST_ASSERT(opened == 0);
  {
    const std::lock_guard lock(door.mutex);
    door.mailbox = &mailbox;
    for (auto& command : door.early) mailbox.post(std::move(command));
    door.early.clear();
  }
  {
    Scope scope;
    scope.spawn(run(disk));
    while (!finished || scope.running() > 0) ring->run_once();
  }
  {
    const std::lock_guard lock(door.mutex);
    door.mailbox = nullptr;
    door.ended = true;
  }
  mailbox.stop();
  while (!mailbox.stopped()) ring->run_once();
  primary.reset();
  secondary.reset();
  while (ring->in_flight() > 0) ring->run_once(1000);
}

void Engine::Thread::live(Door& door) {
  std::string error;
  ring = Ring::create(kRingEntries, error);
  if (ring == nullptr) {
    // Locked memory is shared by all workers of a user: what is lacking now may come back.
    const bool temporary = errno == ENOMEM || errno == EAGAIN;
    fail(temporary ? 75 : 71, "IO_URING", error);
    return;
  }
  ComponentFacts facts;
  const int rc = probe_component(spec.disk_fd, facts);
  if (rc != 0) {
    fail(66, "META_UNREADABLE", std::string("the local component: ") + std::strerror(-rc));
    return;
  }
  if (!take_memory()) return;
  dialer = std::make_unique<RingDialer>(*ring, spec.tuning);
  FileComponent disk(*ring, std::exchange(spec.disk_fd, -1), facts);
  turn(door, disk);
}

void Engine::Thread::close_unused() {
  for (const int fd : {spec.disk_fd, spec.export_fd, spec.requests_fd, spec.replies_fd}) {
    if (fd >= 0) ::close(fd);
  }
  for (const int fd : spec.kernel_fds) ::close(fd);
}

void Engine::start() {
  std::shared_ptr<Door> door = door_;
  thread_ = std::thread([this, door] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are JavaScript's
    pthread_setname_np(pthread_self(), "hast-engine");
    Thread thread(std::move(spec_), sink_);
    thread.live(*door);
    {
      const std::lock_guard lock(door->mutex);
      door->ended = true;
      door->early.clear();
    }
    thread.close_unused();
    thread.end.type = EngineEvent::Type::kEnd;
    thread.sink(std::move(thread.end));
  });
}

/// False when the mailbox is full. A command to an engine that has ended is done.
bool Engine::post(std::function<void(Thread&)> command) {
  const std::lock_guard lock(door_->mutex);
  if (door_->ended) return true;
  if (door_->mailbox != nullptr) return door_->mailbox->post(std::move(command));
  door_->early.push_back(std::move(command));
  return true;
}

void Engine::stop() {
  // A full mailbox is emptied within a turn of the loop; a stop must not be lost behind it.
  while (!post([](Thread& thread) { thread.stop(); })) std::this_thread::yield();
}

void Engine::kick() {
  post([](Thread& thread) {
    if (thread.primary != nullptr) thread.primary->kick();
  });
}

void Engine::reconfigure(EngineTuning tuning) {
  post([tuning = std::move(tuning)](Thread& thread) mutable {
    const EngineTuning& now = thread.spec.tuning;
    const bool moved = !same_address(now.source, tuning.source) ||
                       !std::equal(now.peers.begin(), now.peers.end(), tuning.peers.begin(),
                                   tuning.peers.end(), same_address);
    thread.spec.tuning = std::move(tuning);
    if (thread.primary == nullptr) return;
    thread.primary->reconfigure(thread.spec.tuning.settings);
    if (moved) thread.primary->reconnect();
  });
}

void Engine::snapshot(std::function<void(const EngineSnapshot*)> answer) {
  {
    const std::lock_guard lock(door_->mutex);
    if (!door_->ended) {
      auto command = [answer](Thread& thread) {
        const EngineSnapshot snapshot = thread.snapshot();
        answer(&snapshot);
      };
      if (door_->mailbox != nullptr && door_->mailbox->post(std::move(command))) return;
    }
  }
  answer(nullptr);
}

}  // namespace hast
