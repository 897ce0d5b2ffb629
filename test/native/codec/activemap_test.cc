#include "codec/activemap.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <random>

#include "base/limits.h"
#include "codec/layout.h"
#include "harness.h"
#include "vectors.h"

using namespace hast;
using namespace hast::test;

namespace {

ByteVector rendered(const Activemap& map) {
  ByteVector bytes(map.map_bytes());
  map.render(bytes);
  return bytes;
}

std::string first8(const Activemap& map) { return hex(ConstBytes(rendered(map)).first(8)); }

bool bit(ConstBytes map, uint32_t extent) {
  return (static_cast<unsigned>(map[extent / 8]) >> (extent % 8) & 1) != 0;
}

/// Stores everything that is stale, as the lazy tick does.
void store_all(Activemap& map, uint32_t sector_bytes) {
  std::vector<uint32_t> sectors;
  map.collect_stale(sectors);
  ByteVector out(sector_bytes);
  for (const uint32_t sector : sectors) {
    map.store_begin(sector, out);
    map.store_end(sector, true);
  }
}

void flush_both(Activemap& map) {
  map.flush_begin();
  map.flush_end(kLocal, true);
  map.flush_end(kRemote, true);
}

}  // namespace

TEST(activemap, "map sizes are the original's") {
  const Json file = load_vectors("activemap");
  for (const Json& c : file["ondisk_sizes"]) {
    const uint64_t media = c["mediasize"].number();
    const auto extent = static_cast<uint32_t>(c["extentsize"].number());
    const auto sector = static_cast<uint32_t>(c["sectorsize"].number());
    const Activemap map(media, extent, 64, sector);
    CHECK_EQ(map.map_bytes(), c["map_bytes"].number());
    CHECK_EQ(map_bytes_for(media, extent, sector), c["map_bytes"].number());
  }
}

TEST(activemap,
     "the original's sequence gives its maps, with a flush after every completed write") {
  const Json file = load_vectors("activemap");
  const Json& sequence = file["sequence"];
  const uint32_t extent = 1 << 20;
  Activemap map(sequence["mediasize"].number(), extent, 2, 512);
  const auto at = [extent](uint32_t e) { return uint64_t{e} * extent; };
  std::optional<uint32_t> copying;
  for (const Json& step : sequence["steps"]) {
    const std::string op = step["op"];
    switch (step["step"].number()) {
      case 0:
        map.write_begin(0, 4096);
        break;
      case 1:
        map.write_begin(1048064, 1024);
        break;
      case 2:
        map.write_begin(at(9), 4096);
        break;
      case 3:
        map.write_end(0, 4096, kBoth, false);
        break;
      case 4:
        map.write_end(1048064, 1024, kBoth, false);
        break;
      case 5:
        map.write_end(at(9), 4096, kBoth, false);
        break;
      case 6:
        map.write_begin(at(19), 4096);
        break;
      case 7:
        map.mark_sync(at(19), 4096);
        break;
      case 8:
        map.write_end(at(19), 4096, kLocal, true);
        break;
      case 9:
        map.mark_sync(at(3), 1);
        break;
      case 10:
        map.merge(unhex("2080f000"));
        break;
      default: {
        // sync_offset: one chunk of 128 KiB each; where a chunk begins another extent, the extent
        // before it is finished and confirmed.
        const size_t colon = op.find("finished_extent=");
        const int finished = std::stoi(op.substr(colon + 16));
        if (finished >= 0) {
          REQUIRE(copying == static_cast<uint32_t>(finished));
          map.sync_end(*copying, kRemote, true);
          copying.reset();
        }
        const int64_t offset = std::stoll(op.substr(op.find("offset=") + 7));
        if (offset >= 0 && !copying) {
          copying = map.next_sync(0);
          CHECK_EQ(at(*copying), static_cast<uint64_t>(offset));
          map.sync_begin(*copying);
        }
      }
    }
    flush_both(map);
    store_all(map, 512);
    CHECK_EQ(first8(map), step["ondisk_map_first8_hex"].text());
    CHECK_EQ(map.dirty_count(), step["ndirty"].number());
    CHECK(!map.any_stale());
  }
}

TEST(activemap, "an extent stays set until both components have flushed its last write") {
  Activemap map(64 << 20, 1 << 20, 0, 512);
  CHECK(map.write_begin(0, 4096));
  store_all(map, 512);
  CHECK(map.ready(0, 4096));
  map.write_end(0, 4096, kBoth, false);
  CHECK_EQ(map.dirty_count(), 0u);
  CHECK_EQ(map.unflushed_count(), 1u);
  map.flush_begin();
  CHECK_EQ(map.unflushed_count(), 0u);
  map.flush_end(kLocal, true);
  CHECK_EQ(first8(map), "0100000000000000");
  map.flush_end(kRemote, false);
  CHECK_EQ(map.unflushed_count(), 1u);
  CHECK_EQ(first8(map), "0100000000000000");
  flush_both(map);
  CHECK_EQ(first8(map), "0000000000000000");
  CHECK(map.any_stale());
}

TEST(activemap, "a write that ends while a flush is open is not covered by it") {
  Activemap map(64 << 20, 1 << 20, 0, 512);
  map.write_begin(0, 4096);
  map.flush_begin();
  map.write_end(0, 4096, kBoth, false);
  map.flush_end(kLocal, true);
  map.flush_end(kRemote, true);
  CHECK_EQ(map.unflushed_count(), 1u);
  CHECK_EQ(first8(map), "0100000000000000");
}

TEST(activemap, "the loss of the peer moves all that is unflushed there into sync") {
  Activemap map(64 << 20, 1 << 20, 0, 512);
  map.write_begin(0, 2 << 20);
  map.write_end(0, 2 << 20, kBoth, false);
  map.flush_begin();
  map.flush_end(kLocal, true);
  map.write_begin(5 << 20, 512);
  map.write_end(5 << 20, 512, kBoth, false);
  map.peer_lost();
  CHECK_EQ(map.sync_count(), 3u);
  map.flush_end(kRemote, false);  // comes late; must change nothing
  CHECK_EQ(map.sync_count(), 3u);
  CHECK_EQ(map.next_sync(2), 5u);
  CHECK_EQ(map.next_sync(6), Activemap::kNone);
}

TEST(activemap, "a store in flight that clears a bit makes the next write wait for another store") {
  Activemap map(64 << 20, 1 << 20, 0, 512);
  ByteVector out(512);
  map.write_begin(0, 512);
  map.store_begin(0, out);
  CHECK(!map.ready(0, 512));
  map.store_end(0, true);
  CHECK(map.ready(0, 512));
  map.write_end(0, 512, kBoth, false);
  flush_both(map);
  CHECK(map.ready(0, 512));  // lazily still set on disk
  map.store_begin(0, out);   // clears it
  CHECK(!map.ready(0, 512));
  CHECK(map.write_begin(0, 512));
  CHECK(map.any_stale());
  std::vector<uint32_t> sectors;
  map.collect_urgent(sectors);
  CHECK(sectors.empty());  // in flight
  map.store_end(0, true);
  CHECK(!map.ready(0, 512));
  map.collect_urgent(sectors);
  REQUIRE(sectors.size() == 1);
  map.store_begin(0, out);
  map.store_end(0, true);
  CHECK(map.ready(0, 512));
}

TEST(activemap, "a failed store leaves its sector stale and its new bits not durable") {
  Activemap map(64 << 20, 1 << 20, 4, 512);
  ByteVector out(512);
  map.write_begin(0, 512);
  map.store_begin(0, out);
  map.store_end(0, true);
  map.write_begin(3 << 20, 512);
  map.store_begin(0, out);
  map.store_end(0, false);
  CHECK(map.ready(0, 512));
  CHECK(!map.ready(3 << 20, 512));
  CHECK(map.any_stale());
  std::vector<uint32_t> stale;
  map.collect_stale(stale);
  CHECK_EQ(stale.size(), 1u);
}

TEST(activemap, "a copy does not clear what was marked again while it ran") {
  Activemap map(64 << 20, 1 << 20, 0, 512);
  map.mark_sync(7 << 20, 1);
  map.sync_begin(7);
  map.write_begin(7 << 20, 512);
  map.write_end(7 << 20, 512, kLocal, true);
  map.sync_end(7, kRemote, true);
  CHECK(map.in_sync_set(7));
  map.sync_begin(7);
  map.sync_end(7, kRemote, false);
  CHECK(map.in_sync_set(7));
  map.sync_begin(7);
  map.sync_end(7, kRemote, true);
  CHECK(!map.in_sync_set(7));
  CHECK_EQ(map.dirty_count(), 0u);
  CHECK_EQ(first8(map), "8000000000000000");  // until the target has flushed
  flush_both(map);
  CHECK_EQ(first8(map), "0000000000000000");
}

TEST(activemap, "what the peer gave is unflushed there until it has flushed (rule 1)") {
  Activemap map(64 << 20, 1 << 20, 0, 512);
  for (const bool flushed : {false, true}) {
    map.mark_sync(7 << 20, 1);
    map.sync_begin(7);
    map.sync_end(7, kLocal, true);
    if (flushed) flush_both(map);
    map.peer_lost();
    CHECK_EQ(map.in_sync_set(7), !flushed);
  }
}

TEST(activemap, "bits beyond the last extent are ignored, and cleared by the next store") {
  Activemap map(20 << 20, 1 << 20, 2, 512);
  map.load(ByteVector(512, std::byte{0xff}));
  CHECK_EQ(map.sync_count(), 20u);
  CHECK_EQ(first8(map), "ffff0f0000000000");
  CHECK(map.ready(0, 20 << 20));
  CHECK(map.any_stale());
  store_all(map, 512);
  CHECK(!map.any_stale());
  map.merge(ByteVector(4096, std::byte{0xff}));
  CHECK_EQ(map.sync_count(), 20u);
}

TEST(activemap, "a tebibyte's map is stored sector by sector and its scan is sparse") {
  Activemap map(1ull << 40, 2 << 20, 64, 512);
  CHECK_EQ(map.extent_count(), 524288u);
  map.write_begin((1ull << 40) - 4096, 4096);
  map.mark_sync(0, 1);
  std::vector<uint32_t> sectors;
  map.collect_urgent(sectors);
  CHECK(sectors == std::vector<uint32_t>({0, 127}));
  map.mark_sync((1ull << 40) - 1, 1);
  CHECK_EQ(map.next_sync(1), 524287u);
}

namespace {

/// The same contract, written without any thought for speed, and a disk that may lose power.
class Model {
 public:
  static constexpr uint32_t kExtents = 300, kExtentBytes = 4096, kSectorBytes = 8;
  static constexpr uint32_t kSectorBits = kSectorBytes * 8, kKeepdirty = 5;

  explicit Model(uint64_t seed)
      : random_(seed),
        map_(uint64_t{kExtents} * kExtentBytes - 1000, kExtentBytes, kKeepdirty, kSectorBytes),
        disk_(map_.map_bytes()),
        extents_(kExtents),
        in_flight_(map_.sector_count()),
        failed_(map_.sector_count()) {}

  void run(int steps) {
    for (int i = 0; i < steps; i++) {
      step();
      check();
    }
  }

  /// The map a restart finds covers every extent that may differ.
  void check_restart() {
    Activemap next(uint64_t{kExtents} * kExtentBytes - 1000, kExtentBytes, kKeepdirty,
                   kSectorBytes);
    ByteVector found = disk_;
    for (uint32_t s = 0; s < in_flight_.size(); s++) {
      if (in_flight_[s] && pick(2) == 0) put(found, s, *in_flight_[s]);
    }
    next.load(found);
    for (uint32_t e = 0; e < kExtents; e++) {
      if (may_differ(e)) CHECK(next.in_sync_set(e));
    }
  }

 private:
  struct Extent {
    uint32_t pending = 0;
    bool sync = false, copying = false, remarked = false;
    bool unflushed[2] = {}, covered[2] = {};
    bool differs = false;  // data was written after `ready`; cleared when it is clean again
  };
  struct Write {
    uint64_t offset, length;
    bool issued;
  };

  uint64_t pick(uint64_t n) { return random_() % n; }
  static void put(ByteVector& disk, uint32_t sector, const ByteVector& content) {
    std::copy(content.begin(), content.end(), disk.begin() + sector * kSectorBytes);
  }
  uint32_t first(const Write& w) const { return static_cast<uint32_t>(w.offset / kExtentBytes); }
  uint32_t last(const Write& w) const {
    return static_cast<uint32_t>((w.offset + w.length - 1) / kExtentBytes);
  }
  bool kept(uint32_t e) const { return std::find(keep_.begin(), keep_.end(), e) != keep_.end(); }
  bool needed(const Extent& x) const {
    return x.pending > 0 || x.sync || x.unflushed[0] || x.unflushed[1] || x.covered[0] ||
           x.covered[1];
  }
  bool may_differ(uint32_t e) const { return extents_[e].differs && needed(extents_[e]); }
  void mark(uint32_t e) {
    extents_[e].sync = true;
    if (extents_[e].copying) extents_[e].remarked = true;
  }

  void step() {
    switch (pick(14)) {
      case 0:
      case 1:
        begin_write();
        break;
      case 2:
      case 3:
        end_write();
        break;
      case 4:
        begin_flush();
        break;
      case 5:
      case 6:
        end_flush(static_cast<unsigned>(pick(2)), pick(4) != 0);
        break;
      case 7:
        pick(8) == 0 ? lose_peer() : mark_range();
        break;
      case 8:
        begin_copy();
        break;
      case 9:
        end_copy();
        break;
      case 10:
      case 11:
        begin_store(pick(2) == 0);
        break;
      default:
        end_store();
        break;
    }
    for (Write& w : writes_) {
      if (w.issued || !map_.ready(w.offset, w.length)) continue;
      w.issued = true;
      for (uint32_t e = first(w); e <= last(w); e++) extents_[e].differs = true;
    }
  }

  void begin_write() {
    if (writes_.size() > 20) return;
    Write w{pick(kExtents - 4) * kExtentBytes + pick(8) * 512, 512 + pick(3) * kExtentBytes, false};
    const bool wait = map_.write_begin(w.offset, w.length);
    CHECK_EQ(wait, !map_.ready(w.offset, w.length));
    for (uint32_t e = first(w); e <= last(w); e++) {
      extents_[e].pending++;
      keep_.erase(std::remove(keep_.begin(), keep_.end(), e), keep_.end());
      keep_.push_front(e);
      if (keep_.size() > kKeepdirty) keep_.pop_back();
    }
    writes_.push_back(w);
  }
  void end_write() {
    if (writes_.empty()) return;
    const size_t index = pick(writes_.size());
    const Write w = writes_[index];
    writes_.erase(writes_.begin() + static_cast<std::ptrdiff_t>(index));
    // A write that was never issued (its map store failed) was stored nowhere and differs nowhere.
    const auto stored = static_cast<uint8_t>(w.issued ? pick(4) : 0);
    const bool missed = w.issued && stored != kBoth;
    map_.write_end(w.offset, w.length, stored, missed);
    for (uint32_t e = first(w); e <= last(w); e++) {
      extents_[e].pending--;
      if ((stored & kLocal) != 0) extents_[e].unflushed[0] = true;
      if ((stored & kRemote) != 0) extents_[e].unflushed[1] = true;
      if (missed) mark(e);
    }
  }
  void begin_flush() {
    if (open_[0] || open_[1]) return;
    map_.flush_begin();
    open_[0] = open_[1] = true;
    for (Extent& x : extents_) {
      for (unsigned c = 0; c < 2; c++) x.covered[c] = std::exchange(x.unflushed[c], false);
    }
  }
  void end_flush(unsigned component, bool ok) {
    if (!open_[component]) return;
    map_.flush_end(component == 0 ? kLocal : kRemote, ok);
    close(component, ok);
  }
  void close(unsigned component, bool ok) {
    open_[component] = false;
    for (Extent& x : extents_) {
      if (std::exchange(x.covered[component], false) && !ok) x.unflushed[component] = true;
    }
  }
  void lose_peer() {
    map_.peer_lost();
    if (open_[1]) close(1, false);
    for (uint32_t e = 0; e < kExtents; e++) {
      if (std::exchange(extents_[e].unflushed[1], false)) mark(e);
    }
  }
  void mark_range() {
    const auto e = static_cast<uint32_t>(pick(kExtents - 1));
    if (pick(2) == 0) {
      map_.mark_sync(uint64_t{e} * kExtentBytes, 1);
      mark(e);
      return;
    }
    ByteVector peer(e / 8 + 1);
    peer[e / 8] = static_cast<std::byte>(1u << (e % 8));
    map_.merge(peer);
    mark(e);
  }
  void begin_copy() {
    const uint32_t e = map_.next_sync(static_cast<uint32_t>(pick(kExtents)));
    if (e == Activemap::kNone || extents_[e].copying) return;
    map_.sync_begin(e);
    extents_[e].copying = true;
  }
  void end_copy() {
    const auto from = static_cast<uint32_t>(pick(kExtents));
    for (uint32_t i = 0; i < kExtents; i++) {
      const uint32_t e = (from + i) % kExtents;
      Extent& x = extents_[e];
      if (!std::exchange(x.copying, false)) continue;
      const bool ok = pick(3) != 0;
      const unsigned target = static_cast<unsigned>(pick(2));
      map_.sync_end(e, target == 0 ? kLocal : kRemote, ok);
      const bool again = std::exchange(x.remarked, false);
      // Its source, too, if that is the peer.
      if (ok) x.unflushed[target] = x.unflushed[1] = true;
      if (ok && !again) x.sync = false;
      return;
    }
  }
  void begin_store(bool urgent) {
    std::vector<uint32_t> sectors;
    urgent ? map_.collect_urgent(sectors) : map_.collect_stale(sectors);
    if (sectors.empty()) return;
    const uint32_t sector = sectors[pick(sectors.size())];
    REQUIRE(!in_flight_[sector]);
    ByteVector content(kSectorBytes);
    map_.store_begin(sector, content);
    in_flight_[sector] = content;
  }
  void end_store() {
    const auto sector = static_cast<uint32_t>(pick(in_flight_.size()));
    if (!in_flight_[sector]) return;
    const bool ok = pick(4) != 0;
    map_.store_end(sector, ok);
    if (ok || pick(2) == 0) put(disk_, sector, *in_flight_[sector]);
    failed_[sector] = !ok;
    in_flight_[sector].reset();
  }

  bool wanted(uint32_t e) const { return needed(extents_[e]) || kept(e); }

  void check() {
    const ByteVector now = rendered(map_);
    uint32_t dirty = 0, sync = 0, unflushed = 0;
    std::vector<bool> stale(in_flight_.size()), urgent(in_flight_.size());
    for (uint32_t e = 0; e < kExtents; e++) {
      Extent& x = extents_[e];
      if (!needed(x)) x.differs = false;
      dirty += x.pending > 0 || x.sync ? 1 : 0;
      sync += x.sync ? 1 : 0;
      unflushed += x.unflushed[0] || x.unflushed[1] ? 1 : 0;
      const bool want = wanted(e);
      if (bit(now, e) != want) fail(__FILE__, __LINE__, "extent " + std::to_string(e));
      const uint32_t sector = e / kSectorBits;
      const bool on_disk = bit(disk_, e);
      const bool later = in_flight_[sector] ? bit(*in_flight_[sector], e % kSectorBits) : on_disk;
      if (want != later || (failed_[sector] && !in_flight_[sector])) stale[sector] = true;
      // Whatever the power cut leaves: what may differ is set, and what is called ready is set.
      if (may_differ(e)) CHECK(on_disk && later);
      const bool ready = map_.ready(uint64_t{e} * kExtentBytes, 1);
      if (ready) CHECK(on_disk && later);
      if (want && !ready) urgent[sector] = true;
    }
    CHECK_EQ(map_.dirty_count(), dirty);
    CHECK_EQ(map_.sync_count(), sync);
    CHECK_EQ(map_.unflushed_count(), unflushed);
    check_sectors(stale, urgent);
  }
  void check_sectors(const std::vector<bool>& stale, const std::vector<bool>& urgent) {
    std::vector<uint32_t> expected_stale, expected_urgent, found;
    bool any = false;
    for (uint32_t s = 0; s < in_flight_.size(); s++) {
      any = any || stale[s];
      if (in_flight_[s]) continue;
      if (stale[s]) expected_stale.push_back(s);
      if (urgent[s]) expected_urgent.push_back(s);
    }
    map_.collect_stale(found);
    CHECK(found == expected_stale);
    found.clear();
    map_.collect_urgent(found);
    CHECK(found == expected_urgent);
    CHECK_EQ(map_.any_stale(), any);
  }

  std::mt19937_64 random_;
  Activemap map_;
  ByteVector disk_;
  std::vector<Extent> extents_;
  std::vector<std::optional<ByteVector>> in_flight_;
  std::vector<bool> failed_;
  std::deque<uint32_t> keep_;
  std::vector<Write> writes_;
  bool open_[2] = {};
};

TEST(activemap, "a map marks all when every extent is marked, whatever lies behind them") {
  for (uint32_t extents = 1; extents <= 40; extents++) {
    Activemap map(uint64_t{extents} * 4096, 4096, 0, 512);
    CHECK(!marks_all(rendered(map), extents));
    map.mark_sync(0, uint64_t{extents} * 4096);
    const ByteVector full = rendered(map);
    CHECK(marks_all(full, extents));
    CHECK(marks_all(ConstBytes(full).first((extents + 7) / 8), extents));
    CHECK(!marks_all(ConstBytes(full).first((extents - 1) / 8), extents));
    CHECK(!marks_all(full, extents + 1));
    for (uint32_t missing = 0; missing < extents; missing++) {
      ByteVector less = full;
      less[missing / 8] ^= std::byte{1} << (missing % 8);
      CHECK(!marks_all(less, extents));
    }
    CHECK(marks_all(ByteVector(64, std::byte{0xff}), extents));
  }
}

}  // namespace

TEST(activemap,
     "under random operations, failures and power cuts the disk covers every difference") {
  for (uint64_t seed = 0; seed < 12; seed++) {
    Model model(seed);
    for (int i = 0; i < 10; i++) {
      model.run(200);
      model.check_restart();
    }
  }
}
