// See cpu_clock.h.
#include "parallel/cpu_clock.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/core/check.h"
#include "kernels/core/packed_matrix.h"

namespace spillway {
namespace {

constexpr double kUnitsPerMs = 1e6;  // 1e9 a second, in a millisecond
constexpr double kNsPerMs = 1e6;
constexpr double kUsPerMs = 1e3;

double bits_of(QuantType type) {
  const QuantInfo& info = quant_info(type);
  return static_cast<double>(info.block_bytes) / static_cast<double>(info.block_elements);
}

const ProductRate& rate_of(const CpuRates& rates, QuantType type) {
  CHECK(!rates.products.empty());
  const auto distance = [type](const ProductRate& rate) {
    return rate.type == type ? -1 : std::abs(bits_of(rate.type) - bits_of(type));
  };
  return *std::min_element(
      rates.products.begin(), rates.products.end(),
      [&](const ProductRate& a, const ProductRate& b) { return distance(a) < distance(b); });
}

// Of half of a layer with so many values a row.
double other_ms(const CpuRates& rates, int64_t values, int64_t step_rows) {
  const double ns = std::max(rates.row_value_ns, rates.value_ns * static_cast<double>(step_rows));
  return rates.layer_us / 2 / kUsPerMs + ns * static_cast<double>(values) / kNsPerMs;
}

}  // namespace

std::vector<QuantType> matrix_types(const ModelSpec& model) {
  std::set<QuantType> types = {model.embedding.type};
  if (!model.tied_output()) types.insert(model.output.type);
  for (const LayerSpec& layer : model.layers) {
    for (const MatrixSpec& m :
         {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      if (m.present()) types.insert(m.type);
    }
  }
  return {types.begin(), types.end()};
}

double cpu_matrix_ms(const CpuRates& rates, QuantType type, int64_t rows, int64_t cols,
                     int64_t step_rows) {
  if (rows == 0 || cols == 0) return 0;
  const ProductRate& rate = rate_of(rates, type);
  const double read =
      static_cast<double>(packed_bytes(type, rows, cols)) / (rate.row_gb_per_s * kUnitsPerMs);
  const double multiply = static_cast<double>(rows * cols) * static_cast<double>(step_rows) /
                          (rate.gop_per_s * kUnitsPerMs);
  return std::max(read, multiply);
}

CpuTimes cpu_attention_half(const CpuRates& rates, const ModelSpec& model, const LayerSpec& layer,
                            const LayerPart& part, const AttentionWork& work, int64_t step_rows) {
  const int64_t q_rows = part.heads.size() * model.head_dim;
  const int64_t kv_rows = part.kv_heads.size() * model.head_dim;
  CpuTimes times;
  times.matrix_ms = cpu_matrix_ms(rates, layer.q.type, q_rows, model.dim, step_rows) +
                    cpu_matrix_ms(rates, layer.k.type, kv_rows, model.dim, step_rows) +
                    cpu_matrix_ms(rates, layer.v.type, kv_rows, model.dim, step_rows) +
                    cpu_matrix_ms(rates, layer.o.type, model.dim, q_rows, step_rows);
  if (work.prefill) {
    times.attention_ms = work.products / (rates.attend_gop_per_s * kUnitsPerMs);
  } else {
    // A long cache comes from memory, as weights do.
    const double read = std::min(rates.attend_gb_per_s, rate_of(rates, layer.q.type).row_gb_per_s);
    times.attention_ms = static_cast<double>(work.kv_bytes) / (read * kUnitsPerMs);
  }
  times.other_ms = other_ms(rates, model.dim / 2, step_rows);
  return times;
}

CpuTimes cpu_feed_forward_half(const CpuRates& rates, const ModelSpec& model,
                               const LayerSpec& layer, const LayerPart& part, int64_t step_rows) {
  const int64_t ff = part.ff.size();
  CpuTimes times;
  times.matrix_ms = cpu_matrix_ms(rates, layer.gate.type, ff, model.dim, step_rows) +
                    cpu_matrix_ms(rates, layer.up.type, ff, model.dim, step_rows) +
                    cpu_matrix_ms(rates, layer.down.type, model.dim, ff, step_rows);
  times.other_ms = other_ms(rates, model.dim / 2 + ff, step_rows);
  return times;
}

}  // namespace spillway
