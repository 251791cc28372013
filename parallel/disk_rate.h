// How fast a file is read: past the page cache, as halves on disk are read ahead
// (runtime/io/read_ahead.h), and out of it. Reads only.
#pragma once

#include <cstdint>
#include <string>

namespace spillway {

// Reads that halves on disk are read with: so many at once, of so many bytes, into large pages.
// Enough for a disk to be busy, few enough that the last one of a half is not waited for long.
inline constexpr int kDiskReaders = 2;
inline constexpr int64_t kDiskChunkBytes = int64_t{2} << 20;

struct DiskRates {
  double disk_gb_per_s = 0;  // 0: the file system cannot read past the page cache
  double page_cache_gb_per_s = 0;
};

// At most a second. Of the disk the median of a few looks. Throws Error when the file cannot be
// read; a file under 16 MiB says nothing, and both are 0.
DiskRates measure_disk(const std::string& path);

}  // namespace spillway
