// See mapped_file.h. Called by gguf_parser.cc; never writes to a file.
#include "runtime/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/core/error.h"

namespace spillway {
namespace {

// Closes on every way out of the constructor: the mapping lives on without the descriptor.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string errno_text(int number) { return std::strerror(number); }

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  if (path.empty()) throw Error("the file's name is empty", "", "give the path of a model file");
  // O_NONBLOCK: opening a pipe must fail below, not wait for a writer.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    throw Error("cannot open the file: " + errno_text(errno), path,
                "check the path and its rights");
  }
  struct stat facts {};
  if (::fstat(file.fd, &facts) != 0) throw Error("cannot stat: " + errno_text(errno), path);
  if (!S_ISREG(facts.st_mode)) {
    throw Error(S_ISDIR(facts.st_mode) ? "a folder, not a regular file" : "not a regular file",
                path, "give the path of a model file");
  }
  if (facts.st_size <= 0) throw Error("the file is empty", path, "download it again");
  size_ = static_cast<size_t>(facts.st_size);
  void* base = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (base == MAP_FAILED) {
    throw Error("cannot map " + std::to_string(size_) + " bytes: " + errno_text(errno), path);
  }
  base_ = static_cast<const std::byte*>(base);
}

MappedFile::MappedFile(std::span<const std::byte> bytes, const std::string& name)
    : path_(name), size_(bytes.size()) {
  if (bytes.empty()) throw Error("the file is empty", name);
  // Shared, so that drop_pages() leaves it as it is.
  constexpr int kWhere = MAP_SHARED | MAP_ANONYMOUS;
  void* base = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, kWhere, -1, 0);
  if (base == MAP_FAILED) {
    throw Error("cannot take " + std::to_string(size_) + " bytes: " + errno_text(errno), name);
  }
  std::memcpy(base, bytes.data(), size_);
  base_ = static_cast<const std::byte*>(base);
}

MappedFile::~MappedFile() {
  if (base_ != nullptr) ::munmap(const_cast<std::byte*>(base_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::will_need() const {
  if (base_ != nullptr) ::madvise(const_cast<std::byte*>(base_), size_, MADV_WILLNEED);
}

void MappedFile::drop_pages() const {
  // A shared read-only mapping loses only its page table entries: a later read faults them back.
  if (base_ != nullptr) ::madvise(const_cast<std::byte*>(base_), size_, MADV_DONTNEED);
}

}  // namespace spillway
