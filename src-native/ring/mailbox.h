#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "ring/ring.h"

namespace hast {

/// Wakes the loop from another thread: an eventfd that the ring reads.
///
/// `wake` from any thread; everything else on the loop thread. Must be stopped, and the loop run
/// until `stopped()`, before it is destroyed.
class Wakeup {
 public:
  explicit Wakeup(Ring& ring) : ring_(ring) {}
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  /// 0 or -errno. Then `woken` runs on the loop once or more after every `wake`.
  int start(std::function<void()> woken);
  void wake();
  void stop();
  bool stopped() const { return !read_.outstanding; }

 private:
  struct Read : Completion {
    Wakeup* owner = nullptr;
    bool outstanding = false;
  };
  void submit();
  void completed();

  Ring& ring_;
  int fd_ = -1;
  bool stopping_ = false;
  std::byte count_[8] = {};
  Read read_;
  std::function<void()> woken_;
};

/// A bounded queue of commands from other threads to the loop.
///
/// `post` from any thread; everything else on the loop thread. `take` runs on the loop for each
/// command in the order of posting. Every command whose `post` was true is delivered, at the latest
/// from inside `stop`.
template <typename Command>
class Mailbox {
 public:
  Mailbox(Ring& ring, std::size_t capacity) : capacity_(capacity), wakeup_(ring) {
    queue_.reserve(capacity);
    taken_.reserve(capacity);
  }

  /// 0 or -errno.
  int start(std::function<void(Command&&)> take) {
    take_ = std::move(take);
    const int error = wakeup_.start([this] { drain(); });
    if (error == 0) {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    return error;
  }

  /// False when the mailbox is full or not open; the command is then left alone.
  bool post(Command&& command) {
    // The wake happens under the lock so that `stop` cannot close the descriptor in between.
    const std::lock_guard lock(mutex_);
    if (!open_ || queue_.size() >= capacity_) return false;
    queue_.push_back(std::move(command));
    if (queue_.size() == 1) wakeup_.wake();
    return true;
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      open_ = false;
    }
    drain();
    wakeup_.stop();
  }
  bool stopped() const { return wakeup_.stopped(); }

 private:
  void drain() {
    if (draining_) return;  // `take` has called `stop`: the loop below goes on
    draining_ = true;
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        queue_.swap(taken_);
      }
      if (taken_.empty()) break;
      for (Command& command : taken_) take_(std::move(command));
      taken_.clear();
    }
    draining_ = false;
  }

  const std::size_t capacity_;
  Wakeup wakeup_;
  std::function<void(Command&&)> take_;
  std::vector<Command> taken_;
  bool draining_ = false;

  std::mutex mutex_;
  std::vector<Command> queue_;  // guarded by mutex_
  bool open_ = false;           // guarded by mutex_
};

}  // namespace hast
