// See kept_rates.h.
#include "launch/kept_rates.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "kernels/core/error.h"
#include "launch/version.h"
#include "parallel/cgroup.h"

namespace spillway {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostFingerprint = 900;

// FNV-1a of 64 bits: isthe.com/chongo/tech/comp/fnv.
std::string hash_text(const std::string& text) {
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  std::array<char, 24> out{};
  std::snprintf(out.data(), out.size(), "%016llx", static_cast<unsigned long long>(hash));
  return out.data();
}

std::string path_of(const std::string& folder, const std::string& fingerprint) {
  return folder + "/" + hash_text(fingerprint) + ".toml";
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04 ..."
std::string driver_text() {
  const std::string text = small_file_text("/proc/driver/nvidia/version");
  return text.substr(0, std::min<size_t>(text.find('\n'), 120));
}

}  // namespace

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M UTC", &utc);
  return text.data();
}

std::string kept_rates_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/spillway/probe";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return "";
  return std::string(home) + "/.cache/spillway/probe";
}

std::string rank_fingerprint(const RankSpec& facts) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  const int64_t memory = meminfo_bytes(small_file_text("/proc/meminfo"), "MemTotal");
  std::string text = std::string(kProgram) + ", " + facts.host + ", " + facts.cpu + ", " +
                     std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + " cores, " +
                     std::to_string(memory / kGiB) + " GiB, " + facts.isa + ", " +
                     std::to_string(facts.threads) + " threads, rank " +
                     std::to_string(facts.local_rank) + " of " + std::to_string(facts.local_size);
  if (facts.gpu.present()) {
    text += ", " + facts.gpu.name + " " + facts.gpu.uuid + " " +
            std::to_string(facts.gpu.total_bytes) + ", " + driver_text();
  } else {
    text += ", by layers";  // what is measured of CPUs: files from before it was are not taken
  }
  return text.substr(0, kMostFingerprint);
}

std::string cluster_fingerprint(const std::vector<std::string>& ranks) {
  std::string out;
  for (const std::string& rank : ranks) out += (out.empty() ? "" : "\n") + rank;
  return out;
}

std::optional<KeptRates> find_kept_rates(const std::string& folder, const std::string& fingerprint,
                                         int n_ranks, std::string& warning) {
  if (folder.empty()) return std::nullopt;
  const std::string path = path_of(folder, fingerprint);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    KeptRates kept = {read_cluster_file(path), path};
    if (kept.file.origin.fingerprint == fingerprint && kept.file.cluster.size() == n_ranks) {
      return kept;
    }
    warning = path + " is of other hardware and is not used; `spillway probe` replaces it";
  } catch (const Error& error) {
    warning = "kept rates are not used: " + std::string(error.what()) +
              "; `spillway probe` replaces the file";
  }
  return std::nullopt;
}

void write_whole(const std::string& path, const std::string& text) {
  const std::string unfinished = path + "." + std::to_string(getpid()) + ".unfinished";
  const auto fail = [&](const char* what) {
    const std::string why = std::strerror(errno);
    std::remove(unfinished.c_str());
    throw Error(std::string(what) + ": " + why, path);
  };
  std::ofstream file(unfinished, std::ios::binary | std::ios::trunc);
  if (!file) fail("cannot be written");
  file << text;
  file.close();
  if (!file) fail("cannot be written");
  if (std::rename(unfinished.c_str(), path.c_str()) != 0) fail("cannot get its name");
}

std::string keep_rates(const std::string& folder, const std::string& fingerprint,
                       const ClusterSpec& cluster) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error("the folder cannot be made: " + error.message(), folder);
  const std::string path = path_of(folder, fingerprint);
  write_whole(path, cluster_text(cluster, {kProgram, now_text(), fingerprint}));
  return path;
}

std::string kept_rates_text(const KeptRates& kept) {
  return "rates measured " + kept.file.origin.made + " (" + kept.path + ")";
}

std::string no_kept_rates_text() {
  return "predictions are estimates, from a quick look at the machine: `spillway probe` measures "
         "its rates and keeps them";
}

}  // namespace spillway
