// All that two nodes can find when they meet: explored, written down, and told again.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "sim/story.h"

namespace hast::test {

struct Witness {
  Beginning beginning;
  Story story;
};

/// What is known of one set of facts and one truth.
struct RowEntry {
  std::string outcome;
  Witness witness;
};

struct RowKey {
  std::vector<std::string> facts;
  std::string truth;
  auto operator<=>(const RowKey&) const = default;
};

struct Explored {
  Beginning beginning;
  uint64_t states = 0;
  uint64_t stories = 0;
  uint64_t meetings = 0;
  std::size_t depth = 0;  ///< of the longest story of which all continuations were told
  bool closed = false;    ///< no story leads to a state that was not seen
};

struct FoundIn {
  std::string what;
  std::string reason;  ///< why it is granted; empty: it is not
  Witness witness;
  uint64_t times = 1;
};

struct Table {
  std::map<RowKey, RowEntry> rows;
  std::vector<Explored> explored;
  std::map<std::string, FoundIn> findings;  ///< by what was found, beside whom and why
};

/// hast_sim --reconnect [--seconds N] [--write | --replay]: exit code.
int reconnect(const std::vector<std::string>& words);

/// docs/reconnect.md.
std::string page_of(const Table& table);

}  // namespace hast::test
