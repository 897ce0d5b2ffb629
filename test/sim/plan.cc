#include "sim/plan.h"

#include <algorithm>
#include <cstdlib>

namespace hast::test {

namespace {

constexpr const char* kNames[] = {
    "time",        "events",     "requests",  "cut",         "silence",    "stillborn",
    "mend",        "network",    "start",     "lose second", "lose first", "lose both",
    "switch over", "disk fault", "disk full", "disk slow",   "astray",     "replace",
    "reload",      "force",      "two",       "freeze",      "overtake"};
static_assert(std::size(kNames) == static_cast<std::size_t>(StepKind::kKinds));

constexpr uint64_t kFreezeStream = 0x319a000000000000;
constexpr uint64_t kOvertakeStream = 0x07e8000000000000;

struct Weight {
  StepKind kind;
  uint32_t weight;
};

/// Out of 100 steps that are no requests and no time.
constexpr Weight kWeights[] = {
    {StepKind::kCut, 14},          {StepKind::kSilence, 8},      {StepKind::kStillborn, 3},
    {StepKind::kMend, 18},         {StepKind::kNetwork, 4},      {StepKind::kStartSecondary, 10},
    {StepKind::kLoseSecondary, 9}, {StepKind::kLosePrimary, 12}, {StepKind::kLoseBoth, 2},
    {StepKind::kSwitchOver, 6},    {StepKind::kDiskFault, 5},    {StepKind::kDiskFull, 1},
    {StepKind::kDiskSlow, 4},      {StepKind::kAstray, 1},       {StepKind::kReplace, 1},
    {StepKind::kReload, 2},
};

StepKind pick(Random& random) {
  uint64_t total = 0;
  for (const Weight& w : kWeights) total += w.weight;
  uint64_t dice = random.below(total);
  for (const Weight& w : kWeights) {
    if (dice < w.weight) return w.kind;
    dice -= w.weight;
  }
  return StepKind::kTime;
}

/// Small disks, so that a schedule is short; now and then one whose map has several sectors.
void choose_disk(PairOptions& options, Random& random) {
  options.layout_hast = !random.chance(1, 16);
  const uint64_t front = options.layout_hast ? 0 : 1u << 20;
  if (random.chance(1, 64)) {
    options.extent_bytes = 512;
    options.disk_bytes = front + (33u << 16);
    return;
  }
  options.extent_bytes = 4096u << random.below(5);
  // Few sizes: a disk is used again by the next schedule that wants one like it.
  options.disk_bytes = front + (random.between(2, 4) << 17) + 4096 + 12288 * random.below(2);
}

PairOptions options_of(uint64_t seed) {
  Random random(seed ^ 0x5eed);
  PairOptions options;
  options.seed = seed;
  choose_disk(options, random);
  options.keepdirty = static_cast<uint32_t>(random.between(1, 8));
  options.replication = static_cast<Replication>(random.below(3));
  static constexpr Checksum kChecksums[] = {Checksum::kNone, Checksum::kNone, Checksum::kCrc32,
                                            Checksum::kSha256};
  options.checksum = kChecksums[random.below(4)];
  static constexpr Compression kCompressions[] = {Compression::kHole, Compression::kHole,
                                                  Compression::kNone, Compression::kLzf};
  options.compression = kCompressions[random.below(4)];
  options.original_peer = random.chance(1, 4);
  if (options.original_peer) options.version = static_cast<uint8_t>(2 - random.below(3));
  if (random.chance(1, 4)) options.timeout_ms = static_cast<uint32_t>(random.between(2000, 20000));
  return options;
}

/// A failure comes in the middle of things: some events run, not a whole turn.
void add_failure(std::vector<Step>& steps, Random& random, StepKind kind) {
  if (random.chance(2, 3)) steps.push_back({StepKind::kEvents, random.next()});
  steps.push_back({kind, random.next()});
}

/// Of a stream of its own, in a third of the seeds: the others stayed as they had been before there
/// was this failure. The constant was chosen so that the kept seeds are among them.
void add_freezes(std::vector<Step>& steps, uint64_t seed) {
  Random random(seed ^ kFreezeStream);
  if (!random.chance(1, 3)) return;
  for (uint64_t times = random.between(1, 4); times > 0; --times) {
    std::vector<Step> added;
    add_failure(added, random, StepKind::kFreeze);
    const uint64_t at = random.below(steps.size());
    steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(at), added.begin(), added.end());
  }
}

/// For the same reason of a stream of its own, which leaves the kept seeds out.
void add_overtake(std::vector<Step>& steps, uint64_t seed) {
  Random random(seed ^ kOvertakeStream);
  if (!random.chance(1, 8)) return;
  const uint64_t at = random.below(steps.size());
  steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(at),
               {StepKind::kOvertake, random.next()});
}

}  // namespace

const char* step_name(StepKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

Plan make_plan(uint64_t seed) {
  Plan plan;
  plan.seed = seed;
  plan.options = options_of(seed);
  Random random(seed);
  plan.late_secondary = random.chance(1, 12);
  const uint64_t turns = random.between(60, 140);
  const bool quiet = random.chance(1, 6);
  for (uint64_t turn = 0; turn < turns; ++turn) {
    if (random.chance(5, 6)) plan.steps.push_back({StepKind::kTime, random.next()});
    if (random.chance(quiet ? 15 : 11, 16)) {
      plan.steps.push_back({StepKind::kRequests, random.next()});
    } else {
      add_failure(plan.steps, random, pick(random));
    }
  }
  if (!plan.options.original_peer && random.chance(1, 5)) {
    const uint64_t at = random.below(plan.steps.size());
    const StepKind kind = random.chance(3, 4) ? StepKind::kTwo : StepKind::kForce;
    plan.steps.insert(plan.steps.begin() + static_cast<std::ptrdiff_t>(at), {kind, random.next()});
  }
  add_freezes(plan.steps, seed);
  if (!plan.options.original_peer) add_overtake(plan.steps, seed);
  for (uint32_t i = 0; i < plan.steps.size(); ++i) plan.indices.push_back(i);
  return plan;
}

bool keep_steps(Plan& plan, const std::string& which) {
  if (which.empty()) return true;
  std::vector<bool> kept(plan.steps.size());
  const char* at = which.c_str();
  for (;;) {
    char* end = nullptr;
    uint64_t first = std::strtoull(at, &end, 10);
    if (end == at) return false;
    uint64_t last = first;
    if (*end == '-') {
      at = end + 1;
      last = std::strtoull(at, &end, 10);
      if (end == at) return false;
    } else if (which.find_first_of(",-") == std::string::npos) {
      first = 0;  // a count, not a list
      if (last-- == 0) return keep_steps(plan, std::to_string(kept.size()) + "-0");
    }
    for (uint64_t i = first; i <= last && i < kept.size(); ++i) kept[i] = true;
    if (*end == '\0') break;
    if (*end != ',') return false;
    at = end + 1;
  }
  Plan part = plan;
  part.steps.clear();
  part.indices.clear();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (!kept[i]) continue;
    part.steps.push_back(plan.steps[i]);
    part.indices.push_back(plan.indices[i]);
  }
  plan = std::move(part);
  return true;
}

std::string which_steps(const Plan& plan) {
  std::string text = plan.indices.empty() ? "0" : "";
  const std::vector<uint32_t>& all = plan.indices;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t j = i;
    while (j + 1 < all.size() && all[j + 1] == all[j] + 1) ++j;
    if (!text.empty()) text += ',';
    text += std::to_string(all[i]) + "-" + std::to_string(all[j]);
    i = j + 1;
  }
  return text;
}

}  // namespace hast::test
