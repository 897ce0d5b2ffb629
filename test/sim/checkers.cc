#include "sim/checkers.h"

#include <algorithm>
#include <cstring>

namespace hast::test {

namespace {

/// What a node would know after the next power cut, whatever else that takes.
struct Durable {
  bool readable = false;
  Metadata metadata;
  Extra extra;
  ConstBytes map;
};

Durable durable_of(const Node& node) {
  Durable durable;
  const ConstBytes disk = node.disk().durable();
  const Result<MetadataBlock> block = MetadataBlock::decode(disk.first(kMetadataBytes));
  if (!block) return durable;
  durable.readable = true;
  durable.metadata = block->metadata();
  durable.extra = block->extra();
  const Metadata& m = durable.metadata;
  durable.map = disk.subspan(kMetadataBytes,
                             map_bytes_for(m.datasize, m.extentsize, node.disk().sector_bytes()));
  return durable;
}

bool is_marked(ConstBytes map, uint64_t extent) {
  return (static_cast<unsigned>(map[extent / 8]) >> (extent % 8) & 1) != 0;
}

}  // namespace

std::vector<uint64_t> uncovered_extents(Pair& pair) {
  if (pair.options.original_peer) return {};
  const Durable a = durable_of(pair.a());
  const Durable b = durable_of(pair.b());
  if (!a.readable || !b.readable) return {};
  if (a.metadata.resuid == 0 || a.metadata.resuid != b.metadata.resuid) return {};
  for (const Durable* side : {&a, &b}) {
    if (side->extra.sync_target || side->extra.local_stale || side->extra.flush_failed) return {};
  }
  std::vector<uint64_t> extents;
  const uint64_t size = a.metadata.datasize;
  const uint64_t extent_bytes = a.metadata.extentsize;
  const ConstBytes left = pair.a().disk().current().subspan(a.metadata.offset, size);
  const ConstBytes right = pair.b().disk().current().subspan(b.metadata.offset, size);
  for (uint64_t at = 0; at < size; at += extent_bytes) {
    const uint64_t extent = at / extent_bytes;
    if (is_marked(a.map, extent) || is_marked(b.map, extent)) continue;
    const std::size_t length = std::min(extent_bytes, size - at);
    if (std::memcmp(left.data() + at, right.data() + at, length) != 0) extents.push_back(extent);
  }
  return extents;
}

std::string uncovered_difference(Pair& pair) {
  const std::vector<uint64_t> extents = uncovered_extents(pair);
  if (extents.empty()) return "";
  return "the nodes differ in extent " + std::to_string(extents[0]) + ", and nothing says so";
}

std::optional<uint64_t> first_difference(Pair& pair) {
  const ConstBytes left = pair.a().data();
  const ConstBytes right = pair.b().data();
  if (left.size() == right.size() && std::memcmp(left.data(), right.data(), left.size()) == 0) {
    return std::nullopt;  // much faster than to look for the place
  }
  const auto at = std::mismatch(left.begin(), left.end(), right.begin(), right.end());
  if (at.first == left.end()) return std::nullopt;
  return static_cast<uint64_t>(at.first - left.begin());
}

}  // namespace hast::test
