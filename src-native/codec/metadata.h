#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "codec/generations.h"

/// The first 4096 bytes of a local component: HAST's nv area, and our two records behind it.
///
/// Pure: bytes in, bytes out. The layout is docs/on-disk.md. Not for the data path, but nothing
/// here allocates, so that a counter can be raised on the loop thread.
namespace hast {

enum class Role : uint8_t { kInit, kPrimary, kSecondary };
std::string_view role_name(Role role);  ///< "init", "primary", "secondary"

/// A resource's name: 1 to 254 bytes without NUL.
class ResourceName {
 public:
  ResourceName() = default;
  /// Asserts the bounds.
  ResourceName(std::string_view text) : size_(static_cast<uint8_t>(text.size())) {
    HAST_ASSERT(fits(text));
    std::memcpy(text_.data(), text.data(), text.size());
  }
  static bool fits(std::string_view text) {
    return !text.empty() && text.size() <= kNameBytesMax && text.find('\0') == text.npos;
  }
  std::string_view view() const { return {text_.data(), size_}; }
  operator std::string_view() const { return view(); }
  bool operator==(const ResourceName& other) const { return view() == other.view(); }

 private:
  uint8_t size_ = 0;
  std::array<char, kNameBytesMax> text_{};
};

/// The nine fields of HAST.
struct Metadata {
  ResourceName resource;
  uint64_t datasize = 0;    ///< bytes of user data
  uint32_t extentsize = 0;  ///< bytes
  uint32_t keepdirty = 0;   ///< extents
  uint64_t offset = 0;      ///< start of user data, bytes
  uint64_t resuid = 0;      ///< 0: never connected
  uint64_t localcnt = 0;
  uint64_t remotecnt = 0;
  Role prevrole = Role::kInit;

  bool operator==(const Metadata&) const = default;
};

/// Generation of a fresh node that was created with equal contents on both sides: there is nothing
/// to copy between two of them.
inline constexpr uint64_t kGenerationOfEqualContents = 1;

/// What we know beyond HAST. All zero: nothing.
struct Extra {
  uint64_t generation = 0;            ///< id of the data as it is now; 0: unknown
  std::array<uint64_t, 8> history{};  ///< shared and offered of `Generations`; the rest is 0
  bool sync_target = false;           ///< a pass writes here, or one was never finished
  bool local_stale = false;           ///< the peer's data is newer than this disk's
  bool peer_stale = false;  ///< the peer has given up its disk: write it all, compare nothing
  /// The operator gives up what was written here alone: at the next set-up the primary's data
  /// counts. Set together with `sync_target`, so that this copy is no source meanwhile.
  bool discarded = false;
  bool ahead = false;  ///< memsync or async: what was answered may not be on the peer's disk
  /// A flush has failed here while this copy was the newest one: what a read gives need not be
  /// stored, and a later flush proves nothing. Until all of it was written again.
  bool flush_failed = false;
  /// A pass to an original has begun and did not end, or a FLUSH was answered without the peer:
  /// what is marked here it may never have had on its disk.
  bool peer_behind = false;
  /// Boot id of the machine when it began to take writes that may not be flushed; 0: all are.
  uint64_t boot = 0;

  /// The machine went down in between: what was not flushed may be gone. `bootid` 0: not asked.
  bool lost_cache(uint64_t bootid) const { return bootid != 0 && boot != 0 && boot != bootid; }
  /// Unknown as long as there is only the promise of equal contents.
  Generations generations() const {
    if (generation == kGenerationOfEqualContents) return {};
    return {generation, history[0], history[1]};
  }
  void set(const Generations& ids) {
    generation = ids.current;
    history = {ids.shared, ids.offered};
  }

  bool operator==(const Extra&) const = default;
};

struct BlockPlan;

/// The block as it is on disk (or will be when a plan was carried out).
class MetadataBlock {
 public:
  static constexpr uint32_t kRecordOffset[2] = {1024, 2560};
  static constexpr uint32_t kRecordBytes = 660;

  /// A block as the original's create makes it: no record, all zeros behind the nv area.
  static MetadataBlock create(const Metadata& metadata);

  /// Reads 4096 bytes. Error META_INVALID: neither the nv area nor a record is usable.
  static Result<MetadataBlock> decode(ConstBytes block);

  const Metadata& metadata() const { return metadata_; }
  /// All zero unless `extra_known`.
  const Extra& extra() const { return extra_; }
  /// A record vouches for `extra`. False when an original wrote the block (last): history is
  /// unknown and only the counters count.
  bool extra_known() const { return extra_known_; }
  /// The nv area on disk is torn or older than the newest record: carry out `plan_rewrite` first.
  bool needs_rewrite() const { return needs_rewrite_; }
  ConstBytes bytes() const { return block_; }

  /// Puts the newest record's fields back into the first sector. Requires needs_rewrite.
  BlockPlan plan_rewrite(uint32_t sector_bytes) const;

  /// New fields and facts. Requires !needs_rewrite; sector_bytes is 512, 1024, 2048 or 4096.
  BlockPlan plan_update(const Metadata& metadata, const Extra& extra, uint32_t sector_bytes) const;
  /// New fields, nothing known beyond them. Writes no record unless there is one already (which
  /// must not come to life again).
  BlockPlan plan_update(const Metadata& metadata, uint32_t sector_bytes) const;
  /// What was written here alone is given up: `hastctl discard`. The same requirements.
  BlockPlan plan_discard(uint32_t sector_bytes) const;

 private:
  BlockPlan plan(const Metadata& metadata, const Extra* extra, uint32_t sector_bytes) const;
  void write_nv();
  void write_record(unsigned slot);
  void read_records(const Metadata* nv);

  std::array<std::byte, kMetadataBytes> block_{};
  Metadata metadata_;
  Extra extra_;
  bool extra_known_ = false;
  bool needs_rewrite_ = false;
  bool has_record_ = false;  // a valid record is in the block, trusted or not
  unsigned newest_ = 1;      // its slot; 1 when there is none, so that slot 0 comes first
  uint64_t sequence_ = 0;    // of the newest record
};

/// The writes that turn the block on disk into `after`, in order; flush after each. Every step
/// is a whole number of sectors. If one fails, `after` did not happen: plan again from the old one,
/// or decode what is there. Whatever a power cut leaves decodes to the old or the new state.
struct BlockPlan {
  struct Step {
    uint32_t offset = 0;  ///< from the start of the component, and into after.bytes()
    uint32_t length = 0;
  };
  MetadataBlock after;
  std::array<Step, 2> steps{};
  uint32_t step_count = 0;
};

/// Does the metadata fit the provider? Error META_INVALID with the reason in `what`.
/// All in bytes; sector_bytes is the provider's.
Result<void> check_geometry(const Metadata& metadata, uint64_t provider_bytes,
                            uint32_t sector_bytes);

}  // namespace hast
