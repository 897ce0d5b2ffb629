#include "sim/reconnect.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>
#include <unordered_map>

namespace hast::test {

namespace {

constexpr const char* kRowsFile = "test/sim/reconnect.rows";
constexpr const char* kPageFile = "docs/reconnect.md";
constexpr unsigned kStopsMax = 10;
constexpr std::size_t kLengthMax = 24;

struct Share {
  Beginning beginning;
  double part;  // of the time
};
constexpr Share kShares[] = {
    {{Kind::kOurs, Replication::kFullsync, false, 2}, 0.24},
    {{Kind::kOurs, Replication::kMemsync, false, 2}, 0.16},
    {{Kind::kOurs, Replication::kAsync, false, 2}, 0.14},
    {{Kind::kOurs, Replication::kFullsync, true, 2}, 0.06},
    {{Kind::kMixed, Replication::kFullsync, false, 2}, 0.12},
    {{Kind::kMixed, Replication::kMemsync, false, 2}, 0.08},
    {{Kind::kMixed, Replication::kAsync, false, 2}, 0.05},
    {{Kind::kMixed, Replication::kMemsync, false, 1}, 0.02},
    {{Kind::kMixed, Replication::kMemsync, false, 0}, 0.01},
    {{Kind::kOriginal, Replication::kFullsync, false, 2}, 0.07},
    {{Kind::kOriginal, Replication::kAsync, false, 2}, 0.05},
};

std::string key_of(const FoundIn& found) {
  const Kind kind = found.witness.beginning.kind;
  return found.what +
         (kind == Kind::kOurs    ? ""
          : kind == Kind::kMixed ? ", mixed"
                                 : ", original") +
         ", " + found.reason;
}

void note_findings(Table& table, const World& world, const Witness& witness) {
  for (const Breach& breach : world.findings()) {
    FoundIn found{breach.what, breach.reason, witness, 1};
    const auto [at, is_new] = table.findings.try_emplace(key_of(found), found);
    if (!is_new) ++at->second.times;
  }
}

void note_meetings(Table& table, const World& world, const Witness& witness) {
  for (const MeetingRow& row : world.meetings()) {
    const auto [at, is_new] =
        table.rows.try_emplace({row.facts, row.truth}, RowEntry{row.outcome, witness});
    if (is_new || at->second.outcome == row.outcome) continue;
    const FoundIn found{"equal facts, but " + at->second.outcome + " and " + row.outcome, "",
                        witness, 1};
    table.findings.try_emplace(key_of(found), found);
  }
}

/// What is rarer in life comes later: twice as heavy.
std::size_t weight_of(const Story& story) {
  const std::string code = code_of(story);
  const bool in_sync = code.starts_with("Sb Pa wa") || code.starts_with("Sa Pb wb");
  std::size_t weight = 0;
  for (const Event& event : std::span(story).subspan(in_sync ? 3 : 0)) {
    const bool rare =
        event.stop > 0 || std::string_view("uvdregklFN").find(event.what) != std::string_view::npos;
    weight += rare ? 2 : 1;
  }
  return weight;
}

/// Every story, the shortest ones first; one for each state.
class Explorer {
 public:
  Explorer(Table& table, const Beginning& beginning, double seconds)
      : table_(table), seconds_(seconds) {
    explored_.beginning = beginning;
  }

  Explored run() {
    const auto start = std::chrono::steady_clock::now();
    // A pair in sync is where most stories begin in life.
    std::deque<Story> first = {{}};
    for (const char* code : {"Sb Pa wa", "Sa Pb wb"}) {
      if (first.size() > 1 && explored_.beginning.kind != Kind::kMixed) break;
      Story in_sync;
      read_story(code, in_sync);
      told({in_sync[0], in_sync[1]}, in_sync[2]);
      first.push_back(in_sync);
    }
    queue_.clear();
    queue_[0] = first;
    while (!queue_.empty()) {
      std::deque<Story>& stories = queue_.begin()->second;
      if (stories.empty()) {
        queue_.erase(queue_.begin());
        continue;
      }
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (took.count() > seconds_) break;
      const Story story = std::move(stories.front());
      stories.pop_front();
      explored_.depth = queue_.begin()->first;
      if (story.size() < kLengthMax) extend(story);
    }
    explored_.closed = queue_.empty();
    explored_.states = states_.size();
    return explored_;
  }

 private:
  void extend(const Story& story) {
    std::vector<Event> events;
    {
      World world(explored_.beginning);
      for (const Event& event : story) world.happen(event);
      for (const char what : kEvents) {
        for (int node = 0; node < 2; ++node) {
          if (node == 1 && (what == 'c' || what == 'm')) continue;
          if (world.possible({what, node, 0})) events.push_back({what, node, 0});
        }
      }
    }
    for (Event event : events) {
      if (!told(story, event)) continue;
      for (event.stop = 1; event.stop <= kStopsMax; ++event.stop) {
        if (!told(story, event)) break;
      }
    }
  }

  /// True if the nodes met, and if that could be stopped where it should.
  bool told(const Story& story, const Event& event) {
    World world(explored_.beginning);
    for (const Event& earlier : story) world.happen(earlier);
    Story longer = story;
    longer.push_back(event);
    const bool good = world.happen(event);
    ++explored_.stories;
    if (!good) return false;
    const Witness witness{explored_.beginning, longer};
    if (event.stop == 0) {
      explored_.meetings += world.meetings().size();
      note_meetings(table_, world, witness);
    }
    note_findings(table_, world, witness);
    const bool sound = world.findings().empty();
    if (sound && !world.full() && states_.try_emplace(world.state(), 1).second) {
      queue_[weight_of(longer)].push_back(longer);
    }
    return world.met();
  }

  Table& table_;
  double seconds_;
  Explored explored_;
  std::map<std::size_t, std::deque<Story>> queue_;  // by weight
  std::unordered_map<std::string, int> states_;
};

// --- the file of all rows
// -------------------------------------------------------------------------

std::vector<std::string> split(const std::string& line, char at) {
  std::vector<std::string> parts;
  std::istringstream in(line);
  for (std::string part; std::getline(in, part, at);) parts.push_back(part);
  return parts;
}

std::string rows_text(const Table& table) {
  std::ostringstream out;
  out << "# Written by `npm run sim:reconnect -- --write`; docs/reconnect.md is made of it.\n";
  for (const Explored& e : table.explored) {
    out << "explored\t" << name_of(e.beginning) << '\t' << e.states << '\t' << e.stories << '\t'
        << e.meetings << '\t' << e.depth << '\t' << (e.closed ? "closed" : "open") << '\n';
  }
  for (const auto& [key, found] : table.findings) {
    out << "finding\t" << found.what << '\t' << found.reason << '\t' << found.times << '\t'
        << name_of(found.witness.beginning) << '\t' << code_of(found.witness.story) << '\n';
  }
  for (const auto& [key, entry] : table.rows) {
    out << "row";
    for (const std::string& fact : key.facts) out << '\t' << fact;
    out << '\t' << key.truth << '\t' << entry.outcome << '\t' << name_of(entry.witness.beginning)
        << '\t' << code_of(entry.witness.story) << '\n';
  }
  return out.str();
}

bool read_rows(Table& table) {
  std::ifstream file(kRowsFile);
  if (!file) return false;
  const std::size_t facts = fact_names().size();
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::vector<std::string> parts = split(line, '\t');
    if (parts[0] == "explored" && parts.size() == 7) {
      Explored e;
      if (!read_beginning(parts[1], e.beginning)) return false;
      e.states = std::strtoull(parts[2].c_str(), nullptr, 10);
      e.stories = std::strtoull(parts[3].c_str(), nullptr, 10);
      e.meetings = std::strtoull(parts[4].c_str(), nullptr, 10);
      e.depth = std::strtoull(parts[5].c_str(), nullptr, 10);
      e.closed = parts[6] == "closed";
      table.explored.push_back(e);
    } else if (parts[0] == "finding" && parts.size() == 6) {
      FoundIn found{parts[1], parts[2], {}, std::strtoull(parts[3].c_str(), nullptr, 10)};
      if (!read_beginning(parts[4], found.witness.beginning)) return false;
      if (!read_story(parts[5], found.witness.story)) return false;
      table.findings.emplace(key_of(found), found);
    } else if (parts[0] == "row" && parts.size() == facts + 5) {
      RowKey key{{parts.begin() + 1, parts.begin() + 1 + static_cast<std::ptrdiff_t>(facts)},
                 parts[facts + 1]};
      RowEntry entry{parts[facts + 2], {}};
      if (!read_beginning(parts[facts + 3], entry.witness.beginning)) return false;
      if (!read_story(parts[facts + 4], entry.witness.story)) return false;
      table.rows.emplace(key, entry);
    } else {
      return false;
    }
  }
  return true;
}

std::string text_of_file(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

int last_line(uint64_t states, uint64_t meetings, uint64_t rows, uint64_t findings) {
  std::printf("%llu states, %llu meetings, %llu rows, %llu findings\n",
              static_cast<unsigned long long>(states), static_cast<unsigned long long>(meetings),
              static_cast<unsigned long long>(rows), static_cast<unsigned long long>(findings));
  return findings > 0 ? 1 : 0;
}

void show(const FoundIn& found) {
  std::printf("%s%s%s (%llu times)\n  %s: %s\n  %s\n", found.what.c_str(),
              found.reason.empty() ? "" : ", granted: ", found.reason.c_str(),
              static_cast<unsigned long long>(found.times),
              name_of(found.witness.beginning).c_str(), code_of(found.witness.story).c_str(),
              tell(found.witness.story).c_str());
}

int explore(unsigned seconds, bool write, const std::string& only) {
  Table table;
  uint64_t states = 0;
  uint64_t meetings = 0;
  for (const auto& [beginning, part] : kShares) {
    if (!only.empty() && name_of(beginning) != only) continue;
    Explorer explorer(table, beginning, seconds * (only.empty() ? part : 1.0));
    const Explored explored = explorer.run();
    table.explored.push_back(explored);
    states += explored.states;
    meetings += explored.meetings;
    std::printf("%s: %llu states, %llu stories, %llu meetings, depth %zu%s; %zu rows so far\n",
                name_of(beginning).c_str(), static_cast<unsigned long long>(explored.states),
                static_cast<unsigned long long>(explored.stories),
                static_cast<unsigned long long>(explored.meetings), explored.depth,
                explored.closed ? ", closed" : "", table.rows.size());
    std::fflush(stdout);
  }
  uint64_t findings = 0;
  for (const auto& [key, found] : table.findings) {
    show(found);
    if (found.reason.empty()) ++findings;
  }
  if (write) {
    std::ofstream(kRowsFile) << rows_text(table);
    std::ofstream(kPageFile) << page_of(table);
  }
  return last_line(states, meetings, table.rows.size(), findings);
}

int tell_one(const Witness& witness) {
  World world(witness.beginning);
  for (const Event& event : witness.story) {
    std::printf("%s\n", tell({event}).c_str());
    if (!world.possible(event)) std::printf("  that is not possible now\n");
    world.happen(event);
    for (const MeetingRow& row : world.meetings()) {
      for (std::size_t i = 0; i < row.facts.size(); ++i) {
        std::printf("  %s: %s", fact_names()[i].c_str(), row.facts[i].c_str());
      }
      std::printf("\n  -> %s (more: %s)\n", row.outcome.c_str(), row.truth.c_str());
    }
    std::printf("  %s\n", world.state().c_str());
  }
  for (const Breach& breach : world.findings()) {
    std::printf("finding: %s%s%s\n", breach.what.c_str(),
                breach.reason.empty() ? "" : ", granted: ", breach.reason.c_str());
  }
  return world.findings().empty() ? 0 : 1;
}

void complain(uint64_t& problems, const char* what, const Witness& witness) {
  ++problems;
  std::printf("%s\n  %s: %s\n", what, name_of(witness.beginning).c_str(),
              code_of(witness.story).c_str());
}

/// Every story of the table once more.
uint64_t tell_all(const Table& table, Table& again, uint64_t& meetings) {
  uint64_t problems = 0;
  for (const auto& [key, entry] : table.rows) {
    if (again.rows.contains(key)) continue;  // seen on the way to another one
    World world(entry.witness.beginning);
    Witness so_far{entry.witness.beginning, {}};
    for (const Event& event : entry.witness.story) {
      so_far.story.push_back(event);
      world.happen(event);
      meetings += world.meetings().size();
      if (event.stop == 0) note_meetings(again, world, so_far);
    }
    for (const Breach& breach : world.findings()) {
      const FoundIn found{breach.what, breach.reason, entry.witness, 1};
      if (!table.findings.contains(key_of(found))) {
        complain(problems, breach.what.c_str(), entry.witness);
      }
    }
  }
  return problems;
}

bool still_found(const FoundIn& found) {
  World world(found.witness.beginning);
  for (const Event& event : found.witness.story) world.happen(event);
  return std::ranges::any_of(world.findings(), [&found](const Breach& breach) {
    return breach.what == found.what && breach.reason == found.reason;
  });
}

/// All must come as it is written.
int replay() {
  Table table;
  if (!read_rows(table)) {
    std::fprintf(stderr, "hast_sim: %s cannot be read\n", kRowsFile);
    return 65;
  }
  Table again;
  uint64_t meetings = 0;
  uint64_t problems = tell_all(table, again, meetings);
  if (text_of_file(kPageFile) != page_of(table)) {
    ++problems;
    std::printf("%s does not say what %s says\n", kPageFile, kRowsFile);
  }
  for (const auto& [key, entry] : again.rows) {
    const auto at = table.rows.find(key);
    if (at == table.rows.end()) {
      complain(problems, "a meeting that is not in the table", entry.witness);
    } else if (at->second.outcome != entry.outcome) {
      complain(problems, "another outcome than in the table", entry.witness);
    }
  }
  for (const auto& [key, entry] : table.rows) {
    if (!again.rows.contains(key)) complain(problems, "a row was not reached", entry.witness);
  }
  for (const auto& [key, found] : table.findings) {
    if (!still_found(found)) complain(problems, "mended, and still listed", found.witness);
  }
  for (const auto& [key, found] : again.findings) {
    complain(problems, found.what.c_str(), found.witness);
  }
  return last_line(0, meetings, again.rows.size(), problems);
}

/// Writes what comes of the same stories now.
int write_again() {
  Table table;
  if (!read_rows(table)) return 65;
  Table again;
  uint64_t meetings = 0;
  const uint64_t problems = tell_all(table, again, meetings);
  table.rows = again.rows;
  std::erase_if(table.findings, [](const auto& known) { return !still_found(known.second); });
  std::ofstream(kRowsFile) << rows_text(table);
  std::ofstream(kPageFile) << page_of(table);
  return last_line(0, meetings, table.rows.size(), problems + again.findings.size());
}

}  // namespace

int reconnect(const std::vector<std::string>& words) {
  unsigned seconds = 600;
  bool write = false;
  std::string only;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--replay") return replay();
    if (words[i] == "--again") return write_again();
    if (words[i] == "--write") {
      write = true;
    } else if (words[i] == "--seconds" && i + 1 < words.size()) {
      seconds = static_cast<unsigned>(std::strtoul(words[++i].c_str(), nullptr, 10));
    } else if (words[i] == "--only" && i + 1 < words.size()) {
      only = words[++i];
    } else if (words[i] == "--story" && i + 2 < words.size()) {
      Witness witness;
      if (!read_beginning(words[i + 1], witness.beginning)) return 64;
      if (!read_story(words[i + 2], witness.story)) return 64;
      return tell_one(witness);
    } else {
      std::fprintf(stderr,
                   "usage: hast_sim --reconnect [--seconds N] [--write]\n"
                   "       hast_sim --reconnect --replay | --again\n"
                   "       hast_sim --reconnect --story BEGINNING STORY\n");
      return 64;
    }
  }
  return explore(seconds, write, only);
}

}  // namespace hast::test
