#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "gate/nbd_connection.h"

namespace hast {

using nbd::CommandType;

namespace {

/// Flags that a command may carry; FUA is allowed, and mostly meaningless, everywhere.
uint16_t flags_allowed(CommandType type, bool structured_replies) {
  switch (type) {
    case CommandType::kRead:
      return structured_replies ? nbd::kFua | nbd::kDontFragment : nbd::kFua;
    case CommandType::kWriteZeroes:
      return nbd::kFua | nbd::kNoHole;
    case CommandType::kBlockStatus:
      return nbd::kFua | nbd::kRequestOne;
    default:
      return nbd::kFua;
  }
}

RequestOp operation_of(CommandType type) {
  switch (type) {
    case CommandType::kRead:
      return RequestOp::kRead;
    case CommandType::kTrim:
      return RequestOp::kDelete;
    case CommandType::kFlush:
      return RequestOp::kFlush;
    default:
      return RequestOp::kWrite;
  }
}

/// Length of the chunk that starts `done` bytes into a command. What fits one slot is not cut;
/// what does not is cut at multiples of a slot's size.
uint32_t chunk_bytes(const nbd::RequestHeader& header, uint32_t done) {
  const uint32_t left = header.length - done;
  const bool moves_data = header.type == CommandType::kRead || header.type == CommandType::kWrite ||
                          header.type == CommandType::kWriteZeroes;
  if (!moves_data || header.length <= kRequestBytesMax) return left;
  const uint64_t offset = header.offset + done;
  const uint32_t to_boundary = kRequestBytesMax - static_cast<uint32_t>(offset % kRequestBytesMax);
  return std::min(left, to_boundary);
}

}  // namespace

// ---- The loop ----------------------------------------------------------------------------------

Task<void> NbdConnection::read_loop() {
  Step step = advance();
  while (step != Step::kEnd) {
    if (step == Step::kBytes) {
      const int result = co_await stream_.recv(receive_target());
      if (result <= 0) {
        end_of_input(result);
        break;
      }
      received(static_cast<std::size_t>(result));
    } else if (step == Step::kSlot) {
      slot_wait_since_us_ = Loop::current().now_us();
      shared_.slot_wanted.wake_one();
      const int result = co_await slot_wait_;
      slot_wait_since_us_ = UINT64_MAX;
      if (result != 0) give_up_rest(-result);
    } else {
      co_await pool_wait_.wait();
    }
    step = advance();
  }
  stop_reading();
}

/// Uses up what has arrived, as far as it goes without waiting; says what to wait for.
NbdConnection::Step NbdConnection::advance() {
  Step step = Step::kGoOn;
  while (step == Step::kGoOn) {
    if (broken_) {
      step = Step::kEnd;
    } else if (command_ == nullptr) {
      step = begin_command();
    } else if (drain_left_ > 0) {
      step = drain();
    } else {
      step = cut();
    }
  }
  return step;
}

/// Where the next bytes should go: straight into the slot when much of its payload is missing.
Bytes NbdConnection::receive_target() {
  direct_ = chunk_ != nullptr && buffered() == 0 && chunk_->length - filled_ >= kDirectBytesMin;
  if (direct_) return Bytes(chunk_->slot->buffer + filled_, chunk_->length - filled_);
  // Less than a header is left: every step uses up all the payload there is.
  std::memmove(buffer_.get(), buffer_.get() + begin_, buffered());
  end_ = buffered();
  begin_ = 0;
  return Bytes(buffer_.get() + end_, kReceiveBytes - end_);
}

void NbdConnection::received(std::size_t count) {
  if (direct_) {
    filled_ += static_cast<uint32_t>(count);
  } else {
    end_ += count;
  }
}

/// The end of the stream between two messages is a client that goes without saying so; its
/// replies are still sent. Anywhere else it is a loss.
void NbdConnection::end_of_input(int result) {
  if (result < 0 || command_ != nullptr || buffered() > 0) drop();
}

void NbdConnection::stop_reading() {
  if (command_ != nullptr) {
    HAST_ASSERT(broken_);
    if (chunk_ != nullptr) release(*chunk_);
    chunk_ = nullptr;
    end_cut();
  }
  reading_ = false;
  writer_wait_.wake_one();
}

// ---- One command -------------------------------------------------------------------------------

NbdConnection::Step NbdConnection::begin_command() {
  if (buffered() < nbd::kRequestBytes) return Step::kBytes;
  const auto header = nbd::decode_request(buffer_.get() + begin_);
  if (header && header->type == CommandType::kDisconnect) return Step::kEnd;
  const bool endless =
      header && header->type == CommandType::kWrite && header->length > nbd::kPayloadBytesMax;
  if (!header || endless) {
    drop();
    return Step::kEnd;
  }
  Item* item = free_commands_.pop();
  if (item == nullptr) return Step::kPool;
  begin_ += nbd::kRequestBytes;
  Command& command = static_cast<Command&>(*item);
  command = Command();
  command.header = *header;
  begin(command);
  return Step::kGoOn;
}

void NbdConnection::begin(Command& command) {
  const nbd::RequestHeader& header = command.header;
  command.live = true;
  ++live_commands_;
  command_ = &command;
  if (header.type == CommandType::kRead) ++live_reads_;
  const int error = check(header);
  if (error != 0) {
    give_up_rest(error);
  } else if (header.type == CommandType::kCache || header.type == CommandType::kBlockStatus) {
    end_cut();
  } else {
    command.ordered = header.type == CommandType::kRead && !session_.structured_replies &&
                      header.length > kRequestBytesMax;
  }
}

/// 0, or the errno with which a command is refused.
int NbdConnection::check(const nbd::RequestHeader& header) const {
  if (!shared_.admitting) return ESHUTDOWN;
  const bool zeroes = header.type == CommandType::kWriteZeroes;
  if (zeroes && (header.flags & nbd::kFastZero) != 0) return ENOTSUP;
  const uint16_t allowed = flags_allowed(header.type, session_.structured_replies);
  if ((header.flags & ~allowed) != 0) return EINVAL;
  switch (header.type) {
    case CommandType::kRead:
      if (header.length > nbd::kPayloadBytesMax) return EINVAL;
      if ((header.flags & nbd::kDontFragment) != 0 && header.length > kRequestBytesMax) {
        return EOVERFLOW;
      }
      return check_range(header);
    case CommandType::kBlockStatus:
      return session_.block_status ? check_range(header) : EINVAL;
    case CommandType::kWrite:
    case CommandType::kTrim:
    case CommandType::kCache:
    case CommandType::kWriteZeroes:
      return check_range(header);
    case CommandType::kFlush:
      return header.offset == 0 && header.length == 0 ? 0 : EINVAL;
    default:
      return EINVAL;
  }
}

int NbdConnection::check_range(const nbd::RequestHeader& header) const {
  const bool writes =
      header.type == CommandType::kWrite || header.type == CommandType::kWriteZeroes;
  const bool moves_no_data =
      header.type == CommandType::kCache || header.type == CommandType::kBlockStatus;
  if (header.length == 0) return EINVAL;
  const uint64_t size = provider_.size_bytes();
  if (header.offset > size || header.length > size - header.offset) return writes ? ENOSPC : EINVAL;
  const uint64_t below_block = provider_.block_bytes() - 1;
  if (((header.offset | header.length) & below_block) != 0 && !moves_no_data) return EINVAL;
  return 0;
}

/// Makes the next chunk of the current command, as far as slots and bytes are there.
NbdConnection::Step NbdConnection::cut() {
  if (command_->error != 0 || !shared_.admitting) {
    give_up_rest(ESHUTDOWN);
    return Step::kGoOn;
  }
  if (chunk_ == nullptr) return take_chunk();
  if (command_->header.type == CommandType::kWrite && !fill()) return Step::kBytes;
  submit_chunk();
  return Step::kGoOn;
}

NbdConnection::Step NbdConnection::take_chunk() {
  Item* item = free_chunks_.pop();
  if (item == nullptr) return Step::kPool;
  Chunk& chunk = static_cast<Chunk&>(*item);
  Command& command = *command_;
  const nbd::RequestHeader& header = command.header;
  chunk.command = &command;
  chunk.offset = header.offset + command.cut;
  chunk.length = chunk_bytes(header, command.cut);
  chunk.error = 0;
  chunk.answered = false;
  chunk.last = false;
  ++command.chunks;
  chunk_ = &chunk;
  filled_ = 0;
  chunk.slot = nullptr;
  Request* slot = provider_.acquire(holder_, slot_wait_, &chunk.slot);
  if (slot == nullptr) return Step::kSlot;
  chunk.slot = slot;
  return Step::kGoOn;
}

/// Copies payload that has arrived; true when the chunk has all of it.
bool NbdConnection::fill() {
  const std::size_t missing = chunk_->length - filled_;
  const std::size_t count = std::min(missing, buffered());
  std::memcpy(chunk_->slot->buffer + filled_, buffer_.get() + begin_, count);
  begin_ += count;
  filled_ += static_cast<uint32_t>(count);
  return count == missing;
}

void NbdConnection::submit_chunk() {
  Chunk& chunk = *chunk_;
  Command& command = *command_;
  const nbd::RequestHeader& header = command.header;
  Request& request = *chunk.slot;
  request.op = operation_of(header.type);
  request.zeroes = header.type == CommandType::kWriteZeroes;
  const bool changes = request.op == RequestOp::kWrite || request.op == RequestOp::kDelete;
  request.fua = changes && (header.flags & nbd::kFua) != 0;
  request.offset = chunk.offset;
  request.length = chunk.length;
  request.error = 0;
  request.answered = &chunk;
  if (request.zeroes) std::memset(request.buffer, 0, chunk.length);
  chunk.run = on_answer;
  command.cut += chunk.length;
  ++command.unanswered;
  if (command.ordered) command.in_order.push(chunk);
  chunk_ = nullptr;
  filled_ = 0;
  provider_.submit(request);
  if (command.cut == header.length) end_cut();
}

/// The rest of the current command is not carried out; the payload still to come is skipped.
void NbdConnection::give_up_rest(int error) {
  Command& command = *command_;
  if (command.error == 0) command.error = error;
  const uint32_t used = command.cut + filled_;
  if (chunk_ != nullptr) release(*chunk_);
  chunk_ = nullptr;
  filled_ = 0;
  if (command.ordered && command.replied) {
    drop();
    return;
  }
  if (command.ordered) release_in_order(command);
  drain_left_ = command.header.type == CommandType::kWrite ? command.header.length - used : 0;
  if (drain_left_ == 0) end_cut();
}

void NbdConnection::end_cut() {
  Command& command = *command_;
  command_ = nullptr;
  command.cut_done = true;
  try_begin_ordered(command);
  settle(command);
}

NbdConnection::Step NbdConnection::drain() {
  const std::size_t count = std::min<std::size_t>(drain_left_, buffered());
  begin_ += count;
  drain_left_ -= static_cast<uint32_t>(count);
  if (drain_left_ > 0) return Step::kBytes;
  end_cut();
  return Step::kGoOn;
}

}  // namespace hast
