// Every CUDA op, in the order in which a layer calls them; the names are those of the CPU's
// (kernels/cpu/ops.h), which say what an op computes. All pointers are device memory unless a line
// says "host". Launchers CHECK shapes, launch on exec.stream, check the launch, return: they do not
// wait, allocate or synchronise, and every one may be captured in a graph.
//   Empty inputs (0 rows) are legal and launch nothing.
//   Bits: the same input in the same batch shape gives the same bits on the same kind of device.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/int_math.h"
#include "kernels/core/kv_view.h"
#include "kernels/core/packed_matrix.h"
#include "kernels/core/tensor.h"
#include "kernels/cuda/device.h"

namespace spillway::cuda {

class Library;  // cuBLASLt with its workspace: library.h

// How tiles share out a product: strips of 32 rows of weights a block, parts of the columns within
// a block (a warp each) and among `split` blocks of a cluster, chunks of input in shared memory.
struct TilePlan {
  int strips = 1;
  int parts = 1;
  int split = 1;
  int stages = 2;
};

// Where CUDA ops run: passed to every op.
struct Exec {
  StreamHandle stream = nullptr;
  int multiprocessors = 1;
  int major = 8;                 // compute capability
  bool overlap = false;          // programmatic dependent launch: sm_90 on
  Library* library = nullptr;    // for products of many rows; nullptr: tiles alone
  std::byte* scratch = nullptr;  // a dequantised matrix, library_scratch_bytes()
  int64_t scratch_bytes = 0;
  // Rows up to which quantised products go through vectors (at most kVectorRows) and tiles. Where
  // the numbers come from: docs/bench/gpu.md.
  int64_t most_vector_rows = 8;
  int64_t most_tile_rows = 128;
  // Tiles take bf16 input (tile_strip.cuh) where tensor cores do at full rate; else int8
  // (tile.cuh), as on every GeForce.
  bool bf16_tiles = false;
  const TilePlan* tile_plan = nullptr;  // for every product of strips; nullptr: by its shape
  // Beyond most_tile_rows, up to so many rows: wgmma with weights from codes in registers, where
  // the build and the device have it (wide.h).
  bool wide = false;
  int64_t most_wide_rows = 2048;
};

// On that device, with nothing but what every op needs.
inline Exec exec_on(const Stream& stream, const DeviceInfo& device) {
  Exec exec;
  exec.stream = stream.handle();
  exec.multiprocessors = device.multiprocessors;
  exec.major = device.major;
  exec.overlap = device.major >= 9;
  return exec;
}

// 32 values of a row of a product's input: x ~ scale * q8; sums of the codes of each half.
struct ActivationBlock {
  float scale;
  int16_t sum[2];
};
static_assert(sizeof(ActivationBlock) == 8);
inline constexpr int64_t kActivationBlock = 32;

// Rows that an int8 input is laid out for: 1, 2, 4 or a multiple of 8. What the rows beyond n hold
// does not matter.
inline constexpr int64_t padded_rows(int64_t n) {
  return n <= 2 ? n : n <= 4 ? 4 : (n + 7) / 8 * 8;
}

// The forms in which a product reads its input; made once for all matrices that read it.
enum InputForm : unsigned {
  kFloatForm = 1,  // x: matrices of plain floats, few rows
  kInt8Form = 2,   // q8 and blocks: quantised matrices, few rows and tiles
  kBf16Form = 4,   // bf16: many rows, through the library
};

// Input of a product, n rows of cols values, cols a multiple of 32 where the int8 form is made.
//   x       [n, cols]
//   q8      [cols/32][padded_rows(n)][32]: a row's 32 codes are 8 quads of 4, in the order
//           0 4 1 5 2 6 3 7, so that a tile's fragment is one 8-byte load
//   blocks  [cols/32][padded_rows(n)]
//   bf16    [n, cols]
// Codes are the CPU's: scale = max|x| / 127, nearest, ties to even; below 2^-100 all 0; a NaN or an
// infinity makes scale NaN and codes 0.
struct Input {
  int64_t n = 0;
  int64_t cols = 0;
  float* x = nullptr;
  int8_t* q8 = nullptr;
  ActivationBlock* blocks = nullptr;
  uint16_t* bf16 = nullptr;
};

// The most rows that the vector kernels take. Beyond exec.most_vector_rows quantised products go
// through tiles, beyond exec.most_tile_rows through wide.h or dequantised to bf16 through cuBLASLt.
inline constexpr int64_t kVectorRows = 8;
// The forms that a product of n rows with matrices of this type reads.
unsigned input_forms(const Exec& exec, QuantType type, int64_t n);

// out = row tokens[i] - first_row of the table, zeros where it is not in it. out [n, dim].
void embed(const Exec& exec, const PackedMatrix& table, const int32_t* tokens, int64_t first_row,
           View2D<float> out);

// x / sqrt(mean(x^2) + eps) * weight by row, in the forms asked for. x [n, dim]; out.n, out.cols
// are x's. With kFloatForm out.x may be x's own memory.
void rms_norm(const Exec& exec, View2D<const float> x, const float* weight, float eps,
              unsigned forms, const Input& out);
// The same over every head of a row, in place: x [n, n_heads*head_dim], weight [head_dim].
void rms_norm_heads(const Exec& exec, const float* weight, float eps, int64_t head_dim,
                    View2D<float> x);
// x += y (add) or x = y, then, unless weight is nullptr, rms_norm of x in the forms asked for, with
// its bits; out.x is not x, y may be without add. y [n, dim] as floats or as bf16: a sum over ranks
// (parallel/).
void add_rms_norm(const Exec& exec, View2D<const float> y, View2D<float> x, bool add,
                  const float* weight, float eps, unsigned forms, const Input& out);
void add_rms_norm(const Exec& exec, View2D<const uint16_t> y, View2D<float> x, bool add,
                  const float* weight, float eps, unsigned forms, const Input& out);
// The forms of x itself; x may be out.x.
void quantize_rows(const Exec& exec, View2D<const float> x, unsigned forms, const Input& out);

// Rows [begin, end) of a product that have events of their own, so that other streams can work on
// some rows while this one multiplies others. `ready`, unless nullptr, is waited for before the
// rows are read; `done` is recorded when their results are there.
struct RowBlock {
  int64_t begin = 0;
  int64_t end = 0;
  const Event* ready = nullptr;
  Event* done = nullptr;
};

// out = [parts[0]; parts[1]; ...] x for every row: out [n, sum of the parts' rows]. blocks: none,
// or all rows in order; a product that is not made by rows waits for all and ends with all.
void matmul(const Exec& exec, std::span<const PackedMatrix> parts, const Input& a,
            View2D<float> out, std::span<const RowBlock> blocks = {});
// out += w x.
void matmul_add(const Exec& exec, const PackedMatrix& w, const Input& a, View2D<float> out);
// act(gate x) * up x in the forms asked for, when `fused_gate` says so; gate and up have the same
// type and shape, rows a multiple of 16 or 32. blocks: as in matmul.
bool fused_gate(const Exec& exec, const PackedMatrix& gate, const PackedMatrix& up, int64_t n,
                unsigned forms);
void matmul_gated(const Exec& exec, const PackedMatrix& gate, const PackedMatrix& up, bool gelu,
                  const Input& a, unsigned forms, const Input& out,
                  std::span<const RowBlock> blocks = {});
// Scratch that a matrix needs on its way through the library.
int64_t library_scratch_bytes(QuantType type, int64_t rows, int64_t cols);

// x[row] += bias, by row.
void add_bias(const Exec& exec, const float* bias, View2D<float> x);
// x += y; x *= factor.
void add_rows(const Exec& exec, View2D<const float> y, View2D<float> x);
void scale_rows(const Exec& exec, float factor, View2D<float> x);

// cos and sin [n, n_pairs] of angles[p] * positions[i], times magnitude; angles in f64.
void rope_table(const Exec& exec, const int32_t* positions, const double* angles, double magnitude,
                View2D<float> cos, View2D<float> sin);
struct RopeTable {
  View2D<const float> cos;  // [n, n_rot/2]
  View2D<const float> sin;
};
enum class RopePairing { kAdjacent, kHalves };
void rope(const Exec& exec, const RopeTable& table, RopePairing pairing, int64_t head_dim,
          View2D<float> x);
// Rows to slots[i] = page * page_tokens + offset; a slot of -1 is written nowhere.
void kv_write(const Exec& exec, View2D<const float> k, View2D<const float> v, const int64_t* slots,
              const KvView& cache);
// rope of q in place, rope of k on its way to the cache, v to the cache: one launch. q, k, v are
// column ranges of one [n, ...] matrix.
void rope_kv_write(const Exec& exec, const RopeTable& table, RopePairing pairing, View2D<float> q,
                   View2D<const float> k, View2D<const float> v, const int64_t* slots,
                   const KvView& cache);

// The sequences of a step on the device. Rows [first_row, first_row+n_rows) are positions
// first_position, ...; its pages are pages[first_page...].
struct SequenceRows {
  int32_t first_row;
  int32_t n_rows;
  int32_t first_position;
  int32_t first_page;
};
struct StepRows {
  const SequenceRows* sequences = nullptr;
  const int32_t* pages = nullptr;
  int64_t n_sequences = 0;
  int64_t n_rows = 0;        // of the step
  int64_t most_rows = 0;     // host: the greatest n_rows of a sequence; 1 is decode
  int64_t most_context = 0;  // host: no first_position + n_rows is greater
};
struct AttendRule {
  float scale = 1;
  int64_t window = 0;
};
// Causal softmax(scale q k) v. q [n, n_heads*head_dim], not out.x; out in the forms asked for.
// head_dim a multiple of 16, at most 256 (64, 80, 96, 128 and 256 without padding); page_tokens a
// multiple of 16.
//   workspace: attend_workspace_bytes() for the greatest step. Its first kAttendCounterBytes are
//   zeros before the first call, every call leaves them so, and nobody else writes them; one call
//   at a time.
//   sequences (16-byte aligned) and pages are read before the kernels ahead on the stream have
//   ended: they are copied to the device, not written by a kernel.
inline constexpr int64_t kAttendCounterBytes = 32768;
void attend(const Exec& exec, View2D<const float> q, const StepRows& step, const HeadMap& heads,
            const KvView& cache, const AttendRule& rule, std::byte* workspace, unsigned forms,
            const Input& out);
// rope_kv_write and attend in one launch, with their bits, for a step in which every row is a
// sequence of its own: no row sees another's new token (most_rows is 1, n_rows is n_sequences). q
// is not written. Early, like sequences and pages, slots are read, and what the cache holds of
// earlier tokens: kernels between the step's copies and this one do not write it. A row whose slot
// is -1 writes nowhere and attends to what its pages hold.
void attend_decode(const Exec& exec, const RopeTable& table, RopePairing pairing,
                   View2D<const float> q, View2D<const float> k, View2D<const float> v,
                   const int64_t* slots, const StepRows& step, const HeadMap& heads,
                   const KvView& cache, const AttendRule& rule, std::byte* workspace,
                   unsigned forms, const Input& out);
int64_t attend_workspace_bytes(const Exec& exec, int64_t max_rows, int64_t max_sequences,
                               int64_t n_heads, int64_t n_kv_heads, int64_t head_dim,
                               int64_t max_context);

// silu(gate) * up, or gelu's tanh form; gate_up [n, 2*ff]; out [n, ff] in the forms asked for.
void gated_activation(const Exec& exec, View2D<const float> gate_up, bool gelu, unsigned forms,
                      const Input& out);

// rows[i] of x to row i of out. x [*, dim], out [n, dim].
void gather_rows(const Exec& exec, View2D<const float> x, const int32_t* rows, View2D<float> out);

// *sum += the hash of x's rows, but of those whose slot is -1, unless slots is nullptr.
void hash_rows(const Exec& exec, View2D<const float> x, const int64_t* slots, uint64_t* sum);

struct Candidate {
  int32_t token;
  float logit;
};
// The k best of every row, best first, equal logits by smaller token, NaN after every number:
// out [n, k]; token numbers start at first_token. k <= min(kMaxCandidates, logits.cols).
inline constexpr int64_t kMaxCandidates = 256;
void top_k(const Exec& exec, View2D<const float> logits, int64_t first_token, int64_t k,
           std::byte* workspace, Candidate* out);
int64_t top_k_workspace_bytes(int64_t max_rows, int64_t vocab_rows);

// GGUF rows to the packed layout of kernels/cpu/pack.h. data: device memory, row 0 of `rows` whole
// file rows of a [*, source_cols] matrix; columns [cols.begin, cols.end) of them become rows
// out_row, ... of out.
void pack(const Exec& exec, QuantType type, const std::byte* data, int64_t rows,
          int64_t source_cols, Range cols, const PackedMatrix& out, int64_t out_row);

}  // namespace spillway::cuda
