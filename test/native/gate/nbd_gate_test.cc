#include "gate/nbd_gate.h"

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gate/memory_provider.h"
#include "gate/nbd_format.h"
#include "harness.h"
#include "ring/pipe_stream.h"
#include "ring/sim_loop.h"

namespace hast::test {
namespace {

using nbd::CommandType;
using nbd::Option;
using Buffer = std::vector<std::byte>;

constexpr uint64_t kSecond = 1'000'000;
constexpr uint32_t kSlot = kRequestBytesMax;

/// Bytes under construction, big-endian.
struct Out {
  Buffer bytes;
  Out& u16(uint16_t v) {
    return put([v](std::byte* to) { store_be16(to, v); }, 2);
  }
  Out& u32(uint32_t v) {
    return put([v](std::byte* to) { store_be32(to, v); }, 4);
  }
  Out& u64(uint64_t v) {
    return put([v](std::byte* to) { store_be64(to, v); }, 8);
  }
  Out& text(std::string_view v) {
    return put([v](std::byte* to) { std::memcpy(to, v.data(), v.size()); }, v.size());
  }
  Out& raw(const Buffer& v) {
    bytes.insert(bytes.end(), v.begin(), v.end());
    return *this;
  }
  template <typename Store>
  Out& put(Store store, std::size_t size) {
    bytes.resize(bytes.size() + size);
    store(bytes.data() + bytes.size() - size);
    return *this;
  }
};

Buffer option(uint32_t number, const Buffer& data = {}) {
  return Out()
      .u64(nbd::kOptionMagic)
      .u32(number)
      .u32(static_cast<uint32_t>(data.size()))
      .raw(data)
      .bytes;
}
Buffer option(Option number, const Buffer& data = {}) {
  return option(static_cast<uint32_t>(number), data);
}
Buffer info_data(std::string_view name, std::initializer_list<uint16_t> kinds = {}) {
  Out out;
  out.u32(static_cast<uint32_t>(name.size())).text(name).u16(static_cast<uint16_t>(kinds.size()));
  for (const uint16_t kind : kinds) out.u16(kind);
  return out.bytes;
}
Buffer meta_data(std::string_view name, std::initializer_list<std::string_view> queries) {
  Out out;
  out.u32(static_cast<uint32_t>(name.size())).text(name);
  out.u32(static_cast<uint32_t>(queries.size()));
  for (const std::string_view query : queries) {
    out.u32(static_cast<uint32_t>(query.size())).text(query);
  }
  return out.bytes;
}

Buffer request(CommandType type, uint64_t cookie, uint64_t offset, uint32_t length,
               uint16_t flags = 0) {
  Buffer bytes(nbd::kRequestBytes);
  nbd::encode_request(bytes.data(), {flags, type, cookie, offset, length});
  return bytes;
}

/// Bytes that depend on their place, so that any mix-up shows: seven more from each to the next,
/// and thirteen more from each block of 512 to the next. A block is a piece of one sequence.
Buffer pattern(uint64_t offset, std::size_t size, uint64_t salt = 0) {
  static constexpr std::size_t kBlock = 512;
  static constexpr std::size_t kPeriod = 256;
  static const std::vector<std::byte> sequence = [] {
    std::vector<std::byte> bytes;
    for (unsigned i = 0; i < kPeriod + kBlock; ++i) bytes.push_back(static_cast<std::byte>(i * 7));
    return bytes;
  }();
  static constexpr uint64_t kSevenths = 183;  // 183 * 7 is 1 in a byte
  Buffer bytes(size);
  for (std::size_t i = 0; i < size;) {
    const uint64_t at = offset + i;
    const std::size_t length = std::min<std::size_t>(size - i, kBlock - at % kBlock);
    const uint64_t from = at + (at / kBlock * 13 + salt) * kSevenths;
    std::memcpy(bytes.data() + i, sequence.data() + from % kPeriod, length);
    i += length;
  }
  return bytes;
}

/// For much: vectors of bytes are compared one by one.
bool same(const Buffer& one, const Buffer& other) {
  return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size()) == 0;
}

/// One end of a connection in the hands of a test: what is sent is queued, what comes is kept.
class Client {
 public:
  explicit Client(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {
    scope_.spawn(receive());
  }
  ~Client() { HAST_ASSERT(scope_.running() == 0); }

  void send(const Buffer& bytes) {
    outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
    if (!sending_) scope_.spawn(send_outbox());
  }
  void vanish() { stream_->shut_down(); }
  /// Stops taking what comes; what is on its way stays there.
  void stop_receiving() { receiving_ = false; }
  bool ended() const { return ended_; }
  bool all_sent() const { return !sending_; }

  Buffer inbox;
  std::size_t inbox_limit = SIZE_MAX;

 private:
  Task<void> receive() {
    Buffer piece(65536);
    while (receiving_) {
      const int result = co_await stream_->recv(piece);
      if (result <= 0) break;
      inbox.insert(inbox.end(), piece.begin(), piece.begin() + result);
    }
    ended_ = receiving_;
  }
  Task<void> send_outbox() {
    sending_ = true;
    while (!outbox_.empty()) {
      Buffer bytes = std::exchange(outbox_, {});
      iovec part = {bytes.data(), bytes.size()};
      const int error = co_await send_all(*stream_, std::span<iovec>(&part, 1));
      if (error != 0) break;
    }
    sending_ = false;
  }

  std::unique_ptr<Stream> stream_;
  Scope scope_;
  Buffer outbox_;
  bool sending_ = false;
  bool receiving_ = true;
  bool ended_ = false;
};

/// One whole reply to a command.
struct Reply {
  bool structured = false;
  uint32_t error = 0;
  std::optional<uint64_t> error_offset;
  Buffer data;  // READ: all of it, in place
  uint32_t pieces = 0;
  std::vector<uint32_t> status;
};

/// Takes replies off a client's inbox. `reads` says how long each READ is, by cookie.
class Replies {
 public:
  explicit Replies(Client& client) : client_(client) {}

  struct Read {
    uint64_t offset;
    uint32_t length;
  };
  std::map<uint64_t, Read> reads;
  std::map<uint64_t, Reply> done;
  std::vector<uint64_t> order;
  bool nonsense = false;

  void take() {
    while (!nonsense && take_one()) {
    }
  }
  const Reply* find(uint64_t cookie) {
    take();
    const auto found = done.find(cookie);
    return found == done.end() ? nullptr : &found->second;
  }

 private:
  bool take_one() {
    const Buffer& in = client_.inbox;
    const std::size_t left = in.size() - used_;
    if (left < nbd::kSimpleReplyBytes) return false;
    const std::byte* at = in.data() + used_;
    if (load_be32(at) == nbd::kSimpleReplyMagic) return take_simple(at, left);
    if (load_be32(at) != nbd::kStructuredReplyMagic) {
      nonsense = true;
      return false;
    }
    return take_structured(at, left);
  }
  bool take_simple(const std::byte* at, std::size_t left) {
    const uint64_t cookie = load_be64(at + 8);
    Reply reply;
    reply.error = load_be32(at + 4);
    std::size_t size = nbd::kSimpleReplyBytes;
    if (reply.error == 0 && reads.count(cookie) != 0) {
      const uint32_t length = reads[cookie].length;
      if (left < size + length) return false;
      reply.data.assign(at + size, at + size + length);
      reply.pieces = 1;
      size += length;
    }
    used_ += size;
    finish(cookie, std::move(reply));
    return true;
  }
  bool take_structured(const std::byte* at, std::size_t left) {
    if (left < nbd::kChunkHeaderBytes) return false;
    const uint32_t length = load_be32(at + 16);
    if (left < nbd::kChunkHeaderBytes + length) return false;
    const uint64_t cookie = load_be64(at + 8);
    Reply& reply = open_[cookie];
    reply.structured = true;
    add(reply, cookie, static_cast<nbd::ChunkType>(load_be16(at + 6)), at + nbd::kChunkHeaderBytes,
        length);
    used_ += nbd::kChunkHeaderBytes + length;
    if ((load_be16(at + 4) & nbd::kChunkDone) != 0) {
      finish(cookie, std::move(reply));
      open_.erase(cookie);
    }
    return true;
  }
  void add(Reply& reply, uint64_t cookie, nbd::ChunkType type, const std::byte* at,
           uint32_t length) {
    if (type == nbd::ChunkType::kOffsetData) {
      const Read read = reads[cookie];
      const uint64_t place = load_be64(at) - read.offset;
      if (place + (length - 8) > read.length) {
        nonsense = true;
        return;
      }
      reply.data.resize(read.length);
      std::memcpy(reply.data.data() + place, at + 8, length - 8);
      ++reply.pieces;
    } else if (type == nbd::ChunkType::kBlockStatus) {
      for (uint32_t i = 0; i < length; i += 4) reply.status.push_back(load_be32(at + i));
    } else if (reply.error == 0) {
      reply.error = load_be32(at);
      if (type == nbd::ChunkType::kErrorOffset) reply.error_offset = load_be64(at + 6);
    }
  }
  void finish(uint64_t cookie, Reply reply) {
    if (done.count(cookie) != 0) nonsense = true;
    order.push_back(cookie);
    done[cookie] = std::move(reply);
  }

  Client& client_;
  std::size_t used_ = 0;
  std::map<uint64_t, Reply> open_;
};

/// A gate with its provider on a simulated loop and network.
struct World {
  explicit World(MemoryProviderOptions options = {}, uint64_t seed = 1)
      : network(loop, seed), provider(options), gate(provider, "disk") {
    scope.spawn(gate.serve(network.listen("gate")));
    loop.run_now();
  }
  ~World() {
    close();
    CHECK_EQ(provider.slots_out(), 0u);
    CHECK_EQ(gate.client_count(), 0u);
    for (const auto& client : clients) client->vanish();
    loop.run_until_idle();
    clients.clear();
    loop.run_until_idle();
    CHECK_EQ(scope.running(), 0u);
  }

  void close() {
    if (closed) return;
    closed = true;
    if (provider.hold) provider.let_go();
    scope.spawn(gate.close());
    CHECK(loop.run_until([this] { return scope.running() == 0; }, 60 * kSecond));
  }

  Client& connect() {
    std::unique_ptr<Stream> stream;
    scope.spawn(connect_to(stream));
    loop.run_until([&stream] { return stream != nullptr; }, kSecond);
    clients.push_back(std::make_unique<Client>(std::move(stream)));
    return *clients.back();
  }
  Client& kernel() {
    auto [near, far] = network.make_pair(++last_link);
    scope.spawn(gate.serve_kernel(std::move(far)));
    clients.push_back(std::make_unique<Client>(std::move(near)));
    return *clients.back();
  }
  Task<void> connect_to(std::unique_ptr<Stream>& stream) {
    co_await network.connect("gate", ++last_link, kSecond, stream);
  }

  /// Waits until `client` has received `count` bytes in all and gives those after `skip`.
  Buffer expect(Client& client, std::size_t count) {
    const bool there = loop.run_until([&] { return client.inbox.size() >= count; }, 10 * kSecond);
    CHECK(there);
    if (!there) return Buffer(count);
    Buffer bytes(client.inbox.begin(), client.inbox.begin() + static_cast<std::ptrdiff_t>(count));
    client.inbox.erase(client.inbox.begin(),
                       client.inbox.begin() + static_cast<std::ptrdiff_t>(count));
    return bytes;
  }
  bool ends(Client& client, uint64_t limit_us = 10 * kSecond) {
    return loop.run_until([&] { return client.ended(); }, limit_us);
  }

  /// A client past the greeting.
  Client& greeted(uint32_t flags = 3) {
    Client& client = connect();
    expect(client, nbd::kGreetingBytes);
    client.send(Out().u32(flags).bytes);
    return client;
  }
  /// A client in the transmission phase.
  Client& simple() {
    Client& client = greeted();
    client.send(option(Option::kExportName, {}));
    expect(client, nbd::kExportNameReplyBytes);
    return client;
  }
  Client& structured(bool block_status = false) {
    Client& client = greeted();
    client.send(option(Option::kStructuredReply));
    expect(client, nbd::kOptionReplyHeaderBytes);
    if (block_status) {
      client.send(option(Option::kSetMetaContext, meta_data("disk", {nbd::kAllocationContext})));
      expect(client, nbd::kOptionReplyHeaderBytes + 4 + nbd::kAllocationContext.size());
      expect(client, nbd::kOptionReplyHeaderBytes);
    }
    client.send(option(Option::kExportName, {}));
    expect(client, nbd::kExportNameReplyBytes);
    return client;
  }

  /// Waits for the reply with this cookie.
  Reply wait(Replies& replies, uint64_t cookie, uint64_t limit_us = 10 * kSecond) {
    const bool there = loop.run_until([&] { return replies.find(cookie) != nullptr; }, limit_us);
    CHECK(there);
    CHECK(!replies.nonsense);
    Reply none;
    none.error = 9999;
    return there ? *replies.find(cookie) : none;
  }
  Reply ask(Client& client, Replies& replies, uint64_t cookie, CommandType type, uint64_t offset,
            uint32_t length, uint16_t flags = 0) {
    if (type == CommandType::kRead) replies.reads[cookie] = {offset, length};
    client.send(request(type, cookie, offset, length, flags));
    return wait(replies, cookie);
  }
  Reply write(Client& client, Replies& replies, uint64_t cookie, uint64_t offset,
              const Buffer& data, uint16_t flags = 0) {
    client.send(
        request(CommandType::kWrite, cookie, offset, static_cast<uint32_t>(data.size()), flags));
    client.send(data);
    return wait(replies, cookie);
  }
  void fill_disk() {
    const Buffer bytes = pattern(0, provider.disk.size());
    std::memcpy(provider.disk.data(), bytes.data(), bytes.size());
  }
  Buffer on_disk(uint64_t offset, std::size_t size) const {
    const auto at = provider.disk.begin() + static_cast<std::ptrdiff_t>(offset);
    return Buffer(at, at + static_cast<std::ptrdiff_t>(size));
  }

  SimLoop loop;
  PipeNetwork network;
  MemoryProvider provider;
  NbdGate gate;
  Scope scope;
  std::vector<std::unique_ptr<Client>> clients;
  uint32_t last_link = 0;
  bool closed = false;
};

struct OptionReplyView {
  uint32_t option;
  uint32_t type;
  Buffer data;
};
OptionReplyView option_reply(World& world, Client& client) {
  const Buffer header = world.expect(client, nbd::kOptionReplyHeaderBytes);
  CHECK_EQ(load_be64(header.data()), nbd::kOptionReplyMagic);
  const uint32_t length = load_be32(header.data() + 16);
  return {load_be32(header.data() + 8), load_be32(header.data() + 12),
          world.expect(client, length)};
}
uint32_t kind(nbd::OptionReply type) { return static_cast<uint32_t>(type); }

std::string text_of(const Buffer& bytes, std::size_t from) {
  return std::string(reinterpret_cast<const char*>(bytes.data()) + from, bytes.size() - from);
}

}  // namespace

// ---- Format ------------------------------------------------------------------------------------

TEST(nbd_format, "errors become those that NBD knows") {
  CHECK_EQ(nbd::error_on_wire(0), 0u);
  CHECK_EQ(nbd::error_on_wire(ENOSPC), 28u);
  CHECK_EQ(nbd::error_on_wire(EFBIG), 28u);
  CHECK_EQ(nbd::error_on_wire(ESHUTDOWN), 108u);
  CHECK_EQ(nbd::error_on_wire(ENOTSUP), 95u);
  CHECK_EQ(nbd::error_on_wire(ECONNRESET), 5u);
}

TEST(nbd_format, "a request survives encoding, and a wrong magic is none") {
  Buffer bytes = request(CommandType::kTrim, 0x1122334455667788, 1ull << 40, 4096, nbd::kFua);
  const auto header = nbd::decode_request(bytes.data());
  REQUIRE(header.has_value());
  CHECK(header->type == CommandType::kTrim);
  CHECK_EQ(header->cookie, 0x1122334455667788u);
  CHECK_EQ(header->offset, 1ull << 40);
  CHECK_EQ(header->length, 4096u);
  CHECK_EQ(header->flags, nbd::kFua);
  bytes[3] ^= std::byte{1};
  CHECK(!nbd::decode_request(bytes.data()).has_value());
}

TEST(nbd_format, "option data that does not add up is refused") {
  const Buffer good = info_data("disk", {1, 3});
  CHECK(nbd::decode_info_request(good).has_value());
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK(!nbd::decode_info_request(ConstBytes(good).first(size)).has_value());
  }
  Buffer longer = good;
  longer.push_back(std::byte{0});
  CHECK(!nbd::decode_info_request(longer).has_value());
  const Buffer meta = meta_data("disk", {"base:allocation", "qemu:"});
  CHECK(nbd::decode_meta_request(meta).has_value());
  for (std::size_t size = 0; size < meta.size(); ++size) {
    CHECK(!nbd::decode_meta_request(ConstBytes(meta).first(size)).has_value());
  }
  CHECK(!nbd::decode_meta_request(Out().u32(0).u32(0xffffffff).bytes).has_value());
}

// ---- Negotiation -------------------------------------------------------------------------------

TEST(nbd_negotiation, "greets as fixed newstyle") {
  World world;
  Client& client = world.connect();
  const Buffer greeting = world.expect(client, nbd::kGreetingBytes);
  CHECK_EQ(load_be64(greeting.data()), nbd::kGreetingMagic);
  CHECK_EQ(load_be64(greeting.data() + 8), nbd::kOptionMagic);
  CHECK_EQ(load_be16(greeting.data() + 16), 3);
}

TEST(nbd_negotiation, "EXPORT_NAME tells size and flags, with 124 zeroes unless they are waived") {
  World world;
  Client& terse = world.greeted(3);
  terse.send(option(Option::kExportName, Out().text("disk").bytes));
  const Buffer reply = world.expect(terse, 10);
  CHECK_EQ(load_be64(reply.data()), world.provider.size_bytes());
  const uint16_t flags = load_be16(reply.data() + 8);
  CHECK_EQ(flags, 1 | 4 | 8 | 32 | 64 | 256 | 1024);

  Client& old = world.greeted(1);
  old.send(option(Option::kExportName, {}));
  const Buffer padded = world.expect(old, 134);
  CHECK_EQ(load_be64(padded.data()), world.provider.size_bytes());
  CHECK_EQ(padded[133], std::byte{0});
}

TEST(nbd_negotiation, "a provider that cannot trim does not announce it") {
  World world;
  world.provider.trim = false;
  Client& client = world.greeted();
  client.send(option(Option::kExportName, {}));
  const Buffer reply = world.expect(client, 10);
  CHECK_EQ(load_be16(reply.data() + 8) & 32, 0);
}

TEST(nbd_negotiation, "EXPORT_NAME of another export closes the connection") {
  World world;
  Client& client = world.greeted();
  client.send(option(Option::kExportName, Out().text("other").bytes));
  CHECK(world.ends(client));
}

TEST(nbd_negotiation, "GO tells export, block sizes and, when asked, the name") {
  World world({.block_bytes = 4096});
  Client& client = world.greeted();
  client.send(option(Option::kStructuredReply));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  client.send(option(Option::kGo, info_data("", {1})));
  const OptionReplyView exported = option_reply(world, client);
  CHECK_EQ(exported.type, kind(nbd::OptionReply::kInfo));
  REQUIRE(exported.data.size() == 12);
  CHECK_EQ(load_be16(exported.data.data()), 0);
  CHECK_EQ(load_be64(exported.data.data() + 2), world.provider.size_bytes());
  CHECK_EQ(load_be16(exported.data.data() + 10) & nbd::kSendDontFragment, nbd::kSendDontFragment);
  const OptionReplyView sizes = option_reply(world, client);
  REQUIRE(sizes.data.size() == 14);
  CHECK_EQ(load_be16(sizes.data.data()), 3);
  CHECK_EQ(load_be32(sizes.data.data() + 2), 4096u);
  CHECK_EQ(load_be32(sizes.data.data() + 6), 4096u);
  CHECK_EQ(load_be32(sizes.data.data() + 10), 32u << 20);
  CHECK_EQ(text_of(option_reply(world, client).data, 2), "disk");
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  Replies replies(client);
  CHECK_EQ(world.ask(client, replies, 1, CommandType::kRead, 0, 4096).error, 0u);
  CHECK_EQ(world.gate.client_count(), 1u);
}

TEST(nbd_negotiation, "INFO, errors and unknown options leave the handshake open") {
  World world;
  Client& client = world.greeted();
  client.send(option(Option::kInfo, info_data("disk")));
  for (int i = 0; i < 2; ++i) {
    CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kInfo));
  }
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  client.send(option(Option::kGo, info_data("other")));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrUnknown));
  client.send(option(Option::kGo, Out().u32(77).bytes));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrInvalid));
  client.send(option(5));  // STARTTLS
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrUnsupported));
  client.send(option(0xdeadbeef, Buffer(100)));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrUnsupported));
  client.send(option(Option::kStructuredReply, Buffer(1)));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrInvalid));
  client.send(option(0xdeadbeef, Buffer(20000)));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrTooBig));
  client.send(option(Option::kGo, info_data("disk")));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kInfo));
}

TEST(nbd_negotiation, "LIST names the export; ABORT is acknowledged and ends") {
  World world;
  Client& client = world.greeted();
  client.send(option(Option::kList));
  const OptionReplyView server = option_reply(world, client);
  CHECK_EQ(server.type, kind(nbd::OptionReply::kServer));
  CHECK_EQ(text_of(server.data, 4), "disk");
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  client.send(option(Option::kList, Buffer(3)));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrInvalid));
  client.send(option(Option::kAbort));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  CHECK(world.ends(client));
}

TEST(nbd_negotiation, "meta contexts need structured replies and know base:allocation") {
  World world;
  Client& client = world.greeted();
  client.send(option(Option::kSetMetaContext, meta_data("disk", {"base:allocation"})));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrInvalid));
  client.send(option(Option::kStructuredReply));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  client.send(option(Option::kListMetaContext, meta_data("disk", {})));
  CHECK_EQ(text_of(option_reply(world, client).data, 4), "base:allocation");
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  client.send(option(Option::kListMetaContext, meta_data("", {"base:"})));
  CHECK_EQ(text_of(option_reply(world, client).data, 4), "base:allocation");
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
  client.send(option(Option::kSetMetaContext, meta_data("x", {"base:allocation"})));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kErrUnknown));
  client.send(option(Option::kSetMetaContext, meta_data("", {"qemu:dirty", "base:"})));
  CHECK_EQ(option_reply(world, client).type, kind(nbd::OptionReply::kAck));
}

TEST(nbd_negotiation, "strange flags, a wrong magic and endless options close only that client") {
  World world;
  Client& good = world.simple();
  Client& flags = world.greeted(0x80000003);
  CHECK(world.ends(flags));
  Client& magic = world.greeted();
  magic.send(Out().u64(0x1234).u32(7).u32(0).bytes);
  CHECK(world.ends(magic));
  Client& endless = world.greeted();
  endless.send(Out().u64(nbd::kOptionMagic).u32(7).u32(0xffffffff).bytes);
  CHECK(world.ends(endless));
  Replies replies(good);
  CHECK_EQ(world.ask(good, replies, 1, CommandType::kFlush, 0, 0).error, 0u);
}

TEST(nbd_negotiation,
     "a client that says nothing is closed after 20 s, one that is served is not") {
  World world;
  Client& silent = world.connect();
  Client& half = world.greeted();
  half.send(Out().u64(nbd::kOptionMagic).u32(7).bytes);
  Client& good = world.simple();
  world.loop.advance(19 * kSecond);
  CHECK(!silent.ended());
  CHECK(!half.ended());
  world.loop.advance(2 * kSecond);
  CHECK(silent.ended());
  CHECK(half.ended());
  CHECK(!good.ended());
}

TEST(nbd_negotiation, "a crowd of silent clients keeps nobody out") {
  World world;
  for (int i = 0; i < 200; ++i) world.connect();
  Client& good = world.simple();
  Replies replies(good);
  CHECK_EQ(world.ask(good, replies, 1, CommandType::kFlush, 0, 0).error, 0u);
}

// ---- Commands ----------------------------------------------------------------------------------

TEST(nbd_gate, "writes and reads of every shape keep the bytes") {
  for (const bool structured : {false, true}) {
    World world({.delay_min_us = 10, .delay_max_us = 5000});
    Client& client = structured ? world.structured() : world.simple();
    Replies replies(client);
    uint64_t cookie = 0;
    const std::vector<std::pair<uint64_t, uint32_t>> shapes = {{0, 512},
                                                               {512, 4096},
                                                               {kSlot - 512, 1024},
                                                               {4096, kSlot},
                                                               {kSlot, kSlot},
                                                               {512, kSlot + 512},
                                                               {3 * kSlot - 512, 5 * kSlot},
                                                               {0, 32u << 20},
                                                               {1u << 20, 4u << 20},
                                                               {(64u << 20) - 512, 512}};
    for (const auto& [offset, length] : shapes) {
      const Buffer data = pattern(offset, length, ++cookie);
      CHECK_EQ(world.write(client, replies, cookie, offset, data).error, 0u);
      CHECK(same(world.on_disk(offset, length), data));
      const Reply reply = world.ask(client, replies, ++cookie, CommandType::kRead, offset, length);
      CHECK_EQ(reply.error, 0u);
      CHECK(same(reply.data, data));
      CHECK_EQ(reply.structured, structured);
    }
  }
}

TEST(nbd_gate, "a request is cut into as few chunks as possible, at multiples of a slot") {
  World world;
  world.provider.keep_log = true;
  Client& client = world.structured();
  Replies replies(client);
  world.ask(client, replies, 1, CommandType::kRead, 4096, kSlot);
  REQUIRE(world.provider.log.size() == 1);
  CHECK_EQ(world.provider.log[0].length, kSlot);
  world.ask(client, replies, 2, CommandType::kRead, 4096, 2 * kSlot);
  REQUIRE(world.provider.log.size() == 4);
  CHECK_EQ(world.provider.log[1].length, kSlot - 4096);
  CHECK_EQ(world.provider.log[2].offset, kSlot);
  CHECK_EQ(world.provider.log[2].length, kSlot);
  CHECK_EQ(world.provider.log[3].length, 4096u);
}

TEST(nbd_gate, "replies come out of order, as the answers do") {
  World world;
  Client& client = world.simple();
  Replies replies(client);
  world.provider.hold = true;
  for (uint64_t cookie = 1; cookie <= 20; ++cookie) {
    replies.reads[cookie] = {cookie * 4096, 4096};
    client.send(request(CommandType::kRead, cookie, cookie * 4096, 4096));
  }
  world.loop.run_until([&] { return world.provider.held() == 20; }, kSecond);
  CHECK_EQ(world.provider.held(), 20u);
  world.provider.let_go();
  for (uint64_t cookie = 1; cookie <= 20; ++cookie) {
    CHECK_EQ(world.wait(replies, cookie).error, 0u);
  }
  CHECK_EQ(replies.order.front(), 20u);
  CHECK_EQ(replies.order.back(), 1u);
}

TEST(nbd_gate, "FUA, FLUSH, TRIM, WRITE_ZEROES and CACHE reach the provider as they should") {
  World world;
  world.fill_disk();
  Client& client = world.simple();
  Replies replies(client);
  std::vector<Submitted>& log = world.provider.log;
  world.provider.keep_log = true;
  CHECK_EQ(world.write(client, replies, 1, 0, pattern(0, 2 * kSlot), nbd::kFua).error, 0u);
  REQUIRE(log.size() == 2);
  CHECK(log[0].op == RequestOp::kWrite && log[0].fua && !log[0].zeroes);
  CHECK(log[1].fua);
  log.clear();
  CHECK_EQ(world.ask(client, replies, 2, CommandType::kFlush, 0, 0).error, 0u);
  REQUIRE(log.size() == 1);
  CHECK(log[0].op == RequestOp::kFlush && log[0].length == 0);
  log.clear();
  CHECK_EQ(world.ask(client, replies, 3, CommandType::kTrim, 4096, 40u << 20).error, 0u);
  REQUIRE(log.size() == 1);
  CHECK(log[0].op == RequestOp::kDelete && log[0].offset == 4096 && log[0].length == 40u << 20);
  log.clear();
  CHECK_EQ(world.ask(client, replies, 4, CommandType::kTrim, 0, 4096, nbd::kFua).error, 0u);
  REQUIRE(log.size() == 1);
  CHECK(log[0].op == RequestOp::kDelete && log[0].fua);
  log.clear();
  world.fill_disk();
  const uint16_t flags = nbd::kNoHole | nbd::kFua;
  CHECK_EQ(world.ask(client, replies, 5, CommandType::kWriteZeroes, 512, 3 * kSlot, flags).error,
           0u);
  CHECK_EQ(log.size(), 4u);
  for (const Submitted& each : log) {
    CHECK(each.op == RequestOp::kWrite && each.zeroes && each.fua);
  }
  CHECK(world.on_disk(512, 3 * kSlot) == Buffer(3 * kSlot));
  CHECK(world.on_disk(0, 512) == pattern(0, 512));
  log.clear();
  CHECK_EQ(world.ask(client, replies, 6, CommandType::kCache, 0, 4096).error, 0u);
  CHECK(log.empty());
}

TEST(nbd_gate, "WRITE_ZEROES may be longer than a payload") {
  World world;
  world.fill_disk();
  Client& client = world.simple();
  Replies replies(client);
  CHECK_EQ(world.ask(client, replies, 1, CommandType::kWriteZeroes, 0, 64u << 20).error, 0u);
  CHECK(world.on_disk(0, 64u << 20) == Buffer(64u << 20));
}

TEST(nbd_gate, "BLOCK_STATUS is one extent of data, for those who have selected it") {
  World world;
  Client& client = world.structured(true);
  Replies replies(client);
  const Reply reply =
      world.ask(client, replies, 1, CommandType::kBlockStatus, 4096, 1u << 20, nbd::kRequestOne);
  CHECK_EQ(reply.error, 0u);
  CHECK(reply.structured);
  CHECK(reply.status == std::vector<uint32_t>({nbd::kAllocationContextId, 1u << 20, 0}));
  const Reply beyond = world.ask(client, replies, 2, CommandType::kBlockStatus, 64u << 20, 512);
  CHECK_EQ(beyond.error, 22u);
  CHECK(beyond.structured);
  Client& other = world.structured(false);
  Replies other_replies(other);
  CHECK_EQ(world.ask(other, other_replies, 1, CommandType::kBlockStatus, 0, 512).error, 22u);
}

TEST(nbd_gate, "wrong requests are answered and the connection goes on") {
  for (const bool structured : {false, true}) {
    World world({.block_bytes = 4096});
    Client& client = structured ? world.structured() : world.simple();
    Replies replies(client);
    uint64_t cookie = 0;
    const uint64_t size = world.provider.size_bytes();
    const auto error = [&](CommandType type, uint64_t offset, uint32_t length, uint16_t flags = 0) {
      const Reply reply = world.ask(client, replies, ++cookie, type, offset, length, flags);
      return reply.error;
    };
    CHECK_EQ(error(CommandType::kRead, size, 4096), 22u);
    CHECK_EQ(error(CommandType::kRead, size - 4096, 8192), 22u);
    CHECK_EQ(error(CommandType::kRead, UINT64_MAX - 4095, 4096), 22u);
    CHECK_EQ(error(CommandType::kRead, 512, 4096), 22u);
    CHECK_EQ(error(CommandType::kRead, 0, 512), 22u);
    CHECK_EQ(error(CommandType::kRead, 0, 0), 22u);
    CHECK_EQ(error(CommandType::kRead, 0, (32u << 20) + 4096), 22u);
    CHECK_EQ(error(CommandType::kRead, 0, 4096, nbd::kNoHole), 22u);
    CHECK_EQ(error(CommandType::kTrim, size, 4096), 22u);
    CHECK_EQ(error(CommandType::kWriteZeroes, size, 4096), 28u);
    CHECK_EQ(error(CommandType::kWriteZeroes, 0, 4096, nbd::kFastZero), 95u);
    CHECK_EQ(error(CommandType::kFlush, 0, 4096), 22u);
    CHECK_EQ(error(static_cast<CommandType>(77), 0, 0), 22u);
    CHECK_EQ(error(CommandType::kBlockStatus, 0, 4096), 22u);
    const uint32_t fragment = error(CommandType::kRead, 0, 2 * kSlot, nbd::kDontFragment);
    CHECK_EQ(fragment, structured ? 75u : 22u);
    CHECK_EQ(error(CommandType::kRead, 0, kSlot, nbd::kDontFragment), structured ? 0u : 22u);
    CHECK_EQ(world.write(client, replies, ++cookie, size - 4096, Buffer(8192)).error, 28u);
    CHECK_EQ(world.write(client, replies, ++cookie, 512, Buffer(4096)).error, 22u);
    CHECK_EQ(world.write(client, replies, ++cookie, size, Buffer(32u << 20)).error, 28u);
    CHECK_EQ(world.write(client, replies, ++cookie, 0, Buffer(4096), nbd::kNoHole).error, 22u);
    CHECK_EQ(world.write(client, replies, ++cookie, 0, pattern(0, 4096)).error, 0u);
    CHECK_EQ(error(CommandType::kRead, 0, 4096), 0u);
  }
}

TEST(nbd_gate, "a wrong magic, or a WRITE longer than 32 MiB, closes only that client") {
  World world;
  Client& good = world.simple();
  Client& magic = world.simple();
  magic.send(Buffer(28, std::byte{0x55}));
  CHECK(world.ends(magic));
  Client& huge = world.simple();
  huge.send(request(CommandType::kWrite, 1, 0, (32u << 20) + 512));
  CHECK(world.ends(huge));
  Replies replies(good);
  CHECK_EQ(world.ask(good, replies, 1, CommandType::kFlush, 0, 0).error, 0u);
}

TEST(nbd_gate, "after DISC, and after a mere end of the stream, replies are still sent") {
  World world({.delay_min_us = 1000, .delay_max_us = 2000});
  Client& client = world.simple();
  Replies replies(client);
  client.send(request(CommandType::kFlush, 1, 0, 0));
  client.send(request(CommandType::kDisconnect, 2, 0, 0));
  CHECK_EQ(world.wait(replies, 1).error, 0u);
  CHECK(world.ends(client));
  CHECK_EQ(world.gate.client_count(), 0u);

  Client& silent = world.simple();
  Replies more(silent);
  silent.send(request(CommandType::kFlush, 1, 0, 0));
  world.network.cut_direction(world.last_link, 0);
  CHECK_EQ(world.wait(more, 1).error, 0u);
  CHECK(world.ends(silent));
}

// ---- Errors of the provider --------------------------------------------------------------------

int fails_at_slot_two(const Request& request) {
  return request.offset <= 2 * kSlot && request.offset + request.length > 2 * kSlot ? EIO : 0;
}

TEST(nbd_gate, "a structured READ tells which part has failed, and gives the rest") {
  World world({.delay_min_us = 10, .delay_max_us = 5000});
  world.fill_disk();
  world.provider.failure = fails_at_slot_two;
  Client& client = world.structured();
  Replies replies(client);
  const Reply reply = world.ask(client, replies, 1, CommandType::kRead, 0, 6 * kSlot);
  CHECK_EQ(reply.error, 5u);
  REQUIRE(reply.error_offset.has_value());
  CHECK_EQ(*reply.error_offset, 2 * kSlot);
  CHECK_EQ(reply.pieces, 5u);
  Buffer expected = pattern(0, 6 * kSlot);
  std::fill(expected.begin() + 2 * kSlot, expected.begin() + 3 * kSlot, std::byte{0});
  CHECK(reply.data == expected);
  CHECK_EQ(world.ask(client, replies, 2, CommandType::kRead, 2 * kSlot, 512).error, 5u);
  CHECK_EQ(world.ask(client, replies, 3, CommandType::kRead, 0, 512).error, 0u);
}

TEST(nbd_gate, "a simple READ whose first part fails is answered with the error") {
  World world;
  world.provider.failure = fails_at_slot_two;
  Client& client = world.simple();
  Replies replies(client);
  CHECK_EQ(world.ask(client, replies, 1, CommandType::kRead, 2 * kSlot, 512).error, 5u);
  CHECK_EQ(world.ask(client, replies, 2, CommandType::kRead, 2 * kSlot, 200 * kSlot).error, 5u);
  CHECK_EQ(world.ask(client, replies, 3, CommandType::kRead, 0, kSlot).error, 0u);
}

TEST(nbd_gate, "a simple READ that fails after its header closes that client") {
  World world;
  world.provider.failure = [](const Request& r) { return r.offset >= 200ull * kSlot ? EIO : 0; };
  Client& good = world.simple();
  Client& client = world.simple();
  client.send(request(CommandType::kRead, 1, 0, 250 * kSlot));
  CHECK(world.ends(client));
  Replies replies(good);
  CHECK_EQ(world.ask(good, replies, 1, CommandType::kRead, 0, 4096).error, 0u);
  CHECK_EQ(world.ask(good, replies, 2, CommandType::kRead, 201 * kSlot, 4096).error, 5u);
}

TEST(nbd_gate, "a WRITE of several chunks gives the first error, once") {
  World world({.delay_min_us = 10, .delay_max_us = 100});
  world.provider.failure = fails_at_slot_two;
  Client& client = world.simple();
  Replies replies(client);
  CHECK_EQ(world.write(client, replies, 1, 0, pattern(0, 20 * kSlot)).error, 5u);
  CHECK_EQ(world.write(client, replies, 2, 0, pattern(0, 4096)).error, 0u);
  CHECK_EQ(world.ask(client, replies, 3, CommandType::kTrim, 0, 4 * kSlot, nbd::kFua).error, 5u);
}

// ---- Slots -------------------------------------------------------------------------------------

TEST(nbd_gate, "two clients move 32 MiB requests at once through 256 slots") {
  constexpr uint32_t kLong = 32u << 20;
  for (const bool structured : {false, true}) {
    World world({.delay_min_us = 10, .delay_max_us = 3000});
    std::vector<std::unique_ptr<Replies>> replies;
    for (uint64_t i = 0; i < 2; ++i) {
      Client& client = structured ? world.structured() : world.simple();
      replies.push_back(std::make_unique<Replies>(client));
      client.inbox.reserve(2 * kLong + kSlot);
      client.send(request(CommandType::kWrite, 1, i * kLong, kLong));
      client.send(pattern(i * kLong, kLong));
    }
    for (auto& each : replies) CHECK_EQ(world.wait(*each, 1).error, 0u);
    CHECK(same(world.on_disk(0, 2 * kLong), pattern(0, 2 * kLong)));
    for (uint64_t i = 0; i < 4; ++i) {
      replies[i / 2]->reads[10 + i] = {i % 2 * kLong, kLong};
      world.clients[i / 2]->send(request(CommandType::kRead, 10 + i, i % 2 * kLong, kLong));
    }
    for (uint64_t i = 0; i < 4; ++i) {
      const Reply reply = world.wait(*replies[i / 2], 10 + i);
      CHECK_EQ(reply.error, 0u);
      CHECK(same(reply.data, pattern(i % 2 * kLong, kLong)));
    }
  }
}

TEST(nbd_gate, "READs of several chunks do not lock each other out, however few the slots") {
  for (uint32_t slots = 1; slots <= 6; ++slots) {
    World world({.size_bytes = 8u << 20,
                 .slots = slots,
                 .slots_per_client = 4,
                 .delay_min_us = 1,
                 .delay_max_us = 900});
    world.fill_disk();
    std::vector<std::unique_ptr<Replies>> replies;
    for (int i = 0; i < 3; ++i) {
      Client& client = world.simple();
      replies.push_back(std::make_unique<Replies>(client));
      for (uint64_t n = 0; n < 12; ++n) {
        const uint32_t length = static_cast<uint32_t>((n % 4 + 1) * kSlot / 2 * 3);
        replies.back()->reads[n] = {n * kSlot, length};
        client.send(request(CommandType::kRead, n, n * kSlot, length));
      }
    }
    for (auto& each : replies) {
      for (uint64_t n = 0; n < 12; ++n) {
        const Reply reply = world.wait(*each, n);
        CHECK(same(reply.data, pattern(n * kSlot, (n % 4 + 1) * kSlot / 2 * 3)));
      }
    }
  }
}

TEST(nbd_gate, "a client with its share of slots waits, and another one is served") {
  World world;
  Client& greedy = world.structured();
  Client& modest = world.structured();
  Replies replies(modest);
  world.provider.hold = true;
  for (uint64_t n = 0; n < 300; ++n) {
    greedy.send(request(CommandType::kRead, n, n * 4096, 4096));
  }
  world.loop.run_until([&] { return world.provider.waiting() > 0; }, kSecond);
  CHECK_EQ(world.provider.slots_out(), std::size_t{kRequestsPerClientMax});
  world.provider.hold = false;
  CHECK_EQ(world.ask(modest, replies, 1, CommandType::kRead, 0, 4096).error, 0u);
  CHECK_EQ(world.provider.slots_out(), std::size_t{kRequestsPerClientMax});
  world.provider.let_go();
  Replies all(greedy);
  for (uint64_t n = 0; n < 300; ++n) all.reads[n] = {n * 4096, 4096};
  for (uint64_t n = 0; n < 300; ++n) CHECK_EQ(world.wait(all, n).error, 0u);
}

TEST(nbd_gate, "more commands than there are places for wait in the socket") {
  World world;
  world.provider.failure = [](const Request&) { return 0; };
  Client& client = world.simple();
  Replies replies(client);
  for (uint64_t n = 0; n < 5000; ++n) client.send(request(CommandType::kCache, n, 0, 512));
  for (uint64_t n = 0; n < 5000; ++n) CHECK_EQ(world.wait(replies, n).error, 0u);
  CHECK_EQ(replies.order.size(), 5000u);
}

TEST(nbd_gate, "a client that takes no replies is dropped when others starve, not before") {
  World world({.slots = 140});
  world.fill_disk();
  Client& stuck = world.structured();
  stuck.stop_receiving();
  stuck.send(request(CommandType::kRead, 0, 0, 32u << 20));
  world.loop.advance(60 * kSecond);
  CHECK_EQ(world.gate.client_count(), 1u);
  CHECK_EQ(world.provider.slots_out(), 128u);

  Client& other = world.structured();
  Replies replies(other);
  world.provider.hold = true;
  replies.reads[1] = {0, 32u << 20};
  other.send(request(CommandType::kRead, 1, 0, 32u << 20));
  world.loop.run_until([&] { return world.provider.waiting() > 0; }, kSecond);
  world.loop.advance(40 * kSecond);
  CHECK_EQ(world.gate.client_count(), 1u);
  world.provider.let_go();
  CHECK_EQ(world.wait(replies, 1, 60 * kSecond).error, 0u);
}

// ---- Loss --------------------------------------------------------------------------------------

TEST(nbd_gate, "a client that vanishes within a payload leaves nothing behind") {
  for (const uint32_t length : {uint32_t{4096}, 3 * kSlot}) {
    for (const uint32_t part : {0u, 1u, 4095u, 2 * kSlot + 17}) {
      if (part >= length) continue;
      World world;
      world.provider.keep_log = true;
      Client& good = world.simple();
      Client& client = world.simple();
      client.send(request(CommandType::kWrite, 1, 0, length));
      client.send(Buffer(part));
      world.loop.run_until_idle();
      CHECK_EQ(world.provider.log.size(), std::size_t{part / kSlot});
      client.vanish();
      world.loop.run_until_idle();
      CHECK_EQ(world.provider.slots_out(), 0u);
      CHECK_EQ(world.provider.log.size(), std::size_t{part / kSlot});
      CHECK_EQ(world.gate.client_count(), 1u);
      Replies replies(good);
      CHECK_EQ(world.ask(good, replies, 1, CommandType::kFlush, 0, 0).error, 0u);
    }
  }
}

TEST(nbd_gate, "answers that come after the client has gone release their slots") {
  for (const bool structured : {false, true}) {
    World world;
    Client& client = structured ? world.structured() : world.simple();
    world.provider.hold = true;
    client.send(request(CommandType::kRead, 1, 0, 32u << 20));
    world.loop.run_until([&] { return world.provider.waiting() > 0; }, kSecond);
    client.vanish();
    world.loop.advance(kSecond);
    CHECK_EQ(world.provider.slots_out(), 128u);
    CHECK_EQ(world.gate.client_count(), 1u);
    world.provider.let_go();
    world.loop.run_until_idle();
    CHECK_EQ(world.provider.slots_out(), 0u);
    CHECK_EQ(world.gate.client_count(), 0u);
  }
}

// ---- End ---------------------------------------------------------------------------------------

TEST(nbd_gate, "after the stop of admission everything new is ESHUTDOWN, what runs is finished") {
  for (const bool structured : {false, true}) {
    World world;
    Client& client = structured ? world.structured() : world.simple();
    Replies replies(client);
    world.provider.hold = true;
    client.send(request(CommandType::kWrite, 1, 0, 4096));
    client.send(pattern(0, 4096));
    client.send(request(CommandType::kWrite, 2, kSlot, 3 * kSlot));
    client.send(pattern(kSlot, 2 * kSlot + 100));
    world.loop.advance(1000);
    CHECK_EQ(world.provider.held(), 3u);
    world.gate.stop_admission();
    client.send(pattern(3 * kSlot + 100, kSlot - 100));
    for (const CommandType type : {CommandType::kRead, CommandType::kFlush, CommandType::kTrim,
                                   CommandType::kCache, CommandType::kWriteZeroes}) {
      const uint64_t cookie = 10 + static_cast<uint64_t>(type);
      CHECK_EQ(world.ask(client, replies, cookie, type, 0, 4096).error, 108u);
    }
    CHECK_EQ(world.write(client, replies, 30, 0, pattern(0, 300000)).error, 108u);
    world.provider.let_go();
    CHECK_EQ(world.wait(replies, 1).error, 0u);
    CHECK_EQ(world.wait(replies, 2).error, 108u);
    CHECK_EQ(world.provider.submitted(), 3u);
    world.close();
    CHECK(world.ends(client));
  }
}

TEST(nbd_gate, "slots that the provider refuses become ESHUTDOWN") {
  for (const bool structured : {false, true}) {
    World world({.slots = 4});
    Client& client = structured ? world.structured() : world.simple();
    Replies replies(client);
    world.provider.hold = true;
    replies.reads[1] = {0, 20 * kSlot};
    client.send(request(CommandType::kRead, 1, 0, 20 * kSlot));
    world.loop.run_until([&] { return world.provider.waiting() > 0; }, kSecond);
    world.provider.refuse();
    world.provider.let_go();
    CHECK_EQ(world.wait(replies, 1).error, 108u);
    CHECK_EQ(world.ask(client, replies, 2, CommandType::kFlush, 0, 0).error, 108u);
  }
}

TEST(nbd_gate, "close ends clients in every state") {
  World world;
  world.connect();
  world.greeted();
  Client& half = world.simple();
  half.send(request(CommandType::kWrite, 1, 0, 4096));
  world.provider.hold = true;
  Client& busy = world.simple();
  busy.send(request(CommandType::kRead, 1, 0, 32u << 20));
  Client& full = world.structured();
  full.stop_receiving();
  full.send(request(CommandType::kRead, 1, 0, 32u << 20));
  world.loop.advance(1000);
  world.close();
  for (const auto& client : world.clients) {
    if (client.get() != &full) CHECK(world.ends(*client));
  }
}

TEST(nbd_gate, "clients are counted and described once they are served") {
  World world;
  world.greeted();
  CHECK_EQ(world.gate.clients().size(), 0u);
  world.simple();
  world.structured();
  CHECK_EQ(world.gate.clients().size(), 2u);
  CHECK(!world.gate.clients()[0].description.empty());
}

// ---- The kernel --------------------------------------------------------------------------------

TEST(nbd_gate, "the kernel's client needs no handshake, and is no client that holds the export") {
  World world;
  Client& kernel = world.kernel();
  Replies replies(kernel);
  const Buffer bytes = pattern(4096, 8192);
  CHECK_EQ(world.write(kernel, replies, 1, 4096, bytes).error, 0u);
  const Reply read = world.ask(kernel, replies, 2, CommandType::kRead, 4096, 8192);
  CHECK(same(read.data, bytes));
  CHECK_EQ(world.gate.client_count(), 0u);
  CHECK(world.gate.clients().empty());
  world.gate.stop_admission();
  CHECK_EQ(world.ask(kernel, replies, 3, CommandType::kFlush, 0, 0).error, 108u);
  world.close();
  CHECK(world.ends(kernel));
}

TEST(nbd_gate, "clients that starve do not cost the kernel its only connection") {
  World world({.slots = 140});
  Client& kernel = world.kernel();
  kernel.stop_receiving();
  kernel.send(request(CommandType::kRead, 0, 0, 32u << 20));
  world.loop.advance(1000);
  Client& other = world.structured();
  other.send(request(CommandType::kRead, 1, 0, 32u << 20));
  world.provider.hold = true;
  world.loop.advance(60 * kSecond);
  // Dropped, it would have given back its share, and the other one takes no more than that.
  CHECK_EQ(world.provider.slots_out(), 140u);
}

// ---- Garbage -----------------------------------------------------------------------------------

/// A valid session, from the client's flags on.
Buffer valid_session(Random& random) {
  Out out;
  out.u32(3);
  if (random.chance(1, 2)) out.raw(option(Option::kStructuredReply));
  if (random.chance(1, 2)) {
    out.raw(option(Option::kSetMetaContext, meta_data("disk", {nbd::kAllocationContext})));
  }
  if (random.chance(1, 3)) out.raw(option(Option::kList));
  out.raw(random.chance(1, 2) ? option(Option::kGo, info_data("disk", {1, 3}))
                              : option(Option::kExportName, {}));
  const uint64_t count = random.below(12);
  for (uint64_t i = 0; i < count; ++i) {
    const auto type = static_cast<CommandType>(random.below(9));
    if (type == CommandType::kDisconnect) continue;
    const uint64_t blocks = random.chance(1, 4) ? random.below(2000) : random.below(16);
    const uint64_t length = type == CommandType::kFlush ? 0 : blocks * 512;
    const uint64_t offset = type == CommandType::kFlush ? 0 : random.below(100000) * 512;
    const auto flags = static_cast<uint16_t>(random.chance(1, 4) ? random.below(32) : 0);
    out.raw(request(type, i, offset, static_cast<uint32_t>(length), flags));
    if (type == CommandType::kWrite) out.raw(Buffer(length));
  }
  return out.bytes;
}

void mutate(Buffer& bytes, Random& random) {
  const uint64_t changes = random.below(4);
  for (uint64_t i = 0; i < changes; ++i) {
    const std::size_t at = random.below(random.chance(1, 2) ? 120 : bytes.size());
    if (at < bytes.size()) bytes[at] = static_cast<std::byte>(random.next());
  }
  if (random.chance(1, 3)) bytes.resize(random.below(bytes.size()));
  if (random.chance(1, 8))
    bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(random.below(bytes.size() + 1)),
                bytes.end());
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kSeeds = 100;
#else
constexpr uint64_t kSeeds = 300;
#endif

TEST(nbd_gate, "mutated sessions never hurt a neighbour, and every slot comes back") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Random random(seed);
    World world({.slots = static_cast<uint32_t>(random.between(2, 40)),
                 .slots_per_client = 20,
                 .delay_max_us = random.below(2000),
                 .seed = seed},
                seed);
    world.network.options.partial = random.chance(1, 2);
    if (random.chance(1, 3)) {
      world.provider.failure = [](const Request& r) { return r.offset % 3072 == 0 ? EIO : 0; };
    }
    Client& good = world.simple();
    Replies replies(good);
    for (int i = 0; i < 4; ++i) {
      Buffer session = valid_session(random);
      mutate(session, random);
      Client& client = world.connect();
      if (random.chance(1, 4)) client.stop_receiving();
      client.send(session);
      if (random.chance(1, 3)) {
        world.loop.advance(random.below(3000));
        client.vanish();
      }
    }
    const Buffer data = pattern(0, 2 * kSlot, seed);
    good.send(request(CommandType::kWrite, 1, 512, static_cast<uint32_t>(data.size())));
    good.send(data);
    // A neighbour that takes no replies may hold every slot, but not for long.
    const uint32_t error = world.wait(replies, 1, 60 * kSecond).error;
    CHECK(error == 0 || error == 5);
    CHECK_EQ(world.ask(good, replies, 2, CommandType::kFlush, 0, 0).error,
             world.provider.failure ? 5u : 0u);
    world.close();
    CHECK_EQ(world.provider.slots_out(), 0u);
  }
  CHECK_EQ(task_frames_alive(), 0u);
}

TEST(nbd_gate, "a session cut at every byte leaves nothing behind") {
  const Buffer session = Out()
                             .u32(3)
                             .raw(option(Option::kStructuredReply))
                             .raw(option(Option::kGo, info_data("disk", {3})))
                             .raw(request(CommandType::kRead, 1, 0, 4096))
                             .raw(request(CommandType::kWrite, 2, 0, 512))
                             .raw(Buffer(512))
                             .raw(request(CommandType::kTrim, 3, 0, 512, nbd::kFua))
                             .bytes;
  World world({.delay_max_us = 50});
  Client& good = world.simple();
  Replies replies(good);
  for (std::size_t size = 0; size <= session.size(); ++size) {
    Client& client = world.connect();
    client.send(Buffer(session.begin(), session.begin() + static_cast<std::ptrdiff_t>(size)));
    world.loop.advance(100);
    client.vanish();
    world.loop.advance(1000);
    CHECK_EQ(world.provider.slots_out(), 0u);
    CHECK_EQ(world.gate.client_count(), 1u);
  }
  CHECK_EQ(world.ask(good, replies, 1, CommandType::kFlush, 0, 0).error, 0u);
}

}  // namespace hast::test
