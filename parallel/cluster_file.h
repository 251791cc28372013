// Cluster files: a ClusterSpec as TOML, which `probe --save` writes, `plan --cluster` reads and
// configs/clusters/ has ready for common machines. docs/config.md explains every key.
//   A file holds what machines are, not who runs on them: RankSpec::pid is not in it. All else
//   comes back bit for bit.
//   Thread: pure, but for read_cluster_file's reading.
#pragma once

#include <string>

#include "parallel/cluster_spec.h"

namespace spillway {

// Where a file's numbers come from; the table [origin].
struct ClusterOrigin {
  std::string program;      // "spillway 0.1.0"; "" when a person wrote the file
  std::string made;         // "2026-11-26 07:40 UTC"
  std::string fingerprint;  // of the hardware, in words
};

struct ClusterFile {
  ClusterSpec cluster;
  ClusterOrigin origin;
};

// Throws Error with the file, the line and the key: an unknown key (and the nearest known one), a
// value of another kind, a negative number, ranks that are not 0, 1, 2, …, pairs of other ranks,
// lists of unequal length.
ClusterFile read_cluster_file(const std::string& path);
ClusterFile parse_cluster(const std::string& text, const std::string& path);
std::string cluster_text(const ClusterSpec& cluster, const ClusterOrigin& origin);

// The cluster's first n ranks: hosts' memory and local numbers as if there were no others. Throws
// Error when there are fewer.
ClusterSpec first_ranks(const ClusterSpec& cluster, int n, const std::string& path);

}  // namespace spillway
