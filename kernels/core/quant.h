// The numeric types that tensors come in. Numbers and block sizes are those of the GGUF format
// (ggml's enum), since they are read from files; block structs follow in packed_matrix.h's order.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace spillway {

enum class QuantType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct QuantInfo {
  QuantType type;
  const char* name;        // as people write it: "Q4_K"
  int64_t block_elements;  // values a block
  int64_t block_bytes;     // bytes a block in the file
  bool computable;         // the kernels can multiply with it
};

// Facts of a type; every enumerator has them.
const QuantInfo& quant_info(QuantType type);
// The type with this number in a GGUF file, or nothing when it is unknown.
std::optional<QuantType> quant_type_from_file(uint32_t number);
// "q4_k", "Q4_K" → kQ4_K.
std::optional<QuantType> quant_type_from_name(std::string_view name);

// Bytes of `elements` values in the file's layout. elements must be a multiple of block_elements.
int64_t quant_bytes(QuantType type, int64_t elements);

// Blocks of a GGUF file, little-endian, without padding. d, m and dmin are IEEE half floats. A file
// may put them on any byte, so they are copied out, never read in place. In the 4- and 5-bit types
// of 32 values byte j of qs holds value j in its low nibble and value j + 16 in its high nibble.
// kernels/cpu/block_parts.cc takes every block apart.

// 32 values of 4 bits around a fixed middle: value = d * (code - 8). 4.5 bits a value.
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// 32 values of 4 bits above a minimum: value = d * code + m. 5 bits a value.
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// Q4_0 with a fifth bit: bit i of the 32-bit word qh is bit 4 of value i's code;
// value = d * (code - 16). 5.5 bits a value.
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// Q4_1 with a fifth bit, stored as in Q5_0; value = d * code + m. 6 bits a value.
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// 32 signed bytes: value = d * code. 8.5 bits a value.
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// K-quants and their like: 256 values in sub-blocks of 32 or 16, each with a small integer scale
// (and minimum) under the half floats of the whole block.

// 2 bits, sub-blocks of 16: value = d * (scales & 15) * code - dmin * (scales >> 4). Value i of the
// 128-value half h lies in byte 32h + i % 32 at bit 2 * (i / 32). 2.625 bits a value.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;
  uint16_t dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// 3 bits, sub-blocks of 16: value = d * (scale - 32) * (code - 4); two bits as in Q2_K, the third
// of value i is bit i / 32 of hmask[i % 32]. Scale k's low nibble is in scales[k % 8] (high nibble
// for k >= 8), its two high bits at bit 2 * (k / 4) of scales[8 + k % 4]. 3.4375 bits a value.
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// 4 bits, sub-blocks of 32: value = d * scale * code - dmin * minimum. Byte 32c + i of qs holds
// value 64c + i in its low and 64c + 32 + i in its high nibble. Six bits each: scales 0 to 3 in
// bytes 0 to 3 of `scales`, minimums 0 to 3 in bytes 4 to 7; those of sub-block k >= 4 have their
// low nibbles in byte 4 + k (scale low, minimum high), the rest atop bytes k - 4 and k. 4.5 bits.
struct BlockQ4_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// Q4_K with a fifth bit: that of value i is bit i / 32 of qh[i % 32]. 5.5 bits a value.
struct BlockQ5_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// 6 bits, sub-blocks of 16: value = d * scale * (code - 32). Of the 128-value half h, value i has
// its low nibble in ql[64h + i % 64] (high nibble for i >= 64) and its two high bits in
// qh[32h + i % 32] at bit 2 * (i / 32). 6.5625 bits a value.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// Q4_0's places, but the code is an index of kNonlinearValues: value = d * kNonlinearValues[code].
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);
inline constexpr int8_t kNonlinearValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

// 256 of them in sub-blocks of 32: value = d * (scale - 32) * kNonlinearValues[code]; byte 16k + i
// of qs holds values 32k + i and 32k + 16 + i. Scale k: nibble k % 2 of scales_l[k / 2], bits 2k
// and 2k + 1 of scales_h. 4.25 bits a value.
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// OCP Microscaling FP4: 32 values of 1 sign, 2 exponent and 1 mantissa bit, Q4_0's places, under a
// power of two e - 127. kFp4Values are doubled to be integers, so the scale is halved:
// value = 2^(e - 128) * kFp4Values[code]. 4.25 bits a value.
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);
inline constexpr int8_t kFp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Grids (kernels/core/iq_grids.h): magnitudes come in eights or fours out of a list, signs apart.
// 256 values, a 4-bit scale s a sub-block that stands for 2s + 1.
// Signs of 7 bits: bit i is value i's, the eighth is their parity.

// Sub-blocks of 32: value = d * (2s + 1) / 8 * sign * magnitude. Of the four 16-bit words of
// sub-block k the first two are four indices of 8 bits, the others 4 x 7 sign bits and s on
// top. 2.0625 bits.
struct BlockIQ2_XXS {
  uint16_t d;
  uint16_t qs[32];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

// Sub-blocks of 16, the same formula: a word has an index of 9 bits and 7 sign bits for 8 values;
// s of sub-block k is nibble k % 2 of scales[k / 2]. 2.3125 bits.
struct BlockIQ2_XS {
  uint16_t d;
  uint16_t qs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

// The same with indices of 10 bits, the upper two of index i at bit 2 * (i % 4) of qh[i / 4], and a
// bit for every sign. 2.5625 bits.
struct BlockIQ2_S {
  uint16_t d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

// Fours, sub-blocks of 32: value = d * (2s + 1) / 4 * sign * magnitude. A byte is an index; the
// words of signs and s are as in IQ2_XXS, one for each sub-block. 3.0625 bits.
struct BlockIQ3_XXS {
  uint16_t d;
  uint8_t qs[64];
  uint8_t signs_and_scales[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

// Fours with indices of 9 bits, the ninth of index i being bit i % 8 of qh[i / 8], a bit for every
// sign: value = d * (2s + 1) * sign * magnitude; s of sub-block k: nibble k % 2 of scales[k / 2].
// 3.4375 bits.
struct BlockIQ3_S {
  uint16_t d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

}  // namespace spillway
