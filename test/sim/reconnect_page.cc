// docs/reconnect.md, made of the rows: those with one outcome are put together as far as no other
// outcome comes between.

#include <algorithm>
#include <set>
#include <sstream>

#include "sim/reconnect.h"

namespace hast::test {

namespace {

using Facts = std::vector<std::string>;
using Choice = std::vector<std::set<std::string>>;  // by fact: what it may be

struct Group {
  std::string outcome;
  Choice choice;
  std::map<std::string, const Witness*> truths;  // with the shortest story that shows each
  std::size_t rows = 0;
};

bool fits(const Choice& choice, const Facts& facts) {
  for (std::size_t i = 0; i < facts.size(); ++i) {
    if (!choice[i].contains(facts[i])) return false;
  }
  return true;
}

/// May the choice be as wide as that? No row with another outcome may fit.
bool pure(const Table& table, const Choice& choice, const std::string& outcome) {
  return std::ranges::none_of(table.rows, [&](const auto& row) {
    return row.second.outcome != outcome && fits(choice, row.first.facts);
  });
}

/// All values that a fact has beside such a peer.
Choice values_of(const Table& table, const std::string& peer) {
  Choice all(fact_names().size());
  for (const auto& [key, entry] : table.rows) {
    if (key.facts[0] != peer) continue;
    for (std::size_t i = 0; i < all.size(); ++i) all[i].insert(key.facts[i]);
  }
  return all;
}

void add_row(Group& group, const RowKey& key, const RowEntry& entry) {
  ++group.rows;
  const Witness*& witness = group.truths[key.truth];
  if (witness == nullptr || entry.witness.story.size() < witness->story.size()) {
    witness = &entry.witness;
  }
}

std::vector<Group> groups_of(const Table& table, const std::string& peer) {
  const Choice all = values_of(table, peer);
  std::vector<Group> groups;
  for (const auto& [key, entry] : table.rows) {
    if (key.facts[0] != peer) continue;
    const auto known = std::ranges::find_if(groups, [&key, &entry](const Group& g) {
      return g.outcome == entry.outcome && fits(g.choice, key.facts);
    });
    if (known != groups.end()) {
      add_row(*known, key, entry);
      continue;
    }
    Group group{entry.outcome, Choice(all.size()), {}, 0};
    for (std::size_t i = 0; i < all.size(); ++i) group.choice[i] = {key.facts[i]};
    // The last facts are the finest: they become "any" first; peer and identity never do.
    for (std::size_t i = all.size(); i-- > 2;) {
      Choice wider = group.choice;
      wider[i] = all[i];
      if (pure(table, wider, group.outcome)) {
        group.choice = wider;
        continue;
      }
      for (const std::string& value : all[i]) {
        wider = group.choice;
        wider[i].insert(value);
        if (pure(table, wider, group.outcome)) group.choice = wider;
      }
    }
    add_row(group, key, entry);
    groups.push_back(group);
  }
  return groups;
}

std::string condition_of(const Choice& choice, const Choice& all) {
  std::string text;
  for (std::size_t i = 1; i < choice.size(); ++i) {
    if (choice[i] == all[i]) continue;
    if (!text.empty()) text += "; ";
    text += i == 1 && choice[0].contains("none") ? "the peer " : fact_names()[i] + " ";
    bool first = true;
    for (const std::string& value : choice[i]) {
      if (!first) text += " or ";
      first = false;
      text += value;
    }
  }
  return text.empty() ? "always" : text;
}

std::string truths_of(const Group& group) {
  std::string text;
  for (const auto& [truth, witness] : group.truths) {
    if (!text.empty()) text += ", ";
    text += truth;
  }
  return text;
}

std::string stories_of(const Group& group) {
  std::string text;
  for (const auto& [truth, witness] : group.truths) {
    if (!text.empty()) text += "<br>";
    text += truth + ": `" + code_of(witness->story) + "`";
    const std::string name = name_of(witness->beginning);
    if (name != "ours" && name != "mixed" && name != "original") text += " (" + name + ")";
  }
  return text;
}

void put_groups(std::ostringstream& out, const Table& table, const std::string& peer) {
  const Choice all = values_of(table, peer);
  std::vector<Group> groups = groups_of(table, peer);
  std::ranges::stable_sort(groups, {}, &Group::outcome);
  out << "| What comes of it | If | Who has more | Rows | Shortest story "
         "|\n|---|---|---|---|---|\n";
  for (const Group& group : groups) {
    out << "| " << group.outcome << " | " << condition_of(group.choice, all) << " | "
        << truths_of(group) << " | " << group.rows << " | " << stories_of(group) << " |\n";
  }
}

/// One line for all that differ in what does not count for it.
void put_false_alarms(std::ostringstream& out, const Table& table) {
  std::map<std::vector<std::string>, const Witness*> alarms;
  for (const auto& [key, entry] : table.rows) {
    if (entry.outcome != "refused: split-brain" || key.truth == "both") continue;
    if (key.facts[0] != "ours") continue;
    const Facts& f = key.facts;
    const std::string counters = "S:P " + f[4] + ", P:S " + f[5];
    const Witness*& witness = alarms[{f[1], counters, f[10], f[11], key.truth}];
    if (witness == nullptr || entry.witness.story.size() < witness->story.size()) {
      witness = &entry.witness;
    }
  }
  out << "| Identity | Counters | P knows S | S knows P | Who has more | Shortest story |\n"
      << "|---|---|---|---|---|---|\n";
  for (const auto& [facts, witness] : alarms) {
    for (const std::string& fact : facts) out << "| " << fact << " ";
    out << "| " << tell(witness->story) << " (`" << code_of(witness->story) << "`, "
        << name_of(witness->beginning) << ") |\n";
  }
}

void put_findings(std::ostringstream& out, const Table& table) {
  bool any = false;
  for (const auto& [key, found] : table.findings) {
    if (!found.reason.empty()) continue;
    if (!any) out << "| What | Times | Shortest story |\n|---|---|---|\n";
    any = true;
    out << "| " << found.what << " | " << found.times << " | " << tell(found.witness.story) << " (`"
        << code_of(found.witness.story) << "`, " << name_of(found.witness.beginning) << ") |\n";
  }
  if (!any) out << "None.\n";
}

/// What is granted beside an original, with the reason and what comes of it.
void put_exceptions(std::ostringstream& out, const Table& table) {
  out << "| What | Why | What comes of it, times, shortest story |\n|---|---|---|\n";
  for (const Reason& reason : reasons()) {
    out << "| " << reason.name << " | " << reason.text << " |";
    bool any = false;
    for (const auto& [key, found] : table.findings) {
      if (found.reason != reason.name) continue;
      out << (any ? "<br>" : " ") << found.what << ", " << found.times << ": `"
          << code_of(found.witness.story) << "` (" << name_of(found.witness.beginning) << ")";
      any = true;
    }
    out << (any ? " |\n" : " none |\n");
  }
}

constexpr const char* kIntroduction = R"(# When two nodes meet again

Written by `npm run sim:reconnect -- --write`; do not edit it. `npm test` tells the story of every
row again (all rows: `test/sim/reconnect.rows`) and fails when something else comes of it, when a
meeting is not in the table, or when this page is not what the program writes.

A primary P connects to a secondary S. S looks at what both say of themselves and decides, once:
the data are copied from P to S or from S to P, all of them or the marked extents (those of both
maps), or the connection is refused and an operator must choose. Two nodes on very small disks
were told every short story of roles, writes, crashes, power cuts, failing and new disks and links
that go, also in the middle of a set-up; each write goes to a block of its own, so that it is known
who has what.

After every event it was checked that nothing is lost that was acknowledged, as far as the mode
promises it and unless an operator gave it up by `role -f` or a new disk; that nodes that have
both written are refused; that in sync means equal; that what differs is marked in a map, or one
copy is flagged; and that the two come together by themselves, or one of them says why not.

)";

constexpr const char* kLegend = R"(
## Words

- identity: `same`: both have met; `S new`: S has a new disk; `both new`; `other`: each has met
  somebody else
- promise: created with `--contents-equal`: `both`, `one` or `no` of them
- S map: is an extent marked on S's disk
- S:P counters: S's own count of lone writes against what P has last heard of it; `>`: S has
  written alone
- P:S counters: the same of P
- S copy, P copy: `whole`; `incomplete`: a copy to it has not ended; `stale`: its disk was given
  up, in a life before or (`given up`) in this one; `-f`: forced to be primary
- S power, P power: `lost`: its machine went down before all was flushed; `lost as P`: as primary
- P knows S: is the state of S's data one that P has had, or has given to S? `S knows P`: the
  other way round; `unknown`: one of them has none to tell
- who has more: whose disk has, in truth, a write that the other one lacks: P, S, both or none;
  also one that was never acknowledged, or that an operator gave up

A story: `S` secondary, `P` primary, `F` primary -f, `w` write, `f` flush, `u` dies in a write
that its own disk has, `v` dies in a write that its peer has, `r` dies in a write of memsync that
its peer has received and not stored, `d` dies itself before it has stored it, `e` a write, of
which this node's disk fails, `g` a flush that this node's disk fails, `x` dies, `l` loses power
and what was not flushed, `k` loses power and nothing else, `N` gets a new disk, each with the
node a or b; `c` the link goes, `m` it comes back; `/3`: it goes again when three things have
changed on the disks.

After a change of the engine, `npm run sim:reconnect -- --again` writes what comes of the same
stories now. To see one: `npm run sim:reconnect -- --story ours "Sb Pa wa c wa xa Pb wb m Sa"`.

)";

constexpr const char* kBesideOriginal = R"(
## Beside an original

Beginnings `mixed`: node a is ours, b plays an original (our engine without extensions, whose
records are taken away whenever its process ends): counters and map, and nothing else. It leads
whenever it is told to, whoever else does. What only ours knows, it has from its own disk.

)";

constexpr const char* kExceptions =
    R"(The same is asked as between nodes of ours. What is granted is only this, and in each story
only for the writes that it is about; everything else would be under "What should not be".

)";

}  // namespace

std::string page_of(const Table& table) {
  std::ostringstream out;
  out << kIntroduction;
  out << "| Beginning | States | Stories | Meetings | Weight of the stories "
         "|\n|---|---|---|---|---|\n";
  for (const Explored& e : table.explored) {
    out << "| " << name_of(e.beginning) << " | " << e.states << " | " << e.stories << " | "
        << e.meetings << " | " << (e.closed ? "all" : "to " + std::to_string(e.depth)) << " |\n";
  }
  out << "\n"
      << table.rows.size() << " rows. "
      << "Weight: an event counts one; a power cut, a new disk,"
      << " `-f`, a death in a write and a set-up that is cut off count two.\n";
  out << kLegend << "## Between nodes of ours\n\n";
  put_groups(out, table, "ours");
  out << "\n### Split-brain, though not both have more\n\n"
      << "Both count as having written alone, but in truth one copy has all: what the other one "
         "had\n"
      << "is gone with its power, was only counted, or was nothing yet.\n\n";
  put_false_alarms(out, table);
  out << "\n## Asked to lead, and no secondary is there\n\nThe peer is called S here, too.\n\n";
  put_groups(out, table, "none");
  out << "\n## What should not be\n\n";
  put_findings(out, table);
  out << kBesideOriginal << "### Ours is P, an original is S\n\n";
  put_groups(out, table, "S");
  out << "\n### An original is P, ours is S\n\n";
  put_groups(out, table, "P");
  out << "\n### What such a pair cannot prevent\n\n" << kExceptions;
  put_exceptions(out, table);
  out << "\n## Two nodes without extensions\n\nAs if each took the other one for an original: "
         "beginnings `original`. Both keep their own\nfacts, but tell them to nobody.\n\n";
  put_groups(out, table, "original");
  return out.str();
}

}  // namespace hast::test
