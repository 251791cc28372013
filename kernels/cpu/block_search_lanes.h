// The searches behind quantisation to K-quants and IQ4: least weighted squares over scale (and
// minimum) of sixteen sub-blocks at once, one a lane, so that nothing is ever summed over lanes but
// in the order of plain loops: equal bits on every instruction set. No fused multiply-add, which is
// slow where the processor has none. Included by search_<isa>.cc only; called through
// kernel_table(isa) by quantize_k.cc.
//
// A block is value = d * sub * factor(code) - m * sub_min. Three steps:
//   1. every sub-block alone, with real numbers: candidates of the inverse scale around
//      factor / maximum, codes rounded, scale (and minimum) refitted by least squares, best kept;
//   2. d and m from the greatest of them, rounded to f16; sub and sub_min rounded to integers;
//   3. kRounds times: sub and sub_min each a step up and down, codes rounded for the real product
//      d * sub; then d and m refitted over the whole block. The best round is kept.
#pragma once

#include <cstdint>

#include "kernels/core/quant.h"
#include "kernels/cpu/block_search.h"
#include "kernels/cpu/lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

inline constexpr int kRounds = 3;
inline constexpr float kLargestHalf = 65504.0f;

inline F32x16 clamp(F32x16 x, F32x16 low, F32x16 high) { return min(max(x, low), high); }
inline F32x16 round(F32x16 x) { return to_float(round_to_int(x)); }
inline F32x16 square(F32x16 x) { return mul(x, x); }
// 1 / x, and 0 where that would not be a number.
inline F32x16 inverse(F32x16 x) {
  const F32x16 zero = splat(0.0f);
  const F32x16 tiny = splat(1e-37f);
  const F32x16 magnitude = max(x, sub(zero, x));
  return where_greater(magnitude, tiny, div(splat(1.0f), x), zero);
}
// a / b where b is a sum of squares; 0 where there were none.
inline F32x16 ratio(F32x16 a, F32x16 b) { return mul(a, inverse(b)); }

// Each lane's value as an f16, back as a float; never infinite.
inline F32x16 to_half(F32x16 x, uint16_t* half) {
  store_f16_n(half, clamp(x, splat(-kLargestHalf), splat(kLargestHalf)), 16);
  return load_f16(half);
}

// Over the lanes of every block: f of all of them, put into each.
template <typename F>
inline F32x16 over_blocks(F32x16 x, int lanes_per_block, F f) {
  float lane[16];
  store(lane, x);
  for (int begin = 0; begin < 16; begin += lanes_per_block) {
    float all = lane[begin];
    for (int k = begin + 1; k < begin + lanes_per_block; ++k) all = f(all, lane[k]);
    for (int k = begin; k < begin + lanes_per_block; ++k) lane[k] = all;
  }
  return load(lane);
}
inline F32x16 sum_over_blocks(F32x16 x, int lanes_per_block) {
  return over_blocks(x, lanes_per_block, [](float a, float b) { return a + b; });
}
inline F32x16 max_over_blocks(F32x16 x, int lanes_per_block) {
  return over_blocks(x, lanes_per_block, [](float a, float b) { return a > b ? a : b; });
}
// The one of greatest magnitude, with its sign.
inline F32x16 extreme_over_blocks(F32x16 x, int lanes_per_block) {
  return over_blocks(x, lanes_per_block, [](float a, float b) {
    const float magnitude_a = a < 0 ? -a : a;
    const float magnitude_b = b < 0 ? -b : b;
    return magnitude_a < magnitude_b ? b : a;
  });
}

// The nearest factors of codes, and their codes.
struct Uniform {
  F32x16 low;
  F32x16 high;
  explicit Uniform(const SearchShape& shape)
      : low(splat(static_cast<float>(shape.first_code))),
        high(splat(static_cast<float>(shape.last_code))) {}
  F32x16 nearest(F32x16 x) const { return round(clamp(x, low, high)); }
  I32x16 code(F32x16 factor) const { return round_to_int(sub(factor, low)); }
};

struct Nonlinear {
  F32x16 value[16];
  F32x16 middle[15];  // above it the next value is nearer
  explicit Nonlinear(const SearchShape&) {
    for (int j = 0; j < 16; ++j) value[j] = splat(static_cast<float>(kNonlinearValues[j]));
    for (int j = 0; j < 15; ++j) middle[j] = mul(add(value[j], value[j + 1]), splat(0.5f));
  }
  F32x16 nearest(F32x16 x) const {
    F32x16 factor = value[0];
    for (int j = 0; j < 15; ++j) factor = where_greater(x, middle[j], value[j + 1], factor);
    return factor;
  }
  I32x16 code(F32x16 factor) const {
    F32x16 index = splat(0.0f);
    for (int j = 0; j < 15; ++j) {
      index = where_greater(factor, middle[j], splat(static_cast<float>(j + 1)), index);
    }
    return round_to_int(index);
  }
};

// Sums over a sub-block with factors q.
struct ScaleSums {
  F32x16 qx;                                              // of w q x
  F32x16 qq;                                              // of w q q
  F32x16 gain() const { return mul(qx, ratio(qx, qq)); }  // what the best scale takes off w x x
};

template <typename Grid>
inline ScaleSums sums_at(const Grid& grid, const SearchInput& in, int n, F32x16 inverse_scale) {
  ScaleSums sums{splat(0.0f), splat(0.0f)};
  for (int i = 0; i < n; ++i) {
    const F32x16 x = load(in.x + 16 * i);
    const F32x16 q = grid.nearest(mul(x, inverse_scale));
    const F32x16 wq = mul(load(in.weight + 16 * i), q);
    sums.qx = add(sums.qx, mul(wq, x));
    sums.qq = add(sums.qq, mul(wq, q));
  }
  return sums;
}

// Step 1 without a minimum: every lane's best scale. The value of greatest magnitude is mapped
// near the first code and near the last, whose sign the scale takes.
template <typename Grid>
inline F32x16 search_scale(const Grid& grid, const SearchInput& in, const SearchShape& shape) {
  F32x16 extreme = splat(0.0f);
  F32x16 greatest = splat(0.0f);
  const F32x16 zero = splat(0.0f);
  for (int i = 0; i < shape.n; ++i) {
    const F32x16 x = load(in.x + 16 * i);
    const F32x16 magnitude = max(x, sub(zero, x));
    extreme = where_greater(magnitude, greatest, x, extreme);
    greatest = max(greatest, magnitude);
  }
  const F32x16 per_value = inverse(extreme);
  F32x16 best_gain = zero;
  F32x16 best_scale = zero;
  const auto attempt = [&](F32x16 inverse_scale) {
    const ScaleSums sums = sums_at(grid, in, shape.n, inverse_scale);
    const F32x16 gain = sums.gain();
    best_scale = where_greater(gain, best_gain, ratio(sums.qx, sums.qq), best_scale);
    best_gain = max(best_gain, gain);
  };
  const bool table = shape.grid == CodeGrid::kNonlinear;
  const float ends[2] = {table ? -127.0f : static_cast<float>(shape.first_code),
                         table ? 113.0f : static_cast<float>(shape.last_code)};
  // From 1.2 codes within the end to 0.8 beyond it, in tenths; a table's in hundredths of its end.
  for (const float end : ends) {
    const float step = table ? end * 0.01f : (end < 0 ? -0.1f : 0.1f);
    for (int k = -12; k <= 8; ++k) {
      attempt(mul(splat(end + step * static_cast<float>(k)), per_value));
    }
  }
  for (int k = 0; k < 2; ++k) attempt(inverse(best_scale));
  return best_scale;
}

// One way to write the lanes' sub-scales (and minimums).
struct Written {
  F32x16 sub;
  F32x16 sub_min;
  F32x16 error;
};

// Keeps, in each lane, the one with the smaller error.
inline void keep_better(Written& best, const Written& other) {
  best.sub = where_greater(best.error, other.error, other.sub, best.sub);
  best.sub_min = where_greater(best.error, other.error, other.sub_min, best.sub_min);
  best.error = where_greater(best.error, other.error, other.error, best.error);
}

template <typename Grid>
inline F32x16 error_at(const Grid& grid, const SearchInput& in, int n, F32x16 scale,
                       F32x16 minimum) {
  const F32x16 inverse_scale = inverse(scale);
  F32x16 error = splat(0.0f);
  for (int i = 0; i < n; ++i) {
    const F32x16 above = add(load(in.x + 16 * i), minimum);
    const F32x16 q = grid.nearest(mul(above, inverse_scale));
    error = add(error, mul(load(in.weight + 16 * i), square(sub(mul(scale, q), above))));
  }
  return error;
}

// The lanes' codes for these scales; also sums for the refit.
struct FinalSums {
  F32x16 qx, qq, q, x, w;  // of w q x, w q q, w q, w x, w
};
template <typename Grid>
inline FinalSums write_codes(const Grid& grid, const SearchInput& in, int n, F32x16 scale,
                             F32x16 minimum, uint8_t* codes) {
  const F32x16 zero = splat(0.0f);
  FinalSums s{zero, zero, zero, zero, zero};
  const F32x16 inverse_scale = inverse(scale);
  for (int i = 0; i < n; ++i) {
    const F32x16 x = load(in.x + 16 * i);
    const F32x16 w = load(in.weight + 16 * i);
    const F32x16 q = grid.nearest(mul(add(x, minimum), inverse_scale));
    store_bytes(reinterpret_cast<int8_t*>(codes) + 16 * i, grid.code(q));
    const F32x16 wq = mul(w, q);
    s.qx = add(s.qx, mul(wq, x));
    s.qq = add(s.qq, mul(wq, q));
    s.q = add(s.q, wq);
    s.x = add(s.x, mul(w, x));
    s.w = add(s.w, w);
  }
  return s;
}

// A round's outcome goes into the result for the blocks where it beats what is there.
struct Best {
  float error[16];  // of the lane's block
  SearchResult* out;

  void take(const SearchShape& shape, F32x16 block_error, const SearchResult& round) {
    float now[16];
    store(now, block_error);
    for (int k = 0; k < 16; ++k) {
      if (!(now[k] < error[k])) continue;
      error[k] = now[k];
      for (int i = 0; i < shape.n; ++i) out->codes[16 * i + k] = round.codes[16 * i + k];
      out->sub[k] = round.sub[k];
      out->sub_min[k] = round.sub_min[k];
      out->d[k / shape.lanes_per_block] = round.d[k / shape.lanes_per_block];
      out->m[k / shape.lanes_per_block] = round.m[k / shape.lanes_per_block];
    }
  }
};

inline void store_subs(int16_t* out, F32x16 sub) {
  float lane[16];
  store(lane, sub);
  for (int k = 0; k < 16; ++k) out[k] = static_cast<int16_t>(lane[k]);
}
// Lanes' half floats as one a block.
inline void store_halves(uint16_t* out, const uint16_t* halves, int lanes_per_block) {
  for (int k = 0; k < 16; k += lanes_per_block) out[k / lanes_per_block] = halves[k];
}

// Sub-scales a step around `sub` (minimums around `sub_min`, when there are any): the best of them.
template <typename Grid>
inline Written best_around(const Grid& grid, const SearchInput& in, const SearchShape& shape,
                           const Written& at, F32x16 d, F32x16 m, bool minimums) {
  const F32x16 first = splat(static_cast<float>(shape.first_sub));
  const F32x16 last = splat(static_cast<float>(shape.last_sub));
  Written best{at.sub, at.sub_min, splat(__builtin_inff())};
  const int reach = shape.first_sub == shape.last_sub ? 0 : 1;
  for (int up = -reach; up <= reach; ++up) {
    const F32x16 sub_scale = clamp(add(at.sub, splat(static_cast<float>(up))), first, last);
    for (int down = minimums ? -1 : 0; down <= (minimums ? 1 : 0); ++down) {
      const F32x16 moved = add(at.sub_min, splat(static_cast<float>(down)));
      const F32x16 sub_min = clamp(moved, splat(0.0f), last);
      const F32x16 error = error_at(grid, in, shape.n, mul(d, sub_scale), mul(m, sub_min));
      keep_better(best, {sub_scale, sub_min, error});
    }
  }
  return best;
}

// Least squares for d and m of whole blocks with their codes, sub-scales and minimums as they are.
struct Halves {
  F32x16 d;
  F32x16 m;
};
inline Halves refit(const Written& at, const FinalSums& s, const Halves& now, int blocks,
                    bool minimums) {
  const F32x16 aa = sum_over_blocks(mul(mul(at.sub, at.sub), s.qq), blocks);
  const F32x16 ax = sum_over_blocks(mul(at.sub, s.qx), blocks);
  if (!minimums) return {ratio(ax, aa), now.m};
  const F32x16 zero = splat(0.0f);
  const F32x16 ab = sum_over_blocks(mul(mul(at.sub, at.sub_min), s.q), blocks);
  const F32x16 bb = sum_over_blocks(mul(mul(at.sub_min, at.sub_min), s.w), blocks);
  const F32x16 bx = sum_over_blocks(mul(at.sub_min, s.x), blocks);
  const F32x16 determinant = sub(mul(aa, bb), mul(ab, ab));
  const F32x16 d = ratio(sub(mul(ax, bb), mul(ab, bx)), determinant);
  const F32x16 m = ratio(sub(mul(ab, ax), mul(aa, bx)), determinant);
  // Where both cannot be told apart, or would turn their sign, they stay.
  return {where_greater(d, zero, where_greater(m, zero, d, now.d), now.d),
          where_greater(d, zero, where_greater(m, zero, m, now.m), now.m)};
}

// Steps 2 and 3 from every lane's own scale and minimum.
template <typename Grid>
inline void write_blocks(const Grid& grid, const SearchInput& in, const SearchShape& shape,
                         F32x16 scale, F32x16 minimum, bool minimums, SearchResult* out) {
  const int blocks = shape.lanes_per_block;
  const F32x16 zero = splat(0.0f);
  const F32x16 first = splat(static_cast<float>(shape.first_sub));
  const F32x16 last = splat(static_cast<float>(shape.last_sub));
  // Without minimums the greatest scale becomes the least sub-scale, which has a step more than
  // the other end.
  Halves halves{div(extreme_over_blocks(scale, blocks), minimums ? last : first),
                div(max_over_blocks(minimum, blocks), last)};
  Best best{{}, out};
  for (float& error : best.error) error = __builtin_inff();
  Written written{zero, zero, zero};
  for (int round_number = 0; round_number < kRounds; ++round_number) {
    SearchResult now;
    uint16_t half[16];
    halves.d = to_half(halves.d, half);
    store_halves(now.d, half, blocks);
    halves.m = to_half(halves.m, half);
    store_halves(now.m, half, blocks);
    if (round_number == 0) {
      written.sub = round(clamp(mul(scale, inverse(halves.d)), first, last));
      written.sub_min = round(clamp(mul(minimum, inverse(halves.m)), zero, last));
    }
    written = best_around(grid, in, shape, written, halves.d, halves.m, minimums);
    store_subs(now.sub, written.sub);
    store_subs(now.sub_min, written.sub_min);
    const FinalSums sums = write_codes(grid, in, shape.n, mul(halves.d, written.sub),
                                       mul(halves.m, written.sub_min), now.codes);
    best.take(shape, sum_over_blocks(written.error, blocks), now);
    halves = refit(written, sums, halves, blocks, minimums);
  }
}

// Types without a minimum: Q3_K, Q6_K, IQ4_NL, IQ4_XS.
inline void search_scaled(const SearchInput& in, const SearchShape& shape, SearchResult* out) {
  const F32x16 none = splat(0.0f);
  if (shape.grid == CodeGrid::kNonlinear) {
    const Nonlinear grid(shape);
    write_blocks(grid, in, shape, search_scale(grid, in, shape), none, false, out);
  } else {
    const Uniform grid(shape);
    write_blocks(grid, in, shape, search_scale(grid, in, shape), none, false, out);
  }
}

// One way to map a sub-block: x ~ scale * q - minimum, and what of w x x it leaves.
struct Mapped {
  F32x16 scale;
  F32x16 minimum;
  F32x16 left;
};

// Codes rounded for a given start, then both refitted. The minimum is never negative.
inline Mapped fit_mapped(const Uniform& grid, const SearchInput& in, int n, F32x16 inverse_scale,
                         F32x16 minimum) {
  const F32x16 zero = splat(0.0f);
  F32x16 qx = zero, qq = zero, q_sum = zero, x_sum = zero, w_sum = zero, xx = zero;
  for (int i = 0; i < n; ++i) {
    const F32x16 x = load(in.x + 16 * i);
    const F32x16 w = load(in.weight + 16 * i);
    const F32x16 q = grid.nearest(mul(add(x, minimum), inverse_scale));
    const F32x16 wq = mul(w, q);
    const F32x16 wx = mul(w, x);
    qx = add(qx, mul(wq, x));
    qq = add(qq, mul(wq, q));
    q_sum = add(q_sum, wq);
    x_sum = add(x_sum, wx);
    w_sum = add(w_sum, w);
    xx = add(xx, mul(wx, x));
  }
  const F32x16 determinant = sub(mul(w_sum, qq), mul(q_sum, q_sum));
  const F32x16 free_scale = ratio(sub(mul(w_sum, qx), mul(x_sum, q_sum)), determinant);
  const F32x16 free_minimum = ratio(sub(mul(q_sum, qx), mul(qq, x_sum)), determinant);
  Mapped fit{where_greater(free_minimum, zero, free_scale, ratio(qx, qq)), max(free_minimum, zero),
             zero};
  // |x - s q + m|^2 from the sums.
  const F32x16 square_terms =
      add(add(xx, mul(square(fit.scale), qq)), mul(square(fit.minimum), w_sum));
  const F32x16 cross = sub(mul(fit.minimum, sub(x_sum, mul(fit.scale, q_sum))), mul(fit.scale, qx));
  fit.left = add(square_terms, add(cross, cross));
  return fit;
}

// Types with one: Q2_K, Q4_K, Q5_K.
inline void search_scaled_above_minimum(const SearchInput& in, const SearchShape& shape,
                                        SearchResult* out) {
  const Uniform grid(shape);
  const F32x16 zero = splat(0.0f);
  F32x16 least = zero;  // a minimum above 0 cannot be written
  F32x16 greatest = zero;
  for (int i = 0; i < shape.n; ++i) {
    const F32x16 x = load(in.x + 16 * i);
    least = min(least, x);
    greatest = i == 0 ? x : max(greatest, x);
  }
  const F32x16 minimum = sub(zero, least);
  const F32x16 per_range = inverse(add(greatest, minimum));
  Mapped best{zero, minimum, splat(__builtin_inff())};
  const auto attempt = [&](F32x16 inverse_scale, F32x16 from) {
    const Mapped fit = fit_mapped(grid, in, shape.n, inverse_scale, from);
    const F32x16 good = where_greater(fit.scale, zero, fit.left, splat(__builtin_inff()));
    best.scale = where_greater(best.left, good, fit.scale, best.scale);
    best.minimum = where_greater(best.left, good, fit.minimum, best.minimum);
    best.left = min(best.left, good);
  };
  // From a step fewer codes over the range to a step more, in tenths.
  for (int k = -10; k <= 10; ++k) {
    const float codes = static_cast<float>(shape.last_code) + 0.1f * static_cast<float>(k);
    attempt(mul(splat(codes), per_range), minimum);
  }
  for (int k = 0; k < 2; ++k) attempt(inverse(best.scale), best.minimum);
  write_blocks(grid, in, shape, best.scale, best.minimum, true, out);
}

}  // namespace spillway::cpu::SPILLWAY_LANES
