// Arbitrary bytes as a name-value area: what is read lies inside it and survives encoding.
#include <string_view>

#include "codec/nv.h"
#include "fuzz_input.h"

namespace hast::fuzz {
namespace {

using Entries = std::vector<NvEntry>;

/// Every question of the interface, so that none of them reads too far.
void ask(const NvReader& nv, const NvEntry& entry) {
  const std::optional<NvEntry> found = nv.find(entry.name);
  HAST_ASSERT(found.has_value());
  HAST_ASSERT(nv.has(entry.name));
  HAST_ASSERT(found->data.data() <= entry.data.data());  // the first one of a name counts
  (void)found->name_key();
  const int answers =
      (entry.number<int8_t>() || entry.number<uint8_t>() || entry.number<int16_t>() ||
       entry.number<uint16_t>() || entry.number<int32_t>() || entry.number<uint32_t>() ||
       entry.number<int64_t>() || entry.number<uint64_t>()) +
      entry.string().has_value() + entry.bytes().has_value();
  HAST_ASSERT_OP(answers, <=, 1);
  if (const auto text = entry.string()) HAST_ASSERT(text->find('\0') == text->npos);
}

Entries entries_of(const NvReader& nv, ConstBytes area) {
  Entries entries;
  NvCursor cursor = nv.cursor();
  NvEntry entry;
  while (cursor.next(entry) == NvCursor::Step::kEntry) {
    const std::byte* name = reinterpret_cast<const std::byte*>(entry.name.data());
    HAST_ASSERT(name >= area.data());
    HAST_ASSERT(name + entry.name.size() < entry.data.data());
    HAST_ASSERT(entry.data.data() + entry.data.size() <= area.data() + nv.used_bytes());
    HAST_ASSERT(!entry.name.empty());
    HAST_ASSERT(!entry.data.empty());
    entries.push_back(entry);
  }
  HAST_ASSERT_OP(cursor.position(), ==, nv.used_bytes());
  return entries;
}

Buffer encode(const Entries& entries, size_t room) {
  Buffer out(room);
  NvWriter writer(out);
  for (const NvEntry& entry : entries) writer.entry(entry);
  HAST_ASSERT(!writer.overflowed());
  HAST_ASSERT_OP(writer.size(), ==, room);  // only padding may have differed
  return out;
}

void check_overflow(const Entries& entries, size_t room) {
  if (entries.empty()) return;
  Buffer out(room - 1);
  NvWriter writer(out);
  for (const NvEntry& entry : entries) writer.entry(entry);
  HAST_ASSERT(writer.overflowed());
}

void check(ConstBytes area) {
  const Result<NvReader> nv = NvReader::open(area);
  if (!nv) {
    HAST_ASSERT(nv.error().code == Code::NV_INVALID);
    return;
  }
  HAST_ASSERT_OP(nv->used_bytes(), <=, area.size());
  const Entries entries = entries_of(*nv, area);
  for (const NvEntry& entry : entries) ask(*nv, entry);

  const Buffer once = encode(entries, nv->used_bytes());
  check_overflow(entries, once.size());
  const Result<NvReader> again = NvReader::open(once);
  HAST_ASSERT(again.has_value());
  const Entries same = entries_of(*again, once);
  HAST_ASSERT_OP(same.size(), ==, entries.size());
  for (size_t i = 0; i < same.size(); i++) {
    HAST_ASSERT(same[i].type == entries[i].type);
    HAST_ASSERT(same[i].name == entries[i].name);
    HAST_ASSERT(same_bytes(same[i].data, entries[i].data));
  }
  HAST_ASSERT(same_bytes(encode(same, once.size()), once));
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size).rest());
  return 0;
}
