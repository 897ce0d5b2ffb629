#include "codec/metadata.h"

#include <bit>
#include <optional>

#include "codec/checksum.h"
#include "codec/layout.h"
#include "codec/nv.h"

namespace hast {
namespace {

constexpr Error invalid(const char* what) { return Error{Code::META_INVALID, 0, what}; }

// --- the nv area
// ----------------------------------------------------------------------------------

/// Every area has this much room: one sector of the smallest kind. The longest name leaves 2 bytes.
constexpr size_t kNvBytesMax = kSectorBytesMin;

std::optional<Role> role_from_name(std::string_view name) {
  for (const Role role : {Role::kInit, Role::kPrimary, Role::kSecondary}) {
    if (name == role_name(role)) return role;
  }
  return std::nullopt;
}

/// Writes the nine fields in HAST's order; returns the bytes used.
size_t encode_fields(const Metadata& metadata, Bytes out) {
  NvWriter nv(out);
  nv.string("resource", metadata.resource);
  nv.number<uint64_t>("datasize", metadata.datasize);
  nv.number<uint32_t>("extentsize", metadata.extentsize);
  nv.number<uint32_t>("keepdirty", metadata.keepdirty);
  nv.number<uint64_t>("offset", metadata.offset);
  nv.number<uint64_t>("resuid", metadata.resuid);
  nv.number<uint64_t>("localcnt", metadata.localcnt);
  nv.number<uint64_t>("remotecnt", metadata.remotecnt);
  nv.string("prevrole", role_name(metadata.prevrole));
  HAST_ASSERT(!nv.overflowed());
  return nv.size();
}

template <typename T>
bool take(const NvReader& nv, std::string_view name, T& to) {
  const std::optional<T> value = nv.number<T>(name);
  if (value) to = *value;
  return value.has_value();
}

/// Nothing unless all nine fields are there with their types, and name and role are possible.
std::optional<Metadata> decode_fields(ConstBytes area) {
  const Result<NvReader> nv = NvReader::open(area);
  if (!nv) return std::nullopt;
  Metadata metadata;
  const std::optional<std::string_view> resource = nv->string("resource");
  if (!resource || !ResourceName::fits(*resource)) return std::nullopt;
  metadata.resource = ResourceName(*resource);
  const bool numbers =
      take(*nv, "datasize", metadata.datasize) && take(*nv, "extentsize", metadata.extentsize) &&
      take(*nv, "keepdirty", metadata.keepdirty) && take(*nv, "offset", metadata.offset) &&
      take(*nv, "resuid", metadata.resuid) && take(*nv, "localcnt", metadata.localcnt) &&
      take(*nv, "remotecnt", metadata.remotecnt);
  if (!numbers) return std::nullopt;
  const std::optional<std::string_view> role_text = nv->string("prevrole");
  const std::optional<Role> role = role_text ? role_from_name(*role_text) : std::nullopt;
  if (!role) return std::nullopt;
  metadata.prevrole = *role;
  return metadata;
}

// --- a record
// -------------------------------------------------------------------------------------

// Offsets within a record; docs/on-disk.md is the text to it.
constexpr size_t kMagicAt = 0;
constexpr size_t kVersionAt = 8;
constexpr size_t kFlagsAt = 12;
constexpr size_t kSequenceAt = 16;
constexpr size_t kHashAt = 24;
constexpr size_t kGenerationAt = 56;
constexpr size_t kHistoryAt = 64;
constexpr size_t kBootAt = 128;
constexpr size_t kFieldsBytesAt = 140;
constexpr size_t kFieldsAt = 144;
constexpr size_t kCrcAt = kFieldsAt + kNvBytesMax;
static_assert(kHistoryAt + 8 * std::tuple_size_v<decltype(Extra::history)> == kBootAt);
static_assert(kCrcAt + 4 == MetadataBlock::kRecordBytes);
static_assert(MetadataBlock::kRecordOffset[1] + MetadataBlock::kRecordBytes <= kMetadataBytes);

constexpr std::string_view kMagic("hastdrec", 8);
constexpr uint32_t kRecordVersion = 1;

constexpr uint32_t kFlagSyncTarget = 1;
constexpr uint32_t kFlagLocalStale = 2;
constexpr uint32_t kFlagExtraKnown = 4;
constexpr uint32_t kFlagPeerStale = 8;
constexpr uint32_t kFlagAhead = 16;
constexpr uint32_t kFlagDiscarded = 32;
constexpr uint32_t kFlagFlushFailed = 64;
constexpr uint32_t kFlagPeerBehind = 128;

struct Record {
  uint64_t sequence = 0;
  Metadata metadata;
  Extra extra;
  bool extra_known = false;
};

void encode_record(const Record& record, Bytes out) {
  HAST_ASSERT_OP(out.size(), ==, MetadataBlock::kRecordBytes);
  std::memset(out.data(), 0, out.size());
  std::memcpy(out.data() + kMagicAt, kMagic.data(), kMagic.size());
  store_le(out.data() + kVersionAt, kRecordVersion);
  uint32_t flags = 0;
  if (record.extra.sync_target) flags |= kFlagSyncTarget;
  if (record.extra.local_stale) flags |= kFlagLocalStale;
  if (record.extra_known) flags |= kFlagExtraKnown;
  if (record.extra.peer_stale) flags |= kFlagPeerStale;
  if (record.extra.ahead) flags |= kFlagAhead;
  if (record.extra.discarded) flags |= kFlagDiscarded;
  if (record.extra.flush_failed) flags |= kFlagFlushFailed;
  if (record.extra.peer_behind) flags |= kFlagPeerBehind;
  store_le(out.data() + kFlagsAt, flags);
  store_le(out.data() + kSequenceAt, record.sequence);
  store_le(out.data() + kGenerationAt, record.extra.generation);
  for (size_t i = 0; i < record.extra.history.size(); i++) {
    store_le(out.data() + kHistoryAt + 8 * i, record.extra.history[i]);
  }
  store_le(out.data() + kBootAt, record.extra.boot);
  const size_t used = encode_fields(record.metadata, out.subspan(kFieldsAt, kNvBytesMax));
  store_le(out.data() + kFieldsBytesAt, static_cast<uint32_t>(used));
  const std::array<std::byte, 32> hash = sha256_of(out.subspan(kFieldsAt, used));
  std::memcpy(out.data() + kHashAt, hash.data(), hash.size());
  store_le(out.data() + kCrcAt, crc32c_of(out.first(kCrcAt)));
}

/// Nothing when it was never written, is torn, or is of a version we do not know.
std::optional<Record> decode_record(ConstBytes in) {
  if (std::memcmp(in.data() + kMagicAt, kMagic.data(), kMagic.size()) != 0) return std::nullopt;
  if (load_le<uint32_t>(in.data() + kVersionAt) != kRecordVersion) return std::nullopt;
  // guard:torn-record
  if (load_le<uint32_t>(in.data() + kCrcAt) != crc32c_of(in.first(kCrcAt))) return std::nullopt;
  const uint32_t used = load_le<uint32_t>(in.data() + kFieldsBytesAt);
  if (used > kNvBytesMax) return std::nullopt;
  const std::array<std::byte, 32> hash = sha256_of(in.subspan(kFieldsAt, used));
  if (std::memcmp(in.data() + kHashAt, hash.data(), hash.size()) != 0) return std::nullopt;
  const std::optional<Metadata> metadata = decode_fields(in.subspan(kFieldsAt, used));
  if (!metadata) return std::nullopt;

  Record record;
  record.metadata = *metadata;
  record.sequence = load_le<uint64_t>(in.data() + kSequenceAt);
  const uint32_t flags = load_le<uint32_t>(in.data() + kFlagsAt);
  record.extra_known = (flags & kFlagExtraKnown) != 0;
  record.extra.sync_target = (flags & kFlagSyncTarget) != 0;
  record.extra.local_stale = (flags & kFlagLocalStale) != 0;
  record.extra.peer_stale = (flags & kFlagPeerStale) != 0;
  record.extra.ahead = (flags & kFlagAhead) != 0;
  record.extra.discarded = (flags & kFlagDiscarded) != 0;
  record.extra.flush_failed = (flags & kFlagFlushFailed) != 0;
  record.extra.peer_behind = (flags & kFlagPeerBehind) != 0;
  record.extra.generation = load_le<uint64_t>(in.data() + kGenerationAt);
  record.extra.boot = load_le<uint64_t>(in.data() + kBootAt);
  for (size_t i = 0; i < record.extra.history.size(); i++) {
    record.extra.history[i] = load_le<uint64_t>(in.data() + kHistoryAt + 8 * i);
  }
  return record;
}

/// Sequence numbers may wrap: one up from any number is later than that number.
bool is_later(uint64_t a, uint64_t b) { return static_cast<int64_t>(a - b) > 0; }

bool sector_is_possible(uint32_t bytes) {
  return std::has_single_bit(bytes) && bytes >= kSectorBytesMin && bytes <= kSectorBytesMax;
}

}  // namespace

std::string_view role_name(Role role) {
  if (role == Role::kPrimary) return "primary";
  if (role == Role::kSecondary) return "secondary";
  return "init";
}

MetadataBlock MetadataBlock::create(const Metadata& metadata) {
  MetadataBlock block;
  block.metadata_ = metadata;
  block.write_nv();
  return block;
}

Result<MetadataBlock> MetadataBlock::decode(ConstBytes bytes) {
  HAST_ASSERT_OP(bytes.size(), ==, kMetadataBytes);
  MetadataBlock block;
  std::memcpy(block.block_.data(), bytes.data(), bytes.size());
  const std::optional<Metadata> nv = decode_fields(bytes.first(kNvBytesMax));
  if (nv) block.metadata_ = *nv;
  block.read_records(nv ? &*nv : nullptr);
  if (!nv && !block.has_record_) return invalid("there is no HAST metadata");
  return block;
}

/// Rule 13 of reading: who is right, the nv area (null: torn) or the newest record?
void MetadataBlock::read_records(const Metadata* nv) {
  std::optional<Record> records[2];
  for (unsigned slot = 0; slot < 2; slot++) {
    records[slot] = decode_record(ConstBytes(block_).subspan(kRecordOffset[slot], kRecordBytes));
  }
  if (!records[0] && !records[1]) return;
  has_record_ = true;
  newest_ = !records[0] || (records[1] && is_later(records[1]->sequence, records[0]->sequence));
  const Record& newest = *records[newest_];
  const std::optional<Record>& older = records[1 - newest_];
  sequence_ = newest.sequence;

  const bool nv_is_newest = nv != nullptr && *nv == newest.metadata;
  const bool nv_is_older = nv != nullptr && older && *nv == older->metadata;
  // Neither: an original wrote the block since (and somebody kept our records). They are history.
  // guard:foreign-block
  if (nv != nullptr && !nv_is_newest && !nv_is_older) return;
  metadata_ = newest.metadata;
  needs_rewrite_ = !nv_is_newest;  // guard:torn-sector
  extra_known_ = newest.extra_known;
  if (extra_known_) extra_ = newest.extra;
}

void MetadataBlock::write_nv() {
  // No further than the first sector of the smallest kind: that one is always written with it.
  std::memset(block_.data(), 0, kNvBytesMax);
  encode_fields(metadata_, Bytes(block_).first(kNvBytesMax));
}

void MetadataBlock::write_record(unsigned slot) {
  const Record record{sequence_, metadata_, extra_, extra_known_};
  encode_record(record, Bytes(block_).subspan(kRecordOffset[slot], kRecordBytes));
}

BlockPlan MetadataBlock::plan_rewrite(uint32_t sector_bytes) const {
  HAST_ASSERT(needs_rewrite_);
  HAST_ASSERT(sector_is_possible(sector_bytes));
  BlockPlan plan;
  plan.after = *this;
  plan.after.write_nv();
  plan.after.needs_rewrite_ = false;
  plan.steps[0] = {0, sector_bytes};  // no guard: it is the whole plan
  plan.step_count = 1;
  return plan;
}

BlockPlan MetadataBlock::plan_update(const Metadata& metadata, const Extra& extra,
                                     uint32_t sector_bytes) const {
  return plan(metadata, &extra, sector_bytes);
}

BlockPlan MetadataBlock::plan_update(const Metadata& metadata, uint32_t sector_bytes) const {
  return plan(metadata, nullptr, sector_bytes);
}

BlockPlan MetadataBlock::plan_discard(uint32_t sector_bytes) const {
  Extra extra = extra_;
  extra.discarded = extra.sync_target = true;
  return plan_update(metadata_, extra, sector_bytes);
}

BlockPlan MetadataBlock::plan(const Metadata& metadata, const Extra* extra,
                              uint32_t sector_bytes) const {
  HAST_ASSERT(!needs_rewrite_);
  HAST_ASSERT(sector_is_possible(sector_bytes));
  BlockPlan plan;
  plan.after = *this;
  MetadataBlock& after = plan.after;
  after.metadata_ = metadata;
  after.extra_ = extra != nullptr ? *extra : Extra{};
  after.extra_known_ = extra != nullptr;
  after.write_nv();
  const BlockPlan::Step first_sector{0, sector_bytes};
  if (extra == nullptr && !has_record_) {
    plan.steps[plan.step_count++] = first_sector;  // no guard: it is the whole plan
    return plan;
  }

  const unsigned slot = 1 - newest_;  // guard:newest-record-stays
  after.newest_ = slot;
  after.has_record_ = true;
  after.sequence_++;
  after.write_record(slot);
  const auto start = static_cast<uint32_t>(round_down(kRecordOffset[slot], sector_bytes));
  const auto end =
      static_cast<uint32_t>(round_up(kRecordOffset[slot] + kRecordBytes, sector_bytes));
  // The other record is never in these sectors. Where the nv area is (a sector of 2048 or 4096
  // bytes), that one sector is the whole update.
  plan.steps[plan.step_count++] = {start, end - start};          // guard:record-before-sector
  if (start != 0) plan.steps[plan.step_count++] = first_sector;  // no guard: else nothing fits
  return plan;
}

Result<void> check_geometry(const Metadata& m, uint64_t provider_bytes, uint32_t sector_bytes) {
  if (!sector_is_possible(sector_bytes)) {
    return invalid("the provider's sector size is no power of two from 512 to 4096");
  }
  if (m.offset <= kMetadataBytes || m.offset > provider_bytes) {
    return invalid("the data begins outside the provider");
  }
  if (m.offset % sector_bytes != 0) {
    return invalid("the data does not begin at a sector of the provider");
  }
  if (m.datasize == 0 || m.datasize > provider_bytes - m.offset) {
    return invalid("the provider is smaller than the data");
  }
  if (!std::has_single_bit(m.extentsize) || m.extentsize < sector_bytes ||
      m.extentsize > kExtentBytesMax) {
    return invalid("the extent size is no power of two from the sector size to 1 GiB");
  }
  if (m.keepdirty == 0 || m.keepdirty > INT32_MAX) {
    return invalid("keepdirty is not between 1 and 2147483647");
  }
  const uint64_t map_bytes = map_bytes_for(m.datasize, m.extentsize, sector_bytes);
  if (map_bytes > kMapBytesMax) return invalid("there are too many extents");
  if (map_bytes > m.offset - kMetadataBytes) {
    return invalid("there is no room for the map before the data");
  }
  return {};
}

}  // namespace hast
