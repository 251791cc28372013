// Rows of q8_0 and q4_0 blocks of the KV cache on their way to the tiles; see attend_rows.cuh. A
// code becomes a half by a byte permute (0x6400 + byte is 1024 + byte), exactly, and is multiplied
// with its block's scale: one rounding, as a half in the cache has.
//   A row's codes are cut into pieces of 16 bytes for every lane that reads a row together, then of
// 8, 4 and 2: `kLanes * 16` bytes lie side by side. A lane's bytes are counted from 0; place() says
// where a byte of a lane lies in the row.
#pragma once

#include "kernels/core/kv_view.h"
#include "kernels/cuda/attend_common.cuh"
#include "kernels/cuda/attend_tile.cuh"

namespace spillway::cuda {

// How kLanes lanes share a row of kRowBytes.
template <int kLanes, int kRowBytes>
struct Pieces {
  static constexpr int kBytes = kRowBytes / kLanes;  // of a lane
  static constexpr int kWords = (kBytes + 3) / 4;
  static constexpr int kCount =
      kBytes / 16 + (kBytes & 8) / 8 + (kBytes & 4) / 4 + (kBytes & 2) / 2;

  // Of piece i: its bytes, and which byte of the lane it begins with. Without loops, so that a
  // compiler that unrolls what calls this sees constants.
  static constexpr int kWide = kBytes / 16;
  static constexpr int kEights = (kBytes & 8) / 8;
  static constexpr int kFours = (kBytes & 4) / 4;
  static constexpr __host__ __device__ int bytes(int i) {
    if (i < kWide) return 16;
    if (i < kWide + kEights) return 8;
    return i < kWide + kEights + kFours ? 4 : 2;
  }
  static constexpr __host__ __device__ int begin(int i) {
    if (i <= kWide) return 16 * i;
    const int after = 16 * kWide + 8 * kEights;
    return i == kWide + 1 && kEights == 1 ? after : after + 4 * kFours;
  }
  static constexpr __host__ __device__ int of_byte(int byte) {
    if (byte < 16 * kWide) return byte / 16;
    if (byte < 16 * kWide + 8 * kEights) return kWide;
    return kWide + kEights + (byte < 16 * kWide + 8 * kEights + 4 * kFours ? 0 : kFours);
  }
  static constexpr __host__ __device__ int place(int byte, int lane) {
    const int i = of_byte(byte);
    return begin(i) * kLanes + lane * bytes(i) + byte - begin(i);
  }
};

__device__ __forceinline__ uint32_t scaled_pair(uint32_t words, uint32_t offset, uint32_t scale) {
  const auto as_half2 = [](uint32_t x) { return *reinterpret_cast<const __half2*>(&x); };
  const __half2 r = __hmul2(__hsub2(as_half2(words), as_half2(offset)), as_half2(scale));
  return *reinterpret_cast<const uint32_t*>(&r);
}

struct ByteCodes {
  static constexpr int kBlockBytes = 32;
  static constexpr int kHalves = 1;  // groups of values that share bytes
  // Values of bytes 2 pair and 2 pair + 1 of a word.
  static __device__ __forceinline__ uint32_t pair(uint32_t word, int pair, int, uint32_t scale) {
    const uint32_t halves =
        __byte_perm(word ^ 0x80808080u, 0x64646464u, pair == 0 ? 0x4140 : 0x4342);
    return scaled_pair(halves, 0x64806480u, scale);  // 1024 + 128
  }
  static __device__ __forceinline__ int dim(int place, int) { return place; }
};

struct NibbleCodes {
  static constexpr int kBlockBytes = 16;
  static constexpr int kHalves = 2;
  static __device__ __forceinline__ uint32_t pair(uint32_t word, int pair, int half,
                                                  uint32_t scale) {
    const uint32_t low = (half == 0 ? word : word >> 4) & 0x0f0f0f0fu;
    const uint32_t halves = __byte_perm(low, 0x64646464u, pair == 0 ? 0x4140 : 0x4342);
    return scaled_pair(halves, 0x64086408u, scale);  // 1024 + 8
  }
  static __device__ __forceinline__ int dim(int place, int half) {
    return place / 16 * 32 + place % 16 + 16 * half;
  }
};

template <typename Codes>
struct CodeRows {
  static constexpr bool kCopies = false;
  static constexpr bool kSmall = true;

  // A row's codes and scales.
  struct Row {
    const std::byte* codes;
    const std::byte* scales;
    __device__ __forceinline__ uint32_t scale(int block) const {
      const uint32_t half = __ldcg(reinterpret_cast<const unsigned short*>(scales) + block);
      return half | half << 16;
    }
  };
  static __device__ __forceinline__ Row find(const AttendParams& a, const std::byte* plane,
                                             CacheRow row) {
    const int blocks = a.head_dim / 32;
    const int code_bytes = blocks * Codes::kBlockBytes;
    const std::byte* page = plane + static_cast<int64_t>(row.first) * (code_bytes + 2 * blocks);
    return {page + row.offset * code_bytes,
            page + a.page_tokens * code_bytes + row.offset * (2 * blocks)};
  }

  static __device__ __forceinline__ uint4 load8(const AttendParams& a, const std::byte* plane,
                                                CacheRow at, int dim) {
    const Row row = find(a, plane, at);
    const int byte = dim / 32 * Codes::kBlockBytes + dim % Codes::kBlockBytes;
    const int half = dim % 32 / Codes::kBlockBytes;
    const uint2 w = __ldcg(reinterpret_cast<const uint2*>(row.codes + byte));
    const uint32_t scale = row.scale(dim / 32);
    return {Codes::pair(w.x, 0, half, scale), Codes::pair(w.x, 1, half, scale),
            Codes::pair(w.y, 0, half, scale), Codes::pair(w.y, 1, half, scale)};
  }
  static __device__ __forceinline__ const std::byte* address(const AttendParams&,
                                                             const std::byte* plane, CacheRow,
                                                             int) {
    return plane;  // never asked for
  }

  template <int kLanes, int kDim>
  struct Held {
    using P = Pieces<kLanes, kDim / 32 * Codes::kBlockBytes>;
    uint32_t word[P::kWords];
    uint32_t scale[P::kCount];

    template <bool kPadded>
    __device__ __forceinline__ void read(const AttendParams& a, const std::byte* plane, CacheRow at,
                                         int lane) {
      const Row row = find(a, plane, at);
#pragma unroll
      for (int i = 0; i < P::kCount; ++i) {
        int place = P::begin(i) * kLanes + lane * P::bytes(i);
        if (kPadded && place >= a.head_dim / 32 * Codes::kBlockBytes) place = 0;
        const std::byte* from = row.codes + place;
        uint32_t* to = word + P::begin(i) / 4;
        if (P::bytes(i) == 16) {
          const uint4 r = __ldcg(reinterpret_cast<const uint4*>(from));
          to[0] = r.x;
          to[1] = r.y;
          to[2] = r.z;
          to[3] = r.w;
        } else if (P::bytes(i) == 8) {
          const uint2 r = __ldcg(reinterpret_cast<const uint2*>(from));
          to[0] = r.x;
          to[1] = r.y;
        } else if (P::bytes(i) == 4) {
          to[0] = __ldcg(reinterpret_cast<const unsigned*>(from));
        } else {
          to[0] = __ldcg(reinterpret_cast<const unsigned short*>(from));
        }
        scale[i] = row.scale(place / Codes::kBlockBytes);
      }
    }
  };

  // Step i of a key: four values, of one word.
  template <int kDim>
  static __device__ __forceinline__ int key_dim(int step, int c) {
    using P = typename Held<4, kDim>::P;
    return Codes::dim(P::place(step / Codes::kHalves * 4, c), step % Codes::kHalves);
  }
  template <int kDim>
  struct Key : Held<4, kDim> {
    using P = typename Held<4, kDim>::P;
    template <bool kPadded>
    __device__ __forceinline__ void load(const AttendParams& a, CacheRow row, int c) {
      this->template read<kPadded>(a, a.k, row, c);
    }
    __device__ __forceinline__ uint2 step(int i) const {
      const int word = i / Codes::kHalves;
      const int half = i % Codes::kHalves;
      const uint32_t scale = this->scale[P::of_byte(4 * word)];
      return {Codes::pair(this->word[word], 0, half, scale),
              Codes::pair(this->word[word], 1, half, scale)};
    }
  };

  // Tile m of values: pairs of a word's bytes, all of one half before those of the other. The last
  // word may have two bytes.
  template <int kDim>
  struct ValueTile {
    static constexpr int kPairs = 2 * Codes::kHalves;  // of a whole word
    static constexpr int kWhole = Held<8, kDim>::P::kBytes / 4 * kPairs;
    static __device__ __forceinline__ int word(int m) {
      return m < kWhole ? m / kPairs : kWhole / kPairs;
    }
    static __device__ __forceinline__ int pair(int m) { return m < kWhole ? m % 2 : 0; }
    static __device__ __forceinline__ int half(int m) {
      return m < kWhole ? m % kPairs / 2 : m - kWhole;
    }
  };
  template <int kDim>
  static __device__ __forceinline__ int value_dim(int m, int g) {
    using P = typename Held<8, kDim>::P;
    using T = ValueTile<kDim>;
    return Codes::dim(P::place(4 * T::word(m) + 2 * T::pair(m), g), T::half(m));
  }
  template <int kDim>
  struct Value : Held<8, kDim> {
    using P = typename Held<8, kDim>::P;
    using T = ValueTile<kDim>;
    template <bool kPadded>
    __device__ __forceinline__ void load(const AttendParams& a, CacheRow row, int g) {
      this->template read<kPadded>(a, a.v, row, g);
    }
    __device__ __forceinline__ uint32_t tile(int m) const {
      return Codes::pair(this->word[T::word(m)], T::pair(m), T::half(m),
                         this->scale[P::of_byte(4 * T::word(m))]);
    }
  };
};

using ByteRows = CodeRows<ByteCodes>;
using NibbleRows = CodeRows<NibbleCodes>;

}  // namespace spillway::cuda
