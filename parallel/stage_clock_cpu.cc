// See stage_clock.h: ranks of one host beside each other, and stages on CPUs.
#include <algorithm>

#include "parallel/cost.h"
#include "parallel/host_share.h"
#include "parallel/spill.h"
#include "parallel/stage_clock.h"

namespace spillway {

bool StageClock::alike(int a, int b) const {
  const auto i = static_cast<size_t>(a);
  const auto j = static_cast<size_t>(b);
  const RankSpec& x = cluster_.ranks[i];
  const RankSpec& y = cluster_.ranks[j];
  return hosts_[i] == hosts_[j] && rates_[i] == rates_[j] && x.threads == y.threads &&
         x.host_reads == y.host_reads && x.together == y.together && x.cpu_alone == y.cpu_alone &&
         x.cpu_together == y.cpu_together && same_size(plan_.parts[i], plan_.parts[j]);
}

std::vector<StageClock::Seat> StageClock::seats_of(const StagePlan& stage) const {
  std::vector<Seat> seats;
  for (const int rank : stage.ranks) {
    const auto like = std::find_if(seats.begin(), seats.end(),
                                   [&](const Seat& seat) { return alike(seat.rank, rank); });
    like == seats.end() ? seats.push_back({rank, 1}) : (void)++like->count;
  }
  return seats;
}

int StageClock::busy_threads(const StagePlan& stage, int host, const StepShape& step) const {
  if (!step.all_busy) return 0;
  int threads = 0;
  for (const RankPart& part : plan_.parts) {
    const auto r = static_cast<size_t>(part.rank);
    const bool other = &plan_.stages[static_cast<size_t>(part.stage)] != &stage;
    if (other && hosts_[r] == host && reads_host(part)) threads += cluster_.ranks[r].threads;
  }
  return threads;
}

std::vector<double> StageClock::slowdowns(const StagePlan& stage, const std::vector<Seat>& seats,
                                          const StepShape& step,
                                          const std::vector<double>& alone_ms,
                                          const std::vector<double>& all_ms) const {
  if (!shared_host_) return {};
  std::vector<double> out(seats.size(), 1.0);
  for (size_t first = 0; first < seats.size(); ++first) {
    const int host = hosts_[static_cast<size_t>(seats[first].rank)];
    std::vector<HostReaders> readers;
    std::vector<size_t> at;
    for (size_t i = 0; i < seats.size(); ++i) {
      const auto r = static_cast<size_t>(seats[i].rank);
      if (hosts_[r] != host || alone_ms[i] <= 0) continue;
      if (i < first) break;  // done with an earlier one
      readers.push_back(
          {&cluster_.ranks[r], seats[i].count, uses_bus(plan_.parts[r]), alone_ms[i]});
      if (!all_ms.empty()) {
        readers.back().slowdown_of_all = std::max(1.0, all_ms[i] / alone_ms[i]);
        readers.back().all_threads = cluster_.ranks[r].cpu_together.threads;
      }
      at.push_back(i);
    }
    if (at.empty() || at[0] != first) continue;
    read_together(readers, busy_threads(stage, host, step));
    for (size_t i = 0; i < at.size(); ++i) out[at[i]] = readers[i].ms / alone_ms[at[i]];
  }
  return out;
}

bool StageClock::cpu_measured(const StagePlan& stage) const {
  return !plan_.on_gpu(stage) && std::all_of(stage.ranks.begin(), stage.ranks.end(), [&](int rank) {
    return !cluster_.ranks[static_cast<size_t>(rank)].cpu_alone.products.empty();
  });
}

template <typename TimesOf>
std::vector<CpuTimes> StageClock::cpu_times(const StagePlan& stage, const std::vector<Seat>& seats,
                                            const StepShape& step, const TimesOf& times_of) const {
  std::vector<CpuTimes> times;
  std::vector<double> alone;
  std::vector<double> all;
  for (const Seat& seat : seats) {
    const RankSpec& spec = cluster_.ranks[static_cast<size_t>(seat.rank)];
    times.push_back(times_of(seat.rank, spec.cpu_alone));
    alone.push_back(times.back().total_ms());
    const bool shared = !spec.cpu_together.products.empty();
    all.push_back(shared ? times_of(seat.rank, spec.cpu_together).total_ms() : alone.back());
  }
  const std::vector<double> slower = slowdowns(stage, seats, step, alone, all);
  for (size_t i = 0; i < slower.size(); ++i) {
    times[i].matrix_ms *= slower[i];
    times[i].attention_ms *= slower[i];
    times[i].other_ms *= slower[i];
  }
  return times;
}

void StageClock::add_cpu_half(const std::vector<CpuTimes>& seats, std::vector<HalfWork>& works,
                              StageTimes& times) const {
  for (size_t r = 0; r < seats.size(); ++r) works[r].device_ms = seats[r].total_ms();
  const CpuTimes& slowest = *std::max_element(
      seats.begin(), seats.end(),
      [](const CpuTimes& a, const CpuTimes& b) { return a.total_ms() < b.total_ms(); });
  times.matrix_ms += slowest.matrix_ms;
  times.attention_ms += slowest.attention_ms;
  times.launch_ms += slowest.other_ms;
}

void StageClock::cpu_attention(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                               const StepShape& step, std::vector<HalfWork>& works,
                               StageTimes& times) const {
  const LayerSpec& layer = model_.layers[stage.layers.begin + i];
  const auto times_of = [&](int rank, const CpuRates& rates) {
    return cpu_attention_half(rates, model_, layer, plan_.parts[rank].layers[i],
                              attention_of(rank, stage, i, step), step.rows);
  };
  add_cpu_half(cpu_times(stage, seats, step, times_of), works, times);
  for (size_t r = 0; r < seats.size(); ++r) {
    const int rank = seats[r].rank;
    add_ways(rank, plan_.parts[rank].layers[i].attention, attention_work(rank, stage, i).bytes,
             true, works[r]);
  }
}

void StageClock::cpu_feed_forward(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                                  const StepShape& step, std::vector<HalfWork>& works,
                                  StageTimes& times) const {
  const LayerSpec& layer = model_.layers[stage.layers.begin + i];
  const auto times_of = [&](int rank, const CpuRates& rates) {
    return cpu_feed_forward_half(rates, model_, layer, plan_.parts[rank].layers[i], step.rows);
  };
  add_cpu_half(cpu_times(stage, seats, step, times_of), works, times);
  for (size_t r = 0; r < seats.size(); ++r) {
    const int rank = seats[r].rank;
    const LayerPart& part = plan_.parts[rank].layers[i];
    add_ways(rank, part.feed_forward, feed_forward_work(rank, stage, i, part.ff.size()).bytes, true,
             works[r]);
  }
}

double StageClock::cpu_head_ms(const StagePlan& stage, const std::vector<Seat>& seats,
                               const StepShape& step) const {
  const MatrixSpec& head = head_matrix(model_);
  const auto times_of = [&](int rank, const CpuRates& rates) {
    const int64_t n = plan_.parts[rank].output_rows.size();
    const int64_t rows = step.prefill ? 1 : step.rows;
    return CpuTimes{cpu_matrix_ms(rates, head.type, n, model_.dim, rows), 0, 0};
  };
  double ms = 0;
  for (const CpuTimes& seat : cpu_times(stage, seats, step, times_of)) {
    ms = std::max(ms, seat.matrix_ms);
  }
  return ms;
}

}  // namespace spillway
