#include "wire/packet.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace hast {

namespace {
constexpr uint8_t kVersionMax = 2;
}  // namespace

void PacketWriter::queue(Packet& packet) {
  HAST_ASSERT(!packet.queued);
  HAST_ASSERT(packet.head_bytes <= kPacketHeadBytesMax);
  packet.queued = true;
  packet.next = nullptr;
  if (tail_ == nullptr) {
    head_ = &packet;
  } else {
    tail_->next = &packet;
  }
  tail_ = &packet;
  ++queued_;
  wake_.wake_one();
}

void PacketWriter::close() {
  closed_ = true;
  wake_.wake_one();
}

void PacketWriter::drop_all(int error) {
  while (head_ != nullptr) {
    Packet& packet = *head_;
    head_ = packet.next;
    if (head_ == nullptr) tail_ = nullptr;
    --queued_;
    packet.queued = false;
    if (packet.sent != nullptr) packet.sent(packet, error);
  }
}

Task<int> PacketWriter::run() {
  for (;;) {
    while (head_ == nullptr && !closed_ && failed_ == 0) co_await wake_.wait();
    if (failed_ != 0) break;
    if (head_ == nullptr) co_return 0;
    // Gather without taking the packets off: a packet queued meanwhile goes behind these.
    uint32_t parts = 0;
    uint32_t packets = 0;
    for (Packet* p = head_; p != nullptr && parts + 2 <= kPartsMax; p = p->next) {
      parts_[parts++] = {p->head, p->head_bytes};
      if (p->payload_bytes > 0) {
        parts_[parts++] = {const_cast<std::byte*>(p->payload), p->payload_bytes};
      }
      ++packets;
    }
    const int rc = co_await send_all(stream_, std::span<iovec>(parts_, parts));
    if (rc != 0) {
      failed_ = rc;
      break;
    }
    last_sent_us_ = Loop::current().now_us();
    for (; packets > 0; --packets) {
      Packet& packet = *head_;
      head_ = packet.next;
      if (head_ == nullptr) tail_ = nullptr;
      --queued_;
      packet.queued = false;
      if (packet.sent != nullptr) packet.sent(packet, 0);
    }
  }
  drop_all(failed_);
  // Whoever still queues gets the error, until the owner closes.
  while (!closed_) {
    co_await wake_.wait();
    drop_all(failed_);
  }
  co_return failed_;
}

PacketReader::PacketReader(Stream& stream, uint32_t room)
    : stream_(stream),
      room_(room),
      buffer_(new std::byte[room]),
      last_byte_us_(Loop::current().now_us()) {}

PacketReader::Head PacketReader::head(ConstBytes& area) const {
  if (available() < kHeadBytes) return Head::kIncomplete;
  const std::byte* at = buffer_.get() + begin_;
  if (static_cast<uint8_t>(at[0]) > kVersionMax) return Head::kBadVersion;
  const uint32_t length = load_le<uint32_t>(at + 1);
  if (length > kMessageBytesMax) return Head::kTooLong;
  if (available() < kHeadBytes + length) return Head::kIncomplete;
  area = ConstBytes(at + kHeadBytes, length);
  return Head::kReady;
}

void PacketReader::consume_head() {
  const uint32_t length = load_le<uint32_t>(buffer_.get() + begin_ + 1);
  begin_ += kHeadBytes + length;
  HAST_ASSERT(begin_ <= end_);
}

Task<int> PacketReader::receive_more() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (end_ == room_ || room_ - begin_ < kMessageBytesMax + kHeadBytes) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, available());
    end_ -= begin_;
    begin_ = 0;
  }
  HAST_ASSERT(end_ < room_);
  const int got = co_await stream_.recv(Bytes(buffer_.get() + end_, room_ - end_));
  if (got < 0) co_return got;
  if (got == 0) co_return begin_ == end_ ? -ENODATA : -ECONNRESET;
  end_ += static_cast<std::size_t>(got);
  last_byte_us_ = Loop::current().now_us();
  co_return 0;
}

bool PacketReader::payload_now(Bytes into) {
  if (available() < into.size()) return false;
  std::memcpy(into.data(), buffer_.get() + begin_, into.size());
  begin_ += into.size();
  return true;
}

Task<int> PacketReader::payload(Bytes into) {
  const std::size_t buffered = std::min(available(), into.size());
  std::memcpy(into.data(), buffer_.get() + begin_, buffered);
  begin_ += buffered;
  into = into.subspan(buffered);
  // The rest goes straight to its place: nothing behind it can arrive in the same receive.
  while (!into.empty()) {
    const int got = co_await stream_.recv(into);
    if (got < 0) co_return got;
    if (got == 0) co_return -ECONNRESET;
    into = into.subspan(static_cast<std::size_t>(got));
    last_byte_us_ = Loop::current().now_us();
  }
  co_return 0;
}

Task<int> PacketReader::skip(uint64_t bytes) {
  while (bytes > 0) {
    if (begin_ == end_) {
      const int rc = co_await receive_more();
      if (rc != 0) co_return rc == -ENODATA ? -ECONNRESET : rc;
    }
    const std::size_t step = static_cast<std::size_t>(std::min<uint64_t>(available(), bytes));
    begin_ += step;
    bytes -= step;
  }
  co_return 0;
}

}  // namespace hast
