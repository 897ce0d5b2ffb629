#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "disk/component.h"
#include "ring/buffers.h"
#include "ring/ring.h"

namespace hast {

/// Asks the kernel what kind of disk `fd` is: size, sector, alignment, whether holes can be
/// punched. 0, or -errno; -ENOTSUP when it is neither a file nor a block device.
///
/// May block; before the loop runs. The size is rounded down to the granule. A file opened
/// without O_DIRECT has no alignment to keep.
int probe_component(int fd, ComponentFacts& facts);

/// A file or a block device on the ring, usually opened with O_DIRECT.
///
/// Transfers that keep the alignment go straight to the ring; the others are read-modify-write
/// through one of a few bounce buffers, first come, first served. Holes are punched by fallocate,
/// on block devices too: there it asks for zeroes without writing them, and unlike a discard it
/// promises that the range reads as zero.
class FileComponent final : public Component {
 public:
  /// Takes the descriptor over and closes it in the end. `facts` come from `probe_component`.
  FileComponent(Ring& ring, int fd, const ComponentFacts& facts);
  /// Nothing may be outstanding.
  ~FileComponent() override;

  void submit_read(Completion& done, uint64_t offset, Bytes into) override;
  void submit_write(Completion& done, uint64_t offset, ConstBytes from, bool durable) override;
  void submit_discard(Completion& done, uint64_t offset, uint64_t length) override;
  void submit_flush(Completion& done) override;

  int fd() const { return fd_; }

 private:
  enum class Kind : uint8_t { kRead, kWrite, kDiscard, kFlush };
  struct Operation : Completion {
    FileComponent* owner = nullptr;
    Operation* next_free = nullptr;
    Completion* user = nullptr;
    Kind kind = Kind::kRead;
    bool durable = false;
    bool moved = false;   // some bytes of it are done
    uint32_t agains = 0;  // how often the kernel was too busy
    uint64_t offset = 0;
    std::byte* data = nullptr;  // a write only reads from it
    std::size_t left = 0;       // bytes not yet transferred
  };

  /// The part of a misaligned transfer that one bounce buffer takes.
  struct Window {
    uint64_t begin = 0;  // on the disk, aligned
    uint64_t end = 0;
    uint64_t skip = 0;   // from `begin` to what is wanted
    uint64_t inner = 0;  // how much is wanted
    uint64_t size() const { return end - begin; }
  };

  /// Granules that a misaligned write is reading, changing and writing back.
  struct Granules {
    uint64_t begin = 0;
    uint64_t end = 0;
    Granules* next = nullptr;
  };
  Task<void> take_granules(Granules& granules);
  void return_granules(Granules& granules);

  bool is_aligned(uint64_t offset, const std::byte* data, std::size_t size) const;
  void add_operations(uint32_t count);
  Operation& take_operation(Completion& user, Kind kind);
  void submit_transfer(Operation& operation);
  void transferred(Operation& operation);
  void finish(Operation& operation, int result);

  Task<std::byte*> take_bounce();
  void return_bounce(std::byte* bounce);
  Window window_at(uint64_t offset, uint64_t length) const;
  Task<int> read_edges(std::byte* bounce, Window window);
  Task<void> read_misaligned(Completion& done, uint64_t offset, Bytes into);
  Task<void> write_misaligned(Completion& done, uint64_t offset, ConstBytes from, bool durable);

  Ring& ring_;
  int fd_;
  uint64_t hole_align_bytes_;
  uint64_t outstanding_ = 0;

  std::vector<std::unique_ptr<Operation[]>> operation_blocks_;
  Operation* free_operation_ = nullptr;

  std::unique_ptr<BufferSlab> bounce_;
  std::vector<std::byte*> free_bounces_;
  uint32_t bounces_available_ = 0;
  WaitList bounce_waiters_;
  Granules* granules_in_use_ = nullptr;
  WaitList granule_waiters_;
  Scope misaligned_;
};

}  // namespace hast
