#include "codec/lzf.h"

#include <algorithm>
#include <bit>

// A stream is a row of items, told apart by the first byte:
//   0x00..0x1f            that many literal bytes and one more follow
//   0x20..0xdf  low       a reference: length (first byte >> 5) + 2
//   0xe0..0xff  more low  a reference: length more + 9
// The distance of a reference is the low 5 bits of the first byte, then `low`, plus 1.

namespace hast {
namespace {

constexpr size_t kRunMax = 32;
constexpr uint32_t kDistanceMax = 8192;
constexpr size_t kLengthMax = 264;
constexpr size_t kLongLength = 9;  // from here on a reference takes three bytes

uint32_t load32(const uint8_t* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

uint64_t load64(const uint8_t* from) {
  uint64_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// --- encoding
// ------------------------------------------------------------------------------------------------

constexpr uint32_t kOdd = 2654435761u;

uint32_t hash_of_four(uint64_t bytes) {
  return static_cast<uint32_t>(bytes) * kOdd >> (32 - LzfTables::kFoursBits);
}
uint32_t hash_of_three(uint64_t bytes) {
  return (static_cast<uint32_t>(bytes) << 8) * kOdd >> (32 - LzfTables::kThreesBits);
}

/// How far back `position` was last entered, and enters it anew. Tables keep 16 bits of a position:
/// a distance is one modulo 65536, never beyond the start, and a match only if the bytes say so.
uint32_t exchange(uint16_t& entry, size_t position) {
  const uint16_t now = static_cast<uint16_t>(position);
  const uint16_t distance = static_cast<uint16_t>(now - entry);
  entry = now;
  return distance;
}

/// 1 to kDistanceMax.
bool in_reach(uint32_t distance) { return distance - 1 < kDistanceMax; }

/// How many bytes from `at` on repeat what is `distance` before, of which `length` are known. Eight
/// more may be read.
size_t match_length(const uint8_t* at, uint32_t distance, size_t length, const uint8_t* end) {
  const size_t most = std::min(static_cast<size_t>(end - at), kLengthMax);
  const uint8_t* const from = at - distance;
  do {
    const uint64_t difference = load64(at + length) ^ load64(from + length);
    if (difference != 0) return length + static_cast<size_t>(std::countr_zero(difference)) / 8;
    length += 8;
  } while (length + 8 <= most);
  while (length < most && at[length] == from[length]) length++;
  return length;
}

size_t run_bytes(size_t literals) { return literals + (literals + kRunMax - 1) / kRunMax; }
size_t reference_bytes(size_t length) { return length < kLongLength ? 2 : 3; }

/// One pass over the data, in which the nearest earlier place that a table knows is taken.
class Encoder {
 public:
  Encoder(LzfTables& tables, ConstBytes data, Bytes out)
      : tables_(tables),
        start_(reinterpret_cast<const uint8_t*>(data.data())),
        end_(start_ + data.size()),
        at_(start_),
        pending_(start_),
        out_(reinterpret_cast<uint8_t*>(out.data())),
        out_end_(out_ + out.size()) {}

  /// Where the stream ends; null when it does not fit.
  uint8_t* run() {
    if (end_ - start_ > kTail) {
      last_ = end_ - kTail;
      tables_.fours.fill(0);
      tables_.threes.fill(0);
      at_++;  // the first byte repeats nothing
      while (find()) {
        extend_back();
        do {
          if (!fits_match()) return nullptr;
        } while (put_match());
      }
    }
    const size_t rest = static_cast<size_t>(end_ - pending_);
    if (!fits(run_bytes(rest))) return nullptr;
    put_literals(rest);
    return out_;
  }

 private:
  /// Before `last_` eight bytes can be read four bytes behind the next one.
  static constexpr ptrdiff_t kTail = 12;

  size_t literals() const { return static_cast<size_t>(at_ - pending_); }
  bool fits(size_t bytes) const { return static_cast<size_t>(out_end_ - out_) >= bytes; }
  /// The match at hand and the literals before it. Mostly there is room to spare.
  bool fits_match() const {
    const size_t count = literals();
    return fits(count + count / kRunMax + 4) || fits(run_bytes(count) + reference_bytes(length_));
  }
  size_t position() const { return static_cast<size_t>(at_ - start_); }

  /// The next match of four bytes or more. Two positions are looked up at once: the memory is
  /// waited for once, and there is one branch that cannot be foretold.
  bool find() {
    while (at_ < last_) {
      const uint64_t bytes = load64(at_);
      const uint32_t here = exchange(tables_.fours[hash_of_four(bytes)], position());
      const uint32_t there = exchange(tables_.fours[hash_of_four(bytes >> 8)], position() + 1);
      const bool is_here = (load32(at_ - here) == static_cast<uint32_t>(bytes)) & in_reach(here);
      const bool is_there =
          (load32(at_ + 1 - there) == static_cast<uint32_t>(bytes >> 8)) & in_reach(there);
      if (is_here | is_there) {
        distance_ = is_here ? here : there;
        at_ += is_here ? 0 : 1;
        length_ = match_length(at_, distance_, 4, end_);
        return true;
      }
      at_ += 2;
    }
    return false;
  }

  /// The match at hand may have begun before.
  void extend_back() {
    const uint8_t* from = at_ - distance_;
    size_t most = std::min(literals(), static_cast<size_t>(from - start_));
    most = std::min(most, kLengthMax - length_);
    for (; most > 0 && at_[-1] == from[-1]; most--) {
      at_--;
      from--;
      length_++;
    }
  }

  /// Puts the match at hand and the literals before it. True: another match is right behind. Only
  /// there do three bytes save anything: elsewhere they cost as much as to begin another run.
  bool put_match() {
    const uint8_t* const next = at_ + length_;
    if (next >= last_) {
      put_literals_wide();
      put_reference();
      return false;
    }
    // What comes next is looked up first: what is put now can be done while memory is waited for.
    const size_t place = static_cast<size_t>(next - start_);
    const uint64_t bytes = load64(next);
    const uint32_t four = exchange(tables_.fours[hash_of_four(bytes)], place);
    const uint32_t three = exchange(tables_.threes[hash_of_three(bytes)], place);
    const uint32_t unlike_four = load32(next - four) ^ static_cast<uint32_t>(bytes);
    const uint32_t unlike_three = (load32(next - three) ^ static_cast<uint32_t>(bytes)) << 8;
    put_literals_wide();
    put_reference();
    const uint64_t before = load64(next - 2);
    tables_.fours[hash_of_four(before)] = static_cast<uint16_t>(place - 2);
    tables_.fours[hash_of_four(before >> 8)] = static_cast<uint16_t>(place - 1);
    if ((unlike_four == 0) & in_reach(four)) {
      distance_ = four;
      length_ = match_length(next, four, 4, end_);
      return true;
    }
    if (unlike_three == 0 && in_reach(three)) {
      distance_ = three;
      length_ = 3;
      return true;
    }
    at_++;
    return false;
  }

  void put_reference() {
    const uint32_t back = distance_ - 1;
    const size_t code = std::min(length_, kLongLength) - 2;
    out_[0] = static_cast<uint8_t>(code << 5 | back >> 8);
    out_[1] = static_cast<uint8_t>(length_ - kLongLength);  // no part of a short one
    out_ += reference_bytes(length_);
    out_[-1] = static_cast<uint8_t>(back);
    at_ += length_;
    pending_ = at_;
  }

  /// What is pending up to the match: mostly less than a run, then copied in one piece.
  void put_literals_wide() {
    const size_t count = literals();
    if (count == 0) return;
    if (count > kRunMax || !fits(1 + kRunMax) || end_ - pending_ < ptrdiff_t{kRunMax}) {
      put_literals(count);
      return;
    }
    out_[0] = static_cast<uint8_t>(count - 1);
    std::memcpy(out_ + 1, pending_, kRunMax);
    out_ += 1 + count;
  }

  void put_literals(size_t count) {
    while (count > 0) {
      const size_t run = std::min(count, kRunMax);
      *out_ = static_cast<uint8_t>(run - 1);
      std::memcpy(out_ + 1, pending_, run);
      out_ += run + 1;
      pending_ += run;
      count -= run;
    }
  }

  LzfTables& tables_;
  const uint8_t* const start_;
  const uint8_t* const end_;
  const uint8_t* last_ = nullptr;
  const uint8_t* at_;
  const uint8_t* pending_;  // literals from here on are not yet put
  uint8_t* out_;
  uint8_t* const out_end_;
  uint32_t distance_ = 0;  // of the match at hand
  size_t length_ = 0;
};

}  // namespace

size_t lzf_encode(LzfTables& tables, ConstBytes data, Bytes out) {
  const uint8_t* const end = Encoder(tables, data, out).run();
  return end == nullptr ? 0 : static_cast<size_t>(end - reinterpret_cast<uint8_t*>(out.data()));
}

// --- decoding
// ------------------------------------------------------------------------------------------------

namespace {

constexpr const char* kBeforeStart = "an lzf reference before the start";

constexpr Error damaged(const char* what) { return Error{Code::PEER_PAYLOAD, 0, what}; }

constexpr size_t kWide = 16;
/// With so much left of both, any item can be read, and copied in whole words.
constexpr ptrdiff_t kWideInput = 1 + kRunMax;
constexpr ptrdiff_t kWideOutput = kLengthMax + kWide;

/// Copies `length` bytes and up to 15 more from `distance` before, in steps of one word.
void copy_wide(uint8_t* to, uint32_t distance, size_t length) {
  uint8_t* const end = to + length;
  const uint8_t* from = to - distance;
  if (distance >= kWide) {
    do {
      std::memcpy(to, from, kWide);
      to += kWide;
      from += kWide;
    } while (to < end);
    return;
  }
  if (distance < 8) {
    // The bytes that repeat, as often as a word has room for them; from then on, whole words from
    // as many times the distance as make one.
    static constexpr uint64_t kRepeat[8] = {0,
                                            0x0101010101010101,
                                            0x0001000100010001,
                                            0x0001000001000001,
                                            0x0000000100000001,
                                            0x0000010000000001,
                                            0x0001000000000001,
                                            0x0100000000000001};
    static constexpr uint8_t kFar[8] = {0, 8, 8, 9, 8, 10, 12, 14};
    const uint64_t pattern =
        (load64(from) & ((uint64_t{1} << 8 * distance) - 1)) * kRepeat[distance];
    std::memcpy(to, &pattern, sizeof pattern);
    to += 8;
    from = to - kFar[distance];
    if (to >= end) return;
  }
  do {
    std::memcpy(to, from, 8);
    to += 8;
    from += 8;
  } while (to < end);
}

struct Reference {
  uint32_t distance;
  size_t length;
};

/// Bytes of the reference that begins with `control`.
size_t reference_size(uint32_t control) { return control < 0xe0 ? 2 : 3; }
Reference read_reference(const uint8_t* in, uint32_t control, size_t size) {
  return {((control & 0x1f) << 8 | in[size - 1]) + 1, (control >> 5) + 2 + (size == 3 ? in[1] : 0)};
}

/// Where a decoder stands.
struct Cursor {
  const uint8_t* in;
  const uint8_t* const in_end;
  uint8_t* out;
  uint8_t* const out_start;
  uint8_t* const out_end;
};

/// All items that leave so much behind them that nothing but distances must be checked. False when
/// one is wrong.
bool decode_wide(Cursor& cursor) {
  const uint8_t* in = cursor.in;
  uint8_t* out = cursor.out;
  while (cursor.in_end - in >= kWideInput && cursor.out_end - out >= kWideOutput) {
    const uint32_t control = *in;
    if (control < kRunMax) {
      std::memcpy(out, in + 1, kRunMax);
      in += control + 2;
      out += control + 1;
      continue;
    }
    const size_t size = reference_size(control);
    const Reference reference = read_reference(in, control, size);
    if (reference.distance > out - cursor.out_start) return false;
    copy_wide(out, reference.distance, reference.length);
    in += size;
    out += reference.length;
  }
  cursor.in = in;
  cursor.out = out;
  return true;
}

/// One item, near the end of the input or of the output. Null, or what is wrong with it.
const char* decode_item(Cursor& cursor) {
  const size_t left = static_cast<size_t>(cursor.in_end - cursor.in);
  const size_t room = static_cast<size_t>(cursor.out_end - cursor.out);
  const uint32_t control = *cursor.in;
  if (control < kRunMax) {
    const size_t run = control + 1;
    if (left - 1 < run) return "an lzf literal run that is cut off";
    if (room < run) return "an lzf stream that decodes to too much";
    std::memcpy(cursor.out, cursor.in + 1, run);
    cursor.in += 1 + run;
    cursor.out += run;
    return nullptr;
  }
  const size_t size = reference_size(control);
  if (left < size) return "an lzf reference that is cut off";
  const Reference reference = read_reference(cursor.in, control, size);
  if (reference.distance > cursor.out - cursor.out_start) return kBeforeStart;
  if (room < reference.length) return "an lzf stream that decodes to too much";
  const uint8_t* from = cursor.out - reference.distance;
  for (size_t i = 0; i < reference.length; i++) cursor.out[i] = from[i];
  cursor.in += size;
  cursor.out += reference.length;
  return nullptr;
}

}  // namespace

Result<size_t> lzf_decode(ConstBytes stream, Bytes out) {
  if (stream.empty()) return damaged("an empty lzf stream");
  const auto* const in = reinterpret_cast<const uint8_t*>(stream.data());
  auto* const start = reinterpret_cast<uint8_t*>(out.data());
  Cursor cursor{in, in + stream.size(), start, start, start + out.size()};
  if (!decode_wide(cursor)) return damaged(kBeforeStart);
  while (cursor.in < cursor.in_end) {
    const char* const wrong = decode_item(cursor);
    if (wrong != nullptr) return damaged(wrong);
  }
  return static_cast<size_t>(cursor.out - start);
}

}  // namespace hast
