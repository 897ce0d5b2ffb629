#include "kernel/netlink.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace hast::kernel {

namespace {

constexpr std::size_t kAnswerBytesMax = 8192;
constexpr std::size_t kHeaderBytes = NLMSG_HDRLEN + GENL_HDRLEN;

std::size_t aligned(std::size_t size) { return NLMSG_ALIGN(size); }

template <typename T>
T load(ConstBytes from) {
  T value{};
  std::memcpy(&value, from.data(), std::min(from.size(), sizeof value));
  return value;
}

}  // namespace

GenericRequest::GenericRequest(uint16_t family, uint8_t command) : bytes_(kHeaderBytes) {
  nlmsghdr head{};
  head.nlmsg_type = family;
  head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  genlmsghdr generic{};
  generic.cmd = command;
  generic.version = 1;
  std::memcpy(bytes_.data(), &head, sizeof head);
  std::memcpy(bytes_.data() + NLMSG_HDRLEN, &generic, sizeof generic);
}

void GenericRequest::put(uint16_t type, ConstBytes value) {
  nlattr head{};
  head.nla_len = static_cast<uint16_t>(NLA_HDRLEN + value.size());
  head.nla_type = type;
  const std::size_t at = bytes_.size();
  bytes_.resize(at + aligned(head.nla_len));
  std::memcpy(bytes_.data() + at, &head, sizeof head);
  if (!value.empty()) std::memcpy(bytes_.data() + at + NLA_HDRLEN, value.data(), value.size());
}

void GenericRequest::put_u32(uint16_t type, uint32_t value) {
  put(type, std::as_bytes(std::span(&value, 1)));
}

void GenericRequest::put_u64(uint16_t type, uint64_t value) {
  put(type, std::as_bytes(std::span(&value, 1)));
}

void GenericRequest::put_text(uint16_t type, std::string_view text) {
  std::vector<std::byte> value(text.size() + 1);
  std::memcpy(value.data(), text.data(), text.size());
  put(type, value);
}

std::size_t GenericRequest::open(uint16_t type) {
  const std::size_t place = bytes_.size();
  put(static_cast<uint16_t>(type | NLA_F_NESTED), {});
  return place;
}

void GenericRequest::close(std::size_t place) {
  const auto size = static_cast<uint16_t>(bytes_.size() - place);
  std::memcpy(bytes_.data() + place + offsetof(nlattr, nla_len), &size, sizeof size);
}

ConstBytes GenericRequest::bytes() {
  const auto size = static_cast<uint32_t>(bytes_.size());
  std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &size, sizeof size);
  return bytes_;
}

ConstBytes attribute_of(ConstBytes attributes, uint16_t type) {
  while (attributes.size() >= sizeof(nlattr)) {
    const auto head = load<nlattr>(attributes);
    const std::size_t size = std::min<std::size_t>(head.nla_len, attributes.size());
    if (size < NLA_HDRLEN) return {};
    if ((head.nla_type & NLA_TYPE_MASK) == type) {
      return attributes.subspan(NLA_HDRLEN, size - NLA_HDRLEN);
    }
    attributes = attributes.subspan(std::min(aligned(size), attributes.size()));
  }
  return {};
}

GenericAnswer read_answer(ConstBytes received) {
  GenericAnswer answer;
  while (received.size() >= sizeof(nlmsghdr)) {
    const auto head = load<nlmsghdr>(received);
    const std::size_t size = std::min<std::size_t>(head.nlmsg_len, received.size());
    if (size < sizeof(nlmsghdr)) return answer;
    if (head.nlmsg_type == NLMSG_ERROR) {
      answer.ended = true;
      answer.error = -load<nlmsgerr>(received.subspan(NLMSG_HDRLEN, size - NLMSG_HDRLEN)).error;
      return answer;
    }
    if (size >= kHeaderBytes && answer.attributes.empty()) {
      answer.attributes = received.subspan(kHeaderBytes, size - kHeaderBytes);
    }
    received = received.subspan(std::min(aligned(size), received.size()));
  }
  return answer;
}

int exchange(GenericRequest& request, std::vector<std::byte>& answer) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return errno;
  const ConstBytes bytes = request.bytes();
  std::vector<std::byte> received(kAnswerBytesMax);
  std::size_t got = 0;
  GenericAnswer read;
  int error = send(fd, bytes.data(), bytes.size(), 0) < 0 ? errno : 0;
  while (error == 0 && !read.ended) {
    // Answers are there when the request has been sent.
    const ssize_t more = recv(fd, received.data() + got, received.size() - got, MSG_DONTWAIT);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) {
      error = more < 0 ? errno : EPROTO;
      break;
    }
    got += static_cast<std::size_t>(more);
    read = read_answer(ConstBytes(received).first(got));
  }
  close(fd);
  answer.assign(read.attributes.begin(), read.attributes.end());
  return error != 0 ? error : read.error;
}

uint16_t family_of(std::string_view name) {
  GenericRequest request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
  request.put_text(CTRL_ATTR_FAMILY_NAME, name);
  std::vector<std::byte> answer;
  const int error = exchange(request, answer);
  const ConstBytes id = attribute_of(answer, CTRL_ATTR_FAMILY_ID);
  if (error == 0 && id.size() >= sizeof(uint16_t)) return load<uint16_t>(id);
  errno = error == 0 ? ENOENT : error;
  return 0;
}

}  // namespace hast::kernel
