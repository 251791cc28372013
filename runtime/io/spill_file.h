// SpillFile: a file without a name that holds packed weights which do not fit the memory. It takes
// its room on the disk at once, is written once while loading, then only read, and is gone with the
// process whatever ends it.
//   Owns its descriptors. Thread: write from one thread; read from any, after the last write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace spillway {

class SpillFile {
 public:
  // Offsets and lengths of reads that may bypass the page cache are multiples of this.
  static constexpr int64_t kAlignment = 4096;

  // In a folder, which is made when it is not there. name: the ledger's, for errors. Throws Error
  // when the folder cannot be written or its disk has not that much room.
  SpillFile(const std::string& folder, const std::string& name, int64_t bytes);
  ~SpillFile();
  SpillFile(SpillFile&& other) noexcept;
  SpillFile& operator=(SpillFile&&) = delete;

  int64_t bytes() const { return bytes_; }  // rounded up to kAlignment
  const std::string& folder() const { return folder_; }

  void write(int64_t offset, std::span<const std::byte> data);
  // Fills `to` from the page cache where the data still is there, else past it. Throws Error when
  // the disk does not give them all.
  void read(int64_t offset, std::span<std::byte> to) const;

 private:
  int64_t read_some(int64_t offset, std::span<std::byte> to) const;

  std::string folder_;
  std::string name_;
  int64_t bytes_ = 0;
  int fd_ = -1;
  int direct_ = -1;  // the same file past the page cache; -1: its file system cannot
};

}  // namespace spillway
