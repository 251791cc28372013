// How fast a file is read: past the page cache, as when it is read for the first time, and out of
// it. Reads only.
#pragma once

#include <string>

namespace spillway {

struct DiskRates {
  double disk_gb_per_s = 0;  // 0: the file system cannot read past the page cache
  double page_cache_gb_per_s = 0;
};

// At most a second. Four threads, as a loader reads. Throws Error when the file cannot be read; a
// file under 16 MiB says nothing, and both are 0.
DiskRates measure_disk(const std::string& path);

}  // namespace spillway
