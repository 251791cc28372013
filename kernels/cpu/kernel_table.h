// The kernels that exist once per instruction set, as a table of function pointers. The op files
// (product.cc, norm.cc, attend.cc, ...) check shapes, divide the work over threads and call through
// kernel_table(exec.isa); nothing else does. Arguments are plain pointers and strides, because the
// units behind the table may share no inline code with the rest (lanes.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/kv_view.h"
#include "kernels/core/packed_matrix.h"
#include "kernels/cpu/block_search.h"

namespace spillway::cpu {

enum class Isa;

// Row groups [group_begin, group_end) of one matrix times n activation rows. Strides in elements.
// q8, scale and sum are read when the type is quantised, x when it is not.
struct ProductArgs {
  const std::byte* weights = nullptr;  // the packed matrix
  GroupLayout layout;
  int64_t rows = 0;  // of the matrix; the last group may be padded
  int64_t cols = 0;
  int64_t group_begin = 0;
  int64_t group_end = 0;
  int64_t n = 0;
  const float* x = nullptr;
  int64_t x_stride = 0;
  const int8_t* q8 = nullptr;
  int64_t q8_stride = 0;
  const float* scale = nullptr;
  int64_t scale_stride = 0;
  const int32_t* sum = nullptr;
  int64_t sum_stride = 0;
  void* out = nullptr;  // float or double [n, rows]
  int64_t out_stride = 0;
};

// Queries that share a KV head. All pointers to rows of head_dim floats.
inline constexpr int kQueryTile = 8;
inline constexpr int64_t kMaxHeadDim = 256;
struct AttendArgs {
  int n_queries = 0;
  const float* q[kQueryTile] = {};
  float* out[kQueryTile] = {};
  int64_t first[kQueryTile] = {};  // query i sees positions [first[i], limit[i]), at least one
  int64_t limit[kQueryTile] = {};
  const std::byte* k = nullptr;  // of page 0 and this head
  const std::byte* v = nullptr;
  KvType type = KvType::kF16;
  int64_t page_stride_bytes = 0;
  int64_t page_tokens = 0;
  const int32_t* pages = nullptr;
  int64_t head_dim = 0;
  float scale = 0;
};

struct KernelTable {
  void (*product)(QuantType type, const ProductArgs& args);          // out is float
  void (*product_partial)(QuantType type, const ProductArgs& args);  // out is double
  void (*rms_norm_row)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*quantize_row)(const float* x, int64_t n_blocks, int8_t* q8, float* scale, int32_t* sum);
  void (*swiglu_row)(const float* gate, const float* up, int64_t n, float* out);
  void (*geglu_row)(const float* gate, const float* up, int64_t n, float* out);
  void (*to_f16_row)(const float* x, int64_t n, uint16_t* out);
  void (*attend)(const AttendArgs& args);
  void (*exp_row)(const float* x, int64_t n, float* out);  // for the tests of its accuracy
  void (*search_blocks)(const SearchInput& in, const SearchShape& shape, SearchResult* out);
};

const KernelTable& kernel_table(Isa isa);

// Filled by product_<isa>.cc, search_<isa>.cc and rows_<isa>.cc.
#define SPILLWAY_DECLARE_KERNELS(set)                                                     \
  namespace set {                                                                         \
  void product(QuantType type, const ProductArgs& args);                                  \
  void product_partial(QuantType type, const ProductArgs& args);                          \
  void search_blocks(const SearchInput& in, const SearchShape& shape, SearchResult* out); \
  extern const KernelTable kTable;                                                        \
  }
SPILLWAY_DECLARE_KERNELS(lanes_scalar)
SPILLWAY_DECLARE_KERNELS(lanes_avx2)
SPILLWAY_DECLARE_KERNELS(lanes_avx512)
#undef SPILLWAY_DECLARE_KERNELS

}  // namespace spillway::cpu
