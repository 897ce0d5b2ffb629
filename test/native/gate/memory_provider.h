// A provider without an engine: a disk in memory (or none at all) with slots, for the tests and the
// measurements of the gates. Answers late, out of order or with errors, as it is told.

#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/random.h"
#include "gate/provider.h"
#include "lazy_slab.h"
#include "ring/loop.h"

namespace hast::test {

struct MemoryProviderOptions {
  uint64_t size_bytes = 64u << 20;
  uint32_t block_bytes = 512;
  uint32_t slots = kRequestsMax;
  uint32_t slots_per_client = kRequestsPerClientMax;
  bool null = false;  ///< keeps nothing; reads give what is in the slot
  uint64_t delay_min_us = 0;
  uint64_t delay_max_us = 0;
  uint64_t seed = 1;
};

/// What was submitted, without the data.
struct Submitted {
  RequestOp op;
  bool fua;
  bool zeroes;
  uint64_t offset;
  uint64_t length;
};

class MemoryProvider final : public Provider {
 public:
  using Options = MemoryProviderOptions;

  explicit MemoryProvider(Options options)
      : options_(options),
        random_(options.seed),
        slots_(new Slot[options.slots]),
        memory_(std::size_t{options.slots} * kRequestBytesMax) {
    for (uint32_t i = 0; i < options.slots; ++i) {
      Slot& slot = slots_[i];
      slot.owner = this;
      slot.buffer = memory_.data() + std::size_t{i} * kRequestBytesMax;
      slot.run = [](Completion& c) { static_cast<Slot&>(c).owner->answer(static_cast<Slot&>(c)); };
      free_.push_back(&slot);
    }
    if (options.null) return;
    disk_memory_.emplace(options.size_bytes);
    disk = Bytes(disk_memory_->data(), options.size_bytes);
  }
  ~MemoryProvider() override { HAST_ASSERT_OP(free_.size(), ==, std::size_t{options_.slots}); }

  Bytes disk;                                  ///< all of it; empty when nothing is kept
  std::function<int(const Request&)> failure;  ///< errno for a request, 0 for none
  bool hold = false;                           ///< keeps answers back until `let_go`
  bool keep_log = false;
  std::vector<Submitted> log;
  bool trim = true;

  uint64_t size_bytes() const override { return options_.size_bytes; }
  uint32_t block_bytes() const override { return options_.block_bytes; }
  bool can_trim() const override { return trim; }

  Request* acquire(ProviderClient& client, Completion& waiter, Request** slot) override {
    if (!refusing_ && waiters_.empty() && may_have(client)) return give(client);
    if (refusing_) {
      Loop::current().ready(waiter, -ESHUTDOWN);
    } else {
      waiters_.push_back({&client, &waiter, slot});
      serve_waiters();
    }
    return nullptr;
  }

  void submit(Request& request) override {
    HAST_ASSERT(request.op == RequestOp::kFlush ||
                request.offset + request.length <= options_.size_bytes);
    HAST_ASSERT(request.op == RequestOp::kDelete || request.length <= kRequestBytesMax);
    HAST_ASSERT((request.offset | request.length) % options_.block_bytes == 0);
    if (keep_log) {
      log.push_back({request.op, request.fua, request.zeroes, request.offset, request.length});
    }
    ++submitted_;
    request.error = failure ? failure(request) : 0;
    if (request.error == 0 && !options_.null) carry_out(request);
    if (hold) {
      held_.push_back(&slot_of(request));
    } else {
      answer_later(slot_of(request));
    }
  }

  void release(Request& request) override {
    HAST_ASSERT(request.client != nullptr && request.client->slots_held > 0);
    --request.client->slots_held;
    request.client = nullptr;
    free_.push_back(&request);
    if (!waiters_.empty()) serve_waiters();
  }

  void leave(ProviderClient& client) override { HAST_ASSERT(client.slots_held == 0); }

  /// Answers what was held back, the latest first.
  void let_go() {
    hold = false;
    while (!held_.empty()) {
      answer_later(*held_.back());
      held_.pop_back();
    }
  }
  std::size_t held() const { return held_.size(); }

  /// From now on slots are refused.
  void refuse() {
    refusing_ = true;
    for (const Waiter& waiter : waiters_) Loop::current().ready(*waiter.completion, -ESHUTDOWN);
    waiters_.clear();
  }

  std::size_t slots_out() const { return options_.slots - free_.size(); }
  std::size_t waiting() const { return waiters_.size(); }
  uint64_t submitted() const { return submitted_; }

 private:
  struct Slot : Request, Timer {
    MemoryProvider* owner = nullptr;
  };
  struct Waiter {
    ProviderClient* client;
    Completion* completion;
    Request** slot;
  };

  static Slot& slot_of(Request& request) { return static_cast<Slot&>(request); }
  bool may_have(const ProviderClient& client) const {
    return !free_.empty() && client.slots_held < options_.slots_per_client;
  }
  Request* give(ProviderClient& client) {
    Request* request = free_.back();
    free_.pop_back();
    request->client = &client;
    ++client.slots_held;
    return request;
  }
  /// First come, first served, but nobody waits behind a client that has its share.
  void serve_waiters() {
    for (auto waiter = waiters_.begin(); waiter != waiters_.end() && !free_.empty();) {
      if (!may_have(*waiter->client)) {
        ++waiter;
        continue;
      }
      *waiter->slot = give(*waiter->client);
      Loop::current().ready(*waiter->completion, 0);
      waiter = waiters_.erase(waiter);
    }
  }

  void carry_out(Request& request) {
    std::byte* at = disk.data() + request.offset;
    switch (request.op) {
      case RequestOp::kRead:
        std::memcpy(request.buffer, at, request.length);
        break;
      case RequestOp::kWrite:
        std::memcpy(at, request.buffer, request.length);
        break;
      case RequestOp::kDelete:
        std::memset(at, 0, request.length);
        break;
      case RequestOp::kFlush:
        break;
    }
  }

  void answer_later(Slot& slot) {
    Loop& loop = Loop::current();
    if (options_.delay_max_us == 0) {
      answer(slot);
    } else {
      const uint64_t delay_us = random_.between(options_.delay_min_us, options_.delay_max_us);
      loop.start(slot, loop.now_us() + delay_us);
    }
  }
  void answer(Slot& slot) { Loop::current().ready(*slot.Request::answered, 0); }

  const Options options_;
  Random random_;
  std::unique_ptr<Slot[]> slots_;
  LazySlab memory_;
  std::optional<LazySlab> disk_memory_;
  std::vector<Request*> free_;
  std::deque<Waiter> waiters_;
  std::vector<Slot*> held_;
  uint64_t submitted_ = 0;
  bool refusing_ = false;
};

}  // namespace hast::test
