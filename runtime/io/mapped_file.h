// MappedFile: a file's bytes, memory-mapped read-only. Throws Error (with the path and errno's
// text) when it cannot be opened, is not a regular file, or is empty.
// Owns the mapping, move-only. A file that shrinks while mapped is the reader's SIGBUS, which
// launch/bus_guard.h turns into a sentence.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace spillway {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  // A copy of bytes that lie in no file; `name` stands for the path in messages.
  MappedFile(std::span<const std::byte> bytes, const std::string& name);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {base_, size_}; }
  const std::string& path() const { return path_; }

  // Hints to the kernel; failures are ignored.
  void will_need() const;
  void drop_pages() const;

 private:
  std::string path_;
  const std::byte* base_ = nullptr;
  size_t size_ = 0;
};

}  // namespace spillway
