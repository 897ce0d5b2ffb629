#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"

/// CRC-32 (zlib's), SHA-256 and HMAC-SHA256 (OpenSSL's), and their names on the wire. Pure; any
/// thread.
namespace hast {

enum class Checksum : uint8_t {
  kNone = 0,
  kCrc32 = 1,
  kSha256 = 2,
  kUnknown = 255,  ///< a name from the wire that we do not know
};

inline constexpr size_t kHashBytesMax = 32;

/// CRC-32 as in IEEE 802.3. `seed` is the value of the bytes before, to go on from there.
uint32_t crc32_of(ConstBytes data, uint32_t seed = 0);
/// CRC-32C (Castagnoli), as our records of the metadata block carry it. Byte by byte: for small
/// areas.
uint32_t crc32c_of(ConstBytes data);
std::array<std::byte, 32> sha256_of(ConstBytes data);
/// Of all parts as one message. `key`: at least one byte.
std::array<std::byte, 32> hmac_sha256(ConstBytes key, std::span<const ConstBytes> parts);
/// In constant time, but for the lengths.
bool same_bytes(ConstBytes a, ConstBytes b);

/// "crc32", "sha256"; "none" for the rest.
std::string_view checksum_name(Checksum checksum);
/// kUnknown for anything but the two names.
Checksum checksum_from_name(std::string_view name);
/// 0, 4 or 32.
size_t checksum_bytes(Checksum checksum);

/// Writes the hash of `data` as it goes on the wire to `out` and returns its length. CRC-32 is
/// little endian. Not for kUnknown.
size_t checksum_compute(Checksum checksum, ConstBytes data,
                        std::span<std::byte, kHashBytesMax> out);
/// True when `hash` has exactly the right length and content. kNone is always right, kUnknown
/// never.
bool checksum_matches(Checksum checksum, ConstBytes data, ConstBytes hash);

}  // namespace hast
