// Our LZF against liblzf on the blocks of one file; the driver is bench/lzf.ts.
//   lzf_bench time FILE BLOCK ROUNDS       one JSON object with the times of all operations
//   lzf_bench count FILE BLOCK OPERATION TIMES   runs it so often, for a counter of instructions
// Operations: 0 encode, 1 liblzf's encode, 2 decode liblzf's streams, 3 liblzf does, 4 decode ours,
// 5 liblzf does. A stream may be as long as a sender lets it be: 1024 bytes less than the block.
#include <liblzf/lzf.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "codec/lzf.h"

namespace {

using hast::Bytes;
using hast::ConstBytes;
using Buffer = std::vector<std::byte>;

constexpr int kOperations = 6;
constexpr size_t kGainMin = 1024;

[[noreturn]] void give_up(const char* why) {
  std::fprintf(stderr, "lzf_bench: %s\n", why);
  std::exit(1);
}

Buffer read_file(const char* path) {
  std::FILE* const file = std::fopen(path, "rb");
  if (file == nullptr) give_up("the file cannot be read");
  Buffer all;
  std::byte part[65536];
  for (size_t count; (count = std::fread(part, 1, sizeof part, file)) > 0;) {
    all.insert(all.end(), part, part + count);
  }
  std::fclose(file);
  return all;
}

double cpu_time_ns() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

unsigned to_unsigned(size_t size) { return static_cast<unsigned>(size); }

class Bench {
 public:
  Bench(const char* path, size_t block) : block_(block), file_(read_file(path)), out_(2 * block) {
    if (block <= kGainMin) give_up("blocks have more than 1024 bytes");
    for (size_t at = 0; at + block <= file_.size(); at += block) {
      const ConstBytes data = ConstBytes(file_).subspan(at, block);
      // Zeros only are sent as a hole.
      if (std::ranges::any_of(data, [](std::byte b) { return b != std::byte{0}; })) {
        blocks_.push_back(data);
      }
    }
    if (blocks_.empty()) give_up("the file is shorter than a block");
    ours_ = encode_all(0);
    theirs_ = encode_all(1);
    for (const std::vector<Buffer>* streams : {&ours_, &theirs_}) must_decode(*streams);
  }

  /// @returns nanoseconds of one pass over all blocks, without those of other processes
  double time(int operation) {
    const double begin = cpu_time_ns();
    run(operation);
    return cpu_time_ns() - begin;
  }
  void run(int operation) {
    const std::vector<Buffer>& streams = operation < 4 ? theirs_ : ours_;
    for (size_t i = 0; i < blocks_.size(); i++) {
      if (operation < 2) {
        encode(operation, blocks_[i]);
      } else if (!streams[i].empty()) {
        decode(operation % 2, streams[i]);
      }
    }
  }
  size_t bytes() const { return blocks_.size() * block_; }
  /// As sent; whoever cannot shorten a block sends it as it is.
  size_t encoded_bytes(bool ours) const {
    size_t sum = 0;
    for (const Buffer& stream : ours ? ours_ : theirs_) {
      sum += stream.empty() ? block_ : stream.size();
    }
    return sum;
  }

 private:
  size_t encode(int operation, ConstBytes data) {
    const size_t room = data.size() - kGainMin;
    if (operation == 0) return hast::lzf_encode(tables_, data, Bytes(out_).first(room));
    return lzf_compress(data.data(), to_unsigned(data.size()), out_.data(), to_unsigned(room));
  }
  size_t decode(int operation, const Buffer& stream) {
    if (operation == 0) {
      const hast::Result<size_t> produced = hast::lzf_decode(stream, Bytes(out_).first(block_));
      return produced ? *produced : 0;
    }
    return lzf_decompress(stream.data(), to_unsigned(stream.size()), out_.data(),
                          to_unsigned(block_));
  }
  std::vector<Buffer> encode_all(int operation) {
    std::vector<Buffer> streams;
    for (const ConstBytes data : blocks_) {
      const size_t size = encode(operation, data);
      streams.emplace_back(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(size));
    }
    return streams;
  }
  void must_decode(const std::vector<Buffer>& streams) {
    for (size_t i = 0; i < blocks_.size(); i++) {
      for (const int operation : {0, 1}) {
        if (streams[i].empty()) continue;
        const bool good = decode(operation, streams[i]) == block_ &&
                          std::equal(blocks_[i].begin(), blocks_[i].end(), out_.begin());
        if (!good) give_up("a block does not survive");
      }
    }
  }

  size_t block_;
  Buffer file_;
  Buffer out_;
  std::vector<ConstBytes> blocks_;
  std::vector<Buffer> ours_, theirs_;
  hast::LzfTables tables_;
};

void print_times(Bench& bench, int rounds) {
  std::vector<double> times[kOperations];
  for (int round = 0; round < rounds; round++) {
    // Another one begins in each round: what the neighbours do hits all of them.
    for (int i = 0; i < kOperations; i++) {
      const int operation = (i + round) % kOperations;
      times[operation].push_back(bench.time(operation));
    }
  }
  std::printf("{\"bytes\": %zu, \"ours\": %zu, \"theirs\": %zu, \"times\": [", bench.bytes(),
              bench.encoded_bytes(true), bench.encoded_bytes(false));
  for (int operation = 0; operation < kOperations; operation++) {
    std::printf("%s[", operation == 0 ? "" : ", ");
    for (size_t i = 0; i < times[operation].size(); i++) {
      std::printf("%s%.0f", i == 0 ? "" : ", ", times[operation][i]);
    }
    std::printf("]");
  }
  std::printf("]}\n");
}

}  // namespace

int main(int count, char** words) {
  const std::string_view mode = count > 1 ? words[1] : "";
  if (mode == "time" && count == 5) {
    Bench bench(words[2], std::strtoul(words[3], nullptr, 10));
    print_times(bench, std::atoi(words[4]));
    return 0;
  }
  if (mode == "count" && count == 6) {
    Bench bench(words[2], std::strtoul(words[3], nullptr, 10));
    for (int i = std::atoi(words[5]); i > 0; i--) bench.run(std::atoi(words[4]));
    std::printf("%zu\n", bench.bytes());
    return 0;
  }
  give_up("usage: lzf_bench time FILE BLOCK ROUNDS | count FILE BLOCK OPERATION TIMES");
}
