#include "ring/task.h"

#include <cerrno>
#include <vector>

#include "harness.h"
#include "ring/sim_loop.h"

namespace {

using hast::Loop;
using hast::Scope;
using hast::SimLoop;
using hast::SleepTimer;
using hast::Task;
using hast::Timer;
using hast::WaitList;

Task<int> add(int a, int b) { co_return a + b; }

Task<void> sum_up(int count, int& sum) {
  for (int i = 0; i < count; ++i) {
    const int next = co_await add(i, 1);
    sum += next;
  }
}

/// Becomes ready again at once, in the same turn.
struct Yield : hast::CompletionAwait<Yield> {
  void submit() { Loop::current().ready(*this, 7); }
};

Task<int> yield_once() {
  Yield yield;
  const int result = co_await yield;
  co_return result;
}

Task<void> yield_often(int count, int& turns) {
  for (int i = 0; i < count; ++i) {
    const int result = co_await yield_once();
    if (result == 7) ++turns;
  }
}

Task<void> wait_and_note(WaitList& list, int name, std::vector<int>& order) {
  const int result = co_await list.wait();
  order.push_back(name * 100 + result);
}

Task<void> sleep_and_note(SleepTimer& timer, uint64_t us, int& result) {
  result = co_await timer.sleep_us(us);
}

Task<void> join_and_note(Scope& scope, bool& joined) {
  co_await scope.join();
  joined = true;
}

struct NotingTimer : Timer {
  std::vector<int>* order = nullptr;
  int name = 0;
  NotingTimer(std::vector<int>& o, int n) : order(&o), name(n) {
    run = [](hast::Completion& c) {
      auto& timer = static_cast<NotingTimer&>(c);
      timer.order->push_back(timer.result == 0 ? timer.name : timer.result);
    };
  }
};

TEST(task, "awaits tasks that end at once, in order, without a turn") {
  SimLoop loop;
  int sum = 0;
  {
    Scope scope;
    scope.spawn(sum_up(100, sum));
    CHECK_EQ(scope.running(), 0u);
  }
  CHECK_EQ(sum, 5050);
  CHECK_EQ(hast::task_frames_alive(), 0u);
}

TEST(task, "is lazy: a task that nobody awaits does nothing and leaves nothing") {
  SimLoop loop;
  int sum = 0;
  {
    const Task<void> task = sum_up(3, sum);
    CHECK_EQ(hast::task_frames_alive(), 1u);
  }
  CHECK_EQ(sum, 0);
  CHECK_EQ(hast::task_frames_alive(), 0u);
}

TEST(task, "runs two million turns on one stack, whatever the optimisation") {
  SimLoop loop;
  int turns = 0;
  {
    Scope scope;
    scope.spawn(yield_often(2'000'000, turns));
    loop.run_until_idle();
    CHECK_EQ(scope.running(), 0u);
  }
  CHECK_EQ(turns, 2'000'000);
  CHECK_EQ(hast::task_frames_alive(), 0u);
}

TEST(task, "a wait list wakes first come, first served, and passes the result") {
  SimLoop loop;
  WaitList list;
  std::vector<int> order;
  Scope scope;
  for (int name = 1; name <= 3; ++name) scope.spawn(wait_and_note(list, name, order));
  CHECK(!list.empty());
  CHECK(list.wake_one(5));
  CHECK(order.empty());  // the waker goes on first
  loop.run_now();
  CHECK_EQ(order.size(), 1u);
  list.wake_all(6);
  loop.run_now();
  CHECK(order == std::vector<int>({105, 206, 306}));
  CHECK(!list.wake_one());
  CHECK_EQ(scope.running(), 0u);
}

TEST(task, "a scope joins what it has spawned, also what is spawned meanwhile") {
  SimLoop loop;
  {
    WaitList list;
    std::vector<int> order;
    Scope scope;
    Scope outer;
    bool joined = false;
    scope.spawn(wait_and_note(list, 1, order));
    outer.spawn(join_and_note(scope, joined));
    scope.spawn(wait_and_note(list, 2, order));
    list.wake_one();
    loop.run_now();
    CHECK(!joined);
    list.wake_one();
    loop.run_now();
    CHECK(joined);
  }
  CHECK_EQ(hast::task_frames_alive(), 0u);
}

TEST(task, "timers come due in order of time, equal ones in order of starting") {
  SimLoop loop;
  std::vector<int> order;
  NotingTimer a(order, 1);
  NotingTimer b(order, 2);
  NotingTimer c(order, 3);
  NotingTimer d(order, 4);
  const uint64_t now = loop.now_us();
  loop.start(a, now + 300);
  loop.start(b, now + 100);
  loop.start(c, now + 300);
  loop.start(d, now + 200);
  CHECK_EQ(loop.next_due_us(), now + 100);
  loop.advance(99);
  CHECK(order.empty());
  loop.advance(1);
  CHECK(order == std::vector<int>({2}));
  CHECK(loop.run_until_idle());
  CHECK(order == std::vector<int>({2, 4, 1, 3}));
  CHECK_EQ(loop.now_us(), now + 300);
}

TEST(task, "a cancelled timer runs once with ECANCELED, a dropped one never") {
  SimLoop loop;
  std::vector<int> order;
  NotingTimer a(order, 1);
  NotingTimer b(order, 2);
  loop.start(a, loop.now_us() + 10);
  loop.start(b, loop.now_us() + 10);
  loop.cancel(a);
  loop.cancel(a);
  loop.drop(b);
  loop.drop(b);
  CHECK(order.empty());
  CHECK(loop.run_until_idle());
  CHECK(order == std::vector<int>({-ECANCELED}));
  CHECK(!a.armed);
}

TEST(task, "a sleeper sleeps its time, and wakes early when it is told") {
  SimLoop loop;
  Scope scope;
  SleepTimer timer;
  int result = 1;
  const uint64_t start = loop.now_us();
  scope.spawn(sleep_and_note(timer, 5000, result));
  CHECK(loop.run_until_idle());
  CHECK_EQ(result, 0);
  CHECK_EQ(loop.now_us(), start + 5000);
  scope.spawn(sleep_and_note(timer, 5000, result));
  timer.wake();
  CHECK(loop.run_until_idle());
  CHECK_EQ(result, -ECANCELED);
  CHECK_EQ(loop.now_us(), start + 5000);
}

TEST(task, "run_until stops at its condition, at its limit and when nothing is left") {
  SimLoop loop;
  Scope scope;
  SleepTimer timer;
  int result = 1;
  scope.spawn(sleep_and_note(timer, 100, result));
  CHECK(!loop.run_until([&] { return result == 0; }, 50));
  CHECK(loop.run_until([&] { return result == 0; }, 100));
  CHECK(!loop.run_until([] { return false; }));
}

}  // namespace
