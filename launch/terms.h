// Where the time of traced steps went: each instant of a rank belongs to one term. Pure, so that it
// is tested without a GPU; bench --profile calls it with what was traced.
//
// The rule on a GPU. Kernels overlap: the next one is on the device before the last one's end
// (programmatic dependent launch), sums run beside products. An instant belongs to the kernel or
// copy that began first of those that still run. An instant with nothing on the GPU belongs to what
// the host did:
//   wait   it waited for another rank: rows of the stage before, logits, on followers a step
//   gap    it waited for this GPU: what launches cost between kernels
//   host   anything else: making the step, launching, sampling
// or to what the GPU waited for, and that ended within these idle instants, the last one first:
//   cpu    the CPU multiplied a half
//   bus    a spilled half was copied to the GPU; copies beside kernels cost nothing
//   disk   a half was read from the disk
// Kernels have their term by their names. A half layer's sum that is one kernel with the norm after
// it, or that waits for a slower rank inside of the kernel, is all collective. Copies of the
// residual stream's rows between host and GPU are hops, or collective where sums are staged, and
// there the idle time between a copy to the host and one back is collective too.
// A rank on a CPU tells itself what it does (work_times.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/stage/step_trace.h"

namespace spillway {

enum class Term {
  kMatrix,
  kAttention,
  kCollective,
  kHop,
  kOther,
  kGap,
  kWait,
  kHost,
  kCpu,
  kBus,
  kDisk
};
inline constexpr size_t kTerms = 11;
const char* term_name(Term term);  // "matrix"

// The name of a kernel's function alone: "gemv_kernel". `mangled` as the compiler writes it; what
// is not mangled stays as it is.
std::string kernel_name(const std::string& mangled);
// nullopt: a kernel that nobody has given a term.
std::optional<Term> term_of_kernel(const std::string& mangled);

struct TermRules {
  int64_t row_bytes = 0;  // of a row of the residual stream
  bool staged = false;    // the rank's sums go through host memory
  bool front = false;     // makes the steps; the others wait for them
  std::vector<int64_t> spilled_bytes =
      {};  // of halves that are copied to the GPU: streamed_copies()
};

// Milliseconds of one step.
struct TermTimes {
  std::array<double, kTerms> ms{};
  double total_ms = 0;
  std::string unknown;  // a kernel without a term, counted as other; "" when there was none
  double operator[](Term term) const { return ms[static_cast<size_t>(term)]; }
  double& operator[](Term term) { return ms[static_cast<size_t>(term)]; }
};

// Of the last n_runs runs of the executor, which make n_steps steps: from the end of the run before
// them, which must be in the trace too, to the end of the last.
TermTimes term_times(const StepTrace& trace, size_t n_runs, int64_t n_steps,
                     const TermRules& rules);

}  // namespace spillway
