#include <algorithm>

#include "codec/checksum.h"
#include "codec/compression.h"
#include "harness.h"
#include "vectors.h"

using namespace hast;
using namespace hast::test;

namespace {

Compression by_name(const Json& name) {
  return name.is_null() ? Compression::kNone : compression_from_name(name.text());
}

ByteVector input_of(const Json& c) {
  std::string rule;
  if (c.contains("input_rule_name")) {
    rule = c["input_rule_name"];
  } else {
    const std::string description = c["description"];  // "... bytes of RULE"
    rule = description.substr(description.rfind(' ') + 1);
  }
  const size_t length = c["input_length"].number();
  if (rule != "sparse") return content(rule, length);
  // "all 00 except every 97th byte": the value is in the rule's text; the checksum tells.
  ByteVector bytes(length);
  for (size_t i = 0; i < length; i += 97) bytes[i] = static_cast<std::byte>(i / 97 + 1);
  return bytes;
}

}  // namespace

TEST(checksum, "crc32 and sha256 are the original's, with their names and lengths") {
  const Json file = load_vectors("checksum");
  CHECK(file["cases"].size() >= 20);
  for (const Json& c : file["cases"]) {
    const ByteVector input = input_of(c);
    const Checksum kind = checksum_from_name(c["checksum_field"].text());
    std::array<std::byte, kHashBytesMax> hash{};
    const size_t size = checksum_compute(kind, input, hash);
    CHECK_EQ(hex(ConstBytes(hash).first(size)), c["hash_hex"].text());
    CHECK(checksum_matches(kind, input, ConstBytes(hash).first(size)));
    CHECK(!checksum_matches(kind, input, ConstBytes(hash).first(size - 1)));
    hash[0] ^= std::byte{1};
    CHECK(!checksum_matches(kind, input, ConstBytes(hash).first(size)));
  }
}

TEST(checksum, "an unknown checksum never matches and none always does") {
  CHECK(checksum_from_name("md5") == Checksum::kUnknown);
  CHECK(!checksum_matches(Checksum::kUnknown, {}, {}));
  CHECK(checksum_matches(Checksum::kNone, {}, {}));
}

TEST(compression, "what the original compressed decodes to its input") {
  const Json file = load_vectors("compression");
  unsigned decoded = 0;
  for (const Json& c : file["cases"]) {
    const Compression kind = by_name(c["compression_field"]);
    if (kind == Compression::kNone || c["output_hex"].is_null()) continue;
    const ByteVector payload = unhex(c["output_hex"].text());
    if (payload.size() != c["output_length"].number()) continue;  // shortened in the file
    ByteVector out(c["input_length"].number(), std::byte{0x77});
    const Result<void> result = decompress(kind, payload, out);
    CHECK(result.has_value());
    char crc[9];
    std::snprintf(crc, sizeof crc, "%08x", crc32_of(out));
    CHECK_EQ(std::string(crc), c["input_crc32"].text());
    decoded++;
    // One byte more or less than announced is an error, not a short result.
    ByteVector longer(out.size() + 1);
    CHECK(!decompress(kind, payload, longer).has_value());
    CHECK(!decompress(kind, payload, Bytes(out).first(out.size() - 1)).has_value());
  }
  CHECK(decoded >= 10);
}

TEST(compression, "what the original compresses so do we, and where it declines so do we") {
  const Json file = load_vectors("compression");
  LzfTables tables;
  for (const Json& c : file["cases"]) {
    const std::string description = c["description"];
    const Compression configured =
        description.find("compression=lzf") != std::string::npos    ? Compression::kLzf
        : description.find("compression=hole") != std::string::npos ? Compression::kHole
                                                                    : Compression::kNone;
    const ByteVector input = input_of(c);
    ByteVector room(std::max(input.size(), kHoleBytes));
    const Compressed sent = compress(configured, input, room, tables);
    CHECK(sent.compression == by_name(c["compression_field"]));
    if (sent.compression == Compression::kNone) {
      CHECK(sent.payload.data() == input.data() && sent.payload.size() == input.size());
      continue;
    }
    if (sent.compression == Compression::kHole) {
      CHECK_EQ(hex(sent.payload), c["output_hex"].text());
    }
    ByteVector back(input.size(), std::byte{0x77});
    CHECK(decompress(sent.compression, sent.payload, back).has_value());
    CHECK(back == input);
  }
}

TEST(compression, "lzf is sent for more than 1024 bytes, and when it saves 1020 of them") {
  LzfTables tables;
  ByteVector room(8192);
  // Bytes that do not compress, then one value: by its length the gain is chosen.
  for (size_t same = 0; same < 3000; same += 7) {
    ByteVector data = content("lcg", 1000);
    data.resize(1000 + same, std::byte{0x55});
    const Compressed sent = compress(Compression::kLzf, data, room, tables);
    if (sent.compression == Compression::kNone) {
      CHECK(same < 1200);
      continue;
    }
    CHECK(sent.compression == Compression::kLzf && same > 1024);
    CHECK(sent.payload.size() <= data.size() - 1020);
    CHECK_EQ(load_le<uint32_t>(sent.payload.data()), data.size());
  }
  const ByteVector block(4096, std::byte{0x55});
  for (size_t size = 1; size <= 1024; ++size) {
    const ConstBytes data = ConstBytes(block).first(size);
    CHECK(compress(Compression::kLzf, data, room, tables).compression == Compression::kNone);
  }
}

TEST(compression, "room that is too small for lzf is enough for a hole, or for nothing") {
  LzfTables tables;
  const ByteVector data(4096, std::byte{0x55});
  const ByteVector zeros(4096);
  for (size_t size = kHoleBytes; size < 128; ++size) {
    ByteVector room(size);
    CHECK(compress(Compression::kLzf, zeros, room, tables).compression == Compression::kHole);
    const Compressed sent = compress(Compression::kLzf, data, room, tables);
    ByteVector back(data.size());
    CHECK(decompress(sent.compression, sent.payload, back).has_value() && back == data);
    // One literal, then 16 references of three bytes.
    CHECK_EQ(sent.compression == Compression::kLzf, size >= kHoleBytes + 2 + 16 * 3);
  }
}

TEST(compression, "all_zero finds a single set bit at any place") {
  for (const size_t size : {0u, 1u, 7u, 8u, 15u, 16u, 17u, 31u, 512u, 4096u}) {
    ByteVector bytes(size);
    CHECK(all_zero(bytes));
    for (size_t i = 0; i < size; i++) {
      bytes[i] = std::byte{0x80};
      CHECK(!all_zero(bytes));
      bytes[i] = std::byte{0};
    }
  }
}
