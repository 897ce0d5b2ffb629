// Runs a fuzz target without libFuzzer: its corpus, then mutations of the corpus by seed.
//   NAME_fuzz FILE...                                       runs these inputs once: repeats a
//   finding NAME_fuzz [--seconds N] [--runs N] [--seed S] CORPUS/   the corpus, then mutations
// The inputs run in a child process, which leaves each one in shared memory before it tries it. So
// whatever ends the child (a sanitizer, an assertion, an endless loop), the parent has the input.
#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kInputBytesMax = 64u << 10;
constexpr unsigned kHangSeconds = 30;

struct Options {
  double seconds = 10;
  uint64_t runs = UINT64_MAX;
  uint64_t seed = 0;
  std::vector<std::string> paths;
};

/// What the parent sees of the child.
struct Shared {
  std::atomic<uint64_t> runs;
  size_t size;
  uint8_t bytes[kInputBytesMax];
};

uint64_t now_ms() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000 + static_cast<uint64_t>(time.tv_nsec) / 1000000;
}

[[noreturn]] void usage(const char* program) {
  std::fprintf(stderr, "usage: %s [--seconds N] [--runs N] [--seed S] CORPUS/ | FILE...\n",
               program);
  std::exit(64);
}

Options options_of(int argc, char** argv) {
  Options options;
  options.seed = static_cast<uint64_t>(time(nullptr)) ^ static_cast<uint64_t>(getpid()) << 32;
  for (int i = 1; i < argc; i++) {
    const std::string_view word = argv[i];
    if (word.substr(0, 2) != "--") {
      options.paths.emplace_back(word);
      continue;
    }
    if (++i == argc) usage(argv[0]);
    if (word == "--seconds") {
      options.seconds = std::strtod(argv[i], nullptr);
    } else if (word == "--runs") {
      options.runs = std::strtoull(argv[i], nullptr, 10);
    } else if (word == "--seed") {
      options.seed = std::strtoull(argv[i], nullptr, 10);
    } else {
      usage(argv[0]);
    }
  }
  if (options.paths.empty()) usage(argv[0]);
  return options;
}

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "%s: cannot be read\n", path.c_str());
    std::exit(66);
  }
  return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

/// The files of a folder in the order of their names, so that a seed means the same everywhere.
std::vector<std::string> files_of(const std::string& folder) {
  std::vector<std::string> files;
  DIR* open = opendir(folder.c_str());
  if (open == nullptr) return files;
  while (const dirent* entry = readdir(open)) {
    if (entry->d_name[0] != '.') files.push_back(folder + "/" + entry->d_name);
  }
  closedir(open);
  std::sort(files.begin(), files.end());
  return files;
}

/// In a heap block of exactly its size, so that the address sanitizer sees any read beyond.
void run_input(const Bytes& input) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[input.size()]);
  if (!input.empty()) std::memcpy(copy.get(), input.data(), input.size());
  LLVMFuzzerTestOneInput(copy.get(), input.size());
}

// ---- Mutation ----------------------------------------------------------------------------------

class Mutator {
 public:
  Mutator(const std::vector<Bytes>& corpus, uint64_t seed) : corpus_(corpus), random_(seed) {}

  Bytes next() {
    Bytes bytes = pick();
    for (uint64_t changes = random_.between(1, 6); changes > 0; changes--) change(bytes);
    if (bytes.size() > kInputBytesMax) bytes.resize(kInputBytesMax);
    return bytes;
  }

 private:
  const Bytes& pick() { return corpus_[random_.below(corpus_.size())]; }
  size_t place(const Bytes& bytes) { return random_.below(bytes.size() + 1); }

  void change(Bytes& bytes) {
    const size_t at = place(bytes);
    const size_t left = bytes.size() - at;
    const size_t span = random_.below(std::min<size_t>(left, random_.chance(1, 4) ? left : 16) + 1);
    const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (random_.below(8)) {
      case 0:
        if (left > 0) *from = static_cast<uint8_t>(*from ^ 1u << random_.below(8));
        break;
      case 1:
        if (left > 0) *from = static_cast<uint8_t>(random_.next());
        break;
      case 2:
      case 3:
        overwrite_number(bytes, at);
        break;
      case 4:
        bytes.erase(from, from + static_cast<std::ptrdiff_t>(span));
        break;
      case 5:
        insert(bytes, at, Bytes(from, from + static_cast<std::ptrdiff_t>(span)));
        break;
      case 6:
        insert(bytes, at, Bytes(random_.below(16), static_cast<uint8_t>(random_.next())));
        break;
      default:
        splice(bytes, at);
    }
  }

  /// The numbers at which lengths, counts and offsets tend to go wrong, in either byte order.
  void overwrite_number(Bytes& bytes, size_t at) {
    constexpr uint64_t kInteresting[] = {
        0,          1,          2,          7,          8,         9,          16,
        127,        128,        255,        256,        511,       512,        4095,
        4096,       65535,      65536,      131072,     1048576,   0x7fffffff, 0x80000000,
        0xfffffff8, 0xffffffff, 1ull << 32, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX};
    uint64_t value = kInteresting[random_.below(std::size(kInteresting))];
    const size_t width = size_t{1} << random_.below(4);
    if (random_.chance(1, 3)) value = __builtin_bswap64(value) >> (64 - 8 * width);
    if (at + width <= bytes.size()) std::memcpy(bytes.data() + at, &value, width);
  }

  void splice(Bytes& bytes, size_t at) {
    const Bytes& other = pick();
    bytes.resize(at);
    const size_t from = random_.chance(1, 2) ? std::min(at, other.size()) : place(other);
    bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
  }

  static void insert(Bytes& bytes, size_t at, const Bytes& what) {
    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), what.begin(), what.end());
  }

  const std::vector<Bytes>& corpus_;
  hast::Random random_;
};

// ---- The child and its parent ------------------------------------------------------------------

void try_input(Shared& shared, const Bytes& input) {
  shared.size = std::min(input.size(), kInputBytesMax);
  std::copy_n(input.begin(), shared.size, shared.bytes);
  shared.runs.fetch_add(1);
  run_input(input);
}

void run_all(Shared& shared, const Options& options, std::vector<Bytes> corpus) {
  for (const Bytes& input : corpus) try_input(shared, input);
  if (corpus.empty()) corpus.emplace_back();
  Mutator mutator(corpus, options.seed);
  const uint64_t end_ms = now_ms() + static_cast<uint64_t>(options.seconds * 1000);
  while (shared.runs.load() < options.runs && now_ms() < end_ms) try_input(shared, mutator.next());
}

/// Waits for the child; one that is at the same input for long is ended.
int wait_for(pid_t child, const Shared& shared) {
  uint64_t seen = 0;
  uint64_t since_ms = now_ms();
  for (;;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return status;
    if (shared.runs.load() != seen) {
      seen = shared.runs.load();
      since_ms = now_ms();
    } else if (now_ms() - since_ms > kHangSeconds * 1000) {
      std::fprintf(stderr, "not done after %u s\n", kHangSeconds);
      kill(child, SIGKILL);
    }
    usleep(10000);
  }
}

std::string write_finding(const char* program, const Shared& shared, const Options& options) {
  const char* slash = std::strrchr(program, '/');
  const std::string path = std::string("out/finding-") + (slash != nullptr ? slash + 1 : program) +
                           "-" + std::to_string(options.seed) + "-" +
                           std::to_string(shared.runs.load());
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(shared.bytes), static_cast<long>(shared.size));
  return path;
}

int explore(const char* program, const Options& options) {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  Shared& shared = *new (memory) Shared();
  std::vector<Bytes> corpus;
  for (const std::string& folder : options.paths) {
    for (const std::string& file : files_of(folder)) corpus.push_back(read_file(file));
  }
  const pid_t child = fork();
  if (child == 0) {
    run_all(shared, options, std::move(corpus));
    std::exit(0);
  }
  const int status = wait_for(child, shared);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    std::printf("%s: %" PRIu64 " runs, seed %" PRIu64 "\n", program, shared.runs.load(),
                options.seed);
    return 0;
  }
  const std::string path = write_finding(program, shared, options);
  std::printf("%s: failed with seed %" PRIu64 " at run %" PRIu64 "\n", program, options.seed,
              shared.runs.load());
  std::printf("  repeat it: %s %s\n", program, path.c_str());
  return 1;
}

bool is_folder(const std::string& path) {
  DIR* open = opendir(path.c_str());
  if (open != nullptr) closedir(open);
  return open != nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = options_of(argc, argv);
  if (is_folder(options.paths[0])) return explore(argv[0], options);
  for (const std::string& path : options.paths) run_input(read_file(path));
  return 0;
}
