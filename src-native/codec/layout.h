#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "codec/metadata.h"

/// What `create` makes of a provider: where the map and the data lie. Pure; any thread.
namespace hast {

inline constexpr uint64_t kDefaultExtentBytes = 2u << 20;
inline constexpr uint64_t kDefaultKeepdirty = 64;
inline constexpr uint64_t kAlignedDataBytes = 1u << 20;

enum class LayoutKind : uint8_t {
  kAligned,  ///< the data offset is a multiple of 1 MiB
  kHast,     ///< as the original's create, byte for byte
};

struct LayoutRequest {
  uint64_t provider_bytes = 0;
  uint64_t media_bytes = 0;  ///< -m; 0 means the whole provider
  uint32_t sector_bytes = 512;
  uint64_t extent_bytes = kDefaultExtentBytes;  ///< -e
  uint64_t keepdirty = kDefaultKeepdirty;       ///< -k, extents
  LayoutKind kind = LayoutKind::kAligned;
};

struct Layout {
  uint64_t map_bytes = 0;  ///< from byte 4096; a multiple of the sector
  uint64_t data_offset = 0;
  uint64_t data_bytes = 0;
  uint32_t extent_bytes = 0;
  uint32_t keepdirty = 0;
};

/// Bytes of the map for this many bytes of data, as whole sectors. Sizes are powers of two.
uint64_t map_bytes_for(uint64_t data_bytes, uint32_t extent_bytes, uint32_t sector_bytes);

/// Errors: LAYOUT_SECTOR, LAYOUT_EXTENT, LAYOUT_KEEPDIRTY, LAYOUT_MEDIA, LAYOUT_SMALL.
Result<Layout> plan_layout(const LayoutRequest& request);

/// Fresh metadata of a resource: counters and id 0, role init. `name`: 1 to 254 bytes.
Metadata initial_metadata(std::string_view name, const Layout& layout);

}  // namespace hast
