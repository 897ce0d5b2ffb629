#include "base/assert.h"
#include "gate/nbd_connection.h"

namespace hast {

using nbd::CommandType;

Task<void> NbdConnection::write_loop() {
  for (;;) {
    gather();
    if (part_count_ > 0) {
      sending_since_us_ = Loop::current().now_us();
      const int error = co_await send_all(stream_, std::span(parts_).first(part_count_));
      sending_since_us_ = UINT64_MAX;
      finish_sent();
      if (error != 0) drop();
    } else if (idle()) {
      co_return;
    } else {
      co_await writer_wait_.wait();
    }
  }
}

bool NbdConnection::has_room() const {
  return part_count_ + 2 <= kPartsMax &&
         headers_used_ + nbd::kReplyHeaderBytesMax <= headers_.size() &&
         send_bytes_ < kSendBytesMax;
}

/// Collects the replies that are ready, up to what one send should carry.
void NbdConnection::gather() {
  while (has_room()) {
    if (ordered_ != nullptr) {
      if (!gather_ordered()) return;
      continue;
    }
    Item* item = ready_.pop();
    if (item == nullptr) return;
    if (item->is_chunk) {
      gather_chunk(static_cast<Chunk&>(*item));
    } else {
      gather_command(static_cast<Command&>(*item));
    }
    sending_.push(*item);
  }
}

/// The next piece of the ordered READ whose header is out; false when it is not there yet.
bool NbdConnection::gather_ordered() {
  Command& command = *ordered_;
  const Item* head = command.in_order.head;
  if (head == nullptr || !static_cast<const Chunk*>(head)->answered) return false;
  Chunk& chunk = static_cast<Chunk&>(*command.in_order.pop());
  add_data(chunk);
  command.sent += chunk.length;
  if (command.sent == command.header.length) ordered_ = nullptr;
  sending_.push(chunk);
  return true;
}

/// A piece of a READ with its own header.
void NbdConnection::gather_chunk(Chunk& chunk) {
  const uint64_t cookie = chunk.command->header.cookie;
  std::byte* to = header_space();
  if (!session_.structured_replies) {
    add_header(nbd::encode_simple_reply(to, cookie, 0));
    add_data(chunk);
  } else if (chunk.error != 0) {
    add_header(nbd::encode_error_offset(to, cookie, chunk.error, chunk.offset, chunk.last));
  } else {
    add_header(nbd::encode_offset_data(to, cookie, chunk.offset, chunk.length, chunk.last));
    add_data(chunk);
  }
}

/// A reply without data, or the header of an ordered READ.
void NbdConnection::gather_command(Command& command) {
  const nbd::RequestHeader& header = command.header;
  const bool status = header.type == CommandType::kBlockStatus;
  const bool structured =
      session_.structured_replies && (status || header.type == CommandType::kRead);
  std::byte* to = header_space();
  if (structured && command.error != 0) {
    add_header(nbd::encode_error(to, header.cookie, command.error, true));
  } else if (structured) {
    HAST_ASSERT(status);
    add_header(
        nbd::encode_block_status(to, header.cookie, nbd::kAllocationContextId, header.length));
  } else {
    add_header(nbd::encode_simple_reply(to, header.cookie, command.error));
    if (command.ordered && command.error == 0) ordered_ = &command;
  }
}

void NbdConnection::add_data(const Chunk& chunk) {
  parts_[part_count_++] = {chunk.slot->buffer, chunk.length};
  send_bytes_ += chunk.length;
}

/// Headers that follow each other become one part.
void NbdConnection::add_header(std::size_t size) {
  std::byte* header = header_space();
  headers_used_ += size;
  send_bytes_ += size;
  if (part_count_ > 0) {
    iovec& before = parts_[part_count_ - 1];
    if (static_cast<std::byte*>(before.iov_base) + before.iov_len == header) {
      before.iov_len += size;
      return;
    }
  }
  parts_[part_count_++] = {header, size};
}

void NbdConnection::finish_sent() {
  part_count_ = 0;
  headers_used_ = 0;
  send_bytes_ = 0;
  take_out(sending_);
}

}  // namespace hast
