// Arbitrary bytes of an NBD client after the handshake. Every slot comes back, every coroutine
// ends, and each request that came whole is answered exactly once, in the right form.
// Input: choices (2 bytes, see Choices), the client's bytes.
#include "gate/memory_provider.h"
#include "gate/nbd_connection.h"
#include "nbd_client.h"
#include "ring/sim_loop.h"

namespace hast::fuzz {
namespace {

using nbd::CommandType;
using nbd::RequestHeader;

constexpr uint64_t kDiskBytes = 136u << 10;  // more than a slot, and little to move

struct Choices {
  explicit Choices(Input& input) : bits(input.number<uint16_t>()) {}
  uint16_t bits;
  bool structured() const { return (bits & 1) != 0; }
  bool block_status() const { return structured() && (bits & 2) != 0; }
  bool partial() const { return (bits & 4) != 0; }
  bool answers_late() const { return (bits & 8) != 0; }
  bool answers_held() const { return (bits & 16) != 0; }
  bool fails() const { return (bits & 32) != 0; }
  bool vanishes() const { return (bits & 64) != 0; }
  /// Gives each request the right magic, and payload where the input ends within one.
  bool repaired() const { return (bits & 128) == 0; }
  uint32_t slots() const { return 1 + (bits >> 8 & 3); }
};

struct Expected {
  RequestHeader header;
  uint32_t replies = 0;  // complete ones
  uint64_t bytes = 0;    // of read data
  bool failed = false;
};

/// What the bytes say, by a look at the whole. Cookies become the requests' numbers.
struct Script {
  Buffer bytes;
  std::vector<Expected> requests;
  bool whole = true;  // ends between two requests, or with a farewell

  Script(ConstBytes said, bool repaired) : bytes(exact(said)) {
    size_t at = 0;
    while (bytes.size() - at >= nbd::kRequestBytes) {
      if (repaired) store_be32(bytes.data() + at, nbd::kRequestMagic);
      store_be64(bytes.data() + at + 8, requests.size());
      const auto header = nbd::decode_request(bytes.data() + at);
      at += nbd::kRequestBytes;
      // With bytes behind the farewell the connection ends by a reset, which takes replies along.
      whole = header && header->type == CommandType::kDisconnect && at == bytes.size();
      if (!header || header->type == CommandType::kDisconnect) return;
      if (!take(*header, repaired, at)) return;
    }
    whole = at == bytes.size();
  }

 private:
  bool take(const RequestHeader& header, bool repaired, size_t& at) {
    if (header.type == CommandType::kWrite) {
      const size_t end = at + header.length;
      if (repaired && header.length <= kDiskBytes && end > bytes.size()) bytes.resize(end);
      whole = header.length <= nbd::kPayloadBytesMax && end <= bytes.size();
      if (!whole) return false;
      at = end;
    }
    requests.push_back({.header = header});
    return true;
  }
};

/// Reads the server's bytes as replies to the script.
class Replies {
 public:
  Replies(ConstBytes bytes, Script& script, bool structured)
      : left_(bytes), script_(script), structured_(structured) {}

  /// Stops at a reply that is cut off.
  void take_all() {
    while (left_.size() >= nbd::kSimpleReplyBytes && take()) {
    }
  }
  bool complete() const { return left_.empty(); }

 private:
  Expected& expected(uint64_t cookie) {
    HAST_ASSERT_OP(cookie, <, script_.requests.size());
    Expected& request = script_.requests[cookie];
    HAST_ASSERT_OP(request.replies, ==, 0u);
    return request;
  }

  bool take() {
    if (load_be32(left_.data()) == nbd::kSimpleReplyMagic) return take_simple();
    HAST_ASSERT_OP(load_be32(left_.data()), ==, nbd::kStructuredReplyMagic);
    HAST_ASSERT(structured_);
    return left_.size() >= nbd::kChunkHeaderBytes && take_chunk();
  }

  bool take_simple() {
    Expected& request = expected(load_be64(left_.data() + 8));
    const bool read = request.header.type == CommandType::kRead;
    request.failed = load_be32(left_.data() + 4) != 0;
    const size_t size = read && !request.failed ? request.header.length : 0;
    HAST_ASSERT(!read || !structured_);
    if (left_.size() - nbd::kSimpleReplyBytes < size) return false;
    request.bytes = size;
    request.replies++;
    left_ = left_.subspan(nbd::kSimpleReplyBytes + size);
    return true;
  }

  bool take_chunk() {
    const size_t length = load_be32(left_.data() + 16);
    if (left_.size() - nbd::kChunkHeaderBytes < length) return false;
    Expected& request = expected(load_be64(left_.data() + 8));
    const auto type = static_cast<nbd::ChunkType>(load_be16(left_.data() + 6));
    const std::byte* data = left_.data() + nbd::kChunkHeaderBytes;
    if (type == nbd::ChunkType::kOffsetData) {
      HAST_ASSERT(request.header.type == CommandType::kRead);
      HAST_ASSERT_OP(length, >, 8u);
      HAST_ASSERT_OP(load_be64(data), >=, request.header.offset);
      const uint64_t place = load_be64(data) - request.header.offset;
      HAST_ASSERT_OP(place + (length - 8), <=, request.header.length);
      request.bytes += length - 8;
    } else if (type == nbd::ChunkType::kError || type == nbd::ChunkType::kErrorOffset) {
      request.failed = true;
      HAST_ASSERT_OP(load_be32(data), >, 0u);
    }
    if ((load_be16(left_.data() + 4) & nbd::kChunkDone) != 0) request.replies++;
    left_ = left_.subspan(nbd::kChunkHeaderBytes + length);
    return true;
  }

  ConstBytes left_;
  Script& script_;
  bool structured_;
};

Buffer serve(const Choices& choices, const Script& script) {
  SimLoop loop;
  PipeNetwork network(loop, choices.bits);
  network.options.partial = choices.partial();
  network.options.delay_max_us = choices.partial() ? 50 : 0;
  test::MemoryProvider provider({.size_bytes = kDiskBytes,
                                 .slots = choices.slots(),
                                 .slots_per_client = choices.slots(),
                                 .delay_max_us = choices.answers_late() ? 200u : 0u});
  provider.hold = choices.answers_held();
  if (choices.fails()) {
    provider.failure = [](const Request& r) { return r.offset / 4096 % 3 == 1 ? EIO : 0; };
  }
  auto [client_end, server_end] = network.make_pair(kLink);
  NbdClient client(network, std::move(client_end));
  NbdShared shared{.provider = provider, .slot_wanted = {}};
  const nbd::Session session{.agreed = true,
                             .structured_replies = choices.structured(),
                             .block_status = choices.block_status()};
  {
    NbdConnection connection(shared, *server_end, session);
    Scope scope;
    scope.spawn(connection.run());
    client.start(script.bytes, true);
    if (choices.vanishes()) {
      loop.advance(300);
      client.vanish();
    }
    if (provider.hold) {
      loop.run_until_idle();
      provider.let_go();
    }
    loop.run_until_idle();
    HAST_ASSERT_OP(scope.running(), ==, 0u);  // it has noticed the end by itself
  }
  HAST_ASSERT_OP(provider.slots_out(), ==, 0u);
  HAST_ASSERT_OP(provider.waiting(), ==, 0u);
  client.vanish();
  loop.run_until_idle();
  return client.inbox;
}

void check(Input input) {
  const Choices choices(input);
  Script script(input.rest(), choices.repaired());
  const Buffer answers = serve(choices, script);
  HAST_ASSERT_OP(task_frames_alive(), ==, 0u);
  Replies replies(answers, script, choices.structured());
  replies.take_all();
  // A READ in pieces that fails half-way can only end the connection.
  if (choices.vanishes() || choices.fails() || !script.whole) return;
  HAST_ASSERT(replies.complete());
  for (const Expected& request : script.requests) {
    HAST_ASSERT_OP(request.replies, ==, 1u);
    if (request.header.type != CommandType::kRead) continue;
    HAST_ASSERT_OP(request.bytes, ==, request.failed ? 0u : request.header.length);
  }
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size));
  return 0;
}
