#include "codec/activemap.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"
#include "codec/bitmap.h"

namespace hast {
namespace {

constexpr unsigned kComponents = 2;

/// kLocal is 0, kRemote is 1.
unsigned component_index(uint8_t component) {
  HAST_ASSERT(component == kLocal || component == kRemote);
  return component == kLocal ? 0 : 1;
}

uint32_t divide_up(uint64_t value, uint32_t by) {
  return static_cast<uint32_t>(value / by + (value % by != 0 ? 1 : 0));
}

/// Per extent; together, so that a write touches one cache line of them.
struct ExtentState {
  uint32_t pending;      // writes in flight
  uint32_t more_recent;  // keepdirty list: neighbour towards the front, extent + 1; 0: none
  uint32_t less_recent;  // towards the back, likewise
};

}  // namespace

/// All sets are over extents unless named otherwise.
///
/// `wanted` is the map as it should be on disk, kept up to date bit by bit with the sets it is the
/// union of. `target` is what the disk holds, or will hold when the store in flight succeeds.
/// `durable` has the bits that are 1 on disk and stay so whatever the store in flight comes to.
/// From the three follow, counted per map sector, the stale bits (wanted != target) and the urgent
/// ones (wanted and not durable).
struct Activemap::State {
  State(uint64_t data_bytes_, uint32_t extent_bytes_, uint32_t keepdirty_, uint32_t sector_bytes_);

  const uint64_t data_bytes;
  const uint32_t extent_bytes;
  const uint32_t extent_count;
  const uint32_t keepdirty_max;
  const uint32_t sector_bytes;
  const uint32_t sector_words;  // 64-bit words of map in one sector
  const uint32_t sector_count;

  std::unique_ptr<ExtentState[], FreeDeleter> extents;
  uint32_t most_recent = 0;  // keepdirty list, extent + 1; 0: empty
  uint32_t least_recent = 0;

  IndexSet pending, sync, kept;
  IndexSet unflushed[kComponents];
  IndexSet covered[kComponents];  // by the open flush
  IndexSet copying;               // between sync_begin and sync_end
  IndexSet remarked;              // of those: marked again meanwhile
  bool flush_open[kComponents] = {};
  uint32_t dirty_count = 0;      // pending or sync
  uint32_t unflushed_count = 0;  // unflushed on either

  IndexSet wanted, target;
  std::unique_ptr<uint64_t[], FreeDeleter> durable;
  std::unique_ptr<uint32_t[], FreeDeleter> stale_bits;   // per sector
  std::unique_ptr<uint32_t[], FreeDeleter> urgent_bits;  // per sector
  IndexSet stale_sectors, urgent_sectors, sectors_in_flight;
  IndexSet unknown_sectors;  // a store failed: either content may be there

  struct Span {
    uint32_t first;
    uint32_t last;
  };
  Span span_of(uint64_t offset, uint64_t length) const;
  bool is_durable(uint32_t extent) const {
    return (durable[extent / 64] >> (extent % 64) & 1) != 0;
  }

  uint64_t must_stay(uint32_t word) const;
  void refresh(uint32_t extent);
  void note_sector(uint32_t sector);
  void add_pending(uint32_t extent);
  void drop_pending(uint32_t extent);
  void drop_oldest_kept();
  void touch_kept(uint32_t extent);
  void link_front(uint32_t extent);
  void unlink(uint32_t extent);
  void add_sync(uint32_t extent);
  void drop_sync(uint32_t extent);
  void add_unflushed(unsigned component, uint32_t extent);
  void drop_unflushed(unsigned component, uint32_t extent);
  void count_dirty(uint32_t extent, bool was);
  void close_flush(unsigned component, bool ok);
};

Activemap::State::State(uint64_t data_bytes_, uint32_t extent_bytes_, uint32_t keepdirty_,
                        uint32_t sector_bytes_)
    : data_bytes(data_bytes_),
      extent_bytes(extent_bytes_),
      extent_count(divide_up(data_bytes_, extent_bytes_)),
      keepdirty_max(keepdirty_),
      sector_bytes(sector_bytes_),
      sector_words(sector_bytes_ / 8),
      sector_count(divide_up(divide_up(extent_count, 8), sector_bytes_)),
      extents(zeroed_array<ExtentState>(extent_count)),
      pending(extent_count),
      sync(extent_count),
      kept(extent_count),
      unflushed{IndexSet(extent_count), IndexSet(extent_count)},
      covered{IndexSet(extent_count), IndexSet(extent_count)},
      copying(extent_count),
      remarked(extent_count),
      wanted(extent_count, sector_words),
      target(extent_count, sector_words),
      durable(zeroed_array<uint64_t>(size_t{sector_count} * sector_words)),
      stale_bits(zeroed_array<uint32_t>(sector_count)),
      urgent_bits(zeroed_array<uint32_t>(sector_count)),
      stale_sectors(sector_count),
      urgent_sectors(sector_count),
      sectors_in_flight(sector_count),
      unknown_sectors(sector_count) {
  HAST_ASSERT_OP(wanted.word_count(), ==, sector_count * sector_words);
}

Activemap::State::Span Activemap::State::span_of(uint64_t offset, uint64_t length) const {
  HAST_ASSERT_OP(length, >, 0u);
  HAST_ASSERT_OP(length, <=, data_bytes);
  HAST_ASSERT_OP(offset, <=, data_bytes - length);
  return {static_cast<uint32_t>(offset / extent_bytes),
          static_cast<uint32_t>((offset + length - 1) / extent_bytes)};
}

/// Recomputes the wanted bit of one extent after any of its sets changed.
void Activemap::State::refresh(uint32_t extent) {
  const bool want = pending.has(extent) || sync.has(extent) || kept.has(extent) ||
                    unflushed[0].has(extent) || unflushed[1].has(extent) ||
                    covered[0].has(extent) || covered[1].has(extent);
  if (!(want ? wanted.add(extent) : wanted.remove(extent))) return;
  const uint32_t sector = extent / (sector_bytes * 8);
  if (want == target.has(extent)) {
    HAST_ASSERT_OP(stale_bits[sector], >, 0u);
    stale_bits[sector]--;
  } else {
    stale_bits[sector]++;
  }
  if (!is_durable(extent)) {
    HAST_ASSERT(want || urgent_bits[sector] > 0);
    urgent_bits[sector] += want ? 1u : UINT32_MAX;
  }
  note_sector(sector);
}

/// A word of the bits that a store must not clear: what some component has not confirmed, and what
/// it might lose.
uint64_t Activemap::State::must_stay(uint32_t word) const {
  if (word >= pending.word_count()) return 0;  // no extents there
  return pending.word(word) | sync.word(word) | unflushed[0].word(word) | unflushed[1].word(word) |
         covered[0].word(word) | covered[1].word(word);
}

void Activemap::State::note_sector(uint32_t sector) {
  if (stale_bits[sector] > 0 || unknown_sectors.has(sector)) {
    stale_sectors.add(sector);
  } else {
    stale_sectors.remove(sector);
  }
  if (urgent_bits[sector] > 0) {
    urgent_sectors.add(sector);
  } else {
    urgent_sectors.remove(sector);
  }
}

void Activemap::State::count_dirty(uint32_t extent, bool was) {
  const bool is = pending.has(extent) || sync.has(extent);
  if (is && !was) dirty_count++;
  if (!is && was) dirty_count--;
}

void Activemap::State::add_pending(uint32_t extent) {
  HAST_ASSERT_OP(extents[extent].pending, <, UINT32_MAX);
  if (extents[extent].pending++ > 0) return;
  const bool was = sync.has(extent);
  pending.add(extent);
  count_dirty(extent, was);
}

void Activemap::State::drop_pending(uint32_t extent) {
  HAST_ASSERT_OP(extents[extent].pending, >, 0u);
  if (--extents[extent].pending > 0) return;
  pending.remove(extent);
  count_dirty(extent, true);
}

void Activemap::State::add_sync(uint32_t extent) {
  if (copying.has(extent)) remarked.add(extent);
  const bool was = pending.has(extent) || sync.has(extent);
  if (sync.add(extent)) count_dirty(extent, was);
}

void Activemap::State::drop_sync(uint32_t extent) {
  if (sync.remove(extent)) count_dirty(extent, true);
}

void Activemap::State::add_unflushed(unsigned component, uint32_t extent) {
  if (unflushed[component].add(extent) && !unflushed[1 - component].has(extent)) unflushed_count++;
}

void Activemap::State::drop_unflushed(unsigned component, uint32_t extent) {
  if (unflushed[component].remove(extent) && !unflushed[1 - component].has(extent)) {
    unflushed_count--;
  }
}

void Activemap::State::link_front(uint32_t extent) {
  ExtentState& state = extents[extent];
  state.more_recent = 0;
  state.less_recent = most_recent;
  if (most_recent != 0) {
    extents[most_recent - 1].more_recent = extent + 1;
  } else {
    least_recent = extent + 1;
  }
  most_recent = extent + 1;
}

void Activemap::State::unlink(uint32_t extent) {
  const ExtentState& state = extents[extent];
  (state.more_recent != 0 ? extents[state.more_recent - 1].less_recent : most_recent) =
      state.less_recent;
  (state.less_recent != 0 ? extents[state.less_recent - 1].more_recent : least_recent) =
      state.more_recent;
}

void Activemap::State::drop_oldest_kept() {
  const uint32_t oldest = least_recent - 1;
  unlink(oldest);
  kept.remove(oldest);
  refresh(oldest);
}

/// Makes `extent` the most recent of keepdirty; the oldest one leaves when there are too many.
void Activemap::State::touch_kept(uint32_t extent) {
  if (keepdirty_max == 0 || most_recent == extent + 1) return;
  if (kept.has(extent)) {
    unlink(extent);
  } else {
    if (kept.count() == keepdirty_max) drop_oldest_kept();
    kept.add(extent);
  }
  link_front(extent);
}

/// Ends the open flush of one component: what it covered is clean there, or unflushed again.
void Activemap::State::close_flush(unsigned component, bool ok) {
  flush_open[component] = false;
  IndexSet& set = covered[component];
  for (uint32_t e = set.next(0); e != kNone; e = set.next(e + 1)) {
    set.remove(e);
    if (!ok) add_unflushed(component, e);  // guard:unflushed-again
    refresh(e);
  }
}

Activemap::Activemap(uint64_t data_bytes, uint32_t extent_bytes, uint32_t keepdirty,
                     uint32_t sector_bytes) {
  HAST_ASSERT(std::has_single_bit(extent_bytes));
  HAST_ASSERT(std::has_single_bit(sector_bytes));
  HAST_ASSERT_OP(sector_bytes, >=, 8u);
  HAST_ASSERT_OP(data_bytes, >, 0u);
  HAST_ASSERT_OP((data_bytes - 1) / extent_bytes, <, uint64_t{1} << 31);
  state_ = std::make_unique<State>(data_bytes, extent_bytes, keepdirty, sector_bytes);
}

Activemap::~Activemap() = default;

uint32_t Activemap::extent_count() const { return state_->extent_count; }
uint32_t Activemap::extent_bytes() const { return state_->extent_bytes; }
uint32_t Activemap::map_bytes() const { return state_->sector_count * state_->sector_bytes; }
uint32_t Activemap::sector_count() const { return state_->sector_count; }

void Activemap::load(ConstBytes disk_map) {
  State& s = *state_;
  HAST_ASSERT_OP(disk_map.size(), >=, map_bytes());
  HAST_ASSERT(s.wanted.empty() && s.target.empty());
  for (uint32_t byte = 0; byte < map_bytes(); byte++) {
    for (auto bits = static_cast<unsigned>(disk_map[byte]); bits != 0; bits &= bits - 1) {
      const uint32_t extent = byte * 8 + static_cast<uint32_t>(std::countr_zero(bits));
      if (extent >= s.extent_count) {  // no guard: no data lie there
        // Not ours to keep: a full map from a peer has ones there. The next store clears them.
        s.unknown_sectors.add(byte / s.sector_bytes);
        continue;
      }
      s.target.add(extent);
      s.durable[extent / 64] |= uint64_t{1} << (extent % 64);  // no guard: less is stored again
      s.stale_bits[extent / (s.sector_bytes * 8)]++;           // until refresh wants it
      s.add_sync(extent);                                      // guard:found-marks-are-copied
      s.refresh(extent);
    }
  }
  for (uint32_t sector = 0; sector < s.sector_count; sector++) s.note_sector(sector);
}

void Activemap::merge(ConstBytes peer_map) {
  State& s = *state_;
  const uint64_t bytes = std::min<uint64_t>(peer_map.size(), map_bytes());
  for (uint32_t byte = 0; byte < bytes; byte++) {
    for (auto bits = static_cast<unsigned>(peer_map[byte]); bits != 0; bits &= bits - 1) {
      const uint32_t extent = byte * 8 + static_cast<uint32_t>(std::countr_zero(bits));
      if (extent >= s.extent_count) return;
      s.add_sync(extent);  // no guard: peer-marks-count is the call
      s.refresh(extent);
    }
  }
}

bool Activemap::write_begin(uint64_t offset, uint64_t length) {
  State& s = *state_;
  const State::Span span = s.span_of(offset, length);
  bool durable = true;
  for (uint32_t e = span.first; e <= span.last; e++) {
    s.add_pending(e);
    s.touch_kept(e);
    s.refresh(e);
    durable = durable && s.is_durable(e);
  }
  return !durable;
}

void Activemap::forget_kept() {
  while (state_->least_recent != 0) state_->drop_oldest_kept();
}

bool Activemap::ready(uint64_t offset, uint64_t length) const {
  const State& s = *state_;
  const State::Span span = s.span_of(offset, length);
  for (uint32_t e = span.first; e <= span.last; e++) {
    if (!s.is_durable(e)) return false;
  }
  return true;
}

void Activemap::write_end(uint64_t offset, uint64_t length, uint8_t stored, bool missed) {
  State& s = *state_;
  HAST_ASSERT_OP(stored, <=, kBoth);
  const State::Span span = s.span_of(offset, length);
  for (uint32_t e = span.first; e <= span.last; e++) {
    s.drop_pending(e);
    if ((stored & kLocal) != 0) s.add_unflushed(0, e);   // guard:unflushed-here
    if ((stored & kRemote) != 0) s.add_unflushed(1, e);  // guard:unflushed-there
    if (missed) s.add_sync(e);                           // guard:missed-is-marked
    s.refresh(e);
  }
}

void Activemap::mark_sync(uint64_t offset, uint64_t length) {
  State& s = *state_;
  const State::Span span = s.span_of(offset, length);
  for (uint32_t e = span.first; e <= span.last; e++) {
    s.add_sync(e);  // no guard: the callers are
    s.refresh(e);
  }
}

void Activemap::flush_begin() {
  State& s = *state_;
  for (unsigned c = 0; c < kComponents; c++) {
    HAST_ASSERT(!s.flush_open[c] && s.covered[c].empty());
    s.flush_open[c] = true;
    s.unflushed[c].swap(s.covered[c]);  // guard:written-while-it-flushes
  }
  s.unflushed_count = 0;
}

void Activemap::flush_end(uint8_t component, bool ok) {
  const unsigned c = component_index(component);
  if (!state_->flush_open[c]) {
    HAST_ASSERT(!ok);  // it counted as failed when the peer was lost
    return;
  }
  state_->close_flush(c, ok);
}

void Activemap::peer_lost() {
  State& s = *state_;
  const unsigned remote = component_index(kRemote);
  if (s.flush_open[remote]) s.close_flush(remote, false);  // guard:lost-while-it-flushes
  IndexSet& set = s.unflushed[remote];
  for (uint32_t e = set.next(0); e != kNone; e = set.next(e + 1)) {
    // No guard: unflushed-lost is the call.
    s.drop_unflushed(remote, e);
    s.add_sync(e);  // no guard: likewise
    s.refresh(e);
  }
}

uint32_t Activemap::unflushed_count() const { return state_->unflushed_count; }

uint32_t Activemap::next_sync(uint32_t from) const { return state_->sync.next(from); }

bool Activemap::in_sync_set(uint32_t extent) const {
  HAST_ASSERT_OP(extent, <, state_->extent_count);
  return state_->sync.has(extent);
}

void Activemap::sync_begin(uint32_t extent) {
  State& s = *state_;
  HAST_ASSERT(in_sync_set(extent));
  HAST_ASSERT(!s.copying.has(extent));
  s.copying.add(extent);
}

void Activemap::sync_end(uint32_t extent, uint8_t target, bool ok) {
  State& s = *state_;
  HAST_ASSERT_OP(extent, <, s.extent_count);
  const bool was_copying = s.copying.remove(extent);
  HAST_ASSERT(was_copying);
  const bool marked_again = s.remarked.remove(extent);
  const unsigned component = component_index(target);
  if (!ok) return;
  s.add_unflushed(component, extent);  // guard:copied-is-unflushed
  // What the peer gave may be in its cache alone, from another life of ours: guard:source-may-lose
  s.add_unflushed(component_index(kRemote), extent);
  if (!marked_again) s.drop_sync(extent);  // guard:marked-again
  s.refresh(extent);
}

uint32_t Activemap::sync_count() const { return state_->sync.count(); }
uint32_t Activemap::dirty_count() const { return state_->dirty_count; }

void Activemap::collect_urgent(std::vector<uint32_t>& sectors) const {
  const IndexSet& set = state_->urgent_sectors;
  for (uint32_t i = set.next(0); i != kNone; i = set.next(i + 1)) {
    if (!state_->sectors_in_flight.has(i)) sectors.push_back(i);
  }
}

void Activemap::collect_stale(std::vector<uint32_t>& sectors) const {
  const IndexSet& set = state_->stale_sectors;
  for (uint32_t i = set.next(0); i != kNone; i = set.next(i + 1)) {
    if (!state_->sectors_in_flight.has(i)) sectors.push_back(i);
  }
}

bool Activemap::any_stale() const { return !state_->stale_sectors.empty(); }

void Activemap::store_begin(uint32_t sector, Bytes out) {
  State& s = *state_;
  HAST_ASSERT_OP(sector, <, s.sector_count);
  HAST_ASSERT_OP(out.size(), ==, s.sector_bytes);
  const bool started = s.sectors_in_flight.add(sector);
  HAST_ASSERT(started);
  const uint32_t first = sector * s.sector_words;
  for (uint32_t i = 0; i < s.sector_words; i++) {
    const uint64_t snapshot = s.wanted.word(first + i);
    HAST_ASSERT((s.must_stay(first + i) & ~snapshot) == 0);  // I1
    store_le(out.data() + size_t{i} * 8, snapshot);
    s.target.set_word(first + i, snapshot);
    // What it clears may be gone from now on: guard:cleared-is-not-durable
    s.durable[first + i] &= snapshot;
  }
  // Urgent bits are wanted ones, and those that stopped being durable are not wanted.
  s.stale_bits[sector] = 0;
  s.unknown_sectors.remove(sector);
  s.note_sector(sector);
}

void Activemap::store_end(uint32_t sector, bool ok) {
  State& s = *state_;
  HAST_ASSERT_OP(sector, <, s.sector_count);
  const bool ended = s.sectors_in_flight.remove(sector);
  HAST_ASSERT(ended);
  if (ok) {
    uint32_t urgent = 0;
    const uint32_t first = sector * s.sector_words;
    for (uint32_t i = first; i < first + s.sector_words; i++) {
      s.durable[i] |= s.target.word(i);  // no guard: without it nothing is ever written
      urgent += static_cast<uint32_t>(std::popcount(s.wanted.word(i) & ~s.durable[i]));
    }
    s.urgent_bits[sector] = urgent;
  } else {
    // Old or new content: what is 1 in both is still durable, nothing else is known.
    s.unknown_sectors.add(sector);  // guard:unknown-after-a-failed-store
  }
  s.note_sector(sector);
}

void Activemap::render(Bytes out) const {
  HAST_ASSERT_OP(out.size(), ==, map_bytes());
  std::memcpy(out.data(), state_->wanted.words(), out.size());
}

bool marks_all(ConstBytes map, uint32_t extents) {
  const uint32_t whole = extents / 8;
  const auto rest = static_cast<std::byte>((1u << (extents % 8)) - 1);
  if (map.size() < whole + (rest != std::byte{0} ? 1 : 0)) return false;
  const auto full = [](std::byte bits) { return bits == std::byte{0xff}; };
  return std::ranges::all_of(map.first(whole), full) &&
         (rest == std::byte{0} || (map[whole] & rest) == rest);
}

}  // namespace hast
