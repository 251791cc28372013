// How a warp of tile_wide.cuh makes bf16 of its strip, 32 rows of weights, for wgmma: the strip,
// its scales and their words in shared memory are those of strip_weights.cuh, but columns keep
// their places, since the input lies in shared memory as it came. Lane t of a row's four needs
// columns 2t, 2t + 1, 2t + 8 and 2t + 9 of a k16 step. It reads quad t/2 (t even) or 2 + t/2 (t
// odd) of both steps of a piece and swaps the halves that its neighbour needs with it.
#pragma once

#include "kernels/cuda/strip_weights.cuh"

namespace spillway::cuda {

inline constexpr int kWideNt = 8;  // strip_weights.cuh's width: units of 4 pieces, 128 columns
template <QuantType Q>
using WideShape = StripShape<Q, kWideNt>;

// A lane of a warp.
struct WideLane {
  int g;     // the strip's rows 4g to 4g + 3
  int t;     // see above
  int quad;  // that it reads, and quad + 4
  int odd;
  __device__ __forceinline__ explicit WideLane(int lane)
      : g(lane / 4), t(lane % 4), quad((lane & 1) * 2 + lane % 4 / 2), odd(lane & 1) {}
};

// ---- Codes -------------------------------------------------------------------------------------

// Quads in vectors of their own: a lane reads its quad's alone.
template <typename T>
inline constexpr bool kOwnVectors = T::kGrid == 0 && T::kLowBits >= 4;

// A lane's place in a unit of its strip's codes.
struct WideCursor {
  const std::byte* low;   // of piece 0
  const std::byte* high;  // of piece 0
  int piece;              // 0's number
  int last;               // that the unit has
};
template <QuantType Q>
__device__ __forceinline__ void load_piece(const WideCursor& from, int k, const std::byte* strips,
                                           StripPiece<QuantTraits<Q>>& out) {
  using T = QuantTraits<Q>;
  if (!WideShape<Q>::kWhole) k = min(k, from.last);
  const std::byte* low = from.low + k * (T::kLowBits * 64);
  if constexpr (kOwnVectors<T>) {
    out.codes.low.v[0] = load_stream(low);
    if constexpr (T::kLowBits == 8) out.codes.low.v[4] = load_stream(low + 256);
  } else {
#pragma unroll
    for (int j = 0; j < T::kLowBits; ++j) out.codes.low.v[j] = load_stream(low + 64 * j);
  }
  if constexpr (T::kHighBits > 0) {
    const std::byte* high = from.high + k * (T::kHighBits * 64);
#pragma unroll
    for (int j = 0; j < T::kHighBits; ++j) out.codes.high.v[j] = load_stream(high + 64 * j);
  }
  if constexpr (kUpperIndices<T>) {
    const int piece = from.piece + k;
    out.upper =
        load_word(strips + piece / 8 * static_cast<int>(T::kSubBytes * 16) + 16 * (piece % 8));
  }
}

// Where a lane's four rows of weights are, every other unit. Pieces beyond the columns are read
// from the last one and have scale and minimum 0.
template <QuantType Q>
struct WideReader {
  using T = QuantTraits<Q>;
  using S = WideShape<Q>;
  const std::byte* group;
  const Planes& planes;
  int n_pieces;
  int n_units;
  const WideLane& lane;

  __device__ __forceinline__ WideCursor at(int unit) const {
    const int row4 = lane.g % 4;
    const int quads = kOwnVectors<T> ? 64 * lane.quad : 0;
    const int piece = unit * S::kUnit;
    return {group + planes.codes + piece * (T::kLowBits * 64) + row4 * 16 + quads,
            group + planes.high + piece * (T::kHighBits * 64) + row4 * 16, piece,
            n_pieces - 1 - piece};
  }
  // The next unit, or the same again at the end: what is read there is not used.
  __device__ __forceinline__ WideCursor after(const WideCursor& here, int unit) const {
    const int units = unit + 2 < n_units ? 2 : 0;
    return {here.low + units * (S::kUnit * T::kLowBits * 64),
            here.high + units * (S::kUnit * T::kHighBits * 64), here.piece + units * S::kUnit,
            here.last - units * S::kUnit};
  }
  __device__ __forceinline__ void load(const WideCursor& from, int k, StripPiece<T>& to) const {
    load_piece<Q>(from, k, group + planes.sub + lane.g % 4 * 4, to);
  }

  __device__ __forceinline__ void load(int unit, UnitScales<Q, kWideNt>& to) const {
    if (unit < n_units) {
      load_unit_scales<Q, kWideNt>(group, planes, n_pieces, unit, lane.g % 4, lane.t, to);
    }
  }
  // words: of the warp, [piece][sub-block][32 rows].
  __device__ __forceinline__ void put(const UnitScales<Q, kWideNt>& scales, int unit,
                                      uint32_t* words) const {
    if (S::kWhole || unit * S::kUnit + lane.t < n_pieces) {
      put_unit_scales<Q, kWideNt>(scales, unit, words, lane.g, lane.t);
    } else {
      constexpr int kSubs = Form<T>::kSubs;
      auto* mine = reinterpret_cast<uint4*>(words + lane.t * kSubs * 32 + 4 * lane.g);
      for (int j = 0; j < kSubs; ++j) mine[8 * j] = {};
    }
  }
};

// ---- Values ------------------------------------------------------------------------------------

// Two words of four codes, of a lane's quads, become those of its places.
__device__ __forceinline__ void to_places(int odd, uint32_t& first, uint32_t& second) {
  const uint32_t send = __byte_perm(first, second, odd ? 0x5410 : 0x7632);
  const uint32_t got = __shfl_xor_sync(0xffffffffu, send, 1);
  first = __byte_perm(first, got, odd ? 0x3254 : 0x5410);
  second = __byte_perm(second, got, odd ? 0x3276 : 0x7610);
}

// The unsigned codes of row r's places in both k16 steps; words: 4-bit codes that are in place.
template <QuantType Q>
__device__ __forceinline__ void codes_in_place(const StripPiece<QuantTraits<Q>>& piece,
                                               const uint32_t (&words)[4], const uint32_t* grid,
                                               int r, const WideLane& lane, uint32_t& near,
                                               uint32_t& far) {
  using T = QuantTraits<Q>;
  if constexpr (T::kTable) {
    look_up(byte_table<T>(), words[r], near, far);
  } else if constexpr (T::kLowBits == 4 && T::kHighBits == 0) {
    near = words[r] & 0x0f0f0f0fu;
    far = (words[r] >> 4) & 0x0f0f0f0fu;
    return;
  } else if constexpr (T::kLowBits == 4 && T::kHighBits == 2) {
    // A turn brings the upper bits where they belong.
    const uint32_t low = word_of(piece.codes.low.v[0], r);
    const uint32_t h0 = word_of(piece.codes.high.v[0], r);
    const uint32_t h1 = word_of(piece.codes.high.v[1], r);
    const unsigned turn = (2 * lane.quad - 4) & 31;
    near = (low & 0x0f0f0f0fu) | (__funnelshift_r(h0, h0, turn) & 0x30303030u);
    far = ((low >> 4) & 0x0f0f0f0fu) | (__funnelshift_r(h1, h1, turn) & 0x30303030u);
    to_places(lane.odd, near, far);
    return;
  } else {
    PieceScales<T> upper;
    if constexpr (kUpperIndices<T>) upper.upper = piece.upper;
    tile_quads<Q, false>(piece.codes, upper, grid, r, lane.quad, near, far);
    to_places(lane.odd, near, far);
  }
  if constexpr (kSignedQuads<T>) {
    near ^= 0x80808080u;
    far ^= 0x80808080u;
  }
}

// a[tile][k16 step]: row g of tile i is the strip's 4g + 2i, row g + 8 its 4g + 2i + 1. scales: the
// piece's words from the lane's four rows on.
template <QuantType Q>
__device__ __forceinline__ void wide_piece(const StripPiece<QuantTraits<Q>>& piece,
                                           const uint32_t* scales, const uint32_t* grid,
                                           const WideLane& lane, uint32_t (&a)[2][2][4]) {
  using T = QuantTraits<Q>;
  const uint4 near_scales = *reinterpret_cast<const uint4*>(scales);
  uint4 far_scales = near_scales;
  if constexpr (Form<T>::kTwoSubs) far_scales = *reinterpret_cast<const uint4*>(scales + 32);
  uint32_t words[4];
  if constexpr (T::kGrid == 0 && T::kBits == 4) {  // nibbles: both steps at once
    const uint4& v = piece.codes.low.v[0];
    words[0] = v.x;
    words[1] = v.y;
    words[2] = v.z;
    words[3] = v.w;
    to_places(lane.odd, words[0], words[1]);
    to_places(lane.odd, words[2], words[3]);
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    uint32_t near;
    uint32_t far;
    codes_in_place<Q>(piece, words, grid, r, lane, near, far);
    scaled_pairs(near, word_of(near_scales, r), a[r / 2][0][r % 2], a[r / 2][0][r % 2 + 2]);
    scaled_pairs(far, word_of(far_scales, r), a[r / 2][1][r % 2], a[r / 2][1][r % 2 + 2]);
  }
}

}  // namespace spillway::cuda
