// Explain: why a plan is as it is: what binds it, what one more GiB would bring, what else there
// was. Called by `plan`. Pure; plans again, four or five times side by side, so that it takes about
// as long as planning.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "parallel/pin_hold.h"
#include "parallel/planner.h"

namespace spillway {

// The memory with least room left, and the greatest ledger line in it.
struct Binding {
  int rank = 0;
  std::string place;  // "gpu" or "host"
  int64_t used_bytes = 0;
  int64_t budget_bytes = 0;
  std::string line;  // "weights, layer 3 feed-forward"
  int64_t line_bytes = 0;
  // Whether a bit more of it would change the plan: something is spilled, or the context is as long
  // as fits. False: all that was asked for is there, and speed decides; or pins do.
  bool binds = false;
  bool given = false;   // the budget is a flag's: --gpu-memory or --host-memory
  bool unused = false;  // a GPU that the plan leaves alone: nothing of it is used
  PinHold pins;
};

// The best plan without --place and -ngl, where it is clearly faster by the objective.
struct WithoutPins {
  double decode_tok_per_s = 0;
  double prefill_tok_per_s = 0;
  double times = 1;  // as fast
};

// The plan with one GiB more on every GPU, or on every host, less the plan: all zero where the
// objective gains nothing. What it does not name may be less, below 0.
struct OneMoreGib {
  std::string place;
  double decode_tok_per_s = 0;
  double prefill_tok_per_s = 0;
  double sequences_tok_per_s = 0;  // of several sequences at once
  int64_t context = 0;             // tokens, by the objective `context`
};

struct Alternative {
  std::string what;  // "TP2, ffn of 12 layers hybrid 0.62"
  double decode_tok_per_s = 0;
  double prefill_tok_per_s = 0;
  double sequences_tok_per_s = 0;
  int64_t context = 0;
  std::string flags;  // that pin it
};

// A job of fewer ranks, mpirun's first ones, that is predicted clearly faster: every rank of a job
// has a part, and to small models more sums and hops are more than the memories bring.
struct FewerRanks {
  int ranks = 0;
  int of = 0;
  double times = 1;  // as fast, by the objective
};
inline constexpr double kClearlyFaster = 1.1;

// The best of a few counts: 1, 2, half, the leading ranks with GPUs; of plans that spill only the
// last of these. Nothing where the request names ranks or stages, or wants the longest context.
std::optional<FewerRanks> fewer_ranks(const Plan& plan, const ModelSpec& model,
                                      const ClusterSpec& measured, const PlanRequest& request);
// "2 of the 4 ranks alone are predicted 1.4 times as fast: mpirun -np 2", and a line's end.
std::string fewer_ranks_text(const FewerRanks& fewer);

struct Explanation {
  Binding binding;
  std::optional<FewerRanks> fewer;
  std::optional<WithoutPins> without_pins;
  std::vector<OneMoreGib> more;           // "gpu" where GPUs are or could be, then "host"
  std::vector<Alternative> alternatives;  // the five best that differ
};

inline constexpr size_t kAlternatives = 5;

Explanation explain(const Planned& planned, const ModelSpec& model, const ClusterSpec& measured,
                    const PlanRequest& request);
// A paragraph below the table.
std::string explanation_text(const Explanation& explanation, const Plan& plan);

}  // namespace spillway
