// See host_share.h.
#include "parallel/host_share.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace spillway {
namespace {

double rate_alone(const RankSpec& spec, bool beside_bus) {
  if (spec.host_reads.empty()) return beside_bus ? 0 : spec.read_gb_per_s;
  const HostRead& all = spec.host_reads.back();
  return beside_bus ? all.beside_bus_gb_per_s : all.gb_per_s;
}

// What all readers of the host get, measured with the rank's threads and with all of them.
double total_between(double alone, double together, int own, int all, int threads) {
  const double most = together * all / own;
  const int n = std::min(threads, all);
  return alone + (most - alone) * (n - own) / (all - own);
}

// The curve of the rank's own threads further on.
double total_beyond(const std::vector<HostRead>& reads, int threads) {
  const HostRead& a = reads[reads.size() - 2];
  const HostRead& b = reads.back();
  const double d =
      (1 / a.gb_per_s - 1 / b.gb_per_s) / (1.0 / a.threads - 1.0 / b.threads);  // of 1 / rate
  const double c = 1 / b.gb_per_s - d / b.threads;
  if (c <= 0) return b.gb_per_s * threads / b.threads;
  return d > 0 ? 1 / (c + d / threads) : b.gb_per_s;
}

bool has_curve(const RankSpec& spec) {
  if (!spec.measured || spec.host_reads.size() < 2) return false;
  const HostRead& a = spec.host_reads[spec.host_reads.size() - 2];
  return a.gb_per_s > 0 && spec.host_reads.back().gb_per_s > 0;
}

}  // namespace

double read_slowdown(const RankSpec& spec, int threads, bool beside_bus) {
  if (threads <= spec.threads) return 1;
  const HostRead& all = spec.together;
  const double together = beside_bus ? all.beside_bus_gb_per_s : all.gb_per_s;
  const double alone = rate_alone(spec, beside_bus);
  const double part = static_cast<double>(spec.threads) / threads;
  if (alone > 0 && together > 0 && all.threads > spec.threads) {
    const double total = total_between(alone, together, spec.threads, all.threads, threads);
    return std::max(1.0, alone / (total * part));
  }
  if (!has_curve(spec)) return 1;
  return std::max(
      1.0, spec.host_reads.back().gb_per_s / (total_beyond(spec.host_reads, threads) * part));
}

double bus_slowdown(const RankSpec& spec, int ranks) {
  if (ranks < 2 || spec.host_reads.empty() || spec.together.threads <= spec.threads) return 1;
  const double alone = spec.host_reads.back().bus_gb_per_s;
  const double together = spec.together.bus_gb_per_s;
  if (alone <= 0 || together <= 0) return 1;
  const double total =
      total_between(alone, together, spec.threads, spec.together.threads, spec.threads * ranks);
  return std::max(1.0, alone * ranks / total);
}

double slowdown_of(const HostReaders& one, int threads) {
  if (one.slowdown_of_all <= 0) return read_slowdown(*one.spec, threads, one.beside_bus);
  const int own = one.spec->threads;
  if (threads <= own || one.all_threads <= own) return 1;
  // With the work alone as the unit.
  const double total = total_between(1, 1 / one.slowdown_of_all, own, one.all_threads, threads);
  return std::max(1.0, threads / (total * own));
}

void read_together(std::span<HostReaders> readers, int busy_threads) {
  double done_ms = 0;
  std::vector<HostReaders*> open;
  for (HostReaders& one : readers) {
    if (one.ms > 0) open.push_back(&one);
  }
  // ms of the open ones: what is left of them, as if they were alone.
  while (!open.empty()) {
    int threads = busy_threads;
    for (const HostReaders* one : open) threads += one->count * one->spec->threads;
    const auto takes_ms = [threads](const HostReaders& one) {
      return one.ms * slowdown_of(one, threads);
    };
    double next_ms = takes_ms(*open.front());
    for (const HostReaders* one : open) next_ms = std::min(next_ms, takes_ms(*one));
    done_ms += next_ms;
    std::vector<HostReaders*> still;
    for (HostReaders* one : open) {
      const double left = 1 - next_ms / takes_ms(*one);
      if (left > 1e-9) still.push_back(one);
      one->ms = left > 1e-9 ? one->ms * left : done_ms;
    }
    open = std::move(still);
  }
}

}  // namespace spillway
