#include "codec/nv.h"

namespace hast {
namespace {

/// Is `n` bytes at `name` (at least 8 readable when n <= 8) a text with one NUL, the last byte?
bool name_is_sound(const std::byte* name, size_t n) {
  if (n > 8) return std::memchr(name, 0, n) == name + n - 1;
  // The lowest zero byte of a word, without a loop: most names of the wire are this short.
  const uint64_t word = load_le<uint64_t>(name);
  const uint64_t zeros = (word - 0x0101010101010101u) & ~word & 0x8080808080808080u;
  return zeros != 0 && static_cast<size_t>(std::countr_zero(zeros)) / 8 == n - 1;
}

/// Has the data the length and form that its type asks for? `data` is not empty.
bool data_is_sound(uint8_t type, ConstBytes data) {
  constexpr auto kString = static_cast<uint8_t>(NvType::kString);
  constexpr auto kFirstArray = static_cast<uint8_t>(NvType::kInt8Array);
  if (type == kString) {
    return std::memchr(data.data(), 0, data.size()) == data.data() + data.size() - 1;
  }
  const bool array = type >= kFirstArray;
  const unsigned shift = static_cast<unsigned>(type - (array ? kFirstArray : 1)) / 2;
  const size_t width = size_t{1} << shift;
  return array ? data.size() % width == 0 : data.size() == width;
}

}  // namespace

uint64_t NvEntry::name_key() const {
  HAST_ASSERT(!name.empty());
  // An entry's name is padded to 8 bytes at least, so there are always 8 to read.
  const uint64_t word = load_le<uint64_t>(reinterpret_cast<const std::byte*>(name.data()));
  return name.size() >= 8 ? word : word & ((uint64_t{1} << (8 * name.size())) - 1);
}

NvCursor::Step NvCursor::next(NvEntry& entry) {
  const uint64_t remaining = area_.size() - position_;
  if (remaining == 0) return Step::kEnd;
  const std::byte* at = area_.data() + position_;
  const auto type = static_cast<uint8_t>(at[0]);
  if (type == 0) return Step::kEnd;  // a zero-filled tail
  if (remaining < 8) return Step::kInvalid;

  const auto n = static_cast<uint8_t>(at[1]);
  const uint64_t name_bytes = round_up(n, 8);
  if (n < 2 || kNvHeadBytes + name_bytes > remaining) return Step::kInvalid;
  const std::byte* name = at + kNvHeadBytes;
  if (!name_is_sound(name, n)) return Step::kInvalid;

  // Bit 7 would mark the host's byte order; no sender leaves it set, so it is no type.
  if (type > static_cast<uint8_t>(NvType::kString)) return Step::kInvalid;
  const uint64_t d = load_le<uint32_t>(at + 2);
  const uint64_t data_bytes = round_up(d, 8);  // in 64 bits: d near 2^32 must not wrap
  if (d == 0 || data_bytes > remaining - kNvHeadBytes - name_bytes) return Step::kInvalid;
  const ConstBytes data(name + name_bytes, static_cast<size_t>(d));
  if (!data_is_sound(type, data)) return Step::kInvalid;

  entry.type = static_cast<NvType>(type);
  entry.name = std::string_view(reinterpret_cast<const char*>(name), size_t{n} - 1);
  entry.data = data;
  position_ += static_cast<size_t>(kNvHeadBytes + name_bytes + data_bytes);
  return Step::kEntry;
}

Result<NvReader> NvReader::open(ConstBytes area) {
  NvCursor cursor(area);
  NvEntry entry;
  NvCursor::Step step = NvCursor::Step::kEntry;
  while (step == NvCursor::Step::kEntry) step = cursor.next(entry);
  if (step == NvCursor::Step::kInvalid) {
    return Error{Code::NV_INVALID, 0, "an entry is malformed or cut off"};
  }
  return NvReader(area.first(cursor.position()));
}

std::optional<NvEntry> NvReader::find(std::string_view name) const {
  NvCursor cursor(area_);
  NvEntry entry;
  while (cursor.next(entry) == NvCursor::Step::kEntry) {
    if (entry.name == name) return entry;
  }
  return std::nullopt;
}

bool NvReader::has(std::string_view name) const { return find(name).has_value(); }

}  // namespace hast
