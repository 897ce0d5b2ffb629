// What a secondary decides at the handshake: every cell of the table.

#include "engine/decision.h"

#include "harness.h"

namespace hast::test {

namespace {

struct Row {
  const char* what;
  uint64_t secondary_local, secondary_remote, primary_local, primary_remote;
  Refusal refusal;
  SyncSource source;
  MapAnswer map;
};

constexpr Refusal kFine = Refusal::kNone;
constexpr SyncSource kFromPrimary = SyncSource::kPrimary;
constexpr SyncSource kFromSecondary = SyncSource::kSecondary;

// Secondary 3/3; the primary's two counters against it.
constexpr Row kRows[] = {
    {"local behind, remote ahead", 3, 3, 2, 4, kFine, kFromPrimary, MapAnswer::kFull},
    {"local equal, remote ahead", 3, 3, 3, 4, kFine, kFromPrimary, MapAnswer::kFull},
    {"local ahead, remote ahead", 3, 3, 4, 4, kFine, kFromPrimary, MapAnswer::kFull},
    {"local behind, remote equal", 3, 3, 2, 3, kFine, kFromPrimary, MapAnswer::kFull},
    {"mirrored", 3, 3, 3, 3, kFine, kFromPrimary, MapAnswer::kOwn},
    {"primary wrote alone", 3, 3, 4, 3, kFine, kFromPrimary, MapAnswer::kOwn},
    {"both behind", 3, 3, 2, 2, kFine, kFromSecondary, MapAnswer::kFull},
    {"secondary wrote alone", 3, 3, 3, 2, kFine, kFromSecondary, MapAnswer::kOwn},
    {"both wrote alone", 3, 3, 4, 2, Refusal::kSplitBrain, SyncSource::kNone, MapAnswer::kNone},
};

SecondaryFacts secondary(uint64_t local, uint64_t remote) {
  SecondaryFacts s;
  s.resuid = 7;
  s.localcnt = local;
  s.remotecnt = remote;
  return s;
}
}  // namespace

TEST(decision, "a peer has all when it has said so, and in no pass that runs (6, 16)") {
  Metadata metadata;
  metadata.localcnt = 2;
  Extra extra;
  extra.generation = 5;
  PeerWord peer;
  peer.ours = true;
  peer.generation = 5;
  CHECK(peer_knows_all(peer, SyncSource::kNone, metadata, extra));
  CHECK(!peer_knows_all(peer, SyncSource::kPrimary, metadata, extra));
  CHECK(!peer_knows_all(peer, SyncSource::kSecondary, metadata, extra));
  peer.good = true;
  CHECK(peer_knows_all(peer, SyncSource::kSecondary, metadata, extra));
  peer.generation = extra.generation = 0;  // both unknown
  CHECK(!peer_knows_all(peer, SyncSource::kNone, metadata, extra));
  peer = {};  // an original
  peer.remotecnt = 1;
  CHECK(!peer_knows_all(peer, SyncSource::kNone, metadata, extra));
  peer.remotecnt = 2;
  CHECK(peer_knows_all(peer, SyncSource::kPrimary, metadata, extra));
}

TEST(decision, "all nine cells of the counter table (replication 7)") {
  for (const Row& row : kRows) {
    for (const bool extended : {false, true}) {
      const SecondaryFacts s = secondary(row.secondary_local, row.secondary_remote);
      PrimaryFacts p;
      p.resuid = 7;
      p.localcnt = row.primary_local;
      p.remotecnt = row.primary_remote;
      p.extended = extended;
      const Decision d = decide(s, p);
      const bool as_expected =
          d.refusal == row.refusal && d.source == row.source && d.map == row.map && !d.adopt;
      if (!as_expected) fail(__FILE__, __LINE__, row.what);
      CHECK_EQ(d.impossible, row.map == MapAnswer::kFull);
      CHECK_EQ(d.counters_equal, row.primary_local == 3 && row.primary_remote == 3);
    }
  }
}

TEST(decision, "another resource id is refused, whatever the counters say") {
  PrimaryFacts p;
  p.resuid = 8;
  CHECK(decide(secondary(0, 0), p).refusal == Refusal::kIdentity);
  p.virgin = true;  // a primary that was created anew
  CHECK(decide(secondary(0, 0), p).refusal == Refusal::kIdentity);
}

TEST(decision, "a fresh secondary takes the id and is copied to in full") {
  PrimaryFacts p;
  p.resuid = 8;
  p.localcnt = 2;
  const Decision d = decide({}, p);
  CHECK(d.adopt);
  CHECK(d.source == SyncSource::kPrimary);
  CHECK(d.map == MapAnswer::kFull);
}

TEST(decision, "two virgins: nothing is copied beside an original, everything between ours (5)") {
  PrimaryFacts p;
  p.resuid = 8;
  p.virgin = true;
  CHECK(decide({}, p).map == MapAnswer::kNone);
  p.extended = true;
  CHECK(decide({}, p).map == MapAnswer::kFull);
}

TEST(decision, "a fresh secondary with a marked map is no virgin (R-11)") {
  PrimaryFacts p;
  p.resuid = 8;
  p.virgin = true;
  SecondaryFacts s;
  s.map_empty = false;
  CHECK(decide(s, p).map == MapAnswer::kFull);
}

TEST(decision, "between ours the older side's data must be of the newer side's line (rule 13)") {
  PrimaryFacts p;
  p.resuid = 7;
  p.extended = true;
  p.generations = {5, 4, 3};
  for (const uint64_t newer : {0u, 1u}) {  // nobody, or the primary, counts as newer
    p.localcnt = newer;
    SecondaryFacts s = secondary(0, 0);
    for (const uint64_t theirs : {5u, 4u, 3u, 0u}) {
      s.generations = {theirs, 9, 0};
      CHECK(decide(s, p).refusal == Refusal::kNone);
    }
    s.generations = {6, 4, 0};
    CHECK(decide(s, p).refusal == Refusal::kSplitBrain);
    p.extended = false;  // nobody has said it: only the counters decide
    CHECK(decide(s, p).refusal == Refusal::kNone);
    p.extended = true;
  }
  p.localcnt = 0;
  SecondaryFacts s = secondary(1, 0);  // the secondary is newer
  s.generations = {6, 5, 0};
  CHECK(decide(s, p).refusal == Refusal::kNone);
  s.generations = {6, 4, 0};
  CHECK(decide(s, p).refusal == Refusal::kSplitBrain);
}

TEST(decision, "a pass whose end was not heard of is no divergence when the primary is poorer") {
  PrimaryFacts p;
  p.resuid = 7;
  p.extended = p.lost_cache = true;
  p.generations = {6, 5, 6};  // all copied, offered, and down with the power
  SecondaryFacts s = secondary(0, 0);
  s.generations = {5, 5, 0};
  CHECK(decide(s, p).refusal == Refusal::kNone);
  CHECK(decide(s, p).source == SyncSource::kSecondary);
  p.generations.offered = 0;  // written alone since
  CHECK(decide(s, p).refusal == Refusal::kSplitBrain);
  p.generations.offered = 6;
  s.generations.current = 4;  // not the one that it was offered to
  CHECK(decide(s, p).refusal == Refusal::kSplitBrain);
}

TEST(decision, "an incomplete secondary is no source, though it counts as newer (rule 16)") {
  SecondaryFacts s = secondary(4, 3);
  PrimaryFacts p;
  p.resuid = 7;
  p.localcnt = p.remotecnt = 3;
  CHECK(decide(s, p).refusal == Refusal::kNone);
  CHECK(decide(s, p).source == SyncSource::kSecondary);
  s.incomplete = true;
  CHECK(decide(s, p).refusal == Refusal::kIncomplete);
}

TEST(decision, "a fresh secondary is no source for a primary without a whole copy (rule 6)") {
  SecondaryFacts s;
  PrimaryFacts p;
  p.resuid = 7;
  p.extended = p.incomplete = true;
  const Decision d = decide(s, p);
  CHECK(d.refusal == Refusal::kIncomplete);
  CHECK(!d.adopt);
}

}  // namespace hast::test
