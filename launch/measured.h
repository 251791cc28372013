// Measured: what a test that was run several times tells: the median and the range. Pure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace spillway {

struct Measured {
  double median = 0, least = 0, most = 0;  // tokens per second; 0: not measured
  std::vector<double> runs;                // in the order in which they ran
};

inline Measured measured_of(std::vector<double> runs) {
  Measured out;
  out.runs = runs;
  if (runs.empty()) return out;
  std::sort(runs.begin(), runs.end());
  const size_t n = runs.size();
  out.median = n % 2 == 1 ? runs[n / 2] : 0.5 * (runs[n / 2 - 1] + runs[n / 2]);
  out.least = runs.front();
  out.most = runs.back();
  return out;
}

}  // namespace spillway
