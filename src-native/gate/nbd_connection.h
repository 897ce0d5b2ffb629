#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/limits.h"
#include "gate/nbd_format.h"
#include "gate/nbd_negotiation.h"
#include "gate/provider.h"
#include "ring/stream.h"
#include "ring/task.h"

namespace hast {

/// What the connections of one gate have in common. Outlives them.
struct NbdShared {
  Provider& provider;
  bool admitting = true;
  WaitList slot_wanted;  ///< woken when a connection has to wait for a slot
};

/// One client in the transmission phase. Loop thread only.
///
/// A reader parses whatever has arrived and cuts commands into chunks, one slot each. A writer
/// gathers every reply that is ready into one send; read data goes out straight from the slots.
/// Commands, chunks and buffers are taken once, when the client has passed the handshake.
///
/// Waiting never closes a circle: the reader waits for a slot while it holds none that is not with
/// the engine or ready to be sent. The one reply that needs several slots in order (a READ of
/// several chunks with simple replies) starts only when it has them all, or when no other READ of
/// this client holds any.
class NbdConnection {
 public:
  NbdConnection(NbdShared& shared, Stream& stream, const nbd::Session& session);
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  /// Serves the client. Returns when it has gone and every slot is back. Once.
  Task<void> run();

  /// Ends the connection now: nothing more is sent, what the engine has is waited for.
  void drop();

  /// Whether it has been waiting for a slot since `us` or earlier.
  bool waits_for_slot_since(uint64_t us) const { return slot_wait_since_us_ <= us; }
  /// Whether the client has not taken its replies since `us` or earlier.
  bool send_stalled_since(uint64_t us) const { return sending_since_us_ <= us; }

 private:
  /// What waits in a chain: to be sent, being sent, free, or for its turn within a command.
  struct Item {
    Item* link = nullptr;
    bool is_chunk = false;
  };
  struct Chain {
    Item* head = nullptr;
    Item* tail = nullptr;
    bool empty() const { return head == nullptr; }
    void push(Item& item);
    Item* pop();
  };
  /// One command of the client. Free again when it is cut, answered, replied to, and without chunk.
  struct Command : Item {
    nbd::RequestHeader header;
    uint32_t cut = 0;         // bytes for which a chunk was made
    uint32_t sent = 0;        // bytes put into a send; only in an ordered READ
    uint32_t unanswered = 0;  // chunks with the engine
    uint32_t chunks = 0;      // chunks that exist
    int error = 0;            // errno; the first one
    bool live = false;
    bool cut_done = false;  // there will be no further chunk
    bool replied = false;  // the last part of the reply (ordered READ: the first) is queued or sent
    bool queued = false;   // the command itself is in the chain of replies
    bool ordered = false;  // READ of several chunks with a simple reply: data in order
    Chain in_order;        // chunks of an ordered READ, answered or not
  };
  /// A piece of a command that fits one slot. Its completion is the engine's answer.
  struct Chunk : Item, Completion {
    NbdConnection* connection = nullptr;
    Command* command = nullptr;
    Request* slot = nullptr;
    uint64_t offset = 0;
    uint32_t length = 0;
    int error = 0;  // errno
    bool answered = false;
    bool last = false;  // carries the end of the reply
  };
  enum class Step { kGoOn, kBytes, kPool, kSlot, kEnd };
  struct SlotWait : CompletionAwait<SlotWait> {
    void submit() {}  // `Provider::acquire` has taken it already
  };

  // ---- Reading (nbd_connection_read.cc) ----
  Task<void> read_loop();
  Step advance();
  Step begin_command();
  void begin(Command& command);
  int check(const nbd::RequestHeader& header) const;
  int check_range(const nbd::RequestHeader& header) const;
  Step cut();
  Step take_chunk();
  bool fill();
  void submit_chunk();
  void give_up_rest(int error);
  void end_cut();
  Step drain();
  Bytes receive_target();
  void received(std::size_t count);
  void end_of_input(int result);
  void stop_reading();
  std::size_t buffered() const { return end_ - begin_; }

  // ---- Answers (nbd_connection.cc) ----
  static void on_answer(Completion& completion);
  void answered(Chunk& chunk);
  void read_answered(Chunk& chunk);
  void ordered_answered(Chunk& chunk);
  void try_begin_ordered(Command& command);
  void settle(Command& command);
  void release(Chunk& chunk);
  void release_in_order(Command& command);
  void free(Command& command);
  void queue(Item& item);
  void take_out(Chain& chain);

  // ---- Writing (nbd_connection_write.cc) ----
  Task<void> write_loop();
  bool has_room() const;
  void gather();
  bool gather_ordered();
  void gather_chunk(Chunk& chunk);
  void gather_command(Command& command);
  void add_data(const Chunk& chunk);
  std::byte* header_space() { return headers_.data() + headers_used_; }
  void add_header(std::size_t size);
  void finish_sent();
  bool idle() const { return !reading_ && live_commands_ == 0; }

  static constexpr std::size_t kReceiveBytes = 256u << 10;
  static constexpr std::size_t kDirectBytesMin = 16u << 10;
  static constexpr std::size_t kSendBytesMax = 512u << 10;
  static constexpr std::size_t kPartsMax = 128;
  static constexpr uint32_t kCommandsMax = 1024;
  static constexpr uint32_t kChunksMax = kRequestsPerClientMax;

  NbdShared& shared_;
  Provider& provider_;
  Stream& stream_;
  const nbd::Session session_;
  ProviderClient holder_;
  bool broken_ = false;  // nothing can be received or sent any more

  std::unique_ptr<Command[]> command_pool_;
  std::unique_ptr<Chunk[]> chunk_pool_;
  Chain free_commands_;
  Chain free_chunks_;
  WaitList pool_wait_;  // the reader, for a command or a chunk
  uint32_t live_commands_ = 0;
  uint32_t live_reads_ = 0;  // those among them that are READs

  // Reading.
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;  // of what has arrived and is not yet used
  std::size_t end_ = 0;
  bool reading_ = true;
  Command* command_ = nullptr;  // being cut
  Chunk* chunk_ = nullptr;      // being filled, or waiting for its slot
  uint32_t filled_ = 0;         // bytes of its payload in the slot
  bool direct_ = false;         // the current receive goes to the slot, not to the buffer
  uint32_t drain_left_ = 0;     // bytes of a refused payload still to come
  SlotWait slot_wait_;
  uint64_t slot_wait_since_us_ = UINT64_MAX;

  // Writing.
  Chain ready_;                 // replies
  Chain sending_;               // what the current send consists of
  Command* ordered_ = nullptr;  // its data must follow before anything else
  WaitList writer_wait_;
  std::array<iovec, kPartsMax> parts_;
  std::array<std::byte, (kPartsMax / 2) * nbd::kReplyHeaderBytesMax> headers_;
  std::size_t part_count_ = 0;
  std::size_t headers_used_ = 0;
  std::size_t send_bytes_ = 0;
  uint64_t sending_since_us_ = UINT64_MAX;
};

}  // namespace hast
