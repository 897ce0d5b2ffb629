#include <random>

#include "codec/checksum.h"
#include "codec/compression.h"
#include "vectors.h"

using namespace hast;
using namespace hast::test;

#ifdef HAST_HAVE_LZF
extern "C" {
unsigned lzf_compress(const void* in, unsigned in_size, void* out, unsigned out_size);
unsigned lzf_decompress(const void* in, unsigned in_size, void* out, unsigned out_size);
}
#endif

namespace {

Compression by_name(const Json& name) {
  return name.is_null() ? Compression::kNone : compression_from_name(name.get<std::string>());
}

ByteVector input_of(const Json& c) {
  std::string rule;
  if (c.contains("input_rule_name")) {
    rule = c["input_rule_name"];
  } else {
    const std::string description = c["description"];  // "... bytes of RULE"
    rule = description.substr(description.rfind(' ') + 1);
  }
  const size_t length = number(c["input_length"]);
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
    const Checksum kind = checksum_from_name(c["checksum_field"].get<std::string>());
    std::array<std::byte, kHashBytesMax> hash{};
    const size_t size = checksum_compute(kind, input, hash);
    CHECK_EQ(hex(ConstBytes(hash).first(size)), c["hash_hex"].get<std::string>());
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
    const ByteVector payload = unhex(c["output_hex"].get<std::string>());
    if (payload.size() != number(c["output_length"])) continue;  // shortened in the file
    ByteVector out(number(c["input_length"]), std::byte{0x77});
    const Result<void> result = decompress(kind, payload, out);
    CHECK(result.has_value());
    char crc[9];
    std::snprintf(crc, sizeof crc, "%08x", crc32_of(out));
    CHECK_EQ(std::string(crc), c["input_crc32"].get<std::string>());
    decoded++;
    // One byte more or less than announced is an error, not a short result.
    ByteVector longer(out.size() + 1);
    CHECK(!decompress(kind, payload, longer).has_value());
    CHECK(!decompress(kind, payload, Bytes(out).first(out.size() - 1)).has_value());
  }
  CHECK(decoded >= 10);
}

TEST(compression, "a hole is sent where the original sends one, and where it declines so do we") {
  const Json file = load_vectors("compression");
  for (const Json& c : file["cases"]) {
    const std::string description = c["description"];
    const Compression configured =
        description.find("compression=lzf") != std::string::npos    ? Compression::kLzf
        : description.find("compression=hole") != std::string::npos ? Compression::kHole
                                                                    : Compression::kNone;
    if (c["input_rule_name"] == "sparse") continue;
    const ByteVector input = input_of(c);
    std::array<std::byte, kHoleBytes> hole{};
    const Compression chosen = compress(configured, input, hole);
    const Compression original = by_name(c["compression_field"]);
    // Without an encoder, what the original sends as lzf goes out as it is.
    CHECK(chosen == (original == Compression::kLzf ? Compression::kNone : original));
    if (chosen == Compression::kHole) CHECK_EQ(hex(hole), c["output_hex"].get<std::string>());
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

TEST(compression, "raw lzf streams decode or fail as the original's decoder says") {
  const Json file = load_vectors("lzf-decode");
  CHECK(file["cases"].size() >= 12);
  for (const Json& c : file["cases"]) {
    const ByteVector stream = unhex(c["stream_hex"].get<std::string>());
    ByteVector out(number(c["output_limit"]));
    const Result<size_t> result = lzf_decode(stream, out);
    CHECK_EQ(result.has_value(), number(c["result_length"]) != 0);
    if (!result) continue;
    CHECK_EQ(*result, number(c["result_length"]));
    CHECK_EQ(hex(ConstBytes(out).first(*result)), c["output_hex"].get<std::string>());
  }
  CHECK(!lzf_decode({}, {}).has_value());
}

TEST(compression, "random lzf streams never leave their buffers") {
  std::mt19937_64 random(2);
  for (int round = 0; round < 20000; round++) {
    ByteVector stream(1 + random() % 60);
    for (std::byte& byte : stream) {
      byte = static_cast<std::byte>(random() % 4 == 0 ? random() % 256 : random() % 8);
    }
    ByteVector out(random() % 600);
    const Result<size_t> result = lzf_decode(stream, out);
    if (result) CHECK(*result <= out.size());
  }
}

TEST(compression, "our lzf decoder agrees with liblzf in both directions") {
#ifdef HAST_HAVE_LZF
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; round++) {
    ByteVector input(64 + random() % 4096);
    const uint64_t alphabet = 1 + random() % 6;
    for (std::byte& byte : input) byte = static_cast<std::byte>(random() % alphabet);
    ByteVector packed(input.size() * 2);
    const unsigned size = lzf_compress(input.data(), static_cast<unsigned>(input.size()),
                                       packed.data(), static_cast<unsigned>(packed.size()));
    REQUIRE(size > 0);
    packed.resize(size);
    ByteVector ours(input.size());
    const Result<size_t> good = lzf_decode(packed, ours);
    REQUIRE(good.has_value());
    CHECK(*good == input.size() && ours == input);
    // Damaged streams: the same verdict, and the same bytes when it is yes.
    packed[random() % packed.size()] ^= static_cast<std::byte>(1 + random() % 255);
    ByteVector theirs(input.size());
    const Result<size_t> mine = lzf_decode(packed, ours);
    const unsigned other =
        lzf_decompress(packed.data(), size, theirs.data(), static_cast<unsigned>(theirs.size()));
    REQUIRE(mine.has_value() == (other != 0));
    if (mine)
      CHECK(*mine == other && std::equal(ours.begin(), ours.begin() + other, theirs.begin()));
  }
#else
  SKIP("liblzf is not installed");
#endif
}
