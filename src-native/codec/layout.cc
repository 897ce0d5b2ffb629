#include "codec/layout.h"

#include <bit>

namespace hast {
namespace {

uint64_t divide_up(uint64_t value, uint64_t by) { return value / by + (value % by != 0 ? 1 : 0); }

Result<void> check_request(const LayoutRequest& r, uint64_t media_bytes) {
  if (!std::has_single_bit(r.sector_bytes) || r.sector_bytes < kSectorBytesMin ||
      r.sector_bytes > kSectorBytesMax) {
    return Error{Code::LAYOUT_SECTOR, 0, "the sector size is no power of two from 512 to 4096"};
  }
  if (media_bytes > r.provider_bytes) {
    return Error{Code::LAYOUT_MEDIA, 0, "the media size is larger than the provider"};
  }
  if (media_bytes % r.sector_bytes != 0) {
    return Error{Code::LAYOUT_MEDIA, 0, "the media size is not a multiple of the sector size"};
  }
  if (r.extent_bytes < r.sector_bytes) {
    return Error{Code::LAYOUT_EXTENT, 0, "the extent size is less than the sector size"};
  }
  if (r.extent_bytes % r.sector_bytes != 0) {
    return Error{Code::LAYOUT_EXTENT, 0, "the extent size is not a multiple of the sector size"};
  }
  if (!std::has_single_bit(r.extent_bytes)) {
    return Error{Code::LAYOUT_EXTENT, 0, "the extent size is no power of two"};
  }
  if (r.extent_bytes > kExtentBytesMax) {
    return Error{Code::LAYOUT_EXTENT, 0, "the extent size is larger than 1 GiB"};
  }
  if (r.keepdirty == 0 || r.keepdirty > INT32_MAX) {
    return Error{Code::LAYOUT_KEEPDIRTY, 0, "keepdirty is not between 1 and 2147483647"};
  }
  return {};
}

}  // namespace

uint64_t map_bytes_for(uint64_t data_bytes, uint32_t extent_bytes, uint32_t sector_bytes) {
  HAST_ASSERT(std::has_single_bit(extent_bytes) && std::has_single_bit(sector_bytes));
  return round_up(divide_up(divide_up(data_bytes, extent_bytes), 8), sector_bytes);
}

Result<Layout> plan_layout(const LayoutRequest& request) {
  const uint64_t media = request.media_bytes != 0 ? request.media_bytes : request.provider_bytes;
  const Result<void> checked = check_request(request, media);
  if (!checked) return checked.error();
  if (media <= kMetadataBytes) {
    return Error{Code::LAYOUT_SMALL, 0, "there is no room behind the metadata"};
  }
  Layout layout;
  layout.extent_bytes = static_cast<uint32_t>(request.extent_bytes);
  layout.keepdirty = static_cast<uint32_t>(request.keepdirty);
  // As the original counts: over everything behind the metadata, the map itself included.
  layout.map_bytes =
      map_bytes_for(media - kMetadataBytes, layout.extent_bytes, request.sector_bytes);
  if (layout.map_bytes > kMapBytesMax) {
    return Error{Code::LAYOUT_EXTENT, 0, "there are too many extents: make them larger"};
  }
  layout.data_offset = kMetadataBytes + layout.map_bytes;
  if (request.kind == LayoutKind::kAligned) {
    layout.data_offset = round_up(layout.data_offset, kAlignedDataBytes);
  }
  if (layout.data_offset >= media || media - layout.data_offset < layout.extent_bytes) {
    return Error{Code::LAYOUT_SMALL, 0, "there is no room for one extent of data"};
  }
  layout.data_bytes = media - layout.data_offset;
  return layout;
}

Metadata initial_metadata(std::string_view name, const Layout& layout) {
  Metadata metadata;
  metadata.resource = ResourceName(name);
  metadata.datasize = layout.data_bytes;
  metadata.extentsize = layout.extent_bytes;
  metadata.keepdirty = layout.keepdirty;
  metadata.offset = layout.data_offset;
  return metadata;
}

}  // namespace hast
