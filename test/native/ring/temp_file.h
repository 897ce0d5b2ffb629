// A file of a given size, without a name, opened like a disk.

#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace hast::test {

/// Descriptor, or -1. Belongs to the caller. `flags` as for open(2), O_DIRECT for example.
inline int temp_file(uint64_t size_bytes, int flags) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/hast-test-";
  path.append(6, 'X');  // mkostemp replaces them
  const int named = mkostemp(path.data(), O_CLOEXEC);
  if (named < 0) return -1;
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | flags);
  unlink(path.c_str());
  close(named);
  if (fd >= 0 && ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

}  // namespace hast::test
