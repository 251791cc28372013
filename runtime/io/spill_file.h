// SpillFile: a file without a name that holds packed weights which do not fit the memory. It takes
// its room on the disk at once, is written once while loading, then only read, and is gone with the
// process whatever ends it.
//   Owns its descriptors and its mapping. Thread: write from one thread; read from any, after the
//   last write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace spillway {

// Whether files in this folder, or in what is there of the path to it, would lie in memory (tmpfs).
bool lies_in_memory(const std::string& folder);

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
  std::string where() const { return folder_ + ", " + name_; }  // for errors

  void write(int64_t offset, std::span<const std::byte> data);
  // Fills `to` from the page cache where the data still is there, else past it: what is in the page
  // cache stays as it is. Throws Error when the disk does not give them all.
  void read(int64_t offset, std::span<std::byte> to) const;

  // The whole file, mapped; empty where its file system cannot. After the last write, bytes that
  // the page cache holds are read here without a copy, as fast as memory; others come from the disk
  // some pages at a time, and a disk that fails then is the reader's SIGBUS, which
  // launch/bus_guard.h turns into a sentence. So ask cached() first.
  std::span<const std::byte> mapped() const { return {base_, base_ == nullptr ? 0 : size()}; }
  // Whether every page of these bytes can be read there without the disk, now: pages may be evicted
  // at any time.
  bool cached(int64_t offset, int64_t bytes) const;

 private:
  struct Run {
    bool cached = false;
    int64_t bytes = 0;
  };
  size_t size() const { return static_cast<size_t>(bytes_); }
  void map();
  // How many of these bytes are read in one way, from the first on.
  Run run_at(int64_t offset, int64_t bytes) const;

  std::string folder_;
  std::string name_;
  int64_t bytes_ = 0;
  int fd_ = -1;
  int direct_ = -1;  // the same file past the page cache; -1: its file system cannot
  const std::byte* base_ = nullptr;  // of the mapping
};

}  // namespace spillway
