// See spill_file.h. Called by stage/disk_weights.cc while loading and by read_ahead.cc's threads.
#include "runtime/io/spill_file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// Without a name where the file system can, else with one that is gone at once.
int open_nameless(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  std::string path = folder + "/weights-XXXXXX";
  const int named = ::mkostemp(path.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(path.c_str());
  return named;
}

std::string room_text(const std::string& folder) {
  std::error_code no_error;
  const auto space = std::filesystem::space(folder, no_error);
  if (no_error) return "";
  return "; its disk has " + size_text(static_cast<int64_t>(space.available)) + " free";
}

bool aligned(const void* pointer, int64_t offset, size_t n) {
  constexpr auto kMask = static_cast<uint64_t>(SpillFile::kAlignment - 1);
  return ((reinterpret_cast<uintptr_t>(pointer) | static_cast<uint64_t>(offset) | n) & kMask) == 0;
}

}  // namespace

SpillFile::SpillFile(const std::string& folder, const std::string& name, int64_t bytes)
    : folder_(folder), name_(name), bytes_(round_up(bytes, kAlignment)) {
  CHECK_GT(bytes, 0);
  const std::string todo =
      "give a folder on a disk with room by --spill-dir, or place less on disk";
  std::error_code made;
  std::filesystem::create_directories(folder, made);
  fd_ = open_nameless(folder);
  if (fd_ < 0) {
    throw Error("cannot make the spill file: " + std::string(std::strerror(errno)),
                folder + ", " + name_, todo);
  }
  if (const int refused = ::posix_fallocate(fd_, 0, bytes_); refused != 0) {
    ::close(fd_);
    throw Error("the spill file needs " + size_text(bytes) + ": " +
                    std::string(std::strerror(refused)) + room_text(folder),
                folder + ", " + name_, todo);
  }
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  direct_ = ::open(self.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
}

SpillFile::~SpillFile() {
  if (direct_ >= 0) ::close(direct_);
  if (fd_ >= 0) ::close(fd_);
}

SpillFile::SpillFile(SpillFile&& other) noexcept
    : folder_(std::move(other.folder_)),
      name_(std::move(other.name_)),
      bytes_(other.bytes_),
      fd_(std::exchange(other.fd_, -1)),
      direct_(std::exchange(other.direct_, -1)) {}

void SpillFile::write(int64_t offset, std::span<const std::byte> data) {
  CHECK_LE(offset + static_cast<int64_t>(data.size()), bytes_);
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd_, data.data(), data.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw Error("writing the spill file failed at byte " + std::to_string(offset) + ": " +
                      (n == 0 ? "nothing was taken" : std::strerror(errno)),
                  folder_ + ", " + name_, "check the disk, or give another by --spill-dir");
    }
    offset += n;
    data = data.subspan(static_cast<size_t>(n));
  }
}

void SpillFile::read(int64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    ssize_t n = -1;
    iovec part{to.data(), to.size()};
    if (direct_ >= 0) n = ::preadv2(fd_, &part, 1, offset, RWF_NOWAIT);  // what is cached
    if (n <= 0) {
      // A direct read wants whole pages; the end of the file may be none.
      const size_t whole = to.size() / kAlignment * kAlignment;
      const bool direct = direct_ >= 0 && whole > 0 && aligned(to.data(), offset, whole);
      n = direct ? ::pread(direct_, to.data(), whole, offset)
                 : ::pread(fd_, to.data(), to.size(), offset);
    }
    if (n < 0 && errno == EINTR) continue;
    // A file system may open directly and then refuse to read so: by way of the cache.
    if (n < 0 && errno == EINVAL) n = ::pread(fd_, to.data(), to.size(), offset);
    if (n <= 0) {
      throw Error("reading the spill file failed at byte " + std::to_string(offset) + ": " +
                      (n == 0 ? "it ends there" : std::strerror(errno)),
                  folder_ + ", " + name_, "check the disk, or give another by --spill-dir");
    }
    offset += n;
    to = to.subspan(static_cast<size_t>(n));
  }
}

}  // namespace spillway
