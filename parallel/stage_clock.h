// StageClock: milliseconds of one step of one stage, term by term. Called by cost.cc, which adds
// stages up, and by spill_search.cc, which compares places. Pure arithmetic on a plan's parts:
// places that change between two calls are seen.
#pragma once

#include <vector>

#include "parallel/chain.h"
#include "parallel/cpu_clock.h"
#include "parallel/plan.h"
#include "parallel/rates.h"

namespace spillway {

// A step as the clock sees it: decode of `rows` sequences with `context` tokens each, or a prefill
// of `rows` tokens of one sequence after `context` others; with the head where `head`.
// Ranks of one host that read its memory in the same half share it (host_share.h).
struct StepShape {
  int64_t rows = 1;
  int64_t context = 0;
  bool prefill = false;
  bool head = true;
  bool all_busy = false;  // the other stages work meanwhile, on steps of their own
};

struct StageTimes {
  double matrix_ms = 0;
  double attention_ms = 0;
  double launch_ms = 0;  // on CPUs: a layer's other ops
  double collective_ms = 0;
  ChainWaits waits;
  double total_ms() const {
    return matrix_ms + attention_ms + launch_ms + collective_ms + waits.total_ms();
  }
};

// What a GPU's kernels of one layer cost beyond the bytes that they read.
double layer_launch_ms(bool gpu, size_t tp_size);

class StageClock {
 public:
  // Keeps the three by reference. Rates of ranks that the cluster did not measure are the assumed
  // cluster's.
  StageClock(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster);

  StageTimes times(size_t stage, const StepShape& step) const;
  // The rows of a step on their way from the stage before: from GPU to GPU where all of both reach
  // each other, else a message, and a GPU's rows through host memory.
  double hop_ms(size_t stage, int64_t rows) const;
  // The step itself to the first stage, and the gathering of logits; 0 for one rank.
  double round_trip_ms() const;

 private:
  struct Work {
    int64_t bytes = 0;
    int64_t products = 0;  // multiply-adds for one row
  };
  // A rank of a stage, for all of the stage's on its host that are like it.
  struct Seat {
    int rank = 0;
    int count = 1;
  };
  std::vector<Seat> seats_of(const StagePlan& stage) const;
  bool alike(int a, int b) const;
  int busy_threads(const StagePlan& stage, int host, const StepShape& step) const;
  // How many times as long each seat's reads of host memory take beside the others', which take
  // `alone_ms` alone. Empty: as long. all_ms: of work of CPU ranks, with all of the host's at work.
  std::vector<double> slowdowns(const StagePlan& stage, const std::vector<Seat>& seats,
                                const StepShape& step, const std::vector<double>& alone_ms,
                                const std::vector<double>& all_ms = {}) const;
  double message_ms(int64_t bytes) const;
  double device_ms(int rank, const Work& work, int64_t rows, double slowdown) const;
  Work attention_work(int rank, const StagePlan& stage, int64_t i) const;
  Work feed_forward_work(int rank, const StagePlan& stage, int64_t i, int64_t columns) const;
  double attend_ms(int rank, const StagePlan& stage, int64_t i, const StepShape& step) const;
  double head_ms(const StepShape& step) const;
  // All ranks of a stage on CPUs have measured what layers reach there.
  bool cpu_measured(const StagePlan& stage) const;
  // What each seat's threads take for the same kind of work beside the others; times_of(rank,
  // rates) by one of a rank's two CpuRates.
  template <typename TimesOf>
  std::vector<CpuTimes> cpu_times(const StagePlan& stage, const std::vector<Seat>& seats,
                                  const StepShape& step, const TimesOf& times_of) const;
  void add_cpu_half(const std::vector<CpuTimes>& seats, std::vector<HalfWork>& works,
                    StageTimes& times) const;
  void cpu_attention(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                     const StepShape& step, std::vector<HalfWork>& works, StageTimes& times) const;
  void cpu_feed_forward(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                        const StepShape& step, std::vector<HalfWork>& works,
                        StageTimes& times) const;
  double cpu_head_ms(const StagePlan& stage, const std::vector<Seat>& seats,
                     const StepShape& step) const;
  AttentionWork attention_of(int rank, const StagePlan& stage, int64_t i,
                             const StepShape& step) const;
  void attention_half(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                      const StepShape& step, std::vector<HalfWork>& works, StageTimes& times) const;
  void feed_forward_half(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                         const StepShape& step, std::vector<HalfWork>& works,
                         StageTimes& times) const;
  void add_ways(int rank, Place place, int64_t bytes, bool alone, HalfWork& work) const;

  const Plan& plan_;
  const ModelSpec& model_;
  const ClusterSpec& cluster_;
  std::vector<bool> alone_;  // by rank: on its GPU
  std::vector<RankRates> rates_;
  std::vector<double> disk_shares_;  // by rank: what comes from the disk itself, of bytes there
  std::vector<int> hosts_;           // by rank: the first rank of its host
  bool shared_host_ = false;         // some host gives its ranks less together than alone
  LinkSpec link_;
};

}  // namespace spillway
