// See spill_file.h. Called by stage/disk_weights.cc while loading and by read_ahead.cc's threads.
#include "runtime/io/spill_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/int_math.h"
#include "kernels/core/simulated_fault.h"
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

// Fewer cached pages than these beside each other are not worth a read of their own.
constexpr int64_t kFewPages = 16;

// Which pages of a mapped file lie in the page cache, of some thousand at a time.
class PageFlags {
 public:
  explicit PageFlags(const std::byte* base) : base_(base), page_(::sysconf(_SC_PAGESIZE)) {}

  // The pages around these bytes, or the first of them. Returns how many of the bytes lie in them.
  int64_t ask(int64_t offset, int64_t bytes) {
    offset_ = offset;
    begin_ = offset / page_ * page_;
    const int64_t end = std::min(offset + bytes, begin_ + static_cast<int64_t>(kMost) * page_);
    n_pages_ = div_up(end - begin_, page_);
    void* from = const_cast<std::byte*>(base_) + begin_;
    if (::mincore(from, static_cast<size_t>(end - begin_), flags_.data()) != 0) flags_.fill(0);
    return end - offset;
  }
  int64_t n_pages() const { return n_pages_; }
  int64_t n_cached_from(int64_t page) const {
    int64_t end = page;
    while (end < n_pages_ && (flags_[static_cast<size_t>(end)] & 1) != 0) ++end;
    return end - page;
  }
  int64_t bytes_before(int64_t page) const { return begin_ + page * page_ - offset_; }

 private:
  static constexpr size_t kMost = 4096;

  const std::byte* base_;
  int64_t page_;
  std::array<unsigned char, kMost> flags_{};  // mincore's
  int64_t offset_ = 0;
  int64_t begin_ = 0;
  int64_t n_pages_ = 0;
};

}  // namespace

bool lies_in_memory(const std::string& folder) {
  std::error_code ignored;
  std::filesystem::path path = std::filesystem::absolute(folder, ignored);
  while (!std::filesystem::exists(path, ignored) && path.has_relative_path()) {
    path = path.parent_path();
  }
  struct statfs facts {};
  if (::statfs(path.c_str(), &facts) != 0) return false;
  return facts.f_type == TMPFS_MAGIC || facts.f_type == RAMFS_MAGIC;
}

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
  const int refused =
      fault_simulated("allocate disk", name_) ? ENOSPC : ::posix_fallocate(fd_, 0, bytes_);
  if (refused != 0) {
    ::close(fd_);
    throw Error("the spill file needs " + size_text(bytes) + ": " +
                    std::string(std::strerror(refused)) + room_text(folder),
                folder + ", " + name_, todo);
  }
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  direct_ = ::open(self.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  // What is read where it lies mapped is not refused.
  if (!fault_awaited("read disk", name_)) map();
}

SpillFile::~SpillFile() {
  if (base_ != nullptr) ::munmap(const_cast<std::byte*>(base_), size());
  if (direct_ >= 0) ::close(direct_);
  if (fd_ >= 0) ::close(fd_);
}

SpillFile::SpillFile(SpillFile&& other) noexcept
    : folder_(std::move(other.folder_)),
      name_(std::move(other.name_)),
      bytes_(other.bytes_),
      fd_(std::exchange(other.fd_, -1)),
      direct_(std::exchange(other.direct_, -1)),
      base_(std::exchange(other.base_, nullptr)) {}

void SpillFile::write(int64_t offset, std::span<const std::byte> data) {
  CHECK_LE(offset + static_cast<int64_t>(data.size()), bytes_);
  while (!data.empty()) {
    ssize_t n = -1;
    if (fault_simulated("write disk", name_)) {
      errno = EIO;
    } else {
      n = ::pwrite(fd_, data.data(), data.size(), offset);
    }
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw Error("writing the spill file failed at byte " + std::to_string(offset) + ": " +
                      (n == 0 ? "nothing was taken" : std::strerror(errno)),
                  where(), "check the disk, or give another by --spill-dir");
    }
    offset += n;
    data = data.subspan(static_cast<size_t>(n));
  }
}

void SpillFile::read(int64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    // A direct read wants whole pages; the end of what is asked for may be none.
    size_t n_bytes = to.size() / kAlignment * kAlignment;
    bool direct = direct_ >= 0 && n_bytes > 0 && aligned(to.data(), offset, n_bytes);
    if (direct) {
      const Run run = run_at(offset, static_cast<int64_t>(n_bytes));
      direct = !run.cached;
      n_bytes = static_cast<size_t>(run.bytes);
    } else {
      n_bytes = to.size();
    }
    ssize_t n = -1;
    if (fault_simulated("read disk", name_)) {
      errno = EIO;
    } else {
      n = ::pread(direct ? direct_ : fd_, to.data(), n_bytes, offset);
    }
    if (n < 0 && errno == EINTR) continue;
    // A file system may open directly and then refuse to read so: by way of the cache.
    if (n < 0 && errno == EINVAL) n = ::pread(fd_, to.data(), to.size(), offset);
    if (n <= 0) {
      throw Error("reading the spill file failed at byte " + std::to_string(offset) + ": " +
                      (n == 0 ? "it ends there" : std::strerror(errno)),
                  where(), "check the disk, or give another by --spill-dir");
    }
    offset += n;
    to = to.subspan(static_cast<size_t>(n));
  }
}

void SpillFile::map() {
  // Private: some file systems that keep no coherent cache refuse shared mappings only, and nobody
  // reads here before the last write.
  void* base = ::mmap(nullptr, size(), PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd_, 0);
  if (base != MAP_FAILED) base_ = static_cast<const std::byte*>(base);
}

bool SpillFile::cached(int64_t offset, int64_t bytes) const {
  CHECK(offset >= 0 && offset + bytes <= bytes_);
  if (base_ == nullptr) return false;
  PageFlags there(base_);
  for (int64_t at = offset; at < offset + bytes;) {
    const int64_t n = there.ask(at, offset + bytes - at);
    if (there.n_cached_from(0) < there.n_pages()) return false;
    at += n;
  }
  return true;
}

// A read that does not wait (RWF_NOWAIT) would tell the same, and have the kernel read ahead what
// is missing: twice from the disk, and into the page cache in the place of what is there.
SpillFile::Run SpillFile::run_at(int64_t offset, int64_t bytes) const {
  if (base_ == nullptr) return {false, bytes};
  PageFlags there(base_);
  const int64_t asked = there.ask(offset, bytes);
  const int64_t first = there.n_cached_from(0);
  if (first == there.n_pages()) return {true, asked};
  if (first >= kFewPages) return {true, there.bytes_before(first)};
  int64_t end = first;
  while (end < there.n_pages()) {
    const int64_t n = there.n_cached_from(end);
    if (n >= kFewPages) break;
    end += n + 1;
  }
  return {false, std::min(asked, there.bytes_before(end))};
}

}  // namespace spillway
