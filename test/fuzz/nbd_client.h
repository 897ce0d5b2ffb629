// A client of the NBD gate that says what it was given and keeps what it hears.

#pragma once

#include <memory>

#include "fuzz_input.h"
#include "ring/pipe_stream.h"
#include "ring/task.h"

namespace hast::fuzz {

/// The connection's number in the network; side 0 is the client's.
inline constexpr uint32_t kLink = 1;

class NbdClient {
 public:
  NbdClient(PipeNetwork& network, std::unique_ptr<Stream> stream)
      : network_(network), stream_(std::move(stream)) {}
  ~NbdClient() { HAST_ASSERT_OP(scope_.running(), ==, 0u); }

  /// Says all of it (the bytes must stay) and, if told so, that there will be no more.
  void start(ConstBytes bytes, bool end) {
    scope_.spawn(receive());
    scope_.spawn(send(bytes, end));
  }
  void vanish() { stream_->shut_down(); }

  Buffer inbox;
  bool all_sent = false;

 private:
  Task<void> receive() {
    Buffer piece(65536);
    for (;;) {
      const int result = co_await stream_->recv(piece);
      if (result <= 0) break;
      inbox.insert(inbox.end(), piece.begin(), piece.begin() + result);
    }
  }
  Task<void> send(ConstBytes bytes, bool end) {
    iovec part = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    int error = 0;
    if (!bytes.empty()) error = co_await send_all(*stream_, std::span<iovec>(&part, 1));
    all_sent = error == 0;
    if (all_sent && end) network_.cut_direction(kLink, 0);
  }

  PipeNetwork& network_;
  std::unique_ptr<Stream> stream_;
  Scope scope_;
};

}  // namespace hast::fuzz
