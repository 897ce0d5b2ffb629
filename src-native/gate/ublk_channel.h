#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "gate/provider.h"
#include "ring/ring.h"

struct ublksrv_io_desc;

namespace hast {

/// A request of the kernel, without its data. Bytes.
struct UblkRequest {
  RequestOp op = RequestOp::kRead;
  bool known = false;  ///< false: an operation that nobody has told the driver we had
  bool fua = false;
  bool zeroes = false;  ///< WRITE without data
  uint64_t offset = 0;
  uint64_t length = 0;
};

/// One queue of the kernel's ublk driver: requests come under tags from 0 to `depth` - 1, each of
/// them one at a time. Loop thread only.
class UblkChannel {
 public:
  virtual ~UblkChannel() = default;

  virtual uint32_t depth() const = 0;
  /// `done` runs when there is a request under `tag`, or with a negative result when there will be
  /// none any more. Maybe never: it must outlive the loop.
  virtual void fetch(Completion& done, uint32_t tag) = 0;
  /// Ends the request under `tag` (bytes that were moved, or -errno) and fetches the next one.
  virtual void commit(Completion& done, uint32_t tag, int32_t result) = 0;
  /// What was fetched, until it is committed.
  virtual UblkRequest request(uint32_t tag) const = 0;
  /// Copies data of a WRITE to us, data of a READ to the kernel, at once. False: the kernel has
  /// given the request up.
  virtual bool take(uint32_t tag, Bytes into) = 0;
  virtual bool give(uint32_t tag, ConstBytes from) = 0;
};

/// The driver's own, on an open /dev/ublkcN, which nobody else may have opened.
class RingUblkChannel final : public UblkChannel {
 public:
  /// Owns `fd` from here on. nullptr and errno when the kernel refuses.
  static std::unique_ptr<RingUblkChannel> open(Ring& ring, int fd);
  /// When the ring is gone: until then the driver may answer.
  ~RingUblkChannel() override;

  uint32_t depth() const override;
  void fetch(Completion& done, uint32_t tag) override;
  void commit(Completion& done, uint32_t tag, int32_t result) override;
  UblkRequest request(uint32_t tag) const override;
  bool take(uint32_t tag, Bytes into) override;
  bool give(uint32_t tag, ConstBytes from) override;

 private:
  RingUblkChannel(Ring& ring, int fd, const ublksrv_io_desc* requests)
      : ring_(ring), fd_(fd), requests_(requests) {}
  void send(Completion& done, uint32_t operation, uint32_t tag, int32_t result);

  Ring& ring_;
  const int fd_;
  const ublksrv_io_desc* const requests_;  // the kernel writes them, by tag
};

}  // namespace hast
