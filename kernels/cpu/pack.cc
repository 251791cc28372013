// See pack.h. Reads every byte of the source once and writes every byte of the result once; within
// a group it goes block by block, so that the 64-byte lines that 16 rows share stay in cache.
#include "kernels/cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/half.h"
#include "kernels/core/int_math.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

constexpr int64_t kQuad = 4;                         // bytes a lane has in a vector
constexpr int64_t kVectorBytes = kQuad * kRowGroup;  // 64
constexpr int64_t kHalfRow = kRowGroup * 2;          // 16 f16

struct GroupPlanes {
  std::byte* codes;
  std::byte* high;
  std::byte* scales;
  std::byte* mins;
};

GroupPlanes planes_of(const PackedMatrix& matrix, const GroupLayout& layout, int64_t group) {
  std::byte* base = matrix.data + group * layout.bytes;
  return {base + layout.codes, base + layout.high, base + layout.scales, base + layout.mins};
}

// qh of a file's block (bit i = value i) to the order of the fifth-bit vector, and back.
constexpr int packed_bit(int i) {
  const int column = i & 15;
  return 8 * (column & 3) + (column >> 2) + (i < 16 ? 0 : 4);
}

template <typename Traits>
void pack_block(const typename Traits::Block& block, const GroupPlanes& to, int64_t b,
                int64_t lane) {
  constexpr int64_t kVectors = Traits::kBits == 8 ? 8 : 4;
  std::byte* codes = to.codes + b * kVectors * kVectorBytes + lane * kQuad;
  for (int64_t j = 0; j < kVectors; ++j) {
    uint8_t quad[kQuad];
    std::memcpy(quad, block.qs + kQuad * j, kQuad);
    if constexpr (Traits::kBits == 8) {
      for (uint8_t& code : quad) code ^= 128;  // + 128, as unsigned
    }
    std::memcpy(codes + j * kVectorBytes, quad, kQuad);
  }
  if constexpr (Traits::kBits == 5) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; ++i) {
      bits |= static_cast<uint32_t>((block.qh[i / 8] >> (i % 8)) & 1) << packed_bit(i);
    }
    std::memcpy(to.high + b * kVectorBytes + lane * kQuad, &bits, sizeof(bits));
  }
  std::memcpy(to.scales + b * kHalfRow + lane * 2, &block.d, sizeof(block.d));
  if constexpr (Traits::kHasMin) {
    std::memcpy(to.mins + b * kHalfRow + lane * 2, &block.m, sizeof(block.m));
  }
}

// Lanes [lane_begin, lane_end) of one group from consecutive file rows.
template <typename Traits>
void pack_lanes(const std::byte* rows, int64_t row_bytes, int64_t cols, const GroupPlanes& to,
                Range lanes) {
  if constexpr (Traits::kBits == 0) {
    constexpr int64_t kBytes = Traits::kElementBytes;
    for (int64_t k = 0; k < cols; ++k) {
      for (int64_t lane = lanes.begin; lane < lanes.end; ++lane) {
        const std::byte* from = rows + (lane - lanes.begin) * row_bytes + k * kBytes;
        std::memcpy(to.codes + (k * kRowGroup + lane) * kBytes, from, kBytes);
      }
    }
  } else {
    for (int64_t b = 0; b < cols / Traits::kBlock; ++b) {
      for (int64_t lane = lanes.begin; lane < lanes.end; ++lane) {
        typename Traits::Block block;
        const int64_t offset = b * static_cast<int64_t>(sizeof(block));
        std::memcpy(&block, rows + (lane - lanes.begin) * row_bytes + offset, sizeof(block));
        pack_block<Traits>(block, to, b, lane);
      }
    }
  }
}

// Lanes beyond the matrix: rows of the value 0.
template <typename Traits>
void zero_lanes(int64_t cols, const GroupPlanes& to, Range lanes) {
  for (int64_t lane = lanes.begin; lane < lanes.end; ++lane) {
    if constexpr (Traits::kBits == 0) {
      constexpr int64_t kBytes = Traits::kElementBytes;
      for (int64_t k = 0; k < cols; ++k) {
        std::memset(to.codes + (k * kRowGroup + lane) * kBytes, 0, kBytes);
      }
    } else {
      const typename Traits::Block zero{};
      for (int64_t b = 0; b < cols / Traits::kBlock; ++b) pack_block<Traits>(zero, to, b, lane);
    }
  }
}

template <typename Traits>
void unpack_blocks(const GroupPlanes& from, int64_t lane, std::span<double> out) {
  const auto half = [](const std::byte* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof(bits));
    return f16_to_f32(bits);
  };
  constexpr int64_t kVectors = Traits::kBits == 8 ? 8 : 4;
  for (size_t k = 0; k < out.size(); ++k) {
    const auto b = static_cast<int64_t>(k) / Traits::kBlock;
    const auto i = static_cast<int>(static_cast<int64_t>(k) % Traits::kBlock);
    const int byte = Traits::kBits == 8 ? i : i & 15;
    int code =
        std::to_integer<int>(from.codes[b * kVectors * kVectorBytes + byte / kQuad * kVectorBytes +
                                        lane * kQuad + byte % kQuad]);
    if constexpr (Traits::kBits != 8) code = i < 16 ? code & 15 : code >> 4;
    if constexpr (Traits::kBits == 5) {
      uint32_t bits;
      std::memcpy(&bits, from.high + b * kVectorBytes + lane * kQuad, sizeof(bits));
      code |= static_cast<int>((bits >> packed_bit(i)) & 1u) << 4;
    }
    float value =
        half(from.scales + b * kHalfRow + lane * 2) * static_cast<float>(code - Traits::kOffset);
    if constexpr (Traits::kHasMin) value += half(from.mins + b * kHalfRow + lane * 2);
    out[k] = static_cast<double>(value);
  }
}

}  // namespace

void pack(const Exec& exec, const GgufMatrix& source, Range rows, Range cols,
          const PackedMatrix& out, int64_t out_row) {
  CHECK(source.type == out.type);
  CHECK(rows.begin >= 0 && rows.begin <= rows.end && rows.end <= source.rows);
  CHECK(cols.begin >= 0 && cols.begin <= cols.end && cols.end <= source.cols);
  CHECK_EQ(cols.size(), out.cols);
  CHECK_GE(out_row, 0);
  CHECK_LE(out_row + rows.size(), out.rows);
  if (rows.empty() || cols.empty()) return;
  CHECK_EQ(reinterpret_cast<uintptr_t>(out.data) % kPackedAlignment, 0u);
  dispatch(out.type, [&](auto tag) {
    using Traits = typename decltype(tag)::Traits;
    CHECK_EQ(cols.begin % Traits::kBlock, 0);
    const GroupLayout layout = group_layout(out.type, out.cols);
    const int64_t row_bytes = quant_bytes(source.type, source.cols);
    const std::byte* first =
        source.data + rows.begin * row_bytes + quant_bytes(source.type, cols.begin);
    const int64_t last_row = out_row + rows.size();
    const int64_t first_group = out_row / kRowGroup;
    const int64_t n_groups = div_up(last_row, kRowGroup) - first_group;
    parallel_for(exec, n_groups, rows.size() * cols.size(), [&](Range part) {
      for (int64_t g = first_group + part.begin; g < first_group + part.end; ++g) {
        const int64_t base = g * kRowGroup;
        const Range here{std::max(out_row, base), std::min(last_row, base + kRowGroup)};
        const GroupPlanes to = planes_of(out, layout, g);
        pack_lanes<Traits>(first + (here.begin - out_row) * row_bytes, row_bytes, out.cols, to,
                           {here.begin - base, here.end - base});
        // The call that writes the matrix's last row also fills the group.
        if (here.end == out.rows) zero_lanes<Traits>(out.cols, to, {here.end - base, kRowGroup});
      }
    });
  });
}

void unpack_row(const PackedMatrix& matrix, int64_t row, std::span<double> out) {
  CHECK(row >= 0 && row < matrix.rows);
  CHECK_EQ(static_cast<int64_t>(out.size()), matrix.cols);
  dispatch(matrix.type, [&](auto tag) {
    using Traits = typename decltype(tag)::Traits;
    const GroupLayout layout = group_layout(matrix.type, matrix.cols);
    const GroupPlanes from = planes_of(matrix, layout, row / kRowGroup);
    const int64_t lane = row % kRowGroup;
    if constexpr (Traits::kBits == 0) {
      constexpr int64_t kBytes = Traits::kElementBytes;
      for (size_t k = 0; k < out.size(); ++k) {
        float value;
        const std::byte* at = from.codes + (static_cast<int64_t>(k) * kRowGroup + lane) * kBytes;
        dequantize(matrix.type, at, std::span<float>(&value, 1));
        out[k] = static_cast<double>(value);
      }
    } else {
      unpack_blocks<Traits>(from, lane, out);
    }
  });
}

}  // namespace spillway::cpu
