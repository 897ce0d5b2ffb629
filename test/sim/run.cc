// Steps, requests, and looking at what came of them.

#include "sim/run.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>

#include "sim/checkers.h"

namespace hast::test {

namespace {
constexpr uint64_t kSecond = 1000000;
constexpr std::size_t kPendingMax = 24;
constexpr uint64_t kStepsBetweenChecks = 12;
}  // namespace

Run::Run(const Plan& plan, std::FILE* notes)
    : plan_(plan),
      notes_(notes),
      pair_(plan.options),
      model_(pair_.a().metadata().datasize / BlockModel::kBlock),
      second_(0),
      blocks_(model_.block_count()),
      data_offset_(pair_.a().metadata().offset) {
  is_.was_async = plan.options.replication == Replication::kAsync;
  is_.was_loose = plan.options.replication != Replication::kFullsync;
}

void Run::note(const char* format, ...) {
  if (notes_ == nullptr) return;
  std::fprintf(notes_, "%11.6f ", static_cast<double>(pair_.loop.now_us()) / 1e6);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(notes_, format, arguments);
  va_end(arguments);
  std::fputc('\n', notes_);
  std::fflush(notes_);
}

void Run::problem(const std::string& text) {
  if (!outcome_.ok) return;
  outcome_.ok = false;
  outcome_.problem = text;
  note("PROBLEM %s", text.c_str());
}

void Run::run() {
  const PairOptions& o = plan_.options;
  note("mode %d, %s, version %u, keepdirty %u, extents of %u, disk of %llu",
       static_cast<int>(o.replication), o.original_peer ? "original" : "ours", o.version,
       o.keepdirty, o.extent_bytes, static_cast<unsigned long long>(o.disk_bytes));
  change_network(Random(plan_.seed ^ 0x11));
  if (!plan_.late_secondary) secondary(1);
  promote(0);
  uint64_t count = 0;
  for (const Step& step : plan_.steps) {
    if (!outcome_.ok) break;
    execute(step);
    poll();
    if (++count % kStepsBetweenChecks == 0 && !is_.lost[0] && !is_.lost[1]) {
      const std::string uncovered = uncovered_difference(pair_);
      if (!uncovered.empty()) problem(uncovered);
    }
  }
  if (outcome_.ok) finish();
  pair_.mend();
}

Outcome Run::take() {
  outcome_.digest = pair_.trace.digest();
  outcome_.events = pair_.trace.events();
  return std::move(outcome_);
}

void Run::execute(const Step& step) {
  pair_.trace.note(0x57e9, static_cast<uint64_t>(step.kind), step.value, pair_.loop.now_us());
  Random random(step.value);
  switch (step.kind) {
    case StepKind::kTime:
      return pass_time(random);
    case StepKind::kEvents:
      return pair_.loop.run_events(random.between(1, 300));
    case StepKind::kRequests:
      return requests(is_.primary, random);
    case StepKind::kCut:
      return cut(random);
    case StepKind::kSilence:
      return silence(random);
    case StepKind::kStillborn:
      pair_.network.options.stillborn = static_cast<uint32_t>(random.between(1, 4));
      return cut(random);
    case StepKind::kMend:
      return mend();
    case StepKind::kNetwork:
      return change_network(random);
    case StepKind::kStartSecondary:
      if (!is_.up[1 - is_.primary]) secondary(1 - is_.primary);
      return;
    case StepKind::kLoseSecondary:
      return lose_secondary(random);
    case StepKind::kLosePrimary:
      return lose_primary(random, false);
    case StepKind::kLoseBoth:
      return lose_primary(random, true);
    case StepKind::kSwitchOver:
      return switch_over();
    case StepKind::kDiskFault:
      return disk_fault(random, false);
    case StepKind::kDiskFull:
      return disk_fault(random, true);
    case StepKind::kDiskSlow:
      return disk_slow(random);
    case StepKind::kAstray:
      return astray(random);
    case StepKind::kReplace:
      return replace_secondary();
    case StepKind::kReload:
      return reload(random);
    case StepKind::kForce:
      return force_take_over(random);
    case StepKind::kTwo:
      return two_primaries(random);
    case StepKind::kFreeze:
      return freeze(random);
    case StepKind::kOvertake:
      return overtake(random);
    case StepKind::kKinds:
      return;
  }
}

void Run::pass_time(Random random) {
  uint64_t us = 0;
  switch (random.below(10)) {
    case 0:
      us = random.between(1, 20);
      break;
    case 1:
    case 2:
    case 3:
    case 4:
      us = random.between(1, 500);
      break;
    case 5:
    case 6:
    case 7:
      us = random.between(1, 20000);
      break;
    case 8:
      us = random.between(1, kSecond);
      break;
    default:
      us = random.chance(1, 3) ? random.between(1, 12 * kSecond) : 0;
      break;
  }
  pair_.loop.advance(us);
}

bool Run::wait_until(bool (Run::*condition)(), uint64_t limit_us) {
  return pair_.loop.run_until(
      [this, condition] {
        poll();
        return (this->*condition)();
      },
      limit_us);
}

// --- looking at what has happened
// -----------------------------------------------------------------

void Run::poll() {
  look_at_state();
  std::erase_if(pending_, [this](const Pending& p) {
    if (!p.operation->done && !p.operation->orphaned) {
      if (pair_.loop.now_us() - p.since_us > 200 * kSecond) problem("a request is never answered");
      return false;
    }
    end(p);
    return true;
  });
  if (!pending_.empty()) return;
  model_.prune();
  pair_.forget_done();
  pair_.reap();
}

/// Connections of this life of the primary that have ended.
uint64_t Run::ends_told() {
  const std::vector<EventName>& events = node(is_.primary).life()->host.events;
  return static_cast<uint64_t>(std::count(events.begin(), events.end(), EventName::kDisconnect));
}

/// Something has happened to the other copy of which the primary will hear only later.
void Run::doubt_second() {
  is_.second_good = false;
  if (serving() && stats().complete) is_.ends_wanted = ends_told() + 1;
}

void Run::look_at_state() {
  if (!serving() || two_) return;
  const EngineStats now = stats();
  const int other = 1 - is_.primary;
  if (now.complete && now.state == EngineState::kInSync && now.dirty_bytes == 0 &&
      !now.local_stale && !is_.lost[other] && has_noticed()) {
    is_.second_good = true;
    is_.lone = false;
    is_.cut[0] = is_.cut[1] = is_.fell[0] = is_.fell[1] = false;
  }
  if (!now.complete && !pending_.empty()) is_.lone = true;
  if (now.local_stale && is_.first_good) {
    is_.first_good = false;
    if (is_.was_async) model_.forget_unflushed();
  }
}

void Run::end(const Pending& p) {
  const Pair::Operation& operation = *p.operation;
  BlockModel& model = model_of(p.node);
  const bool good = operation.done && operation.error == 0;
  pair_.trace.note(0xa5, static_cast<uint64_t>(operation.op), operation.offset,
                   static_cast<uint64_t>(operation.done ? operation.error : -1));
  if (operation.op == RequestOp::kWrite || operation.op == RequestOp::kDelete) {
    model.end(p.id, good ? BlockModel::End::kAcknowledged : BlockModel::End::kUnknown,
              operation.fua);
  } else if (operation.op == RequestOp::kFlush) {
    if (good) model.flushed(p.begun);
  } else if (good && p.proves && !is_.distrusted) {
    check(model, operation.offset, operation.bytes, p.begun, "a read");
  }
  if (operation.done && operation.error != 0) {
    note("operation %d at %llu+%llu gave %d", static_cast<int>(operation.op),
         static_cast<unsigned long long>(operation.offset),
         static_cast<unsigned long long>(operation.length), operation.error);
    if (!is_.may_fail && operation.error != ESHUTDOWN) problem("a request failed for no reason");
  }
}

void Run::check(const BlockModel& model, uint64_t offset, ConstBytes bytes, uint64_t begun,
                const char* what) {
  for (uint64_t at = 0; at < bytes.size(); at += BlockModel::kBlock) {
    const uint64_t block = (offset + at) / BlockModel::kBlock;
    const ConstBytes found = bytes.subspan(at, BlockModel::kBlock);
    if (model.allowed(block, found, begun)) continue;
    problem(std::string(what) + ": " + model.describe(block, found));
    return;
  }
}

// --- requests
// -------------------------------------------------------------------------------------

void Run::requests(int index, Random random) {
  const uint64_t burst = random.chance(2, 3) ? random.between(2, 8) : 1;
  for (uint64_t i = 0; i < burst; ++i) request(index, random);
}

void Run::request(int index, Random& random) {
  if (index < 0 || !node(index).serving() || node(index).frozen() || pending_.size() >= kPendingMax)
    return;
  if (!two_ && !stats().complete) is_.lone = true;
  const uint64_t kind = random.below(20);
  static constexpr uint64_t kSizes[] = {1, 1, 8, 8, 8, 16, 64, 256};
  const uint64_t count = std::min(kSizes[random.below(8)], blocks_ / 2);
  // A few hot places make overlaps likely.
  uint64_t first = random.below(blocks_ - count + 1);
  if (random.chance(1, 2)) first = std::min(random.below(4) * (blocks_ / 5), blocks_ - count);
  if (count >= 8 && random.chance(1, 2)) first &= ~uint64_t{7};
  RequestOp op = RequestOp::kWrite;
  if (kind >= 12) op = RequestOp::kRead;
  if (kind >= 16) op = RequestOp::kFlush;
  if (kind >= 18) op = RequestOp::kDelete;
  const bool changes = op == RequestOp::kWrite || op == RequestOp::kDelete;
  start_request(index, ++last_id_, op, first, count, random.chance(1, 16),
                changes && random.chance(1, 8));
}

void Run::start_request(int index, uint64_t id, RequestOp op, uint64_t first, uint64_t count,
                        bool zeroes, bool fua) {
  constexpr uint64_t kBlock = BlockModel::kBlock;
  BlockModel& model = model_of(index);
  const uint64_t offset = first * kBlock;
  const uint64_t length = count * kBlock;
  std::vector<std::byte> bytes;
  if (op == RequestOp::kWrite) {
    const uint64_t tag = zeroes ? 0 : id;
    bytes.resize(length);
    for (uint64_t i = 0; i < count; ++i) {
      BlockModel::fill(Bytes(bytes).subspan(i * kBlock, kBlock), tag, first + i);
    }
    model.begin(id, first, count, tag);
  }
  if (op == RequestOp::kDelete) {
    // What is punched is aligned on the disk; edges are left alone.
    const uint64_t begin = round_up(data_offset_ + offset, 4096) - data_offset_;
    const uint64_t end_at = round_down(data_offset_ + offset + length, 4096);
    const uint64_t stop = end_at > data_offset_ ? end_at - data_offset_ : 0;
    model.begin(id, begin / kBlock, begin < stop ? (stop - begin) / kBlock : 0, 0);
  }
  ++outcome_.operations;
  const bool flush = op == RequestOp::kFlush;
  const uint64_t begun = model.now();
  Pair::Operation* const operation =
      pair_.begin(node(index), op, flush ? 0 : offset, flush ? 0 : length, bytes, fua);
  pending_.push_back({operation, index, id, begun, pair_.loop.now_us(), !is_.distrusted});
}

// --- the end
// --------------------------------------------------------------------------------------

/// The faults stop: the pair must heal by itself.
void Run::finish() {
  note("the faults stop");
  thaw();
  mend();
  for (int i = 0; i < 2; ++i) {
    if (Life* life = node(i).life()) {
      life->disk->clear_faults();
      life->disk->set_delay(1, 100);
    }
  }
  if (is_.lost[1 - is_.primary]) replace_secondary();
  if (is_.primary >= 0 && !is_.up[1 - is_.primary]) secondary(1 - is_.primary);
  const bool all = wait_until(&Run::answered, 300 * kSecond);
  if (!outcome_.ok) return;
  if (!all) return problem("requests are left unanswered");
  if (settle()) check_end();
}

bool Run::settle() {
  // An idle primary of the original notices by TCP's own means, which are not simulated.
  if (pair_.options.original_peer && !has_noticed()) pair_.cut();
  if (!wait_until(&Run::has_noticed, 60 * kSecond)) {
    problem("the primary does not notice that its peer is gone");
    return false;
  }
  const auto settled = [this] {
    return pair_.settle(node(is_.primary), stats().local_stale ? 0 : 300 * kSecond);
  };
  bool in_sync = settled();
  if (!in_sync && stats().local_stale) {
    // A disk that failed is replaced by the operator; here its content is simply copied again.
    note("the node with the failed disk gives up its role");
    const int stale = is_.primary;
    node(stale).become_init();
    secondary(stale);
    if (!promote(1 - stale)) return false;
    in_sync = settled();
  }
  if (in_sync) return true;
  const EngineStats now = stats();
  problem(std::string("the pair does not come in sync: ") + now.reason + ", state " +
          std::to_string(static_cast<int>(now.state)) + ", dirty " +
          std::to_string(now.dirty_bytes));
  return false;
}

void Run::check_end() {
  if (const std::optional<uint64_t> at = first_difference(pair_)) {
    const uint64_t block = *at / BlockModel::kBlock;
    std::string text = "both are in sync, but not equal";
    for (int i = 0; i < 2; ++i) {
      const ConstBytes found =
          node(i).data().subspan(block * BlockModel::kBlock, BlockModel::kBlock);
      text += "; node " + std::to_string(i) + ": " + model_.describe(block, found);
    }
    problem(text);
  }
  check(model_, 0, node(is_.primary).data(), model_.now(), "the end");
  const std::vector<EventName>& events = node(is_.primary).life()->host.events;
  if (std::find(events.begin(), events.end(), EventName::kSplitBrain) != events.end()) {
    problem("split-brain although only one side ever wrote alone");
  }
}

Outcome run_plan(const Plan& plan, std::FILE* notes) {
  Outcome outcome;
  {
    Run run(plan, notes);
    run.run();
    outcome = run.take();
  }
  if (outcome.ok && task_frames_alive() > 0) {
    outcome.ok = false;
    outcome.problem = std::to_string(task_frames_alive()) + " coroutines are left over";
  }
  return outcome;
}

}  // namespace hast::test
