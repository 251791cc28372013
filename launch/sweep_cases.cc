// See sweep_cases.h.
#include "launch/sweep_cases.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/size_text.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

// Of the CPU in a hybrid half: what the host's memory gives beside a copy to the GPU, over both
// (numbers of two machines: 52 beside 84 and 80 beside 78 GB/s).
constexpr double kHybridShare = 0.4;

double share_on_gpu(const Plan& plan, const ModelSpec& model) {
  double all = 0;
  double on_gpu = 0;
  for (const RankPart& part : plan.parts) {
    const Range& layers = plan.stages[static_cast<size_t>(part.stage)].layers;
    for (int64_t i = 0; i < layers.size(); ++i) {
      const LayerSpec& spec = model.layers[static_cast<size_t>(layers.begin + i)];
      const LayerPart& layer = part.layers[static_cast<size_t>(i)];
      for (const Half half : {Half::kAttention, Half::kFeedForward}) {
        const auto bytes = static_cast<double>(half_bytes(model, spec, layer, half));
        all += bytes;
        if (part.gpu && place_of_half(layer, half) == Place::kResident) on_gpu += bytes;
      }
    }
  }
  return all > 0 ? on_gpu / all : 0;
}

std::string percent(double share) { return fixed_text(100 * share, 0) + " %"; }

// The plan, named by its title and `rest`, or why there is none.
void add_case(SweepCases& out, const ModelSpec& model, const ClusterSpec& cluster,
              const std::string& rest, const PlanRequest& request) {
  try {
    SweepCase one;
    one.plan = make_plan(model, cluster, request);
    one.name = plan_title(one.plan) + ", " + rest;
    one.request = request;
    one.on_gpu = share_on_gpu(one.plan, model);
    out.cases.push_back(std::move(one));
  } catch (const Error& error) {
    const std::string split =
        request.split.empty() ? "" : "--split " + split_text(request.split) + ", ";
    out.refused.push_back(split + rest + ": " + error.message());
  }
}

}  // namespace

std::vector<PlacePin> spread_pins(int64_t n_layers, double share, Place place, double cpu_share) {
  std::vector<PlacePin> pins;
  const auto before = [share](int64_t i) {
    return static_cast<int64_t>(std::floor(share * static_cast<double>(i) + 1e-9));
  };
  for (int64_t i = 0; i < n_layers; ++i) {
    if (before(i + 1) == before(i)) continue;
    pins.push_back({{i, i + 1}, false, true, place, cpu_share});
  }
  return pins;
}

SweepCases sweep_cases(const ModelSpec& model, const ClusterSpec& cluster,
                       const SweepRequest& request) {
  SweepCases out;
  for (const auto& split : request.splits) {
    for (const KvType kv_type : request.kv_types) {
      PlanRequest one = request.base;
      one.split = split;
      one.kv_type = kv_type;
      const std::string name = std::string(kv_type_name(kv_type)) + " cache";
      for (const double share : request.spilled) {
        if (share <= 0) {
          add_case(out, model, cluster, name, one);
          continue;
        }
        for (const Place place : request.places) {
          one.places = spread_pins(model.n_layers, share, place, kHybridShare);
          add_case(out, model, cluster, name + ", ffn " + percent(share) + " " + place_name(place),
                   one);
        }
        one.places.clear();
      }
    }
  }
  return out;
}

SweepCases offload_cases(const ModelSpec& model, const ClusterSpec& cluster,
                         const PlanRequest& base, int n) {
  CHECK_GE(n, 1);
  SweepCases out;
  PlanRequest on_cpu = base;
  on_cpu.device = DeviceChoice::kCpu;
  on_cpu.devices.clear();
  add_case(out, model, cluster, "all on the CPU", on_cpu);
  for (int i = 0; i <= n; ++i) {
    const double share = static_cast<double>(i) / n;
    SweepCases ways;
    for (const Place place : {Place::kHybrid, Place::kCpu, Place::kStreamed}) {
      PlanRequest one = base;
      one.device = DeviceChoice::kGpu;
      one.places = spread_pins(model.n_layers, 1 - share, place, kHybridShare);
      add_case(ways, model, cluster,
               "ffn of " + percent(share) + " on the GPU" +
                   (i < n ? std::string(", the others ") + place_name(place) : ""),
               one);
      if (i == n) break;
    }
    if (ways.cases.empty()) {
      out.refused.push_back(ways.refused.front());
      continue;
    }
    out.cases.push_back(*std::max_element(
        ways.cases.begin(), ways.cases.end(), [](const SweepCase& a, const SweepCase& b) {
          return a.plan.prediction.decode_tok_per_s < b.plan.prediction.decode_tok_per_s;
        }));
  }
  return out;
}

std::vector<SweepCase> choose_cases(std::vector<SweepCase> cases, int64_t best, int64_t controls) {
  std::stable_sort(cases.begin(), cases.end(), [](const SweepCase& a, const SweepCase& b) {
    return a.plan.prediction.decode_tok_per_s > b.plan.prediction.decode_tok_per_s;
  });
  const auto n = static_cast<int64_t>(cases.size());
  best = std::clamp<int64_t>(best, 0, n);
  const int64_t others = n - best;
  controls = std::clamp<int64_t>(controls, 0, others);
  std::vector<SweepCase> chosen(cases.begin(), cases.begin() + best);
  for (int64_t i = 0; i < controls; ++i) {
    // The last one is the slowest.
    const int64_t at = best + (controls == 1 ? others - 1 : i * (others - 1) / (controls - 1));
    chosen.push_back(cases[static_cast<size_t>(at)]);
    chosen.back().control = true;
  }
  return chosen;
}

double rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK_EQ(a.size(), b.size());
  const auto ranks = [](const std::vector<double>& values) {
    std::vector<size_t> order(values.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&values](size_t i, size_t j) { return values[i] < values[j]; });
    std::vector<double> out(values.size());
    for (size_t i = 0; i < order.size();) {
      size_t end = i;
      while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
      const double mean = 0.5 * static_cast<double>(i + end - 1);
      for (; i < end; ++i) out[order[i]] = mean;
    }
    return out;
  };
  if (a.size() < 2) return 0;
  const std::vector<double> x = ranks(a);
  const std::vector<double> y = ranks(b);
  const double mean = 0.5 * static_cast<double>(a.size() - 1);
  double xy = 0;
  double xx = 0;
  double yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

}  // namespace spillway
