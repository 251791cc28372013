// Spill files of this process, which have no names but descriptors: cut short, as a disk that fails
// would do it, or put out of the page cache. For the tests of weights on disk.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>

namespace spillway::testing {

// The spill files in this folder for which `change` of their descriptor gives 0.
inline int change_spill_files(const std::string& folder, const std::function<int(int)>& change) {
  int changed = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code no_error;
    const std::string target = std::filesystem::read_symlink(entry.path(), no_error).string();
    if (target.find(folder) == std::string::npos) continue;
    const int fd = std::stoi(entry.path().filename().string());
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) != O_RDWR) continue;
    if (change(fd) == 0) ++changed;
  }
  return changed;
}

// Makes them end at `bytes`.
inline int cut_spill_files(const std::string& folder, int64_t bytes) {
  return change_spill_files(folder, [bytes](int fd) { return ftruncate(fd, bytes); });
}

// What is in the page cache of them goes to the disk and from memory.
inline int forget_spill_files(const std::string& folder) {
  return change_spill_files(folder, [](int fd) {
    return fdatasync(fd) != 0 ? -1 : posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  });
}

}  // namespace spillway::testing
