// See rope_table.h.
#include "runtime/stage/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/core/check.h"

namespace spillway {
namespace {

// The pair index whose wavelength makes `turns` turns over the training context (YaRN, eq. 17).
double pair_of_turns(const RopeSpec& rope, double turns) {
  const double context = static_cast<double>(std::max<int64_t>(1, rope.original_context));
  return static_cast<double>(rope.n_rot) * std::log(context / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.base));
}

}  // namespace

RopeFrequencies::RopeFrequencies(const RopeSpec& rope) {
  const int64_t pairs = rope.n_rot / 2;
  angles_.resize(static_cast<size_t>(pairs));
  const bool yarn = rope.scaling == RopeScaling::kYarn;
  const double low = yarn ? std::max(0.0, std::floor(pair_of_turns(rope, rope.yarn_beta_fast))) : 0;
  const double high = yarn ? std::min(static_cast<double>(rope.n_rot - 1),
                                      std::ceil(pair_of_turns(rope, rope.yarn_beta_slow)))
                           : 0;
  for (int64_t i = 0; i < pairs; ++i) {
    double angle =
        std::pow(rope.base, -2.0 * static_cast<double>(i) / static_cast<double>(rope.n_rot));
    if (!rope.frequency_divisors.empty()) {
      angle /= static_cast<double>(rope.frequency_divisors[static_cast<size_t>(i)]);
    }
    const double interpolated = angle / rope.factor;
    if (yarn) {
      const double ramp =
          std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
      const double keep = (1.0 - ramp) * rope.yarn_extrapolation;
      angle = interpolated * (1.0 - keep) + angle * keep;
    } else {
      angle = interpolated;
    }
    angles_[static_cast<size_t>(i)] = angle;
  }
  if (yarn) {
    magnitude_ = rope.yarn_attention;
    if (rope.yarn_extrapolation != 0.0) magnitude_ *= 1.0 + 0.1 * std::log(rope.factor);
  }
}

void RopeFrequencies::fill(std::span<const int32_t> positions, View2D<float> cos,
                           View2D<float> sin) const {
  CHECK_EQ(cos.rows, static_cast<int64_t>(positions.size()));
  CHECK_EQ(cos.cols, static_cast<int64_t>(angles_.size()));
  for (size_t r = 0; r < positions.size(); ++r) {
    const auto cos_row = cos.row(static_cast<int64_t>(r));
    const auto sin_row = sin.row(static_cast<int64_t>(r));
    for (size_t i = 0; i < angles_.size(); ++i) {
      const double angle = static_cast<double>(positions[r]) * angles_[i];
      cos_row[i] = static_cast<float>(std::cos(angle) * magnitude_);
      sin_row[i] = static_cast<float>(std::sin(angle) * magnitude_);
    }
  }
}

}  // namespace spillway
