// The engine on its own thread, with a real ring, a real file and a client on a real socket, while
// another thread asks, changes and stops. What ThreadSanitizer is for.

#include "engine/engine.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <semaphore>
#include <thread>

#include "codec/layout.h"
#include "codec/metadata.h"
#include "gate/nbd_format.h"
#include "harness.h"
#include "ring/temp_file.h"

namespace hast::test {

namespace {

constexpr uint64_t kDiskBytes = 4u << 20;

int made_disk() {
  LayoutRequest request;
  request.provider_bytes = kDiskBytes;
  request.extent_bytes = 131072;
  const Result<Layout> layout = plan_layout(request);
  if (!layout) return -1;
  const MetadataBlock block = MetadataBlock::create(initial_metadata("data", *layout));
  const int fd = temp_file(kDiskBytes, 0);
  if (fd < 0) return -1;
  const ConstBytes bytes = block.bytes();
  if (pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) return -1;
  return fd;
}

/// A listening socket without a path, and its address.
int listening(sockaddr_un& address, socklen_t& size) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  address = {};
  address.sun_family = AF_UNIX;
  size = sizeof(sa_family_t);  // the kernel chooses a name
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) return -1;
  size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return -1;
  return listen(fd, 8) == 0 ? fd : -1;
}

/// What the engine has said, for a thread that waits for it.
class Heard {
 public:
  void add(EngineEvent&& event) {
    const std::lock_guard lock(mutex_);
    if (event.type == EngineEvent::Type::kReady) ready_ = true;
    if (event.type == EngineEvent::Type::kEnd) ended_ = true;
    if (event.type == EngineEvent::Type::kEnd) text_ = event.text;
    changed_.notify_all();
  }
  bool wait_ready() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [this] { return ready_ || ended_; });
    if (!ready_) std::printf("  not ready: %s\n", text_.c_str());
    return ready_;
  }
  bool wait_ended() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [this] { return ended_; });
  }

 private:
  static constexpr std::chrono::seconds kPatience{60};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = false;
  bool ended_ = false;
  std::string text_;
};

EngineSpec primary_spec(int disk, int exported) {
  EngineSpec spec;
  spec.resource = "data";
  spec.provider = "data";
  spec.primary = true;
  spec.disk_fd = disk;
  spec.export_fd = exported;
  return spec;
}

bool send_bytes(int fd, const std::vector<std::byte>& bytes) {
  return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

bool receive_bytes(int fd, std::size_t size) {
  std::vector<std::byte> bytes(size);
  return recv(fd, bytes.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

/// Connects with EXPORT_NAME and writes `count` blocks, each answered before the next.
bool client_writes(const sockaddr_un& address, socklen_t size, uint64_t count) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool good = connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
              receive_bytes(fd, nbd::kGreetingBytes);
  std::vector<std::byte> hello(nbd::kClientFlagsBytes + nbd::kOptionHeaderBytes + 4);
  store_be32(hello.data(), nbd::kFixedNewstyle | nbd::kNoZeroes);
  store_be64(hello.data() + 4, nbd::kOptionMagic);
  store_be32(hello.data() + 12, static_cast<uint32_t>(nbd::Option::kExportName));
  store_be32(hello.data() + 16, 4);
  std::memcpy(hello.data() + 20, "data", 4);
  good = good && send_bytes(fd, hello) && receive_bytes(fd, nbd::kExportNameReplyBytes);
  for (uint64_t i = 0; i < count && good; ++i) {
    std::vector<std::byte> write(nbd::kRequestBytes + 4096, std::byte{0x5a});
    nbd::RequestHeader header{};
    header.type = nbd::CommandType::kWrite;
    header.cookie = i;
    header.offset = i % 256 * 4096;
    header.length = 4096;
    nbd::encode_request(write.data(), header);
    good = send_bytes(fd, write) && receive_bytes(fd, nbd::kSimpleReplyBytes);
  }
  close(fd);
  return good;
}

}  // namespace

TEST(engine, "serves on its thread while others ask, change and stop (rule 29)") {
  const int disk = made_disk();
  REQUIRE(disk >= 0);
  sockaddr_un address;
  socklen_t size = 0;
  const int exported = listening(address, size);
  REQUIRE(exported >= 0);
  Heard heard;
  Engine engine(primary_spec(disk, exported),
                [&heard](EngineEvent&& e) { heard.add(std::move(e)); });
  engine.start();
  REQUIRE(heard.wait_ready());
  std::atomic<bool> asking{true};
  std::atomic<uint64_t> answers{0};
  std::thread asker([&] {
    std::binary_semaphore answered{0};
    while (asking) {
      engine.reconfigure({});
      engine.kick();
      engine.snapshot([&](const EngineSnapshot* snapshot) {
        if (snapshot != nullptr && snapshot->stats.counters.writes > 0) ++answers;
        answered.release();
      });
      answered.acquire();
    }
  });
  std::atomic<int> good{0};
  std::thread other([&] { good += client_writes(address, size, 200) ? 1 : 0; });
  good += client_writes(address, size, 200) ? 1 : 0;
  other.join();
  engine.stop();
  CHECK(heard.wait_ended());
  asking = false;
  asker.join();
  CHECK_EQ(good.load(), 2);
  CHECK(answers > 0);
}

TEST(engine, "a stop at any moment of the start ends it, and nothing is asked in vain") {
  for (int round = 0; round < 20; ++round) {
    const int disk = made_disk();
    REQUIRE(disk >= 0);
    Heard heard;
    Engine engine(primary_spec(disk, -1), [&heard](EngineEvent&& e) { heard.add(std::move(e)); });
    engine.start();
    std::thread asker([&engine] { engine.snapshot([](const EngineSnapshot*) {}); });
    for (int spin = 0; spin < round * 500; ++spin) std::this_thread::yield();
    engine.stop();
    CHECK(heard.wait_ended());
    asker.join();
    bool told = false;
    engine.snapshot([&told](const EngineSnapshot* snapshot) { told = snapshot == nullptr; });
    CHECK(told);
  }
}

}  // namespace hast::test
