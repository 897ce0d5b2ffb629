#include "engine/decision.h"

namespace hast {

namespace {

Decision adopt_identity(const SecondaryFacts& s, const PrimaryFacts& p) {
  Decision d;
  if (s.localcnt > 0 && !s.discarded) {
    // It was written as primary before the two ever met. Nobody has decided that this may go.
    d.refusal = Refusal::kSplitBrain;  // guard:written-before-meeting
    return d;
  }
  if (p.extended && p.incomplete) {  // guard:new-disk-is-no-source
    d.refusal = Refusal::kIncomplete;
    return d;
  }
  d.adopt = true;
  d.source = SyncSource::kPrimary;
  // The primary's `virgin` says: nothing was ever written here that is not in my map. That is only
  // enough if the same holds for us, and between ours even then the contents are made equal.
  const bool promised_equal = p.contents_equal && s.contents_equal;
  // guard:marked-is-no-virgin
  const bool nothing_to_copy = p.virgin && s.map_empty && (!p.extended || promised_equal);
  // No guard: the one before it.
  d.map = nothing_to_copy ? MapAnswer::kNone : MapAnswer::kFull;
  return d;
}

/// The primary died at the end of a pass to us, before we heard that it has ended: counters that
/// mirror each other and its own word say that we have all that its generation stands for.
bool end_of_pass_unheard(const SecondaryFacts& s, const PrimaryFacts& p) {
  return s.localcnt == p.remotecnt && s.remotecnt == p.localcnt &&
         p.generations.current == p.generations.offered &&
         p.generations.shared == s.generations.current;
}

/// Has the side that is to be overwritten, or is taken for equal, nothing that the source lacks?
/// Unknown is no objection: then nothing but the counters is known (rule 13).
bool of_one_line(const SecondaryFacts& s, const PrimaryFacts& p, SyncSource source) {
  if (!p.extended || s.generations.current == 0 || p.generations.current == 0) return true;
  const bool from_primary = source == SyncSource::kPrimary;
  const Generations& newer = from_primary ? p.generations : s.generations;
  const Generations& older = from_primary ? s.generations : p.generations;
  if (!from_primary && end_of_pass_unheard(s, p)) return true;
  return newer.knows(older.current);
}

/// What either has written since they were last equal is in its own map, if that was the same state
/// for both. Unknown is no objection, as with counters.
bool parted_from_one_state(const Generations& s, const Generations& p) {
  if (s.current == 0 || p.current == 0) return true;
  return s.shared != 0 && p.knows(s.shared);
}

/// The operator has decided between two histories: nothing of the secondary's is asked any more.
Decision discard_own(const SecondaryFacts& s, const PrimaryFacts& p) {
  Decision d;
  if (p.incomplete) {  // guard:incomplete-is-no-reason-to-discard
    d.refusal = Refusal::kIncomplete;
    return d;
  }
  d.discards = true;
  d.source = SyncSource::kPrimary;
  const bool maps_tell_all =
      parted_from_one_state(s.generations, p.generations) && !s.stale && !s.flush_failed;
  // guard:discards-what-it-knows
  d.map = maps_tell_all ? MapAnswer::kOwn : MapAnswer::kFull;
  return d;
}

}  // namespace

bool peer_knows_all(const PeerWord& peer, SyncSource source, const Metadata& metadata,
                    const Extra& extra) {
  // guard:good-by-its-own-word
  if (source == SyncSource::kSecondary && peer.good) return true;
  if (!peer.ours) return metadata.localcnt <= peer.remotecnt;
  if (source != SyncSource::kNone) return false;  // guard:target-until-the-end-of-its-pass
  // guard:unknown-is-no-proof
  return peer.generation != 0 && peer.generation == extra.generation;
}

SecondaryFacts secondary_facts(const Metadata& metadata, const Extra& extra, bool map_empty,
                               uint64_t bootid) {
  SecondaryFacts own;
  own.resuid = metadata.resuid;
  own.localcnt = metadata.localcnt;
  own.remotecnt = metadata.remotecnt;
  own.map_empty = map_empty;
  own.contents_equal = extra.generation == kGenerationOfEqualContents;
  own.incomplete = extra.local_stale || extra.sync_target;
  own.stale = extra.local_stale;
  own.flush_failed = extra.flush_failed;
  own.discarded = extra.discarded;
  own.lost_cache = extra.lost_cache(bootid);
  own.led = metadata.prevrole == Role::kPrimary;
  own.generations = extra.generations();
  return own;
}

Decision decide(const SecondaryFacts& s, const PrimaryFacts& p) {
  if (s.resuid == 0) return adopt_identity(s, p);
  Decision d;
  if (s.resuid != p.resuid) {
    d.refusal = Refusal::kIdentity;  // guard:of-one-resource
    return d;
  }
  if (s.discarded) return discard_own(s, p);  // no guard: without it, split-brain as before
  const bool newer_than_primary_knows = s.localcnt > p.remotecnt;
  const bool primary_newer_than_known = p.localcnt > s.remotecnt;
  if (newer_than_primary_knows && primary_newer_than_known) {  // guard:both-wrote-alone
    d.refusal = Refusal::kSplitBrain;
    return d;
  }
  d.counters_equal = s.localcnt == p.remotecnt && s.remotecnt == p.localcnt;
  d.impossible = s.localcnt < p.remotecnt || p.localcnt < s.remotecnt;
  d.source = newer_than_primary_knows ? SyncSource::kSecondary : SyncSource::kPrimary;
  // Nobody wrote alone, and what the primary lacks we have: the extents are in its map.
  // guard:power-cut-primary
  const bool fell = p.lost_cache && !s.lost_cache;
  // Both fell: the one that led has all that a FLUSH has promised, perhaps alone.
  // guard:last-primary-has-the-flushed
  const bool flushed_less = p.lost_cache && s.led && !p.led;
  const bool poorer = p.incomplete || fell || flushed_less;
  if (d.counters_equal && p.extended && poorer && !s.incomplete) {
    d.source = SyncSource::kSecondary;
  }
  d.map = d.impossible ? MapAnswer::kFull : MapAnswer::kOwn;  // guard:impossible-is-copied-whole
  if (s.stale) d.map = MapAnswer::kFull;                      // guard:stale-copy-is-copied-whole
  // guard:failed-flush-is-written-again
  if (s.flush_failed && d.source == SyncSource::kPrimary) d.map = MapAnswer::kFull;
  // guard:of-one-line
  if (!of_one_line(s, p, d.source)) {
    d.refusal = Refusal::kSplitBrain;
    return d;
  }
  if (d.source == SyncSource::kSecondary && s.incomplete) {
    d.refusal = Refusal::kIncomplete;  // guard:incomplete-secondary
  }
  return d;
}

}  // namespace hast
