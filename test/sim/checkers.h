// What must hold of two disks, whatever has happened to the programs that use them.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "codec/layout.h"
#include "sim/pair.h"

namespace hast::test {

/// Every extent in which the two nodes differ is marked in the durable map of one of them, or one
/// of them knows durably that its copy is stale or incomplete. Only between nodes of our kind that
/// share an identity, or one of ours and an original. Empty: it holds.
std::string uncovered_difference(Pair& pair);
/// All extents of which it does not hold.
std::vector<uint64_t> uncovered_extents(Pair& pair);

/// The first byte in which the two data areas differ.
std::optional<uint64_t> first_difference(Pair& pair);

}  // namespace hast::test
