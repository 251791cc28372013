// How a kernel writes the input of the next product, in the forms of ops.h: int8 codes with the
// CPU's bits, bf16, float. Included by every kernel whose output a product reads.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_quads.cuh"

namespace spillway::cuda {

inline constexpr int kBlockQuads = 8;  // quads, and so lanes, of a block of 32 values

// Below this a block is all but zero and 127 / max could overflow: codes 0, scale 0.
inline constexpr float kSmallestMaximum = 0x1p-100f;

// Where a block keeps quad q: see Input.
__device__ __forceinline__ int quad_place(int q) { return q < 4 ? 2 * q : 2 * q - 7; }

// The block that 8 lanes hold, lane l of them (threadIdx.x % 8) its quad l: 32 codes to q8, scale
// and sums to block. The 8 lanes call together; other lanes of the warp need not. Codes are those
// of the CPU's quantize_rows: x times the rounded 127 / max, rounded once more to an integer.
__device__ __forceinline__ void quantize_quad(float4 v, int8_t* q8, ActivationBlock* block) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned lanes = 0xffu << (lane & 24);
  // As integers the magnitudes order like the floats, with infinity and NaN above all numbers.
  const auto magnitude = [](float f) { return __float_as_int(f) & 0x7fffffff; };
  int max_bits = max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
  for (int step = 1; step < kBlockQuads; step *= 2) {
    max_bits = max(max_bits, __shfl_xor_sync(lanes, max_bits, step));
  }
  const float maximum = __int_as_float(max_bits);
  const bool finite = max_bits < 0x7f800000;
  const bool usable = finite && maximum >= kSmallestMaximum;
  const float inverse = usable ? __fdiv_rn(127.0f, maximum) : 0.0f;
  const auto code = [&](float f) { return usable ? __float2int_rn(__fmul_rn(f, inverse)) : 0; };
  const int c0 = code(v.x), c1 = code(v.y), c2 = code(v.z), c3 = code(v.w);
  int sum = c0 + c1 + c2 + c3;
  sum += __shfl_xor_sync(lanes, sum, 1);
  sum += __shfl_xor_sync(lanes, sum, 2);  // of a half: 4 lanes
  const int other = __shfl_xor_sync(lanes, sum, 4);
  const auto quad = static_cast<int>(lane % kBlockQuads);
  const auto word = static_cast<uint32_t>((c0 & 255) | (c1 & 255) << 8 | (c2 & 255) << 16) |
                    static_cast<uint32_t>(c3) << 24;
  reinterpret_cast<uint32_t*>(q8)[quad_place(quad)] = word;
  if (quad == 0) {
    const float scale = !finite  ? __int_as_float(0x7fc00000)
                        : usable ? __fdiv_rn(maximum, 127.0f)
                                 : 0.0f;
    *reinterpret_cast<int2*>(block) = {__float_as_int(scale), (sum & 0xffff) | other << 16};
  }
}

// What an op writes of a product's input. Made by input_writer() on the host, passed by value.
struct InputWriter {
  Input out;
  int64_t padded = 0;  // rows that q8 and blocks are laid out for
  unsigned forms = 0;
  bool whole_x = false;
  bool whole_bf16 = false;

  // Quad `quad` of a row. For the int8 form a group of 8 threads calls with the quads of one block,
  // thread t with a quad that is t modulo 8.
  __device__ __forceinline__ void put(int64_t row, int64_t quad, float4 v) const {
    if (forms & kFloatForm) store_quad(out.x + row * out.cols, quad, out.cols, whole_x, v);
    if (forms & kBf16Form) put_bf16(out.bf16 + row * out.cols, quad, v);
    if (forms & kInt8Form) {
      const int64_t block = (quad / kBlockQuads) * padded + row;
      quantize_quad(v, out.q8 + block * kActivationBlock, out.blocks + block);
    }
  }

 private:
  __device__ __forceinline__ void put_bf16(uint16_t* row, int64_t quad, float4 v) const {
    uint16_t* at = row + quad * kQuadColumns;
    const auto bits = [](float f) { return __bfloat16_as_ushort(__float2bfloat16_rn(f)); };
    if (whole_bf16) {
      *reinterpret_cast<ushort4*>(at) = {bits(v.x), bits(v.y), bits(v.z), bits(v.w)};
      return;
    }
    const int64_t n = out.cols - quad * kQuadColumns;
    if (n > 0) at[0] = bits(v.x);
    if (n > 1) at[1] = bits(v.y);
    if (n > 2) at[2] = bits(v.z);
    if (n > 3) at[3] = bits(v.w);
  }
};

inline InputWriter input_writer(const Input& out, unsigned forms) {
  CHECK((forms & ~unsigned{kFloatForm | kInt8Form | kBf16Form}) == 0);
  InputWriter writer{out, padded_rows(out.n), forms, false, false};
  if (out.n == 0 || out.cols == 0) return writer;
  if (forms & kFloatForm) {
    CHECK(out.x != nullptr);
    writer.whole_x = whole_quads(View2D<float>(out.x, out.n, out.cols));
  }
  if (forms & kBf16Form) {
    CHECK(out.bf16 != nullptr);
    writer.whole_bf16 = whole_quads(View2D<uint16_t>(out.bf16, out.n, out.cols));
  }
  if (forms & kInt8Form) {
    CHECK_EQ(out.cols % kActivationBlock, 0);
    CHECK(out.q8 != nullptr && reinterpret_cast<uintptr_t>(out.q8) % 16 == 0);
    CHECK(out.blocks != nullptr && reinterpret_cast<uintptr_t>(out.blocks) % 8 == 0);
  }
  return writer;
}

}  // namespace spillway::cuda
