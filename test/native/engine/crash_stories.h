// The stories that are cut: how they begin, and what happens.

#pragma once

#include <cerrno>

#include "engine/crash_tale.h"

namespace hast::test {

// --- how stories begin ---------------------------------------------------------------------------

/// Two new disks, of which one has something on it; beside an original nothing, since it calls two
/// new copies equal (docs/reconnect.md, "Beside an original": both new, nothing to copy).
inline void new_disks(Tale& tale) {
  if (!tale.beside_original()) tale.a().disk().set(kExtent, pattern(9, kExtent));
}

inline void in_sync(Tale& tale) {
  tale.pair.connect();
  tale.write(tale.a(), 0, 1);
  tale.flush(tale.a());
  tale.pass(3 * kSecond);
}

inline void without_peer(Tale& tale) {
  in_sync(tale);
  tale.b().become_init();
  tale.pair.cut(true);
  tale.pass(kSecond / 10);
}

/// Node a has written alone, in two extents.
inline void lone_writes(Tale& tale) {
  without_peer(tale);
  tale.write(tale.a(), 8192, 2);
  tale.write(tale.a(), 2 * kExtent, 3);
  tale.flush(tale.a());
}

// --- what happens --------------------------------------------------------------------------------

inline void set_up(Tale& tale) {
  tale.b().become_secondary();
  tale.a().become_primary();
  tale.wait([&] { return tale.a().serving(); });
  tale.write(tale.a(), 8192, 5);
  tale.wait([&] { return tale.a().serving() && tale.knows_all(tale.b()); }, kSecond);
  tale.pass(kSecond / 100);
}

inline void write_twice(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.write(tale.a(), 8192, 6);
}

inline void write_new_extent(Tale& tale) {
  tale.write(tale.a(), kExtent + 4096, 5);
  tale.write(tale.a(), kExtent + 4096, 6);
}

inline void write_and_delete(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.remove(tale.a(), 8192);
}

inline void write_and_flush(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.flush(tale.a());
  tale.write(tale.a(), 8192, 6);
}

inline void write_durably(Tale& tale) {
  tale.write(tale.a(), 8192, 5, /*fua=*/true);
  tale.write(tale.a(), 8192, 6, /*fua=*/true);
}

/// Extents leave keepdirty, and the map is stored without them later.
inline void write_around(Tale& tale) {
  for (uint64_t extent = 0; extent < 3; ++extent)
    tale.write(tale.a(), extent * kExtent, 5 + extent);
  tale.flush(tale.a());
  tale.pass(2 * kSecond);
  tale.write(tale.a(), 0, 9);
}

inline void meet_again(Tale& tale) {
  tale.pair.mend();
  tale.b().become_secondary();
  tale.a().primary()->kick();
  tale.wait([&] { return tale.a().metadata().localcnt == 0 && tale.knows_all(tale.b()); });
  tale.pass(kSecond / 100);
  tale.write(tale.a(), 8192, 5);
}

inline void change_roles(Tale& tale) {
  tale.write(tale.a(), 8192, 5);
  tale.a().become_secondary();
  if (tale.going()) tale.b().become_primary();
  tale.wait([&] { return tale.b().serving(); });
  tale.write(tale.b(), 8192, 6);
}

/// Node a was away while node b wrote; it is made primary and copies from there.
inline void be_repaired(Tale& tale) {
  if (tale.going()) tale.a().become_secondary();
  if (tale.going()) tale.b().become_primary();
  tale.wait([&] { return tale.b().serving(); });
  tale.write(tale.b(), kExtent, 5);
  tale.wait([&] { return tale.b().serving() && tale.b().primary()->stats().dirty_bytes == 0; },
            kSecond);
  tale.write(tale.b(), kExtent + 8192, 6);
}

inline void peer_fails(Tale& tale) {
  tale.b().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, 2 * kExtent, kExtent});
  tale.write(tale.a(), 2 * kExtent, 5);
  tale.pass(2 * kSecond);  // it is repaired
}

inline void give_up_disk(Tale& tale) {
  tale.a().life()->disk->add_fault({FaultComponent::kWrite, -EIO, 1, kExtent, 2 * kExtent});
  tale.write(tale.a(), kExtent + 8192, 5);
  tale.write(tale.a(), kExtent + 8192, 6);
  tale.flush(tale.a());
}

/// Node a dies in the middle of a pass, and node b is forced to lead.
inline void half_a_copy(Tale& tale) {
  lone_writes(tale);
  tale.pair.mend();
  tale.b().become_secondary();
  tale.wait([&] { return tale.b().extra().sync_target; });
  tale.a().crash();
  tale.b().become_init();
  tale.forget();
}

inline void force(Tale& tale) {
  tale.b().become_primary(/*force=*/true);
  tale.wait([&] { return tale.b().serving(); });
  tale.write(tale.b(), 4096, 5);
  tale.flush(tale.b());
}

}  // namespace hast::test
