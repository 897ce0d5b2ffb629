#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "base/trace.h"
#include "ring/loop.h"
#include "ring/stream.h"

namespace hast {

class PipeStream;
class PipeListener;

/// How the links of a `PipeNetwork` behave from now on.
struct PipeOptions {
  uint32_t capacity_bytes = 65536;  ///< sent and not yet received, per direction
  uint64_t delay_min_us = 0;
  uint64_t delay_max_us = 0;
  bool partial = false;    ///< sends and receives take random shorter pieces
  uint32_t stillborn = 0;  ///< so many of the next connections are accepted, and then dead
};

/// An in-memory network for tests and the simulator, on any loop.
///
/// Streams come in pairs, directly or by `connect` to a `PipeListener`. A pair carries a `link`
/// number of the caller's choice, by which faults are injected; side 0 is the connecting one.
/// Must outlive its streams and listeners; loop thread only. One seed, one behaviour.
class PipeNetwork {
 public:
  PipeNetwork(Loop& loop, uint64_t seed);
  ~PipeNetwork();
  PipeNetwork(const PipeNetwork&) = delete;
  PipeNetwork& operator=(const PipeNetwork&) = delete;

  PipeOptions options;
  Trace* trace = nullptr;      ///< everything that arrives is noted there
  uint64_t carried_bytes = 0;  ///< given to any connection so far

  /// Side 0 and side 1 of a new connection.
  std::pair<std::unique_ptr<PipeStream>, std::unique_ptr<PipeStream>> make_pair(uint32_t link = 0);

  std::unique_ptr<PipeListener> listen(const std::string& address);
  /// 0 and `connected` set; -ECONNREFUSED when nobody listens; -ETIMEDOUT after `timeout_us` when
  /// the link is silent or the backlog is full; -ECANCELED when `timer`, of which one dial makes
  /// use at a time, is woken.
  Task<int> connect(std::string address, uint32_t link, uint64_t timeout_us, SleepTimer& timer,
                    std::unique_ptr<Stream>& connected);
  Task<int> connect(std::string address, uint32_t link, uint64_t timeout_us,
                    std::unique_ptr<Stream>& connected);

  /// Breaks every connection of the link: both sides see -ECONNRESET at once, undelivered bytes
  /// are lost. New connections are possible.
  void cut(uint32_t link);
  /// Ends one direction: what `side` has sent still arrives, then the other side sees the end of
  /// the stream; further sends of `side` give -EPIPE.
  void cut_direction(uint32_t link, int side);
  /// What `side` sends from now on vanishes (also ends of streams and new connections), until it
  /// is set to false; what vanished is not repeated, so such a link is only good for a `cut`.
  void silence(uint32_t link, int side, bool silent);

  /// The machine of `side` is gone: its streams end, and the other side hears nothing, ever.
  void vanish(uint32_t link, int side);
  /// The machine is there again, and knows nothing of the connections it had: it says so to whoever
  /// sends on one of them.
  void reappear(uint32_t link);

  std::size_t streams_alive() const { return streams_.size(); }

 private:
  friend class PipeStream;
  friend class PipeListener;

  /// Something that reaches a stream later.
  struct Arrival {
    uint64_t from;  // ids of streams, which may be gone
    uint64_t to;
    std::vector<std::byte> bytes;  // empty: the end of the stream
    int reset = 0;                 // -errno: the connection is gone
  };
  struct Tick : Timer {
    PipeNetwork* owner = nullptr;
  };

  PipeStream* find(uint64_t id) const;
  void answer_reset(const Arrival& arrival);
  bool is_silent(uint32_t link, int side) const;
  uint64_t random_delay();
  void schedule(uint64_t due_us, Arrival arrival);
  void set_tick();
  void deliver();
  std::size_t piece(std::size_t size);

  Loop& loop_;
  Random random_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, PipeStream*> streams_;  // by id
  std::map<std::string, PipeListener*> listeners_;
  std::map<std::pair<uint32_t, int>, bool> silent_;
  std::multimap<uint64_t, Arrival> arrivals_;  // by due time, then in order of insertion
  Tick tick_;
  bool tick_pending_ = false;  // armed, or due and in the ready queue
};

/// One side of an in-memory connection.
class PipeStream final : public Stream {
 public:
  ~PipeStream() override;

  void submit_recv(Completion& done, Bytes into) override;
  void submit_send(Completion& done, std::span<const iovec> parts) override;
  void shut_down() override;

  uint32_t link() const { return link_; }

 private:
  friend class PipeNetwork;
  PipeStream(PipeNetwork& network, uint32_t link, int side);

  void arrived(PipeNetwork::Arrival& arrival);
  void break_off(int error);
  void end_connection();
  void end_sending();
  void transmit(std::vector<std::byte> bytes, int reset);
  void try_recv();
  void try_send();
  std::vector<std::byte> gather(std::size_t size) const;

  PipeNetwork& network_;
  const uint32_t link_;
  const int side_;
  const uint64_t id_;
  uint64_t peer_id_ = 0;

  std::size_t unread() const { return inbox_.size() - inbox_begin_; }
  void clear_inbox();

  std::vector<std::byte> inbox_;
  std::size_t inbox_begin_ = 0;  // what is before was received
  bool inbox_ended_ = false;
  int error_ = 0;  // the connection is gone: what every later operation gives
  bool sending_ended_ = false;
  bool is_shut_down_ = false;
  bool vanished_ = false;      // so is one of the two machines
  bool dead_ = false;          // nothing that is sent arrives, and nobody is told
  uint64_t unread_bytes_ = 0;  // sent by us and not yet received by the peer
  uint64_t last_due_us_ = 0;   // arrivals keep their order

  Completion* recv_done_ = nullptr;
  Bytes recv_into_;
  Completion* send_done_ = nullptr;
  std::span<const iovec> send_parts_;
};

/// Accepts what `PipeNetwork::connect` sends to its address.
class PipeListener final : public Listener {
 public:
  ~PipeListener() override;

  void submit_accept(Completion& done, std::unique_ptr<Stream>& accepted) override;
  void close() override;

 private:
  friend class PipeNetwork;
  static constexpr std::size_t kBacklogMax = 16;

  PipeListener(PipeNetwork& network, std::string address);
  bool is_full() const { return backlog_.size() >= kBacklogMax; }
  void offer(std::unique_ptr<Stream> stream);
  void try_accept();

  PipeNetwork& network_;
  const std::string address_;
  bool closed_ = false;
  std::deque<std::unique_ptr<Stream>> backlog_;
  Completion* accept_done_ = nullptr;
  std::unique_ptr<Stream>* accepted_ = nullptr;
};

}  // namespace hast
