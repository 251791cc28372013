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
      layout.high = layout.sub = layout.scales = layout.mins = layout.bytes;
    } else {
      const int64_t blocks = cols / Traits::kBlock;
      const int64_t f16_plane = plane(blocks * kRowGroup * 2);
      layout.high = plane(cols * kRowGroup * Traits::kLowBits / 8);
      layout.sub = layout.high + plane(cols * kRowGroup * Traits::kHighBits / 8);
      layout.scales = layout.sub + plane(blocks * kRowGroup * Traits::kSubBytes);
      layout.mins = layout.scales + (Traits::kScales == Scales::kExponent ? 0 : f16_plane);
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
