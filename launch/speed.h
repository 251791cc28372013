// Tokens a second of a house, as bench and sweep measure them: prefill of --prompt tokens at once,
// decode of --new tokens one by one after --depth tokens in each of --sequences caches; the median
// of repetitions after one uncounted run.
//   Thread: main, on the front, while the other ranks follow.
#pragma once

#include "launch/job.h"
#include "launch/measured.h"
#include "launch/options.h"

namespace spillway {

struct Speed {
  Measured prefill, decode;
  double weight_gb_per_token = 0;  // read by all ranks together
  double host_us = 0;              // of a decode step, beside waiting for the GPU; 0: on a CPU
};

Speed measure_speed(const Options& options, Job& job, House& house);

}  // namespace spillway
