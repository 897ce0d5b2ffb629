#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gate/nbd_connection.h"
#include "gate/nbd_negotiation.h"
#include "gate/provider.h"
#include "ring/stream.h"
#include "ring/task.h"

namespace hast {

/// A client as people want to know it.
struct NbdClientInfo {
  std::string description;  ///< credentials or address, as its stream tells
  uint64_t connected_us = 0;
};

/// Serves a provider as an NBD export to any number of listeners' clients. Loop thread only.
///
/// Whatever one client does (garbage, half messages, vanishing, not reading its replies) never
/// reaches another one: each has its own coroutines and buffers, and a share of the slots.
///
/// End: `stop_admission`, then (when the engine has settled) `close`, which must have been awaited
/// before the gate is destroyed.
class NbdGate {
 public:
  /// The name clients may ask for; the empty one always means the same export.
  NbdGate(Provider& provider, std::string export_name);
  ~NbdGate();
  NbdGate(const NbdGate&) = delete;
  NbdGate& operator=(const NbdGate&) = delete;

  /// Accepts clients from `listener` until `close`. May run for several listeners at once.
  Task<void> serve(std::unique_ptr<Listener> listener);

  /// Serves the kernel's own client, which needs no handshake, until it or `close` ends that. It
  /// is the provider's device and nobody who holds it open: no client of those below.
  Task<void> serve_kernel(std::unique_ptr<Stream> stream);

  /// From now on every new request is answered ESHUTDOWN; what is with the engine goes on.
  void stop_admission();

  /// Stops listening, closes all connections, returns when every slot is back. Awaited once.
  Task<void> close();

  /// Clients past the handshake: each of them holds the export open.
  std::vector<NbdClientInfo> clients() const;
  std::size_t client_count() const;

 private:
  /// A client from its acceptance on; lives in the frame that serves it.
  struct Member {
    Stream& stream;
    NbdConnection* connection = nullptr;  // after the handshake
    uint64_t connected_us = 0;
    bool kernel = false;
  };
  /// A listener that is being served.
  struct Door {
    Listener& listener;
    SleepTimer pause;
  };

  Task<void> accept_from(Door& door);
  void make_way();
  Task<void> host(std::unique_ptr<Stream> stream);
  Task<void> transmit(Member& member, nbd::Session session);
  Task<nbd::Session> negotiate_in_time(Stream& stream);
  void start_watching();
  Task<void> watch_for_stalls();
  bool kernel_is_served() const;
  bool anyone_waits_since(uint64_t us, const Member* except) const;
  void drop_stalled();

  const std::string export_name_;
  NbdShared shared_;
  Scope scope_;
  std::vector<Member*> members_;
  std::vector<Door*> doors_;
  WaitList door_closed_;
  SleepTimer stall_timer_;
  bool watching_ = false;
  bool closing_ = false;
};

}  // namespace hast
