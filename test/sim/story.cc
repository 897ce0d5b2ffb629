#include "sim/story.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sim/checkers.h"

namespace hast::test {

namespace {
constexpr uint64_t kSecond = 1'000'000;
constexpr uint32_t kBlock = 4096;
constexpr unsigned kBlocks = 30;
constexpr unsigned kJunkBlock = 29;

PairOptions options_of(const Beginning& beginning) {
  PairOptions options;
  options.disk_bytes = kMetadataBytes + 512 + uint64_t{kBlocks} * kBlock;
  options.extent_bytes = kBlock;
  options.layout_hast = true;
  options.original_peer = beginning.kind == Kind::kOriginal;
  options.original_node = beginning.kind == Kind::kMixed ? 1 : -1;
  options.replication = beginning.mode;
  options.version = beginning.version;
  return options;
}

std::vector<std::byte> block_of(unsigned write) {
  return std::vector<std::byte>(kBlock, static_cast<std::byte>(write + 1));
}

std::string_view compare(uint64_t left, uint64_t right) {
  return left < right ? "<" : left > right ? ">" : "=";
}

std::string_view copy_of(const Extra& extra) {
  return extra.local_stale ? "stale" : extra.sync_target ? "incomplete" : "whole";
}

std::string_view line_of(const Generations& newer, const Generations& older) {
  if (newer.current == 0 || older.current == 0) return "unknown";
  return newer.knows(older.current) ? "yes" : "no";
}

std::string outcome_of(const Decision& d) {
  if (d.refusal == Refusal::kIdentity) return "refused: other resource";
  if (d.refusal == Refusal::kSplitBrain) return "refused: split-brain";
  if (d.refusal == Refusal::kIncomplete) return "refused: S incomplete";
  std::string text = d.source == SyncSource::kSecondary ? "from S" : "from P";
  text += d.map == MapAnswer::kFull   ? ", everything"
          : d.map == MapAnswer::kNone ? ", nothing to copy"
                                      : ", marked extents";
  return text;
}

std::string words_of(const Event& event) {
  const std::string name = event.node == 0 ? "a" : "b";
  switch (event.what) {
    case 'w':
      return name + " writes";
    case 'f':
      return name + " flushes";
    case 'u':
      return name + " dies in a write that it has";
    case 'v':
      return name + " dies in a write that its peer has";
    case 'd':
      return name + " dies before it has stored a write that it has received";
    case 'r':
      return name + " dies in a write that is answered and not stored by its peer yet";
    case 'e':
      return "a write, which fails at " + name;
    case 'g':
      return "a flush, which fails at " + name;
    case 'c':
      return "the link goes";
    case 'm':
      return "the link comes back";
    case 'x':
      return name + " dies";
    case 'l':
      return name + " loses power and what it had not flushed";
    case 'k':
      return name + " loses power and nothing else";
    case 'S':
      return name + " secondary";
    case 'P':
      return name + " primary";
    case 'F':
      return name + " primary -f";
    case 'N':
      return name + " gets a new disk";
    default:
      return "?";
  }
}
/// Its own disk, in this life.
bool gave_up(Node& primary) {
  if (primary.life() == nullptr) return false;  // its last message was still on its way
  const std::vector<std::string>& log = primary.life()->host.log_lines;
  return std::any_of(log.begin(), log.end(), [](const std::string& line) {
    return line.find("detached. All I/O") != std::string::npos;
  });
}

constexpr const char* kPower = "power of an original";
constexpr const char* kDisk = "disk of an original";
constexpr const char* kPass = "pass of an original";

bool has_node(char what) { return what != 'c' && what != 'm'; }
}  // namespace

std::string name_of(const Beginning& b) {
  std::string name = b.kind == Kind::kOurs ? "ours" : b.kind == Kind::kMixed ? "mixed" : "original";
  if (b.mode != Replication::kFullsync) {
    name += b.mode == Replication::kAsync ? ",async" : ",memsync";
  }
  if (b.promised) name += ",equal";
  if (b.version < 2) name += ",version " + std::to_string(b.version);
  return name;
}

bool read_beginning(std::string_view text, Beginning& out) {
  for (const Kind kind : {Kind::kOurs, Kind::kMixed, Kind::kOriginal}) {
    for (const Replication mode :
         {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
      for (const bool promised : {false, true}) {
        for (const int version : {2, 1, 0}) {
          out = {kind, mode, promised, static_cast<uint8_t>(version)};
          if (name_of(out) == text) return true;
        }
      }
    }
  }
  return false;
}

std::string code_of(const Story& story) {
  std::string text;
  for (const Event& event : story) {
    if (!text.empty()) text += ' ';
    text += event.what;
    if (has_node(event.what)) text += event.node == 0 ? 'a' : 'b';
    if (event.stop > 0) text += "/" + std::to_string(event.stop);
  }
  return text;
}

bool read_story(std::string_view text, Story& out) {
  out.clear();
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    Event event;
    if (word.empty() || kEvents.find(word[0]) == kEvents.npos) return false;
    event.what = word[0];
    const std::size_t used = has_node(event.what) ? 2 : 1;
    if (word.size() < used) return false;
    event.node = used == 2 && word[1] == 'b' ? 1 : 0;
    if (word.size() > used + 1) {
      event.stop = static_cast<unsigned>(std::strtoul(&word[used + 1], nullptr, 10));
    }
    out.push_back(event);
  }
  return !out.empty();
}

std::string tell(const Story& story) {
  std::string text;
  for (const Event& event : story) {
    if (!text.empty()) text += "; ";
    text += words_of(event);
    if (event.stop > 0) text += ", the link goes at step " + std::to_string(event.stop);
  }
  return text;
}

const std::vector<std::string>& fact_names() {
  static const std::vector<std::string> names = {
      "peer",    "identity", "promise", "S map",     "S:P counters", "P:S counters", "S copy",
      "S power", "P copy",   "P power", "P knows S", "S knows P",    "P was"};
  return names;
}

// --- the world
// ------------------------------------------------------------------------------------

World::World(const Beginning& beginning) : beginning_(beginning), pair_(options_of(beginning)) {
  for (int node = 0; node < 2; ++node) {
    if (beginning_.promised) pair_.node(node).create(true);
    put_junk(node);
  }
  pair_.on_meeting = [this](const Meeting& meeting) { meet(meeting); };
}

/// What an old disk had before: of no worth, and other than on the other node. Beside an original
/// and where equal contents were promised, two new disks are never made equal.
void World::put_junk(int node) {
  if (!is_ours() || beginning_.promised) return;
  ++junk_;
  const std::vector<std::byte> junk(kBlock, static_cast<std::byte>(0x80 + junk_ % 64));
  pair_.node(node).disk().set(pair_.node(node).metadata().offset + kJunkBlock * kBlock, junk);
}

bool World::possible(const Event& event) const {
  World& self = const_cast<World&>(*this);
  Node& node = self.pair_.node(event.node);
  const bool alive = node.role() != NodeRole::kInit;
  switch (event.what) {
    case 'w':
      return node.serving() && !full();
    case 'u':
    case 'v':
      return node.serving() && !full() && (event.what == 'u' || node.primary()->stats().complete);
    case 'd':
      return asked(event.node) == 1 - event.node && waits_for_memory(1 - event.node) && !full();
    case 'r':
      return asked(event.node) == event.node && waits_for_memory(event.node) && !full();
    case 'f':
      return node.serving() &&
             self.pair_.a().disk().unflushed_writes() + self.pair_.b().disk().unflushed_writes() >
                 0;
    case 'e':
      return asked(event.node) >= 0 && !full();
    case 'g':
      return asked(event.node) >= 0 && node.disk().unflushed_writes() > 0;
    case 'c':
      return !pair_.link_down();
    case 'm':
      return pair_.link_down();
    case 'x':
      return alive;
    case 'l':  // otherwise it is no other thing than a death
      return node.extra().boot != 0 || node.disk().unflushed_writes() > 0;
    case 'k':
      return node.disk().unflushed_writes() > 0;
    case 'S':
      return node.role() != NodeRole::kSecondary;
    case 'P':
      return node.role() != NodeRole::kPrimary;
    case 'F':  // an original is not asked for it
      return node.role() != NodeRole::kPrimary && pair_.options.original_node != event.node;
    case 'N':
      return !alive && node.life() == nullptr && node.metadata().resuid != 0;
    default:
      return false;
  }
}

bool World::happen(const Event& event) {
  meetings_.clear();
  met_ = open_ = stopped_ = false;
  stop_ = event.stop;
  changes_ = 0;
  carry_out(event);
  settle();
  end_meeting();
  check();
  return stop_ == 0 || stopped_;
}

template <typename Condition>
bool World::run(Condition condition, uint64_t limit_us) {
  return pair_.loop.run_until(
      [this, &condition] {
        watch();
        return stopped_ || condition();
      },
      limit_us);
}

void World::watch() {
  if (stop_ == 0 || stopped_ || !met_) return;
  const uint64_t now = fingerprint();
  if (now == seen_) return;
  seen_ = now;
  if (++changes_ < stop_) return;
  stopped_ = true;
  pair_.cut(true);
}

uint64_t World::fingerprint() const {
  uint64_t sum = 14695981039346656037u;
  for (int node = 0; node < 2; ++node) {
    const Node& n = const_cast<World&>(*this).pair_.node(node);
    for (const std::byte b : n.disk().current().first(kMetadataBytes + 512)) {
      sum = (sum ^ static_cast<uint64_t>(b)) * 1099511628211u;
    }
    sum = (sum ^ has(node)) * 1099511628211u;
  }
  return sum;
}

void World::carry_out(const Event& event) {
  switch (event.what) {
    case 'w':
    case 'u':
    case 'v':
      return write(event.node, event.what);
    case 'd':
    case 'r':
      return write_to_memory(event.what == 'd' ? 1 - event.node : event.node, event.node);
    case 'f':
      return flush(event.node);
    case 'e':
    case 'g':
      return fail(event.node, event.what == 'g');
    case 'c':
      return pair_.cut(true);
    case 'm':
      return pair_.mend();
    case 'x':
      return pair_.node(event.node).crash();
    case 'l':
    case 'k':
      return take_power(event.node, event.what == 'k');
    case 'S':
      return pair_.node(event.node).become_secondary();
    case 'P':
    case 'F':
      return take_role(event.node, event.what == 'F');
    default:
      pair_.node(event.node).replace_disk();
      put_junk(event.node);
      promised_ &= has(0) | has(1);
  }
}

void World::write(int node, char how) {
  Node& n = pair_.node(node);
  const unsigned number = writes_++;
  served_[node] = true;
  const uint32_t bit = 1u << number;
  const Pair::Operation* const operation =
      pair_.begin(n, RequestOp::kWrite, uint64_t{number} * kBlock, kBlock, block_of(number));
  const int there = how == 'u' ? node : 1 - node;
  run(
      [&] {
        return operation->done || operation->orphaned || (how != 'w' && (has(there) & bit) != 0);
      },
      60 * kSecond);
  // Its disk is given up in this life, and nothing will be known of that.
  if (pair_.options.original_node == node && gave_up(n)) missed_ |= bit;
  if (operation->done && operation->error == 0) {
    promised_ |= bit;
    const bool async = beginning_.mode == Replication::kAsync;
    if (async && n.serving() && n.primary()->stats().complete) only_sent_ |= bit;
  }
  if (how != 'w') n.crash();
}

/// Are writes of this primary answered when its peer has received them?
bool World::waits_for_memory(int primary) const {
  Primary* const p = const_cast<World&>(*this).pair_.node(primary).primary();
  if (p == nullptr) return false;
  const EngineStats stats = p->stats();
  return stats.complete && !stats.local_stale && stats.sync_source != 2 &&
         stats.replication == static_cast<uint8_t>(Replication::kMemsync);
}

/// A write is answered when it is stored here and received there; before it is stored there, one of
/// the two dies. What the peer alone had received goes with its process.
void World::write_to_memory(int primary, int dies) {
  Node& n = pair_.node(primary);
  const unsigned number = writes_++;
  served_[primary] = true;
  const uint32_t bit = 1u << number;
  FaultComponent& there = *pair_.node(1 - primary).life()->disk;
  there.hold(FaultComponent::kWrite, n.metadata().offset);
  const Pair::Operation* const operation =
      pair_.begin(n, RequestOp::kWrite, uint64_t{number} * kBlock, kBlock, block_of(number));
  run([&] { return operation->done || operation->orphaned; }, 60 * kSecond);
  if (operation->done && operation->error == 0) {
    promised_ |= bit;
    only_sent_ |= bit;
  }
  pair_.node(dies).crash();
  if (dies == primary) there.release();
}

void World::flush(int node) {
  const Pair::Operation* const operation = pair_.begin(pair_.node(node), RequestOp::kFlush, 0, 0);
  run([&] { return operation->done || operation->orphaned; }, 60 * kSecond);
  if (operation->done && operation->error == 0) flushed_ |= promised_ & has(node);
}

/// The primary of whose requests this node's disk is to carry out a part; -1 without one.
int World::asked(int node) const {
  World& self = const_cast<World&>(*this);
  if (self.pair_.node(node).serving()) return node;
  Node& peer = self.pair_.node(1 - node);
  return peer.serving() && peer.primary()->stats().complete ? 1 - node : -1;
}

/// Its disk fails one operation, and is good again.
void World::fail(int node, bool in_flush) {
  Node& n = pair_.node(node);
  const int primary = asked(node);
  FaultComponent::Fault fault;
  fault.kinds = in_flush ? FaultComponent::kFlush : FaultComponent::kWrite;
  fault.error = -EIO;
  fault.times = 1;
  if (!in_flush) fault.offset = n.metadata().offset;
  n.life()->disk->add_fault(fault);
  if (in_flush) {
    flush(primary);
  } else {
    write(primary, 'w');
  }
  if (n.life() != nullptr) n.life()->disk->clear_faults();
}

void World::take_power(int node, bool keep) {
  Node& n = pair_.node(node);
  const bool served = n.serving() || n.metadata().prevrole == Role::kPrimary;
  const uint32_t before = has(node);
  n.disk().keep_at_cut(keep ? ~uint64_t{0} : 0);
  n.power_cut(1);
  if (is_original(node)) taken_ |= before & ~has(node);
  const uint32_t lost = promised_ & before & ~has(node);
  promised_ &= has(0) | has(1);
  (served ? unflushed_ : fell_)[node] |= lost;
  // Both have lost their caches: only what both have, or what was flushed, is promised.
  Node& peer = pair_.node(1 - node);
  if (n.extra().lost_cache(n.bootid()) && peer.extra().lost_cache(peer.bootid())) {
    promised_ &= (has(0) & has(1)) | flushed_;
  }
  // The peer, in the middle of a pass, takes its own copy for an incomplete one.
  if (peer.extra().sync_target) promised_ &= has(node) | flushed_;
}

void World::take_role(int node, bool force) {
  Node& n = pair_.node(node);
  forced_[node] = force;
  n.become_primary(force);
  const Extra before = n.extra();  // as the role before has left it
  const Role was = n.metadata().prevrole;
  doubtful_[node] = before.sync_target || before.local_stale || before.lost_cache(n.bootid());
  starting_[node] = true;
  const Life* const life = n.life();
  run([&] { return n.life() != life || life->started || life->ended; }, 60 * kSecond);
  note_alone(node, force ? " -f" : "", before, was);
  begin_serving(node);
}

/// What is promised no longer once this copy serves.
void World::begin_serving(int node) {
  Node& n = pair_.node(node);
  if (n.role() != NodeRole::kPrimary) starting_[node] = false;
  if (!starting_[node] || !n.serving()) return;
  starting_[node] = false;
  served_[node] = true;
  const uint32_t own = has(node);
  const bool alone = !n.primary()->stats().complete;
  // One that is a target waits for its peer with all that it lacks.
  const uint32_t lacking = n.extra().sync_target ? 0 : promised_ & fell_[node] & ~own;
  if (alone && lacking != 0 && !forced_[node] && pair_.options.original_node != node) {
    findings_.push_back({"leads alone, without what its own power cut took",
                         (lacking & ~copying_) == 0 ? kPass : ""});
  }
  if (forced_[node] && doubtful_[node]) promised_ &= own;  // the operator has said so
  // Of async what was on its way, of memsync what the peer had received and not stored.
  promised_ &= ~(only_sent_ & ~own);
  if (alone) promised_ &= ~(unflushed_[node] & ~own);
}

uint32_t World::has(int node) const {
  const ConstBytes data = const_cast<World&>(*this).pair_.node(node).data();
  uint32_t set = 0;
  for (unsigned i = 0; i < writes_; ++i) {
    const ConstBytes block = data.subspan(std::size_t{i} * kBlock, kBlock);
    // All bytes of it are the same: each is like the one before.
    const bool even = std::memcmp(block.data(), block.data() + 1, kBlock - 1) == 0;
    if (even && block[0] == static_cast<std::byte>(i + 1)) set |= 1u << i;
  }
  return set;
}

/// Blocks that are not the same on both; a write that failed may have left a part of one.
uint32_t World::differing() const {
  World& self = const_cast<World&>(*this);
  const ConstBytes left = self.pair_.a().data();
  const ConstBytes right = self.pair_.b().data();
  uint32_t set = 0;
  for (unsigned i = 0; i < kBlocks; ++i) {
    const std::size_t at = std::size_t{i} * kBlock;
    if (std::memcmp(left.data() + at, right.data() + at, kBlock) != 0) set |= 1u << i;
  }
  return set;
}

// --- meetings
// -------------------------------------------------------------------------------------

void World::meet(const Meeting& meeting) {
  end_meeting();
  const SecondaryFacts& s = meeting.secondary;
  const PrimaryFacts& p = meeting.primary;
  other_ = 1 - meeting.node;
  Node& primary = pair_.node(other_);
  const Extra own = primary.extra();
  const bool fresh = s.resuid == 0;
  MeetingRow row;
  std::vector<std::string>& f = row.facts;
  const bool mixed = beginning_.kind == Kind::kMixed;
  f.emplace_back(p.extended ? "ours" : !mixed ? "original" : is_original(other_) ? "P" : "S");
  f.emplace_back(fresh                  ? (p.virgin ? "both new" : "S new")
                 : s.resuid == p.resuid ? "same"
                                        : "other");
  const bool both_promise = s.contents_equal && p.contents_equal;
  f.emplace_back(both_promise ? "both" : s.contents_equal || p.contents_equal ? "one" : "no");
  f.emplace_back(s.map_empty ? "empty" : "marks");
  f.emplace_back(compare(s.localcnt, p.remotecnt));
  f.emplace_back(compare(p.localcnt, s.remotecnt));
  f.emplace_back(s.stale ? "stale" : s.incomplete ? "incomplete" : "whole");
  f.emplace_back(s.lost_cache ? (s.led ? "lost as P" : "lost") : "kept");
  const std::string force = forced_[other_] ? " -f" : "";
  const std::string copy(gave_up(primary) ? "given up" : copy_of(own));
  const bool lost = own.lost_cache(primary.bootid());
  f.push_back(copy == "whole" || copy == "given up" ? copy : copy + force);
  f.push_back(lost ? (p.led ? "lost as P" : "lost") + force : "kept");
  f.emplace_back(line_of(p.generations, s.generations));
  f.emplace_back(line_of(s.generations, p.generations));
  f.emplace_back("-");
  const Decision decision = decide(s, p);
  row.outcome = outcome_of(decision);
  row.truth = truth(other_);
  const uint32_t of_s = has(meeting.node);
  const uint32_t of_p = has(other_);
  const uint32_t only_s = promised_ & of_s & ~of_p;
  const uint32_t only_p = promised_ & of_p & ~of_s;
  if (only_s != 0 && only_p != 0 && decision.refusal == Refusal::kNone) {
    // One copy has more but for what is granted, or both have.
    find("diverged, and not refused", granted(only_s) ? only_s : only_p);
  }
  const bool copies = decision.refusal == Refusal::kNone && decision.source == SyncSource::kPrimary;
  if (is_original(other_) && copies) copying_ |= fell_[meeting.node];
  // A copy that is forced, though it lacks what the other one has, has left the common line, too.
  const bool both_served =
      fresh || (served_[0] && served_[1]) || (forced_[other_] && doubtful_[other_]);
  if (decision.refusal == Refusal::kSplitBrain && !both_served) {
    find("split-brain, and one of them has not served since they were in sync");
  }
  meetings_.push_back(std::move(row));
  log_at_ = primary.log_lines().size();
  met_ = open_ = true;
  met_at_us_ = pair_.loop.now_us();
  if (changes_ == 0) seen_ = fingerprint();
}

/// Who has a write that the other one lacks?
std::string World::truth(int primary) const {
  const uint32_t of_p = has(primary);
  const uint32_t of_s = has(1 - primary);
  const bool p_more = (of_p & ~of_s) != 0;
  const bool s_more = (of_s & ~of_p) != 0;
  return s_more && p_more ? "both" : s_more ? "S" : p_more ? "P" : "none";
}

/// Asked to be primary, and no secondary was met.
void World::note_alone(int node, const std::string& force, const Extra& own, Role was) {
  Node& n = pair_.node(node);
  Node& peer = pair_.node(1 - node);
  const Life* const life = n.life();
  if (met_ || life == nullptr || !(life->started || life->ended)) return;
  if (pair_.options.original_node == node) return;  // it always leads
  MeetingRow row;
  row.facts.assign(fact_names().size(), "-");
  row.facts[0] = "none";
  row.facts[1] = pair_.link_down()                   ? "no link"
                 : peer.role() == NodeRole::kPrimary ? "is primary"
                                                     : "has no role";
  row.facts[8] = std::string(copy_of(own)) + force;
  row.facts[9] = own.lost_cache(n.bootid()) ? "lost" : "kept";
  row.facts[12] = role_name(was);
  const std::string_view why = life->failure.text;
  row.outcome = life->serving                             ? "leads alone"
                : why.find("peer is primary") != why.npos ? "refused: the peer is primary"
                : why.find("went down") != why.npos       ? "refused: power lost as secondary"
                                                          : "refused: P incomplete";
  row.truth = truth(node);
  meetings_.push_back(std::move(row));
}

void World::end_meeting() {
  if (!open_) return;
  open_ = false;
  const std::vector<std::string>& log = pair_.node(other_).log_lines();
  for (std::size_t i = log_at_; i < log.size(); ++i) {
    if (log[i].find("takes it for the good one") != std::string::npos) {
      meetings_.back().outcome = "refused: P incomplete";
    }
    if (log[i].find("is copied from the peer") != std::string::npos) {
      meetings_.back().outcome = "from S, marked extents";
    }
  }
}

// --- what is granted beside an original
// --------------------------------------------------------------

std::span<const Reason> reasons() {
  static constexpr Reason kReasons[] = {
      {kPower,
       "An original does not say that its machine went down with writes that were not flushed, and "
       "its counters are those of a whole copy."},
      {kDisk,
       "An original that was primary keeps nothing of its disk's failure: after its next start its "
       "counters are those of a whole copy."},
      {kPass,
       "An original does not say when a pass has ended. With equal counters a secondary that lost "
       "power counts as whole as soon as the two are connected, also when a second failure ends "
       "that before it has got back what it lost."},
  };
  return kReasons;
}

/// `gone`: the writes of which it tells.
void World::find(const std::string& what, uint32_t gone) {
  std::string reason;
  if (gone != 0 && granted(gone)) {
    reason = (gone & taken_) != 0 ? kPower : kDisk;
  }
  findings_.push_back({what, reason});
}

// --- what must hold
// -------------------------------------------------------------------------------

int World::primary_of_pair() const {
  World& self = const_cast<World&>(*this);
  for (int node = 0; node < 2; ++node) {
    if (self.pair_.node(node).serving() &&
        self.pair_.node(1 - node).role() == NodeRole::kSecondary) {
      return node;
    }
  }
  return -1;
}

bool World::in_sync(int primary) const {
  Node& node = const_cast<World&>(*this).pair_.node(primary);
  const EngineStats stats = node.primary()->stats();
  return stats.complete && stats.state == EngineState::kInSync && stats.dirty_bytes == 0 &&
         stats.in_flight == 0 && !stats.local_stale && !node.extra().sync_target;
}

void World::settle() {
  for (int node = 0; node < 2; ++node) {
    if (!starting_[node] || stopped_) continue;  // a set-up was cut off while it started
    Node& n = pair_.node(node);
    run([&n] { return n.serving() || n.role() != NodeRole::kPrimary; }, 60 * kSecond);
    begin_serving(node);
  }
  const int primary = primary_of_pair();
  const bool meets = primary >= 0 && !pair_.link_down() && !stopped_;
  if (meets) {
    const bool settled = run(
        [&] {
          if (!pair_.node(primary).serving()) return true;
          const EngineStats stats = pair_.node(primary).primary()->stats();
          if (stats.complete) return stats.local_stale || in_sync(primary);
          return met_ && pair_.loop.now_us() > met_at_us_ + kSecond / 2;
        },
        25 * kSecond);
    if (!settled) find("the two do not come together");
  }
  if (!stopped_) pair_.loop.advance(kSecond / 5);
}

void World::check() {
  const uint32_t a = has(0);
  const uint32_t b = has(1);
  for (int node = 0; node < 2; ++node) {
    // The operator's copy counts as soon as it is copied, also before it serves.
    if (starting_[node] && forced_[node] && doubtful_[node]) promised_ &= a | b;
  }
  if (const uint32_t gone = promised_ & ~(a | b)) {
    find("what was promised is gone", gone);
    promised_ &= a | b;
  }
  uint32_t unmarked = 0;  // a write is an extent
  for (const uint64_t extent : uncovered_extents(pair_)) unmarked |= 1u << extent;
  if (unmarked != 0) find("the nodes differ, and nothing says so", unmarked);
  for (int node = 0; node < 2; ++node) served_[node] |= pair_.node(node).serving();
  const int primary = primary_of_pair();
  if (primary < 0 || pair_.link_down() || !pair_.node(primary).primary()->stats().complete) return;
  if (!in_sync(primary)) return;
  if (!pair_.equal()) find("in sync, and not equal", differing());
  if (const uint32_t gone = promised_ & ~has(primary)) {
    find("in sync, without what was promised", gone);
  }
  only_sent_ = 0;
  if (a == b) taken_ = missed_ = copying_ = fell_[0] = fell_[1] = 0;
  served_[0] = served_[1] = false;
  flushed_ &= promised_;
}

// --- what counts
// ----------------------------------------------------------------------------------

/// One node and how it stands to the other one.
std::string World::half(int me) const {
  World& self = const_cast<World&>(*this);
  Node& n = self.pair_.node(me);
  Node& o = self.pair_.node(1 - me);
  const Metadata m = n.metadata();
  const Extra e = n.extra();
  const Metadata om = o.metadata();
  const Extra oe = o.extra();
  std::string text;
  if (beginning_.kind == Kind::kMixed) text += is_original(me) ? 'O' : 'M';
  text += n.role() == NodeRole::kInit ? 'i' : n.role() == NodeRole::kSecondary ? 's' : 'p';
  text += n.serving() ? 'v' : '-';
  text += n.life() != nullptr ? 'l' : '-';
  text += m.resuid == 0 ? '0' : m.resuid == om.resuid ? '=' : '!';
  text += e.sync_target ? 't' : '-';
  text += e.local_stale ? 's' : '-';
  text += e.peer_stale ? 'p' : '-';
  text += e.ahead ? 'a' : '-';
  text += e.boot == 0 ? '-' : e.lost_cache(n.bootid()) ? 'L' : 'b';
  text += e.generation == kGenerationOfEqualContents ? 'e' : '-';
  text += n.map_empty() ? '-' : 'm';
  text += role_name(m.prevrole)[0];
  text += m.localcnt == 0 ? '0' : '+';
  text += compare(m.localcnt, om.remotecnt);
  const Generations mine = e.generations();
  const Generations theirs = oe.generations();
  text += theirs.current == 0              ? '0'
          : mine.current == theirs.current ? 'c'
          : mine.shared == theirs.current  ? 's'
          : mine.offered == theirs.current ? 'o'
                                           : '-';
  text += mine.offered == 0 ? '-' : 'o';
  text += n.disk().unflushed_writes() > 0 ? 'u' : '-';
  const uint32_t own = has(me);
  const uint32_t other = has(1 - me);
  text += (own & ~other) != 0 ? '>' : '-';
  text += (promised_ & own & ~other) != 0 ? '>' : '-';
  text += (promised_ & unflushed_[me] & ~own) != 0 ? 'w' : '-';
  text += forced_[me] && n.serving() ? 'f' : '-';
  if (n.serving()) {
    const EngineStats stats = n.primary()->stats();
    text += stats.complete ? 'c' : '-';
    text += static_cast<char>('0' + static_cast<int>(stats.state));
    text += stats.local_stale ? 's' : '-';
    text += static_cast<char>('0' + stats.sync_source);
  }
  return text;
}

std::string World::state() const {
  const std::string a = half(0);
  const std::string b = half(1);
  return (pair_.link_down() ? "down " : "up ") + std::min(a, b) + " " + std::max(a, b);
}

}  // namespace hast::test
