#pragma once

#include <cstdint>

#include "codec/metadata.h"
#include "wire/format.h"

/// What the secondary answers to a primary's second message: one pure function over both sides'
/// facts.
namespace hast {

/// The secondary's own facts, from its metadata and map.
struct SecondaryFacts {
  uint64_t resuid = 0;  ///< 0: freshly created
  uint64_t localcnt = 0;
  uint64_t remotecnt = 0;
  bool map_empty = true;        ///< no bit of its own map is set
  bool contents_equal = false;  ///< fresh, and created with the promise of equal contents
  bool incomplete = false;      ///< stale, or a pass to it never finished: never a source
  bool stale = false;           ///< which extents it misses was not recorded: all may be old
  bool flush_failed = false;    ///< what a read gives need not be stored: the same, as a target
  bool discarded = false;       ///< the operator gives up what was written there alone
  bool lost_cache = false;      ///< its machine went down with writes that were not flushed
  bool led = false;             ///< it was primary in the life before
  Generations generations;
};

/// What its disk says. `bootid` is that of the machine, 0: not asked.
SecondaryFacts secondary_facts(const Metadata& metadata, const Extra& extra, bool map_empty,
                               uint64_t bootid);

/// What the primary said in its second message.
struct PrimaryFacts {
  uint64_t resuid = 0;
  uint64_t localcnt = 0;
  uint64_t remotecnt = 0;
  bool virgin = false;          ///< it created the resource id just now
  bool extended = false;        ///< a node of our kind
  bool contents_equal = false;  ///< virgin, and created with the promise of equal contents
  bool lost_cache = false;      ///< its machine went down with writes that were not flushed
  bool led = false;             ///< it was primary then
  bool incomplete = false;      ///< stale, or a pass to it never finished
  Generations generations;
};

/// What a primary has heard of its peer, at the last set-up and since.
struct PeerWord {
  bool ours = false;  ///< a node of our kind; an original tells less
  bool good = false;  ///< it takes its own copy for the good one, and this one for what is behind
  uint64_t localcnt = 0;
  uint64_t remotecnt = 0;
  uint64_t generation = 0;  ///< of its data; 0: it knows none
};

/// Has the peer all that the primary's copy has, and does it know that? `source`: of the pass that
/// runs or is still to end. In a pass the peer takes its copy for an incomplete one until the end.
bool peer_knows_all(const PeerWord& peer, SyncSource source, const Metadata& metadata,
                    const Extra& extra);

enum class Refusal : uint8_t { kNone, kIdentity, kSplitBrain, kIncomplete };
enum class MapAnswer : uint8_t { kNone, kOwn, kFull };

struct Decision {
  Refusal refusal = Refusal::kNone;
  SyncSource source = SyncSource::kNone;
  MapAnswer map = MapAnswer::kNone;
  bool adopt = false;  ///< take the primary's resource id and say `virgin`
  /// Both sides' counters mirror each other: what a pass still has to do is leftovers only, so a
  /// sync-target flag of an earlier pass has served its purpose (rule 16).
  bool counters_equal = false;
  bool discards = false;    ///< the secondary's own history ends: it takes the primary's counters
  bool impossible = false;  ///< a state that no correct history leads to: full pass, warning
};

/// Spec: wire-protocol 5.1, replication 7, with hardening R-11 (uid 0 but a map that is not empty
/// is no virgin) and rule 5 (between ours two virgins make a full pass). Between ours the
/// generations must confirm what the counters say: the older side's data is of the newer side's
/// line.
Decision decide(const SecondaryFacts& s, const PrimaryFacts& p);

}  // namespace hast
