#include "codec/compression.h"

#include <algorithm>

#include "base/assert.h"

namespace hast {
namespace {

constexpr Error damaged(const char* what) { return Error{Code::PEER_PAYLOAD, 0, what}; }

/// Appends `length` bytes that begin `distance` before `at`, byte by byte in meaning: with a
/// distance below the length the last bytes repeat.
void copy_back(std::byte* at, size_t distance, size_t length) {
  const std::byte* from = at - distance;
  if (distance >= length) {
    std::memcpy(at, from, length);
  } else if (distance == 1) {
    std::memset(at, static_cast<int>(*from), length);
  } else {
    for (size_t i = 0; i < length; i++) at[i] = from[i];
  }
}

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

Compression compress(Compression configured, ConstBytes data,
                     std::span<std::byte, kHoleBytes> hole) {
  HAST_ASSERT(configured != Compression::kUnknown);
  HAST_ASSERT_OP(data.size(), <=, UINT32_MAX);
  if (configured == Compression::kNone) return Compression::kNone;
  if (data.empty() || data.size() % 8 != 0 || !all_zero(data)) return Compression::kNone;
  store_le(hole.data(), static_cast<uint32_t>(data.size()));
  return Compression::kHole;
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

Result<size_t> lzf_decode(ConstBytes stream, Bytes out) {
  if (stream.empty()) return damaged("an empty lzf stream");
  const auto* in = reinterpret_cast<const uint8_t*>(stream.data());
  size_t left = stream.size();  // bytes of input not yet read
  size_t done = 0;              // bytes of output produced
  while (left > 0) {
    const uint8_t control = *in;
    in++;
    left--;
    if (control < 0x20) {
      const size_t run = size_t{control} + 1;
      if (run > left) return damaged("an lzf literal run that is cut off");
      if (run > out.size() - done) return damaged("an lzf stream that decodes to too much");
      std::memcpy(out.data() + done, in, run);
      in += run;
      left -= run;
      done += run;
      continue;
    }
    size_t length = size_t{control} >> 5;
    const size_t operands = length == 7 ? 2 : 1;
    if (operands > left) return damaged("an lzf reference that is cut off");
    if (operands == 2) length += in[0];
    length += 2;
    const size_t distance = ((size_t{control} & 0x1f) << 8 | in[operands - 1]) + 1;
    in += operands;
    left -= operands;
    if (distance > done) return damaged("an lzf reference before the start");
    if (length > out.size() - done) return damaged("an lzf stream that decodes to too much");
    copy_back(out.data() + done, distance, length);
    done += length;
  }
  return done;
}

}  // namespace hast
