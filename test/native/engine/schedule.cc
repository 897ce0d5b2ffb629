#include "engine/schedule.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace hast::test {

// --- the model
// ------------------------------------------------------------------------------------------

void BlockModel::fill(Bytes block, uint64_t tag, uint64_t number) {
  if (tag == 0) {
    std::fill(block.begin(), block.end(), std::byte{0});
    return;
  }
  Random random(tag * 1000003 + number);
  for (std::size_t at = 0; at < block.size(); at += 8) {
    const uint64_t word = at == 0 ? tag : random.next();
    std::memcpy(block.data() + at, &word, 8);
  }
}

void BlockModel::begin(uint64_t id, uint64_t first, uint64_t count, uint64_t tag) {
  const uint64_t at = now();
  spans_[id] = {first, count};
  for (uint64_t i = first; i < first + count; ++i) {
    blocks_[i].push_back({id, tag, at});
  }
}

void BlockModel::end(uint64_t id, End how, bool durable) {
  const uint64_t at = now();
  const Span span = spans_.at(id);
  for (uint64_t i = span.first; i < span.first + span.count; ++i) {
    for (Version& version : blocks_[i]) {
      if (version.id != id) continue;
      version.ended = at;
      version.acknowledged = how == End::kAcknowledged;
      version.durable = version.acknowledged && durable;
    }
  }
  spans_.erase(id);
}

void BlockModel::flushed(uint64_t begun) {
  for (std::vector<Version>& versions : blocks_) {
    for (Version& version : versions) {
      if (version.acknowledged && version.ended < begun) version.durable = true;
    }
  }
}

void BlockModel::forget_unflushed() {
  for (std::vector<Version>& versions : blocks_) {
    for (Version& version : versions) {
      if (!version.durable) version.acknowledged = false;
    }
  }
}

bool BlockModel::superseded(const std::vector<Version>& versions, const Version& version,
                            uint64_t before, bool durably) {
  return std::any_of(versions.begin(), versions.end(), [&](const Version& other) {
    return other.acknowledged && (!durably || other.durable) && other.ended < before &&
           other.begun > version.ended;
  });
}

bool BlockModel::allowed(uint64_t block, ConstBytes bytes, uint64_t begun) const {
  const std::vector<Version>& versions = blocks_[block];
  std::byte expected[kBlock];
  const bool written = std::any_of(versions.begin(), versions.end(), [begun](const Version& v) {
    return v.acknowledged && v.ended < begun;
  });
  if (!written) {
    fill(expected, 0, block);
    if (std::memcmp(expected, bytes.data(), kBlock) == 0) return true;
  }
  for (const Version& version : versions) {
    fill(expected, version.tag, block);
    if (std::memcmp(expected, bytes.data(), kBlock) != 0) continue;
    if (!superseded(versions, version, begun, false)) return true;
  }
  return false;
}

std::string BlockModel::describe(uint64_t block, ConstBytes bytes) const {
  uint64_t word = 0;
  std::memcpy(&word, bytes.data(), 8);
  std::string text =
      "block " + std::to_string(block) + " holds " + std::to_string(word) + "; known:";
  for (const Version& v : blocks_[block]) {
    text += " [" + std::to_string(v.tag) + " " + std::to_string(v.begun) + ".." +
            (v.ended == UINT64_MAX ? std::string("open") : std::to_string(v.ended)) +
            (v.acknowledged ? " ok" : "") + (v.durable ? " durable" : "") + "]";
  }
  return text;
}

void BlockModel::prune() {
  for (std::vector<Version>& versions : blocks_) {
    if (versions.size() < 2) continue;
    const std::vector<Version> all = versions;
    std::erase_if(versions,
                  [&all](const Version& v) { return superseded(all, v, UINT64_MAX, true); });
  }
}

// --- the schedule
// ---------------------------------------------------------------------------------------

namespace {

constexpr uint64_t kSecond = 1000000;

PairOptions options_of(uint64_t seed) {
  Random random(seed ^ 0x5eed);
  PairOptions options;
  options.seed = seed;
  options.disk_bytes = 2u << 20;
  options.keepdirty = static_cast<uint32_t>(random.between(1, 4));
  options.replication = static_cast<Replication>(random.below(3));
  options.checksum = random.chance(1, 3) ? Checksum::kCrc32 : Checksum::kNone;
  options.original_peer = random.chance(1, 4);
  return options;
}

class Schedule {
 public:
  explicit Schedule(uint64_t seed)
      : random_(seed),
        pair_(options_of(seed)),
        model_(pair_.a().metadata().datasize / BlockModel::kBlock) {}

  ScheduleResult run() {
    blocks_ = pair_.a().metadata().datasize / BlockModel::kBlock;
    const PairOptions& o = pair_.options;
    note("mode %d, %s, keepdirty %u", static_cast<int>(o.replication),
         o.original_peer ? "original" : "ours", o.keepdirty);
    pair_.network.options.delay_max_us = random_.chance(1, 2) ? random_.between(1, 2000) : 0;
    pair_.network.options.partial = random_.chance(1, 4);
    pair_.node(1).become_secondary();
    up_[1] = true;
    promote(0);
    const uint64_t steps = random_.between(20, 120);
    for (uint64_t i = 0; i < steps && result_.ok; ++i) step();
    if (result_.ok) finish();
    pair_.mend();
    return std::move(result_);
  }

 private:
  struct Pending {
    Pair::Operation* operation;
    uint64_t id;
    uint64_t begun;
    uint64_t since_us;
  };

  [[gnu::format(printf, 2, 3)]] void note(const char* format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char line[300];
    std::snprintf(line, sizeof line, "%11.6f %s", static_cast<double>(pair_.loop.now_us()) / 1e6,
                  text);
    result_.steps.emplace_back(line);
    static const bool loud = std::getenv("HAST_TEST_LOG") != nullptr;
    if (loud) std::fprintf(stderr, "            --- %s\n", line);
  }

  void problem(const std::string& text) {
    if (!result_.ok) return;
    result_.ok = false;
    result_.problem = text;
    note("PROBLEM %s", text.c_str());
  }

  Node& node(int index) { return pair_.node(index); }
  bool serving() { return primary_ >= 0 && node(primary_).serving(); }
  EngineStats stats() { return node(primary_).primary()->stats(); }

  // --- looking at what has happened --------------------------------------------------------------

  void poll() {
    look_at_state();
    std::erase_if(pending_, [this](const Pending& p) {
      if (!p.operation->done && !p.operation->orphaned) {
        if (pair_.loop.now_us() - p.since_us > 200 * kSecond)
          problem("a request is never answered");
        return false;
      }
      end(p);
      return true;
    });
    if (pending_.empty()) {
      model_.prune();
      pair_.forget_done();
      pair_.reap();
    }
  }

  void look_at_state() {
    if (!serving()) return;
    const EngineStats now = stats();
    if (now.complete && now.state == EngineState::kInSync && now.dirty_bytes == 0 &&
        !now.local_stale) {
      second_good_ = true;
      lone_ = false;
      cut_[0] = cut_[1] = false;
    }
    if (!now.complete && !pending_.empty()) lone_ = true;
    if (now.local_stale && first_good_) {
      first_good_ = false;
      if (pair_.options.replication == Replication::kAsync) model_.forget_unflushed();
    }
  }

  void end(const Pending& p) {
    const Pair::Operation& operation = *p.operation;
    const bool good = operation.done && operation.error == 0;
    if (operation.op == RequestOp::kWrite || operation.op == RequestOp::kDelete) {
      model_.end(p.id, good ? BlockModel::End::kAcknowledged : BlockModel::End::kUnknown,
                 operation.fua);
    } else if (operation.op == RequestOp::kFlush) {
      if (good) model_.flushed(p.begun);
    } else if (good) {
      check(operation.offset, operation.bytes, p.begun, "a read");
    }
    if (operation.done && operation.error != 0) {
      note("operation %d at %llu+%llu gave %d", static_cast<int>(operation.op),
           static_cast<unsigned long long>(operation.offset),
           static_cast<unsigned long long>(operation.length), operation.error);
      if (!may_fail_ && operation.error != ESHUTDOWN) problem("a request failed for no reason");
    }
  }

  void check(uint64_t offset, ConstBytes bytes, uint64_t begun, const char* what) {
    for (uint64_t at = 0; at < bytes.size(); at += BlockModel::kBlock) {
      const uint64_t block = (offset + at) / BlockModel::kBlock;
      const ConstBytes found = bytes.subspan(at, BlockModel::kBlock);
      if (model_.allowed(block, found, begun)) continue;
      problem(std::string(what) + ": " + model_.describe(block, found));
      return;
    }
  }

  // --- requests ----------------------------------------------------------------------------------

  void request() {
    if (!serving() || pending_.size() >= 12) return;
    const EngineStats now = stats();
    if (!now.complete) lone_ = true;
    const uint64_t kind = random_.below(20);
    const uint64_t id = ++last_id_;
    static constexpr uint64_t kSizes[] = {1, 1, 8, 8, 8, 16, 64, 256};
    const uint64_t count = std::min(kSizes[random_.below(8)], blocks_);
    // A few hot places make overlaps likely.
    uint64_t first = random_.below(blocks_ - count + 1);
    if (random_.chance(1, 2)) first = std::min(random_.below(4) * 300, blocks_ - count);
    if (count >= 8 && random_.chance(1, 2)) first &= ~uint64_t{7};
    const uint64_t offset = first * BlockModel::kBlock;
    const uint64_t length = count * BlockModel::kBlock;
    RequestOp op = RequestOp::kWrite;
    if (kind >= 12) op = RequestOp::kRead;
    if (kind >= 16) op = RequestOp::kFlush;
    if (kind >= 18) op = RequestOp::kDelete;
    const bool fua =
        op == RequestOp::kDelete ? id % 8 == 0 : op == RequestOp::kWrite && random_.chance(1, 8);
    std::vector<std::byte> bytes;
    if (op == RequestOp::kWrite) {
      const uint64_t tag = random_.chance(1, 16) ? 0 : id;
      bytes.resize(length);
      for (uint64_t i = 0; i < count; ++i) {
        BlockModel::fill(Bytes(bytes).subspan(i * BlockModel::kBlock, BlockModel::kBlock), tag,
                         first + i);
      }
      model_.begin(id, first, count, tag);
    }
    if (op == RequestOp::kDelete) {
      const uint64_t begin = round_up(offset, 4096) / BlockModel::kBlock;
      const uint64_t stop = round_down(offset + length, 4096) / BlockModel::kBlock;
      model_.begin(id, begin, begin < stop ? stop - begin : 0, 0);
    }
    if (op == RequestOp::kFlush) {
      pending_.push_back(
          {pair_.begin(node(primary_), op, 0, 0), id, model_.now(), pair_.loop.now_us()});
      return;
    }
    const uint64_t begun = model_.now();
    pending_.push_back({pair_.begin(node(primary_), op, offset, length, bytes, fua), id, begun,
                        pair_.loop.now_us()});
  }

  // --- failures and roles ------------------------------------------------------------------------

  /// Takes the role; false when it was refused.
  bool promote(int index, bool may_refuse = false) {
    Node& chosen = node(index);
    // Nor when a pass has ended, until the next handshake: the operator has to know.
    const bool force = pair_.options.original_peer && !may_refuse && chosen.extra().sync_target;
    note("promote node %d%s", index, force ? " by force" : "");
    sick_[index] = false;
    chosen.become_primary(force);
    up_[index] = true;
    primary_ = index;
    Life* const life = chosen.life();
    pair_.loop.run_until([life] { return life->started; }, 200 * kSecond);
    if (!life->started) {
      problem("a start as primary never ends");
      return false;
    }
    if (!life->serving) {
      note("refused: %s", life->failure.text);
      pair_.loop.run_until([life] { return life->ended; }, 200 * kSecond);
      primary_ = -1;
      if (!may_refuse)
        problem(std::string("a start as primary was refused: ") + life->failure.text);
      return false;
    }
    return true;
  }

  void secondary(int index) {
    note("node %d is secondary", index);
    sick_[index] = false;
    node(index).become_secondary();
    up_[index] = true;
  }

  /// The primary's process or machine dies; then the other takes over if it has all, or it comes
  /// back itself.
  void lose_primary(bool power) {
    if (!serving()) return;
    const int dead = primary_;
    const int other = 1 - dead;
    poll();
    const EngineStats now = stats();
    const bool in_sync = now.complete && now.state == EngineState::kInSync;
    const bool has_all = up_[other] && !sick_[other] && !lone_ && second_good_ &&
                         (in_sync || !now.complete || !first_good_);
    const bool was_stale = !first_good_;
    note("node %d %s (in sync %d, second good %d, lone %d)", dead, power ? "loses power" : "dies",
         in_sync, second_good_, lone_);
    if (power) {
      node(dead).power_cut(random_.next());
    } else {
      node(dead).crash();
    }
    up_[dead] = false;
    cut_[dead] = cut_[dead] || power;
    primary_ = -1;
    poll();
    const bool fail_over = has_all && (was_stale || random_.chance(2, 3));
    if (fail_over) {
      if (pair_.options.replication == Replication::kAsync) model_.forget_unflushed();
      first_good_ = true;
      second_good_ = false;
      if (!promote(other)) return;
      return;
    }
    // Half a copy must not be served: ours refuse it.
    if (!pair_.options.original_peer && now.complete && up_[other] && !second_good_ && !lone_ &&
        random_.chance(1, 2)) {
      // What async promises: all that the peer had received.
      if (pair_.options.replication == Replication::kAsync) model_.forget_unflushed();
      if (promote(other, true)) {
        note("node %d took over although it may lack something", other);
        first_good_ = true;
        return;
      }
      secondary(other);
    }
    if (random_.chance(1, 2)) pair_.mend();
    // Half a copy is not served here either: then the other one has the good data.
    const bool half = was_stale || node(dead).extra().sync_target || node(dead).extra().local_stale;
    if (half) {
      pair_.mend();
      if (!up_[other]) secondary(other);
    }
    if (power) model_.forget_unflushed();
    if (half) may_fail_ = true;
    second_good_ = false;
    promote(dead, half);
    if (primary_ < 0 && result_.ok) {
      secondary(dead);
      promote(other);
      first_good_ = true;
      second_good_ = false;
    }
  }

  void lose_secondary(bool power) {
    if (primary_ < 0) return;
    const int other = 1 - primary_;
    if (!up_[other]) return;
    if (power && !first_good_) return;  // the only good copy: not promised
    note("secondary %d %s", other, power ? "loses power" : "dies");
    if (serving() && !pending_.empty()) lone_ = true;
    second_good_ = false;
    if (power) {
      node(other).power_cut(random_.next());
    } else {
      node(other).crash();
    }
    up_[other] = false;
  }

  void switch_over() {
    if (!serving()) return;
    const int old = primary_;
    const int other = 1 - old;
    if (!up_[other] || pair_.link_down() || silent_) return;
    note("planned switch from node %d", old);
    may_fail_ = true;  // requests may wait in vain for the peer with the newer data
    const bool was_lone = lone_;
    const bool was_sick = sick_[other];
    node(old).become_init();
    poll();
    for (const Pending& p : pending_) {
      if (!p.operation->done) problem("a request was left over by a demotion");
    }
    secondary(old);
    const bool stale = !first_good_;
    // A former primary that lost power, and that nobody has repaired since: with equal counters it
    // counts as good, as it does when it serves again itself.
    if (cut_[other]) model_.forget_unflushed();
    if (!promote(other, was_lone || !second_good_ || was_sick)) {
      if (!result_.ok) return;
      secondary(other);
      promote(old);
      return;
    }
    if (stale) first_good_ = true;
    second_good_ = false;
  }

  void cut() {
    const bool refuse = random_.chance(1, 2);
    note("the link breaks%s", refuse ? " for a while" : "");
    if (serving() && (!pending_.empty() || stats().in_flight > 0)) lone_ = true;
    if (pair_.options.replication != Replication::kFullsync) second_good_ = false;
    pair_.cut(refuse);
  }

  void silence() {
    note("the link is silent");
    if (serving() && (!pending_.empty() || stats().in_flight > 0)) lone_ = true;
    if (pair_.options.replication != Replication::kFullsync) second_good_ = false;
    silent_ = true;
    pair_.silence();
  }

  void mend() {
    if (pair_.link_down() || silent_) note("the link is mended");
    silent_ = false;
    pair_.mend();
  }

  void disk_fault() {
    // One bad disk at a time, and only while there is another copy.
    if (!serving() || !second_good_ || !first_good_ || lone_ || pair_.link_down() || silent_)
      return;
    const int index = static_cast<int>(random_.below(2));
    if (!up_[index] || node(index).life() == nullptr || sick_[0] || sick_[1]) return;
    // Beside an original nothing can say when a stale copy has become a good one again.
    if (pair_.options.original_peer && index == primary_) return;
    // In async the primary's disk alone may have what was acknowledged.
    if (pair_.options.replication == Replication::kAsync && index == primary_) return;
    static constexpr uint32_t kKinds[] = {FaultComponent::kRead, FaultComponent::kWrite,
                                          FaultComponent::kFlush,
                                          FaultComponent::kWrite | FaultComponent::kRead};
    FaultComponent::Fault fault;
    fault.kinds = kKinds[random_.below(4)];
    fault.error = -5;
    fault.times = random_.chance(1, 2) ? 1 : random_.between(2, 20);
    if (random_.chance(3, 4)) fault.offset = node(index).metadata().offset;
    note("the disk of node %d fails (kinds %u, %llu times, from %llu)", index, fault.kinds,
         static_cast<unsigned long long>(fault.times),
         static_cast<unsigned long long>(fault.offset));
    node(index).life()->disk->add_fault(fault);
    may_fail_ = true;
    sick_[index] = true;
    if (index != primary_) second_good_ = false;
  }

  void disk_speed() {
    const int index = static_cast<int>(random_.below(2));
    if (node(index).life() == nullptr) return;
    static constexpr uint64_t kSlow[] = {1, 100, 5000, 200000};
    const uint64_t most = kSlow[random_.below(4)];
    note("the disk of node %d takes up to %llu us", index, static_cast<unsigned long long>(most));
    node(index).life()->disk->set_delay(1, most);
  }

  void pass_time() {
    uint64_t us = 0;
    switch (random_.below(8)) {
      case 0:
        us = random_.between(1, 20);
        break;
      case 1:
      case 2:
      case 3:
        us = random_.between(1, 500);
        break;
      case 4:
      case 5:
        us = random_.between(1, 20000);
        break;
      case 6:
        us = random_.between(1, kSecond);
        break;
      default:
        us = random_.chance(1, 2) ? random_.between(1, 12 * kSecond) : 0;
        break;
    }
    pair_.loop.advance(us);
  }

  void step() {
    pass_time();
    poll();
    if (!result_.ok) return;
    const uint64_t dice = random_.below(100);
    if (primary_ < 0) {
      problem("no node serves");
      return;
    }
    if (dice < 78) {
      const uint64_t burst = random_.chance(1, 3) ? random_.between(2, 8) : 1;
      for (uint64_t i = 0; i < burst; ++i) request();
    } else if (dice < 82) {
      cut();
    } else if (dice < 84) {
      silence();
    } else if (dice < 88) {
      mend();
    } else if (dice < 91) {
      const int other = 1 - primary_;
      if (!up_[other]) {
        secondary(other);
      } else {
        lose_secondary(random_.chance(1, 2));
      }
    } else if (dice < 94) {
      lose_primary(random_.chance(1, 2));
    } else if (dice < 96) {
      switch_over();
    } else if (dice < 98) {
      disk_fault();
    } else {
      disk_speed();
    }
  }

  std::string difference() {
    const ConstBytes left = node(0).data();
    const ConstBytes right = node(1).data();
    for (uint64_t block = 0; block < blocks_; ++block) {
      const ConstBytes a = left.subspan(block * BlockModel::kBlock, BlockModel::kBlock);
      const ConstBytes b = right.subspan(block * BlockModel::kBlock, BlockModel::kBlock);
      if (std::ranges::equal(a, b)) continue;
      return "node 0: " + model_.describe(block, a) + "; node 1: " + model_.describe(block, b);
    }
    return "";
  }

  /// The faults stop: the pair must heal by itself.
  void finish() {
    note("the faults stop");
    mend();
    for (int i = 0; i < 2; ++i) {
      if (Life* life = node(i).life()) {
        life->disk->clear_faults();
        life->disk->set_delay(1, 100);
      }
    }
    if (primary_ >= 0 && !up_[1 - primary_]) secondary(1 - primary_);
    const bool answered = pair_.loop.run_until(
        [this] {
          poll();
          return pending_.empty() || !result_.ok;
        },
        300 * kSecond);
    if (!result_.ok) return;
    if (!answered) {
      problem("requests are left unanswered");
      return;
    }
    // A disk that failed is replaced by the operator; here its content is simply copied again.
    const auto settled = [this] {
      return pair_.settle(node(primary_), stats().local_stale ? 0 : 300 * kSecond);
    };
    bool in_sync = settled();
    if (!in_sync && stats().local_stale) {
      note("the node with the failed disk gives up its role");
      const int stale = primary_;
      node(stale).become_init();
      secondary(stale);
      if (!promote(1 - stale)) return;
      in_sync = settled();
    }
    if (!in_sync) {
      const EngineStats now = stats();
      problem(std::string("the pair does not come in sync: ") + now.reason + ", state " +
              std::to_string(static_cast<int>(now.state)) + ", dirty " +
              std::to_string(now.dirty_bytes));
      return;
    }
    if (!pair_.equal()) problem("both are in sync, but not equal: " + difference());
    check(0, node(primary_).data(), model_.now(), "the end");
    const std::vector<EventName>& events = node(primary_).life()->host.events;
    if (std::find(events.begin(), events.end(), EventName::kSplitBrain) != events.end()) {
      problem("split-brain although only one side ever wrote alone");
    }
  }

  Random random_;
  Pair pair_;
  BlockModel model_;
  uint64_t blocks_ = 0;
  ScheduleResult result_;
  std::vector<Pending> pending_;
  uint64_t last_id_ = 0;
  int primary_ = -1;
  bool up_[2] = {};
  bool cut_[2] = {};   // it lost power as primary, and has not been in sync since
  bool sick_[2] = {};  // its disk was told to fail, in this life
  bool silent_ = false;
  bool may_fail_ = false;     // a disk has failed: requests may fail, too
  bool first_good_ = true;    // the primary's disk has all that was acknowledged
  bool second_good_ = false;  // so has the other one
  bool lone_ = false;         // the primary may have acknowledged something alone
};

}  // namespace

ScheduleResult run_schedule(uint64_t seed) {
  Schedule schedule(seed);
  return schedule.run();
}

}  // namespace hast::test
