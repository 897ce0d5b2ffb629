// A schedule before it runs: what the nodes are like, and an explicit list of steps, all made of
// one seed. A step that does not fit when its turn comes does nothing, so that any part of the list
// is a schedule, too.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/pair.h"

namespace hast::test {

enum class StepKind : uint8_t {
  kTime,            ///< virtual time passes
  kEvents,          ///< some events of the loop run, and the next step comes in between
  kRequests,        ///< a burst of requests of clients
  kCut,             ///< the connections break, perhaps for a while, perhaps in one direction
  kSilence,         ///< nothing arrives any more, perhaps in one direction
  kStillborn,       ///< the next connections are accepted and then dead
  kMend,            ///< the link is whole again
  kNetwork,         ///< other delays and pieces
  kStartSecondary,  ///< a node that is down comes up
  kLoseSecondary,   ///< its process or its machine dies
  kLosePrimary,     ///< the same; then the other one takes over, or it comes back itself
  kLoseBoth,
  kSwitchOver,  ///< the operator changes the roles
  kDiskFault,   ///< operations fail
  kDiskFull,    ///< writes fail with ENOSPC
  kDiskSlow,
  kAstray,    ///< a read or write is done at another place of the disk
  kReplace,   ///< the secondary gets a new disk
  kReload,    ///< other mode, checksum, compression, timeout
  kForce,     ///< the operator makes an incomplete copy the primary
  kTwo,       ///< both become primary behind a cut link, then the operator demotes one
  kFreeze,    ///< one node stands still for a while
  kOvertake,  ///< the same, and the other one becomes primary meanwhile; then as with kTwo
  kKinds
};
const char* step_name(StepKind kind);

struct Step {
  StepKind kind;
  uint64_t value;  ///< seed of everything that the step decides
};

struct Plan {
  uint64_t seed = 0;
  PairOptions options;
  bool late_secondary = false;  ///< it comes up by a step only
  std::vector<Step> steps;
  std::vector<uint32_t> indices;  ///< of `steps` in the whole list of the seed
};

Plan make_plan(uint64_t seed);

/// Which steps of a plan are kept: "40" (the first ones), "0-3,7,9-12" (these), "" (all).
/// False when the text makes no sense.
bool keep_steps(Plan& plan, const std::string& which);
/// The text that makes `keep_steps` give the steps of this plan.
std::string which_steps(const Plan& plan);

}  // namespace hast::test
