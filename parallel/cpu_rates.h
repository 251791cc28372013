// What a layer's ops reach on a rank's threads: the kernels themselves are run, as layers run them
// (runtime/stage/cpu_layer.cc), on made-up weights. A plain read of memory says too little: two
// threads of one core that multiply reach four fifths of what two reach that only read, and sums in
// f64 make a product half as long again as the same in floats.
//   Thread: the pool's owner. Takes its buffers in the constructor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/ops.h"
#include "parallel/cluster_spec.h"
#include "parallel/host_reads.h"

namespace spillway {

// All types that the kernels multiply with, by GGUF's numbers.
std::vector<QuantType> all_product_types();

class CpuProbe {
 public:
  // weights: what one-row products read, past the caches. Both are kept by reference.
  CpuProbe(const cpu::Exec& exec, const ReadBuffer& weights);
  ~CpuProbe();
  CpuProbe(const CpuProbe&) = delete;
  CpuProbe& operator=(const CpuProbe&) = delete;

  // threads: at work on the host meanwhile. types: rising. About `seconds` for each of slices(),
  // `before` each of which is called: ranks that measure at the same time begin together there.
  // From each slice the median of the runs in which no others had the threads' cores; where there
  // are too few of those, of their processor time, or beside others of all runs.
  CpuRates measure(int threads, std::span<const QuantType> types, double seconds, bool beside,
                   const std::function<void()>& before);
  // How often `before` is called: what a rank must do as often that only waits.
  static int slices(std::span<const QuantType> types);
  // Of all products so far: the share of the threads' time in which they could have run and others
  // had their cores. 0 where the kernel does not count that.
  double busy_share() const { return busy_.wanted_s > 0 ? busy_.lost_s / busy_.wanted_s : 0; }

 private:
  struct Inputs;
  struct Layer;
  struct Cache;
  struct Busy {
    double wanted_s = 0, lost_s = 0;  // of all threads together
  };
  struct Took {
    double seconds = 0, bytes = 0, products = 0;  // of a run
  };
  // Times so many rows, each product of so many bytes of weights.
  Took products(QuantType type, int64_t rows, int64_t bytes, double seconds, bool beside);
  double row_gb_per_s(QuantType type, double seconds, bool beside);
  double gop_per_s(QuantType type, double seconds, bool beside);
  void attend(CpuRates& rates, double seconds, bool beside);
  void other_ops(CpuRates& rates, double seconds, bool beside);

  const cpu::Exec& exec_;
  const ReadBuffer& weights_;
  Busy busy_;
  std::unique_ptr<Inputs> inputs_;
  std::unique_ptr<Cache> cache_;
  std::unique_ptr<Layer> layer_;
};

}  // namespace spillway
