// Reads test/vectors/*.json: bytes of the original, as hex in JSON. For tests only.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "codec/nv.h"

namespace hast::test {

using ByteVector = std::vector<std::byte>;

/// A value of the vectors. One that is not as a test expects it throws, which ends the test. The
/// library that reads JSON stays in vectors.cc: every file that sees it compiles for seconds more.
class Json {
 public:
  enum class Kind { kNull, kNumber, kString, kArray, kObject };

  Json() = default;
  explicit Json(int64_t number) : kind_(Kind::kNumber), number_(number) {}
  explicit Json(std::string text) : kind_(Kind::kString), text_(std::move(text)) {}
  explicit Json(std::vector<Json> items) : kind_(Kind::kArray), items_(std::move(items)) {}
  Json(std::vector<std::string> names, std::vector<Json> items)
      : kind_(Kind::kObject), names_(std::move(names)), items_(std::move(items)) {}

  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_string() const { return kind_ == Kind::kString; }

  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const Json& operator[](std::string_view name) const;

  /// Of an array, or the values of an object.
  const Json& operator[](size_t index) const { return items_.at(index); }
  size_t size() const { return items_.size(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  const std::string& text() const;
  operator const std::string&() const { return text(); }
  bool operator==(std::string_view text) const { return is_string() && text_ == text; }

  /// 64-bit numbers are decimal strings in the vectors, smaller ones numbers.
  int64_t signed_number() const;
  uint64_t number() const;

 private:
  const Json* find(std::string_view name) const;

  Kind kind_ = Kind::kNull;
  int64_t number_ = 0;
  std::string text_;
  std::vector<std::string> names_;  // of the items of an object
  std::vector<Json> items_;
};

/// One file of vectors; HAST_VECTORS may name another folder.
Json load_vectors(const std::string& name);

ByteVector unhex(std::string_view text);
std::string hex(ConstBytes bytes);

/// Content by the rules of the vectors' `input_rule_name`.
ByteVector content(const std::string& rule, size_t length);

/// The data bytes of one field of the vectors, as they stand in an entry.
ByteVector field_data(const Json& field, NvType& type);

/// Encodes the fields in their order.
ByteVector encode_fields(const Json& fields);

/// Does the area hold exactly these fields, in this order?
bool holds_fields(ConstBytes area, const Json& fields);

}  // namespace hast::test
