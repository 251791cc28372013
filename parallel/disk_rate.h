// How fast a file is read: past the page cache, as halves on disk are read ahead
// (runtime/io/read_ahead.h), and out of it. Reads only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace spillway {

// Reads that halves on disk are read with: so many at once, of so many bytes, into large pages.
// Few enough bytes that the last read of a half is not waited for long. copied: what lies in the
// page cache is copied too, for a GPU, which a core does at 1 to 6 GB/s; else two keep a disk busy
// and leave the cores to the products.
inline constexpr int64_t kDiskChunkBytes = int64_t{2} << 20;
constexpr int disk_readers(int threads, bool copied) {
  constexpr int kLeast = 2;
  constexpr int kMost = 16;
  return copied ? std::clamp(threads * 3 / 4, kLeast, kMost) : kLeast;
}

struct DiskRates {
  double disk_gb_per_s = 0;  // 0: the file system cannot read past the page cache
  double page_cache_gb_per_s = 0;
};

// At most two seconds, with so many reads at once, to buffers of a sixteenth of the free memory at
// most, or a few chunks each. Of the disk the median of a few looks. Throws Error when the file
// cannot be read; a file under 16 MiB says nothing, and both are 0.
DiskRates measure_disk(const std::string& path, int readers, int64_t free_bytes);

}  // namespace spillway
