#pragma once

#include <cstdint>

/// The control side of the kernel's ublk driver. Each call stands still until the kernel has
/// carried it out, which may take until `limit_ms` have passed (ETIMEDOUT): never on a thread that
/// has others to serve. All need CAP_SYS_ADMIN. They return 0 or an errno; ENOENT: no driver.
namespace hast::kernel {

struct UblkDevice {
  uint64_t size_bytes = 0;
  uint32_t block_bytes = 512;
  /// Kept by the driver for whoever asks: tells its own devices from those of others.
  uint64_t owner = 0;
};

struct UblkInfo {
  bool started = false;  ///< there is a block device
  bool served = false;   ///< and somebody answers it
  uint64_t owner = 0;
};

/// ENOTSUP: the driver has not all that is needed (Linux 6.5 has).
int ublk_probe();

/// Makes /dev/ublkcN, at which one server takes requests, and no block device yet.
int ublk_add(const UblkDevice& device, uint32_t& index);

/// Makes /dev/ublkbN as soon as there is a server. The caller's process must be the one that has
/// opened /dev/ublkcN, here and in `ublk_end_recovery`: since Linux 6.16 the driver looks.
int ublk_start(uint32_t index, uint32_t limit_ms);

/// The last server is gone: another one may open /dev/ublkcN. EBUSY: it is not gone yet.
int ublk_start_recovery(uint32_t index);

/// As soon as there is another server it gets what the last one has left unanswered.
int ublk_end_recovery(uint32_t index, uint32_t limit_ms);

/// The block device goes and requests fail, those that wait too, whoever has it open.
int ublk_stop(uint32_t index, uint32_t limit_ms);

/// Stops it, and forgets it when its last user has closed it.
int ublk_remove(uint32_t index, uint32_t limit_ms);

int ublk_info(uint32_t index, UblkInfo& info);

}  // namespace hast::kernel
