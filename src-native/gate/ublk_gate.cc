#include "gate/ublk_gate.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/limits.h"

namespace hast {

UblkGate::UblkGate(Provider& provider, std::unique_ptr<UblkChannel> channel)
    : provider_(provider), channel_(std::move(channel)), tags_(channel_->depth()) {
  slot_wait_.gate = this;
  slot_wait_.run = on_slot;
}

void UblkGate::start() {
  for (uint32_t number = 0; number < tags_.size(); ++number) {
    Tag& tag = tags_[number];
    tag.gate = this;
    tag.number = number;
    tag.run = on_request;
    channel_->fetch(tag, number);
  }
}

void UblkGate::stop_admission() { admitting_ = false; }

Task<void> UblkGate::close() {
  stop_admission();
  closing_ = true;
  while (busy_ > 0 || slot_wait_.waiting) co_await idle_.wait();
  provider_.leave(holder_);
}

// ---- One request -------------------------------------------------------------------------------

void UblkGate::on_request(Completion& c) {
  Tag& tag = tag_of(c);
  // A driver that ends has no more requests under this tag.
  if (tag.result < 0 || tag.gate->closing_) return;
  tag.gate->begin(tag);
}

void UblkGate::begin(Tag& tag) {
  ++busy_;
  const int error = check(channel_->request(tag.number));
  if (error != 0) {
    end(tag, -error);
    return;
  }
  waiting_.push(tag);
  seat_all();
}

/// 0, or the errno with which a request is refused.
int UblkGate::check(const UblkRequest& request) const {
  if (!admitting_) return ESHUTDOWN;
  if (!request.known) return EOPNOTSUPP;
  const bool moves_data = request.op == RequestOp::kRead || request.op == RequestOp::kWrite;
  if (moves_data && request.length > kRequestBytesMax) return EINVAL;
  const uint64_t size = provider_.size_bytes();
  if (request.offset > size || request.length > size - request.offset) return EINVAL;
  return (request.offset | request.length) % provider_.block_bytes() == 0 ? 0 : EINVAL;
}

/// Slots for those that wait, in the order in which they came.
void UblkGate::seat_all() {
  while (!slot_wait_.waiting) {
    if (first_ == nullptr && !waiting_.empty()) first_ = &tag_of(*waiting_.pop());
    if (first_ == nullptr) return;
    slot_wait_.slot = nullptr;
    Request* slot = provider_.acquire(holder_, slot_wait_, &slot_wait_.slot);
    slot_wait_.waiting = slot == nullptr;
    if (slot != nullptr) seat(*std::exchange(first_, nullptr), *slot);
  }
}

void UblkGate::on_slot(Completion& c) {
  SlotWait& wait = static_cast<SlotWait&>(c);
  UblkGate& gate = *wait.gate;
  wait.waiting = false;
  Tag& tag = *std::exchange(gate.first_, nullptr);
  if (wait.slot != nullptr) {
    gate.seat(tag, *wait.slot);
  } else {
    gate.end(tag, wait.result);
  }
  gate.seat_all();
}

void UblkGate::seat(Tag& tag, Request& slot) {
  const UblkRequest from = channel_->request(tag.number);
  tag.slot = &slot;
  const Bytes data(slot.buffer, from.length);
  const bool has_data = from.op == RequestOp::kWrite && !from.zeroes;
  if (!admitting_) {
    end(tag, -ESHUTDOWN);
  } else if (has_data && !channel_->take(tag.number, data)) {
    end(tag, -EIO);
  } else {
    if (from.zeroes) std::memset(slot.buffer, 0, from.length);
    submit(tag, from);
  }
}

void UblkGate::submit(Tag& tag, const UblkRequest& from) {
  Request& slot = *tag.slot;
  slot.op = from.op;
  slot.fua = from.fua && (from.op == RequestOp::kWrite || from.op == RequestOp::kDelete);
  slot.zeroes = from.zeroes;
  slot.offset = from.offset;
  slot.length = from.length;
  slot.error = 0;
  slot.answered = &tag;
  tag.run = on_answer;
  provider_.submit(slot);
}

void UblkGate::on_answer(Completion& c) {
  Tag& tag = tag_of(c);
  UblkGate& gate = *tag.gate;
  const Request& slot = *tag.slot;
  const bool is_read = slot.op == RequestOp::kRead;
  const bool moves_data = is_read || (slot.op == RequestOp::kWrite && !slot.zeroes);
  int32_t result = slot.error != 0 ? -slot.error : 0;
  if (result == 0 && moves_data) result = static_cast<int32_t>(slot.length);
  if (result > 0 && is_read) {
    const ConstBytes data(slot.buffer, slot.length);
    if (!gate.channel_->give(tag.number, data)) result = -EIO;
  }
  gate.end(tag, result);
}

void UblkGate::end(Tag& tag, int32_t result) {
  if (tag.slot != nullptr) provider_.release(*std::exchange(tag.slot, nullptr));
  tag.run = on_request;
  channel_->commit(tag, tag.number, result);
  HAST_ASSERT_OP(busy_, >, 0u);
  --busy_;
  if (closing_ && busy_ == 0) idle_.wake_all();
}

}  // namespace hast
