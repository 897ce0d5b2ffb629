#include "gate/nbd_connection.h"

#include <cerrno>
#include <utility>

#include "base/assert.h"

namespace hast {

using nbd::CommandType;

// ---- Life --------------------------------------------------------------------------------------

NbdConnection::NbdConnection(NbdShared& shared, Stream& stream, const nbd::Session& session)
    : shared_(shared),
      provider_(shared.provider),
      stream_(stream),
      session_(session),
      command_pool_(new Command[kCommandsMax]),
      chunk_pool_(new Chunk[kChunksMax]),
      buffer_(new std::byte[kReceiveBytes]) {
  for (uint32_t i = 0; i < kCommandsMax; ++i) free_commands_.push(command_pool_[i]);
  for (uint32_t i = 0; i < kChunksMax; ++i) {
    Chunk& chunk = chunk_pool_[i];
    chunk.is_chunk = true;
    chunk.connection = this;
    free_chunks_.push(chunk);
  }
}

NbdConnection::~NbdConnection() {
  HAST_ASSERT(live_commands_ == 0);
  HAST_ASSERT(holder_.slots_held == 0);
}

Task<void> NbdConnection::run() {
  Scope scope;
  scope.spawn(write_loop());
  co_await read_loop();
  co_await scope.join();
  stream_.shut_down();
  provider_.leave(holder_);
}

void NbdConnection::drop() {
  if (broken_) return;
  broken_ = true;
  ordered_ = nullptr;
  stream_.shut_down();
  take_out(ready_);
  for (uint32_t i = 0; i < kCommandsMax; ++i) {
    Command& command = command_pool_[i];
    if (!command.live || !command.ordered) continue;
    release_in_order(command);
    settle(command);
  }
  writer_wait_.wake_one();
}

// ---- Answers -----------------------------------------------------------------------------------

void NbdConnection::on_answer(Completion& completion) {
  Chunk& chunk = static_cast<Chunk&>(completion);
  chunk.error = chunk.slot->error;
  chunk.connection->answered(chunk);
}

void NbdConnection::answered(Chunk& chunk) {
  Command& command = *chunk.command;
  HAST_ASSERT(command.unanswered > 0);
  --command.unanswered;
  chunk.answered = true;
  if (command.ordered) {
    ordered_answered(chunk);
  } else if (command.header.type == CommandType::kRead && !broken_) {
    read_answered(chunk);
  } else {
    if (command.error == 0) command.error = chunk.error;
    release(chunk);
    settle(command);
  }
}

/// Any READ whose chunks are sent as they come: with structured replies, or of one chunk.
void NbdConnection::read_answered(Chunk& chunk) {
  Command& command = *chunk.command;
  if (chunk.error != 0 && !session_.structured_replies) {
    command.error = chunk.error;
    release(chunk);
  } else {
    chunk.last = command.cut_done && command.unanswered == 0 && command.error == 0;
    if (chunk.last) command.replied = true;
    queue(chunk);
  }
  settle(command);
}

void NbdConnection::ordered_answered(Chunk& chunk) {
  Command& command = *chunk.command;
  if (command.error == 0) command.error = chunk.error;
  if (command.error != 0 && command.replied) drop();  // half of the data may be with the client
  if (command.error != 0 || broken_) {
    release_in_order(command);
    settle(command);
  } else if (command.replied) {
    writer_wait_.wake_one();
  } else {
    try_begin_ordered(command);
  }
}

/// An ordered READ blocks all other replies from its header to its last byte. So it starts only
/// when nothing that it still needs can depend on those.
void NbdConnection::try_begin_ordered(Command& command) {
  if (!command.ordered || command.replied || command.error != 0 || broken_) return;
  if (!command.cut_done && live_reads_ > 1) return;
  const Item* head = command.in_order.head;
  if (head == nullptr || !static_cast<const Chunk*>(head)->answered) return;
  command.replied = true;
  queue(command);
}

/// To be called last after anything that happened to a command: replies, or frees it.
void NbdConnection::settle(Command& command) {
  if (!command.live || !command.cut_done || command.unanswered > 0) return;
  if (!command.replied && !broken_) {
    command.replied = true;
    queue(command);
  } else if (command.chunks == 0 && !command.queued) {
    free(command);
  }
}

// ---- Pools and chains --------------------------------------------------------------------------

void NbdConnection::release(Chunk& chunk) {
  if (chunk.slot != nullptr) provider_.release(*chunk.slot);
  chunk.slot = nullptr;
  HAST_ASSERT(chunk.command->chunks > 0);
  --chunk.command->chunks;
  free_chunks_.push(chunk);
  pool_wait_.wake_one();
}

/// Releases what was answered of an ordered READ and will not be sent.
void NbdConnection::release_in_order(Command& command) {
  Chain all = std::exchange(command.in_order, Chain());
  while (Item* item = all.pop()) {
    Chunk& chunk = static_cast<Chunk&>(*item);
    if (chunk.answered) {
      release(chunk);
    } else {
      command.in_order.push(chunk);
    }
  }
}

void NbdConnection::free(Command& command) {
  command.live = false;
  --live_commands_;
  if (command.header.type == CommandType::kRead) --live_reads_;
  free_commands_.push(command);
  pool_wait_.wake_one();
  if (command_ != nullptr) try_begin_ordered(*command_);
  if (idle()) writer_wait_.wake_one();
}

void NbdConnection::queue(Item& item) {
  if (!item.is_chunk) static_cast<Command&>(item).queued = true;
  ready_.push(item);
  writer_wait_.wake_one();
}

/// Takes everything out of a chain of replies that were sent, or never will be.
void NbdConnection::take_out(Chain& chain) {
  while (Item* item = chain.pop()) {
    if (item->is_chunk) {
      Chunk& chunk = static_cast<Chunk&>(*item);
      Command& command = *chunk.command;
      release(chunk);
      settle(command);
    } else {
      Command& command = static_cast<Command&>(*item);
      command.queued = false;
      settle(command);
    }
  }
}

void NbdConnection::Chain::push(Item& item) {
  item.link = nullptr;
  if (tail == nullptr) {
    head = &item;
  } else {
    tail->link = &item;
  }
  tail = &item;
}

NbdConnection::Item* NbdConnection::Chain::pop() {
  Item* item = head;
  if (item != nullptr) {
    head = item->link;
    if (head == nullptr) tail = nullptr;
  }
  return item;
}

}  // namespace hast
