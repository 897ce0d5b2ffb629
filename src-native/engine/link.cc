#include "engine/link.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "codec/nv.h"
#include "wire/errno_map.h"

namespace hast {

namespace {
constexpr uint64_t kSecond = 1000000;
constexpr uint64_t kTickUs = kSecond / 4;
constexpr uint64_t kKeepaliveOursUs = kSecond;
constexpr uint64_t kKeepaliveOriginalUs = 10 * kSecond;
constexpr uint64_t kSilenceOursMs = 3000;
}  // namespace

Link::Link(std::unique_ptr<Stream> requests, std::unique_ptr<Stream> replies, LinkEvents& events,
           EngineHost& host)
    : requests_(std::move(requests)),
      replies_(std::move(replies)),
      events_(events),
      host_(host),
      writer_(*requests_),
      reader_(*replies_),
      staging_(new std::byte[kRequestBytesMax]) {}

Link::~Link() {
  HAST_ASSERT(scope_.running() == 0);
  HAST_ASSERT(outstanding_ == nullptr);
}

void Link::shut_down(const char* why, int error) {
  if (failed_) return;
  failed_ = true;
  why_ = why;
  writer_.close();
  tick_.wake();
  requests_->shut_down();
  replies_->shut_down();
  events_.link_failed(why, error);
}

Task<void> Link::run() {
  scope_.spawn(run_writer());
  scope_.spawn(run_reader());
  scope_.spawn(run_ticker());
  co_await scope_.join();
  for (ControlRequest* control : {&flush_, &sync_done_, &stale_}) {
    if (control->seq != 0) finish_control(*control, -ENOTCONN);
  }
}

void Link::establish(const LinkSettings& settings) {
  settings_ = settings;
  established_ = true;
  asked_us_ = Loop::current().now_us();
  if (ended_early_) shut_down("the peer closed the connection", ECONNRESET);
}

void Link::set_codecs(Checksum checksum, Compression compression, uint32_t timeout_ms) {
  settings_.checksum = checksum;
  settings_.compression = compression;
  settings_.timeout_ms = timeout_ms;
}

// --- sending
// --------------------------------------------------------------------------------------

void Link::track(Slot& slot) {
  if (outstanding_count_ == 0) asked_us_ = Loop::current().now_us();
  slot.seq = next_seq(slot.index);
  slot.comparing = false;
  slot.link = this;
  slot.final_early = false;
  slot.packet.sent = &Link::slot_sent;
  slot.outstanding_next = nullptr;
  slot.outstanding_previous = outstanding_last_;
  if (outstanding_last_ == nullptr) {
    outstanding_ = &slot;
  } else {
    outstanding_last_->outstanding_next = &slot;
  }
  outstanding_last_ = &slot;
  ++outstanding_count_;
  HAST_ASSERT(by_index_[slot.index] == nullptr);
  by_index_[slot.index] = &slot;
}

void Link::forget(Slot& slot) {
  HAST_ASSERT(by_index_[slot.index] == &slot);
  by_index_[slot.index] = nullptr;
  if (slot.outstanding_previous != nullptr) {
    slot.outstanding_previous->outstanding_next = slot.outstanding_next;
  } else {
    outstanding_ = slot.outstanding_next;
  }
  if (slot.outstanding_next != nullptr) {
    slot.outstanding_next->outstanding_previous = slot.outstanding_previous;
  } else {
    outstanding_last_ = slot.outstanding_previous;
  }
  slot.outstanding_previous = slot.outstanding_next = nullptr;
  slot.seq = 0;
  --outstanding_count_;
}

void Link::send(Slot& slot, const RequestMessage& message) {
  const std::size_t bytes =
      encode_request(Bytes(slot.packet.head, kPacketHeadBytesMax), settings_.version, message);
  HAST_ASSERT(bytes > 0);
  slot.packet.head_bytes = static_cast<uint32_t>(bytes);
  writer_.queue(slot.packet);
}

void Link::send_read(Slot& slot) {
  track(slot);
  slot.packet.payload_bytes = 0;
  send(slot, RequestMessage::read(slot.seq, slot.offset, slot.length));
}

void Link::send_write(Slot& slot, bool synchronising) {
  track(slot);
  uint32_t flags = 0;
  if (!synchronising && slot.mode == Replication::kMemsync && settings_.version >= 2) {
    flags |= kHasMemsync;
  }
  if (settings_.extended) {
    if (slot.fua) flags |= kHasFua;
    if (synchronising) flags |= kHasSync;
  }
  PayloadInfo info;
  const Compression compression = slot.zeroes ? Compression::kHole : settings_.compression;
  // Memory behind `room` is taken only where there is something to compress.
  const Bytes room =
      compression == Compression::kLzf ? Bytes(slot.room, kRequestBytesMax) : Bytes(slot.hole);
  const ConstBytes payload = prepare_payload(
      compression, settings_.checksum, ConstBytes(slot.buffer, slot.length), room, tables_, info);
  slot.packet.payload = payload.data();
  slot.packet.payload_bytes = static_cast<uint32_t>(payload.size());
  send(slot, RequestMessage::write(slot.seq, slot.offset, slot.length, flags, info));
}

void Link::send_delete(Slot& slot) {
  track(slot);
  slot.packet.payload_bytes = 0;
  send(slot, RequestMessage::discard(slot.seq, slot.offset, slot.length));
}

void Link::send_compare(Slot& slot) {
  HAST_ASSERT(settings_.extended);
  track(slot);
  slot.comparing = true;
  slot.packet.payload_bytes = 0;
  send(slot, RequestMessage::compare(slot.seq, slot.offset, slot.length,
                                     sha256_of(ConstBytes(slot.buffer, slot.length))));
}

bool Link::tell_map_stored(uint64_t dirty_bytes) {
  HAST_ASSERT(settings_.extended);
  if (failed_ || map_stored_.queued) return false;
  map_stored_.head_bytes = static_cast<uint32_t>(
      encode_request(Bytes(map_stored_.head, kPacketHeadBytesMax), settings_.version,
                     RequestMessage::map_stored(settings_.epoch, dirty_bytes)));
  writer_.queue(map_stored_);
  return true;
}

void Link::ask(ControlRequest& control, uint32_t index, Completion& done, RequestMessage message) {
  HAST_ASSERT(control.seq == 0);
  if (failed_) {
    Loop::current().ready(done, -ENOTCONN);
    return;
  }
  if (outstanding_count_ == 0) asked_us_ = Loop::current().now_us();
  control.seq = next_seq(index);
  control.link = this;
  control.answered_early = false;
  control.packet.owner = &control;
  control.packet.sent = &Link::control_sent;
  control.done = &done;
  message.seq = control.seq;
  control.packet.head_bytes = static_cast<uint32_t>(
      encode_request(Bytes(control.packet.head, kPacketHeadBytesMax), settings_.version, message));
  writer_.queue(control.packet);
}

void Link::ask_sync_done(Completion& done, uint64_t generation) {
  ask(sync_done_, kSyncDoneIndex, done, RequestMessage::sync_done(0, settings_.epoch, generation));
}

void Link::ask_stale(Completion& done, uint64_t generation, bool stale) {
  ask(stale_, kStaleIndex, done, RequestMessage::stale_copy(0, settings_.epoch, generation, stale));
}

/// The peer may answer before we hear that its request is sent: until then the packet is not ours
/// to use again, so the final word waits.
void Link::finish(Slot& slot, int error) {
  if (slot.packet.queued) {
    slot.final_early = true;
    slot.final_error = error;
    return;
  }
  forget(slot);
  events_.remote_final(slot, error);
}

void Link::slot_sent(Packet& packet, int) {
  Slot& slot = *static_cast<Slot*>(packet.owner);
  if (!slot.final_early) return;
  slot.final_early = false;
  slot.link->finish(slot, slot.final_error);
}

void Link::control_sent(Packet& packet, int) {
  ControlRequest& control = *static_cast<ControlRequest*>(packet.owner);
  if (control.answered_early) control.link->finish_control(control, control.result);
}

void Link::finish_control(ControlRequest& control, int result) {
  if (control.packet.queued) {
    control.answered_early = true;
    control.result = result;
    return;
  }
  control.answered_early = false;
  control.seq = 0;
  Loop::current().ready(*control.done, result);
}

Task<void> Link::run_writer() {
  const int rc = co_await writer_.run();
  if (rc != 0) shut_down("sending to the peer failed", -rc);
}

// --- receiving
// ------------------------------------------------------------------------------------

Task<void> Link::run_reader() {
  for (;;) {
    ConstBytes area;
    const PacketReader::Head head = reader_.head(area);
    if (head == PacketReader::Head::kIncomplete) {
      const int rc = co_await reader_.receive_more();
      if (rc == 0) continue;
      if (!established_ && !failed_) {
        // The answer of the set-up comes on connection 1 and may say why: it is read first.
        ended_early_ = true;
        co_return;
      }
      shut_down(
          rc == -ENODATA ? "the peer closed the connection" : "receiving from the peer failed",
          rc == -ENODATA ? ECONNRESET : -rc);
      co_return;
    }
    if (head != PacketReader::Head::kReady) {
      shut_down("the peer sent a malformed message", EBADMSG);
      co_return;
    }
    const int rc = co_await handle_reply(area);
    if (rc != 0) {
      shut_down(
          rc == -EBADMSG ? "the peer sent a malformed reply" : "receiving from the peer failed",
          -rc);
      co_return;
    }
    if (failed_) co_return;
  }
}

Slot* Link::find(uint64_t seq) {
  const uint64_t index = seq & ((1u << kIndexBits) - 1);
  if (index >= kRequestsMax) return nullptr;
  Slot* slot = by_index_[index];
  return slot != nullptr && slot->seq == seq && !slot->final_early ? slot : nullptr;
}

bool Link::note_refusal(ConstBytes area) {
  const Result<NvReader> reader = NvReader::open(area);
  if (!reader) return false;
  const std::optional<std::string_view> text = reader->string("errmsg");
  if (!text) return false;
  const std::size_t length = std::min(text->size(), sizeof refusal_ - 1);
  std::memcpy(refusal_, text->data(), length);
  refusal_[length] = '\0';
  return true;
}

bool Link::handle_control(const ReplyMessage& reply) {
  for (ControlRequest* control : {&flush_, &sync_done_, &stale_}) {
    if (control->seq != 0 && control->seq == reply.seq) {
      finish_control(*control, -errno_from_wire(reply.error));
      return true;
    }
  }
  return false;
}

Task<int> Link::handle_reply(ConstBytes area) {
  if (!established_) {
    const bool refused = note_refusal(area);
    co_return refused ? -ECONNREFUSED : -EBADMSG;  // no guard: nothing was asked yet
  }
  ReplyMessage reply;
  const Result<void> decoded = decode_reply(area, reply);
  if (!decoded) co_return -EBADMSG;  // guard:malformed-confirms-nothing
  reader_.consume_head();
  if (reply.has(kReplyAlive) || handle_control(reply)) co_return 0;
  Slot* slot = find(reply.seq);
  if (slot == nullptr) {
    logf(host_, LogLevel::kWarning, "A reply of the peer matches no request (seq %llu); ignored.",
         static_cast<unsigned long long>(reply.seq));
    // What belongs to it is unknown, so a payload must still be taken off the stream.
    if (reply.error == 0 && reply.payload.size_bytes > 0) {
      const int rc = co_await reader_.skip(reply.payload.size_bytes);
      co_return rc;
    }
    co_return 0;
  }
  if (reply.error == 0 && reply.has(kReplyReceived)) {
    // Only the first reply to a memsync WRITE says so; anything else is out of step.
    if (slot->op != RequestOp::kWrite || slot->mode != Replication::kMemsync ||
        slot->remote != Outcome::kPending) {
      co_return -EBADMSG;  // guard:received-out-of-step
    }
    events_.remote_received(*slot);
    co_return 0;
  }
  int error = errno_from_wire(reply.error);
  if (error == ENOTCONN) error = EIO;  // to us it means that the link has gone
  // No guard: what is not said to be equal is written.
  if (error == 0 && slot->comparing != reply.has(kReplyEqual)) co_return -EBADMSG;
  if (error == 0 && slot->op == RequestOp::kRead && !slot->comparing) {
    const int rc = co_await take_data(*slot, reply);
    if (rc != 0) co_return rc;
  }
  slot->remote_equal = reply.equal;
  finish(*slot, error);
  co_return 0;
}

Task<int> Link::take_data(Slot& slot, const ReplyMessage& reply) {
  const Result<void> sane = check_payload_info(reply.payload, slot.length);
  if (!sane) co_return -EBADMSG;  // guard:data-fits
  const Bytes data(slot.buffer, slot.length);
  const bool plain = reply.payload.compression == Compression::kNone;
  const Bytes into = plain ? data : Bytes(staging_.get(), reply.payload.size_bytes);
  const int rc = co_await reader_.payload(into);
  if (rc != 0) co_return rc;
  const Result<void> accepted = accept_payload(reply.payload, into, data);
  co_return accepted ? 0 : -EBADMSG;  // guard:data-is-checked
}

// --- being alive
// ----------------------------------------------------------------------------------

bool Link::peer_is_silent(uint64_t now) const {
  const uint64_t since = std::max(reader_.last_byte_us(), asked_us_);
  const uint64_t silence_ms = now > since ? (now - since) / 1000 : 0;
  if (settings_.extended) {
    return silence_ms > std::min<uint64_t>(kSilenceOursMs, settings_.timeout_ms);
  }
  const bool waiting = outstanding_count_ > 0 || flush_.seq != 0;
  return waiting && silence_ms > settings_.timeout_ms;
}

/// When the next keepalive is to be sent. To one of ours at whole seconds, as the primary's tick.
uint64_t Link::keepalive_due_us(uint64_t last_us) const {
  if (!settings_.extended) return last_us + kKeepaliveOriginalUs;
  const uint64_t due_us = last_us + kKeepaliveOursUs;
  return due_us - due_us % kSecond;
}

/// Until there is something to do about being alive: each waking costs an idle machine time.
uint64_t Link::next_tick_us(uint64_t last_keepalive_us) const {
  if (!settings_.extended || !established_ || keepalive_.queued) return kTickUs;
  const uint64_t limit_us = std::min<uint64_t>(kSilenceOursMs, settings_.timeout_ms) * 1000;
  const uint64_t silent_us = std::max(reader_.last_byte_us(), asked_us_) + limit_us + 1000;
  const uint64_t due_us = std::min(keepalive_due_us(last_keepalive_us), silent_us);
  const uint64_t now = Loop::current().now_us();
  return due_us > now ? due_us - now : 1;
}

Task<void> Link::run_ticker() {
  uint64_t last_keepalive_us = 0;
  while (!failed_) {
    co_await tick_.sleep_us(next_tick_us(last_keepalive_us));
    if (failed_ || !established_) continue;
    const uint64_t now = Loop::current().now_us();
    if (peer_is_silent(now)) {
      shut_down("the peer is silent", ETIMEDOUT);
      break;
    }
    // Ours answer each keepalive, so one is sent even while requests flow: a slow disk is not a
    // dead peer.
    const uint64_t last = settings_.extended ? last_keepalive_us
                                             : std::max(last_keepalive_us, writer_.last_sent_us());
    if (now < keepalive_due_us(last) || keepalive_.queued || settings_.version < 1) continue;
    last_keepalive_us = now;
    keepalive_.head_bytes =
        static_cast<uint32_t>(encode_request(Bytes(keepalive_.head, kPacketHeadBytesMax),
                                             settings_.version, RequestMessage::keepalive()));
    writer_.queue(keepalive_);
  }
}

}  // namespace hast
