#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/deps.h"
#include "engine/link.h"
#include "engine/metadata_store.h"

namespace hast {

/// How one attempt to reach the peer ended.
enum class AttemptKind : uint8_t {
  kConnected,
  kNoPeer,      ///< `remote none`
  kRefusedTcp,  ///< nobody listens there
  kNoAnswer,    ///< silence, or the connection broke in the set-up
  kBusy,        ///< the peer is primary itself and may be demoting
  kPeerIdle,    ///< the resource is unknown there, or its role there is init
  kSplitBrain,
  kRefused,      ///< identity, access, secret: `text` says it
  kMismatch,     ///< sizes differ, or what the peer said makes no sense
  kChanged,      ///< our own counters moved meanwhile: try again at once
  kLocalFailed,  ///< our own metadata could not be written
};

/// What a successful attempt learned.
struct Attempt {
  AttemptKind kind = AttemptKind::kNoAnswer;
  char text[256] = {};  ///< for a person; set unless connected
  std::unique_ptr<Link> link;
  bool link_running = false;
  LinkSettings settings;
  uint64_t sent_localcnt = 0;  ///< our own, as the peer's decision rests on it
  uint64_t peer_localcnt = 0;
  uint64_t peer_remotecnt = 0;
  bool peer_virgin = false;
  uint64_t peer_generation = 0;
  SyncSource source = SyncSource::kPrimary;
  std::vector<std::byte> map;  ///< empty: none was sent
};

/// Facts about ourselves that an attempt needs.
struct ConnectorFacts {
  uint64_t data_bytes = 0;
  uint32_t extent_bytes = 0;
  uint32_t map_bytes = 0;
  uint32_t timeout_ms = 20000;  ///< of the attempt, not of what comes of it
  uint64_t bootid = 0;
  bool led = false;     ///< this node was primary in the life before, too
  bool forced = false;  ///< the operator has said that our copy counts
  /// Our own disk has been given up: the peer has all that our count speaks of. Otherwise absent.
  std::optional<uint64_t> counted_there;
  std::string secret;  ///< shared with the peer; empty: none
};

/// Our own count, as the peer is told of it: a disk that was given up has nothing that the peer
/// lacks, whatever could be stored there. `counted_there`: as in `ConnectorFacts`.
uint64_t count_told(const Metadata& own, std::optional<uint64_t> counted_there);

/// The primary's side of the set-up (wire-protocol 4): both connections, M1 to R2 and the map.
/// Touches nothing but the resource id, which it creates when there is none. Loop thread only.
class Connector {
 public:
  Connector(Dialer& dialer, MetadataStore& metadata, EngineHost& host, LinkEvents& events)
      : dialer_(dialer), metadata_(metadata), host_(host), events_(events) {}

  /// When `attempt.link` is set on return, its `run` was spawned in `scope`; the caller shuts it
  /// down and joins, whatever the kind. `attempt` must outlive that.
  Task<void> attempt(const ConnectorFacts& facts, Attempt& attempt, Scope& scope);

  /// Ends a running attempt, and every later one at once.
  void stop();

 private:
  Task<void> converse(const ConnectorFacts& facts, Attempt& attempt, Scope& scope);
  Task<void> first_connection(const ConnectorFacts& facts, Attempt& attempt);
  Task<void> second_connection(const ConnectorFacts& facts, Attempt& attempt, Scope& scope);
  Task<void> read_answer(const ConnectorFacts& facts, Attempt& attempt);
  Task<int> ensure_identity();
  bool first_reply_fits(const FirstReply& reply, Attempt& attempt);
  bool sizes_fit(const ConnectorFacts& facts, const SecondReply& reply, Attempt& attempt);
  Task<int> send_message(Stream& stream, std::size_t bytes);
  Task<int> read_message(PacketReader& reader, ConstBytes& area);
  Task<int> receive_map(const SecondReply& reply, Attempt& attempt);
  Task<void> run_link(Attempt& attempt);
  Task<void> fail_link(Attempt& attempt, Scope& scope);
  uint32_t left_ms() const;
  uint32_t our_bits(const ConnectorFacts& facts) const;
  void refuse(Attempt& attempt, std::string_view text, bool wait);

  Dialer& dialer_;
  MetadataStore& metadata_;
  EngineHost& host_;
  LinkEvents& events_;
  std::unique_ptr<Stream> first_;
  std::unique_ptr<PacketReader> first_reader_;
  Token token_{};
  AuthKey auth_;
  uint8_t version_ = 1;  // of the last negotiation: what the next first message carries
  bool extended_ = false;
  bool virgin_ = false;
  bool equal_ = false;                  // virgin, and promised to have the contents of the peer
  struct SetupTimer* timer_ = nullptr;  // of the running attempt, from the first connection on
  uint64_t deadline_us_ = 0;
  bool stopped_ = false;
  std::byte out_[1024];
};

/// Short name for logs.
const char* attempt_kind_name(AttemptKind kind);

}  // namespace hast
