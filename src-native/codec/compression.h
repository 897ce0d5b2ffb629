#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "codec/lzf.h"

/// Compression of payloads: `hole` (all zeros, sent as a length) and `lzf` (a length and an LZF
/// stream). Pure; any thread. Whatever we are configured to send, we decode both.
namespace hast {

enum class Compression : uint8_t {
  kNone = 0,
  kHole = 1,
  kLzf = 2,
  kUnknown = 255,  ///< a name from the wire that we do not know
};

/// Bytes of a hole's payload, and of the length in front of an LZF stream.
inline constexpr size_t kHoleBytes = 4;
/// LZF is sent only when its stream is so much shorter than the data: originals ask for it.
inline constexpr size_t kLzfGainMin = 1024;

/// "hole", "lzf"; "none" for the rest.
std::string_view compression_name(Compression compression);
/// kUnknown for anything but the two names.
Compression compression_from_name(std::string_view name);

/// Is every byte zero? True for no bytes. Stops soon after the first that is not.
bool all_zero(ConstBytes data);

/// What data are to be sent as.
struct Compressed {
  Compression compression = Compression::kNone;
  ConstBytes payload;  ///< the data themselves, or the beginning of `room`
};

/// Compresses `data` in the way that is configured, if it can be: zeros to a hole when they are a
/// multiple of 8 bytes, and with kLzf configured what gains enough by it. Neither fails: then the
/// data go as they are. `room`: kHoleBytes at least; LZF is bounded by it, and never needs more
/// than data.size(). It must stay, as `data` must, until the payload is sent.
Compressed compress(Compression configured, ConstBytes data, Bytes room, LzfTables& tables);

/// Turns a payload of `compression` into exactly out.size() bytes; they must not overlap.
/// Error: PEER_PAYLOAD when it is damaged or has another length. `out` may be partly written then.
Result<void> decompress(Compression compression, ConstBytes payload, Bytes out);

}  // namespace hast
