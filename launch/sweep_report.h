// What a sweep tells: predicted and measured side by side, as a table for a terminal, CSV, JSON and
// a plot in SVG. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/measured.h"

namespace spillway {

struct SweepRow {
  std::string name;
  bool control = false;
  double on_gpu = 0;  // share of the layers' weight bytes
  // Tokens per second; measured ones with as many runs as there were.
  double predicted_decode = 0, predicted_prefill = 0;
  Measured decode, prefill;
  int64_t ledger_gpu_bytes = 0;    // of the rank on a GPU whose ledger is greatest
  int64_t measured_gpu_bytes = 0;  // on that GPU, by this job; 0: not known
  std::string failed;              // why it was not measured
};

// measured / predicted - 1.
double error_of(double predicted, double measured);

std::string sweep_table(const std::vector<SweepRow>& rows);
std::string sweep_csv(const std::vector<SweepRow>& rows);
nlohmann::ordered_json sweep_json(const std::vector<SweepRow>& rows);

// Decode over prediction, a dot a row with the line where both are equal; with offload decode over
// the share of the weights on the GPU, predicted and measured.
std::string sweep_svg(const std::vector<SweepRow>& rows, const std::string& title, bool offload);

}  // namespace spillway
