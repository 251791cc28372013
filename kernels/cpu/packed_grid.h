// One block of one row of a grid type (IQ2, IQ3) between the file and the planes of a row group,
// both ways: bytes keep their meaning and only change places. Drawn in pack.h. Called by pack.cc
// only.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/packed_block.h"

namespace spillway::cpu {

// Where the bytes of 32 columns lie in the file's block; nullptr where the type has none.
struct GridPieceBytes {
  std::byte* index = nullptr;  // 4 or 8: indices (IQ2_XS: with their signs)
  std::byte* signs = nullptr;  // 4
  std::byte* high = nullptr;   // 1: upper bits of indices
};
// The scale bytes of a whole block, 0 where they are among the signs.
struct GridScaleBytes {
  std::byte* first = nullptr;
  int n = 0;
};

inline GridPieceBytes piece_bytes(BlockIQ2_XXS& block, int k) {
  auto* words = reinterpret_cast<std::byte*>(block.qs) + 8 * k;
  return {words, words + 4, nullptr};
}
inline GridPieceBytes piece_bytes(BlockIQ2_XS& block, int k) {
  return {reinterpret_cast<std::byte*>(block.qs) + 8 * k, nullptr, nullptr};
}
inline GridPieceBytes piece_bytes(BlockIQ2_S& block, int k) {
  return {reinterpret_cast<std::byte*>(block.qs) + 4 * k,
          reinterpret_cast<std::byte*>(block.signs) + 4 * k,
          reinterpret_cast<std::byte*>(block.qh) + k};
}
inline GridPieceBytes piece_bytes(BlockIQ3_XXS& block, int k) {
  return {reinterpret_cast<std::byte*>(block.qs) + 8 * k,
          reinterpret_cast<std::byte*>(block.signs_and_scales) + 4 * k, nullptr};
}
inline GridPieceBytes piece_bytes(BlockIQ3_S& block, int k) {
  return {reinterpret_cast<std::byte*>(block.qs) + 8 * k,
          reinterpret_cast<std::byte*>(block.signs) + 4 * k,
          reinterpret_cast<std::byte*>(block.qh) + k};
}

template <typename Block>
GridScaleBytes scale_bytes(Block& block) {
  if constexpr (requires { block.scales; }) {
    return {reinterpret_cast<std::byte*>(block.scales), static_cast<int>(sizeof(block.scales))};
  } else {
    return {};
  }
}

// Calls move(file's bytes, place in a plane, bytes) for every piece of the block.
template <typename Traits, typename Move>
void for_grid_bytes(typename Traits::Block& block, const GroupPlanes& planes, int64_t b,
                    int64_t lane, Move move) {
  std::byte* strips = planes.sub + b * Traits::kSubBytes * kRowGroup + lane;
  for (int k = 0; k < 8; ++k) {
    const GridPieceBytes bytes = piece_bytes(block, k);
    const int64_t piece = 8 * b + k;
    for (int v = 0; v < Traits::kLowBits; ++v) {
      move(bytes.index + kQuad * v,
           planes.codes + (piece * Traits::kLowBits + v) * kVectorBytes + lane * kQuad, kQuad);
    }
    if (bytes.signs != nullptr) {
      move(bytes.signs, planes.high + piece * kVectorBytes + lane * kQuad, kQuad);
    }
    if (bytes.high != nullptr) {
      move(bytes.high, strips, int64_t{1});
      strips += kRowGroup;
    }
  }
  const GridScaleBytes scales = scale_bytes(block);
  for (int i = 0; i < scales.n; ++i, strips += kRowGroup)
    move(scales.first + i, strips, int64_t{1});
  move(reinterpret_cast<std::byte*>(&block.d), planes.scales + b * kHalfRow + lane * 2, int64_t{2});
}

template <typename Traits>
void put_grid_block(typename Traits::Block block, const GroupPlanes& to, int64_t b, int64_t lane) {
  for_grid_bytes<Traits>(block, to, b, lane, [](std::byte* file, std::byte* plane, int64_t n) {
    std::memcpy(plane, file, static_cast<size_t>(n));
  });
}
template <typename Traits>
void get_grid_block(const GroupPlanes& from, int64_t b, int64_t lane,
                    typename Traits::Block& block) {
  for_grid_bytes<Traits>(block, from, b, lane, [](std::byte* file, std::byte* plane, int64_t n) {
    std::memcpy(file, plane, static_cast<size_t>(n));
  });
}

}  // namespace spillway::cpu
