// What a power cut leaves of a metadata block that is being written.

#pragma once

#include <array>
#include <cstring>
#include <vector>

#include "codec/metadata.h"

namespace hast::test {

using Block = std::array<std::byte, kMetadataBytes>;

inline Block block_of(const MetadataBlock& block) {
  Block bytes;
  std::memcpy(bytes.data(), block.bytes().data(), bytes.size());
  return bytes;
}

/// Every subset of the step's sectors is new.
inline std::vector<Block> torn(const Block& disk, const BlockPlan::Step& step,
                               const MetadataBlock& after, uint32_t sector_bytes) {
  std::vector<Block> all;
  const uint32_t sectors = step.length / sector_bytes;
  for (uint32_t subset = 0; subset < 1u << sectors; subset++) {
    Block mixed = disk;
    for (uint32_t i = 0; i < sectors; i++) {
      if ((subset >> i & 1) == 0) continue;
      const uint32_t at = step.offset + i * sector_bytes;
      std::memcpy(mixed.data() + at, after.bytes().data() + at, sector_bytes);
    }
    all.push_back(mixed);
  }
  return all;
}

}  // namespace hast::test
