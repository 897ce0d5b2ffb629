#include "vectors.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "harness.h"

namespace hast::test {
namespace {

/// True and false are numbers, too.
Json converted(const nlohmann::json& value) {
  if (value.is_string()) return Json(value.get<std::string>());
  if (value.is_boolean()) return Json(int64_t{value.get<bool>()});
  if (value.is_number()) return Json(value.get<int64_t>());
  std::vector<Json> items;
  for (const nlohmann::json& item : value) items.push_back(converted(item));
  if (!value.is_object()) return value.is_array() ? Json(std::move(items)) : Json();
  std::vector<std::string> names;
  for (const auto& member : value.items()) names.push_back(member.key());
  return Json(std::move(names), std::move(items));
}

}  // namespace

const Json* Json::find(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  return found == names_.end() ? nullptr : &items_[static_cast<size_t>(found - names_.begin())];
}

const Json& Json::operator[](std::string_view name) const {
  const Json* found = find(name);
  if (found == nullptr)
    throw std::out_of_range("the vectors have no " + std::string(name) + " there");
  return *found;
}

const std::string& Json::text() const {
  if (!is_string()) throw std::domain_error("no text in the vectors where one is expected");
  return text_;
}

int64_t Json::signed_number() const {
  if (is_string()) return std::stoll(text_);
  if (kind_ != Kind::kNumber) throw std::domain_error("no number in the vectors");
  return number_;
}

uint64_t Json::number() const {
  return is_string() ? std::stoull(text_) : static_cast<uint64_t>(signed_number());
}

Json load_vectors(const std::string& name) {
  const char* folder = std::getenv("HAST_VECTORS");
  const std::string path =
      (folder != nullptr ? std::string(folder) : std::string(HAST_TEST_DIR "/vectors")) + "/" +
      name + ".json";
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  return converted(nlohmann::json::parse(file));
}

ByteVector unhex(std::string_view text) {
  const auto digit = [](char c) {
    return static_cast<unsigned>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  };
  ByteVector bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(digit(text[i]) << 4 | digit(text[i + 1])));
  }
  return bytes;
}

std::string hex(ConstBytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[static_cast<unsigned>(byte) >> 4];
    text += kDigits[static_cast<unsigned>(byte) & 15];
  }
  return text;
}

ByteVector content(const std::string& rule, size_t length) {
  static constexpr std::string_view kText = "The quick brown fox jumps over the lazy dog. ";
  ByteVector bytes(length);
  uint32_t x = 0x12345678;
  const auto lcg = [&x] {
    x = x * 1664525u + 1013904223u;
    return x >> 24;
  };
  for (size_t i = 0; i < length; i++) {
    unsigned value = 0;
    if (rule == "text") value = static_cast<unsigned char>(kText[i % kText.size()]);
    if (rule == "inc") value = static_cast<unsigned>(i % 256);
    if (rule == "lcg") value = lcg();
    if (rule == "aa") value = 0xaa;
    if (rule == "mixed" && i < length / 2) value = lcg();
    if (rule == "lastbyte") value = i + 1 == length ? 1 : 0;
    if (rule == "ascii") value = static_cast<unsigned>("123456789"[i % 9]);
    bytes[i] = static_cast<std::byte>(value);
  }
  return bytes;
}

ByteVector field_data(const Json& field, NvType& type) {
  const std::string name = field["type"];
  const Json& value = field["value"];
  ByteVector data;
  if (name == "string") {
    type = NvType::kString;
    for (const char c : value.text()) data.push_back(static_cast<std::byte>(c));
    data.push_back(std::byte{0});
    return data;
  }
  const bool is_array = name.ends_with("_array");
  const bool is_unsigned = name[0] == 'u';
  const unsigned bits = static_cast<unsigned>(std::stoul(name.substr(is_unsigned ? 4 : 3)));
  const unsigned width = bits == 8 ? 0 : bits == 16 ? 2 : bits == 32 ? 4 : 6;
  type = static_cast<NvType>((is_array ? 9 : 1) + width + (is_unsigned ? 1 : 0));
  if (is_array && value.is_string()) return unhex(value.text());
  const Json values = is_array ? value : Json(std::vector<Json>{value});
  for (const Json& one : values) {
    const uint64_t raw = is_unsigned ? one.number() : static_cast<uint64_t>(one.signed_number());
    for (unsigned i = 0; i < bits / 8; i++) data.push_back(static_cast<std::byte>(raw >> (8 * i)));
  }
  return data;
}

ByteVector encode_fields(const Json& fields) {
  ByteVector area(65536);
  NvWriter nv(area);
  for (const Json& field : fields) {
    NvEntry entry;
    const std::string name = field["name"];
    const ByteVector data = field_data(field, entry.type);
    entry.name = name;
    entry.data = data;
    nv.entry(entry);
  }
  CHECK(!nv.overflowed());
  area.resize(nv.size());
  return area;
}

bool holds_fields(ConstBytes area, const Json& fields) {
  NvCursor cursor(area);
  NvEntry entry;
  for (const Json& field : fields) {
    if (cursor.next(entry) != NvCursor::Step::kEntry) return false;
    NvType type{};
    const ByteVector data = field_data(field, type);
    if (entry.type != type || entry.name != field["name"].text()) return false;
    if (hex(entry.data) != hex(data)) return false;
  }
  return cursor.next(entry) == NvCursor::Step::kEnd;
}

}  // namespace hast::test
