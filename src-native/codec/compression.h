#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

/// Compression of payloads: `hole` (all zeros, sent as a length) and `lzf`. Pure; any thread.
///
/// There is no LZF encoder yet: with `lzf` configured we send `hole` or nothing, which every
/// receiver accepts. Whatever we are configured to send, we decode all of it.
namespace hast {

enum class Compression : uint8_t {
  kNone = 0,
  kHole = 1,
  kLzf = 2,
  kUnknown = 255,  ///< a name from the wire that we do not know
};

/// Bytes of a hole's payload, and of the length in front of an LZF stream.
inline constexpr size_t kHoleBytes = 4;

/// "hole", "lzf"; "none" for the rest.
std::string_view compression_name(Compression compression);
/// kUnknown for anything but the two names.
Compression compression_from_name(std::string_view name);

/// Is every byte zero? True for no bytes. Stops soon after the first that is not.
bool all_zero(ConstBytes data);

/// What to send for `data` under the configured compression, at best: kHole when it is all zeros
/// and a multiple of 8 bytes long, then `hole` is filled with the payload; else kNone.
Compression compress(Compression configured, ConstBytes data,
                     std::span<std::byte, kHoleBytes> hole);

/// Turns a payload of `compression` into exactly out.size() bytes; they must not overlap.
/// Error: PEER_PAYLOAD when it is damaged or has another length. `out` may be partly written then.
Result<void> decompress(Compression compression, ConstBytes payload, Bytes out);

/// Decodes a raw LZF stream (without the length in front) into `out`; returns the bytes produced.
/// Error: PEER_PAYLOAD for an empty or cut stream, a reference before the start, or more than fits.
Result<size_t> lzf_decode(ConstBytes stream, Bytes out);

}  // namespace hast
