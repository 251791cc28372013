// CPU clock: milliseconds of a half layer on a rank's threads, from the rates that its kernels
// reach (parallel/cpu_rates.h). Called by stage_clock.cc for stages on CPUs whose ranks have
// measured them; others count with one read rate and one product rate (rates.h). Pure.
//
// With n rows, for each matrix:  max(packed bytes / row rate, n * multiply-adds / product rate)
// attention:  one row a sequence: max(cache's bytes / attention's row rate, / the products' row
//             rate); a prompt: multiply-adds / attention's product rate
// the rest:   a half of layer_us, and its values * max(row_value_ns, n * value_ns); values: of dim
//             and of this rank's ff
#pragma once

#include <vector>

#include "parallel/cluster_spec.h"
#include "parallel/model_spec.h"
#include "parallel/plan.h"

namespace spillway {

// The types of a model's matrices, rising.
std::vector<QuantType> matrix_types(const ModelSpec& model);

struct CpuTimes {
  double matrix_ms = 0;
  double attention_ms = 0;
  double other_ms = 0;
  double total_ms() const { return matrix_ms + attention_ms + other_ms; }
};

// What attention of one layer multiplies and reads in a step.
struct AttentionWork {
  bool prefill = false;
  double products = 0;   // multiply-adds, for a prefill
  int64_t kv_bytes = 0;  // of all rows, for decode
};

// A matrix of a type that was not measured counts as that with the nearest bits a weight.
double cpu_matrix_ms(const CpuRates& rates, QuantType type, int64_t rows, int64_t cols,
                     int64_t step_rows);
CpuTimes cpu_attention_half(const CpuRates& rates, const ModelSpec& model, const LayerSpec& layer,
                            const LayerPart& part, const AttentionWork& work, int64_t step_rows);
CpuTimes cpu_feed_forward_half(const CpuRates& rates, const ModelSpec& model,
                               const LayerSpec& layer, const LayerPart& part, int64_t step_rows);

}  // namespace spillway
