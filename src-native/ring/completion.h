#pragma once

#include <cstdint>

namespace hast {

/// One thing that will be finished later: an operation of the ring, a timer, a waiter in a list.
///
/// Owned by whoever waits; must outlive the operation. `run` is called exactly once per submission,
/// on the loop thread, from the ready queue (never from inside a submission or a harvest).
struct Completion {
  void (*run)(Completion&) = nullptr;
  int result = 0;              ///< bytes or 0 on success, -errno on failure; set before `run`
  uint8_t party = 0;           ///< in simulations: whose it is, from its first use on
  bool claimed = false;        ///< there, too: somebody else completes it
  Completion* next = nullptr;  ///< link of the queue that holds it; at most one at a time
};

/// First come, first served list of completions. Holds no memory of its own.
class CompletionQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  void push(Completion& c) {
    c.next = nullptr;
    if (tail_ == nullptr) {
      head_ = &c;
    } else {
      tail_->next = &c;
    }
    tail_ = &c;
  }
  Completion* pop() {
    Completion* c = head_;
    if (c != nullptr) {
      head_ = c->next;
      if (head_ == nullptr) tail_ = nullptr;
      c->next = nullptr;
    }
    return c;
  }

 private:
  Completion* head_ = nullptr;
  Completion* tail_ = nullptr;
};

}  // namespace hast
