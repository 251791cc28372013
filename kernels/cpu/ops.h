// Every CPU op, in the order in which a layer calls them. kernels/cuda will have the same names.
// All ops: launchers take views, CHECK the shapes, compute, return. They allocate nothing, know no
// model and no rank. Empty inputs (0 rows, 0 heads, 0 columns) are legal and do nothing, except
// that a product over 0 columns writes zeros.
//
// Bits: for a given row of weights and row of input the result depends neither on the number of
// threads, nor on what else is in the batch, nor on the instruction set (docs/numerics.md).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/kv_view.h"
#include "kernels/core/packed_matrix.h"
#include "kernels/core/tensor.h"
#include "kernels/core/thread_pool.h"

namespace spillway::cpu {

enum class Isa { kScalar, kAvx2, kAvx512 };

// The best that this processor has; and its name for tables ("scalar", "avx2", "avx512-vnni").
Isa best_isa();
const char* isa_name(Isa isa);

// Where CPU ops run: passed to every op, there is no ambient one. isa must not be above best_isa().
struct Exec {
  ThreadPool* pool = nullptr;
  Isa isa = Isa::kScalar;
};

// Input of a product, made once for all matrices that read it. x is always set. q8, scale and sum
// are needed when one of the matrices is quantised: int8 codes by blocks of 32 values,
// x ~ scale * q8; sum = the sum of codes of 16, the smallest sub-block of a weight type.
struct Activations {
  View2D<const float> x;  // [n, cols]
  View2D<int8_t> q8;      // [n, cols]
  View2D<float> scale;    // [n, cols / 32]
  View2D<int32_t> sum;    // [n, cols / 16]
};
inline constexpr int64_t kActivationBlock = 32;
inline constexpr int64_t kSumBlock = 16;

// out[i] = row tokens[i] - first_row of the table, dequantised; zeros when the row is not in it
// (vocabulary-sharded: the sum over ranks is the embedding). table [rows, dim], out [n, dim].
void embed(const Exec& exec, const PackedMatrix& table, std::span<const int32_t> tokens,
           int64_t first_row, View2D<double> out);

// out = x / sqrt(mean(x^2) + eps) * weight, by row. x, out [n, dim], weight [dim]. out may be x.
// Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
void rms_norm(const Exec& exec, View2D<const float> x, std::span<const float> weight, float eps,
              View2D<float> out);

// The same over every head of a row, in place: x [n, n_heads*head_dim], weight [head_dim]. weight
// may be empty (nothing is done).
void rms_norm_heads(const Exec& exec, std::span<const float> weight, float eps, View2D<float> x);

// Fills a.q8, a.scale, a.sum from a.x: scale = max|x| / 127 of a block, codes rounded to nearest,
// ties to even, so within [-127, 127]. A block whose greatest magnitude is below 2^-100 gets scale
// and codes 0; one that holds a NaN or an infinity gets scale NaN and codes 0, which makes every
// product of its row NaN. cols must be a multiple of 32.
void quantize_rows(const Exec& exec, const Activations& a);

// out = [parts[0]; parts[1]; ...] x for every row of the input: out [n, sum of the parts' rows].
// One parallel region for all parts (Q, K and V; gate and up). Any n: one kernel for a few rows,
// tiles for many, with equal bits.
void matmul(const Exec& exec, std::span<const PackedMatrix> parts, const Activations& a,
            View2D<float> out);

// The same product as a part of a sum over ranks that hold other columns: exact to f64, so that
// the sum over any split rounds to the same float (docs/numerics.md). out [n, w.rows].
void matmul_partial(const Exec& exec, const PackedMatrix& w, const Activations& a,
                    View2D<double> out);

// x[row] += bias, by row. bias may be empty (nothing is done).
void add_bias(const Exec& exec, std::span<const float> bias, View2D<float> x);

enum class RopePairing {
  kAdjacent,  // (x0,x1), (x2,x3), ...: "llama" GGUF files
  kHalves,    // (x0,x[d/2]), ...: GPT-NeoX, Qwen
};
// Cosines and sines of a step's rows, shared by all layers: [n, n_rot/2] each.
struct RopeTable {
  View2D<const float> cos;
  View2D<const float> sin;
};
// Rotates the first n_rot = 2 * table.cos.cols values of every head. x [n, n_heads*head_dim].
// Su et al., RoFormer, 2021.
void rope(const Exec& exec, const RopeTable& table, RopePairing pairing, int64_t head_dim,
          View2D<float> x);

// Writes rows k, v [n, n_kv_heads*head_dim] to their pages; slots[i] = page * page_tokens + offset.
void kv_write(const Exec& exec, View2D<const float> k, View2D<const float> v,
              std::span<const int64_t> slots, const KvView& cache);

// What a query of attend sees: position p sees positions p - window + 1 to p (0: all up to p), with
// scores of scale * q.k.
struct AttendRule {
  float scale = 1;
  int64_t window = 0;
};
// Causal softmax(scale q k) v of every row over its sequence's pages.
// q, out [n, heads.n_heads*head_dim]; out may not be q. Online softmax over pages
// (Milakov and Gimelshein 2018), one fixed order. head_dim even and at most 256.
void attend(const Exec& exec, View2D<const float> q, std::span<const AttendSequence> sequences,
            const HeadMap& heads, const KvView& cache, const AttendRule& rule, View2D<float> out);

// out = silu(gate) * up. gate_up [n, 2*ff]: gate's columns, then up's. out [n, ff].
void swiglu(const Exec& exec, View2D<const float> gate_up, View2D<float> out);
// out = gelu(gate) * up with gelu's tanh approximation: g / (1 + e^-2u), u = sqrt(2/pi) (g +
// 0.044715 g^3). Shapes as swiglu. Hendrycks and Gimpel, 2016; Shazeer, GLU Variants, 2020.
void geglu(const Exec& exec, View2D<const float> gate_up, View2D<float> out);

// out = float(sum), the one rounding of a sum over ranks; a zero is +0, as in a sum of two ranks.
// out, sum [n, dim].
void round_sum(const Exec& exec, View2D<const double> sum, View2D<float> out);
// x += float(sum), the same rounding. x, sum [n, dim].
void add_residual(const Exec& exec, View2D<const double> sum, View2D<float> x);
// x += y. x, y [n, dim].
void add_rows(const Exec& exec, View2D<const float> y, View2D<float> x);
// x *= factor, by value.
void scale_rows(const Exec& exec, float factor, View2D<float> x);

// The hash of x's rows (core/row_hash.h) without those whose slot is -1, if there are slots. Equal
// on every instruction set and on the GPU.
uint64_t hash_rows(const Exec& exec, View2D<const float> x, std::span<const int64_t> slots = {});

struct Candidate {
  int32_t token = 0;
  float logit = 0;
};
// The out.size() best of one row of logits, best first, equal logits by smaller token first;
// token numbers start at first_token. A NaN comes after every number. out.size() <= logits.size().
void top_k(const Exec& exec, std::span<const float> logits, int64_t first_token,
           std::span<Candidate> out);

// Packs a GGUF matrix's rows [rows.begin, rows.end) and columns [cols.begin, cols.end) into rows
// out_row, out_row+1, ... of `out`. Columns must be cut on the type's blocks. Layout: pack.h.
struct GgufMatrix {
  QuantType type = QuantType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;
};
void pack(const Exec& exec, const GgufMatrix& source, Range rows, Range cols,
          const PackedMatrix& out, int64_t out_row);

// Row-major floats of a GGUF tensor's `elements` values from `data`: for norms and biases, and the
// reference of all dequantisation. out.size() values.
void dequantize(QuantType type, const std::byte* data, std::span<float> out);

}  // namespace spillway::cpu
