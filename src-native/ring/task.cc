#include "ring/task.h"

#include <cstdint>
#include <new>

namespace hast {

namespace {

constexpr std::size_t kClassBytes = 64;
constexpr std::size_t kClasses = 64;  // frames up to 4 KiB are pooled, larger ones are not

struct FreeFrame {
  FreeFrame* next;
};

/// Frames go back to the heap when the thread ends.
struct FramePool {
  FreeFrame* free[kClasses] = {};
  std::size_t alive = 0;
  ~FramePool() {
    for (FreeFrame*& list : free) {
      while (list != nullptr) {
        FreeFrame* next = list->next;
        ::operator delete(list);
        list = next;
      }
    }
  }
};

thread_local FramePool pool;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooled = false;  // let the sanitizer see each frame
#else
constexpr bool kPooled = true;
#endif

}  // namespace

void* task_frame_allocate(std::size_t size) {
  ++pool.alive;
  const std::size_t index = (size + kClassBytes - 1) / kClassBytes;
  if (!kPooled || index >= kClasses) return ::operator new(size);
  FreeFrame*& list = pool.free[index];
  if (list != nullptr) {
    FreeFrame* frame = list;
    list = frame->next;
    return frame;
  }
  return ::operator new(index* kClassBytes);
}

void task_frame_release(void* frame, std::size_t size) {
  HAST_ASSERT(pool.alive > 0);
  --pool.alive;
  const std::size_t index = (size + kClassBytes - 1) / kClassBytes;
  if (!kPooled || index >= kClasses) {
    ::operator delete(frame);
    return;
  }
  FreeFrame* free = static_cast<FreeFrame*>(frame);
  free->next = pool.free[index];
  pool.free[index] = free;
}

std::size_t task_frames_alive() { return pool.alive; }

Scope::Detached Scope::run(Scope& scope, Task<void> task) {
  co_await task;
  HAST_ASSERT(scope.running_ > 0);
  --scope.running_;
  scope.waiters_.wake_all();
}

void Scope::spawn(Task<void> task) {
  ++running_;
  run(*this, std::move(task));
}

Task<void> Scope::join() {
  while (running_ > 0) co_await waiters_.wait();
}

}  // namespace hast
