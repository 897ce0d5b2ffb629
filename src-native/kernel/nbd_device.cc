#include "kernel/nbd_device.h"

#include <linux/nbd-netlink.h>
#include <linux/nbd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "kernel/netlink.h"

namespace hast::kernel {

namespace {

// What the headers of older kernels do not name.
constexpr uint64_t kSendWriteZeroes = 1 << 6;
constexpr uint16_t kBackendIdentifier = 10;

constexpr uint64_t kServerFlags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                                  NBD_FLAG_SEND_TRIM | NBD_FLAG_CAN_MULTI_CONN | kSendWriteZeroes;

void put_socket(GenericRequest& request, int socket) {
  const std::size_t list = request.open(NBD_ATTR_SOCKETS);
  const std::size_t item = request.open(NBD_SOCK_ITEM);
  request.put_u32(NBD_SOCK_FD, static_cast<uint32_t>(socket));
  request.close(item);
  request.close(list);
}

}  // namespace

int nbd_connect(const NbdDevice& device, int socket, uint32_t& index) {
  const uint16_t family = family_of(NBD_GENL_FAMILY_NAME);
  if (family == 0) return errno;
  GenericRequest request(family, NBD_CMD_CONNECT);
  request.put_u64(NBD_ATTR_SIZE_BYTES, device.size_bytes);
  request.put_u64(NBD_ATTR_BLOCK_SIZE_BYTES, device.block_bytes);
  request.put_u64(NBD_ATTR_SERVER_FLAGS, kServerFlags);
  // With 0 and one connection a request that gets no answer is not sent again before there is
  // another connection for it.
  request.put_u64(NBD_ATTR_TIMEOUT, 0);
  request.put_u64(NBD_ATTR_DEAD_CONN_TIMEOUT, device.dead_seconds);
  request.put_text(kBackendIdentifier, device.backend);
  put_socket(request, socket);
  std::vector<std::byte> answer;
  const int error = exchange(request, answer);
  if (error != 0) return error;
  const ConstBytes found = attribute_of(answer, NBD_ATTR_INDEX);
  if (found.size() < sizeof index) return EPROTO;
  std::memcpy(&index, found.data(), sizeof index);
  return 0;
}

int nbd_reconnect(uint32_t index, const std::string& backend, int socket) {
  const uint16_t family = family_of(NBD_GENL_FAMILY_NAME);
  if (family == 0) return errno;
  GenericRequest request(family, NBD_CMD_RECONFIGURE);
  request.put_u32(NBD_ATTR_INDEX, index);
  request.put_text(kBackendIdentifier, backend);
  put_socket(request, socket);
  std::vector<std::byte> answer;
  return exchange(request, answer);
}

int nbd_disconnect(uint32_t index) {
  const uint16_t family = family_of(NBD_GENL_FAMILY_NAME);
  if (family == 0) return errno;
  GenericRequest request(family, NBD_CMD_DISCONNECT);
  request.put_u32(NBD_ATTR_INDEX, index);
  std::vector<std::byte> answer;
  return exchange(request, answer);
}

}  // namespace hast::kernel
