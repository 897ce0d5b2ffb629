#include "ring/stream.h"

#include <cerrno>

namespace hast {

Task<int> recv_exact(Stream& stream, Bytes into) {
  while (!into.empty()) {
    const int got = co_await stream.recv(into);
    if (got == 0) co_return -ECONNRESET;
    if (got < 0) co_return got;
    into = into.subspan(static_cast<std::size_t>(got));
  }
  co_return 0;
}

Task<int> send_all(Stream& stream, std::span<iovec> parts) {
  while (!parts.empty()) {
    const int sent = co_await stream.send(parts);
    if (sent < 0) co_return sent;
    std::size_t left = static_cast<std::size_t>(sent);
    while (!parts.empty() && left >= parts.front().iov_len) {
      left -= parts.front().iov_len;
      parts = parts.subspan(1);
    }
    if (!parts.empty()) {
      iovec& part = parts.front();
      part.iov_base = static_cast<std::byte*>(part.iov_base) + left;
      part.iov_len -= left;
    }
  }
  co_return 0;
}

}  // namespace hast
