// Rows of halves and floats of the KV cache on their way to the tiles. Past the first cache
// (ld.cg): a value is read once, and the kernel before may have written it.
//   load8          8 values of a row as halves: for tiles in shared memory
//   Key, Value     what a lane of attend_decode.cuh holds of a row, for 16-wide steps of a key and
//                  16-high tiles of transposed values; which dimensions those are is the type's
//                  choice (key_dim, value_dim), made so that a lane reads 16 bytes at once
// Padded dimensions read dimension 0, which meets zeros of Q or is dropped.
#pragma once

#include <type_traits>

#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_tile.cuh"

namespace spillway::cuda {

struct HalfElements {
  static __device__ __forceinline__ const std::byte* address(const std::byte* plane, int64_t at) {
    return plane + at * 2;
  }
  static __device__ __forceinline__ uint4 load8(const std::byte* plane, int64_t at) {
    return __ldcg(reinterpret_cast<const uint4*>(plane + at * 2));
  }
  static __device__ __forceinline__ uint2 load4(const std::byte* plane, int64_t at) {
    return __ldcg(reinterpret_cast<const uint2*>(plane + at * 2));
  }
  static __device__ __forceinline__ uint32_t load2(const std::byte* plane, int64_t at) {
    return __ldcg(reinterpret_cast<const uint32_t*>(plane + at * 2));
  }
};

// Rounded on the way: a float cache costs its bytes and gives the accuracy of halves.
struct FloatElements {
  static __device__ __forceinline__ uint2 load4(const std::byte* plane, int64_t at) {
    const float4 x = __ldcg(reinterpret_cast<const float4*>(plane + at * 4));
    return {half_pair(x.x, x.y), half_pair(x.z, x.w)};
  }
  static __device__ __forceinline__ uint4 load8(const std::byte* plane, int64_t at) {
    const uint2 low = load4(plane, at);
    const uint2 high = load4(plane, at + 4);
    return {low.x, low.y, high.x, high.y};
  }
  static __device__ __forceinline__ uint32_t load2(const std::byte* plane, int64_t at) {
    const float2 x = __ldcg(reinterpret_cast<const float2*>(plane + at * 4));
    return half_pair(x.x, x.y);
  }
};

template <typename Elements>
struct PlainRows {
  static constexpr bool kCopies = std::is_same_v<Elements, HalfElements>;  // as tiles want them
  static constexpr bool kSmall = false;  // in registers, beside halves

  static __device__ __forceinline__ int64_t element(const AttendParams& a, CacheRow row, int dim) {
    return static_cast<int64_t>(row.first + row.offset) * a.head_dim + dim;
  }
  static __device__ __forceinline__ uint4 load8(const AttendParams& a, const std::byte* plane,
                                                CacheRow row, int dim) {
    return Elements::load8(plane, element(a, row, dim));
  }
  static __device__ __forceinline__ const std::byte* address(const AttendParams& a,
                                                             const std::byte* plane, CacheRow row,
                                                             int dim) {
    return Elements::address(plane, element(a, row, dim));
  }

  // Where dimensions first + lane, of a lane's, lie. Without padding the constant comes last, so
  // that a row's pieces are one address and offsets in the instructions.
  template <int kDim, bool kPadded>
  static __device__ __forceinline__ int64_t piece(const AttendParams& a, CacheRow row, int first,
                                                  int lane) {
    const int64_t at = row.first + row.offset;
    if (!kPadded) return at * kDim + lane + first;
    return at * a.head_dim + (first + lane < a.head_dim ? first + lane : 0);
  }

  // Lane c of a key: pieces of 8 dimensions, 32 apart; 4 of the last 16.
  template <int kDim>
  static __device__ __forceinline__ int key_dim(int step, int c) {
    if (step / 2 < kDim / 32) return step / 2 * 32 + c * 8 + step % 2 * 4;
    return kDim / 32 * 32 + c * 4;
  }
  template <int kDim>
  struct Key {
    uint32_t word[kDim / 16][2];
    template <bool kPadded>
    __device__ __forceinline__ void load(const AttendParams& a, CacheRow row, int c) {
#pragma unroll
      for (int i = 0; i < kDim / 32; ++i) {
        const uint4 r = Elements::load8(a.k, piece<kDim, kPadded>(a, row, 32 * i, 8 * c));
        word[2 * i][0] = r.x;
        word[2 * i][1] = r.y;
        word[2 * i + 1][0] = r.z;
        word[2 * i + 1][1] = r.w;
      }
      if constexpr (kDim % 32 != 0) {
        const uint2 r = Elements::load4(a.k, piece<kDim, kPadded>(a, row, kDim / 32 * 32, 4 * c));
        word[kDim / 16 - 1][0] = r.x;
        word[kDim / 16 - 1][1] = r.y;
      }
    }
    __device__ __forceinline__ uint2 step(int i) const { return {word[i][0], word[i][1]}; }
  };

  // Lane g of values: pieces of 8 dimensions, 64 apart; 4 of the next 32, 2 of the last 16.
  template <int kDim>
  static __device__ __forceinline__ int value_dim(int m, int g) {
    constexpr int kWhole = kDim / 64 * 64;
    if (m < kWhole / 16) return m / 4 * 64 + g * 8 + m % 4 * 2;
    const int rest = m - kWhole / 16;
    if (kDim % 64 >= 32 && rest < 2) return kWhole + g * 4 + rest * 2;
    return kDim / 32 * 32 + g * 2;
  }
  template <int kDim>
  struct Value {
    uint32_t word[kDim / 16];
    template <bool kPadded>
    __device__ __forceinline__ void load(const AttendParams& a, CacheRow row, int g) {
#pragma unroll
      for (int i = 0; i < kDim / 64; ++i) {
        const uint4 r = Elements::load8(a.v, piece<kDim, kPadded>(a, row, 64 * i, 8 * g));
        word[4 * i] = r.x;
        word[4 * i + 1] = r.y;
        word[4 * i + 2] = r.z;
        word[4 * i + 3] = r.w;
      }
      if constexpr (kDim % 64 >= 32) {
        const uint2 r = Elements::load4(a.v, piece<kDim, kPadded>(a, row, kDim / 64 * 64, 4 * g));
        word[kDim / 64 * 4] = r.x;
        word[kDim / 64 * 4 + 1] = r.y;
      }
      if constexpr (kDim % 32 != 0) {
        word[kDim / 16 - 1] =
            Elements::load2(a.v, piece<kDim, kPadded>(a, row, kDim / 32 * 32, 2 * g));
      }
    }
    // Two dimensions of tile m.
    __device__ __forceinline__ uint32_t tile(int m) const { return word[m]; }
  };
};

using HalfRows = PlainRows<HalfElements>;
using FloatRows = PlainRows<FloatElements>;

}  // namespace spillway::cuda
