#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/limits.h"
#include "ring/stream.h"
#include "wire/format.h"

/// Messages on a stream: buffered reading with a parse loop, queued writing in one gather.
namespace hast {

/// Room for the head of any message after the set-up (5 bytes and its nv area).
inline constexpr uint32_t kPacketHeadBytesMax = 384;

/// One outgoing message. Owned by a slot; must stay until `sent` has run.
struct Packet {
  std::byte head[kPacketHeadBytesMax];
  uint32_t head_bytes = 0;
  const std::byte* payload = nullptr;
  uint32_t payload_bytes = 0;
  Packet* next = nullptr;
  bool queued = false;
  /// Runs when all its bytes are with the stream (0) or never will be (-errno). May be null.
  void (*sent)(Packet&, int result) = nullptr;
  void* owner = nullptr;
};

/// Sends packets in the order in which they were queued. Loop thread only.
class PacketWriter {
 public:
  explicit PacketWriter(Stream& stream) : stream_(stream) {}

  /// "Wholly queued on the stream": from here on its place in the order is fixed.
  void queue(Packet& packet);
  /// Runs until `close`, or until the stream fails; then every packet left gets its error.
  /// Returns 0 after `close` with all packets sent, else -errno.
  Task<int> run();
  /// No packet will be queued any more; `run` ends when the queue is empty.
  void close();
  uint32_t queued() const { return queued_; }
  uint64_t last_sent_us() const { return last_sent_us_; }

 private:
  void drop_all(int error);

  static constexpr uint32_t kPartsMax = 128;
  Stream& stream_;
  Packet* head_ = nullptr;
  Packet* tail_ = nullptr;
  uint32_t queued_ = 0;
  bool closed_ = false;
  int failed_ = 0;
  uint64_t last_sent_us_ = 0;
  WaitList wake_;
  iovec parts_[kPartsMax];
};

/// Reads messages. What has arrived is parsed without waiting; only what is missing is waited for.
class PacketReader {
 public:
  /// Room for many messages with their payloads, or for one that has none, as in a set-up.
  static constexpr uint32_t kRoom = 512 * 1024;
  static constexpr uint32_t kSetUpRoom = kHeadBytes + kMessageBytesMax;

  explicit PacketReader(Stream& stream, uint32_t room = kRoom);

  /// The nv area of the next message, if it is complete in the buffer. `head()` tells why not.
  enum class Head : uint8_t { kReady, kIncomplete, kTooLong, kBadVersion };
  Head head(ConstBytes& area) const;
  /// The version byte of the message that `head` gave.
  uint8_t version() const { return static_cast<uint8_t>(buffer_[begin_]); }
  /// Drops the head that `head` gave. Its payload, if any, comes next.
  void consume_head();
  /// Receives more. 0, or -errno; a stream that ends between two messages gives -ENODATA, in the
  /// middle of one -ECONNRESET.
  Task<int> receive_more();
  /// The next bytes of the stream, exactly. 0 or -errno.
  Task<int> payload(Bytes into);
  /// Like `payload` without waiting; false when not all of it has arrived (nothing is taken then).
  bool payload_now(Bytes into);
  Task<int> skip(uint64_t bytes);

  uint64_t last_byte_us() const { return last_byte_us_; }

 private:
  std::size_t available() const { return end_ - begin_; }

  Stream& stream_;
  const uint32_t room_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  uint64_t last_byte_us_ = 0;
};

}  // namespace hast
