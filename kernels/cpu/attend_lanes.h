// Attention of a few queries over one KV head's pages, written once over the sixteen lanes of
// lanes.h; included by rows_<isa>.cc only. Online softmax (Milakov and Gimelshein 2018) in chunks
// of 32 tokens that do not cross a page:
//
//   chunk's K and V -> f32 scratch, once for all queries of the tile
//   for every query: s = scale * q.k, m' = max(m, s), p = e^(s - m'), l = l e^(m-m') + p,
//                    o = o e^(m-m') + sum of p v, token by token
//
// A query's arithmetic depends on its own tokens only, so a tile of one gives the same bits. With
// windows, chunks before the first token that a query of the tile sees are not read. The
// scratch (80 KB at head_dim 256, of which 20 KB are used at 64) lies on the stack.
// Reads per call: K and V once for every tile of queries. Share of the ceiling: attend.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lane_math.h"
#include "kernels/cpu/lanes.h"

namespace spillway::cpu::SPILLWAY_LANES {

inline constexpr int64_t kChunk = 32;

struct Query {
  float maximum;
  F32x16 weight_sum;  // by lane; reduced at the end
  alignas(64) float q[kMaxHeadDim];
  alignas(64) float o[kMaxHeadDim];
};

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Scales of one token's blocks, at most 8.
inline void expand_scales(const std::byte* scales, int64_t n, float* out) {
  store(out, load_f16_n(reinterpret_cast<const uint16_t*>(scales), n));
}

// n tokens of quantised blocks; codes and scales of the first of them.
inline void expand_blocks(const std::byte* codes, const std::byte* scales, KvType type, int64_t n,
                          int64_t dim, float* out) {
  alignas(64) float scale[16];
  for (int64_t t = 0; t < n; ++t) {
    expand_scales(scales + t * (dim / 16), dim / 32, scale);
    const auto* row = reinterpret_cast<const uint8_t*>(codes) + t * kv_code_bytes(type, dim);
    for (int64_t d = 0; d < dim; d += 32) {
      const F32x16 factor = splat(scale[d / 32]);
      I32x16 low, high;
      if (type == KvType::kQ8_0) {
        low = load_i8(row + d);
        high = load_i8(row + d + 16);
      } else {
        const I32x16 both = load_u8(row + d / 2);
        low = sub(bit_and(both, splat_int(15)), splat_int(8));
        high = sub(shift_right(both, 4), splat_int(8));
      }
      store(out + t * dim + d, mul(to_float(low), factor));
      store(out + t * dim + d + 16, mul(to_float(high), factor));
    }
  }
}

// Tokens [offset, offset+n) of a page's head, dim values each, to rows of `padded` floats, zeros
// between.
inline void expand(const AttendArgs& a, const std::byte* page, int64_t offset, int64_t n,
                   int64_t padded, float* out) {
  const KvType type = a.type;
  const int64_t dim = a.head_dim;
  const int64_t code_bytes = kv_code_bytes(type, dim);
  const std::byte* rows = page + offset * code_bytes;
  if (kv_quantized(type)) {
    expand_blocks(rows, page + a.page_tokens * code_bytes + offset * (dim / 16), type, n, dim, out);
    return;
  }
  for (int64_t t = 0; t < n; ++t) {
    int64_t d = 0;
    if (type == KvType::kF16) {
      const auto* p = reinterpret_cast<const uint16_t*>(rows) + t * dim;
      for (; d + 16 <= dim; d += 16) store(out + t * padded + d, load_f16(p + d));
      if (d < dim) store(out + t * padded + d, load_f16_n(p + d, dim - d));
    } else {
      const auto* p = reinterpret_cast<const float*>(rows) + t * dim;
      for (; d + 16 <= dim; d += 16) store(out + t * padded + d, load(p + d));
      if (d < dim) store(out + t * padded + d, load_n(p + d, dim - d));
    }
  }
}

// Lane t is q . k of token t, 16 tokens.
inline F32x16 dots(const Query& query, const float* k, int64_t padded) {
  F32x16 sums[16];
  for (int64_t t0 = 0; t0 < 16; t0 += kTokenTile) {
    F32x16 acc[kTokenTile];
#pragma GCC unroll 16
    for (int t = 0; t < kTokenTile; ++t) acc[t] = splat(0.0f);
    for (int64_t d = 0; d < padded; d += 16) {
      const F32x16 q = load(query.q + d);
#pragma GCC unroll 16
      for (int t = 0; t < kTokenTile; ++t) {
        acc[t] = fma(q, load(k + (t0 + t) * padded + d), acc[t]);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokenTile; ++t) sums[t0 + t] = acc[t];
  }
  return reduce_add_each(sums);
}

// o += sum over the n tokens of p[t] * v[t], kVectors vectors of it. Two chains, because one waits
// for itself: o and the even tokens, the odd tokens; added at the end.
template <int kVectors>
inline void accumulate(float* o, const float* p, const float* v, int64_t n, int64_t padded) {
  F32x16 even[kVectors], odd[kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    even[i] = load(o + 16 * i);
    odd[i] = splat(0.0f);
  }
  int64_t t = 0;
  for (; t + 2 <= n; t += 2) {
    const float* row = v + t * padded;
    const F32x16 even_weight = splat(p[t]);
    const F32x16 odd_weight = splat(p[t + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      even[i] = fma(even_weight, load(row + 16 * i), even[i]);
      odd[i] = fma(odd_weight, load(row + padded + 16 * i), odd[i]);
    }
  }
  if (t < n) {
    const F32x16 weight = splat(p[t]);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      even[i] = fma(weight, load(v + t * padded + 16 * i), even[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) store(o + 16 * i, add(even[i], odd[i]));
}

// A greater maximum: what was summed under the old one shrinks.
inline void raise_maximum(Query& query, float maximum, int64_t padded) {
  const F32x16 correction = exp(splat(query.maximum - maximum));
  query.maximum = maximum;
  query.weight_sum = mul(query.weight_sum, correction);
  for (int64_t d = 0; d < padded; d += 16) {
    store(query.o + d, mul(load(query.o + d), correction));
  }
}

// Tokens [begin, n) of a chunk; those before `begin` are out of the query's window.
inline void attend_chunk(Query& query, const float* k, const float* v, int64_t begin, int64_t n,
                         int64_t padded, float scale) {
  alignas(64) float p[kChunk];
  store(p, mul(dots(query, k, padded), splat(scale)));
  if (n > 16) store(p + 16, mul(dots(query, k + 16 * padded, padded), splat(scale)));
  for (int64_t t = 0; t < begin; ++t) p[t] = -__builtin_inff();
  for (int64_t t = n; t < kChunk; ++t) p[t] = -__builtin_inff();
  const F32x16 first = load(p);
  const F32x16 second = load(p + 16);
  const float maximum = reduce_max(max(first, second));
  if (!(maximum <= query.maximum)) raise_maximum(query, maximum, padded);
  const F32x16 first_weight = exp(sub(first, splat(query.maximum)));
  const F32x16 second_weight = exp(sub(second, splat(query.maximum)));
  query.weight_sum = add(query.weight_sum, add(first_weight, second_weight));
  store(p, first_weight);
  store(p + 16, second_weight);
  // Values of tokens outside of the window are not touched: a weight of 0 would not stop a NaN.
  const float* weights = p + begin;
  v += begin * padded;
  int64_t d = 0;
  for (; d + 64 <= padded; d += 64) accumulate<4>(query.o + d, weights, v + d, n - begin, padded);
  for (; d < padded; d += 16) accumulate<1>(query.o + d, weights, v + d, n - begin, padded);
}

inline void start_query(Query& query, const float* q, int64_t dim, int64_t padded) {
  query.maximum = -__builtin_inff();
  query.weight_sum = splat(0.0f);
  for (int64_t d = 0; d < padded; ++d) {
    query.q[d] = d < dim ? q[d] : 0.0f;
    query.o[d] = 0.0f;
  }
}

inline void finish_query(const Query& query, int64_t dim, float* out) {
  const F32x16 inverse = splat(1.0f / reduce_add(query.weight_sum));
  for (int64_t d = 0; d < dim; d += 16) {
    store_n(out + d, mul(load(query.o + d), inverse), smaller(dim - d, 16));
  }
}

inline void attend(const AttendArgs& a) {
  const int64_t padded = (a.head_dim + 15) / 16 * 16;
  alignas(64) float k[kChunk * kMaxHeadDim];
  alignas(64) float v[kChunk * kMaxHeadDim];
  Query queries[kQueryTile];
  int64_t nearest = a.limit[0];
  int64_t furthest = 0;
  for (int i = 0; i < a.n_queries; ++i) {
    start_query(queries[i], a.q[i], a.head_dim, padded);
    if (a.first[i] < nearest) nearest = a.first[i];
    if (a.limit[i] > furthest) furthest = a.limit[i];
  }
  // Chunks lie where they would without a window, whatever the tile's other queries see.
  for (int64_t base = nearest - nearest % a.page_tokens % kChunk; base < furthest;) {
    const int64_t offset = base % a.page_tokens;
    const int64_t n = smaller(kChunk, smaller(a.page_tokens - offset, furthest - base));
    const int64_t at = a.pages[base / a.page_tokens] * a.page_stride_bytes;
    expand(a, a.k + at, offset, n, padded, k);
    expand(a, a.v + at, offset, n, padded, v);
    // Lanes of tokens beyond n are computed and dropped; they must be numbers.
    for (int64_t d = n * padded; d < (n + 15) / 16 * 16 * padded; ++d) k[d] = 0.0f;
    for (int i = 0; i < a.n_queries; ++i) {
      const int64_t begin = a.first[i] > base ? a.first[i] - base : 0;
      const int64_t end = smaller(n, a.limit[i] - base);
      if (begin < end) attend_chunk(queries[i], k, v, begin, end, padded, a.scale);
    }
    base += n;
  }
  for (int i = 0; i < a.n_queries; ++i) finish_query(queries[i], a.head_dim, a.out[i]);
}

}  // namespace spillway::cpu::SPILLWAY_LANES
