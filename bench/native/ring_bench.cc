// ring_bench FILE [SECONDS] [DEPTH] [plain|registered] [write|read] [durable]
//
// Random 4 KiB direct I/O on FILE (which it overwrites) through coroutines, FileComponent and Ring,
// DEPTH at a time; prints IOPS, the processor time per operation and per turn of the loop. To be
// read next to fio with ioengine=io_uring on the same file, in the same minute.

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "disk/file_component.h"
#include "ring/buffers.h"
#include "ring/ring.h"

namespace {

using hast::FileComponent;
using hast::Ring;
using hast::Task;

constexpr uint64_t kBlockBytes = 4096;

struct Plan {
  const char* path = nullptr;
  double seconds = 3;
  uint32_t depth = 32;
  bool registered = true;
  bool write = true;
  bool durable = false;
};

struct Load {
  Ring& ring;
  FileComponent& disk;
  const Plan& plan;
  uint64_t end_us;
  hast::Random random = hast::Random(1);
  uint64_t done = 0;
  int error = 0;
  std::vector<uint32_t> latencies_us = {};
};

double processor_us() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

Task<int> one(Load& load, hast::Bytes buffer) {
  const uint64_t blocks = load.disk.facts().size_bytes / kBlockBytes;
  const uint64_t offset = load.random.below(blocks) * kBlockBytes;
  int result = 0;
  if (load.plan.write) {
    result = co_await load.disk.write(offset, buffer, load.plan.durable);
  } else {
    result = co_await load.disk.read(offset, buffer);
  }
  co_return result;
}

Task<void> client(Load& load, hast::Bytes buffer) {
  while (load.error == 0 && load.ring.now_us() < load.end_us) {
    const uint64_t start_us = load.ring.now_us();
    const int result = co_await one(load, buffer);
    if (result != 0) load.error = result;
    ++load.done;
    load.latencies_us.push_back(static_cast<uint32_t>(load.ring.now_us() - start_us));
  }
}

int run(const Plan& plan) {
  std::string error;
  const std::unique_ptr<Ring> ring = Ring::create(256, error);
  if (ring == nullptr) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 69;
  }
  const int fd = open(plan.path, O_RDWR | O_DIRECT | O_CLOEXEC);
  hast::ComponentFacts facts;
  const int probed = fd < 0 ? -errno : hast::probe_component(fd, facts);
  if (probed != 0) {
    std::fprintf(stderr, "%s: %s\n", plan.path, std::strerror(-probed));
    return 66;
  }
  int slab_error = 0;
  const auto slab = hast::BufferSlab::create(plan.depth, kBlockBytes, kBlockBytes, slab_error);
  hast::RegisteredBuffers buffers;
  if (plan.registered) buffers = ring->register_buffers(slab->base(), slab->total_bytes());
  FileComponent disk(*ring, fd, facts);
  if (!plan.registered) ring->unregister_file(fd);

  Load load{*ring, disk, plan, ring->now_us() + static_cast<uint64_t>(plan.seconds * 1e6)};
  load.latencies_us.reserve(1u << 22);
  for (uint32_t i = 0; i < plan.depth; ++i) std::memset(slab->slot(i).data(), 0x5a, kBlockBytes);
  const double before_us = processor_us();
  {
    hast::Scope scope;
    for (uint32_t i = 0; i < plan.depth; ++i) scope.spawn(client(load, slab->slot(i)));
    while (scope.running() > 0) ring->run_once();
  }
  const double used_us = processor_us() - before_us;
  std::vector<uint32_t>& sorted = load.latencies_us;
  std::sort(sorted.begin(), sorted.end());
  const double done = static_cast<double>(load.done);
  std::printf(
      "%s depth %u %s%s: %.0f IOPS, p50 %u us, p99 %u us, %.2f CPU us per operation, "
      "%.2f operations per system call, buffers registered %llu of %llu bytes%s\n",
      plan.write ? "write" : "read", plan.depth, plan.registered ? "registered" : "plain",
      plan.durable ? " durable" : "", done / plan.seconds, sorted[sorted.size() / 2],
      sorted[sorted.size() * 99 / 100], used_us / done,
      done / static_cast<double>(ring->stats().enters),
      static_cast<unsigned long long>(buffers.registered_bytes),
      static_cast<unsigned long long>(buffers.total_bytes), load.error == 0 ? "" : ", FAILED");
  return load.error == 0 ? 0 : 74;
}

}  // namespace

int main(int argc, char** argv) {
  Plan plan;
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: ring_bench FILE [SECONDS] [DEPTH] [plain|registered] [write|read] "
                 "[durable]\n");
    return 64;
  }
  plan.path = argv[1];
  if (argc > 2) plan.seconds = std::atof(argv[2]);
  if (argc > 3) plan.depth = static_cast<uint32_t>(std::atoi(argv[3]));
  if (argc > 4) plan.registered = std::string_view(argv[4]) == "registered";
  if (argc > 5) plan.write = std::string_view(argv[5]) == "write";
  if (argc > 6) plan.durable = std::string_view(argv[6]) == "durable";
  return run(plan);
}
