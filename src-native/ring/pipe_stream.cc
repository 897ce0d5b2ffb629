#include "ring/pipe_stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace hast {

// ---- PipeNetwork
// -----------------------------------------------------------------------------------

PipeNetwork::PipeNetwork(Loop& loop, uint64_t seed) : loop_(loop), random_(seed) {
  tick_.owner = this;
  tick_.party = UINT8_MAX;  // the network never stands still
  tick_.run = [](Completion& c) { static_cast<Tick&>(c).owner->deliver(); };
}

PipeNetwork::~PipeNetwork() {
  HAST_ASSERT(streams_.empty());
  HAST_ASSERT(listeners_.empty());
  HAST_ASSERT(!tick_pending_ || tick_.armed);  // else it waits in the ready queue
  loop_.drop(tick_);
}

std::pair<std::unique_ptr<PipeStream>, std::unique_ptr<PipeStream>> PipeNetwork::make_pair(
    uint32_t link) {
  std::unique_ptr<PipeStream> first(new PipeStream(*this, link, 0));
  std::unique_ptr<PipeStream> second(new PipeStream(*this, link, 1));
  first->peer_id_ = second->id_;
  second->peer_id_ = first->id_;
  return {std::move(first), std::move(second)};
}

std::unique_ptr<PipeListener> PipeNetwork::listen(const std::string& address) {
  HAST_ASSERT(!listeners_.contains(address));
  return std::unique_ptr<PipeListener>(new PipeListener(*this, address));
}

Task<int> PipeNetwork::connect(std::string address, uint32_t link, uint64_t timeout_us,
                               std::unique_ptr<Stream>& connected) {
  SleepTimer timer;
  const int rc = co_await connect(std::move(address), link, timeout_us, timer, connected);
  co_return rc;
}

Task<int> PipeNetwork::connect(std::string address, uint32_t link, uint64_t timeout_us,
                               SleepTimer& timer, std::unique_ptr<Stream>& connected) {
  const uint64_t delay_us = random_delay() + random_delay();
  if (is_silent(link, 0) || is_silent(link, 1) || delay_us > timeout_us) {
    const int woken = co_await timer.sleep_us(timeout_us);
    co_return woken == 0 ? -ETIMEDOUT : woken;
  }
  int woken = co_await timer.sleep_us(delay_us);
  if (woken != 0) co_return woken;
  const auto found = listeners_.find(address);
  if (found == listeners_.end()) co_return -ECONNREFUSED;
  if (found->second->is_full()) {
    woken = co_await timer.sleep_us(timeout_us - delay_us);
    co_return woken == 0 ? -ETIMEDOUT : woken;
  }
  auto sides = make_pair(link);
  if (options.stillborn > 0) {
    --options.stillborn;
    sides.first->dead_ = sides.second->dead_ = true;
  }
  found->second->offer(std::move(sides.second));
  connected = std::move(sides.first);
  co_return 0;
}

void PipeNetwork::cut(uint32_t link) {
  for (const auto& [id, stream] : streams_) {
    if (stream->link_ == link) stream->break_off(-ECONNRESET);
  }
}

void PipeNetwork::cut_direction(uint32_t link, int side) {
  for (const auto& [id, stream] : streams_) {
    if (stream->link_ == link && stream->side_ == side) stream->end_sending();
  }
}

void PipeNetwork::vanish(uint32_t link, int side) {
  for (const auto& [id, stream] : streams_) {
    if (stream->link_ != link) continue;
    stream->vanished_ = true;
    if (stream->side_ == side) stream->break_off(-ECONNRESET);
  }
}

void PipeNetwork::reappear(uint32_t link) {
  for (const auto& [id, stream] : streams_) {
    if (stream->link_ == link) stream->vanished_ = false;
  }
}

void PipeNetwork::silence(uint32_t link, int side, bool silent) { silent_[{link, side}] = silent; }

bool PipeNetwork::is_silent(uint32_t link, int side) const {
  const auto found = silent_.find({link, side});
  return found != silent_.end() && found->second;
}

uint64_t PipeNetwork::random_delay() {
  return random_.between(options.delay_min_us, options.delay_max_us);
}

std::size_t PipeNetwork::piece(std::size_t size) {
  return options.partial ? static_cast<std::size_t>(random_.between(1, size)) : size;
}

PipeStream* PipeNetwork::find(uint64_t id) const {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second;
}

void PipeNetwork::schedule(uint64_t due_us, Arrival arrival) {
  arrivals_.emplace(due_us, std::move(arrival));
  set_tick();
}

void PipeNetwork::set_tick() {
  if (tick_pending_ && !tick_.armed) return;  // in the ready queue: `deliver` sets the next one
  loop_.drop(tick_);
  tick_pending_ = !arrivals_.empty();
  if (tick_pending_) loop_.start(tick_, arrivals_.begin()->first);
}

void PipeNetwork::deliver() {
  tick_pending_ = false;
  const uint64_t now_us = loop_.now_us();
  while (!arrivals_.empty() && arrivals_.begin()->first <= now_us) {
    Arrival arrival = std::move(arrivals_.extract(arrivals_.begin()).mapped());
    if (trace != nullptr) {
      trace->note(arrival.to, arrival.bytes.size(), static_cast<uint64_t>(-arrival.reset), now_us);
    }
    PipeStream* receiver = find(arrival.to);
    if (receiver != nullptr && !receiver->is_shut_down_ && receiver->error_ == 0) {
      receiver->arrived(arrival);
    } else if (!arrival.bytes.empty()) {
      answer_reset(arrival);
    }
  }
  set_tick();
}

/// Bytes came for a stream that is no more: the sender shall hear of it.
void PipeNetwork::answer_reset(const Arrival& arrival) {
  const PipeStream* sender = find(arrival.from);
  if (sender == nullptr || sender->dead_ || sender->vanished_) return;
  if (is_silent(sender->link_, 1 - sender->side_)) return;
  schedule(loop_.now_us() + random_delay(), {arrival.to, arrival.from, {}, -ECONNRESET});
}

// ---- PipeStream
// ------------------------------------------------------------------------------------

PipeStream::PipeStream(PipeNetwork& network, uint32_t link, int side)
    : network_(network), link_(link), side_(side), id_(++network.last_id_) {
  network.streams_[id_] = this;
}

PipeStream::~PipeStream() {
  HAST_ASSERT(recv_done_ == nullptr);
  HAST_ASSERT(send_done_ == nullptr);
  end_connection();
  network_.streams_.erase(id_);
}

void PipeStream::submit_recv(Completion& done, Bytes into) {
  HAST_ASSERT(recv_done_ == nullptr);
  HAST_ASSERT(!into.empty());
  network_.loop_.claim(done);
  recv_done_ = &done;
  recv_into_ = into;
  try_recv();
}

void PipeStream::submit_send(Completion& done, std::span<const iovec> parts) {
  HAST_ASSERT(send_done_ == nullptr);
  network_.loop_.claim(done);
  send_done_ = &done;
  send_parts_ = parts;
  try_send();
}

void PipeStream::shut_down() {
  if (is_shut_down_) return;
  end_connection();
  try_recv();
  try_send();
}

/// Both directions end on our side; the peer learns it after what is still under way, or at once
/// by a reset when we leave bytes unread.
void PipeStream::end_connection() {
  if (std::exchange(is_shut_down_, true)) return;
  if (unread() > 0) {
    transmit({}, -ECONNRESET);
  } else {
    end_sending();
  }
  clear_inbox();
}

void PipeStream::clear_inbox() {
  inbox_.clear();
  inbox_begin_ = 0;
}

void PipeStream::end_sending() {
  if (std::exchange(sending_ended_, true)) return;
  if (error_ == 0) transmit({}, 0);
  try_send();
}

void PipeStream::break_off(int error) {
  if (error_ != 0) return;
  error_ = error;
  clear_inbox();
  try_recv();
  try_send();
}

void PipeStream::transmit(std::vector<std::byte> bytes, int reset) {
  if (dead_ || vanished_ || network_.is_silent(link_, side_)) return;
  network_.carried_bytes += bytes.size();
  last_due_us_ = std::max(last_due_us_, network_.loop_.now_us() + network_.random_delay());
  network_.schedule(last_due_us_, {id_, peer_id_, std::move(bytes), reset});
}

void PipeStream::arrived(PipeNetwork::Arrival& arrival) {
  if (error_ != 0) return;
  if (arrival.reset != 0) {
    break_off(arrival.reset);
    return;
  }
  if (arrival.bytes.empty()) inbox_ended_ = true;
  if (unread() == 0) {
    clear_inbox();
    inbox_.swap(arrival.bytes);
  } else {
    inbox_.insert(inbox_.end(), arrival.bytes.begin(), arrival.bytes.end());
  }
  try_recv();
}

void PipeStream::try_recv() {
  if (recv_done_ == nullptr) return;
  const bool ended = is_shut_down_ || (inbox_ended_ && unread() == 0);
  if (unread() == 0 && !ended && error_ == 0) return;
  int result = is_shut_down_ ? 0 : error_;
  if (unread() > 0) {
    const std::size_t count = network_.piece(std::min(recv_into_.size(), unread()));
    std::memcpy(recv_into_.data(), inbox_.data() + inbox_begin_, count);
    inbox_begin_ += count;
    if (unread() == 0) clear_inbox();
    result = static_cast<int>(count);
    if (PipeStream* peer = network_.find(peer_id_)) {
      peer->unread_bytes_ -= count;
      peer->try_send();
    }
  }
  network_.loop_.ready(*std::exchange(recv_done_, nullptr), result);
}

void PipeStream::try_send() {
  if (send_done_ == nullptr) return;
  int result = error_;
  if (sending_ended_ || is_shut_down_) result = -EPIPE;
  if (result == 0) {
    const std::size_t capacity = network_.options.capacity_bytes;
    const std::size_t room = capacity - std::min<std::size_t>(capacity, unread_bytes_);
    std::size_t total = 0;
    for (const iovec& part : send_parts_) total += part.iov_len;
    HAST_ASSERT_OP(total, >, 0u);
    if (room == 0) return;
    std::vector<std::byte> bytes = gather(network_.piece(std::min(total, room)));
    unread_bytes_ += bytes.size();
    result = static_cast<int>(bytes.size());
    transmit(std::move(bytes), 0);
  }
  network_.loop_.ready(*std::exchange(send_done_, nullptr), result);
}

std::vector<std::byte> PipeStream::gather(std::size_t size) const {
  std::vector<std::byte> bytes;
  bytes.reserve(size);
  for (const iovec& part : send_parts_) {
    const auto* const from = static_cast<const std::byte*>(part.iov_base);
    bytes.insert(bytes.end(), from, from + std::min(part.iov_len, size - bytes.size()));
  }
  return bytes;
}

// ---- PipeListener
// ----------------------------------------------------------------------------------

PipeListener::PipeListener(PipeNetwork& network, std::string address)
    : network_(network), address_(std::move(address)) {
  network.listeners_[address_] = this;
}

PipeListener::~PipeListener() {
  HAST_ASSERT(accept_done_ == nullptr);
  close();
}

void PipeListener::submit_accept(Completion& done, std::unique_ptr<Stream>& accepted) {
  HAST_ASSERT(accept_done_ == nullptr);
  if (closed_) {
    network_.loop_.ready(done, -ECANCELED);
    return;
  }
  network_.loop_.claim(done);
  accept_done_ = &done;
  accepted_ = &accepted;
  try_accept();
}

void PipeListener::close() {
  if (std::exchange(closed_, true)) return;
  network_.listeners_.erase(address_);
  backlog_.clear();
  if (accept_done_ != nullptr) {
    network_.loop_.ready(*std::exchange(accept_done_, nullptr), -ECANCELED);
  }
}

void PipeListener::offer(std::unique_ptr<Stream> stream) {
  backlog_.push_back(std::move(stream));
  try_accept();
}

void PipeListener::try_accept() {
  if (accept_done_ == nullptr || backlog_.empty()) return;
  *accepted_ = std::move(backlog_.front());
  backlog_.pop_front();
  network_.loop_.ready(*std::exchange(accept_done_, nullptr), 0);
}

}  // namespace hast
