#include "ring/pipe_stream.h"

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "harness.h"
#include "ring/sim_loop.h"

namespace {

using hast::Bytes;
using hast::PipeNetwork;
using hast::Scope;
using hast::SimLoop;
using hast::Stream;
using hast::Task;

constexpr int kPending = 12345;

Task<void> send_and_note(Stream& stream, Bytes from, int& result) {
  iovec part = {from.data(), from.size()};
  result = co_await hast::send_all(stream, {&part, 1});
}

Task<void> recv_and_note(Stream& stream, Bytes into, int& result) {
  result = co_await hast::recv_exact(stream, into);
}

Task<void> connect_and_note(PipeNetwork& network, std::string address, uint64_t timeout_us,
                            std::unique_ptr<Stream>& connected, int& result) {
  result = co_await network.connect(address, 1, timeout_us, connected);
}

Task<void> accept_and_note(hast::Listener& listener, std::unique_ptr<Stream>& accepted,
                           int& result) {
  result = co_await listener.accept(accepted);
}

TEST(pipe, "carries bytes in order through small buffers, in pieces, with delays") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SimLoop loop;
    PipeNetwork network(loop, seed);
    network.options = {
        .capacity_bytes = 777, .delay_min_us = 10, .delay_max_us = 500, .partial = seed % 2 == 1};
    auto [a, b] = network.make_pair();
    std::vector<std::byte> out(20'000);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::byte(i * seed);
    std::vector<std::byte> in(out.size());
    int results[2] = {kPending, kPending};
    const uint64_t start = loop.now_us();
    Scope scope;
    scope.spawn(send_and_note(*a, out, results[0]));
    scope.spawn(recv_and_note(*b, in, results[1]));
    CHECK(loop.run_until_idle());
    CHECK_EQ(results[0], 0);
    CHECK_EQ(results[1], 0);
    CHECK(in == out);
    CHECK(loop.now_us() - start >= 10u * (20'000 / 777));
  }
  CHECK_EQ(hast::task_frames_alive(), 0u);
}

Task<void> note_order(Stream& stream, Bytes into, std::vector<int>& order) {
  (void)co_await stream.recv(into);
  order.push_back(1);
}

Task<void> note_timer(uint64_t us, std::vector<int>& order) {
  hast::SleepTimer timer;
  (void)co_await timer.sleep_us(us);
  order.push_back(2);
}

TEST(pipe, "a party that is frozen does nothing, the other goes on, and then all comes at once") {
  for (const bool timers_first : {false, true}) {
    SimLoop loop;
    PipeNetwork network(loop, 1);
    auto [a, b] = network.make_pair();
    std::vector<std::byte> bytes(8);
    std::vector<std::byte> in(8);
    std::vector<int> frozen_saw;
    std::vector<int> other_saw;
    int sent = kPending;
    Scope scope;
    {
      const SimLoop::As as(loop, 1);
      scope.spawn(note_order(*a, in, frozen_saw));
      scope.spawn(note_timer(500, frozen_saw));
    }
    {
      const SimLoop::As as(loop, 2);
      scope.spawn(note_timer(400, other_saw));
      scope.spawn(send_and_note(*b, bytes, sent));
    }
    loop.freeze(1, 10'000, timers_first);
    loop.advance(9'999);
    CHECK(loop.frozen(1));
    CHECK(!loop.frozen(2));
    CHECK_EQ(sent, 0);
    CHECK_EQ(other_saw.size(), 1u);
    CHECK(frozen_saw.empty());
    loop.advance(1);
    CHECK(!loop.frozen(1));
    CHECK(frozen_saw == (timers_first ? std::vector<int>{2, 1} : std::vector<int>{1, 2}));
  }
}

TEST(pipe, "thawed early, it goes on at once") {
  SimLoop loop;
  std::vector<int> saw;
  Scope scope;
  {
    const SimLoop::As as(loop, 2);
    scope.spawn(note_timer(500, saw));
  }
  loop.freeze(2, 60'000'000, true);
  loop.advance(1000);
  CHECK(saw.empty());
  loop.thaw(2);
  loop.thaw(2);
  loop.run_now();
  CHECK_EQ(saw.size(), 1u);
  CHECK(loop.run_until_idle());
  CHECK_EQ(loop.now_us(), 1'001'000u);
}

TEST(pipe, "the end of one side arrives after its bytes; later sends to it are reset") {
  SimLoop loop;
  PipeNetwork network(loop, 1);
  network.options.delay_min_us = network.options.delay_max_us = 100;
  auto [a, b] = network.make_pair();
  std::vector<std::byte> bytes(10);
  int sent = kPending;
  int received = kPending;
  int end = kPending;
  Scope scope;
  scope.spawn(send_and_note(*a, bytes, sent));
  loop.run_now();
  a.reset();
  scope.spawn(recv_and_note(*b, bytes, received));
  CHECK(loop.run_until_idle());
  CHECK_EQ(received, 0);
  scope.spawn(recv_and_note(*b, bytes, end));
  CHECK(loop.run_until_idle());
  CHECK_EQ(end, -ECONNRESET);  // recv_exact's word for an early end
  scope.spawn(send_and_note(*b, bytes, sent));
  CHECK(loop.run_until_idle());
  CHECK_EQ(sent, 0);
}

TEST(pipe, "shut_down completes what is outstanding on both sides") {
  SimLoop loop;
  PipeNetwork network(loop, 1);
  network.options.capacity_bytes = 4;
  auto [a, b] = network.make_pair();
  std::vector<std::byte> bytes(10);
  int results[3] = {kPending, kPending, kPending};
  Scope scope;
  scope.spawn(send_and_note(*a, bytes, results[0]));
  scope.spawn(recv_and_note(*a, bytes, results[1]));
  loop.run_now();
  CHECK_EQ(results[0], kPending);
  a->shut_down();
  a->shut_down();
  loop.run_now();
  CHECK_EQ(results[0], -EPIPE);
  CHECK_EQ(results[1], -ECONNRESET);
  scope.spawn(recv_and_note(*b, bytes, results[2]));
  loop.run_now();
  CHECK_EQ(results[2], -ECONNRESET);
}

TEST(pipe, "cut resets both sides, cut_direction ends one") {
  SimLoop loop;
  PipeNetwork network(loop, 1);
  auto [a, b] = network.make_pair(7);
  auto [c, d] = network.make_pair(8);
  std::vector<std::byte> bytes(10);
  int results[4] = {kPending, kPending, kPending, kPending};
  Scope scope;
  scope.spawn(recv_and_note(*a, bytes, results[0]));
  scope.spawn(recv_and_note(*b, bytes, results[1]));
  network.cut(7);
  loop.run_now();
  CHECK_EQ(results[0], -ECONNRESET);
  CHECK_EQ(results[1], -ECONNRESET);
  network.cut_direction(8, 0);
  loop.run_now();
  scope.spawn(send_and_note(*c, bytes, results[2]));
  scope.spawn(send_and_note(*d, bytes, results[3]));
  loop.run_now();
  CHECK_EQ(results[2], -EPIPE);
  CHECK_EQ(results[3], 0);
}

TEST(pipe, "a silent side swallows bytes until the buffer is full, and says nothing") {
  SimLoop loop;
  PipeNetwork network(loop, 1);
  network.options.capacity_bytes = 16;
  auto [a, b] = network.make_pair(3);
  network.silence(3, 0, true);
  std::vector<std::byte> bytes(20);
  std::vector<std::byte> in(4);
  int sent = kPending;
  int received = kPending;
  Scope scope;
  scope.spawn(recv_and_note(*b, in, received));
  scope.spawn(send_and_note(*a, bytes, sent));
  loop.advance(60'000'000);
  CHECK_EQ(sent, kPending);
  CHECK_EQ(received, kPending);
  a->shut_down();
  loop.advance(60'000'000);
  CHECK_EQ(sent, -EPIPE);
  CHECK_EQ(received, kPending);
  b->shut_down();
  loop.run_now();
  CHECK_EQ(received, -ECONNRESET);
}

TEST(pipe, "connects to a listener; refuses and times out like a network") {
  SimLoop loop;
  PipeNetwork network(loop, 1);
  network.options.delay_min_us = network.options.delay_max_us = 50;
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> server;
  std::unique_ptr<Stream> none;
  int results[5] = {kPending, kPending, kPending, kPending, kPending};
  Scope scope;
  scope.spawn(connect_and_note(network, "b:8457", 1000, none, results[0]));
  CHECK(loop.run_until_idle());
  CHECK_EQ(results[0], -ECONNREFUSED);
  auto listener = network.listen("b:8457");
  scope.spawn(connect_and_note(network, "b:8457", 1000, client, results[1]));
  scope.spawn(accept_and_note(*listener, server, results[2]));
  CHECK(loop.run_until_idle());
  CHECK_EQ(results[1], 0);
  CHECK_EQ(results[2], 0);
  CHECK(client != nullptr && server != nullptr);
  network.silence(1, 1, true);
  const uint64_t start = loop.now_us();
  scope.spawn(connect_and_note(network, "b:8457", 1000, none, results[3]));
  CHECK(loop.run_until_idle());
  CHECK_EQ(results[3], -ETIMEDOUT);
  CHECK_EQ(loop.now_us() - start, 1000u);
  std::unique_ptr<Stream> unused;
  scope.spawn(accept_and_note(*listener, unused, results[4]));
  listener->close();
  loop.run_now();
  CHECK_EQ(results[4], -ECANCELED);
}

}  // namespace
