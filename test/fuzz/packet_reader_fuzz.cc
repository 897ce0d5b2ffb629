// Arbitrary bytes on a connection between nodes, cut into arbitrary pieces: the reader must find
// the same messages in them as a look at the whole finds.
#include <cerrno>

#include "fuzz_input.h"
#include "ring/pipe_stream.h"
#include "ring/sim_loop.h"
#include "wire/format.h"
#include "wire/packet.h"

namespace hast::fuzz {
namespace {

/// How a message's payload is taken; the first input byte decides.
enum class Way : uint8_t { kPayload, kPayloadNow, kSkip };

struct Reading {
  std::vector<Buffer> areas;
  std::vector<Buffer> payloads;
  PacketReader::Head last = PacketReader::Head::kReady;
  int result = 0;
};

/// Requests without a size have no payload; larger ones than a peer may send end the reading.
uint32_t payload_bytes(ConstBytes area) {
  RequestMessage request;
  if (!decode_request(area, request)) return 0;
  return request.has(kHasSize) ? request.payload.size_bytes : 0;
}

Task<int> take_payload(PacketReader& reader, Way way, Buffer& payload) {
  if (payload.empty()) co_return 0;
  if (way == Way::kSkip) {
    const int rc = co_await reader.skip(payload.size());
    payload.clear();
    co_return rc;
  }
  if (way == Way::kPayloadNow && reader.payload_now(payload)) co_return 0;
  const int rc = co_await reader.payload(payload);
  co_return rc;
}

Task<void> read_all(Stream& stream, Way way, Reading& reading) {
  PacketReader reader(stream);
  while (reading.result == 0) {
    ConstBytes area;
    reading.last = reader.head(area);
    if (reading.last == PacketReader::Head::kIncomplete) {
      reading.result = co_await reader.receive_more();
      continue;
    }
    if (reading.last != PacketReader::Head::kReady) break;
    const uint32_t size = payload_bytes(area);
    if (size > kPeerRequestBytesMax) break;
    reading.areas.push_back(exact(area));
    reader.consume_head();
    Buffer payload(size);
    reading.result = co_await take_payload(reader, way, payload);
    if (reading.result == 0) reading.payloads.push_back(std::move(payload));
  }
}

Task<void> send_and_close(Stream& stream, ConstBytes bytes) {
  iovec part = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  if (!bytes.empty()) co_await send_all(stream, std::span<iovec>(&part, 1));
  stream.shut_down();
}

Reading read_from_stream(ConstBytes bytes, Way way, uint8_t pieces) {
  SimLoop loop;
  Reading reading;
  {
    PipeNetwork network(loop, pieces);
    network.options.partial = pieces % 2 == 1;
    network.options.delay_max_us = pieces % 4 == 3 ? 100 : 0;
    auto [sender, receiver] = network.make_pair();
    Scope scope;
    scope.spawn(read_all(*receiver, way, reading));
    scope.spawn(send_and_close(*sender, bytes));
    loop.run_until_idle();
    receiver->shut_down();
    loop.run_until_idle();
    HAST_ASSERT_OP(scope.running(), ==, 0u);
  }
  HAST_ASSERT_OP(task_frames_alive(), ==, 0u);
  return reading;
}

/// The same by looking at all bytes at once.
void compare(const Reading& reading, ConstBytes bytes, Way way) {
  size_t message = 0;
  while (message < reading.areas.size()) {
    HAST_ASSERT_OP(bytes.size(), >=, kHeadBytes);
    const auto head = decode_head(bytes.first<kHeadBytes>());
    HAST_ASSERT(head.has_value());
    HAST_ASSERT_OP(bytes.size() - kHeadBytes, >=, head->nv_bytes);
    const ConstBytes area = bytes.subspan(kHeadBytes, head->nv_bytes);
    HAST_ASSERT(same_bytes(area, reading.areas[message]));
    bytes = bytes.subspan(kHeadBytes + area.size());
    const uint32_t size = payload_bytes(area);
    if (message >= reading.payloads.size()) {
      HAST_ASSERT_OP(size, >, bytes.size());  // cut off, and the last one
      HAST_ASSERT_OP(reading.result, ==, -ECONNRESET);
      HAST_ASSERT_OP(message + 1, ==, reading.areas.size());
      return;
    }
    if (way != Way::kSkip) HAST_ASSERT(same_bytes(bytes.first(size), reading.payloads[message]));
    bytes = bytes.subspan(size);
    message++;
  }
  if (reading.result == 0) return;
  HAST_ASSERT_OP(reading.result, ==, bytes.empty() ? -ENODATA : -ECONNRESET);
}

void check(Input input) {
  const uint8_t choice = input.byte();
  const Way way = static_cast<Way>(choice % 3);
  const Reading reading = read_from_stream(input.rest(), way, choice / 3);
  compare(reading, input.rest(), way);
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size));
  return 0;
}
