// bench --profile: after the timed runs a few more steps are traced on every rank, each rank
// divides its time by terms, and the front shows them beside what the plan predicted.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/job.h"
#include "launch/terms.h"

namespace spillway {

// One kind of step.
struct StepProfile {
  struct Rank {
    bool traced = false;  // false: a rank that the plan does not use
    TermTimes times;
    int64_t dropped = 0;  // records that the tracer had no room for
  };
  std::vector<Rank> ranks;
  int64_t steps = 0;    // of which the times are the mean; 0: not asked for
  double timed_ms = 0;  // the same step, timed before without tracing
};

struct Profile {
  std::string obstacle;  // why there is none
  StepProfile decode;
  StepProfile prefill;
  Prediction predicted;              // of the decode step at the depth of the test
  bool comparable = false;           // the prediction is of one sequence, as the steps were
  std::array<double, kTerms> job{};  // job_terms(), when comparable
};

// The decode step of the whole job: the stages follow one another, so their first ranks' terms add
// up; instead of the ranks' waits the hops have what is left of the front's step.
std::array<double, kTerms> job_terms(const StepProfile& decode, const Plan& plan);
// The terms that a plan predicts, beside what was measured of them. What launches cost, or on CPUs
// the other ops, is measured as other kernels, gaps between them and the host's own time.
struct ComparedTerm {
  const char* name;
  double predicted_ms;
  double measured_ms;
};
std::vector<ComparedTerm> compared_terms(const std::array<double, kTerms>& job,
                                         const Prediction& predicted);
// Where decode is off by more than the 15 % that are asked of predictions, how the reason is found;
// else "". Tokens a second.
std::string far_off_text(double measured, double predicted);
// The one that is furthest off, in milliseconds.
const ComparedTerm& furthest_off(const std::vector<ComparedTerm>& terms);

// Collective; the result counts on the front. timed_*_ms: of a step, from the timed runs.
Profile profile_steps(const Options& options, Job& job, House& house, double timed_decode_ms,
                      double timed_prefill_ms);

std::string profile_text(const Profile& profile);
nlohmann::ordered_json profile_json(const Profile& profile);

}  // namespace spillway
