#pragma once

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>
#include <utility>

#include "base/assert.h"

/// Plain storage for the activemap: zeroed arrays whose untouched pages stay out of memory, and
/// sets of small numbers with a fast "next one". Nothing grows after construction.
namespace hast {

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};
/// `count` zeroed values from calloc. Large ones come from the kernel as pages not yet there.
template <typename T>
std::unique_ptr<T[], FreeDeleter> zeroed_array(size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  T* memory = static_cast<T*>(std::calloc(count, sizeof(T)));
  HAST_ASSERT(memory != nullptr);
  return std::unique_ptr<T[], FreeDeleter>(memory);
}

/// A set of indices below a fixed size. One bit each, and one summary bit for 64 of them, so that
/// finding the next member skips 4096 absent ones a word.
class IndexSet {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  /// The words are padded with zeros to a multiple of `pad_words`.
  explicit IndexSet(uint32_t size, uint32_t pad_words = 1)
      : word_count_((size / 64 + (size % 64 != 0 ? 1 : 0) + pad_words - 1) / pad_words * pad_words),
        words_(zeroed_array<uint64_t>(word_count_)),
        summary_(zeroed_array<uint64_t>(word_count_ / 64 + 1)) {}

  bool has(uint32_t index) const { return (words_[index / 64] >> (index % 64) & 1) != 0; }
  uint32_t count() const { return count_; }
  bool empty() const { return count_ == 0; }

  /// Returns true when it was not in before.
  bool add(uint32_t index) {
    if (has(index)) return false;
    words_[index / 64] |= bit(index);
    summary_[index / 4096] |= bit(index / 64);
    count_++;
    return true;
  }
  /// Returns true when it was in before.
  bool remove(uint32_t index) {
    if (!has(index)) return false;
    uint64_t& word = words_[index / 64];
    word &= ~bit(index);
    if (word == 0) summary_[index / 4096] &= ~bit(index / 64);
    count_--;
    return true;
  }
  /// The lowest member >= from, or kNone.
  uint32_t next(uint32_t from) const {
    const uint32_t word = from / 64;
    if (word >= word_count_) return kNone;
    const uint64_t here = words_[word] >> (from % 64) << (from % 64);
    if (here != 0) return word * 64 + lowest(here);
    const uint32_t other = next_word(word + 1);
    return other == kNone ? kNone : other * 64 + lowest(words_[other]);
  }

  uint32_t word_count() const { return word_count_; }
  uint64_t word(uint32_t index) const { return words_[index]; }
  const uint64_t* words() const { return words_.get(); }

  /// Replaces 64 members at once.
  void set_word(uint32_t index, uint64_t value) {
    const auto before = static_cast<uint32_t>(std::popcount(words_[index]));
    count_ += static_cast<uint32_t>(std::popcount(value)) - before;
    words_[index] = value;
    uint64_t& summary = summary_[index / 64];
    summary = value != 0 ? summary | bit(index) : summary & ~bit(index);
  }

  void swap(IndexSet& other) noexcept {
    std::swap(word_count_, other.word_count_);
    std::swap(count_, other.count_);
    words_.swap(other.words_);
    summary_.swap(other.summary_);
  }

 private:
  static uint64_t bit(uint32_t index) { return uint64_t{1} << (index % 64); }
  static uint32_t lowest(uint64_t word) { return static_cast<uint32_t>(std::countr_zero(word)); }

  /// The first word >= from that is not zero, or kNone.
  uint32_t next_word(uint32_t from) const {
    const uint32_t summaries = word_count_ / 64 + 1;
    for (uint32_t i = from / 64; i < summaries; i++) {
      uint64_t bits = summary_[i];
      if (i == from / 64) bits = bits >> (from % 64) << (from % 64);
      if (bits != 0) return i * 64 + lowest(bits);
    }
    return kNone;
  }

  uint32_t word_count_;
  uint32_t count_ = 0;
  std::unique_ptr<uint64_t[], FreeDeleter> words_;
  std::unique_ptr<uint64_t[], FreeDeleter> summary_;
};

}  // namespace hast
