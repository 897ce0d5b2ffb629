// Two complete nodes in one process: engines, metadata, maps and role changes on simulated disks,
// network and clock. What the supervisor does in TypeScript (accept, first message, token,
// take-over) is played here by `Node::accept_peers`, with the same rules.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "disk/fault_component.h"
#include "engine/primary.h"
#include "engine/secondary.h"
#include "lazy_slab.h"
#include "ring/pipe_stream.h"
#include "ring/sim_loop.h"

namespace hast::test {

struct PairOptions {
  uint64_t seed = 1;
  uint64_t disk_bytes = 4u << 20;
  uint32_t extent_bytes = 131072;
  uint32_t keepdirty = 4;
  Replication replication = Replication::kFullsync;
  Checksum checksum = Checksum::kNone;
  Compression compression = Compression::kHole;
  uint32_t timeout_ms = 20000;
  bool original_peer = false;  ///< nobody announces extensions: plain version 2
  /// This node is an original, the other one is ours. It knows nothing of extensions, keeps
  /// counters and map from one life to the next and nothing else, and leads whenever it is told to.
  /// -1: none.
  int original_node = -1;
  bool layout_hast = false;  ///< data area right behind the map, as the original lays it out
  uint8_t version = 2;       ///< what the secondary answers at most
  std::array<std::string, 2> secret;  ///< of nodes a and b; empty: none
  bool lax = false;                   ///< secondaries let everybody in, and sign nevertheless
};

class Node;

/// A secondary is about to decide.
struct Meeting {
  int node = 0;  ///< the secondary's
  SecondaryFacts secondary;
  PrimaryFacts primary;
};

/// The engine's host in a test: remembers what it was told.
struct TestHost : EngineHost {
  Node* node = nullptr;
  std::vector<std::string> log_lines;  ///< of this life
  std::vector<LogLevel> log_levels;    ///< of each of them
  std::vector<EventName> events;
  bool is_ready = false;
  Random random_source{1};
  void log(LogLevel level, std::string_view text) override;
  void event(EventName name) override { events.push_back(name); }
  void ready() override { is_ready = true; }
  uint64_t random() override { return random_source.next(); }
};

/// Memory that one life or schedule leaves to the next: what was touched once stays in place.
template <typename T>
struct Pooled {
  void operator()(T* item) const;
};

/// Buffers for an engine's slots.
using SlabPointer = std::unique_ptr<LazySlab, Pooled<LazySlab>>;
using DiskPointer = std::unique_ptr<MemoryDisk, Pooled<MemoryDisk>>;

enum class NodeRole : uint8_t { kInit, kSecondary, kPrimary };

/// One program life on a node's disk. A crash ends a life: its coroutines run to their ends without
/// any effect on disk or network.
struct Life {
  std::unique_ptr<FaultComponent> disk;
  std::unique_ptr<Primary> primary;
  std::unique_ptr<Secondary> secondary;
  std::unique_ptr<Dialer> dialer;
  SlabPointer slab;
  Scope scope;
  TestHost host;
  StartFailure failure;
  SecondaryEnd end;
  bool started = false;  // primary: start() has returned
  bool serving = false;
  bool stopping = false;
  bool ended = false;
};

class Pair;

class Node {
 public:
  Node(Pair& pair, int index);

  /// `contents_equal`: with the promise that the peer's disk holds the same.
  void create(bool contents_equal = false);
  /// What was written here alone is given up, as by `hastctl discard`. The node is in role init.
  void discard();
  /// A new disk in the place of the old one, and `create` on it. The node is in role init.
  void replace_disk();
  MemoryDisk& disk() { return *disk_; }
  const MemoryDisk& disk() const { return *disk_; }
  /// Role changes as the supervisor makes them; they take effect as the loop runs. None is made
  /// when a disk stands still (`MemoryDisk::freeze_at`) before the role before it has ended.
  void become_primary(bool force = false);
  void become_secondary();
  bool become_init();
  NodeRole role() const { return role_; }
  /// The present life, or null (init, or secondary without a peer).
  Life* life() { return life_.get(); }
  Primary* primary() { return life_ != nullptr ? life_->primary.get() : nullptr; }
  bool serving() const { return life_ != nullptr && life_->serving; }
  /// Nothing of it runs for so long, and then all at once, the timers first or what has arrived.
  /// Whatever else is done to the node ends it.
  void freeze(uint64_t us, bool timers_first);
  void thaw();
  bool frozen() const;
  /// The process dies; what the disk has in its cache stays. Role becomes init.
  void crash();
  /// The node loses power: unflushed writes are lost, kept or torn by seed. `silently`: its peer is
  /// not told by a reset, as when the whole machine is gone.
  void power_cut(uint64_t seed, bool silently = false);
  /// User data as a read of the disk gives it now.
  ConstBytes data() const;
  /// What the next power cut leaves of it at least.
  ConstBytes durable_data() const;
  Metadata metadata() const;
  Extra extra() const;
  bool map_empty() const;
  uint64_t bootid() const { return bootid_; }
  std::vector<std::byte> map() const;
  const std::vector<std::string>& log_lines() const { return log_; }
  bool logged(std::string_view part) const;

 private:
  friend class Pair;
  friend struct TestHost;
  uint8_t party() const { return static_cast<uint8_t>(index_ + 1); }
  void reappear();
  void begin_life();
  void end_life();
  void forget_records();
  Task<void> run_primary(Life& life);
  Task<void> stop_primary(Life& life);
  Task<void> run_secondary(Life& life);
  Task<void> accept_peers();
  Task<void> handshake(std::unique_ptr<Stream> stream);
  Task<void> first_message(std::unique_ptr<Stream> stream, FirstRequest message);
  Task<void> second_message(std::unique_ptr<Stream> stream, SecondRequest message, bool proven);
  Task<void> refuse(std::unique_ptr<Stream> stream, std::string text, bool wait);
  void kill_life(bool lose_power, uint64_t seed, bool silently);

  Pair& pair_;
  int index_;
  std::string address_;
  DiskPointer disk_;
  NodeRole role_ = NodeRole::kInit;
  std::unique_ptr<Life> life_;
  std::vector<std::unique_ptr<Life>> dead_;
  std::unique_ptr<PipeListener> listener_;
  /// Connection 1 that waits for its second message; shared with who still answers on it.
  struct HalfOpen {
    std::unique_ptr<Stream> stream;
  };
  std::shared_ptr<HalfOpen> half_open_;
  Token token_{};
  bool token_valid_ = false;
  bool half_extended_ = false;
  AuthKey half_auth_;
  uint64_t bootid_ = 1;  // of the machine; another one after every power cut
  uint8_t half_version_ = 2;
  std::vector<std::string> log_;
};

/// The two nodes and what connects them.
class Pair {
 public:
  explicit Pair(PairOptions options = {});
  ~Pair();

  Node& a() { return *nodes_[0]; }
  Node& b() { return *nodes_[1]; }
  Node& node(int index) { return *nodes_[static_cast<std::size_t>(index)]; }
  SimLoop loop;
  PairOptions options;
  PipeNetwork network;
  Random random;
  Trace trace;
  Scope scope;
  std::function<void(const Meeting&)> on_meeting;

  /// Cuts every connection between the nodes; `refuse` also makes new ones fail until `mend`.
  void cut(bool refuse = false);
  /// Ends what this node sends; what the other one sends still arrives.
  void cut_one_way(int node);
  /// Nothing arrives any more and nobody is told: the cable is out, until `mend`.
  void silence();
  /// The same for what this node sends.
  void silence_one_way(int node);
  void mend();
  /// A disk stands still, so that its node is to be killed.
  bool frozen() const;
  bool link_down() const { return link_down_; }
  bool is_original(int index) const {
    return options.original_peer || options.original_node == index;
  }
  bool silent() const { return silent_; }

  /// Lets time pass until both are connected, nothing is dirty and all is idle. False at the
  /// deadline.
  bool settle(Node& primary, uint64_t limit_us = 60'000'000);
  bool run_until_serving(Node& node, uint64_t limit_us = 60'000'000);
  bool equal();
  /// Node a as primary, node b as secondary, in sync.
  void connect();
  /// Lets go of lives that have ended.
  void reap();

  /// A client's requests on a serving primary; the result is 0 or a positive errno, -1 when it
  /// never came.
  int write(Node& node, uint64_t offset, ConstBytes bytes, bool fua = false);
  int read(Node& node, uint64_t offset, Bytes into);
  int flush(Node& node);
  int discard(Node& node, uint64_t offset, uint64_t length);

  /// The same without waiting: `result` is set when the answer comes.
  struct Operation {
    bool done = false;
    bool orphaned = false;  // its process died before it answered
    int error = -1;
    RequestOp op = RequestOp::kWrite;
    uint64_t offset = 0;
    uint64_t length = 0;
    bool fua = false;
    std::vector<std::byte> bytes;  // to write, or what was read
    Life* life = nullptr;
    bool finished = false;  // its coroutine has ended
  };
  Operation* begin(Node& node, RequestOp op, uint64_t offset, uint64_t length,
                   ConstBytes bytes = {}, bool fua = false);
  void forget_done();

 private:
  friend class Node;
  Task<void> run_operation(Primary& primary, Operation& operation);
  std::array<std::unique_ptr<Node>, 2> nodes_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<std::unique_ptr<ProviderClient>> clients_;
  bool link_down_ = false;
  bool silent_ = false;
};

std::vector<std::byte> pattern(uint64_t seed, std::size_t size);
/// What a client reads there; a failed read fails the test.
std::vector<std::byte> read_back(Pair& pair, Node& node, uint64_t offset, std::size_t size);

}  // namespace hast::test
