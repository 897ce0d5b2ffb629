#include "ring/sim_loop.h"

#include <algorithm>

namespace hast {

SimLoop::~SimLoop() = default;

SimLoop::SimLoop() {
  for (Party& party : parties_) {
    party.thaws.party = kNobody;
    party.thaws.loop = this;
    party.thaws.of = &party;
    party.thaws.run = [](Completion& c) {
      Thaw& thaw = static_cast<Thaw&>(c);
      thaw.loop->release(*thaw.of);
    };
  }
}

void SimLoop::freeze(uint8_t party, uint64_t us, bool timers_first) {
  Party& frozen = parties_[party - 1];
  if (frozen.is_frozen) return;
  frozen.is_frozen = true;
  frozen.timers_first = timers_first;
  start(frozen.thaws, now_us_ + us);
}

void SimLoop::thaw(uint8_t party) {
  Party& frozen = parties_[party - 1];
  if (!frozen.thaws.armed) return;  // it is not frozen, or about to thaw
  drop(frozen.thaws);
  release(frozen);
}

void SimLoop::release(Party& party) {
  party.is_frozen = false;
  CompletionQueue& first = party.timers_first ? party.due : party.completed;
  CompletionQueue& second = party.timers_first ? party.completed : party.due;
  for (CompletionQueue* queue : {&first, &second}) {
    while (Completion* c = queue->pop()) ready_.push(*c);
  }
}

bool SimLoop::held_back(Completion& c) {
  if (c.party == 0 || c.party > kParties || !parties_[c.party - 1].is_frozen) return false;
  Party& party = parties_[c.party - 1];
  (c.claimed ? party.completed : party.due).push(c);
  return true;
}

bool SimLoop::run_one() {
  Completion* c = ready_.pop();
  while (c != nullptr && held_back(*c)) c = ready_.pop();
  if (c == nullptr) return false;
  const As as(*this, c->party);
  c->run(*c);
  return true;
}

void SimLoop::run_ready() {
  while (run_one()) {
  }
}

void SimLoop::run_now() {
  expire_timers();
  while (has_ready()) {
    run_ready();
    expire_timers();
  }
}

bool SimLoop::step() {
  const uint64_t due_us = next_due_us();
  if (due_us == UINT64_MAX) return false;
  now_us_ = std::max(now_us_, due_us);
  run_now();
  return true;
}

void SimLoop::run_events(uint64_t count) {
  for (; count > 0; --count) {
    expire_timers();
    if (run_one()) continue;
    const uint64_t due_us = next_due_us();
    if (due_us == UINT64_MAX) return;
    now_us_ = std::max(now_us_, due_us);
  }
}

bool SimLoop::run_until_idle(uint64_t turns_max) {
  run_now();
  for (uint64_t turn = 0; turn < turns_max; ++turn) {
    if (!step()) return true;
  }
  return false;
}

void SimLoop::advance(uint64_t us) {
  const uint64_t end_us = now_us_ + us;
  run_now();
  while (next_due_us() <= end_us) step();
  now_us_ = end_us;
  run_now();
}

}  // namespace hast
