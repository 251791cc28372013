// See packed_matrix.h; kernels/cpu/pack.h draws the layout.
#include "kernels/core/packed_matrix.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/int_math.h"

namespace spillway {

GroupLayout group_layout(QuantType type, int64_t cols) {
  return dispatch(type, [cols](auto tag) {
    using Traits = typename decltype(tag)::Traits;
    CHECK_GE(cols, 0);
    CHECK_EQ(cols % Traits::kBlock, 0);
    const auto plane = [](int64_t bytes) { return round_up(bytes, kPackedAlignment); };
    GroupLayout layout;
    if constexpr (Traits::kBits == 0) {
      layout.bytes = plane(cols * kRowGroup * Traits::kElementBytes);
      layout.high = layout.scales = layout.mins = layout.bytes;
    } else {
      const int64_t blocks = cols / Traits::kBlock;
      const int64_t low_bits = Traits::kBits == 5 ? 4 : Traits::kBits;
      const int64_t code_bytes = Traits::kBlock * kRowGroup * low_bits / 8;
      const int64_t high_bytes = Traits::kBits == 5 ? Traits::kBlock * kRowGroup / 8 : 0;
      const int64_t f16_plane = plane(blocks * kRowGroup * 2);
      layout.high = plane(blocks * code_bytes);
      layout.scales = layout.high + plane(blocks * high_bytes);
      layout.mins = layout.scales + f16_plane;
      layout.bytes = layout.mins + (Traits::kHasMin ? f16_plane : 0);
    }
    return layout;
  });
}

int64_t packed_bytes(QuantType type, int64_t rows, int64_t cols) {
  CHECK_GE(rows, 0);
  return div_up(rows, kRowGroup) * group_layout(type, cols).bytes;
}

}  // namespace spillway
