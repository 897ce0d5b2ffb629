#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "codec/activemap.h"
#include "codec/rangelock.h"
#include "engine/connector.h"
#include "engine/decision.h"
#include "engine/deps.h"
#include "engine/link.h"
#include "engine/map_store.h"
#include "engine/metadata_store.h"
#include "engine/slot.h"
#include "engine/stats.h"
#include "gate/provider.h"

namespace hast {

/// Settings that may change while the engine runs.
struct PrimarySettings {
  Replication replication = Replication::kMemsync;
  Checksum checksum = Checksum::kNone;
  Compression compression = Compression::kHole;
  uint32_t timeout_ms = 20000;
  bool metaflush = true;
  std::string secret;  ///< shared with the peer; empty: none
};

struct PrimaryConfig {
  std::string resource;
  PrimarySettings settings;
  bool force = false;        ///< `role -f`
  uint32_t block_bytes = 0;  ///< of the provider; 0: the disk's sector
  uint64_t bootid = 0;
};

/// How `Primary::start` ended when it may not serve.
struct StartFailure {
  int exit = 0;           ///< sysexits: 66 component, 69 refused
  const char* code = "";  ///< of base/error_codes.def
  char text[512] = {};
};

class Synchroniser;

/// Waits for the end of the flush with this number. Lives in the frame of who waits.
struct FlushWaiter {
  uint64_t wanted;
  FlushWaiter* next;
  Signal ended{};
};

/// The primary of one resource: decides for every request which component does it, when it is
/// answered, and what is dirty. Loop thread only. Rules: docs/architecture.md, "The primary".
class Primary : public Provider, private LinkEvents {
 public:
  /// `slab`: twice kRequestsMax buffers of kRequestBytesMax, `stride` apart, aligned to 4096; the
  /// second half is touched only with lzf. All outlive
  /// this.
  Primary(Component& disk, Dialer& dialer, EngineHost& host, PrimaryConfig config, std::byte* slab,
          std::size_t stride);
  ~Primary() override;

  /// Reads the component and makes the first attempt to reach the peer (rule 21). True: I/O may be
  /// served, and the connection is kept up from here on. False: `failure` says why not.
  Task<bool> start(StartFailure& failure);
  /// New requests fail with ESHUTDOWN from here on (rule 22); idempotent.
  void stop_admission();
  /// Settles what is in flight, flushes both, stores the map, ends the link. After stop_admission.
  Task<void> drain();

  void reconfigure(const PrimarySettings& settings);
  /// The peer was heard of: the wait before the next attempt ends.
  void kick();
  void reconnect();  ///< addresses changed: the present link is closed
  EngineStats stats() const;

  // Provider
  uint64_t size_bytes() const override;
  uint32_t block_bytes() const override { return block_bytes_; }
  bool can_trim() const override { return can_trim_; }
  Request* acquire(ProviderClient& client, Completion& waiter, Request** slot) override;
  void submit(Request& request) override;
  void release(Request& request) override;
  void leave(ProviderClient& client) override;

 private:
  friend class Synchroniser;

  // primary.cc: life and connection
  Task<int> load(StartFailure& failure);
  Task<bool> decide_start(StartFailure& failure);
  Task<bool> no_second_primary(std::unique_ptr<Attempt>& attempt, StartFailure& failure);
  bool may_lead_alone(StartFailure& failure) const;
  Task<int> trust_own_copy();
  void mark_all();
  static void take_boot(Metadata& metadata, Extra& extra, Primary& self);
  Task<void> note_life();
  Task<void> note_clean();
  Task<void> note_failed_flush();
  Task<void> tell_next_life();
  Task<int> note_peer_behind();
  void inherit_failed_flush();
  bool may_be_ahead() const;
  Task<void> attempt_once(Attempt& attempt);
  Task<void> keep_connected(std::unique_ptr<Attempt> first);
  Task<bool> serve_link(Attempt& attempt);
  Task<int> adopt(Attempt& attempt);
  void attach(Link& link);
  Task<void> settle_loss(Link& link);
  void report_refusal(const Attempt& attempt);
  bool said_lately(const char* text);
  using MetadataChange = void (*)(Metadata&, Extra&, Primary&);
  Task<int> update_metadata(MetadataChange change);
  std::optional<uint64_t> counted_there() const;
  int adopt_without_disk(const Attempt& attempt);
  Task<int> agree_on_source(const Attempt& attempt);
  Task<int> store_agreement(const Attempt& attempt);
  bool peer_knows_all() const;
  bool is_newest() const;
  void offer_generation(Extra& extra);
  static void hear_of_end(Metadata& metadata, Extra& extra, Primary& self);
  Task<int> ensure_counted();
  Task<void> finish_running_pass();
  Task<void> tick();
  bool attached() const { return link_ != nullptr; }
  Replication effective_mode() const;
  bool loose() const { return settings_.replication != Replication::kFullsync; }
  Task<void> loosen();
  static void note_ahead(Metadata& metadata, Extra& extra, Primary& self);

  // primary_io.cc: requests
  Task<void> serve(Slot& slot);
  Task<int> hold_for_peer(Slot& slot);
  Task<int> lock(Slot& slot, RangeMode mode);
  void unlock(Slot& slot);
  Task<void> serve_read(Slot& slot);
  bool must_read_remotely(const Slot& slot) const;
  Task<int> read_remote(Slot& slot);
  Task<void> serve_write(Slot& slot);
  Task<void> serve_delete(Slot& slot);
  void finish(Slot& slot, int error);
  Task<int> make_ready(Slot& slot);
  bool may_issue(const Slot& slot) const;
  void issue(Slot& slot);
  void submit_local(Slot& slot);
  static void local_done(Completion& c);
  void note_local(Slot& slot, int rc);
  void progress(Slot& slot);
  void settle(Slot& slot);
  void answer(Slot& slot, int error);
  void maybe_free(Slot& slot);
  Task<void> serve_flush(Slot& slot);
  Task<int> flush_covering();
  Task<void> run_flushes();
  void tell_flushed(int rc);
  Task<int> flush_both();
  Task<int> flush_local();
  Task<void> flush_fua(Slot& slot);
  Task<void> flush_delete(Slot& slot);
  void count_error(RequestOp op);

  // primary_io.cc: failures
  /// Gives up the local component if the peer has everything. False: it does not, so that each
  /// request that fails here has failed.
  bool detach_local(const char* what, int error);
  bool peer_has_all() const;
  bool peer_may_serve(const Slot& slot) const;
  Task<void> settle_missed(Slot& slot);
  Task<void> record_stale();
  static void note_own_stale(Metadata& metadata, Extra& extra, Primary& self);
  Task<void> note_stale_recorded_after(SleepTimer& timer);
  void let_stale_go_on();

  // LinkEvents
  void remote_received(Slot& slot) override;
  void remote_final(Slot& slot, int error) override;
  void link_failed(const char* why, int error) override;

  Component& disk_;
  Dialer& dialer_;
  EngineHost& host_;
  PrimaryConfig config_;
  PrimarySettings& settings_;
  Replication wanted_ = Replication::kFullsync;  // by the last `reconfigure`
  MetadataStore metadata_;
  Connector connector_;
  SlotPool pool_;
  RangeLock ranges_;
  Scope scope_;     // requests, flushes, connection: everything that runs
  Scope requests_;  // requests of clients only
  std::unique_ptr<Activemap> map_;
  std::unique_ptr<MapStore> map_store_;
  std::unique_ptr<Synchroniser> sync_;
  uint32_t block_bytes_ = 512;
  uint64_t data_offset_ = 0;
  bool can_trim_ = true;

  // Connection.
  Link* link_ = nullptr;        // set while requests go to the peer
  Link* connecting_ = nullptr;  // the link of the attempt that is served; for reconnect()
  PeerWord peer_;
  SyncSource source_ = SyncSource::kNone;
  bool needs_peer_ = false;    // the peer has newer data: nothing can be decided without it
  bool whole_untold_ = false;  // the peer still takes its copy for the only whole one
  bool peer_lacks_ = false;    // it may have lost what it had not flushed; no counter says so
  bool counted_ = false;       // this lone period has raised the counter
  bool counting_ = false;
  WaitList counted_waiters_;
  bool admission_open_ = true;  // closed while a loss is settled
  WaitList admission_;
  WaitList attached_waiters_;
  bool stopping_ = false;
  bool ended_ = false;
  bool keeping_ = false;    // keep_connected runs
  bool heard_of_ = false;   // the peer, since the last attempt began
  bool met_ = false;        // requests have gone to the peer, in this life
  bool caught_up_ = false;  // a pass has ended, in this life: the peer has all since
  SleepTimer reconnect_;
  SleepTimer tick_timer_;
  char last_attempt_[256] = {};
  char said_[256] = {};  ///< of the last attempt that was said
  uint64_t said_us_ = 0;
  AttemptKind last_kind_ = AttemptKind::kNoPeer;
  bool started_ = false;
  Role last_role_ = Role::kInit;  // of the life before

  // Local component.
  bool local_detached_ = false;
  bool stale_recorded_ = false;
  bool stale_impossible_ = false;
  bool peer_is_new_ = false;  // since our disk was given up: it has nothing of the data

  bool marked_all_ = false;    // since a flush had failed before the machine's restart
  bool flush_failed_ = false;  // what the local disk has of older writes is unknown from then on

  // Flushes: one pair in flight, everybody who comes meanwhile shares the next.
  bool flushing_ = false;
  uint64_t flush_begun_ = 0, flush_ended_ = 0, flush_wanted_ = 0;
  FlushWaiter* flush_waiters_ = nullptr;
  bool uncached_warned_ = false;
  uint64_t unflushed_since_us_ = 0;
  uint64_t losses_ = 0;  // links that were in use and failed

  EngineCounters counters_;
  uint32_t local_queue_ = 0;
  uint32_t in_flight_ = 0;  // slots of clients that the engine holds
  WaitList settled_;
};

}  // namespace hast
