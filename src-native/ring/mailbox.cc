#include "ring/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "base/assert.h"

namespace hast {

Wakeup::~Wakeup() {
  HAST_ASSERT(stopped());
  if (fd_ >= 0) ::close(fd_);
}

int Wakeup::start(std::function<void()> woken) {
  HAST_ASSERT_OP(fd_, ==, -1);
  fd_ = eventfd(0, EFD_CLOEXEC);
  if (fd_ < 0) return -errno;
  woken_ = std::move(woken);
  read_.owner = this;
  read_.run = [](Completion& c) { static_cast<Read&>(c).owner->completed(); };
  submit();
  return 0;
}

void Wakeup::wake() {
  const uint64_t one = 1;
  const ssize_t written = ::write(fd_, &one, sizeof one);
  HAST_ASSERT_OP(written, ==, static_cast<ssize_t>(sizeof one));
}

void Wakeup::stop() {
  if (stopping_ || fd_ < 0) return;
  stopping_ = true;
  ring_.cancel(read_);
}

void Wakeup::submit() {
  read_.outstanding = true;
  ring_.read(read_, fd_, 0, std::span(count_));
}

void Wakeup::completed() {
  read_.outstanding = false;
  if (stopping_) return;
  woken_();
  // The callback may have stopped us.
  if (!stopping_) submit();
}

}  // namespace hast
