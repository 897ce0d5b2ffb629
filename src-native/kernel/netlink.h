#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"

/// Generic netlink, as far as the kernel's block drivers speak it: one request, its answer, no
/// state. The kernel carries a request out while it is sent, so nothing here waits.
namespace hast::kernel {

/// A request with its attributes, in the order in which they are put.
class GenericRequest {
 public:
  GenericRequest(uint16_t family, uint8_t command);

  void put(uint16_t type, ConstBytes value);
  void put_u32(uint16_t type, uint32_t value);
  void put_u64(uint16_t type, uint64_t value);
  /// With the NUL that ends it.
  void put_text(uint16_t type, std::string_view text);
  /// What is put until `close` of the returned place is inside.
  std::size_t open(uint16_t type);
  void close(std::size_t place);

  /// The whole message; the length in its header is right.
  ConstBytes bytes();

 private:
  std::vector<std::byte> bytes_;
};

/// The value of an attribute among `attributes`; empty when it is not there. Lengths that point
/// beyond the end are the end.
ConstBytes attribute_of(ConstBytes attributes, uint16_t type);

/// The attributes of the first answer to a request in what was received. Any number of messages,
/// cut anywhere, is taken.
struct GenericAnswer {
  ConstBytes attributes;  ///< points into what was received; empty without an answer
  bool ended = false;     ///< the kernel has said how it went
  int error = 0;          ///< errno; 0: it was carried out
};
GenericAnswer read_answer(ConstBytes received);

/// Sends a request and reads its answer. 0, or the errno with which the kernel refuses.
/// `answer` gets the answer's attributes.
int exchange(GenericRequest& request, std::vector<std::byte>& answer);

/// The number of a family; 0 with errno set to ENOENT where the kernel does not have it.
uint16_t family_of(std::string_view name);

}  // namespace hast::kernel
