#include "codec/rangelock.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "harness.h"

using namespace hast;

namespace {

RangeHold hold(uint64_t offset, uint64_t length, RangeMode mode = RangeMode::kExclusive) {
  RangeHold h;
  h.offset = offset;
  h.length = length;
  h.mode = mode;
  return h;
}

}  // namespace

TEST(rangelock, "ranges that touch but do not overlap are both granted") {
  RangeLock lock;
  RangeHold a = hold(0, 4096), b = hold(4096, 4096);
  CHECK(lock.acquire(a));
  CHECK(lock.acquire(b));
  CHECK(lock.release(a) == nullptr);
  CHECK(lock.release(b) == nullptr);
}

TEST(rangelock, "two reads share a range, a write waits for both") {
  RangeLock lock;
  RangeHold a = hold(0, 8192, RangeMode::kShared), b = hold(4096, 8192, RangeMode::kShared);
  RangeHold w = hold(6000, 10);
  CHECK(lock.acquire(a) && lock.acquire(b));
  CHECK(!lock.acquire(w));
  CHECK(lock.release(a) == nullptr);
  CHECK(lock.release(b) == &w);
  CHECK(w.granted() && w.next_granted == nullptr);
  lock.release(w);
}

TEST(rangelock, "a read does not overtake a write that waits") {
  RangeLock lock;
  RangeHold a = hold(0, 10, RangeMode::kShared), w = hold(5, 10),
            b = hold(8, 2, RangeMode::kShared);
  CHECK(lock.acquire(a));
  CHECK(!lock.acquire(w));
  CHECK(!lock.acquire(b));
  CHECK(lock.release(a) == &w);
  CHECK(!b.granted());
  CHECK(lock.release(w) == &b);
  lock.release(b);
}

TEST(rangelock, "those set free by one release come in the order in which they asked") {
  RangeLock lock;
  RangeHold all = hold(0, 1 << 30), a = hold(5, 5), b = hold(1 << 29, 1), c = hold(0, 5);
  CHECK(lock.acquire(all));
  CHECK(!lock.acquire(a) && !lock.acquire(b) && !lock.acquire(c));
  CHECK_EQ(lock.waiting(), 3u);
  RangeHold* first = lock.release(all);
  CHECK(first == &a && a.next_granted == &b && b.next_granted == &c && c.next_granted == nullptr);
  lock.release(a);
  lock.release(b);
  lock.release(c);
}

TEST(rangelock, "a waiter that is cancelled lets those behind it pass") {
  RangeLock lock;
  RangeHold a = hold(0, 10, RangeMode::kShared), w = hold(0, 10),
            b = hold(0, 10, RangeMode::kShared);
  CHECK(lock.acquire(a));
  CHECK(!lock.acquire(w));
  CHECK(!lock.acquire(b));
  CHECK(lock.release(w) == &b);
  lock.release(a);
  lock.release(b);
  CHECK_EQ(lock.count(), 0u);
}

TEST(rangelock, "random holds are granted exactly when no earlier one conflicts") {
  for (uint64_t seed = 0; seed < 30; seed++) {
    std::mt19937_64 random(seed);
    RangeLock lock;
    std::vector<std::unique_ptr<RangeHold>> holds;  // in order of arrival
    const auto blocked = [&holds](size_t index) {
      for (size_t i = 0; i < index; i++) {
        const RangeHold &a = *holds[i], &b = *holds[index];
        const bool both_shared = a.mode == RangeMode::kShared && b.mode == RangeMode::kShared;
        if (!both_shared && a.offset < b.offset + b.length && b.offset < a.offset + a.length) {
          return true;
        }
      }
      return false;
    };
    for (int step = 0; step < 2000; step++) {
      if (holds.size() < 40 && random() % 2 == 0) {
        const uint64_t unit = random() % 4 == 0 ? 1 << 20 : 4096;
        auto h = std::make_unique<RangeHold>(
            hold(random() % 64 * unit, (1 + random() % 40) * unit / 8,
                 random() % 2 == 0 ? RangeMode::kShared : RangeMode::kExclusive));
        RangeHold& added = *h;
        holds.push_back(std::move(h));
        CHECK_EQ(lock.acquire(added), !blocked(holds.size() - 1));
      } else if (!holds.empty()) {
        const size_t index = random() % holds.size();
        std::vector<RangeHold*> before;
        for (const auto& h : holds) {
          if (h->granted()) before.push_back(h.get());
        }
        const std::unique_ptr<RangeHold> gone = std::move(holds[index]);
        holds.erase(holds.begin() + static_cast<std::ptrdiff_t>(index));
        std::vector<RangeHold*> granted;
        for (RangeHold* g = lock.release(*gone); g != nullptr; g = g->next_granted) {
          granted.push_back(g);
        }
        std::vector<RangeHold*> expected;
        for (size_t i = 0; i < holds.size(); i++) {
          const bool was = std::find(before.begin(), before.end(), holds[i].get()) != before.end();
          CHECK_EQ(holds[i]->granted(), !blocked(i));
          if (!was && !blocked(i)) expected.push_back(holds[i].get());
        }
        CHECK(granted == expected);
      }
    }
    while (!holds.empty()) {
      lock.release(*holds.back());
      holds.pop_back();
    }
  }
}
