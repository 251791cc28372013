// See block_assemble.h. Where each bit lies: the block structs in kernels/core/quant.h.
#include "kernels/cpu/block_assemble.h"

#include <cstring>

namespace spillway::cpu {
namespace {

uint8_t byte_of(int bits) { return static_cast<uint8_t>(bits); }

// 32 codes of 4 bits: byte i holds value i and value i + 16.
void put_nibbles(const uint8_t* codes, uint8_t* qs) {
  for (int i = 0; i < 16; ++i) qs[i] = byte_of((codes[i] & 15) | codes[i + 16] << 4);
}

// 256 codes of 4 bits: byte 32c + i holds value 64c + i and value 64c + 32 + i.
void put_nibble_pairs(const uint8_t* codes, uint8_t* qs) {
  for (int c = 0; c < 4; ++c) {
    for (int i = 0; i < 32; ++i) {
      qs[32 * c + i] = byte_of((codes[64 * c + i] & 15) | codes[64 * c + 32 + i] << 4);
    }
  }
}

void put_fifth_bits(const uint8_t* codes, uint8_t (&qh)[4]) {
  std::memset(qh, 0, sizeof(qh));
  for (int i = 0; i < 32; ++i) qh[i / 8] |= byte_of((codes[i] >> 4) << (i % 8));
}

// 256 codes of 2 bits: value i of the half h is bits 2 * (i / 32) of byte 32h + i % 32.
void put_bit_pairs(const uint8_t* codes, int shift, uint8_t (&qs)[64]) {
  std::memset(qs, 0, sizeof(qs));
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 128; ++i) {
      qs[32 * h + i % 32] |= byte_of(((codes[128 * h + i] >> shift) & 3) << (2 * (i / 32)));
    }
  }
}

// One more bit for each of 256 codes: bit i / 32 of byte i % 32.
void put_bit(const uint8_t* codes, int shift, uint8_t (&qh)[32]) {
  std::memset(qh, 0, sizeof(qh));
  for (int i = 0; i < 256; ++i) qh[i % 32] |= byte_of(((codes[i] >> shift) & 1) << (i / 32));
}

// Scales and minimums of Q4_K and Q5_K.
void put_six_bits(const BlockParts& parts, uint8_t (&scales)[12]) {
  for (int k = 0; k < 4; ++k) {
    scales[k] = byte_of(parts.sub[k] | (parts.sub[4 + k] >> 4) << 6);
    scales[4 + k] = byte_of(parts.sub_min[k] | (parts.sub_min[4 + k] >> 4) << 6);
    scales[8 + k] = byte_of((parts.sub[4 + k] & 15) | parts.sub_min[4 + k] << 4);
  }
}

}  // namespace

void put_together(const BlockParts& parts, BlockQ4_0& out) {
  put_nibbles(parts.codes, out.qs);
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockQ4_1& out) {
  put_nibbles(parts.codes, out.qs);
  out.d = parts.d;
  out.m = parts.m;
}

void put_together(const BlockParts& parts, BlockQ5_0& out) {
  put_nibbles(parts.codes, out.qs);
  put_fifth_bits(parts.codes, out.qh);
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockQ5_1& out) {
  put_nibbles(parts.codes, out.qs);
  put_fifth_bits(parts.codes, out.qh);
  out.d = parts.d;
  out.m = parts.m;
}

void put_together(const BlockParts& parts, BlockQ8_0& out) {
  for (int i = 0; i < 32; ++i) out.qs[i] = static_cast<int8_t>(parts.codes[i] - 128);
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockQ2_K& out) {
  put_bit_pairs(parts.codes, 0, out.qs);
  for (int k = 0; k < 16; ++k) out.scales[k] = byte_of(parts.sub[k] | parts.sub_min[k] << 4);
  out.d = parts.d;
  out.dmin = parts.m;
}

void put_together(const BlockParts& parts, BlockQ3_K& out) {
  put_bit_pairs(parts.codes, 0, out.qs);
  put_bit(parts.codes, 2, out.hmask);
  std::memset(out.scales, 0, sizeof(out.scales));
  for (int k = 0; k < 16; ++k) {
    out.scales[k % 8] |= byte_of((parts.sub[k] & 15) << (4 * (k / 8)));
    out.scales[8 + k % 4] |= byte_of((parts.sub[k] >> 4) << (2 * (k / 4)));
  }
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockQ4_K& out) {
  put_nibble_pairs(parts.codes, out.qs);
  put_six_bits(parts, out.scales);
  out.d = parts.d;
  out.dmin = parts.m;
}

void put_together(const BlockParts& parts, BlockQ5_K& out) {
  put_nibble_pairs(parts.codes, out.qs);
  put_bit(parts.codes, 4, out.qh);
  put_six_bits(parts, out.scales);
  out.d = parts.d;
  out.dmin = parts.m;
}

void put_together(const BlockParts& parts, BlockQ6_K& out) {
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 64; ++i) {
      const uint8_t* half = parts.codes + 128 * h;
      out.ql[64 * h + i] = byte_of((half[i] & 15) | half[64 + i] << 4);
    }
  }
  put_bit_pairs(parts.codes, 4, out.qh);
  std::memcpy(out.scales, parts.sub, sizeof(out.scales));
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockIQ4_NL& out) {
  put_nibbles(parts.codes, out.qs);
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockIQ4_XS& out) {
  std::memset(out.scales_l, 0, sizeof(out.scales_l));
  out.scales_h = 0;
  for (int k = 0; k < 8; ++k) {
    put_nibbles(parts.codes + 32 * k, out.qs + 16 * k);
    out.scales_l[k / 2] |= byte_of((parts.sub[k] & 15) << (4 * (k % 2)));
    out.scales_h = static_cast<uint16_t>(out.scales_h | (parts.sub[k] >> 4) << (2 * k));
  }
  out.d = parts.d;
}

void put_together(const BlockParts& parts, BlockMXFP4& out) {
  put_nibbles(parts.codes, out.qs);
  out.e = parts.sub[0];
}

}  // namespace spillway::cpu
