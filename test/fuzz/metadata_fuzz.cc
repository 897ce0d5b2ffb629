// Arbitrary bytes as the metadata block; then the plan of an update is carried out, with a power
// cut at every place, and the block must decode to the old or to the new state.
// Input: choices (1 byte: repair record 0, record 1; sector size; with or without facts),
// 64 bytes of new fields and facts, and the block (short ones are filled with zeros).
#include <array>
#include <bit>
#include <string>

#include "codec/block_cuts.h"
#include "codec/checksum.h"
#include "codec/metadata.h"
#include "fuzz_input.h"

namespace hast::fuzz {
namespace {

using test::Block;

/// Gives a damaged record the magic, version and sums that let its fields be looked at.
void repair_record(Block& block, unsigned slot) {
  constexpr size_t kHashAt = 24;
  constexpr size_t kFieldsBytesAt = 140;
  constexpr size_t kFieldsAt = 144;
  constexpr uint32_t kFieldsBytesMax = 512;
  const Bytes record =
      Bytes(block).subspan(MetadataBlock::kRecordOffset[slot], MetadataBlock::kRecordBytes);
  std::memcpy(record.data(), "hastdrec\1\0\0\0", 12);
  const uint32_t used = load_le<uint32_t>(record.data() + kFieldsBytesAt) % (2 * kFieldsBytesMax);
  store_le(record.data() + kFieldsBytesAt, used);  // seldom more than there is room for
  const std::array<std::byte, 32> hash =
      sha256_of(Bytes(block).subspan(MetadataBlock::kRecordOffset[slot] + kFieldsAt, used));
  std::memcpy(record.data() + kHashAt, hash.data(), hash.size());
  const size_t crc_at = record.size() - 4;
  store_le(record.data() + crc_at, crc32c_of(record.first(crc_at)));
}

Block block_from(Input& input, uint8_t choices) {
  Block block{};
  const ConstBytes bytes = input.take(block.size());
  std::copy(bytes.begin(), bytes.end(), block.begin());
  if ((choices & 1) != 0) repair_record(block, 0);
  if ((choices & 2) != 0) repair_record(block, 1);
  return block;
}

struct Update {
  Metadata metadata;
  Extra extra;
  bool with_extra = false;
  uint32_t sector_bytes = kSectorBytesMin;
};

/// Some fields stay as they were, so that updates of facts alone are among them.
Update update_of(Input input, uint8_t choices, const Metadata& before) {
  Update update;
  update.metadata = before;
  update.with_extra = (choices & 4) != 0;
  update.sector_bytes = kSectorBytesMin << (choices >> 3 & 3);
  const uint8_t changes = input.byte();
  if ((changes & 1) != 0) update.metadata.localcnt = input.number<uint64_t>();
  if ((changes & 2) != 0) update.metadata.remotecnt = input.number<uint64_t>();
  if ((changes & 4) != 0) update.metadata.resuid = input.number<uint64_t>();
  if ((changes & 8) != 0) update.metadata.prevrole = static_cast<Role>(input.below(3));
  if ((changes & 16) != 0) {
    const size_t size = 1 + input.below(kNameBytesMax);
    update.metadata.resource = ResourceName(std::string_view(std::string(size, 'n')));
  }
  update.extra.sync_target = (changes & 32) != 0;
  update.extra.local_stale = (changes & 64) != 0;
  update.extra.generation = input.byte();
  for (uint64_t& id : update.extra.history) id = input.byte();
  update.extra.peer_stale = (changes & 128) != 0;
  update.extra.ahead = (changes & 64) != 0;
  update.extra.boot = input.byte();
  return update;
}

bool same_state(const MetadataBlock& a, const MetadataBlock& b) {
  return a.metadata() == b.metadata() && a.extra() == b.extra() &&
         a.extra_known() == b.extra_known();
}

/// Every power cut: within a step any set of its sectors may have been written, before the flush.
void check_cuts(const MetadataBlock& before, const BlockPlan& plan, uint32_t sector_bytes) {
  Block disk = test::block_of(before);
  for (uint32_t i = 0; i < plan.step_count; i++) {
    const BlockPlan::Step& step = plan.steps[i];
    HAST_ASSERT_OP(step.length, >, 0u);
    HAST_ASSERT_OP((step.offset | step.length) % sector_bytes, ==, 0u);
    HAST_ASSERT_OP(step.offset + step.length, <=, kMetadataBytes);
    for (const Block& torn : test::torn(disk, step, plan.after, sector_bytes)) {
      const Result<MetadataBlock> found = MetadataBlock::decode(torn);
      HAST_ASSERT(found.has_value());
      HAST_ASSERT(same_state(*found, before) || same_state(*found, plan.after));
    }
    std::memcpy(disk.data() + step.offset, plan.after.bytes().data() + step.offset, step.length);
  }
  HAST_ASSERT(same_bytes(disk, plan.after.bytes()));
  const Result<MetadataBlock> done = MetadataBlock::decode(disk);
  HAST_ASSERT(done.has_value());
  HAST_ASSERT(!done->needs_rewrite());
  HAST_ASSERT(same_state(*done, plan.after));
}

void check_update(const MetadataBlock& block, const Update& update) {
  const BlockPlan plan = update.with_extra
                             ? block.plan_update(update.metadata, update.extra, update.sector_bytes)
                             : block.plan_update(update.metadata, update.sector_bytes);
  HAST_ASSERT(plan.after.metadata() == update.metadata);
  HAST_ASSERT_OP(plan.after.extra_known(), ==, update.with_extra);
  HAST_ASSERT(plan.after.extra() == (update.with_extra ? update.extra : Extra{}));
  check_cuts(block, plan, update.sector_bytes);
}

void check(Input input) {
  const uint8_t choices = input.byte();
  const ConstBytes changes = input.take(64);
  const Result<MetadataBlock> decoded = MetadataBlock::decode(block_from(input, choices));
  if (!decoded) {
    HAST_ASSERT(decoded.error().code == Code::META_INVALID);
    return;
  }
  MetadataBlock block = *decoded;
  const Input words(reinterpret_cast<const uint8_t*>(changes.data()), changes.size());
  Update update = update_of(words, choices, block.metadata());
  if (block.needs_rewrite()) {
    const BlockPlan plan = block.plan_rewrite(update.sector_bytes);
    check_cuts(block, plan, update.sector_bytes);
    block = plan.after;
  }
  check_update(block, update);
  (void)check_geometry(block.metadata(), 1u << 30, update.sector_bytes);
}

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::check(hast::fuzz::Input(data, size));
  return 0;
}
