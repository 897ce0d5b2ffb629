#pragma once

#include <cstdint>
#include <string>

/// The control side of the kernel's NBD client, over netlink. Each call is carried out when it
/// returns; all need CAP_SYS_ADMIN. They return 0 or an errno; ENOENT: this kernel has no NBD.
namespace hast::kernel {

struct NbdDevice {
  uint64_t size_bytes = 0;
  uint32_t block_bytes = 512;
  /// How long requests wait for `nbd_reconnect` when no connection is left; then they fail.
  uint64_t dead_seconds = 0;
  /// Shown in /sys/block/nbdN/backend; must be repeated by whoever reconnects.
  std::string backend;
};

/// Makes a free device of a connected stream socket, at whose other end the transmission phase of
/// NBD is served. The kernel takes a reference of its own. A slow server is waited for without end.
int nbd_connect(const NbdDevice& device, int socket, uint32_t& index);

/// Gives a device a connection in place of one that is dead. Where none is, the kernel says nothing
/// and takes none: the other end of such a socket hangs up when the caller closes its own.
int nbd_reconnect(uint32_t index, const std::string& backend, int socket);

/// Requests fail from now on, those that wait too; the index is free when nobody has it open.
int nbd_disconnect(uint32_t index);

}  // namespace hast::kernel
