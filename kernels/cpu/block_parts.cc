// See block_parts.h. Where each bit lies: the block structs in kernels/core/quant.h.
#include "kernels/cpu/block_parts.h"

#include <bit>
#include <cstring>

namespace spillway::cpu {
namespace {

// 32 codes of 4 bits: byte i holds value i and value i + 16.
void take_nibbles(const uint8_t* qs, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = qs[i] & 15;
    codes[i + 16] = qs[i] >> 4;
  }
}

// 256 codes of 4 bits: byte 32c + i holds value 64c + i and value 64c + 32 + i.
void take_nibble_pairs(const uint8_t* qs, uint8_t* codes) {
  for (int c = 0; c < 4; ++c) {
    for (int i = 0; i < 32; ++i) {
      codes[64 * c + i] = qs[32 * c + i] & 15;
      codes[64 * c + 32 + i] = qs[32 * c + i] >> 4;
    }
  }
}

void add_fifth_bits(const uint8_t (&qh)[4], uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((qh[i / 8] >> (i % 8)) & 1) << 4);
}

// 256 codes of 2 bits: value i of the half h is bits 2 * (i / 32) of byte 32h + i % 32.
void take_bit_pairs(const uint8_t* qs, int shift, uint8_t* codes) {
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 128; ++i) {
      const int pair = (qs[32 * h + i % 32] >> (2 * (i / 32))) & 3;
      codes[128 * h + i] |= static_cast<uint8_t>(pair << shift);
    }
  }
}

// One more bit for each of 256 codes: bit i / 32 of byte i % 32.
void take_bit(const uint8_t* qh, int shift, uint8_t* codes) {
  for (int i = 0; i < 256; ++i) {
    codes[i] |= static_cast<uint8_t>(((qh[i % 32] >> (i / 32)) & 1) << shift);
  }
}

// Scales and minimums of Q4_K and Q5_K.
void take_six_bits(const uint8_t (&scales)[12], BlockParts& out) {
  for (int k = 0; k < 4; ++k) {
    out.sub[k] = scales[k] & 63;
    out.sub_min[k] = scales[4 + k] & 63;
    const int low = scales[8 + k];
    out.sub[4 + k] = static_cast<uint8_t>((low & 15) | (scales[k] >> 6) << 4);
    out.sub_min[4 + k] = static_cast<uint8_t>(low >> 4 | (scales[4 + k] >> 6) << 4);
  }
}

}  // namespace

float half_power_of_two(uint8_t e) {
  const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

void take_apart(const BlockQ4_0& block, BlockParts& out) {
  take_nibbles(block.qs, out.codes);
  out.d = block.d;
}

void take_apart(const BlockQ4_1& block, BlockParts& out) {
  take_nibbles(block.qs, out.codes);
  out.d = block.d;
  out.m = block.m;
}

void take_apart(const BlockQ5_0& block, BlockParts& out) {
  take_nibbles(block.qs, out.codes);
  add_fifth_bits(block.qh, out.codes);
  out.d = block.d;
}

void take_apart(const BlockQ5_1& block, BlockParts& out) {
  take_nibbles(block.qs, out.codes);
  add_fifth_bits(block.qh, out.codes);
  out.d = block.d;
  out.m = block.m;
}

void take_apart(const BlockQ8_0& block, BlockParts& out) {
  for (int i = 0; i < 32; ++i) out.codes[i] = static_cast<uint8_t>(block.qs[i] + 128);
  out.d = block.d;
}

void take_apart(const BlockQ2_K& block, BlockParts& out) {
  std::memset(out.codes, 0, sizeof(out.codes));
  take_bit_pairs(block.qs, 0, out.codes);
  for (int k = 0; k < 16; ++k) {
    out.sub[k] = block.scales[k] & 15;
    out.sub_min[k] = block.scales[k] >> 4;
  }
  out.d = block.d;
  out.m = block.dmin;
}

void take_apart(const BlockQ3_K& block, BlockParts& out) {
  std::memset(out.codes, 0, sizeof(out.codes));
  take_bit_pairs(block.qs, 0, out.codes);
  take_bit(block.hmask, 2, out.codes);
  for (int k = 0; k < 16; ++k) {
    const int low = k < 8 ? block.scales[k] & 15 : block.scales[k - 8] >> 4;
    const int high = (block.scales[8 + k % 4] >> (2 * (k / 4))) & 3;
    out.sub[k] = static_cast<uint8_t>(low | high << 4);
  }
  out.d = block.d;
}

void take_apart(const BlockQ4_K& block, BlockParts& out) {
  take_nibble_pairs(block.qs, out.codes);
  take_six_bits(block.scales, out);
  out.d = block.d;
  out.m = block.dmin;
}

void take_apart(const BlockQ5_K& block, BlockParts& out) {
  take_nibble_pairs(block.qs, out.codes);
  take_bit(block.qh, 4, out.codes);
  take_six_bits(block.scales, out);
  out.d = block.d;
  out.m = block.dmin;
}

void take_apart(const BlockQ6_K& block, BlockParts& out) {
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 64; ++i) {
      out.codes[128 * h + i] = block.ql[64 * h + i] & 15;
      out.codes[128 * h + 64 + i] = block.ql[64 * h + i] >> 4;
    }
  }
  take_bit_pairs(block.qh, 4, out.codes);
  std::memcpy(out.sub, block.scales, sizeof(block.scales));
  out.d = block.d;
}

void take_apart(const BlockIQ4_NL& block, BlockParts& out) {
  take_nibbles(block.qs, out.codes);
  out.d = block.d;
}

void take_apart(const BlockIQ4_XS& block, BlockParts& out) {
  for (int k = 0; k < 8; ++k) {
    take_nibbles(block.qs + 16 * k, out.codes + 32 * k);
    const int low = (block.scales_l[k / 2] >> (4 * (k % 2))) & 15;
    out.sub[k] = static_cast<uint8_t>(low | ((block.scales_h >> (2 * k)) & 3) << 4);
  }
  out.d = block.d;
}

void take_apart(const BlockMXFP4& block, BlockParts& out) {
  take_nibbles(block.qs, out.codes);
  out.sub[0] = block.e;
}

}  // namespace spillway::cpu
