#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include "base/bytes.h"
#include "base/result.h"

/// Name-value lists: the encoding of every message between nodes and of the metadata block.
///
/// An entry is: type (1 byte), n = length of the name with its NUL (1 byte), d = length of the data
/// (4 bytes), the name padded with zeros to a multiple of 8, the data likewise. All numbers are
/// little endian. Pure; no allocation; any thread.
namespace hast {

enum class NvType : uint8_t {
  kInt8 = 1,
  kUint8 = 2,
  kInt16 = 3,
  kUint16 = 4,
  kInt32 = 5,
  kUint32 = 6,
  kInt64 = 7,
  kUint64 = 8,
  kInt8Array = 9,
  kUint8Array = 10,
  kInt16Array = 11,
  kUint16Array = 12,
  kInt32Array = 13,
  kUint32Array = 14,
  kInt64Array = 15,
  kUint64Array = 16,
  kString = 17,
};

inline constexpr size_t kNvHeadBytes = 6;

/// The type code of a C++ integer.
template <typename T>
constexpr NvType nv_type_of() {
  static_assert(std::is_integral_v<T> && !std::is_same_v<T, bool>);
  constexpr uint8_t width = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 2 : sizeof(T) == 4 ? 4 : 6;
  return static_cast<NvType>(1 + width + (std::is_unsigned_v<T> ? 1 : 0));
}

/// One entry, pointing into the area it was read from.
struct NvEntry {
  NvType type = NvType::kInt8;
  std::string_view name;  ///< without its NUL; never empty
  ConstBytes data;        ///< without padding; a string's includes its NUL; never empty

  /// The number, if the entry is a scalar of exactly this type.
  template <typename T>
  std::optional<T> number() const {
    if (type != nv_type_of<T>()) return std::nullopt;
    return load_le<T>(data.data());
  }
  /// The text without its NUL, if the entry is a string.
  std::optional<std::string_view> string() const {
    if (type != NvType::kString) return std::nullopt;
    return std::string_view(reinterpret_cast<const char*>(data.data()), data.size() - 1);
  }
  /// The bytes, if the entry is an array of uint8.
  std::optional<ConstBytes> bytes() const {
    if (type != NvType::kUint8Array) return std::nullopt;
    return data;
  }
  /// The first 8 bytes of the name as one number (shorter names: zeros follow), to switch on.
  /// With a key of 8 bytes, look at the name's size too.
  uint64_t name_key() const;
};

/// `nv_key("seq")`: what NvEntry::name_key gives for that name, at most 8 bytes long.
consteval uint64_t nv_key(std::string_view name) {
  uint64_t key = 0;
  HAST_ASSERT(name.size() <= 8);  // at compile time: fails to compile
  for (size_t i = 0; i < name.size(); i++) {
    key |= uint64_t{static_cast<unsigned char>(name[i])} << (8 * i);
  }
  return key;
}

/// A literal name of 1 to 7 bytes: an entry of a scalar with such a name always has 22 bytes.
struct NvShortName {
  uint64_t key = 0;
  uint8_t bytes = 0;  ///< with the NUL
  consteval NvShortName(const char* text)
      : key(nv_key(text)), bytes(static_cast<uint8_t>(std::string_view(text).size() + 1)) {
    HAST_ASSERT(bytes >= 2 && bytes <= 8);
  }
};
inline constexpr size_t kNvShortEntryBytes = 22;

/// Walks an area entry by entry, checking each one in full. Bytes are foreign: anything may come.
class NvCursor {
 public:
  explicit NvCursor(ConstBytes area) : area_(area) {}

  enum class Step { kEntry, kEnd, kInvalid };
  /// kEntry: `entry` is filled. kEnd: the area's end, or a zero type byte, was reached. kInvalid:
  /// the area is not valid as a whole, and stays so.
  Step next(NvEntry& entry);
  /// Bytes of the entries walked so far.
  size_t position() const { return position_; }

 private:
  ConstBytes area_;
  size_t position_ = 0;
};

/// Looks entries up in an area that was checked once, as a whole.
///
/// The first entry with the name counts. If its type is another one, the look-up fails; nothing is
/// converted. Cost is linear in the area.
class NvReader {
 public:
  /// Checks the whole area. An empty one is valid. Error: NV_INVALID.
  static Result<NvReader> open(ConstBytes area);

  /// Is there an entry of this name, whatever its type?
  bool has(std::string_view name) const;
  std::optional<NvEntry> find(std::string_view name) const;

  template <typename T>
  std::optional<T> number(std::string_view name) const {
    const std::optional<NvEntry> entry = find(name);
    return entry ? entry->number<T>() : std::nullopt;
  }
  std::optional<std::string_view> string(std::string_view name) const {
    const std::optional<NvEntry> entry = find(name);
    return entry ? entry->string() : std::nullopt;
  }
  std::optional<ConstBytes> bytes(std::string_view name) const {
    const std::optional<NvEntry> entry = find(name);
    return entry ? entry->bytes() : std::nullopt;
  }
  /// Bytes in use: the entries, without a zero tail.
  size_t used_bytes() const { return area_.size(); }
  /// To walk over all entries.
  NvCursor cursor() const { return NvCursor(area_); }

 private:
  explicit NvReader(ConstBytes area) : area_(area) {}
  ConstBytes area_;
};

/// Appends entries to a caller's span. All padding is written as zeros.
///
/// What does not fit is not written, and from then on nothing is: look at `overflowed` at the end.
class NvWriter {
 public:
  explicit NvWriter(Bytes out) : out_(out) {}

  /// `name`: 1 to 254 bytes without NUL.
  template <typename T>
  void number(std::string_view name, T value) {
    std::byte raw[sizeof(T)];
    store_le(raw, value);
    append(nv_type_of<T>(), name, ConstBytes(raw, sizeof raw), 0);
  }
  /// The same bytes as `number`, in a few stores: for the path of every request.
  template <typename T>
  void scalar(NvShortName name, T value) {
    if (overflowed_ || kNvShortEntryBytes > out_.size() - used_) {
      overflowed_ = true;
      return;
    }
    std::byte* to = out_.data() + used_;
    to[0] = static_cast<std::byte>(nv_type_of<T>());
    to[1] = static_cast<std::byte>(name.bytes);
    store_le(to + 2, static_cast<uint32_t>(sizeof(T)));
    store_le(to + kNvHeadBytes, name.key);
    store_le(to + kNvHeadBytes + 8, static_cast<uint64_t>(std::make_unsigned_t<T>(value)));
    used_ += kNvShortEntryBytes;
  }
  /// `text` has no NUL in it (the caller's duty: it is our own or was a valid nv string).
  void string(std::string_view name, std::string_view text) {
    append(NvType::kString, name, std::as_bytes(std::span(text.data(), text.size())), 1);
  }
  /// `bytes`: at least one.
  void bytes(std::string_view name, ConstBytes bytes) {
    append(NvType::kUint8Array, name, bytes, 0);
  }
  /// Any entry as it was read, data included.
  void entry(const NvEntry& entry) { append(entry.type, entry.name, entry.data, 0); }

  size_t size() const { return used_; }
  bool overflowed() const { return overflowed_; }

 private:
  void append(NvType type, std::string_view name, ConstBytes data, size_t nul_bytes) {
    HAST_ASSERT(!name.empty() && name.size() <= 254);
    HAST_ASSERT(data.size() + nul_bytes > 0);
    const size_t name_bytes = round_up(name.size() + 1, 8);
    const size_t data_bytes = round_up(data.size() + nul_bytes, 8);
    const size_t total = kNvHeadBytes + name_bytes + data_bytes;
    if (overflowed_ || data.size() > UINT32_MAX - 8 || total > out_.size() - used_) {
      overflowed_ = true;
      return;
    }
    std::byte* to = out_.data() + used_;
    to[0] = static_cast<std::byte>(type);
    to[1] = static_cast<std::byte>(name.size() + 1);
    store_le(to + 2, static_cast<uint32_t>(data.size() + nul_bytes));
    to += kNvHeadBytes;
    store_le(to + name_bytes - 8, uint64_t{0});
    std::memcpy(to, name.data(), name.size());
    to += name_bytes;
    store_le(to + data_bytes - 8, uint64_t{0});
    if (!data.empty()) std::memcpy(to, data.data(), data.size());
    used_ += total;
  }

  Bytes out_;
  size_t used_ = 0;
  bool overflowed_ = false;
};

}  // namespace hast
