// See rates.h.
#include "parallel/rates.h"

namespace spillway {
namespace {

constexpr double kGpuReadGbPerS = 1000.0;   // of a GPU that did not measure it
constexpr double kGpuMatrixTflops = 300.0;  // bf16, likewise
constexpr double kGopPerTflop = 500.0;      // 1e9 multiply-adds are 2e9 operations

double measured_or(double measured, double estimate) { return measured > 0 ? measured : estimate; }

}  // namespace

RankRates rates_of(const RankSpec& spec, bool gpu) {
  static const RankSpec kAssumed = assumed_cluster(1).ranks[0];
  RankRates rates;
  rates.cpu_read = measured_or(spec.read_gb_per_s, kAssumed.read_gb_per_s);
  rates.cpu_read_alone = rates.cpu_read;
  rates.cpu_matrix = measured_or(spec.matrix_gop_per_s, kAssumed.matrix_gop_per_s);
  rates.disk = measured_or(spec.disk_gb_per_s, kDiskGbPerS);
  rates.page_cache = measured_or(spec.page_cache_gb_per_s, kPageCacheGbPerS);
  if (!gpu) {
    rates.read = rates.cpu_read;
    rates.matrix = rates.cpu_matrix;
    return rates;
  }
  rates.read = kGpuReadShare * measured_or(spec.gpu.read_gb_per_s, kGpuReadGbPerS);
  rates.matrix =
      kGpuMatrixShare * kGopPerTflop * measured_or(spec.gpu.matrix_tflops, kGpuMatrixTflops);
  rates.bus_alone = measured_or(spec.gpu.h2d_gb_per_s, kBusGbPerS);
  rates.bus = rates.bus_alone;
  if (!spec.host_reads.empty()) {
    const HostRead& all = spec.host_reads.back();
    rates.cpu_read_alone = measured_or(all.gb_per_s, rates.cpu_read);
    rates.cpu_read = measured_or(all.beside_bus_gb_per_s, rates.cpu_read);
    rates.bus = measured_or(all.bus_gb_per_s, rates.bus);
  }
  return rates;
}

}  // namespace spillway
