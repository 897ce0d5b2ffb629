// The link, the disks, and what the operator changes in a running pair.

#include <algorithm>
#include <cerrno>

#include "sim/run.h"

namespace hast::test {

namespace {
constexpr uint64_t kSecond = 1000000;
}  // namespace

void Run::change_network(Random random) {
  PipeOptions& options = pair_.network.options;
  options.delay_max_us = random.chance(1, 2) ? random.between(1, 2000) : 0;
  options.partial = random.chance(1, 4);
  options.capacity_bytes = random.chance(1, 4) ? 4096 : 65536;
}

/// What was under way may have reached one node only.
void Run::note_link_fault() {
  ++outcome_.faults;
  if (serving() && (!pending_.empty() || stats().in_flight > 0)) is_.lone = true;
  if (is_.was_loose) doubt_second();
  // What async has answered may still be on its way: then the primary counts it as written alone.
  if (is_.was_async && serving()) is_.lone = true;
}

void Run::cut(Random random) {
  const bool one_way = random.chance(1, 4);
  const int from = static_cast<int>(random.below(2));
  const bool refuse = random.chance(1, 2);
  note_link_fault();
  if (one_way) {
    note("what node %d sends ends", from);
    pair_.cut_one_way(from);
    return;
  }
  note("the link breaks%s", refuse ? " for a while" : "");
  pair_.cut(refuse || pair_.link_down());
}

void Run::silence(Random random) {
  note_link_fault();
  if (random.chance(1, 3)) {
    const int from = static_cast<int>(random.below(2));
    note("nothing arrives any more of what node %d sends", from);
    pair_.silence_one_way(from);
    return;
  }
  note("the link is silent");
  pair_.silence();
}

void Run::mend() {
  if (!network_whole()) note("the link is mended");
  pair_.mend();
}

/// Longer than any timeout or shorter, of either node.
void Run::freeze(Random random) {
  const int index = static_cast<int>(random.below(2));
  if (!is_.up[index] || node(index).frozen()) return;
  static constexpr uint64_t kMost[] = {2, 6, 25, 60};
  const uint64_t us = random.between(kSecond / 2, kMost[random.below(4)] * kSecond);
  const bool timers_first = random.chance(1, 2);
  note("node %d stands still for %.3f s; then its %s first", index, static_cast<double>(us) / 1e6,
       timers_first ? "timers" : "completions");
  ++outcome_.faults;
  if (serving() && (!pending_.empty() || stats().in_flight > 0)) is_.lone = true;
  if (is_.was_async && serving()) is_.lone = true;
  is_.second_good = false;  // until the primary says so
  node(index).freeze(us, timers_first);
}

void Run::thaw() {
  for (int i = 0; i < 2; ++i) {
    if (node(i).frozen()) note("node %d goes on", i);
    node(i).thaw();
  }
}

void Run::disk_fault(Random random, bool full) {
  thaw();
  // One bad disk at a time, and only while there is another copy.
  if (!serving() || !is_.second_good || !is_.first_good || is_.lone || !network_whole()) return;
  const int index = static_cast<int>(random.below(2));
  if (!is_.up[index] || node(index).life() == nullptr || is_.sick[0] || is_.sick[1]) return;
  if (is_.lost[0] || is_.lost[1]) return;
  // Beside an original nothing can say when a stale copy has become a good one again.
  if (pair_.options.original_peer && index == is_.primary) return;
  // In async the primary's disk alone may have what was acknowledged.
  if (is_.was_async && index == is_.primary) return;
  static constexpr uint32_t kKinds[] = {FaultComponent::kRead, FaultComponent::kWrite,
                                        FaultComponent::kFlush,
                                        FaultComponent::kWrite | FaultComponent::kRead,
                                        FaultComponent::kWrite | FaultComponent::kDiscard};
  FaultComponent::Fault fault;
  fault.kinds = full ? uint32_t{FaultComponent::kWrite} : kKinds[random.below(5)];
  fault.error = full ? -ENOSPC : -EIO;
  fault.times = random.chance(1, 2) ? 1 : random.between(2, 20);
  if (random.chance(3, 4)) fault.offset = data_offset_;
  note("the disk of node %d %s (kinds %u, %llu times, from %llu)", index,
       full ? "is full" : "fails", fault.kinds, static_cast<unsigned long long>(fault.times),
       static_cast<unsigned long long>(fault.offset));
  node(index).life()->disk->add_fault(fault);
  ++outcome_.faults;
  is_.may_fail = true;
  is_.sick[index] = true;
  if (index != is_.primary) is_.second_good = false;
}

void Run::disk_slow(Random random) {
  const int index = static_cast<int>(random.below(2));
  if (node(index).life() == nullptr) return;
  static constexpr uint64_t kSlow[] = {1, 100, 5000, 200000};
  const uint64_t most = kSlow[random.below(4)];
  note("the disk of node %d takes up to %llu us", index, static_cast<unsigned long long>(most));
  node(index).life()->disk->set_delay(1, most);
}

/// Nothing is promised of a disk that writes or reads at the wrong place; the other copy must not
/// suffer.
void Run::astray(Random random) {
  thaw();
  if (!serving() || !is_.second_good || !is_.first_good || is_.lone || !network_whole()) return;
  const EngineStats now = stats();
  if (now.state != EngineState::kInSync || now.dirty_bytes > 0) return;
  const int index = static_cast<int>(random.below(2));
  if (node(index).life() == nullptr || is_.sick[0] || is_.sick[1]) return;
  if (is_.lost[0] || is_.lost[1]) return;
  FaultComponent::Fault fault;
  fault.kinds = random.chance(1, 3) ? FaultComponent::kRead : FaultComponent::kWrite;
  fault.times = random.between(1, 3);
  note("the disk of node %d goes astray (kinds %u)", index, fault.kinds);
  ++outcome_.faults;
  is_.lost[index] = true;
  if (index == is_.primary) return astray_first(fault);
  node(index).life()->disk->add_fault(fault);
  is_.second_good = false;
}

/// The operator has seen it: the other node takes over, and this one gets a new disk.
void Run::astray_first(FaultComponent::Fault fault) {
  const int bad = is_.primary;
  FaultComponent& disk = *node(bad).life()->disk;
  const uint64_t ends = ends_told();
  is_.distrusted = true;
  for (Pending& p : pending_) p.proves = false;
  disk.add_fault(fault);
  requests(bad, Random(fault.times * 77 + last_id_));
  pair_.loop.run_until([&disk] { return disk.astray() > 0; }, kSecond);
  poll();
  is_.distrusted = false;
  // A peer that was lost meanwhile may have been given what a bad read gave.
  const bool never = disk.astray() == 0;
  const bool overwritten = !stats().complete || ends_told() != ends;
  kill(bad, false, false, 0);
  is_.primary = -1;
  poll();
  if (is_.was_async) model_.forget_unflushed();
  if (!never && overwritten) note("the other copy may have been overwritten");
  node(bad).replace_disk();
  is_.lost[bad] = is_.fragile[bad] = is_.cut[bad] = false;
  is_.second_good = false;
  if (!promote(1 - bad, false, overwritten)) return;
  if (overwritten) model_.take_as_is(node(1 - bad).data(), node(1 - bad).durable_data());
  secondary(bad);
}

void Run::replace_secondary() {
  thaw();
  const int other = 1 - is_.primary;
  if (!serving() || !is_.first_good || is_.sick[is_.primary] || stats().local_stale) return;
  // While the primary is being repaired from there, that disk has the only good copy.
  if (node(is_.primary).extra().sync_target || stats().sync_source == 2) return;
  note("node %d gets a new disk", other);
  doubt_second();
  // What was said of a disk whose records may have gone to the wrong place is no evidence.
  if (is_.lost[other]) {
    std::erase(node(is_.primary).life()->host.events, EventName::kSplitBrain);
  }
  node(other).become_init();
  node(other).replace_disk();
  is_.lost[other] = is_.fragile[other] = is_.cut[other] = is_.fell[other] = false;
  is_.lone = true;
  secondary(other);
}

void Run::reload(Random random) {
  thaw();
  if (!serving()) return;
  PairOptions& options = pair_.options;
  if (random.chance(1, 2)) options.replication = static_cast<Replication>(random.below(3));
  options.checksum = static_cast<Checksum>(random.below(3));
  options.compression = static_cast<Compression>(random.below(3));
  options.timeout_ms = static_cast<uint32_t>(random.between(2000, 20000));
  is_.was_async = is_.was_async || options.replication == Replication::kAsync;
  is_.was_loose = is_.was_loose || options.replication != Replication::kFullsync;
  note("reload: mode %d, checksum %d, compression %d, timeout %u ms",
       static_cast<int>(options.replication), static_cast<int>(options.checksum),
       static_cast<int>(options.compression), options.timeout_ms);
  PrimarySettings settings;
  settings.replication = options.replication;
  settings.checksum = options.checksum;
  settings.compression = options.compression;
  settings.timeout_ms = options.timeout_ms;
  const SimLoop::As as(pair_.loop, static_cast<uint8_t>(is_.primary + 1));
  node(is_.primary).primary()->reconfigure(settings);
}

}  // namespace hast::test
