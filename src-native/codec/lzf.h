#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

/// LZF streams, as liblzf writes and reads them: runs of literal bytes and references to what came
/// before. Pure; any thread.
namespace hast {

/// Where an encoder remembers positions: memory to work in, of which nothing is kept from one call
/// to the next. Need not be initialised.
struct LzfTables {
  static constexpr unsigned kFoursBits = 14;
  static constexpr unsigned kThreesBits = 10;
  std::array<uint16_t, 1u << kFoursBits> fours;    ///< by a hash of four bytes
  std::array<uint16_t, 1u << kThreesBits> threes;  ///< by a hash of three, behind matches only
};

/// Encodes `data` into `out`; returns the bytes of the stream, or 0 when it is longer than `out`,
/// which may be partly written then. The same data and length of `out` always give the same stream.
/// The two must not overlap.
size_t lzf_encode(LzfTables& tables, ConstBytes data, Bytes out);

/// Decodes a stream into `out`; returns the bytes produced. The two must not overlap.
/// Error: PEER_PAYLOAD for an empty or cut stream, a reference before the start, or more than fits;
/// then `out` may be written anywhere, as it may be behind the bytes produced.
Result<size_t> lzf_decode(ConstBytes stream, Bytes out);

}  // namespace hast
