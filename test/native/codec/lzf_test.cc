// The LZF encoder and decoder against each other, against a decoder that goes byte by byte, and
// against liblzf where it is installed.

#include "codec/lzf.h"

#include <algorithm>
#include <functional>
#include <random>

#include "harness.h"
#include "lzf_samples.h"
#include "vectors.h"
#ifdef HAST_HAVE_LZF
#include <liblzf/lzf.h>
#endif

using namespace hast;
using namespace hast::test;

namespace {

/// What the longest stream of so many bytes takes.
size_t worst_case(size_t size) { return size + (size + 31) / 32; }

ByteVector encoded(ConstBytes data) {
  LzfTables tables;
  ByteVector stream(worst_case(data.size()));
  stream.resize(lzf_encode(tables, data, stream));
  return stream;
}

/// The format, word by word; nothing when the stream breaks it or does not fit.
std::optional<ByteVector> decoded_plainly(ConstBytes stream, size_t room) {
  ByteVector out;
  const auto at = [&stream](size_t i) { return static_cast<size_t>(stream[i]); };
  for (size_t i = 0; i < stream.size();) {
    const size_t control = at(i++);
    if (control < 0x20) {
      if (stream.size() - i < control + 1) return std::nullopt;
      for (size_t k = 0; k <= control; ++k) out.push_back(stream[i++]);
    } else {
      size_t length = (control >> 5) + 2;
      if (length == 9 && i < stream.size()) length += at(i++);
      if (i == stream.size()) return std::nullopt;
      const size_t distance = ((control & 0x1f) << 8 | at(i++)) + 1;
      if (distance > out.size()) return std::nullopt;
      for (size_t k = 0; k < length; ++k) out.push_back(out[out.size() - distance]);
    }
    if (out.size() > room) return std::nullopt;
  }
  return out;
}

void check_against_plain(ConstBytes stream, size_t room) {
  const std::optional<ByteVector> expected = decoded_plainly(stream, room);
  ByteVector out(room);
  const Result<size_t> produced = lzf_decode(stream, out);
  REQUIRE(produced.has_value() == expected.has_value());
  if (!expected) return;
  REQUIRE(*produced == expected->size());
  CHECK(std::ranges::equal(ConstBytes(out).first(*produced), *expected));
}

/// Bytes that do not compress, as literal runs.
ByteVector literals(std::mt19937_64& random, size_t count) {
  ByteVector stream;
  while (count > 0) {
    const size_t run = std::min<size_t>(count, 1 + random() % 32);
    stream.push_back(static_cast<std::byte>(run - 1));
    for (size_t i = 0; i < run; ++i) stream.push_back(static_cast<std::byte>(random()));
    count -= run;
  }
  return stream;
}

void add_reference(ByteVector& stream, size_t distance, size_t length) {
  const size_t back = distance - 1;
  const size_t code = std::min<size_t>(length - 2, 7);
  stream.push_back(static_cast<std::byte>(code << 5 | back >> 8));
  if (code == 7) stream.push_back(static_cast<std::byte>(length - 9));
  stream.push_back(static_cast<std::byte>(back));
}

/// Every size where something changes, and some others up to the largest request.
void for_each_sample(uint64_t seed, const std::function<void(const ByteVector&)>& body) {
  std::mt19937_64 random(seed);
  std::vector<size_t> sizes = {512, 1023, 1024, 1025, 4096, 8191, 8192, 8193, 65536, 131072};
  for (size_t size = 1; size <= 80; ++size) sizes.push_back(size);
  for (int i = 0; i < 20; ++i) sizes.push_back(1 + random() % (i % 4 == 0 ? 131072 : 5000));
  for (const size_t size : sizes) {
    for (unsigned kind = 0; kind < kSampleKinds; ++kind) body(lzf_sample(kind, random(), size));
  }
}

}  // namespace

TEST(lzf, "raw streams decode or fail as the original's decoder says") {
  const Json file = load_vectors("lzf-decode");
  CHECK(file["cases"].size() >= 12);
  for (const Json& c : file["cases"]) {
    const ByteVector stream = unhex(c["stream_hex"].text());
    ByteVector out(c["output_limit"].number());
    const Result<size_t> result = lzf_decode(stream, out);
    CHECK_EQ(result.has_value(), c["result_length"].number() != 0);
    if (!result) continue;
    CHECK_EQ(*result, c["result_length"].number());
    CHECK_EQ(hex(ConstBytes(out).first(*result)), c["output_hex"].text());
  }
  CHECK(!lzf_decode({}, {}).has_value());
}

TEST(lzf, "what was encoded decodes to the same, whatever it is and however long") {
  for_each_sample(1, [](const ByteVector& data) {
    const ByteVector stream = encoded(data);
    CHECK(!stream.empty() && stream.size() <= worst_case(data.size()));
    ByteVector out(data.size(), std::byte{0x77});
    const Result<size_t> produced = lzf_decode(stream, out);
    REQUIRE(produced.has_value());
    CHECK(*produced == data.size() && out == data);
    // In a larger buffer other ways are taken; in one that is a byte too small, none.
    ByteVector larger(data.size() + 400);
    const Result<size_t> again = lzf_decode(stream, larger);
    REQUIRE(again.has_value());
    CHECK(std::ranges::equal(ConstBytes(larger).first(*again), data));
    CHECK(!lzf_decode(stream, Bytes(out).first(out.size() - 1)).has_value());
    CHECK(decoded_plainly(stream, data.size()) == data);
  });
}

TEST(lzf, "a stream fits into exactly its length, and into one byte less it does not") {
  for_each_sample(2, [](const ByteVector& data) {
    LzfTables tables;
    const ByteVector stream = encoded(data);
    ByteVector exact(stream.size());
    CHECK_EQ(lzf_encode(tables, data, exact), stream.size());
    CHECK(exact == stream);
    ByteVector less(stream.size() - 1);
    CHECK_EQ(lzf_encode(tables, data, less), 0u);
    ByteVector half(stream.size() / 2);
    CHECK_EQ(lzf_encode(tables, data, half), 0u);
  });
}

TEST(lzf, "bytes that do not compress grow by one in 32, and one value shrinks to its references") {
  for (const size_t size : {1u, 31u, 32u, 33u, 4096u, 131072u}) {
    std::mt19937_64 random(size);
    ByteVector noise(size);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    CHECK(encoded(noise).size() + size / 1000 >= worst_case(size));
  }
  CHECK_EQ(encoded(ByteVector(131072, std::byte{7})).size(), 2 + 3 * ((131071 + 263) / 264u));
  CHECK(encoded({}).empty());
}

TEST(lzf, "what an encoder did before does not show in a stream") {
  LzfTables used;
  used.fours.fill(0xabcd);
  used.threes.fill(0x1234);
  for (unsigned kind = 0; kind < kSampleKinds; ++kind) {
    const ByteVector data = lzf_sample(kind, 9, 70000);
    ByteVector stream(worst_case(data.size()));
    stream.resize(lzf_encode(used, data, stream));
    CHECK(stream == encoded(data));
  }
}

TEST(lzf, "every distance with every length is copied as byte by byte, far from the end and near") {
  std::mt19937_64 random(4);
  std::vector<size_t> distances = {255, 256, 257, 4095, 8191, 8192};
  for (size_t distance = 1; distance <= 40; ++distance) distances.push_back(distance);
  for (const size_t distance : distances) {
    const ByteVector before = literals(random, distance + random() % 3);
    for (size_t length = 3; length <= 264; ++length) {
      ByteVector stream = before;
      add_reference(stream, distance, length);
      const size_t room = decoded_plainly(stream, SIZE_MAX)->size();
      check_against_plain(stream, room);
      check_against_plain(stream, room - 1);
      const ByteVector after = literals(random, 300);
      stream.insert(stream.end(), after.begin(), after.end());
      check_against_plain(stream, room + 300);
    }
  }
}

TEST(lzf, "any bytes as a stream decode as byte by byte, or are refused") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20000; ++round) {
    ByteVector stream(1 + random() % (round % 8 == 0 ? 2000 : 60));
    const uint64_t low = random() % 40 + 1;
    for (std::byte& byte : stream) {
      byte = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % low);
    }
    check_against_plain(stream, random() % 600);
    check_against_plain(stream, 20000);
  }
}

TEST(lzf, "a damaged stream never leaves its buffers and decodes as byte by byte") {
  std::mt19937_64 random(6);
  for (int round = 0; round < 3000; ++round) {
    const ByteVector data =
        lzf_sample(static_cast<unsigned>(random() % kSampleKinds), random(), 1 + random() % 3000);
    ByteVector stream = encoded(data);
    stream[random() % stream.size()] ^= static_cast<std::byte>(1 + random() % 255);
    check_against_plain(stream, data.size());
    check_against_plain(ConstBytes(stream).first(random() % stream.size() + 1), data.size());
  }
}

TEST(lzf, "liblzf decodes what we encode, we what it encodes, and both refuse the same") {
#ifdef HAST_HAVE_LZF
  std::mt19937_64 random(7);
  for_each_sample(3, [&random](const ByteVector& data) {
    const unsigned size = static_cast<unsigned>(data.size());
    const ByteVector ours = encoded(data);
    ByteVector out(data.size());
    CHECK_EQ(lzf_decompress(ours.data(), static_cast<unsigned>(ours.size()), out.data(), size),
             size);
    CHECK(out == data);
    ByteVector theirs(2 * data.size() + 16);
    const unsigned length =
        lzf_compress(data.data(), size, theirs.data(), static_cast<unsigned>(theirs.size()));
    if (length == 0) return;
    theirs.resize(length);
    std::ranges::fill(out, std::byte{0x77});
    const Result<size_t> produced = lzf_decode(theirs, out);
    REQUIRE(produced.has_value());
    CHECK(*produced == data.size() && out == data);
    // Damaged: the same verdict, and the same bytes when it is yes.
    theirs[random() % length] ^= static_cast<std::byte>(1 + random() % 255);
    ByteVector other(data.size());
    const Result<size_t> mine = lzf_decode(theirs, out);
    const unsigned verdict = lzf_decompress(theirs.data(), length, other.data(), size);
    REQUIRE(mine.has_value() == (verdict != 0));
    if (!mine) return;
    CHECK_EQ(*mine, size_t{verdict});
    CHECK(std::equal(out.begin(), out.begin() + verdict, other.begin()));
  });
#else
  SKIP("liblzf is not installed");
#endif
}
