// Every mode with every compression and checksum, in all ways that data take between two nodes.

#include <string_view>

#include "stories.h"

namespace hast::test {

namespace {

constexpr std::size_t kBlock = 131072;

/// Compresses to a third or less, and no two of them are alike.
std::vector<std::byte> text(uint64_t seed, std::size_t size = kBlock) {
  static constexpr std::string_view kWords = "a resource and its peer, in sync again; ";
  const std::vector<std::byte> noise = pattern(seed, size);
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = i % 64 == 0 ? noise[i] : static_cast<std::byte>(kWords[i % kWords.size()]);
  }
  return bytes;
}

/// What a client wrote there, in the order of blocks: text, noise, zeros, and sizes at the edges.
void write_all(Pair& pair, Node& node, uint64_t seed) {
  CHECK_EQ(pair.write(node, 0, text(seed)), 0);
  CHECK_EQ(pair.write(node, kBlock, pattern(seed, kBlock)), 0);
  CHECK_EQ(pair.write(node, 2 * kBlock, std::vector<std::byte>(kBlock)), 0);
  uint64_t at = 3 * kBlock;
  for (const std::size_t size : {512u, 1024u, 1536u, 4096u, 65536u}) {
    CHECK_EQ(pair.write(node, at, text(seed + size, size)), 0);
    at += kBlock;
  }
}

void must_hold(Pair& pair, Node& node, uint64_t seed) {
  CHECK(read_back(pair, node, 0, kBlock) == text(seed));
  CHECK(read_back(pair, node, kBlock, kBlock) == pattern(seed, kBlock));
  CHECK(read_back(pair, node, 2 * kBlock, kBlock) == std::vector<std::byte>(kBlock));
  uint64_t at = 3 * kBlock;
  for (const std::size_t size : {512u, 1024u, 1536u, 4096u, 65536u}) {
    CHECK(read_back(pair, node, at, size) == text(seed + size, size));
    at += kBlock;
  }
}

void replicate_and_resynchronise(const PairOptions& options) {
  Pair pair(options);
  pair.connect();
  write_all(pair, pair.a(), 1);
  CHECK_EQ(pair.flush(pair.a()), 0);
  CHECK(pair.equal());
  part(pair);
  write_all(pair, pair.a(), 2);
  CHECK(!pair.equal());
  pair.mend();
  CHECK(pair.settle(pair.a()));
  CHECK(pair.equal());
  // The other way round: a stale node leads, reads from its peer, and is given what it lacks.
  part(pair);
  write_all(pair, pair.a(), 3);
  pair.a().become_secondary();
  pair.mend();
  pair.b().become_primary();
  CHECK(pair.run_until_serving(pair.b()));
  must_hold(pair, pair.b(), 3);
  CHECK(pair.settle(pair.b()));
  CHECK(pair.equal());
  must_hold(pair, pair.b(), 3);
}

/// Bytes on the network while `body` runs.
template <typename Body>
uint64_t carried(Pair& pair, Body body) {
  const uint64_t before = pair.network.carried_bytes;
  body();
  return pair.network.carried_bytes - before;
}

PairOptions with(Compression compression) {
  PairOptions options;
  options.compression = compression;
  return options;
}

}  // namespace

TEST(codecs, "every mode with every compression and checksum replicates and resynchronises") {
  for (const Replication mode :
       {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    for (const Compression c : {Compression::kNone, Compression::kHole, Compression::kLzf}) {
      for (const Checksum k : {Checksum::kNone, Checksum::kCrc32, Checksum::kSha256}) {
        PairOptions options;
        options.replication = mode;
        options.compression = c;
        options.checksum = k;
        replicate_and_resynchronise(options);
      }
    }
  }
}

TEST(codecs, "with lzf a plain peer of version 2 or 1 gets and gives what it should") {
  for (const uint8_t version : {uint8_t{2}, uint8_t{1}}) {
    PairOptions options = with(Compression::kLzf);
    options.original_peer = true;
    options.version = version;
    replicate_and_resynchronise(options);
  }
}

TEST(codecs, "lzf shortens writes, passes and what is read from the peer") {
  uint64_t bytes[2][3] = {};
  for (const bool lzf : {false, true}) {
    Pair pair(with(lzf ? Compression::kLzf : Compression::kHole));
    pair.connect();
    uint64_t* const ways = bytes[lzf ? 1 : 0];
    const auto write_text = [&pair](uint64_t seed) {
      for (uint64_t i = 0; i < 8; ++i) {
        CHECK_EQ(pair.write(pair.a(), i * kBlock, text(seed + i)), 0);
      }
    };
    ways[0] = carried(pair, [&] { write_text(10); });
    part(pair);
    write_text(20);
    pair.mend();
    ways[1] = carried(pair, [&] { CHECK(pair.settle(pair.a())); });
    // Without a local disk every read goes to the peer.
    give_up(pair);
    ways[2] = carried(pair, [&] {
      for (uint64_t i = 1; i < 8; ++i) {
        CHECK(read_back(pair, pair.a(), i * kBlock, kBlock) == text(20 + i));
      }
    });
  }
  for (const int way : {0, 1, 2}) {
    CHECK(bytes[0][way] > 7 * kBlock);
    CHECK(bytes[1][way] < bytes[0][way] / 3);
  }
}

TEST(codecs, "compression changes with a reload, in the middle of a connection") {
  Pair pair(with(Compression::kNone));
  pair.connect();
  PrimarySettings settings;
  uint64_t last = UINT64_MAX;
  for (const Compression c : {Compression::kHole, Compression::kLzf}) {
    settings.compression = c;
    pair.a().primary()->reconfigure(settings);
    const uint64_t bytes = carried(pair, [&] { CHECK_EQ(pair.write(pair.a(), 0, text(30)), 0); });
    CHECK(bytes < last);
    last = bytes;
  }
  CHECK(last < kBlock / 3);
  CHECK(pair.equal());
}

}  // namespace hast::test
