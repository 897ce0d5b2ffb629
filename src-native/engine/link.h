#pragma once

#include <cstdint>
#include <memory>

#include "engine/deps.h"
#include "engine/slot.h"
#include "wire/format.h"
#include "wire/packet.h"

namespace hast {

class Link;

/// What a link tells its primary, on the loop thread.
class LinkEvents {
 public:
  virtual ~LinkEvents() = default;
  /// First of the two replies to a memsync WRITE.
  virtual void remote_received(Slot& slot) = 0;
  /// The peer's final word. error: positive errno of this system, 0 is success.
  virtual void remote_final(Slot& slot, int error) = 0;
  /// The link has failed; no request may be given to it any more. `Link::run` ends soon.
  virtual void link_failed(const char* why, int error) = 0;
};

/// A request that needs no slot: FLUSH, SYNC_DONE, STALE. One of each kind at a time.
struct ControlRequest {
  Packet packet;
  uint64_t seq = 0;
  Link* link = nullptr;
  bool answered_early = false;  // while the packet still counted as queued
  int result = 0;
  Completion* done = nullptr;  // result: 0, or -errno (-ENOTCONN when the link ended first)
};

struct LinkSettings {
  uint8_t version = 2;
  bool extended = false;
  uint64_t epoch = 0;
  uint32_t timeout_ms = 20000;
  Checksum checksum = Checksum::kNone;
  Compression compression = Compression::kHole;
};

/// A primary's pair of connections after the set-up: requests out on the first, replies in on the
/// second.
///
/// Loop thread only. Owns the streams. A request that was sent and not finally answered stays in
/// `outstanding` when the link ends; the primary settles those (rule 7).
class Link {
 public:
  Link(std::unique_ptr<Stream> requests, std::unique_ptr<Stream> replies, LinkEvents& events,
       EngineHost& host);
  ~Link();

  /// Conn 2 is watched from the second message on: a refusal may come there.
  Task<void> run();
  /// Ends the link: `run` returns when both directions have ended.
  void shut_down(const char* why, int error);
  bool failed() const { return failed_; }
  const char* failure() const { return why_; }
  /// Text of a refusal that came on connection 2 during the set-up; empty without one.
  const char* refusal() const { return refusal_; }

  /// From here on keepalives and deadlines run.
  void establish(const LinkSettings& settings);
  const LinkSettings& settings() const { return settings_; }
  void set_codecs(Checksum checksum, Compression compression, uint32_t timeout_ms);

  void send_read(Slot& slot);
  /// `synchronising`: a chunk of the synchroniser, never memsync.
  void send_write(Slot& slot, bool synchronising);
  void send_delete(Slot& slot);
  void send_compare(Slot& slot);
  /// False: the one before it is still being sent (or the link has failed).
  bool tell_map_stored(uint64_t dirty_bytes);
  void ask_flush(Completion& done) { ask(flush_, kFlushIndex, done, RequestMessage::flush(0)); }
  void ask_sync_done(Completion& done, uint64_t generation);
  void ask_stale(Completion& done, uint64_t generation, bool stale);

  Slot* outstanding() const { return outstanding_; }
  void forget(Slot& slot);
  uint32_t outstanding_count() const { return outstanding_count_; }
  uint32_t queued() const { return writer_.queued(); }
  Stream& first() { return *requests_; }
  Stream& second() { return *replies_; }

 private:
  static constexpr uint32_t kFlushIndex = 256;
  static constexpr uint32_t kSyncDoneIndex = 257;
  static constexpr uint32_t kStaleIndex = 258;
  static constexpr uint32_t kIndexBits = 16;

  void track(Slot& slot);
  void send(Slot& slot, const RequestMessage& message);
  void ask(ControlRequest& control, uint32_t index, Completion& done, RequestMessage message);
  void finish_control(ControlRequest& control, int result);
  void finish(Slot& slot, int error);
  static void slot_sent(Packet& packet, int result);
  static void control_sent(Packet& packet, int result);
  uint64_t next_seq(uint32_t index) { return (++sequence_ << kIndexBits) | index; }
  Task<void> run_writer();
  Task<void> run_reader();
  Task<void> run_ticker();
  Task<int> handle_reply(ConstBytes area);
  Task<int> take_data(Slot& slot, const ReplyMessage& reply);
  bool handle_control(const ReplyMessage& reply);
  Slot* find(uint64_t seq);
  bool note_refusal(ConstBytes area);
  bool peer_is_silent(uint64_t now) const;
  uint64_t keepalive_due_us(uint64_t last_us) const;
  uint64_t next_tick_us(uint64_t last_keepalive_us) const;

  std::unique_ptr<Stream> requests_;
  std::unique_ptr<Stream> replies_;
  LinkEvents& events_;
  EngineHost& host_;
  PacketWriter writer_;
  PacketReader reader_;
  LinkSettings settings_;
  bool established_ = false;
  bool failed_ = false;
  bool ended_early_ = false;  // connection 2 ended before the set-up did
  const char* why_ = "";
  char refusal_[256] = {};
  Scope scope_;
  SleepTimer tick_;
  uint64_t sequence_ = 0;
  uint64_t asked_us_ = 0;        // when the oldest silence that counts began
  Slot* outstanding_ = nullptr;  // in order of sending
  Slot* outstanding_last_ = nullptr;
  uint32_t outstanding_count_ = 0;
  Slot* by_index_[kRequestsMax] = {};
  ControlRequest flush_, sync_done_, stale_;
  Packet keepalive_, map_stored_;
  std::unique_ptr<std::byte[]> staging_;  // a READ's payload before it is decoded
  LzfTables tables_;
};

}  // namespace hast
