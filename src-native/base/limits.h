#pragma once

#include <cstdint>

/// Every bound of the core, once. Others are derived from these.
namespace hast {

/// Largest READ or WRITE a version 2 peer must accept, and the step of synchronisation (bytes).
inline constexpr uint32_t kRequestBytesMax = 131072;
/// Largest READ or WRITE accepted from a peer (newer originals may send it), bytes.
inline constexpr uint32_t kPeerRequestBytesMax = 1048576;
/// Request slots of one resource, and how many of them only synchronisation may use.
inline constexpr uint32_t kRequestsMax = 256;
inline constexpr uint32_t kRequestsReservedForSync = 32;
/// No client of the provider holds more than this many slots.
inline constexpr uint32_t kRequestsPerClientMax = kRequestsMax / 2;
/// Requests that the kernel's ublk driver has with us at a time: none of them waits for its share.
inline constexpr uint16_t kUblkDepth = kRequestsPerClientMax;

/// Largest nv area of a message between nodes, and of the metadata block (bytes).
inline constexpr uint32_t kMessageBytesMax = 65536;
inline constexpr uint32_t kMetadataBytes = 4096;
inline constexpr uint32_t kMapBytesMax = 64u << 20;
inline constexpr uint32_t kNameBytesMax = 254;

inline constexpr uint32_t kSectorBytesMin = 512;
inline constexpr uint32_t kSectorBytesMax = 4096;
/// Holes are punched in whole units of this, counted on the disk; edges of a DELETE are left alone.
inline constexpr uint64_t kDeleteGranule = 4096;

inline constexpr uint32_t kExtentBytesMin = 131072;
inline constexpr uint32_t kExtentBytesMax = 1u << 30;

}  // namespace hast
