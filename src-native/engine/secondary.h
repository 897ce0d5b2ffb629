#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "codec/activemap.h"
#include "codec/rangelock.h"
#include "engine/decision.h"
#include "engine/deps.h"
#include "engine/map_store.h"
#include "engine/metadata_store.h"
#include "engine/stats.h"
#include "gate/provider.h"
#include "wire/packet.h"

namespace hast {

struct SecondaryConfig {
  std::string resource;
  PrimaryFacts primary;  ///< from the second message
  uint8_t version = 2;   ///< as negotiated
  bool extended = false;
  uint64_t epoch = 0;
  uint64_t bootid = 0;  ///< of this node
  uint32_t timeout_ms = 20000;
  Checksum checksum = Checksum::kNone;
  Compression compression = Compression::kHole;
  AuthKey auth;  ///< what the second message was proven with, and the answer is signed with
};

/// How a secondary ended.
struct SecondaryEnd {
  int exit = 0;           ///< sysexits: 0 stopped, 66 component, 75 connection, 78 refused
  const char* code = "";  ///< of base/error_codes.def; empty for an orderly end
  char text[512] = {};
};

/// The secondary of one resource, for one connection of a primary: answers the second message,
/// carries out requests, overlapping ones in the order of arrival, others in parallel. Loop thread
/// only.
class Secondary {
 public:
  /// `slab`: kRequestsMax buffers of kPeerRequestBytesMax, `stride` apart, aligned to 4096.
  Secondary(Component& disk, EngineHost& host, SecondaryConfig config,
            std::unique_ptr<Stream> requests, std::unique_ptr<Stream> replies, std::byte* slab,
            std::size_t stride);
  ~Secondary();

  /// Runs until the connection ends or `stop`; then everything that was received is carried out and
  /// flushed before it returns (rule 8).
  Task<void> run(SecondaryEnd& end);
  /// Stops reading; what was received is carried out.
  void stop();
  EngineStats stats() const;

 private:
  /// One request in hand. `first` and `final` are its replies.
  struct Job : Completion {
    Secondary* self = nullptr;
    Job* next = nullptr;
    Job* order_previous = nullptr;  // writes in hand, in order of arrival
    Job* order_next = nullptr;
    RequestMessage message;
    std::byte* buffer = nullptr;
    std::byte hole[kHoleBytes] = {};
    RangeHold range;
    Packet received;
    Packet final;
    uint64_t arrival = 0;
    bool used = false;
    bool changes = false;  // counted in the order list
    bool done = false;     // the final reply is queued
  };

  Task<int> load(SecondaryEnd& end);
  Task<int> set_up(SecondaryEnd& end);
  Task<int> send_setup_reply(const Decision& decision, SecondaryEnd& end);
  Task<int> adopt(const Decision& decision);
  void apply(const Decision& decision, Metadata& metadata, Extra& extra) const;
  void note_target(const Decision& decision, Extra& extra) const;
  Generations generations_after(const Decision& decision, Generations ids) const;
  void refusal_text(const Decision& decision, char* out, std::size_t size) const;

  Task<void> read_requests();
  Task<int> handle(ConstBytes area);
  Task<int> handle_data_request(const RequestMessage& message);
  Task<int> handle_extension(const RequestMessage& message);
  Task<int> end_pass(uint64_t generation);
  Task<int> take_payload(Job& job);
  Bytes room_behind(Job& job) const;
  Task<int> before_first_request();
  void start(Job& job);
  void run_on_disk(Job& job);
  Task<void> run_flush(Job& job);
  Task<void> note_incomplete();
  Task<int> flush_disk();
  Task<void> note_failed_flush(int rc);
  static void disk_done(Completion& c);
  Task<void> finish_failed(Job& job, int error);
  void finish(Job& job, int error);
  void reply_final(Job& job, const ReplyMessage& reply);
  static void final_sent(Packet& packet, int result);
  static void received_sent(Packet& packet, int result);
  void maybe_free(Job& job);
  void reject(const RequestMessage& message, int16_t wire_error);
  Task<Job*> take_job();
  void release_range(Job& job);
  void count_error(Command cmd);
  Task<int> become_good(uint64_t generation);
  template <typename Change>  // void(Metadata&, Extra&)
  Task<int> update_metadata(Change change);
  void say_alive();
  Task<void> watch_silence();
  Task<void> run_writer();
  void close(const char* why);

  Component& disk_;
  EngineHost& host_;
  SecondaryConfig config_;
  std::unique_ptr<Stream> requests_;
  std::unique_ptr<Stream> replies_;
  PacketReader reader_;
  PacketWriter writer_;
  MetadataStore metadata_;
  std::unique_ptr<Activemap> map_;
  Scope scope_;
  Scope jobs_scope_;
  std::unique_ptr<MapStore> map_store_;
  RangeLock ranges_;
  std::unique_ptr<Job[]> jobs_;
  Job* free_ = nullptr;
  uint32_t free_count_ = kRequestsMax;
  WaitList free_waiters_;
  WaitList order_waiters_;
  Job* order_first_ = nullptr;
  Job* order_last_ = nullptr;
  uint64_t arrivals_ = 0;
  bool map_cleared_ = false;
  bool own_map_set_ = false;       // every bit of it, on disk
  bool primary_is_stale_ = false;  // what this copy lacks, nobody has
  bool flushed_before_ = false;    ///< nothing was left in the cache when this life began
  bool flush_failed_ = false;      ///< in this life: nobody knows what is stored
  bool to_be_rewritten_ = false;   ///< the next set-up makes it a target; not yet in this one
  bool failed_since_ = false;      // a write or flush, since the last pass began
  bool handling_ = false;          // what needs the disk before anything more is read
  uint64_t reading_since_us_ = 0;
  bool closed_ = false;
  bool stopped_ = false;  // by us, not by the connection
  const char* why_ = "";
  SleepTimer silence_;
  std::unique_ptr<std::byte[]> staging_;
  LzfTables tables_;
  std::byte setup_head_[1024];
  Packet alive_;
  EngineCounters counters_;
  uint32_t on_disk_ = 0;
  bool ready_ = false;
};

}  // namespace hast
