// The map on disk: what is durable when a store says so.

#include "engine/map_store.h"

#include <algorithm>

#include "base/limits.h"
#include "disk/fault_component.h"
#include "harness.h"
#include "ring/sim_loop.h"

namespace hast::test {

namespace {

constexpr uint64_t kDataBytes = 16u << 20;
constexpr uint32_t kExtentBytes = 2048;  // 8192 of them: two sectors of the map

struct Stored {
  SimLoop loop;
  MemoryDisk disk{4u << 20};
  FaultComponent component{loop, disk, 1};
  Activemap map{kDataBytes, kExtentBytes, 4, 512};
  Scope scope;
  MapStore store{component, map, scope};
  int rc = -1;

  Task<void> run(bool whole) {
    if (whole) {
      rc = co_await store.overwrite(std::byte{0xff});
    } else {
      rc = co_await store.store();
    }
  }
  /// True when all of it has ended well.
  bool carry_out(bool whole) {
    scope.spawn(run(whole));
    loop.advance(1'000'000);
    return rc == 0;
  }
  std::byte durable(uint32_t at) const { return disk.durable()[kMetadataBytes + at]; }
};

}  // namespace

TEST(mapstore, "the bits of a batch are durable when it has ended, however many sectors (10)") {
  for (const uint64_t second : {uint64_t{kExtentBytes}, kDataBytes / 2}) {
    Stored stored;
    stored.map.write_begin(0, 512);
    stored.map.write_begin(second, 512);
    CHECK(stored.carry_out(/*whole=*/false));
    CHECK(stored.map.ready(0, 512) && stored.map.ready(second, 512));
    CHECK((stored.durable(0) & std::byte{1}) != std::byte{0});
    const auto extent = static_cast<uint32_t>(second / kExtentBytes);
    const auto bit = std::byte{1} << (extent % 8);
    CHECK((stored.durable(extent / 8) & bit) != std::byte{0});
    stored.map.write_end(0, 512, kBoth, false);
    stored.map.write_end(second, 512, kBoth, false);
  }
}

TEST(mapstore, "a map that is overwritten is durable in whole (wire-protocol 5.3)") {
  Stored stored;
  CHECK(stored.carry_out(/*whole=*/true));
  for (uint32_t at = 0; at < stored.map.map_bytes(); ++at) {
    CHECK(stored.durable(at) == std::byte{0xff});
  }
}

}  // namespace hast::test
