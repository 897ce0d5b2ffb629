#pragma once

#include <cstdint>

#include "engine/slot.h"
#include "ring/task.h"

namespace hast {

class Primary;

/// Copies the extents of the sync set from the good component to the other, many chunks in flight.
///
/// Each chunk takes its byte range (rule 3); user requests come first: while they flow, fewer
/// chunks are in flight. An extent leaves the set only when every chunk of this pass was confirmed.
/// Loop thread only.
class Synchroniser {
 public:
  explicit Synchroniser(Primary& primary) : primary_(primary) {}

  /// Runs passes until the link fails. Called once per link, after the maps were merged and stored.
  /// `compare`: ask the peer whether a chunk is equal before sending it (full passes between ours).
  Task<void> run(bool compare, bool target_told);
  /// The link has failed or the engine stops: no further chunk is begun.
  void stop() {
    stopped_ = true;
    wake_.wake_all();
    retry_.wake();
  }
  /// A missed write left something to copy.
  void kick() { wake_.wake_all(); }
  /// A client's request was seen.
  void note_user_request(uint64_t now_us) { last_user_us_ = now_us; }

 private:
  struct ExtentCopy {
    uint32_t extent = 0;
    uint32_t chunks_open = 0;
    uint64_t confirmed = 0;  // bytes that the target has stored
    bool all_begun = false;
    bool used = false;
  };
  Task<void> tell_target();
  uint64_t bytes_to_go() const;
  void tell_interrupted();
  Task<bool> pass(bool compare);
  Task<bool> copy_extent(ExtentCopy& copy, bool compare);
  Task<void> copy_chunk(Slot& slot, ExtentCopy& copy, bool compare);
  Task<int> chunk_to_peer(Slot& slot, bool compare);
  Task<int> chunk_from_peer(Slot& slot);
  void finish_chunk(ExtentCopy& copy, int rc, uint64_t bytes);
  ExtentCopy* free_copy();
  uint32_t chunks_allowed() const;
  uint64_t length_of(uint32_t extent) const;
  Task<bool> finish_pass();
  void measure(uint64_t bytes);

  static constexpr uint32_t kChunksMax = 16;
  static constexpr uint32_t kChunksBesideUsers = 4;
  static constexpr uint32_t kCopiesMax = kChunksMax;
  static constexpr uint64_t kUserQuietUs = 50000;

  Primary& primary_;
  bool stopped_ = false;
  bool failed_chunk_ = false;
  uint32_t chunks_ = 0;
  ExtentCopy copies_[kCopiesMax];
  Scope scope_;
  WaitList wake_;
  SleepTimer retry_;
  uint64_t last_user_us_ = 0;
  uint64_t window_began_us_ = 0, window_bytes_ = 0;
  uint64_t pass_bytes_ = 0;
};

}  // namespace hast
