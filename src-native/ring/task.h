#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <type_traits>
#include <utility>

#include "base/assert.h"
#include "ring/loop.h"

/// The coroutine type of the core. Rules (docs/hacking.md, "Coroutines"): never a capturing lambda
/// as a coroutine, `co_await` stands alone, parameters by value or by reference to what outlives
/// the task, no coroutine is destroyed while suspended, no symmetric transfer.
namespace hast {

/// Frames come from per-thread free lists by size class; the heap is only asked while they grow.
void* task_frame_allocate(std::size_t size);
void task_frame_release(void* frame, std::size_t size);
/// Frames alive on this thread; 0 when everything has run to its end.
std::size_t task_frames_alive();

namespace detail {

/// Resumes the coroutine that waits for a task, from the ready queue.
struct Continuation : Completion {
  std::coroutine_handle<> handle;
  Continuation() {
    run = [](Completion& c) { static_cast<Continuation&>(c).handle.resume(); };
  }
};

struct PromiseBase {
  Continuation continuation;
  bool waited_for = false;  // a suspended parent must be put on the ready queue at the end

  static void* operator new(std::size_t size) { return task_frame_allocate(size); }
  static void operator delete(void* frame, std::size_t size) { task_frame_release(frame, size); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  struct Final {
    bool await_ready() noexcept { return false; }
    template <typename P>
    void await_suspend(std::coroutine_handle<P> handle) noexcept {
      PromiseBase& promise = handle.promise();
      if (promise.waited_for) Loop::current().ready(promise.continuation, 0);
    }
    void await_resume() noexcept {}
  };
  Final final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { std::abort(); }
};

template <typename T>
struct Promise : PromiseBase {
  T value{};
  std::coroutine_handle<Promise> get_return_object() {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  void return_value(T v) { value = std::move(v); }
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() {
    return std::coroutine_handle<Promise>::from_promise(*this);
  }
  void return_void() {}
};

}  // namespace detail

/// Lazy, move-only, awaited exactly once. Started by `co_await` or by `Scope::spawn`.
template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> parent) {
    detail::PromiseBase& promise = handle_.promise();
    promise.continuation.handle = parent;
    handle_.resume();
    if (handle_.done()) return false;
    promise.waited_for = true;
    return true;
  }
  T await_resume() {
    HAST_ASSERT(handle_.done());
    if constexpr (!std::is_void_v<T>) return std::move(handle_.promise().value);
  }

 private:
  friend class Scope;
  Handle handle_;
};

/// Base of every awaitable that is one completion. `Derived` provides `void submit()`.
template <typename Derived>
struct CompletionAwait : Completion {
  std::coroutine_handle<> handle;
  CompletionAwait() {
    run = [](Completion& c) { static_cast<CompletionAwait&>(c).handle.resume(); };
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    static_cast<Derived*>(this)->submit();
  }
  int await_resume() const noexcept { return result; }
};

/// One completion that a coroutine waits for later than it was submitted. `co_await signal` gives
/// its result, at once if it has come already.
struct Signal : Completion {
  bool done = false;
  std::coroutine_handle<> waiter;
  Signal() {
    run = [](Completion& c) {
      Signal& self = static_cast<Signal&>(c);
      self.done = true;
      if (self.waiter) self.waiter.resume();
    };
  }
  bool await_ready() const noexcept { return done; }
  void await_suspend(std::coroutine_handle<> h) { waiter = h; }
  int await_resume() const noexcept { return result; }
};

/// Waiters in the order in which they came. `co_await list.wait()` gives what the waker passed.
class WaitList {
 public:
  struct Wait : CompletionAwait<Wait> {
    WaitList& list;
    explicit Wait(WaitList& l) : list(l) {}
    void submit() { list.queue_.push(*this); }
  };
  Wait wait() { return Wait(*this); }
  bool empty() const { return queue_.empty(); }
  /// For a waiter that is no coroutine.
  void add(Completion& c) { queue_.push(c); }
  bool wake_one(int result = 0) {
    Completion* c = queue_.pop();
    if (c == nullptr) return false;
    Loop::current().ready(*c, result);
    return true;
  }
  void wake_all(int result = 0) {
    while (wake_one(result)) {
    }
  }

 private:
  CompletionQueue queue_;
};

/// A timer that one coroutine at a time sleeps on and that anybody may cancel.
struct SleepTimer : Timer {
  std::coroutine_handle<> handle;
  SleepTimer() {
    run = [](Completion& c) { static_cast<SleepTimer&>(c).handle.resume(); };
  }
  struct Await {
    SleepTimer& timer;
    uint64_t us;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) {
      timer.handle = h;
      Loop& loop = Loop::current();
      loop.start(timer, loop.now_us() + us);
    }
    int await_resume() const noexcept { return timer.result; }
  };
  Await sleep_us(uint64_t us) { return Await{*this, us}; }
  /// Ends a running sleep early; the sleeper sees -ECANCELED.
  void wake() { Loop::current().cancel(*this); }
};

/// Joins everything it has spawned. Must be empty when it is destroyed.
class Scope {
 public:
  Scope() = default;
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { HAST_ASSERT(running_ == 0); }

  /// Starts `task` now, in the caller's turn, and lets it run to its end.
  void spawn(Task<void> task);
  WaitList::Wait wait_for_change() { return waiters_.wait(); }
  Task<void> join();
  std::size_t running() const { return running_; }

 private:
  struct Detached {
    struct promise_type {
      static void* operator new(std::size_t size) { return task_frame_allocate(size); }
      static void operator delete(void* f, std::size_t size) { task_frame_release(f, size); }
      Detached get_return_object() { return {}; }
      std::suspend_never initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() {}
      void unhandled_exception() noexcept { std::abort(); }
    };
  };
  static Detached run(Scope& scope, Task<void> task);

  std::size_t running_ = 0;
  WaitList waiters_;
};

}  // namespace hast
