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

// Blocks of a GGUF file, little-endian, without padding. d and m are IEEE half floats. A file may
// put them on any byte, so they are copied out, never read in place. In the 4- and 5-bit types byte
// j of qs holds value j in its low nibble and value j + 16 in its high nibble.

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

}  // namespace spillway
