#include "gate/ublk_gate.h"

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "gate/memory_provider.h"
#include "harness.h"
#include "ring/sim_loop.h"

namespace hast::test {
namespace {

constexpr uint32_t kBlock = 4096;

/// A driver whose requests the test makes up. Tags are taken as the kernel takes them: only while
/// they are fetched.
class FakeDriver final : public UblkChannel {
 public:
  struct Place {
    Completion* fetched = nullptr;
    UblkRequest request;
    std::vector<std::byte> data;
    int commits = 0;
    int32_t result = 0;
    bool given_up = false;
  };

  explicit FakeDriver(uint32_t depth) : places(depth) {}

  uint32_t depth() const override { return static_cast<uint32_t>(places.size()); }
  void fetch(Completion& done, uint32_t tag) override { places[tag].fetched = &done; }
  void commit(Completion& done, uint32_t tag, int32_t result) override {
    HAST_ASSERT(places[tag].fetched == nullptr);
    ++places[tag].commits;
    places[tag].result = result;
    fetch(done, tag);
  }
  UblkRequest request(uint32_t tag) const override { return places[tag].request; }
  bool take(uint32_t tag, Bytes into) override {
    Place& place = places[tag];
    if (place.given_up) return false;
    HAST_ASSERT_OP(into.size(), ==, place.data.size());
    std::memcpy(into.data(), place.data.data(), into.size());
    return true;
  }
  bool give(uint32_t tag, ConstBytes from) override {
    Place& place = places[tag];
    if (place.given_up) return false;
    place.data.assign(from.begin(), from.end());
    return true;
  }

  /// The kernel has a request.
  void ask(uint32_t tag, UblkRequest request, std::vector<std::byte> data = {}) {
    Place& place = places[tag];
    HAST_ASSERT(place.fetched != nullptr);
    request.known = true;
    place.request = request;
    place.data = std::move(data);
    place.given_up = false;
    Loop::current().ready(*std::exchange(place.fetched, nullptr), 0);
  }
  void end() {
    for (Place& place : places) {
      if (place.fetched == nullptr) continue;
      Loop::current().ready(*std::exchange(place.fetched, nullptr), -ENODEV);
    }
  }

  std::vector<Place> places;
};

std::vector<std::byte> filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

/// Joined by `close`, as the engine does it.
struct Scene {
  explicit Scene(MemoryProviderOptions options = {}, uint32_t depth = 8) : provider(options) {
    auto made = std::make_unique<FakeDriver>(depth);
    driver = made.get();
    gate = std::make_unique<UblkGate>(provider, std::move(made));
    gate->start();
    provider.keep_log = true;
  }
  ~Scene() {
    if (!closed) close();
    loop.run_until_idle();
    CHECK_EQ(scope.running(), std::size_t{0});
    CHECK_EQ(provider.slots_out(), std::size_t{0});
  }
  void close() {
    closed = true;
    scope.spawn(gate->close());
  }
  void ask(uint32_t tag, UblkRequest request, std::vector<std::byte> data = {}) {
    driver->ask(tag, request, std::move(data));
    loop.run_until_idle();
  }
  const FakeDriver::Place& at(uint32_t tag) const { return driver->places[tag]; }

  SimLoop loop;
  MemoryProvider provider;
  Scope scope;
  FakeDriver* driver = nullptr;
  std::unique_ptr<UblkGate> gate;
  bool closed = false;
};

UblkRequest read_of(uint64_t offset, uint64_t length) {
  return {.op = RequestOp::kRead, .offset = offset, .length = length};
}
UblkRequest write_of(uint64_t offset, uint64_t length) {
  return {.op = RequestOp::kWrite, .offset = offset, .length = length};
}

TEST(ublk_gate, "every operation is carried out, and answered as the driver wants it") {
  Scene scene;
  UblkRequest write = write_of(kBlock, kRequestBytesMax);
  write.fua = true;
  scene.ask(0, write, filled(kRequestBytesMax, 7));
  CHECK_EQ(scene.at(0).result, int32_t{kRequestBytesMax});
  scene.ask(1, read_of(kBlock, kRequestBytesMax));
  CHECK_EQ(scene.at(1).result, int32_t{kRequestBytesMax});
  CHECK(scene.at(1).data == filled(kRequestBytesMax, 7));
  UblkRequest zeroes = write_of(kBlock, kBlock);
  zeroes.zeroes = true;
  scene.ask(2, zeroes);
  CHECK_EQ(scene.at(2).result, 0);
  scene.ask(3, {.op = RequestOp::kDelete, .offset = 0, .length = 32u << 20});
  scene.ask(4, {.op = RequestOp::kFlush, .fua = true});
  CHECK_EQ(scene.at(3).result, 0);
  CHECK_EQ(scene.at(4).result, 0);
  scene.ask(1, read_of(kBlock, 2 * kBlock));
  CHECK(scene.at(1).data == filled(2 * kBlock, 0));

  const std::vector<Submitted>& log = scene.provider.log;
  REQUIRE(log.size() == 6);
  CHECK(log[0].fua && !log[0].zeroes);
  CHECK(log[2].zeroes && log[2].op == RequestOp::kWrite);
  CHECK(log[3].op == RequestOp::kDelete && log[3].length == 32u << 20);
  CHECK(log[4].op == RequestOp::kFlush && !log[4].fua);
}

TEST(ublk_gate, "errors reach the kernel, and the next request is fetched") {
  Scene scene;
  scene.provider.failure = [](const Request&) { return EIO; };
  scene.ask(0, write_of(0, kBlock), filled(kBlock, 1));
  CHECK_EQ(scene.at(0).result, -EIO);
  scene.ask(0, read_of(0, kBlock));
  CHECK_EQ(scene.at(0).result, -EIO);
  CHECK(scene.at(0).data.empty());
  CHECK_EQ(scene.at(0).commits, 2);
}

TEST(ublk_gate, "what cannot be is refused before it has a slot") {
  Scene scene;
  const uint64_t size = scene.provider.size_bytes();
  scene.ask(0, read_of(size, kBlock));
  scene.ask(1, read_of(0, kRequestBytesMax + kBlock));
  scene.ask(2, write_of(1, kBlock), filled(kBlock, 1));
  scene.ask(3, {.op = RequestOp::kDelete, .offset = size - kBlock, .length = UINT64_MAX - kBlock});
  for (uint32_t tag = 0; tag < 4; ++tag) CHECK_EQ(scene.at(tag).result, -EINVAL);
  CHECK(scene.provider.log.empty());
}

TEST(ublk_gate, "a write whose data the kernel has taken back is not carried out") {
  Scene scene;
  scene.driver->ask(0, write_of(0, kBlock), filled(kBlock, 1));
  scene.driver->places[0].given_up = true;
  scene.loop.run_until_idle();
  CHECK_EQ(scene.at(0).result, -EIO);
  CHECK(scene.provider.log.empty());
}

TEST(ublk_gate, "requests wait for slots in the order in which they came") {
  Scene scene({.slots = 1});
  scene.provider.hold = true;
  for (uint32_t tag = 0; tag < 8; ++tag) scene.ask(tag, read_of(tag * kBlock, kBlock));
  CHECK_EQ(scene.provider.held(), std::size_t{1});
  scene.provider.let_go();
  scene.loop.run_until_idle();
  REQUIRE(scene.provider.log.size() == 8);
  for (uint32_t tag = 0; tag < 8; ++tag) {
    CHECK_EQ(scene.provider.log[tag].offset, uint64_t{tag} * kBlock);
    CHECK_EQ(scene.at(tag).commits, 1);
  }
}

TEST(ublk_gate, "after the stop of admission new requests fail, and old ones are answered") {
  Scene scene({.slots = 1});
  scene.provider.hold = true;
  scene.ask(0, read_of(0, kBlock));
  scene.ask(1, read_of(0, kBlock));
  scene.gate->stop_admission();
  scene.ask(2, read_of(0, kBlock));
  CHECK_EQ(scene.at(2).result, -ESHUTDOWN);
  scene.provider.let_go();
  scene.loop.run_until_idle();
  CHECK_EQ(scene.at(0).result, int32_t{kBlock});
  CHECK_EQ(scene.at(1).result, -ESHUTDOWN);
  CHECK_EQ(scene.provider.log.size(), std::size_t{1});
}

TEST(ublk_gate, "requests that wait for a slot when there are none any more fail") {
  Scene scene({.slots = 1});
  scene.provider.hold = true;
  for (uint32_t tag = 0; tag < 3; ++tag) scene.ask(tag, read_of(0, kBlock));
  scene.provider.refuse();
  scene.provider.let_go();
  scene.loop.run_until_idle();
  CHECK_EQ(scene.at(0).result, int32_t{kBlock});
  CHECK_EQ(scene.at(1).result, -ESHUTDOWN);
  CHECK_EQ(scene.at(2).result, -ESHUTDOWN);
}

TEST(ublk_gate, "a request that comes after the close is left to the next server") {
  Scene scene;
  scene.provider.hold = true;
  scene.ask(0, read_of(0, kBlock));
  scene.close();
  scene.loop.run_until_idle();
  CHECK_EQ(scene.scope.running(), std::size_t{1});
  scene.ask(1, read_of(0, kBlock));
  CHECK_EQ(scene.at(1).commits, 0);
  scene.provider.let_go();
  scene.loop.run_until_idle();
  CHECK_EQ(scene.scope.running(), std::size_t{0});
  CHECK_EQ(scene.at(0).commits, 1);
  scene.driver->end();
}

}  // namespace
}  // namespace hast::test
