// An activemap of arbitrary geometry under arbitrary operations, held against plain sets and
// against every content that the disk may have.
// Input: geometry (5 bytes), the map found on disk, then operations.
#include <algorithm>
#include <bit>
#include <deque>
#include <utility>

#include "codec/activemap.h"
#include "fuzz_input.h"

namespace hast::fuzz {
namespace {

struct Geometry {
  uint32_t extents;
  uint32_t extent_bytes;
  uint32_t keepdirty;
  uint32_t sector_bytes;
  uint64_t data_bytes;
};

Geometry geometry_of(Input& input) {
  Geometry g;
  g.extents = 1 + input.byte() % 200;
  g.extent_bytes = 512u << input.byte() % 22;
  g.keepdirty = input.byte() % 9;
  g.sector_bytes = 8u << input.byte() % 8;  // small ones give several sectors of map
  g.data_bytes = uint64_t{g.extents} * g.extent_bytes - input.byte();
  return g;
}

struct Range {
  uint64_t offset;
  uint64_t length;
};

/// One extent as the sets have it.
struct Extent {
  uint32_t pending = 0;
  bool sync = false;
  bool copying = false;
  bool remarked = false;
  bool unflushed[2] = {};
  bool covered[2] = {};
};

/// One sector of the map on disk: any of these may be its content.
struct Sector {
  std::vector<Buffer> contents;
  bool in_flight = false;
};

class Run {
 public:
  Run(const Geometry& geometry, Input input)
      : g_(geometry),
        input_(input),
        map_(g_.data_bytes, g_.extent_bytes, g_.keepdirty, g_.sector_bytes),
        extents_(g_.extents) {
    HAST_ASSERT_OP(map_.extent_count(), ==, g_.extents);
    HAST_ASSERT_OP(map_.map_bytes() % g_.sector_bytes, ==, 0u);
    HAST_ASSERT_OP(map_.map_bytes() / g_.sector_bytes, ==, map_.sector_count());
    HAST_ASSERT_OP(uint64_t{map_.map_bytes()} * 8, >=, g_.extents);
    load();
  }

  void run() {
    while (!input_.empty()) {
      step();
      check();
    }
    settle();
  }

 private:
  // ---- The sets ----
  bool wanted(uint32_t e) const {
    const Extent& x = extents_[e];
    return x.pending > 0 || x.sync || x.unflushed[0] || x.unflushed[1] || x.covered[0] ||
           x.covered[1] || std::find(recent_.begin(), recent_.end(), e) != recent_.end();
  }
  uint32_t first(const Range& r) const { return static_cast<uint32_t>(r.offset / g_.extent_bytes); }
  uint32_t last(const Range& r) const {
    return static_cast<uint32_t>((r.offset + r.length - 1) / g_.extent_bytes);
  }
  void touch(uint32_t e) {
    std::erase(recent_, e);
    recent_.push_front(e);
    if (recent_.size() > g_.keepdirty) recent_.pop_back();
  }
  void add_sync(uint32_t e) {
    extents_[e].sync = true;
    if (extents_[e].copying) extents_[e].remarked = true;
  }
  void close_flush(unsigned component, bool ok) {
    open_[component] = false;
    for (Extent& x : extents_) {
      if (x.covered[component] && !ok) x.unflushed[component] = true;
      x.covered[component] = false;
    }
  }

  // ---- The disk ----
  bool on_disk(uint32_t e) const {
    const uint32_t bits = g_.sector_bytes * 8;
    const auto has = [&](const Buffer& content) {
      return (static_cast<unsigned>(content[e % bits / 8]) >> e % 8 & 1) != 0;
    };
    const std::vector<Buffer>& contents = sectors_[e / bits].contents;
    return std::all_of(contents.begin(), contents.end(), has);
  }

  void load() {
    Buffer disk(map_.map_bytes());
    const ConstBytes found = input_.take(std::min<size_t>(disk.size(), 32));
    std::copy(found.begin(), found.end(), disk.begin());
    map_.load(disk);
    for (uint32_t e = 0; e < g_.extents; e++) {
      if ((static_cast<unsigned>(disk[e / 8]) >> e % 8 & 1) != 0) extents_[e].sync = true;
    }
    for (uint32_t s = 0; s < map_.sector_count(); s++) {
      const ConstBytes content = ConstBytes(disk).subspan(s * g_.sector_bytes, g_.sector_bytes);
      sectors_.push_back({{exact(content)}, false});
    }
  }

  // ---- Operations ----
  Range range() {
    const uint64_t offset = input_.number<uint16_t>() * uint64_t{g_.extent_bytes} / 64;
    const uint64_t length = 1 + input_.number<uint16_t>() * uint64_t{g_.extent_bytes} / 4096;
    Range r{offset % g_.data_bytes, length};
    r.length = std::min(r.length, g_.data_bytes - r.offset);
    return r;
  }

  void step() {
    switch (input_.byte() % 12) {
      case 0:
        return write_begin();
      case 1:
        return write_end();
      case 2:
        return mark_sync();
      case 3:
        return merge();
      case 4:
        return flush_begin();
      case 5:
        return flush_end();
      case 6:
        return peer_lost();
      case 7:
        return sync_begin();
      case 8:
        return sync_end();
      case 9:
      case 10:
        return store_begin();
      default:
        return store_end();
    }
  }

  void write_begin() {
    if (writes_.size() >= 16) return;
    const Range r = range();
    const bool must_store = map_.write_begin(r.offset, r.length);
    HAST_ASSERT_OP(must_store, ==, !map_.ready(r.offset, r.length));
    for (uint32_t e = first(r); e <= last(r); e++) {
      extents_[e].pending++;
      if (g_.keepdirty > 0) touch(e);
    }
    writes_.push_back(r);
  }
  void write_end() {
    if (writes_.empty()) return end_write(0, 0, false);
    const uint32_t which = input_.below(static_cast<uint32_t>(writes_.size()));
    const uint8_t how = input_.byte();
    end_write(which, how & 3, (how & 4) != 0);
  }
  void end_write(size_t which, uint8_t stored, bool missed) {
    if (which >= writes_.size()) return;
    const Range r = writes_[which];
    writes_.erase(writes_.begin() + static_cast<std::ptrdiff_t>(which));
    map_.write_end(r.offset, r.length, stored, missed);
    for (uint32_t e = first(r); e <= last(r); e++) {
      extents_[e].pending--;
      if ((stored & kLocal) != 0) extents_[e].unflushed[0] = true;
      if ((stored & kRemote) != 0) extents_[e].unflushed[1] = true;
      if (missed) add_sync(e);
    }
  }
  void mark_sync() {
    const Range r = range();
    map_.mark_sync(r.offset, r.length);
    for (uint32_t e = first(r); e <= last(r); e++) add_sync(e);
  }
  void merge() {
    const Buffer peer = exact(input_.take(input_.byte() % 64));
    map_.merge(peer);
    for (uint32_t e = 0; e < std::min<size_t>(g_.extents, peer.size() * 8); e++) {
      if ((static_cast<unsigned>(peer[e / 8]) >> e % 8 & 1) != 0) add_sync(e);
    }
  }
  void flush_begin() {
    if (open_[0] || open_[1]) return;
    map_.flush_begin();
    for (unsigned c = 0; c < 2; c++) {
      open_[c] = true;
      for (Extent& x : extents_) x.covered[c] = std::exchange(x.unflushed[c], false);
    }
  }
  void flush_end() {
    const uint8_t how = input_.byte();
    const unsigned component = how & 1;
    const bool ok = (how & 2) != 0 && open_[component];
    map_.flush_end(component == 0 ? kLocal : kRemote, ok);
    if (open_[component]) close_flush(component, ok);
  }
  void peer_lost() {
    map_.peer_lost();
    if (open_[1]) close_flush(1, false);
    for (uint32_t e = 0; e < g_.extents; e++) {
      if (std::exchange(extents_[e].unflushed[1], false)) add_sync(e);
    }
  }
  void sync_begin() {
    const uint32_t e = map_.next_sync(input_.byte() % g_.extents);
    if (e == Activemap::kNone || extents_[e].copying) return;
    map_.sync_begin(e);
    extents_[e].copying = true;
    copies_.push_back(e);
  }
  void sync_end() {
    if (copies_.empty()) return;
    const uint32_t e = copies_.front();
    copies_.pop_front();
    const uint8_t how = input_.byte();
    end_copy(e, how & 1, (how & 2) != 0);
  }
  void end_copy(uint32_t e, unsigned target, bool ok) {
    map_.sync_end(e, target == 0 ? kLocal : kRemote, ok);
    Extent& x = extents_[e];
    x.copying = false;
    const bool remarked = std::exchange(x.remarked, false);
    if (!ok) return;
    x.unflushed[target] = x.unflushed[1] = true;  // its source, too, if that is the peer
    x.sync = remarked;
  }
  void store_begin() {
    const uint8_t how = input_.byte();
    std::vector<uint32_t> sectors;
    (how & 1) != 0 ? map_.collect_urgent(sectors) : map_.collect_stale(sectors);
    if (sectors.empty()) return;
    begin_store(sectors[how / 2 % sectors.size()]);
  }
  void begin_store(uint32_t sector) {
    Buffer content(g_.sector_bytes);
    map_.store_begin(sector, content);
    HAST_ASSERT(!sectors_[sector].in_flight);
    sectors_[sector].in_flight = true;
    sectors_[sector].contents.push_back(std::move(content));
    stores_.push_back(sector);
  }
  void store_end() {
    if (stores_.empty()) return;
    end_store((input_.byte() & 3) != 0);
  }
  void end_store(bool ok) {
    const uint32_t number = stores_.front();
    stores_.pop_front();
    map_.store_end(number, ok);
    Sector& sector = sectors_[number];
    sector.in_flight = false;
    if (ok) sector.contents = {std::move(sector.contents.back())};
  }

  // ---- What must hold ----
  void check() const {
    Buffer rendered(map_.map_bytes());
    map_.render(rendered);
    uint32_t sync = 0, dirty = 0, unflushed = 0, bits = 0, lowest = Activemap::kNone;
    for (uint32_t e = 0; e < g_.extents; e++) {
      const Extent& x = extents_[e];
      const bool bit = (static_cast<unsigned>(rendered[e / 8]) >> e % 8 & 1) != 0;
      HAST_ASSERT_OP(bit, ==, wanted(e));
      HAST_ASSERT_OP(map_.in_sync_set(e), ==, x.sync);
      if (map_.ready(uint64_t{e} * g_.extent_bytes, 1)) HAST_ASSERT(on_disk(e));
      if (x.sync && lowest == Activemap::kNone) lowest = e;
      bits += bit;
      sync += x.sync;
      dirty += x.sync || x.pending > 0;
      unflushed += x.unflushed[0] || x.unflushed[1];
    }
    HAST_ASSERT_OP(map_.next_sync(0), ==, lowest);
    HAST_ASSERT_OP(map_.sync_count(), ==, sync);
    HAST_ASSERT_OP(map_.dirty_count(), ==, dirty);
    HAST_ASSERT_OP(map_.unflushed_count(), ==, unflushed);
    uint32_t set = 0;
    for (const std::byte b : rendered) set += static_cast<uint32_t>(std::popcount(uint8_t(b)));
    HAST_ASSERT_OP(set, ==, bits);  // none beyond the extents
  }

  /// Ends everything; then the disk can be brought to what is wanted, and stays there.
  void settle() {
    while (!writes_.empty()) end_write(0, kLocal, true);
    for (const uint32_t e : copies_) end_copy(e, 1, false);
    copies_.clear();
    for (unsigned c = 0; c < 2; c++) {
      map_.flush_end(c == 0 ? kLocal : kRemote, open_[c]);
      close_flush(c, true);
    }
    while (!stores_.empty()) end_store(true);
    check();
    std::vector<uint32_t> stale;
    map_.collect_stale(stale);
    for (const uint32_t sector : stale) begin_store(sector);
    while (!stores_.empty()) end_store(true);
    HAST_ASSERT(!map_.any_stale());
    Buffer rendered(map_.map_bytes());
    map_.render(rendered);
    for (uint32_t s = 0; s < sectors_.size(); s++) {
      HAST_ASSERT_OP(sectors_[s].contents.size(), ==, 1u);
      HAST_ASSERT(same_bytes(sectors_[s].contents[0],
                             ConstBytes(rendered).subspan(s * g_.sector_bytes, g_.sector_bytes)));
    }
    for (uint32_t e = 0; e < g_.extents; e++) {
      HAST_ASSERT_OP(map_.ready(uint64_t{e} * g_.extent_bytes, 1), ==, wanted(e));
    }
  }

  const Geometry g_;
  Input input_;
  Activemap map_;
  std::vector<Extent> extents_;
  std::deque<uint32_t> recent_;  // keepdirty, most recent first
  std::vector<Sector> sectors_;
  std::vector<Range> writes_;
  std::deque<uint32_t> copies_;
  std::deque<uint32_t> stores_;
  bool open_[2] = {};
};

}  // namespace
}  // namespace hast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hast::fuzz::Input input(data, std::min<size_t>(size, 4096));
  const hast::fuzz::Geometry geometry = hast::fuzz::geometry_of(input);
  hast::fuzz::Run(geometry, input).run();
  return 0;
}
