#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "ring/task.h"

namespace hast {

/// What is known of a disk when it is opened; does not change.
struct ComponentFacts {
  uint64_t size_bytes = 0;
  uint32_t sector_bytes = 512;  ///< logical sector: the unit that is written whole or not at all
  uint32_t granule_bytes =
      512;  ///< alignment that direct I/O asks for; smaller I/O is read-modify-write
  uint32_t buffer_align_bytes = 1;  ///< alignment that direct I/O asks of buffers in memory
  bool is_block_device = false;
  bool can_discard = true;
};

/// The local disk: a file or a block device in production, a volatile-cache disk in the simulator.
///
/// Offsets are bytes from the start of the disk. Loop thread only; any number of operations may be
/// outstanding, in any order of completion; buffers must stay until completion. The caller never
/// lets two outstanding operations overlap if one of them writes; that two only share a granule is
/// the component's business. Every operation completes with 0 (all bytes done) or -errno; a short
/// transfer is -EIO.
class Component {
 public:
  virtual ~Component() = default;

  const ComponentFacts& facts() const { return facts_; }

  virtual void submit_read(Completion& done, uint64_t offset, Bytes into) = 0;
  /// `durable`: complete only when the bytes survive a power cut (FUA).
  virtual void submit_write(Completion& done, uint64_t offset, ConstBytes from, bool durable) = 0;
  /// Punches a hole into the granule-aligned inner part; it then reads as zeros. Edges are left
  /// alone. -EOPNOTSUPP when the disk cannot; nothing is changed then.
  virtual void submit_discard(Completion& done, uint64_t offset, uint64_t length) = 0;
  /// Completes when everything written and completed before survives a power cut.
  virtual void submit_flush(Completion& done) = 0;

  struct Read : CompletionAwait<Read> {
    Component& disk;
    uint64_t offset;
    Bytes into;
    Read(Component& d, uint64_t o, Bytes b) : disk(d), offset(o), into(b) {}
    void submit() { disk.submit_read(*this, offset, into); }
  };
  struct Write : CompletionAwait<Write> {
    Component& disk;
    uint64_t offset;
    ConstBytes from;
    bool durable;
    Write(Component& d, uint64_t o, ConstBytes b, bool f)
        : disk(d), offset(o), from(b), durable(f) {}
    void submit() { disk.submit_write(*this, offset, from, durable); }
  };
  struct Discard : CompletionAwait<Discard> {
    Component& disk;
    uint64_t offset;
    uint64_t length;
    Discard(Component& d, uint64_t o, uint64_t n) : disk(d), offset(o), length(n) {}
    void submit() { disk.submit_discard(*this, offset, length); }
  };
  struct Flush : CompletionAwait<Flush> {
    Component& disk;
    explicit Flush(Component& d) : disk(d) {}
    void submit() { disk.submit_flush(*this); }
  };
  Read read(uint64_t offset, Bytes into) { return Read(*this, offset, into); }
  Write write(uint64_t offset, ConstBytes from, bool durable) {
    return Write(*this, offset, from, durable);
  }
  Discard discard(uint64_t offset, uint64_t length) { return Discard(*this, offset, length); }
  Flush flush() { return Flush(*this); }

 protected:
  ComponentFacts facts_;
};

}  // namespace hast
