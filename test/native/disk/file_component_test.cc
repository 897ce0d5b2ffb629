#include "disk/file_component.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/random.h"
#include "harness.h"
#include "ring/temp_file.h"

namespace {

using hast::BufferSlab;
using hast::Bytes;
using hast::Component;
using hast::ComponentFacts;
using hast::ConstBytes;
using hast::FileComponent;
using hast::Ring;
using hast::Scope;
using hast::Task;

constexpr int kPending = 12345;
constexpr uint64_t kSize = 2u << 20;

Task<void> write_and_note(Component& disk, uint64_t offset, ConstBytes from, bool durable,
                          int& result) {
  result = co_await disk.write(offset, from, durable);
}
Task<void> read_and_note(Component& disk, uint64_t offset, Bytes into, int& result) {
  result = co_await disk.read(offset, into);
}
Task<void> flush_and_note(Component& disk, int& result) { result = co_await disk.flush(); }
Task<void> discard_and_note(Component& disk, uint64_t offset, uint64_t length, int& result) {
  result = co_await disk.discard(offset, length);
}

/// A descriptor as a disk; `granule_bytes` replaces what the kernel told, when it is not 0.
struct Bench {
  std::unique_ptr<Ring> ring;
  std::unique_ptr<FileComponent> disk;
  std::unique_ptr<BufferSlab> slab;
  ComponentFacts facts;
  int fd = -1;
  int probed = -1;

  explicit Bench(int descriptor, uint32_t granule_bytes) {
    std::string error;
    int slab_error = 0;
    ring = Ring::create(64, error);
    slab = BufferSlab::create(2, kSize, kSize, slab_error);
    fd = descriptor;
    if (ring == nullptr || fd < 0) return;
    probed = hast::probe_component(fd, facts);
    if (granule_bytes != 0) {
      facts.granule_bytes = granule_bytes;
      facts.buffer_align_bytes = 512;
    }
    disk = std::make_unique<FileComponent>(*ring, fd, facts);
  }
  bool good() const { return disk != nullptr && probed == 0; }

  void run(const Scope& scope) {
    for (int turn = 0; turn < 100'000 && scope.running() > 0; ++turn) ring->run_once(100'000);
  }
  int write(uint64_t offset, ConstBytes from, bool durable = false) {
    Scope scope;
    int result = kPending;
    scope.spawn(write_and_note(*disk, offset, from, durable, result));
    run(scope);
    return result;
  }
  int read(uint64_t offset, Bytes into) {
    Scope scope;
    int result = kPending;
    scope.spawn(read_and_note(*disk, offset, into, result));
    run(scope);
    return result;
  }
  int discard(uint64_t offset, uint64_t length) {
    Scope scope;
    int result = kPending;
    scope.spawn(discard_and_note(*disk, offset, length, result));
    run(scope);
    return result;
  }
};

void fill(Bytes bytes, uint64_t seed) {
  hast::Random random(seed);
  for (std::byte& byte : bytes) byte = std::byte(random.next());
}

int direct_file() { return hast::test::temp_file(kSize, O_DIRECT); }

TEST(file, "writes, flushes and reads back with direct I/O") {
  Bench bench(direct_file(), 0);
  if (bench.fd < 0) SKIP("the file system of the temporary folder has no O_DIRECT");
  REQUIRE(bench.good());
  CHECK_EQ(bench.facts.size_bytes, kSize);
  CHECK(!bench.facts.is_block_device);
  const Bytes out = bench.slab->slot(0);
  const Bytes in = bench.slab->slot(1);
  fill(out, 1);
  CHECK_EQ(bench.write(0, out), 0);
  CHECK_EQ(bench.write(4096, out.first(8192), true), 0);
  std::memmove(out.data() + 4096, out.data(), 8192);
  Scope scope;
  int flushed = kPending;
  scope.spawn(flush_and_note(*bench.disk, flushed));
  bench.run(scope);
  CHECK_EQ(flushed, 0);
  CHECK_EQ(bench.read(0, in), 0);
  CHECK_EQ(std::memcmp(in.data() + 12288, out.data() + 12288, kSize - 12288), 0);
  CHECK_EQ(std::memcmp(in.data(), out.data(), 4096), 0);
  CHECK_EQ(bench.read(kSize, in.first(0)), 0);
}

TEST(file, "neighbouring writes that share a granule do not undo each other") {
  Bench bench(direct_file(), 4096);
  if (bench.fd < 0) SKIP("the file system of the temporary folder has no O_DIRECT");
  REQUIRE(bench.good());
  const Bytes out = bench.slab->slot(0);
  const Bytes in = bench.slab->slot(1);
  fill(out, 77);
  constexpr int kWrites = 64;
  int results[kWrites];
  Scope scope;
  for (int i = 0; i < kWrites; ++i) {
    results[i] = kPending;
    const uint64_t at = static_cast<uint64_t>(i) * 512;
    scope.spawn(write_and_note(*bench.disk, at, out.subspan(at, 512), false, results[i]));
  }
  bench.run(scope);
  for (const int result : results) CHECK_EQ(result, 0);
  CHECK_EQ(bench.read(0, in.first(kWrites * 512)), 0);
  CHECK_EQ(std::memcmp(in.data(), out.data(), kWrites * 512), 0);
}

TEST(file, "a disk that shrank gives EIO, not fewer bytes") {
  for (const int flags : {0, O_DIRECT}) {
    Bench bench(hast::test::temp_file(kSize, flags), 0);
    if (bench.fd < 0) SKIP("the file system of the temporary folder has no O_DIRECT");
    REQUIRE(bench.good());
    for (const off_t size : {8192, 5000}) {
      REQUIRE(ftruncate(bench.fd, size) == 0);
      CHECK_EQ(bench.read(0, bench.slab->slot(0).first(16384)), -EIO);
      CHECK_EQ(bench.read(16384, bench.slab->slot(0).first(4096)), -EIO);
      CHECK_EQ(bench.read(0, bench.slab->slot(0).first(4096)), 0);
    }
  }
}

TEST(file, "punches the aligned inner part, which then reads as zeros") {
  Bench bench(direct_file(), 0);
  if (bench.fd < 0) SKIP("the file system of the temporary folder has no O_DIRECT");
  REQUIRE(bench.good());
  if (!bench.facts.can_discard) SKIP("the file system of the temporary folder has no holes");
  const Bytes out = bench.slab->slot(0);
  const Bytes in = bench.slab->slot(1);
  std::memset(out.data(), 1, out.size());
  CHECK_EQ(bench.write(0, out, true), 0);
  struct stat before = {};
  struct stat after = {};
  fstat(bench.fd, &before);
  CHECK_EQ(bench.discard(512, 1u << 20), 0);
  CHECK_EQ(bench.discard(512, 4096), 0);  // nothing inside
  CHECK_EQ(bench.discard(kSize, 0), 0);
  fstat(bench.fd, &after);
  CHECK(after.st_blocks < before.st_blocks);
  CHECK_EQ(after.st_size, before.st_size);
  CHECK_EQ(bench.read(0, in), 0);
  CHECK_EQ(in[4095], std::byte{1});
  CHECK_EQ(in[4096], std::byte{0});
  CHECK_EQ(in[(1u << 20) - 1], std::byte{0});
  CHECK_EQ(in[1u << 20], std::byte{1});
}

TEST(file, "read-modify-write keeps the neighbours, at every offset and with any buffer") {
  Bench bench(direct_file(), 4096);
  if (bench.fd < 0) SKIP("the file system of the temporary folder has no O_DIRECT");
  REQUIRE(bench.good());
  std::vector<std::byte> expected(kSize);
  fill(expected, 1);
  std::memcpy(bench.slab->slot(0).data(), expected.data(), kSize);
  CHECK_EQ(bench.write(0, bench.slab->slot(0)), 0);
  hast::Random random(2);
  const Bytes out = bench.slab->slot(0);
  const Bytes in = bench.slab->slot(1);
  for (int round = 0; round < 300; ++round) {
    const uint64_t most = random.chance(1, 8) ? 1200 : 40;  // sectors; some exceed the bounce
    const uint64_t size = 512 * random.between(1, most);
    const uint64_t offset = 512 * random.below((kSize - size) / 512 + 1);
    const uint64_t shift = random.chance(1, 3) ? random.below(512) : 0;
    const Bytes from = out.subspan(shift, size);
    fill(from, random.next());
    CHECK_EQ(bench.write(offset, from, random.chance(1, 4)), 0);
    std::memcpy(expected.data() + offset, from.data(), size);
    const uint64_t read_size = 512 * random.between(1, most);
    const uint64_t read_offset = 512 * random.below((kSize - read_size) / 512 + 1);
    const Bytes into = in.subspan(shift, read_size);
    CHECK_EQ(bench.read(read_offset, into), 0);
    CHECK_EQ(std::memcmp(into.data(), expected.data() + read_offset, read_size), 0);
  }
  CHECK_EQ(bench.read(0, in), 0);
  CHECK_EQ(std::memcmp(in.data(), expected.data(), kSize), 0);
}

TEST(file, "many misaligned writes at once wait for the few bounce buffers in turn") {
  Bench bench(direct_file(), 4096);
  if (bench.fd < 0) SKIP("the file system of the temporary folder has no O_DIRECT");
  REQUIRE(bench.good());
  const Bytes out = bench.slab->slot(0);
  fill(out, 3);
  int results[64];
  {
    Scope scope;
    for (uint64_t i = 0; i < 64; ++i) {
      results[i] = kPending;
      scope.spawn(write_and_note(*bench.disk, i * 8192 + 512, out.subspan(i * 8192 + 512, 1024),
                                 false, results[i]));
    }
    bench.run(scope);
  }
  const Bytes in = bench.slab->slot(1);
  CHECK_EQ(bench.read(0, in), 0);
  for (uint64_t i = 0; i < 64; ++i) {
    CHECK_EQ(results[i], 0);
    CHECK_EQ(std::memcmp(in.data() + i * 8192 + 512, out.data() + i * 8192 + 512, 1024), 0);
    CHECK_EQ(in[i * 8192 + 511], std::byte{0});
    CHECK_EQ(in[i * 8192 + 1536], std::byte{0});
  }
  CHECK_EQ(hast::task_frames_alive(), 0u);
}

TEST(file, "serves more operations at once than it has prepared") {
  Bench bench(hast::test::temp_file(kSize, 0), 0);
  REQUIRE(bench.good());
  std::vector<int> results(2000, kPending);
  std::vector<std::byte> in(2000 * 512);
  Scope scope;
  for (std::size_t i = 0; i < results.size(); ++i) {
    scope.spawn(read_and_note(*bench.disk, i * 512, Bytes(in).subspan(i * 512, 512), results[i]));
  }
  bench.run(scope);
  for (const int result : results) CHECK_EQ(result, 0);
}

/// A loop device over a temporary file; it goes away with its last descriptor. -1 without one.
int loop_device(uint64_t size_bytes) {
  const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) return -1;
  const int number = ioctl(control, LOOP_CTL_GET_FREE);
  close(control);
  const int backing = hast::test::temp_file(size_bytes, O_DIRECT);
  const int fd =
      open(("/dev/loop" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
  loop_config config = {};
  config.fd = static_cast<uint32_t>(backing);
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
  const bool good = fd >= 0 && backing >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0;
  if (backing >= 0) close(backing);
  if (!good && fd >= 0) close(fd);
  return good ? fd : -1;
}

TEST(file, "a hole in a block device reads as zeros") {
  const int fd = loop_device(kSize);
  if (fd < 0) SKIP("no loop device can be made here");
  Bench bench(fd, 0);
  REQUIRE(bench.good());
  CHECK(bench.facts.is_block_device);
  CHECK_EQ(bench.facts.size_bytes, kSize);
  const Bytes out = bench.slab->slot(0);
  const Bytes in = bench.slab->slot(1);
  std::memset(out.data(), 1, out.size());
  CHECK_EQ(bench.write(0, out, true), 0);
  if (!bench.facts.can_discard) SKIP("the loop device punches no holes");
  CHECK_EQ(bench.discard(4096 + 100, 1u << 20), 0);
  CHECK_EQ(bench.read(0, in), 0);
  const uint64_t begin = hast::round_up(4196, hast::kDeleteGranule);
  const uint64_t end = hast::round_down(4196 + (1u << 20), hast::kDeleteGranule);
  CHECK_EQ(in[begin - 1], std::byte{1});
  for (uint64_t at = begin; at < end; at += 512) CHECK(in[at] == std::byte{0});
  CHECK_EQ(in[end - 1], std::byte{0});
  CHECK_EQ(in[end], std::byte{1});
}

TEST(file, "probing knows files from devices and refuses the rest") {
  ComponentFacts facts;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  CHECK_EQ(hast::probe_component(null, facts), -ENOTSUP);
  close(null);
  CHECK_EQ(hast::probe_component(-1, facts), -EBADF);
  const int odd = hast::test::temp_file(10'000, 0);
  CHECK_EQ(hast::probe_component(odd, facts), 0);
  CHECK_EQ(facts.size_bytes, 9728u);
  CHECK_EQ(facts.granule_bytes, 512u);
  CHECK_EQ(facts.buffer_align_bytes, 1u);
  close(odd);
}

}  // namespace
