#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"

/// Which extents may differ between the two components, and what of that is on disk.
///
/// Pure: no disk, no clock, no allocation after construction. Memory: 12 bits and 12 bytes an
/// extent at most; the pages of extents that are never written stay out of memory. The engine asks,
/// writes the sectors it is given, and reports back. The disk's bit of an extent is the union of
///   pending    writes in flight,
///   sync       to be copied (or a copy that was never confirmed),
///   unflushed  stored but not yet covered by a flush, per component,
///   keepdirty  the most recently written extents, kept set to save map writes.
/// A bit that turns on must be durable before data is written (`ready`); bits that turn off are
/// lazy.
namespace hast {

/// The two copies of the data. Bits, so that a set of components is a value.
enum Copy : uint8_t { kLocal = 1, kRemote = 2, kBoth = 3 };

class Activemap {
 public:
  /// All sizes in bytes; extent and sector sizes are powers of two; keepdirty is a count of
  /// extents.
  Activemap(uint64_t data_bytes, uint32_t extent_bytes, uint32_t keepdirty, uint32_t sector_bytes);
  ~Activemap();

  uint32_t extent_count() const;
  uint32_t extent_bytes() const;
  /// Bytes of the map on disk, whole sectors: up_sector(ceil(extents / 8)).
  uint32_t map_bytes() const;
  uint32_t sector_count() const;

  /// Takes the map that was found on disk: every set bit (below extent_count) enters sync, and is
  /// known to be durable. Only valid on a fresh map.
  void load(ConstBytes disk_map);
  /// ORs a peer's map into sync. `peer_map` may be longer or shorter; bits beyond extents are
  /// ignored.
  void merge(ConstBytes peer_map);

  // --- writes -----------------------------------------------------------------------------------
  /// A WRITE or DELETE of [offset, offset + length) begins: one more pending on every extent it
  /// touches; each moves to the front of keepdirty (evicting the oldest beyond the limit).
  /// Returns true when `ready` is not yet true for the range, so that the map must be stored first.
  bool write_begin(uint64_t offset, uint64_t length);
  /// Nothing is written any more: keepdirty saves nothing, and would cost a copy.
  void forget_kept();
  /// Every extent of the range is durably set on disk, and no store in flight may clear it.
  bool ready(uint64_t offset, uint64_t length) const;
  /// The write has ended. `stored` is the set of components that confirmed it; those extents become
  /// unflushed there. `missed`: a component did not confirm, so the extents enter sync as well.
  void write_end(uint64_t offset, uint64_t length, uint8_t stored, bool missed);
  /// Marks extents for synchronisation without a write.
  void mark_sync(uint64_t offset, uint64_t length);

  // --- flushes ----------------------------------------------------------------------------------
  /// A flush of both components is about to be issued: what is unflushed now will be covered by it.
  /// At most one is open at a time.
  void flush_begin();
  /// The flush of `component` (kLocal or kRemote) ended; to be called for both. On failure what it
  /// covered is unflushed again. After `peer_lost` a late failure of the remote's is ignored (a
  /// late success is the caller's mistake).
  void flush_end(uint8_t component, bool ok);
  /// The peer is gone (or was never there): all that is unflushed there enters sync; an open flush
  /// of the remote counts as failed before that.
  void peer_lost();
  /// Extents unflushed on any component; those covered by an open flush do not count.
  uint32_t unflushed_count() const;

  // --- synchronisation --------------------------------------------------------------------------
  static constexpr uint32_t kNone = UINT32_MAX;
  /// The lowest extent >= from that is in sync, or kNone.
  uint32_t next_sync(uint32_t from) const;
  bool in_sync_set(uint32_t extent) const;
  /// A copy of `extent` begins. mark_sync, merge or a missed write on it meanwhile make `sync_end`
  /// keep the bit.
  void sync_begin(uint32_t extent);
  /// The copy has ended. ok: every chunk was confirmed by `target` (kLocal or kRemote); the extent
  /// leaves sync (unless marked again meanwhile) and is unflushed on `target`. Not ok: it stays.
  void sync_end(uint32_t extent, uint8_t target, bool ok);

  // --- numbers ----------------------------------------------------------------------------------
  uint32_t sync_count() const;
  /// Extents pending or in sync: HAST's `dirty` is this times the extent size.
  uint32_t dirty_count() const;

  // --- the map on disk --------------------------------------------------------------------------
  /// Sectors in which a wanted bit is not durably set: they must be stored before data.
  /// Sectors with a store in flight are left out. Appends to `sectors`.
  void collect_urgent(std::vector<uint32_t>& sectors) const;
  /// Sectors whose wanted content differs from the disk in any way; those in flight are left out.
  void collect_stale(std::vector<uint32_t>& sectors) const;
  bool any_stale() const;  ///< including sectors in flight whose snapshot is outdated
  /// Takes the snapshot of a sector that is to be written now (out: sector_bytes, all filled).
  /// From here on bits that the snapshot clears no longer count as durable.
  void store_begin(uint32_t sector, Bytes out);
  /// That write (and its flush) ended. On failure the sector stays stale and none of its new bits
  /// count.
  void store_end(uint32_t sector, bool ok);
  /// The whole map as it would be stored now (map_bytes bytes); for tests and for sending to a
  /// peer.
  void render(Bytes out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Does a map that was rendered, or sent by a peer, mark each of `extents` extents? What lies
/// behind them means nothing; a map that is too short does not.
bool marks_all(ConstBytes map, uint32_t extents);

}  // namespace hast
