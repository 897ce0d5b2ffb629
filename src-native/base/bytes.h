#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

/// Explicit little- and big-endian access to bytes that need not be aligned.
/// Disk and wire structures are read and written through these, never by casting a buffer.
namespace hast {

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

static_assert(std::endian::native == std::endian::little, "only little-endian hosts are supported");

template <typename T>
inline T load_le(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
inline void store_le(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

inline uint16_t load_be16(const std::byte* from) {
  return __builtin_bswap16(load_le<uint16_t>(from));
}
inline uint32_t load_be32(const std::byte* from) {
  return __builtin_bswap32(load_le<uint32_t>(from));
}
inline uint64_t load_be64(const std::byte* from) {
  return __builtin_bswap64(load_le<uint64_t>(from));
}
inline void store_be16(std::byte* to, uint16_t value) { store_le(to, __builtin_bswap16(value)); }
inline void store_be32(std::byte* to, uint32_t value) { store_le(to, __builtin_bswap32(value)); }
inline void store_be64(std::byte* to, uint64_t value) { store_le(to, __builtin_bswap64(value)); }

/// Rounds up to a multiple of a power of two.
inline constexpr uint64_t round_up(uint64_t value, uint64_t power) {
  return (value + power - 1) & ~(power - 1);
}
inline constexpr uint64_t round_down(uint64_t value, uint64_t power) {
  return value & ~(power - 1);
}

}  // namespace hast
