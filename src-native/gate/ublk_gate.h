#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gate/provider.h"
#include "gate/ublk_channel.h"
#include "ring/task.h"

namespace hast {

/// Serves a provider as a device of the kernel's ublk driver. Loop thread only.
///
/// A WRITE's data is copied from the kernel into its slot before anybody sees it, READ data back
/// from the slot; the driver sends nothing that does not fit one.
///
/// End: `stop_admission`, then (when the engine has settled) `close`, which must have been awaited
/// before the provider goes. The gate itself must outlive the loop, since the driver does.
class UblkGate {
 public:
  UblkGate(Provider& provider, std::unique_ptr<UblkChannel> channel);
  UblkGate(const UblkGate&) = delete;
  UblkGate& operator=(const UblkGate&) = delete;

  /// From now on the driver has a server.
  void start();

  /// From now on every new request is answered ESHUTDOWN; what is with the engine goes on.
  void stop_admission();

  /// Returns when every slot is back. Requests that come later are left to the next server, or to
  /// the end of the device. Awaited once.
  Task<void> close();

 private:
  /// One place for a request: being fetched, waiting for a slot, or with the engine.
  struct Tag : Completion {
    UblkGate* gate = nullptr;
    uint32_t number = 0;
    Request* slot = nullptr;
  };
  struct SlotWait : Completion {
    UblkGate* gate = nullptr;
    Request* slot = nullptr;
    bool waiting = false;
  };

  static Tag& tag_of(Completion& c) { return static_cast<Tag&>(c); }
  static void on_request(Completion& c);
  static void on_slot(Completion& c);
  static void on_answer(Completion& c);

  void begin(Tag& tag);
  void seat_all();
  void seat(Tag& tag, Request& slot);
  void submit(Tag& tag, const UblkRequest& from);
  void end(Tag& tag, int32_t result);
  int check(const UblkRequest& request) const;

  Provider& provider_;
  const std::unique_ptr<UblkChannel> channel_;
  ProviderClient holder_;
  std::vector<Tag> tags_;
  CompletionQueue waiting_;  // tags whose requests have no slot yet
  Tag* first_ = nullptr;     // the one of them whose turn it is
  SlotWait slot_wait_;
  uint32_t busy_ = 0;  // requests that are not committed
  bool admitting_ = true;
  bool closing_ = false;
  WaitList idle_;
};

}  // namespace hast
