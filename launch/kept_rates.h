// Rates that `spillway probe` measured and kept, so that jobs start at once and plan alike every
// time: a cluster file under ${XDG_CACHE_HOME:-~/.cache}/spillway/probe, on the front's host, named
// by the hardware and the ranks on it. Free memory is never taken from there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "parallel/cluster_file.h"
#include "parallel/cluster_spec.h"

namespace spillway {

// "" when the environment names no home: nothing is kept then.
std::string kept_rates_folder();

// What a rank's rates depend on, in a line of at most 900 bytes: program, host, processor, cores,
// memory, instruction set, threads, place among the host's ranks, GPU and driver. On the rank's own
// host.
std::string rank_fingerprint(const RankSpec& facts);
// Of all ranks, in their order.
std::string cluster_fingerprint(const std::vector<std::string>& ranks);

struct KeptRates {
  ClusterFile file;
  std::string path;
};

// What is kept for this fingerprint and so many ranks. A file that is damaged or of other hardware
// is no error: `warning` says so.
std::optional<KeptRates> find_kept_rates(const std::string& folder, const std::string& fingerprint,
                                         int n_ranks, std::string& warning);
// Writes it, whole or not at all, and returns its path. Throws Error.
std::string keep_rates(const std::string& folder, const std::string& fingerprint,
                       const ClusterSpec& cluster);

std::string now_text();  // "2026-11-26 07:40 UTC"

// Writes `text` to a file with another name, then gives it this one. Throws Error.
void write_whole(const std::string& path, const std::string& text);

// "rates measured 2026-11-26 07:40 UTC (FILE)"
std::string kept_rates_text(const KeptRates& kept);
// What is said where none are kept, and every start looks for itself.
std::string no_kept_rates_text();

}  // namespace spillway
