#include "kernel/netlink.h"

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "harness.h"

namespace hast::test {
namespace {

using kernel::attribute_of;
using kernel::GenericAnswer;
using kernel::GenericRequest;
using kernel::read_answer;

constexpr std::size_t kHeader = NLMSG_HDRLEN + GENL_HDRLEN;

/// What the kernel says at the end.
std::vector<std::byte> verdict(int error) {
  struct {
    nlmsghdr head;
    nlmsgerr body;
  } message{};
  message.head.nlmsg_len = sizeof message;
  message.head.nlmsg_type = NLMSG_ERROR;
  message.body.error = -error;
  const auto bytes = std::as_bytes(std::span(&message, 1));
  return {bytes.begin(), bytes.end()};
}

uint32_t u32(ConstBytes from) {
  uint32_t value = 0;
  if (from.size() == sizeof value) std::memcpy(&value, from.data(), sizeof value);
  return value;
}

}  // namespace

TEST(netlink, "attributes are found again, nested ones too") {
  GenericRequest request(30, 1);
  request.put_text(4, "hastd data");
  const std::size_t list = request.open(7);
  const std::size_t item = request.open(1);
  request.put_u32(1, 42);
  request.close(item);
  request.close(list);
  request.put_u64(2, 7);
  const ConstBytes all = request.bytes();
  nlmsghdr head{};
  std::memcpy(&head, all.data(), sizeof head);
  CHECK_EQ(head.nlmsg_len, all.size());
  CHECK_EQ(head.nlmsg_type, 30);
  const ConstBytes attributes = all.subspan(kHeader);
  const ConstBytes text = attribute_of(attributes, 4);
  CHECK_EQ(std::string(reinterpret_cast<const char*>(text.data())), "hastd data");
  CHECK_EQ(u32(attribute_of(attribute_of(attribute_of(attributes, 7), 1), 1)), 42u);
  CHECK_EQ(attribute_of(attributes, 2).size(), sizeof(uint64_t));
  CHECK(attribute_of(attributes, 3).empty());
}

TEST(netlink, "an answer and how it went are read from what was received in pieces") {
  GenericRequest answer(30, 1);
  answer.put_u32(1, 5);
  const ConstBytes first = answer.bytes();
  std::vector<std::byte> received(first.begin(), first.end());
  CHECK(!read_answer(received).ended);
  for (const int error : {0, EBUSY}) {
    std::vector<std::byte> both = received;
    const std::vector<std::byte> end = verdict(error);
    both.insert(both.end(), end.begin(), end.end());
    const GenericAnswer read = read_answer(both);
    CHECK(read.ended);
    CHECK_EQ(read.error, error);
    CHECK_EQ(u32(attribute_of(read.attributes, 1)), 5u);
  }
}

TEST(netlink, "whatever the kernel says, nothing is read beyond it") {
  GenericRequest answer(30, 1);
  answer.put_text(9, "a text");
  answer.put_u32(1, 5);
  const ConstBytes whole = answer.bytes();
  std::vector<std::byte> bytes(whole.begin(), whole.end());
  const std::vector<std::byte> end = verdict(EINVAL);
  bytes.insert(bytes.end(), end.begin(), end.end());
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    const std::vector<std::byte> part(bytes.begin(),
                                      bytes.begin() + static_cast<std::ptrdiff_t>(size));
    attribute_of(read_answer(part).attributes, 1);
  }
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (const int value : {0, 1, 3, 255}) {
      std::vector<std::byte> wrong = bytes;
      wrong[at] = static_cast<std::byte>(value);
      attribute_of(read_answer(wrong).attributes, 1);
    }
  }
}

TEST(netlink, "a family that the kernel does not have is none") {
  CHECK_EQ(kernel::family_of("no such family"), 0);
}

}  // namespace hast::test
