#include "sim/model.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace hast::test {

void BlockModel::fill(Bytes block, uint64_t tag, uint64_t number) {
  uint64_t word = tag;
  for (std::size_t at = 0; at < block.size(); at += 8) {
    std::memcpy(block.data() + at, &word, 8);
    word += tag == 0 ? 0 : (tag * 0x9e3779b97f4a7c15u) ^ (number + 1);
  }
}

void BlockModel::begin(uint64_t id, uint64_t first, uint64_t count, uint64_t tag) {
  const uint64_t at = now();
  spans_[id] = {first, count};
  changed_ = true;
  for (uint64_t i = first; i < first + count; ++i) blocks_[i].versions.push_back({id, tag, at});
}

void BlockModel::end_version(Version& version, uint64_t at, bool acknowledged, bool durable) {
  version.ended = at;
  version.acknowledged = acknowledged && (durable || version.begun > forgotten_);
  version.durable = version.acknowledged && durable;
}

void BlockModel::end(uint64_t id, End how, bool durable) {
  const auto found = spans_.find(id);
  if (found == spans_.end()) return;  // it ended when its node was given up
  const uint64_t at = now();
  const Span span = found->second;
  for (uint64_t i = span.first; i < span.first + span.count; ++i) {
    for (Version& version : blocks_[i].versions) {
      if (version.id == id) end_version(version, at, how == End::kAcknowledged, durable);
    }
  }
  spans_.erase(found);
  changed_ = true;
}

void BlockModel::end_all_unknown() {
  while (!spans_.empty()) end(spans_.begin()->first, End::kUnknown, false);
}

void BlockModel::take_untouched(const BlockModel& there, uint64_t since) {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const std::vector<Version>& here = blocks_[i].versions;
    const bool touched = std::any_of(here.begin(), here.end(),
                                     [since](const Version& v) { return v.begun > since; });
    if (!touched) blocks_[i] = there.blocks_[i];
  }
  clock_ = std::max(clock_, there.clock_);
  changed_ = true;
}

void BlockModel::flushed(uint64_t begun) {
  changed_ = true;
  for (Block& block : blocks_) {
    for (Version& version : block.versions) {
      if (version.acknowledged && version.ended < begun) version.durable = true;
    }
  }
}

void BlockModel::forget_unflushed() {
  forgotten_ = now();
  changed_ = true;
  for (Block& block : blocks_) {
    for (Version& version : block.versions) {
      if (!version.durable) version.acknowledged = false;
    }
  }
}

void BlockModel::take_as_is(ConstBytes data, ConstBytes durable) {
  changed_ = true;
  end_all_unknown();
  const uint64_t at = now();
  std::byte expected[kBlock];
  for (uint64_t number = 0; number < blocks_.size(); ++number) {
    const ConstBytes found = data.subspan(number * kBlock, kBlock);
    Block& block = blocks_[number];
    for (Version& version : block.versions) version.acknowledged = version.durable = false;
    uint64_t tag = 0;
    std::memcpy(&tag, found.data(), sizeof tag);
    fill(expected, tag, number);
    const bool known = std::memcmp(expected, found.data(), kBlock) == 0;
    // What a power cut brings back may be any of the older ones, also one that was pruned.
    const ConstBytes kept = durable.subspan(number * kBlock, kBlock);
    block.wild = !known || std::memcmp(kept.data(), found.data(), kBlock) != 0;
    if (known && (tag != 0 || !block.versions.empty())) {
      block.versions.push_back({0, tag, at, at, true, false});
    }
  }
}

uint64_t BlockModel::newest_certain(const Block& block, uint64_t before, bool durably) {
  uint64_t newest = 0;
  for (const Version& v : block.versions) {
    if (v.acknowledged && (!durably || v.durable) && v.ended < before) {
      newest = std::max(newest, v.begun);
    }
  }
  return newest;
}

bool BlockModel::allowed(uint64_t number, ConstBytes bytes, uint64_t begun) const {
  const Block& block = blocks_[number];
  const uint64_t certain = newest_certain(block, begun, false);
  if (block.wild && certain == 0) return true;
  uint64_t tag = 0;
  std::memcpy(&tag, bytes.data(), sizeof tag);
  std::byte expected[kBlock];
  fill(expected, tag, number);
  if (std::memcmp(expected, bytes.data(), kBlock) != 0) return false;
  if (tag == 0 && certain == 0) return true;
  return std::any_of(block.versions.begin(), block.versions.end(),
                     [&](const Version& v) { return v.tag == tag && v.ended >= certain; });
}

std::string BlockModel::describe(uint64_t number, ConstBytes bytes) const {
  uint64_t word = 0;
  std::memcpy(&word, bytes.data(), 8);
  std::string text =
      "block " + std::to_string(number) + " holds " + std::to_string(word) + "; known:";
  for (const Version& v : blocks_[number].versions) {
    text += " [" + std::to_string(v.tag) + " " + std::to_string(v.begun) + ".." +
            (v.ended == UINT64_MAX ? std::string("open") : std::to_string(v.ended)) +
            (v.acknowledged ? " ok" : "") + (v.durable ? " durable" : "") + "]";
  }
  return text;
}

void BlockModel::prune() {
  if (!std::exchange(changed_, false)) return;
  for (Block& block : blocks_) {
    if (block.versions.size() < 2) continue;
    const uint64_t certain = newest_certain(block, UINT64_MAX, true);
    std::erase_if(block.versions, [certain](const Version& v) { return v.ended < certain; });
  }
}

}  // namespace hast::test
