#include "codec/metadata.h"

#include <random>

#include "codec/block_cuts.h"
#include "codec/checksum.h"
#include "codec/layout.h"
#include "harness.h"
#include "vectors.h"

using namespace hast;
using namespace hast::test;

namespace {

constexpr uint32_t kSectors[] = {512, 1024, 2048, 4096};

/// "8G" as hastctl reads it.
uint64_t with_suffix(const std::string& text) {
  const uint64_t value = std::stoull(text);
  const size_t shift = std::string("kMGT").find(text.back());
  return shift == std::string::npos ? value : value << (10 * (shift + 1));
}

LayoutRequest request_of(const Json& c) {
  LayoutRequest request;
  request.provider_bytes = c["provider_size"].number();
  request.sector_bytes = static_cast<uint32_t>(c["sector_size"].number());
  request.kind = LayoutKind::kHast;
  const Json& options = c["hastctl_create_options"];
  for (size_t i = 0; i + 1 < options.size(); i += 2) {
    const uint64_t value = with_suffix(options[i + 1].text());
    if (options[i] == "-e") request.extent_bytes = value;
    if (options[i] == "-k") request.keepdirty = value;
    if (options[i] == "-m") request.media_bytes = value;
  }
  return request;
}

Metadata sample() {
  Metadata m;
  m.resource = ResourceName("data");
  m.datasize = 8 << 20;
  m.extentsize = 1 << 20;
  m.keepdirty = 2;
  m.offset = 1 << 20;
  return m;
}

void carry_out(Block& disk, const BlockPlan::Step& step, const MetadataBlock& after) {
  std::memcpy(disk.data() + step.offset, after.bytes().data() + step.offset, step.length);
}

bool same_state(const MetadataBlock& a, const MetadataBlock& b) {
  return a.metadata() == b.metadata() && a.extra_known() == b.extra_known() &&
         a.extra() == b.extra();
}

/// Carries out a plan on `disk`; after every possible power cut the block must decode to the old or
/// the new state, and a rewrite (cut short as well) must not change which one.
void check_cuts(Block& disk, const MetadataBlock& before, const BlockPlan& plan, uint32_t sector) {
  for (uint32_t s = 0; s < plan.step_count; s++) {
    for (const Block& cut : torn(disk, plan.steps[s], plan.after, sector)) {
      const Result<MetadataBlock> state = MetadataBlock::decode(cut);
      REQUIRE(state.has_value());
      CHECK(same_state(*state, before) || same_state(*state, plan.after));
      if (!state->needs_rewrite()) continue;
      const BlockPlan repair = state->plan_rewrite(sector);
      REQUIRE(repair.step_count == 1);
      for (const Block& twice : torn(cut, repair.steps[0], repair.after, sector)) {
        const Result<MetadataBlock> again = MetadataBlock::decode(twice);
        CHECK(again.has_value() && same_state(*again, *state));
      }
      Block repaired = cut;
      carry_out(repaired, repair.steps[0], repair.after);
      const Result<MetadataBlock> clean = MetadataBlock::decode(repaired);
      CHECK(clean.has_value() && same_state(*clean, *state) && !clean->needs_rewrite());
    }
    carry_out(disk, plan.steps[s], plan.after);
  }
  const Result<MetadataBlock> end = MetadataBlock::decode(disk);
  REQUIRE(end.has_value());
  CHECK(same_state(*end, plan.after));
  CHECK(!end->needs_rewrite());
}

}  // namespace

TEST(layout, "create --layout hast makes the original's bytes, or its refusals") {
  const Json file = load_vectors("metadata");
  CHECK(file["cases"].size() >= 13);
  for (const Json& c : file["cases"]) {
    const Result<Layout> layout = plan_layout(request_of(c));
    // The original takes a size that is no multiple of the sector; ours must refuse it.
    const bool accepted = c["exit_status"].number() == 0 && c["name"] != "odd-size";
    if (layout.has_value() != accepted) fail(__FILE__, __LINE__, c["name"]);
    if (!layout || !accepted) continue;
    const std::string name = c["resource"];
    const MetadataBlock block = MetadataBlock::create(initial_metadata(name, *layout));
    const ByteVector expected = unhex(c["metadata_nonzero_prefix_hex"].text());
    Block padded{};
    std::memcpy(padded.data(), expected.data(), expected.size());
    CHECK_EQ(hex(block.bytes()), hex(padded));
    CHECK_EQ(layout->map_bytes, c["activemap_length"].number());
    CHECK(check_geometry(block.metadata(), c["provider_size"].number(), 512).has_value());
    const Result<MetadataBlock> back = MetadataBlock::decode(padded);
    REQUIRE(back.has_value());
    CHECK(back->metadata() == block.metadata());
    CHECK(!back->extra_known() && !back->needs_rewrite());
  }
}

TEST(layout, "each refusal has its own code") {
  const auto code = [](auto change) {
    LayoutRequest request;
    request.provider_bytes = 1 << 30;
    change(request);
    const Result<Layout> layout = plan_layout(request);
    return layout ? Code::INTERNAL : layout.error().code;
  };
  CHECK(code([](LayoutRequest& r) { r.sector_bytes = 8192; }) == Code::LAYOUT_SECTOR);
  CHECK(code([](LayoutRequest& r) { r.sector_bytes = 768; }) == Code::LAYOUT_SECTOR);
  CHECK(code([](LayoutRequest& r) { r.extent_bytes = 256; }) == Code::LAYOUT_EXTENT);
  CHECK(code([](LayoutRequest& r) { r.extent_bytes = 3072; }) == Code::LAYOUT_EXTENT);
  CHECK(code([](LayoutRequest& r) { r.extent_bytes = 2ull << 30; }) == Code::LAYOUT_EXTENT);
  CHECK(code([](LayoutRequest& r) { r.keepdirty = 0; }) == Code::LAYOUT_KEEPDIRTY);
  CHECK(code([](LayoutRequest& r) { r.media_bytes = 2ull << 30; }) == Code::LAYOUT_MEDIA);
  CHECK(code([](LayoutRequest& r) { r.media_bytes = 1000000; }) == Code::LAYOUT_MEDIA);
  CHECK(code([](LayoutRequest& r) { r.provider_bytes = 4096; }) == Code::LAYOUT_SMALL);
  CHECK(code([](LayoutRequest& r) { r.provider_bytes = 0; }) == Code::LAYOUT_SMALL);
  CHECK(code([](LayoutRequest& r) { r.provider_bytes = 2 << 20; }) == Code::LAYOUT_SMALL);
  CHECK(code([](LayoutRequest&) {}) == Code::INTERNAL);
}

TEST(layout, "the aligned layout begins its data at a multiple of 1 MiB, behind the whole map") {
  for (const uint64_t size : {16ull << 20, 1ull << 30, 20ull << 40, (1ull << 40) + 512}) {
    LayoutRequest request;
    request.provider_bytes = size;
    const Result<Layout> layout = plan_layout(request);
    REQUIRE(layout.has_value());
    CHECK_EQ(layout->data_offset % (1 << 20), 0u);
    CHECK_EQ(layout->data_offset + layout->data_bytes, size);
    CHECK(layout->map_bytes + 4096 <= layout->data_offset);
    CHECK(check_geometry(initial_metadata("x", *layout), size, 512).has_value());
  }
}

TEST(metadata, "what a whole session of the original left decodes and encodes to its bytes") {
  unsigned blocks = 0;
  const Json file = load_vectors("sessions");
  for (const Json& session : file["sessions"]) {
    for (const char* when : {"metadata_before", "metadata_after"}) {
      if (!session.contains(when)) continue;
      for (const Json& node : session[when]) {
        if (node.is_null()) continue;
        const ByteVector prefix = unhex(node["nonzero_prefix_hex"].text());
        Block bytes{};
        std::memcpy(bytes.data(), prefix.data(), prefix.size());
        CHECK(holds_fields(bytes, node["fields"]));
        const Result<MetadataBlock> block = MetadataBlock::decode(bytes);
        REQUIRE(block.has_value());
        CHECK_EQ(hex(MetadataBlock::create(block->metadata()).bytes()), hex(bytes));
        blocks++;
      }
    }
  }
  CHECK(blocks >= 8);
}

TEST(metadata, "the longest name still fits one sector of 512 bytes") {
  Metadata m = sample();
  m.resource = ResourceName(std::string(254, 'n'));
  m.prevrole = Role::kSecondary;
  const MetadataBlock block = MetadataBlock::create(m);
  CHECK(block.bytes()[509] != std::byte{1});
  for (size_t i = 510; i < kMetadataBytes; i++) CHECK_EQ(block.bytes()[i], std::byte{0});
  const Result<MetadataBlock> back = MetadataBlock::decode(block.bytes());
  CHECK(back.has_value() && back->metadata() == m);
  // With records as well.
  const BlockPlan plan = block.plan_update(m, Extra{.generation = 7}, 512);
  const Result<MetadataBlock> known = MetadataBlock::decode(plan.after.bytes());
  CHECK(known.has_value() && known->metadata() == m && known->extra().generation == 7);
}

TEST(metadata, "a block that is not HAST's is refused") {
  Block zero{};
  CHECK(!MetadataBlock::decode(zero).has_value());
  Block bytes = block_of(MetadataBlock::create(sample()));
  bytes[0] = std::byte{0x7f};
  CHECK(!MetadataBlock::decode(bytes).has_value());
  bytes = block_of(MetadataBlock::create(sample()));
  const std::string text(reinterpret_cast<const char*>(bytes.data()), 512);
  bytes[text.find("init")] = std::byte{'x'};  // no such role
  const Result<MetadataBlock> role = MetadataBlock::decode(bytes);
  CHECK(!role.has_value() && role.error().code == Code::META_INVALID);
}

TEST(metadata, "geometry that does not fit its provider is refused") {
  const uint64_t size = 9ull << 20;
  const auto fits = [size](auto change, uint32_t sector = 512) {
    Metadata m = sample();
    change(m);
    return check_geometry(m, size, sector).has_value();
  };
  CHECK(fits([](Metadata&) {}));
  CHECK(fits([](Metadata&) {}, 4096));
  CHECK(!fits([](Metadata&) {}, 8192));
  CHECK(!fits([](Metadata& m) { m.offset = 4096; }));
  CHECK(!fits([](Metadata& m) { m.offset = UINT64_MAX; }));
  CHECK(!fits([](Metadata& m) { m.offset += 100; }));
  CHECK(!fits(
      [](Metadata& m) {
        m.offset = 4608;
        m.datasize = 1 << 20;
      },
      4096));
  CHECK(!fits([](Metadata& m) { m.datasize = 0; }));
  CHECK(!fits([](Metadata& m) { m.datasize++; }));
  CHECK(!fits([](Metadata& m) { m.datasize = UINT64_MAX; }));
  CHECK(!fits([](Metadata& m) { m.extentsize = 3 << 20; }));
  CHECK(!fits([](Metadata& m) { m.extentsize = 0; }));
  CHECK(!fits([](Metadata& m) { m.extentsize = 256; }));
  CHECK(!fits([](Metadata& m) { m.extentsize = 1u << 31; }));
  CHECK(!fits([](Metadata& m) { m.keepdirty = 0; }));
  CHECK(!fits([](Metadata& m) {
    m.offset = 4608;
    m.extentsize = 512;
  }));  // the map is too long
}

TEST(metadata, "a record is written only on demand, and then the steps are record, nv, once each") {
  const MetadataBlock plain = MetadataBlock::create(sample());
  Metadata next = sample();
  next.localcnt = 1;
  const BlockPlan without = plain.plan_update(next, 512);
  REQUIRE(without.step_count == 1);
  CHECK(without.steps[0].offset == 0 && without.steps[0].length == 512);
  for (size_t i = 512; i < kMetadataBytes; i++) CHECK_EQ(without.after.bytes()[i], std::byte{0});

  const BlockPlan first = plain.plan_update(next, Extra{.generation = 1}, 512);
  REQUIRE(first.step_count == 2);
  CHECK(first.steps[0].offset == 1024 && first.steps[0].length == 1024);
  CHECK(first.steps[1].offset == 0 && first.steps[1].length == 512);
  const BlockPlan second = first.after.plan_update(next, Extra{.generation = 2}, 512);
  CHECK(second.steps[0].offset == 2560 && second.steps[0].length == 1024);
  const BlockPlan third = second.after.plan_update(next, Extra{.generation = 3}, 512);
  CHECK(third.steps[0].offset == 1024);

  const BlockPlan whole = second.after.plan_update(next, Extra{.generation = 3}, 4096);
  REQUIRE(whole.step_count == 1);
  CHECK(whole.steps[0].offset == 0 && whole.steps[0].length == 4096);
}

TEST(metadata, "a power cut at any sector of any update leaves the old state or the new one") {
  for (const uint32_t sector : kSectors) {
    for (uint64_t seed = 0; seed < 20; seed++) {
      std::mt19937_64 random(seed * 8 + sector);
      Block disk = block_of(MetadataBlock::create(sample()));
      for (int update = 0; update < 12; update++) {
        Result<MetadataBlock> now = MetadataBlock::decode(disk);
        REQUIRE(now.has_value());
        if (now->needs_rewrite()) {
          const BlockPlan repair = now->plan_rewrite(sector);
          carry_out(disk, repair.steps[0], repair.after);
          now = MetadataBlock(repair.after);
        }
        Metadata next = now->metadata();
        if (random() % 3 != 0) next.localcnt = random() % 4;
        if (random() % 3 == 0) next.prevrole = Role::kSecondary;
        Extra extra = now->extra();
        extra.generation = random() % 3;
        extra.sync_target = random() % 2 == 0;
        const BlockPlan plan = random() % 5 == 0 ? now->plan_update(next, sector)
                                                 : now->plan_update(next, extra, sector);
        const Block old = disk;
        check_cuts(disk, *now, plan, sector);
        if (random() % 3 != 0) continue;
        // Go on from a cut, as a restart would.
        disk = old;
        const uint32_t step = static_cast<uint32_t>(random() % plan.step_count);
        for (uint32_t s = 0; s < step; s++) carry_out(disk, plan.steps[s], plan.after);
        const std::vector<Block> cuts = torn(disk, plan.steps[step], plan.after, sector);
        disk = cuts[random() % cuts.size()];
      }
    }
  }
}

TEST(metadata, "every fact comes back as it was written") {
  Extra extra;
  extra.set({11, 12, 13});
  extra.sync_target = extra.local_stale = extra.peer_stale = extra.ahead = extra.discarded = true;
  extra.flush_failed = extra.peer_behind = true;
  extra.boot = 14;
  for (const uint32_t sector : kSectors) {
    const BlockPlan plan = MetadataBlock::create(sample()).plan_update(sample(), extra, sector);
    const Result<MetadataBlock> back = MetadataBlock::decode(plan.after.bytes());
    REQUIRE(back.has_value());
    CHECK(back->extra_known() && back->extra() == extra);
    CHECK(back->extra().lost_cache(15) && !back->extra().lost_cache(14));
  }
}

TEST(metadata, "an original that rewrites the block takes our history away, whole or torn") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; round++) {
    MetadataBlock ours = MetadataBlock::create(sample());
    for (uint64_t i = 0; i < 1 + random() % 3; i++) {
      Metadata next = ours.metadata();
      next.localcnt += random() % 2;
      ours = ours.plan_update(next, Extra{.generation = i + 1}, 512).after;
    }
    Metadata foreign = ours.metadata();
    foreign.remotecnt = 99;
    const MetadataBlock original = MetadataBlock::create(foreign);
    const Block before = block_of(ours);
    for (uint32_t subset = 0; subset < 256; subset++) {
      Block cut = before;
      for (uint32_t i = 0; i < 8; i++) {
        if ((subset >> i & 1) == 0) continue;
        std::memcpy(cut.data() + i * 512, original.bytes().data() + i * 512, 512);
      }
      const Result<MetadataBlock> state = MetadataBlock::decode(cut);
      REQUIRE(state.has_value());
      if ((subset & 1) != 0) {
        CHECK(state->metadata() == foreign && !state->extra_known());
        CHECK(state->extra() == Extra{});
      } else if (state->extra_known()) {
        // Without the newest record an older one with the same nine fields is believed.
        CHECK(state->metadata() == ours.metadata());
        CHECK(state->extra().generation <= ours.extra().generation);
      }
    }
  }
}

TEST(metadata, "history that an original left behind never comes to life again") {
  // Our records survive beside foreign fields; then one more plain update must not match an old
  // copy.
  Metadata a = sample(), b = sample();
  b.localcnt = 1;
  const MetadataBlock first =
      MetadataBlock::create(a).plan_update(a, Extra{.generation = 1}, 512).after;
  const MetadataBlock second = first.plan_update(b, Extra{.generation = 2}, 512).after;
  Metadata foreign = sample();
  foreign.localcnt = 50;
  Block disk = block_of(second);
  std::memcpy(disk.data(), MetadataBlock::create(foreign).bytes().data(), 512);
  const Result<MetadataBlock> unknown = MetadataBlock::decode(disk);
  REQUIRE(unknown.has_value());
  CHECK(unknown->metadata() == foreign && !unknown->extra_known());
  check_cuts(disk, *unknown, unknown->plan_update(a, 512), 512);
  const Result<MetadataBlock> state = MetadataBlock::decode(disk);
  REQUIRE(state.has_value());
  CHECK(state->metadata() == a && !state->extra_known());
}

TEST(metadata, "a damaged first sector is restored from the newest record") {
  std::mt19937_64 random(6);
  Metadata next = sample();
  next.localcnt = 3;
  const MetadataBlock block =
      MetadataBlock::create(sample()).plan_update(next, Extra{.generation = 4}, 512).after;
  for (int round = 0; round < 500; round++) {
    Block disk = block_of(block);
    for (int i = 0; i < 512; i++) disk[static_cast<size_t>(i)] = static_cast<std::byte>(random());
    const Result<MetadataBlock> state = MetadataBlock::decode(disk);
    REQUIRE(state.has_value());
    CHECK(same_state(*state, block) && state->needs_rewrite());
  }
}

TEST(metadata, "random bytes and flipped bits never crash the decoder") {
  std::mt19937_64 random(7);
  MetadataBlock block = MetadataBlock::create(sample());
  block = block.plan_update(sample(), Extra{.generation = 1, .local_stale = true}, 512).after;
  block = block.plan_update(sample(), Extra{.generation = 2, .sync_target = true}, 512).after;
  for (int round = 0; round < 20000; round++) {
    Block disk = block_of(block);
    for (uint64_t i = 1 + random() % 4; i > 0; i--) {
      disk[random() % disk.size()] ^= static_cast<std::byte>(1u << random() % 8);
    }
    const Result<MetadataBlock> state = MetadataBlock::decode(disk);
    if (state && state->extra_known()) CHECK(state->extra().generation >= 1);
  }
}
