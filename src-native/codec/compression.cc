#include "codec/compression.h"

#include <algorithm>

#include "base/assert.h"

namespace hast {
namespace {

constexpr Error damaged(const char* what) { return Error{Code::PEER_PAYLOAD, 0, what}; }

Result<void> decompress_hole(ConstBytes payload, Bytes out) {
  if (payload.size() != kHoleBytes) return damaged("a hole that is not 4 bytes long");
  if (load_le<uint32_t>(payload.data()) != out.size()) return damaged("a hole of another length");
  if (!out.empty()) std::memset(out.data(), 0, out.size());
  return {};
}

Result<void> decompress_lzf(ConstBytes payload, Bytes out) {
  if (payload.size() <= kHoleBytes) return damaged("an lzf payload without a stream");
  if (load_le<uint32_t>(payload.data()) != out.size()) return damaged("lzf of another length");
  const Result<size_t> produced = lzf_decode(payload.subspan(kHoleBytes), out);
  if (!produced) return produced.error();
  if (*produced != out.size()) return damaged("an lzf stream that ends too early");
  return {};
}

}  // namespace

std::string_view compression_name(Compression compression) {
  if (compression == Compression::kHole) return "hole";
  if (compression == Compression::kLzf) return "lzf";
  return "none";
}

Compression compression_from_name(std::string_view name) {
  if (name == "hole") return Compression::kHole;
  if (name == "lzf") return Compression::kLzf;
  return Compression::kUnknown;
}

bool all_zero(ConstBytes data) {
  // Zero at the start, and every byte equal to the one 16 before it: memcmp is as fast as it gets.
  constexpr size_t kStep = 16;
  const size_t head = std::min(data.size(), kStep);
  for (size_t i = 0; i < head; i++) {
    if (data[i] != std::byte{0}) return false;
  }
  return data.size() <= kStep ||
         std::memcmp(data.data(), data.data() + kStep, data.size() - kStep) == 0;
}

Compressed compress(Compression configured, ConstBytes data, Bytes room, LzfTables& tables) {
  HAST_ASSERT(configured != Compression::kUnknown);
  HAST_ASSERT_OP(data.size(), <=, UINT32_MAX);
  HAST_ASSERT_OP(room.size(), >=, kHoleBytes);
  const Compressed plain = {Compression::kNone, data};
  if (configured == Compression::kNone || data.empty()) return plain;
  if (data.size() % 8 == 0 && all_zero(data)) {
    store_le(room.data(), static_cast<uint32_t>(data.size()));
    return {Compression::kHole, room.first(kHoleBytes)};
  }
  if (configured != Compression::kLzf || data.size() <= kLzfGainMin) return plain;
  const size_t most = std::min(data.size() - kLzfGainMin, room.size() - kHoleBytes);
  const size_t stream = lzf_encode(tables, data, room.subspan(kHoleBytes, most));
  if (stream == 0) return plain;
  store_le(room.data(), static_cast<uint32_t>(data.size()));
  return {Compression::kLzf, room.first(kHoleBytes + stream)};
}

Result<void> decompress(Compression compression, ConstBytes payload, Bytes out) {
  switch (compression) {
    case Compression::kNone:
      if (payload.size() != out.size()) return damaged("data of another length");
      if (!out.empty()) std::memcpy(out.data(), payload.data(), out.size());
      return {};
    case Compression::kHole:
      return decompress_hole(payload, out);
    case Compression::kLzf:
      return decompress_lzf(payload, out);
    case Compression::kUnknown:
      break;
  }
  return damaged("an unknown compression");
}

}  // namespace hast
