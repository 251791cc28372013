// See stage_clock.h.
#include "parallel/stage_clock.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "kernels/core/packed_matrix.h"
#include "parallel/budget.h"
#include "parallel/cost.h"
#include "parallel/group_sum.h"
#include "parallel/host_share.h"
#include "parallel/like_layers.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

constexpr int64_t kHopBytes = 4;        // activations between stages are f32
constexpr double kFloatSlowdown = 4.0;  // attention multiplies f32: a quarter of int8's lanes

// First estimates, to be replaced by what is measured.
constexpr double kGpuLaunchMs =
    0.0022;  // of a kernel beyond the bytes it reads; from rates.h' runs
// What a layer's attention takes longer with a cache of codes: 53 us a token in 32 layers (8B, one
// H100 and two as TP2, docs/bench/plans.md), whose bytes are fewer.
constexpr double kCodedCacheMs = 0.0016;
// Steps of more rows than tiles take (cuda::Exec::most_tile_rows) go through kernels of their own:
// per layer, codes, activations and rope are launched apart. 37 and 38 us (8B), 44 (70B), 50 (135M)
// of a layer's time at 512 rows on an H100 that products do not explain (docs/bench/plans.md).
constexpr int64_t kMostTileRows = 128;
constexpr double kWideHalfMs = 0.02;
constexpr int kAttentionLaunches = 5;    // norm, qkv, rope, attend, o
constexpr int kFeedForwardLaunches = 2;  // gate and up, down
// From GPU to GPU at a hop between stages: a kernel on either side, and stores over the link.
constexpr double kPeerHopMs = 0.008;

// Of a rank's bytes on disk, the part that the page cache has no room for beside the plan, in what
// is free less the margin. A rank on a CPU reads the others as they lie there, as it reads memory,
// one on a GPU copies them to its slots.
double uncached_share(const Plan& plan, const ModelSpec& model, const RankSpec& spec) {
  const RankPart& part = plan.parts[static_cast<size_t>(spec.rank)];
  if (!spills_to(part, WeightHome::kDisk)) return 1;
  const Range& layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  int64_t bytes = 0;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part.layers[static_cast<size_t>(i)];
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (place_of_half(layer, half) != Place::kDisk) continue;
      bytes += half_bytes(model, model.layers[static_cast<size_t>(layers.begin + i)], layer, half);
    }
  }
  const int64_t room = spec.memory_free_bytes - spec.memory_free_bytes / kHostMarginShare -
                       plan.rank_bytes(spec.rank, "", "host");
  const auto left = static_cast<double>(bytes - std::clamp<int64_t>(room, 0, bytes));
  return left / static_cast<double>(std::max<int64_t>(bytes, 1));
}

// What a decode step reads of a rank's host memory: its threads, and the copies to its GPU.
struct HostBytes {
  int64_t cpu = 0;
  int64_t bus = 0;
};

HostBytes host_bytes(const Plan& plan, const ModelSpec& model, const RankPart& part) {
  const Range& layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  HostBytes bytes;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part.layers[static_cast<size_t>(i)];
    const LayerSpec& spec = model.layers[static_cast<size_t>(layers.begin + i)];
    if (layer.attention != Place::kResident) {
      bytes.bus += half_bytes(model, spec, layer, Half::kAttention);
    }
    if (layer.feed_forward == Place::kResident) continue;
    LayerPart on_cpu;
    on_cpu.ff = {0, layer.ff_on_cpu.size()};
    const int64_t cpu = on_cpu.ff.empty() ? 0 : feed_forward_weight_bytes(model, spec, on_cpu);
    bytes.cpu += cpu;
    bytes.bus += half_bytes(model, spec, layer, Half::kFeedForward) - cpu;
  }
  return bytes;
}

// The rate of a rank's threads beside its bus, which slows them only as long as it copies.
double cpu_read_beside(const HostBytes& bytes, const RankRates& rates) {
  const double beside_ms = transfer_ms(bytes.cpu, rates.cpu_read);
  const double bus_ms = transfer_ms(bytes.bus, rates.bus);
  if (bus_ms >= beside_ms) return rates.cpu_read;
  const double part = bus_ms / beside_ms;  // of the bytes that are read meanwhile
  return 1 / (part / rates.cpu_read + (1 - part) / rates.cpu_read_alone);
}

// Of the rate out of the page cache, where the same threads' cores and memory multiply too: by what
// is left of a step, 18 of 40 GB/s (a 70B on an H100, 37 halves hybrid and 32 on disk,
// docs/bench/spill.md).
constexpr double kCopiedBesideProducts = 0.5;

int64_t seen_tokens(const LayerSpec& layer, int64_t tokens) {
  return layer.window > 0 ? std::min(layer.window, tokens) : tokens;
}

// Of queries and keys, of the first `tokens` tokens: half of them squared without a window.
double pairs_before(const LayerSpec& layer, int64_t tokens) {
  const auto seen = static_cast<double>(seen_tokens(layer, tokens));
  return seen * (seen + 1) / 2 + (static_cast<double>(tokens) - seen) * seen;
}

}  // namespace

double layer_launch_ms(bool gpu, size_t tp_size) {
  // The sum also normalises.
  const int launches = kAttentionLaunches + kFeedForwardLaunches - (tp_size > 1 ? 1 : 0);
  return gpu ? launches * kGpuLaunchMs : 0;
}

StageClock::StageClock(const Plan& plan, const ModelSpec& model, const ClusterSpec& cluster)
    : plan_(plan),
      model_(model),
      cluster_(cluster),
      alone_(alone_on_gpus(cluster)),
      link_(link_of(cluster)) {
  std::vector<int> threads(cluster.ranks.size(), 0);  // of all ranks, at the host's first
  std::unordered_map<std::string_view, int> first;
  HostBytes bytes;  // of the rank before, where that holds the same
  for (const RankSpec& rank : cluster.ranks) {
    hosts_.push_back(first.try_emplace(rank.host, rank.rank).first->second);
    threads[static_cast<size_t>(hosts_.back())] += rank.threads;
  }
  for (const RankSpec& rank : cluster.ranks) {
    const auto r = static_cast<size_t>(rank.rank);
    const RankPart& part = plan.parts[r];
    const bool bus = uses_bus(part);
    rates_.push_back(rates_of(rank, part.gpu));
    disk_shares_.push_back(uncached_share(plan, model, rank));
    if (part.gpu && reads_host(part)) rates_.back().page_cache *= kCopiedBesideProducts;
    if (!bus) rates_.back().cpu_read = rates_.back().cpu_read_alone;
    if (bus) {
      const auto& ranks = plan.stages[static_cast<size_t>(part.stage)].ranks;
      rates_.back().bus /= bus_slowdown(
          rank, static_cast<int>(std::count_if(ranks.begin(), ranks.end(), [&](int other) {
            return hosts_[static_cast<size_t>(other)] == hosts_[r];
          })));
      if (r == 0 || !same_size(part, plan.parts[r - 1])) bytes = host_bytes(plan, model, part);
      if (part.gpu) rates_.back().cpu_read = cpu_read_beside(bytes, rates_.back());
    }
    const int all = threads[static_cast<size_t>(hosts_[r])];
    shared_host_ = shared_host_ || (reads_host(part) && read_slowdown(rank, all, bus) > 1) ||
                   (!part.gpu && rank.cpu_together.threads > 0);
  }
}

double StageClock::message_ms(int64_t bytes) const { return spillway::message_ms(link_, bytes); }

double StageClock::hop_ms(size_t stage, int64_t rows) const {
  if (stage == 0) return 0;
  const StagePlan& from = plan_.stages[stage - 1];
  const StagePlan& to = plan_.stages[stage];
  const int64_t bytes = rows * model_.dim * kHopBytes;
  std::vector<int> both = from.ranks;
  both.insert(both.end(), to.ranks.begin(), to.ranks.end());
  if (plan_.on_gpu(from) && plan_.on_gpu(to) && reach_of(cluster_, alone_, both).peers) {
    return kPeerHopMs + transfer_ms(bytes, kPeerGbPerS);
  }
  const bool cpus = !plan_.on_gpu(from) && !plan_.on_gpu(to);
  double ms = cpus ? cpu_message_ms(link_, bytes) : message_ms(bytes);
  if (plan_.on_gpu(from)) ms += host_copy_ms(bytes);
  if (plan_.on_gpu(to)) ms += host_copy_ms(bytes);
  return ms;
}

double StageClock::round_trip_ms() const { return plan_.n_ranks() < 2 ? 0 : 2 * message_ms(0); }

double StageClock::device_ms(int rank, const Work& work, int64_t rows, double slowdown) const {
  const RankRates& rates = rates_[static_cast<size_t>(rank)];
  const double multiply =
      static_cast<double>(work.products) * static_cast<double>(rows) / (rates.matrix * kUnitsPerMs);
  return std::max(slowdown * transfer_ms(work.bytes, rates.read), multiply);
}

StageClock::Work StageClock::attention_work(int rank, const StagePlan& stage, int64_t i) const {
  const LayerSpec& layer = model_.layers[stage.layers.begin + i];
  const LayerPart& part = plan_.parts[rank].layers[i];
  const int64_t heads = 2 * part.heads.size() + 2 * part.kv_heads.size();
  return {attention_weight_bytes(model_, layer, part), heads * model_.head_dim * model_.dim};
}

StageClock::Work StageClock::feed_forward_work(int, const StagePlan& stage, int64_t i,
                                               int64_t columns) const {
  if (columns == 0) return {};
  LayerPart part;
  part.ff = {0, columns};
  const LayerSpec& layer = model_.layers[stage.layers.begin + i];
  return {feed_forward_weight_bytes(model_, layer, part), 3 * columns * model_.dim};
}

// Decode: a row against `context` positions or the window, the cache read once. Prefill: each row
// against all up to it or its window, for q k and for the sum of v.
AttentionWork StageClock::attention_of(int rank, const StagePlan& stage, int64_t i,
                                       const StepShape& step) const {
  const LayerSpec& layer = model_.layers[stage.layers.begin + i];
  const LayerPart& part = plan_.parts[rank].layers[i];
  AttentionWork work;
  work.prefill = step.prefill;
  if (!step.prefill) {
    work.kv_bytes = step.rows * 2 * seen_tokens(layer, step.context) * part.kv_heads.size() *
                    kv_row_bytes(plan_.kv.type, model_.head_dim);
    return work;
  }
  const double pairs =
      pairs_before(layer, step.context + step.rows) - pairs_before(layer, step.context);
  work.products = 2 * pairs * static_cast<double>(part.heads.size() * model_.head_dim);
  return work;
}

double StageClock::attend_ms(int rank, const StagePlan& stage, int64_t i,
                             const StepShape& step) const {
  const RankRates& rates = rates_[static_cast<size_t>(rank)];
  const AttentionWork work = attention_of(rank, stage, i, step);
  if (!step.prefill) return transfer_ms(work.kv_bytes, rates.read);
  return work.products * kFloatSlowdown / (rates.matrix * kUnitsPerMs);
}

// The output's product, of one row in a prefill.
double StageClock::head_ms(const StepShape& step) const {
  const MatrixSpec& head = head_matrix(model_);
  const StagePlan& stage = plan_.stages.back();
  const std::vector<Seat> seats = seats_of(stage);
  if (cpu_measured(stage)) return cpu_head_ms(stage, seats, step);
  std::vector<Work> works;
  std::vector<double> alone;
  for (const Seat& seat : seats) {
    const int64_t n = plan_.parts[seat.rank].output_rows.size();
    works.push_back({packed_bytes(head.type, n, model_.dim), n * model_.dim});
    alone.push_back(plan_.on_gpu(stage) ? 0
                                        : transfer_ms(works.back().bytes,
                                                      rates_[static_cast<size_t>(seat.rank)].read));
  }
  const std::vector<double> slower = slowdowns(stage, seats, step, alone);
  double ms = 0;
  for (size_t i = 0; i < seats.size(); ++i) {
    const int64_t rows = step.prefill ? 1 : step.rows;
    ms = std::max(ms, device_ms(seats[i].rank, works[i], rows, slower.empty() ? 1 : slower[i]));
  }
  return ms;
}

void StageClock::add_ways(int rank, Place place, int64_t bytes, bool alone, HalfWork& work) const {
  if (place == Place::kResident || bytes == 0) return;
  const RankRates& rates = rates_[static_cast<size_t>(rank)];
  if (place == Place::kDisk) {
    const double from_disk = disk_shares_[static_cast<size_t>(rank)];
    work.disk_ms = from_disk * transfer_ms(bytes, rates.disk);
    if (plan_.parts[rank].gpu) {
      work.disk_ms += (1 - from_disk) * transfer_ms(bytes, rates.page_cache);
    }
  }
  if (plan_.parts[rank].gpu) {
    work.bus_ms = transfer_ms(bytes, alone ? rates.bus_alone : rates.bus);
  }
}

void StageClock::attention_half(const StagePlan& stage, const std::vector<Seat>& seats, int64_t i,
                                const StepShape& step, std::vector<HalfWork>& works,
                                StageTimes& times) const {
  if (cpu_measured(stage)) return cpu_attention(stage, seats, i, step, works, times);
  double matrix = 0;
  double attention = 0;
  std::vector<double> slower;
  if (shared_host_ && !plan_.on_gpu(stage)) {
    std::vector<double> alone;
    for (const Seat& seat : seats) {
      alone.push_back(transfer_ms(attention_work(seat.rank, stage, i).bytes,
                                  rates_[static_cast<size_t>(seat.rank)].read));
    }
    slower = slowdowns(stage, seats, step, alone);
  }
  for (size_t r = 0; r < seats.size(); ++r) {
    const int rank = seats[r].rank;
    const double slowdown = slower.empty() ? 1 : slower[r];
    const Work work = attention_work(rank, stage, i);
    const double mine = device_ms(rank, work, step.rows, slowdown);
    // The cache of a decode step is read as weights are; a prefill multiplies.
    const double attend = attend_ms(rank, stage, i, step) * (step.prefill ? 1 : slowdown);
    matrix = std::max(matrix, mine);
    attention = std::max(attention, attend);
    works[r].device_ms = mine + attend;
    const bool alone = step.rows > plan_.limits.max_cpu_rows;
    add_ways(rank, plan_.parts[rank].layers[i].attention, work.bytes, alone, works[r]);
  }
  times.matrix_ms += matrix;
  times.attention_ms += attention;
}

void StageClock::feed_forward_half(const StagePlan& stage, const std::vector<Seat>& seats,
                                   int64_t i, const StepShape& step, std::vector<HalfWork>& works,
                                   StageTimes& times) const {
  const bool all_streamed = step.rows > plan_.limits.max_cpu_rows;
  const bool gpu = plan_.on_gpu(stage);
  if (cpu_measured(stage)) return cpu_feed_forward(stage, seats, i, step, works, times);
  const auto on_device = [&](const LayerPart& part) {
    return all_streamed ? part.ff.size() : ff_off_cpu(part).size();
  };
  // What a seat's threads read, and how fast alone.
  std::vector<double> slower;
  if (shared_host_) {
    std::vector<double> alone;
    for (const Seat& seat : seats) {
      const LayerPart& part = plan_.parts[seat.rank].layers[i];
      const RankRates& rates = rates_[static_cast<size_t>(seat.rank)];
      const int64_t columns = gpu ? part.ff.size() - on_device(part) : part.ff.size();
      alone.push_back(transfer_ms(feed_forward_work(seat.rank, stage, i, columns).bytes,
                                  gpu ? rates.cpu_read : rates.read));
    }
    slower = slowdowns(stage, seats, step, alone);
  }
  double matrix = 0;
  for (size_t r = 0; r < seats.size(); ++r) {
    const int rank = seats[r].rank;
    const double slowdown = slower.empty() ? 1 : slower[r];
    const LayerPart& part = plan_.parts[rank].layers[i];
    const int64_t columns = on_device(part);
    const Work device = feed_forward_work(rank, stage, i, columns);
    works[r].device_ms = device_ms(rank, device, step.rows, gpu ? 1 : slowdown);
    matrix = std::max(matrix, works[r].device_ms);
    add_ways(rank, part.feed_forward, device.bytes, all_streamed, works[r]);
    if (columns == part.ff.size()) continue;
    const Work cpu = feed_forward_work(rank, stage, i, part.ff.size() - columns);
    const RankRates& rates = rates_[static_cast<size_t>(rank)];
    const double multiply =
        static_cast<double>(cpu.products * step.rows) / (rates.cpu_matrix * kUnitsPerMs);
    works[r].cpu_ms =
        kHandOverMs + std::max(slowdown * transfer_ms(cpu.bytes, rates.cpu_read), multiply);
  }
  times.matrix_ms += matrix;
}

StageTimes StageClock::times(size_t index, const StepShape& step) const {
  const StagePlan& stage = plan_.stages[index];
  const auto halves = static_cast<size_t>(2 * stage.layers.size());
  const bool gpu = plan_.on_gpu(stage);
  const GroupReach reach = gpu ? reach_of(cluster_, alone_, stage.ranks) : GroupReach{};
  const double sum = group_sum_ms(cluster_, reach, stage.ranks.size(), gpu, step.rows, model_.dim);
  const bool coded = kv_quantized(plan_.kv.type);
  const double wide = gpu && step.rows > kMostTileRows ? kWideHalfMs : 0;
  const double feed_forward_launches = layer_launch_ms(gpu, stage.ranks.size()) + wide -
                                       (gpu ? kAttentionLaunches * kGpuLaunchMs : 0);
  const double attention_launches =
      gpu ? kAttentionLaunches * kGpuLaunchMs + wide + (coded ? kCodedCacheMs : 0) : 0;
  StageTimes times;
  // Ranks that are alike wait alike: one stands for all of them.
  const std::vector<Seat> seats = seats_of(stage);
  std::vector<std::vector<HalfWork>> ranks(seats.size(), std::vector<HalfWork>(halves));
  std::vector<double> base(halves);
  std::vector<HalfWork> works(seats.size());
  std::vector<int> seated;
  for (const Seat& seat : seats) seated.push_back(seat.rank);
  const std::vector<size_t> like = like_halves(plan_, model_, stage, seated);
  std::vector<StageTimes> done(halves);
  bool spilled = false;
  for (size_t h = 0; h < halves; ++h) {
    const double before = times.matrix_ms + times.attention_ms;
    const double launches = h % 2 == 0 ? attention_launches : feed_forward_launches;
    const auto layer = static_cast<int64_t>(h / 2);
    done[h] = done[like[h]];
    if (like[h] == h) {
      std::fill(works.begin(), works.end(), HalfWork{});
      h % 2 == 0 ? attention_half(stage, seats, layer, step, works, done[h])
                 : feed_forward_half(stage, seats, layer, step, works, done[h]);
      for (HalfWork& work : works) work.device_ms += launches;
    }
    times.matrix_ms += done[h].matrix_ms;
    times.attention_ms += done[h].attention_ms;
    const double others = launches + done[h].launch_ms;
    times.launch_ms += others;
    base[h] = times.matrix_ms + times.attention_ms - before + others;
    for (size_t r = 0; r < works.size(); ++r) {
      const HalfWork work = like[h] == h ? works[r] : ranks[r][like[h]];
      spilled = spilled || work.cpu_ms > 0 || work.bus_ms > 0 || work.disk_ms > 0;
      ranks[r][h] = work;
    }
  }
  // Two sums a layer, one for the embedding. They count whole also in steps of so many rows that
  // they run beside products (runtime/stage/gpu_sum.h): at 1024 rows that gains nothing, and with
  // them whole an 8B's TP2 is predicted 12 % too quick at 1024 rows, 1 % at 2048.
  times.collective_ms = static_cast<double>(halves + (index == 0 ? 1 : 0)) * sum;
  if (spilled) times.waits = chain_waits(ranks, base, sum);
  if (step.head && index + 1 == plan_.stages.size()) times.matrix_ms += head_ms(step);
  return times;
}

}  // namespace spillway
