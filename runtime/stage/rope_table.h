// RopeFrequencies: the angle a pair of a head turns by a position, with the model's scaling; and
// the cosines and sines of a step's rows. Computed once a step, shared by all layers.
// Sources: Su et al., RoFormer, 2021; linear: Chen et al., Position Interpolation, 2023; YaRN: Peng
// et al., 2023; Llama 3: divisors in rope_freqs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/tensor.h"
#include "parallel/model_spec.h"

namespace spillway {

class RopeFrequencies {
 public:
  explicit RopeFrequencies(const RopeSpec& rope);

  // Row i of cos and sin [n, n_rot/2] for the position positions[i].
  void fill(std::span<const int32_t> positions, View2D<float> cos, View2D<float> sin) const;

  std::span<const double> angles() const { return angles_; }  // per position, [n_rot/2]
  double magnitude() const { return magnitude_; }             // YaRN's factor on cos and sin

 private:
  std::vector<double> angles_;
  double magnitude_ = 1.0;
};

}  // namespace spillway
