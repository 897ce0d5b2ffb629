#include "gate/nbd_gate.h"

#include <cerrno>
#include <utility>

#include "base/assert.h"

namespace hast {

namespace {

constexpr std::size_t kClientsMax = 64;
constexpr std::size_t kHandshakesMax = 64;
constexpr uint64_t kHandshakeUs = 20'000'000;
constexpr uint64_t kAcceptPauseUs = 100'000;
/// A client that takes no replies for so long, while another one waits for a slot, is dropped.
constexpr uint64_t kStallUs = 15'000'000;

Task<void> shut_down_later(SleepTimer& timer, Stream& stream, uint64_t after_us) {
  const int result = co_await timer.sleep_us(after_us);
  if (result == 0) stream.shut_down();
}

}  // namespace

NbdGate::NbdGate(Provider& provider, std::string export_name)
    : export_name_(std::move(export_name)), shared_{.provider = provider, .slot_wanted = {}} {
  HAST_ASSERT_OP(export_name_.size(), <=, nbd::kNameBytesMax);
  members_.reserve(kClientsMax + kHandshakesMax);
}

NbdGate::~NbdGate() {
  HAST_ASSERT(members_.empty());
  HAST_ASSERT(doors_.empty());
}

// ---- Doors -------------------------------------------------------------------------------------

void NbdGate::start_watching() {
  if (!watching_) scope_.spawn(watch_for_stalls());
  watching_ = true;
}

Task<void> NbdGate::serve(std::unique_ptr<Listener> listener) {
  start_watching();
  Door door{.listener = *listener, .pause = {}};
  doors_.push_back(&door);
  co_await accept_from(door);
  std::erase(doors_, &door);
  listener.reset();
  door_closed_.wake_all();
}

Task<void> NbdGate::accept_from(Door& door) {
  while (!closing_) {
    std::unique_ptr<Stream> stream;
    const int error = co_await door.listener.accept(stream);
    if (error == -ECANCELED) co_return;
    if (error != 0) {  // out of descriptors, for instance: the next one may succeed
      co_await door.pause.sleep_us(kAcceptPauseUs);
    } else if (!closing_) {
      make_way();
      scope_.spawn(host(std::move(stream)));
    }
  }
}

/// When too many are in the handshake, the one that has been for longest is closed: whoever says
/// nothing keeps nobody out.
void NbdGate::make_way() {
  std::size_t in_handshake = 0;
  for (const Member* member : members_) {
    in_handshake += member->connection == nullptr && !member->kernel;
  }
  if (in_handshake < kHandshakesMax) return;
  for (const Member* member : members_) {
    if (member->connection != nullptr || member->kernel) continue;
    member->stream.shut_down();
    return;
  }
}

void NbdGate::stop_admission() { shared_.admitting = false; }

Task<void> NbdGate::close() {
  stop_admission();
  closing_ = true;
  for (Door* door : doors_) {
    door->listener.close();
    door->pause.wake();
  }
  for (Member* member : members_) {
    if (member->connection != nullptr) member->connection->drop();
    member->stream.shut_down();
  }
  stall_timer_.wake();
  shared_.slot_wanted.wake_all();
  while (!doors_.empty() || kernel_is_served()) co_await door_closed_.wait();
  co_await scope_.join();
}

// ---- Clients -----------------------------------------------------------------------------------

Task<void> NbdGate::host(std::unique_ptr<Stream> stream) {
  Member member{.stream = *stream, .connected_us = Loop::current().now_us()};
  members_.push_back(&member);
  const nbd::Session session = co_await negotiate_in_time(*stream);
  if (session.agreed && client_count() < kClientsMax) co_await transmit(member, session);
  stream->shut_down();
  std::erase(members_, &member);
}

Task<void> NbdGate::serve_kernel(std::unique_ptr<Stream> stream) {
  start_watching();
  Member member{.stream = *stream, .connected_us = Loop::current().now_us(), .kernel = true};
  members_.push_back(&member);
  co_await transmit(member, {.agreed = true});
  std::erase(members_, &member);
  stream.reset();
  door_closed_.wake_all();
}

/// Until the client has gone.
Task<void> NbdGate::transmit(Member& member, nbd::Session session) {
  if (closing_) co_return;
  const std::unique_ptr<NbdConnection> connection(
      new NbdConnection(shared_, member.stream, session));
  member.connection = connection.get();
  co_await connection->run();
  member.connection = nullptr;
}

Task<nbd::Session> NbdGate::negotiate_in_time(Stream& stream) {
  Scope scope;
  SleepTimer deadline;
  scope.spawn(shut_down_later(deadline, stream, kHandshakeUs));
  const nbd::Export offered{.name = export_name_,
                            .size_bytes = shared_.provider.size_bytes(),
                            .block_bytes = shared_.provider.block_bytes(),
                            .can_trim = shared_.provider.can_trim()};
  const nbd::Session session = co_await nbd::negotiate(stream, offered);
  deadline.wake();
  co_await scope.join();
  co_return session;
}

std::vector<NbdClientInfo> NbdGate::clients() const {
  std::vector<NbdClientInfo> all;
  for (const Member* member : members_) {
    if (member->connection == nullptr || member->kernel) continue;
    all.push_back({member->stream.description(), member->connected_us});
  }
  return all;
}

std::size_t NbdGate::client_count() const {
  std::size_t count = 0;
  for (const Member* member : members_) {
    count += member->connection != nullptr && !member->kernel;
  }
  return count;
}

bool NbdGate::kernel_is_served() const {
  for (const Member* member : members_) {
    if (member->kernel) return true;
  }
  return false;
}

// ---- Clients that do not take their replies ----------------------------------------------------

/// Sleeps without a timer until somebody has to wait for a slot.
Task<void> NbdGate::watch_for_stalls() {
  while (!closing_) {
    const bool someone_waits = anyone_waits_since(Loop::current().now_us(), nullptr);
    if (someone_waits) {
      co_await stall_timer_.sleep_us(kStallUs);
      if (!closing_) drop_stalled();
    } else {
      co_await shared_.slot_wanted.wait();
    }
  }
}

bool NbdGate::anyone_waits_since(uint64_t us, const Member* except) const {
  for (const Member* member : members_) {
    if (member == except || member->connection == nullptr) continue;
    if (member->connection->waits_for_slot_since(us)) return true;
  }
  return false;
}

void NbdGate::drop_stalled() {
  const uint64_t since_us = Loop::current().now_us() - kStallUs;
  for (const Member* member : members_) {
    NbdConnection* connection = member->connection;
    // The kernel's would be missed: nobody gives it another one.
    if (connection == nullptr || member->kernel) continue;
    if (!connection->send_stalled_since(since_us)) continue;
    if (anyone_waits_since(since_us, member)) connection->drop();
  }
}

}  // namespace hast
