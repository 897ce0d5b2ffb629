// Short stories of two nodes with very small disks: each write goes to a block of its own, so that
// what a copy has is a set of writes, and what must not be lost is another one.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/pair.h"

namespace hast::test {

enum class Kind : uint8_t {
  kOurs,
  kMixed,     ///< a is ours, b is an original
  kOriginal,  ///< nobody announces extensions
};

/// What a story begins with: two new disks, and nobody has a role.
struct Beginning {
  Kind kind = Kind::kOurs;
  Replication mode = Replication::kFullsync;
  bool promised = false;  ///< both created with the promise of equal contents
  uint8_t version = 2;    ///< of the protocol

  bool operator==(const Beginning&) const = default;
};
std::string name_of(const Beginning& beginning);
bool read_beginning(std::string_view text, Beginning& out);

/// What can happen, a letter each; `tell` has the words.
constexpr std::string_view kEvents = "wfuvdregcmxlkSPFN";

/// One thing that happens. As text: `wa`, `c`, or with the step of the next set-up after which the
/// link goes, `Pa/3`.
struct Event {
  char what = ' ';
  int node = 0;
  unsigned stop = 0;  ///< the link goes when so many things have changed on the disks; 0: never

  bool operator==(const Event&) const = default;
};
using Story = std::vector<Event>;
std::string code_of(const Story& story);
bool read_story(std::string_view text, Story& out);
/// In words.
std::string tell(const Story& story);

/// The facts of one meeting, as words in the order of `fact_names`, and what came of it.
struct MeetingRow {
  std::vector<std::string> facts;
  std::string outcome;
  std::string truth;  ///< who has a write that the other lacks: "none", "P", "S" or "both"
};
const std::vector<std::string>& fact_names();

/// Why something that should not be is granted beside an original.
struct Reason {
  const char* name;
  const char* text;
};
std::span<const Reason> reasons();

struct Breach {
  std::string what;
  std::string reason;  ///< the name of one; empty: not granted
};

class World {
 public:
  explicit World(const Beginning& beginning);

  /// Could this happen now? Then `happen` makes it happen.
  bool possible(const Event& event) const;
  /// False: the set-up was over before it could be stopped there.
  bool happen(const Event& event);
  /// All that counts, as text; the same for two worlds in which only the names are exchanged.
  std::string state() const;
  /// Those of the last event.
  const std::vector<MeetingRow>& meetings() const { return meetings_; }
  const std::vector<Breach>& findings() const { return findings_; }
  bool full() const { return writes_ >= kWritesMax; }
  /// A set-up began during the last event.
  bool met() const { return met_; }

 private:
  static constexpr unsigned kWritesMax = 28;

  template <typename Condition>
  bool run(Condition condition, uint64_t limit_us);
  void carry_out(const Event& event);
  void write(int node, char how);
  void flush(int node);
  int asked(int node) const;
  void fail(int node, bool in_flush);
  void take_power(int node, bool keep);
  void take_role(int node, bool force);
  void begin_serving(int node);
  void put_junk(int node);
  void meet(const Meeting& meeting);
  void end_meeting();
  std::string truth(int primary) const;
  void note_alone(int node, const std::string& force, const Extra& own, Role was);
  void watch();
  void settle();
  void check();
  bool waits_for_memory(int primary) const;
  void write_to_memory(int primary, int dies);
  bool in_sync(int primary) const;
  int primary_of_pair() const;
  uint32_t has(int node) const;
  uint32_t differing() const;
  uint64_t fingerprint() const;
  std::string half(int me) const;
  void find(const std::string& what, uint32_t gone = 0);
  bool granted(uint32_t gone) const { return (gone & ~(taken_ | missed_)) == 0; }
  bool is_original(int node) const { return pair_.is_original(node); }
  bool is_ours() const { return beginning_.kind == Kind::kOurs; }

  Beginning beginning_;
  std::vector<MeetingRow> meetings_;
  std::vector<Breach> findings_;
  unsigned writes_ = 0;
  uint32_t promised_ = 0;       // must not be lost, as far as anybody has it
  uint32_t flushed_ = 0;        // a client's flush has covered them
  uint32_t only_sent_ = 0;      // not fullsync: the peer may lack them if the primary dies
  uint32_t unflushed_[2] = {};  // lost by the power cut of the copy that served
  uint32_t taken_ = 0;          // by the power cut of an original, since the two were in sync
  uint32_t missed_ = 0;         // by the failed disk of an original that was primary
  uint32_t fell_[2] = {};       // gone with this node's power while it was the secondary
  uint32_t copying_ = 0;        // of those, what an original was to give back since
  uint64_t met_at_us_ = 0;
  std::size_t log_at_ = 0;
  bool met_ = false;
  bool open_ = false;  // a meeting whose end is not known yet
  bool stopped_ = false;
  int other_ = 0;  // the primary of that meeting
  unsigned stop_ = 0;
  unsigned changes_ = 0;
  uint64_t seen_ = 0;
  unsigned junk_ = 0;
  bool forced_[2] = {};
  bool doubtful_[2] = {};  // the copy that was made primary last
  bool starting_[2] = {};
  bool served_[2] = {};  // since the two were in sync
  Pair pair_;
};

}  // namespace hast::test
