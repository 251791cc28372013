// The blocks of the IQ2 and IQ3 types taken apart: indices looked up, signs put to the magnitudes.
// See block_parts.h. Where each bit lies: the block structs in kernels/core/quant.h.
#include <bit>
#include <cstring>

#include "kernels/core/iq_grids.h"
#include "kernels/cpu/block_parts.h"

namespace spillway::cpu {
namespace {

// 8 signs of 7 bits: the eighth makes their number even.
int shared_signs(int seven) {
  return seven | (std::popcount(static_cast<unsigned>(seven)) & 1) << 7;
}

// Four codes out of a word of magnitudes; bit i of `signs` is value i's.
void put_four(uint32_t magnitudes, int signs, uint8_t* codes) {
  for (int i = 0; i < 4; ++i) {
    const auto magnitude = static_cast<int>((magnitudes >> (8 * i)) & 255);
    codes[i] = static_cast<uint8_t>(64 + ((signs >> i) & 1 ? -magnitude : magnitude));
  }
}

template <int n>
void put_eight(const Grid<n>& grid, int index, int signs, uint8_t* codes) {
  put_four(grid.words[2 * index], signs, codes);
  put_four(grid.words[2 * index + 1], signs >> 4, codes + 4);
}

uint32_t word_at(const void* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

void take_nibble_scales(const uint8_t* scales, int n, uint8_t* sub) {
  for (int k = 0; k < n; ++k) sub[k] = (scales[k / 2] >> (4 * (k % 2))) & 15;
}

}  // namespace

void take_apart(const BlockIQ2_XXS& block, BlockParts& out) {
  for (int k = 0; k < 8; ++k) {
    const uint32_t indices = word_at(block.qs + 4 * k);
    const uint32_t rest = word_at(block.qs + 4 * k + 2);
    for (int j = 0; j < 4; ++j) {
      const int signs = shared_signs(static_cast<int>((rest >> (7 * j)) & 127));
      put_eight(kGridIq2Xxs, static_cast<int>((indices >> (8 * j)) & 255), signs,
                out.codes + 32 * k + 8 * j);
    }
    out.sub[k] = static_cast<uint8_t>(rest >> 28);
  }
  out.d = block.d;
}

void take_apart(const BlockIQ2_XS& block, BlockParts& out) {
  for (int i = 0; i < 32; ++i) {
    put_eight(kGridIq2Xs, block.qs[i] & 511, shared_signs(block.qs[i] >> 9), out.codes + 8 * i);
  }
  take_nibble_scales(block.scales, 16, out.sub);
  out.d = block.d;
}

void take_apart(const BlockIQ2_S& block, BlockParts& out) {
  for (int i = 0; i < 32; ++i) {
    const int high = (block.qh[i / 4] >> (2 * (i % 4))) & 3;
    put_eight(kGridIq2S, block.qs[i] | high << 8, block.signs[i], out.codes + 8 * i);
  }
  take_nibble_scales(block.scales, 16, out.sub);
  out.d = block.d;
}

void take_apart(const BlockIQ3_XXS& block, BlockParts& out) {
  for (int k = 0; k < 8; ++k) {
    const uint32_t rest = word_at(block.signs_and_scales + 4 * k);
    for (int q = 0; q < 8; ++q) {
      const int signs = shared_signs(static_cast<int>((rest >> (7 * (q / 2))) & 127));
      put_four(kGridIq3Xxs.words[block.qs[8 * k + q]], signs >> (4 * (q % 2)),
               out.codes + 32 * k + 4 * q);
    }
    out.sub[k] = static_cast<uint8_t>(rest >> 28);
  }
  out.d = block.d;
}

void take_apart(const BlockIQ3_S& block, BlockParts& out) {
  for (int i = 0; i < 64; ++i) {
    const int index = block.qs[i] | ((block.qh[i / 8] >> (i % 8)) & 1) << 8;
    put_four(kGridIq3S.words[index], block.signs[i / 2] >> (4 * (i % 2)), out.codes + 4 * i);
  }
  take_nibble_scales(block.scales, 8, out.sub);
  out.d = block.d;
}

}  // namespace spillway::cpu
