#include "codec/nv.h"

#include <random>

#include "harness.h"
#include "vectors.h"

using namespace hast;
using namespace hast::test;

namespace {

/// "name(type): value" of every entry, as nv-validate.json writes them; empty when invalid.
std::vector<std::string> names_of(ConstBytes area) {
  std::vector<std::string> names;
  NvCursor cursor(area);
  NvEntry entry;
  while (cursor.next(entry) == NvCursor::Step::kEntry) names.emplace_back(entry.name);
  return names;
}

}  // namespace

TEST(nv, "every recorded area decodes to its fields and is encoded again byte by byte") {
  const Json file = load_vectors("nv");
  CHECK(file["cases"].size() >= 20);
  for (const Json& c : file["cases"]) {
    const ByteVector area = unhex(c["nv_hex"].text());
    CHECK(NvReader::open(area).has_value());
    CHECK(holds_fields(area, c["expected"]));
    CHECK_EQ(hex(encode_fields(c["expected"])), c["nv_hex"].text());
  }
}

TEST(nv, "areas are accepted or rejected as required, where the original differs too") {
  const Json file = load_vectors("nv-validate");
  CHECK(file["cases"].size() >= 34);
  for (const Json& c : file["cases"]) {
    const ByteVector area = unhex(c["nv_hex"].text());
    const bool required = c["required"] == "accept";
    const Result<NvReader> nv = NvReader::open(area);
    if (nv.has_value() != required) fail(__FILE__, __LINE__, c["description"]);
    if (!nv) {
      CHECK(nv.error().code == Code::NV_INVALID);
      continue;
    }
    if (!c.contains("reference_decoded") || c["reference_decoded"].is_null()) continue;
    const std::vector<std::string> names = names_of(area);
    REQUIRE(names.size() == c["reference_decoded"].size());
    for (size_t i = 0; i < names.size(); i++) {
      CHECK(c["reference_decoded"][i].text().starts_with(names[i] + "("));
    }
  }
}

TEST(nv, "the first entry of a name counts, and nothing is converted") {
  std::array<std::byte, 256> room;
  NvWriter writer(room);
  writer.number<uint8_t>("cmd", 5);
  writer.number<uint8_t>("cmd", 4);
  writer.string("mode", "text");
  writer.number<uint64_t>("mode", 7);
  REQUIRE(!writer.overflowed());
  const Result<NvReader> nv = NvReader::open(Bytes(room).first(writer.size()));
  REQUIRE(nv.has_value());
  CHECK_EQ(nv->number<uint8_t>("cmd").value_or(0), 5);
  CHECK(!nv->number<int8_t>("cmd"));
  CHECK(!nv->number<uint64_t>("mode"));
  CHECK(nv->string("mode") == "text");
  CHECK(nv->has("mode") && !nv->has("mod") && !nv->has("modes"));
  CHECK_EQ(nv->used_bytes(), writer.size());
}

TEST(nv, "a short name's fast entry has the same bytes as the plain one") {
  std::array<std::byte, 128> plain, fast;
  plain.fill(std::byte{0xee});
  fast.fill(std::byte{0xee});
  NvWriter a(plain);
  NvWriter b(fast);
  a.number<int16_t>("error", -5);
  b.scalar<int16_t>("error", -5);
  a.number<uint64_t>("x", 1ull << 63);
  b.scalar<uint64_t>("x", 1ull << 63);
  a.number<uint8_t>("memsync", 200);
  b.scalar<uint8_t>("memsync", 200);
  CHECK_EQ(hex(Bytes(plain).first(a.size())), hex(Bytes(fast).first(b.size())));
}

TEST(nv, "what does not fit is not written, and nothing after it") {
  std::array<std::byte, 40> room;
  room.fill(std::byte{0x55});
  NvWriter nv(room);
  nv.number<uint8_t>("a", 1);  // 22 bytes
  nv.string("b", "longer than what is left");
  CHECK(nv.overflowed());
  CHECK_EQ(nv.size(), 22u);
  nv.scalar<uint8_t>("c", 1);
  CHECK_EQ(nv.size(), 22u);
  for (size_t i = 22; i < room.size(); i++) CHECK_EQ(room[i], std::byte{0x55});
}

TEST(nv, "random and mutated bytes never crash and always give the same verdict") {
  std::mt19937_64 random(1);
  const Json file = load_vectors("nv");
  std::vector<ByteVector> seeds;
  for (const Json& c : file["cases"]) seeds.push_back(unhex(c["nv_hex"].text()));
  REQUIRE(!seeds.empty());
  for (int round = 0; round < 40000; round++) {
    ByteVector area;
    if (random() % 3 == 0) {
      area.resize(random() % 80);
      for (std::byte& byte : area)
        byte = static_cast<std::byte>(random() % (random() % 2 ? 256 : 20));
    } else {
      area = seeds[random() % seeds.size()];
      for (uint64_t i = random() % 4; i > 0; i--) {
        area[random() % area.size()] = static_cast<std::byte>(random());
      }
      area.resize(random() % (area.size() + 1));
    }
    // An exact copy on the heap, so that the sanitizer sees a byte too many.
    const ByteVector exact(area.begin(), area.end());
    const Result<NvReader> nv = NvReader::open(exact);
    const std::vector<std::string> names = names_of(exact);
    if (!nv) continue;
    for (const std::string& name : names) {
      CHECK(!name.empty());
      CHECK(nv->has(name));
      const std::optional<NvEntry> entry = nv->find(name);
      REQUIRE(entry.has_value());
      CHECK(!entry->data.empty());
      entry->name_key();
      nv->number<uint64_t>(name);
      nv->string(name);
      nv->bytes(name);
    }
  }
}
