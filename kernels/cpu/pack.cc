// See pack.h. Reads every byte of the source once and writes every byte of the result once; within
// a group it goes block by block, so that the 64-byte lines that 16 rows share stay in cache.
#include "kernels/cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/int_math.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/packed_block.h"
#include "kernels/cpu/packed_grid.h"
#include "kernels/cpu/parallel.h"

namespace spillway::cpu {
namespace {

GroupPlanes planes_of(const PackedMatrix& matrix, const GroupLayout& layout, int64_t group) {
  std::byte* base = matrix.data + group * layout.bytes;
  return {base + layout.codes, base + layout.high, base + layout.sub, base + layout.scales,
          base + layout.mins};
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
    BlockParts parts{};
    for (int64_t b = 0; b < cols / Traits::kBlock; ++b) {
      for (int64_t lane = lanes.begin; lane < lanes.end; ++lane) {
        typename Traits::Block block;
        const int64_t offset = b * static_cast<int64_t>(sizeof(block));
        std::memcpy(&block, rows + (lane - lanes.begin) * row_bytes + offset, sizeof(block));
        if constexpr (Traits::kGrid != 0) {
          put_grid_block<Traits>(block, to, b, lane);
        } else {
          take_apart(block, parts);
          put_block<Traits>(parts, to, b, lane);
        }
      }
    }
  }
}

// A code that stands for 0: in the tables the first entry of that value, elsewhere any.
template <typename Traits>
constexpr int zero_code() {
  if constexpr (Traits::kTable) {
    for (int i = 0; i < 16; ++i) {
      if (Traits::kValues[i] == 0) return i;
    }
  }
  return 0;
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
    } else if constexpr (Traits::kGrid != 0) {
      const typename Traits::Block zero{};  // d is 0
      for (int64_t b = 0; b < cols / Traits::kBlock; ++b) put_grid_block<Traits>(zero, to, b, lane);
    } else {
      BlockParts zero{};  // an exponent of 0 is 2^-128: codes of the value 0 beside it
      std::memset(zero.codes, zero_code<Traits>(), sizeof(zero.codes));
      for (int64_t b = 0; b < cols / Traits::kBlock; ++b) put_block<Traits>(zero, to, b, lane);
    }
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
      BlockParts parts{};
      float values[kMaxBlock];
      for (int64_t b = 0; b < matrix.cols / Traits::kBlock; ++b) {
        if constexpr (Traits::kGrid != 0) {
          typename Traits::Block block;
          get_grid_block<Traits>(from, b, lane, block);
          take_apart(block, parts);
        } else {
          get_block<Traits>(from, b, lane, parts);
        }
        block_values<Traits>(parts, values);
        std::copy_n(values, Traits::kBlock, out.begin() + b * Traits::kBlock);
      }
    }
  });
}

}  // namespace spillway::cpu
