// The planner against everything that could be pinned instead, for docs/bench/planning.md:
//   plan_rivals_bench small|two|three FROM TO
// plans random cases FROM to TO and prints those that some pin beats by more than 2 %. small: two
// or three ranks, 4 to 8 layers, every cut. two, three: so many ranks, whole models, some cuts.
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "kernels/core/error.h"
#include "tests/parallel/plan_rivals.h"

namespace spillway {
namespace {

constexpr double kBeaten = 1.02;

struct Tally {
  int cases = 0;
  int beaten[kObjectives] = {};
  int of[kObjectives] = {};
  double greatest = 1;
  double plan_ms = 0;
  double most_ms = 0;
};

double processor_ms() { return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void compare(const testing::RandomCase& of, int64_t step, Tally& tally) {
  const auto objective = static_cast<size_t>(of.request.objective);
  Plan mine;
  const double start = processor_ms();
  try {
    mine = make_plan(of.model, of.cluster, of.request);
  } catch (const Error&) {
    return;  // too little memory
  }
  const double ms = processor_ms() - start;
  tally.plan_ms += ms;
  tally.most_ms = std::max(tally.most_ms, ms);
  ++tally.cases;
  ++tally.of[objective];
  double most = 1;
  std::string what;
  const testing::PinnedPlans plans(of);
  testing::each_split(of, step, [&](const PlanRequest& request) {
    const auto rival = plans.plan(request);
    if (!rival) return;
    const double times = testing::times_better(mine, *rival, of.request.objective);
    if (times <= most) return;
    most = times;
    what = request_flags(request) + ": " + spill_text(*rival);
  });
  tally.greatest = std::max(tally.greatest, most);
  if (most <= kBeaten) return;
  ++tally.beaten[objective];
  std::printf("%.3f times: %s\n  plan %s, %s\n  better %s\n", most, of.text.c_str(),
              plan_title(mine).c_str(), spill_text(mine).c_str(), what.c_str());
}

int run(const std::string& name, int from, int to) {
  const testing::CaseKind kind =
      name == "small" ? testing::small_kind() : testing::whole_kind(name == "two" ? 2 : 3);
  const int64_t step = name == "small" ? 1 : name == "two" ? 4 : 9;
  Tally tally;
  for (int seed = from; seed < to; ++seed) {
    compare(testing::CaseMaker(kind, static_cast<uint32_t>(seed)).make(), step, tally);
  }
  std::printf("%d cases; beaten by more than 2 %%:", tally.cases);
  for (int i = 0; i < kObjectives; ++i) {
    std::printf(" %s %d of %d,", objective_name(static_cast<Objective>(i)), tally.beaten[i],
                tally.of[i]);
  }
  std::printf(" at most %.2f times; planned in %.1f ms, at most %.1f\n", tally.greatest,
              tally.plan_ms / std::max(1, tally.cases), tally.most_ms);
  return 0;
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "plan_rivals_bench small|two|three FROM TO\n");
    return 2;
  }
  return spillway::run(argv[1], std::atoi(argv[2]), std::atoi(argv[3]));
}
