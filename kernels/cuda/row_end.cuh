// How a sum over ranks ends, whatever carried it: into the residual stream x, then normed into the
// forms of the next product. Written once for add_rms_norm and the peers' sums, so that every
// fabric gives the same bits from the same sum. A thread has a few quads of a row in registers.
#pragma once

#include "kernels/cuda/norm_rows.cuh"

namespace spillway::cuda {

struct RowEnd {
  View2D<float> x;
  bool whole_x = false;
  bool add = true;                // x += sum; false: x = sum
  const float* weight = nullptr;  // nullptr: no norm
  bool whole_weight = false;
  float eps = 0;
  InputWriter writer;
};

inline RowEnd row_end(View2D<float> x, bool add, const float* weight, float eps, unsigned forms,
                      const Input& out) {
  RowEnd end{x, whole_quads(x), add, nullptr, false, eps, {}};
  if (weight == nullptr || forms == 0) return end;
  CHECK_EQ(out.n, x.rows);
  CHECK_EQ(out.cols, x.cols);
  CHECK(!(forms & kFloatForm) || out.x != x.data);  // x is still needed
  end.weight = weight;
  end.whole_weight = whole_vector(weight, x.cols);
  end.writer = input_writer(out, forms);
  return end;
}

// The quads of a row that a thread has: first, first + step, ..., below end.
struct ThreadQuads {
  int64_t first, step, end;
  __device__ __forceinline__ int64_t at(int k) const { return first + k * step; }
  __device__ __forceinline__ bool has(int k) const { return at(k) < end; }
};

// Weights of the thread's quads: loaded ahead into registers, or, where those are short, at the
// end.
template <int kQuads>
struct EarlyWeights {
  float4 values[kQuads];
  __device__ __forceinline__ EarlyWeights(const RowEnd& end, const ThreadQuads& quads) {
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      values[k] = end.weight != nullptr && quads.has(k)
                      ? load_quad(end.weight, quads.at(k), end.x.cols, end.whole_weight)
                      : float4{0, 0, 0, 0};
    }
  }
  __device__ __forceinline__ float4 operator()(int k) const { return values[k]; }
};
struct LateWeights {
  const RowEnd& end;
  const ThreadQuads& quads;
  __device__ __forceinline__ float4 operator()(int k) const {
    return load_quad(end.weight, quads.at(k), end.x.cols, end.whole_weight);
  }
};

// What the sum is added to: x, or zeros that nobody adds.
template <int kQuads>
__device__ __forceinline__ void load_x(const RowEnd& end, int64_t row, const ThreadQuads& quads,
                                       float4 (&x)[kQuads]) {
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    x[k] = end.add && quads.has(k)
               ? load_quad(end.x.data + row * end.x.stride, quads.at(k), end.x.cols, end.whole_x)
               : float4{0, 0, 0, 0};
  }
}

// values: the sum, 0 where the thread has no quad; all threads of the row call. row_sum: see
// norm_factor().
template <int kQuads, typename Weights, typename RowSum>
__device__ __forceinline__ void finish_row(const RowEnd& end, int64_t row, const ThreadQuads& quads,
                                           float4 (&values)[kQuads], const float4 (&x)[kQuads],
                                           const Weights& weight_of, const RowSum& row_sum) {
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    if (!quads.has(k)) continue;
    float4& v = values[k];
    if (end.add) v = {x[k].x + v.x, x[k].y + v.y, x[k].z + v.z, x[k].w + v.w};
    store_quad(end.x.data + row * end.x.stride, quads.at(k), end.x.cols, end.whole_x, v);
  }
  if (end.weight == nullptr) return;
  const float factor = norm_factor(values, end.x.cols, end.eps, row_sum);
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    if (quads.has(k)) end.writer.put(row, quads.at(k), scaled(values[k], factor, weight_of(k)));
  }
}

// Four bf16 values, low to high, and back to floats.
__device__ __forceinline__ uint2 bf16_quad(float4 v) {
  const auto pair = [](float a, float b) {
    return static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(a))) |
           static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(b))) << 16;
  };
  return {pair(v.x, v.y), pair(v.z, v.w)};
}
__device__ __forceinline__ float4 float_quad(uint2 v) {
  const auto low = [](uint32_t u) { return __uint_as_float(u << 16); };
  const auto high = [](uint32_t u) { return __uint_as_float(u & 0xffff0000u); };
  return {low(v.x), high(v.x), low(v.y), high(v.y)};
}

}  // namespace spillway::cuda
