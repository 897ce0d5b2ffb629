// Arbitrary bytes of an NBD client from its first byte on, to a whole gate. Each option that came
// whole gets its answers in order, a silent client is left alone no longer than the deadline, and
// when the gate closes nothing is left.
// Input: choices (1 byte), the client's bytes.
#include "gate/memory_provider.h"
#include "gate/nbd_gate.h"
#include "nbd_client.h"
#include "ring/sim_loop.h"

namespace hast::fuzz {
namespace {

constexpr uint64_t kSecond = 1'000'000;

struct Choices {
  explicit Choices(Input& input) : bits(input.byte()) {}
  uint8_t bits;
  bool partial() const { return (bits & 1) != 0; }
  bool says_end() const { return (bits & 2) == 0; }
  bool repaired() const { return (bits & 4) == 0; }  // magics are put right
  bool trims() const { return (bits & 8) != 0; }
};

/// What the client says, by a look at the whole.
struct Script {
  Buffer bytes;
  std::vector<nbd::OptionHeader> options;  ///< that came whole, up to the end of the handshake
  bool all_read = false;  ///< the gate reads all of it: the end of the connection is no reset

  Script(ConstBytes said, bool repaired) : bytes(exact(said)) {
    all_read = reads_all(repaired) && !transmits_;
  }

 private:
  /// Whether all of it is options, or the beginning of one.
  bool reads_all(bool repaired) {
    size_t at = nbd::kClientFlagsBytes;
    if (bytes.size() < at) return true;
    if ((load_be32(bytes.data()) & ~3u) != 0) return bytes.size() == at;
    while (bytes.size() - at >= nbd::kOptionHeaderBytes) {
      if (repaired) store_be64(bytes.data() + at, nbd::kOptionMagic);
      bool last = true;
      const bool read = take(at, last);
      if (last) return read && at == bytes.size();
    }
    return true;
  }

  /// Goes on to the next option, if this is not the `last` that is read. False when it is not read
  /// to its end.
  bool take(size_t& at, bool& last) {
    constexpr size_t kLongest = 65536;  // longer ones are not answered
    const auto header = nbd::decode_option(bytes.data() + at);
    at += nbd::kOptionHeaderBytes;
    if (!header || header->length > kLongest) return false;
    const bool cut = header->length > bytes.size() - at;
    at = cut ? bytes.size() : at + header->length;
    const auto option = static_cast<nbd::Option>(header->option);
    if (cut || option == nbd::Option::kExportName) return true;  // its answer has another form
    options.push_back(*header);
    transmits_ = transmits_ || (option == nbd::Option::kGo && at < bytes.size());
    last = option == nbd::Option::kAbort;
    return true;
  }

  bool transmits_ = false;  ///< bytes follow a GO: if it is granted they are requests, or garbage
};

/// What is left of the server's bytes, in its replies to one option after the other.
class Replies {
 public:
  explicit Replies(ConstBytes heard) : left_(heard) {
    HAST_ASSERT_OP(left_.size(), >=, nbd::kGreetingBytes);
    HAST_ASSERT_OP(load_be64(left_.data()), ==, nbd::kGreetingMagic);
    HAST_ASSERT_OP(load_be64(left_.data() + 8), ==, nbd::kOptionMagic);
    left_ = left_.subspan(nbd::kGreetingBytes);
  }

  enum class Then { kNextOption, kTransmission, kCutOff };

  Then take(const nbd::OptionHeader& said) {
    constexpr size_t kUnderstood = 8192;  // longer data has no room, and is only skipped
    const uint32_t option = said.option;
    for (;;) {
      if (left_.size() < nbd::kOptionReplyHeaderBytes) return Then::kCutOff;
      HAST_ASSERT_OP(load_be64(left_.data()), ==, nbd::kOptionReplyMagic);
      HAST_ASSERT_OP(load_be32(left_.data() + 8), ==, option);
      const auto type = static_cast<nbd::OptionReply>(load_be32(left_.data() + 12));
      const size_t length = load_be32(left_.data() + 16);
      HAST_ASSERT_OP(said.length > kUnderstood, ==, type == nbd::OptionReply::kErrTooBig);
      if (left_.size() - nbd::kOptionReplyHeaderBytes < length) return Then::kCutOff;
      left_ = left_.subspan(nbd::kOptionReplyHeaderBytes + length);
      const bool go = option == static_cast<uint32_t>(nbd::Option::kGo);
      if (type == nbd::OptionReply::kAck) return go ? Then::kTransmission : Then::kNextOption;
      if ((static_cast<uint32_t>(type) & 0x80000000u) != 0) return Then::kNextOption;
      HAST_ASSERT_OP(length, >, 0u);
    }
  }

 private:
  ConstBytes left_;
};

void check_replies(ConstBytes heard, const Script& script) {
  Replies replies(heard);
  for (const nbd::OptionHeader& said : script.options) {
    const Replies::Then then = replies.take(said);
    // A connection that ends with unread bytes of the client takes replies with it.
    HAST_ASSERT(then != Replies::Then::kCutOff || !script.all_read);
    if (then != Replies::Then::kNextOption) return;
  }
}

Task<void> connect(PipeNetwork& network, std::unique_ptr<Stream>& stream) {
  co_await network.connect("gate", kLink, kSecond, stream);
}

Buffer serve(const Choices& choices, const Buffer& bytes) {
  SimLoop loop;
  PipeNetwork network(loop, choices.bits);
  network.options.partial = choices.partial();
  test::MemoryProvider provider({.size_bytes = 64u << 10, .slots = 1, .slots_per_client = 1});
  provider.trim = choices.trims();
  Buffer heard;
  {
    NbdGate gate(provider, "disk");
    Scope scope;
    scope.spawn(gate.serve(network.listen("gate")));
    std::unique_ptr<Stream> stream;
    scope.spawn(connect(network, stream));
    loop.run_until([&stream] { return stream != nullptr; }, kSecond);
    NbdClient client(network, std::move(stream));
    client.start(bytes, choices.says_end());
    loop.advance(30 * kSecond);  // longer than the handshake may take
    HAST_ASSERT(gate.client_count() == 0 || !choices.says_end());
    heard = client.inbox;
    scope.spawn(gate.close());
    loop.run_until_idle();
    HAST_ASSERT_OP(scope.running(), ==, 0u);
    HAST_ASSERT_OP(gate.client_count(), ==, 0u);
    client.vanish();
    loop.run_until_idle();
  }
  HAST_ASSERT_OP(provider.slots_out(), ==, 0u);
  HAST_ASSERT_OP(network.streams_alive(), ==, 0u);
  return heard;
}

void check(Input input) {
  const Choices choices(input);
  const Script script(input.rest(), choices.repaired());
  const Buffer heard = serve(choices, script.bytes);
  HAST_ASSERT_OP(task_frames_alive(), ==, 0u);
  check_replies(heard, script);
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size));
  return 0;
}
