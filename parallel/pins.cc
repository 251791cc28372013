// See pins.h.
#include "parallel/pins.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/error.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

// As in --split: sums of shares stay finite.
constexpr double kLargestShare = 1e9;

template <typename T, typename TextOf>
std::string joined(const std::vector<T>& values, const TextOf& text_of) {
  std::string text;
  for (const T& value : values) append_item(text, ",", text_of(value));
  return text;
}

std::string layers_flag(const std::vector<int64_t>& layers) {
  return "--layers " + joined(layers, [](int64_t n) { return std::to_string(n); });
}

std::string shares_flag(const std::vector<double>& shares) {
  return "-ts " + joined(shares, shortest_text);
}

std::string order_flag(const std::vector<int>& order) {
  return "--order " + joined(order, [](int rank) { return std::to_string(rank); });
}

// As even as can be: "27,27,26" for 80 layers in 3 stages.
std::vector<int64_t> even_layers(int64_t n_layers, int64_t n_stages) {
  std::vector<int64_t> layers;
  for (int64_t s = 0; s < n_stages; ++s) {
    layers.push_back(n_layers / n_stages + (s < n_layers % n_stages ? 1 : 0));
  }
  return layers;
}

void check_layers(const ModelSpec& model, int n_ranks, const PlanRequest& request) {
  if (request.layers.empty()) return;
  const std::string flag = layers_flag(request.layers);
  const auto stages = static_cast<int64_t>(request.layers.size());
  if (!request.split.empty()) {
    throw Error("--layers beside --split, which has layers of its own", flag,
                "write them there: --split 20@1+10@1");
  }
  const int64_t pp = request.pp > 0 ? request.pp : request.tp > 0 ? n_ranks / request.tp : 0;
  if (pp > 0 && pp != stages) {
    throw Error(flag + " cuts " + count_text(stages, "stage") + ", " +
                    (request.pp > 0 ? "--pp" : "--tp") + " makes " + std::to_string(pp),
                "", "use " + layers_flag(even_layers(model.n_layers, pp)));
  }
  if (stages > n_ranks) {
    throw Error(
        flag + " cuts " + count_text(stages, "stage") + " for " + count_text(n_ranks, "rank"), "",
        "use " + layers_flag(even_layers(model.n_layers, n_ranks)));
  }
  int64_t sum = 0;
  for (const int64_t n : request.layers) {
    if (__builtin_add_overflow(sum, n, &sum)) sum = INT64_MAX;
  }
  const bool positive =
      std::all_of(request.layers.begin(), request.layers.end(), [](int64_t n) { return n > 0; });
  if (positive && sum == model.n_layers) return;
  throw Error(positive ? "the stages' layers add up to " + std::to_string(sum) +
                             ", the model has " + std::to_string(model.n_layers)
                       : "a stage without layers",
              flag,
              "use " + layers_flag(even_layers(model.n_layers, std::min(stages, model.n_layers))));
}

void check_shares(int n_ranks, const PlanRequest& request) {
  if (request.shares.empty()) return;
  const std::string flag = shares_flag(request.shares);
  const std::string even =
      "use " + shares_flag(std::vector<double>(static_cast<size_t>(n_ranks), 1.0));
  if (!request.split.empty()) {
    throw Error("-ts beside --split, which has shares of its own", flag,
                "write them there: --split 3:1");
  }
  if (static_cast<int>(request.shares.size()) != n_ranks) {
    throw Error("-ts names " + count_text(static_cast<int64_t>(request.shares.size()), "share") +
                    ", the job has " + count_text(n_ranks, "rank"),
                flag, even);
  }
  for (const double share : request.shares) {
    if (!std::isfinite(share) || share <= 0) {
      throw Error("a share that is not above 0", flag, even + ", or start fewer ranks");
    }
    if (share > kLargestShare) throw Error("a share beyond 1000000000", flag, even);
  }
}

void check_order(int n_ranks, const PlanRequest& request) {
  if (request.order.empty()) return;
  std::vector<int> sorted = request.order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int> all(static_cast<size_t>(n_ranks));
  std::iota(all.begin(), all.end(), 0);
  if (sorted == all && request.order[0] == 0) return;
  throw Error(
      sorted == all
          ? "rank 0 leads the job and is in the first stage"
          : "the order does not name each of the job's " + count_text(n_ranks, "rank") + " once",
      order_flag(request.order), "use " + order_flag(all) + " or another that begins with 0");
}

void check_gpu_layers(const ClusterSpec& cluster, const PlanRequest& request) {
  if (request.gpu_layers <= 0) return;
  int gpus = 0;
  for (const RankSpec& rank : cluster.ranks) {
    gpus += rank.gpu.present() && request.device_of(rank.rank) != DeviceChoice::kCpu ? 1 : 0;
  }
  if (gpus == cluster.size()) return;
  const std::string flag = "-ngl " + std::to_string(request.gpu_layers);
  if (gpus == 0)
    throw Error("no rank has a GPU that it may use", flag, "use -ngl 0, or leave it out");
  throw Error("some ranks have no GPU: -ngl does not say which stage they are", flag,
              "leave it out, or give layers by stage: --split or --layers");
}

// Of a layer on all ranks that hold it.
struct LayerPlaces {
  Place attention = Place::kResident;
  Place feed_forward = Place::kResident;
  std::vector<double> cpu_columns;  // by rank with columns
  std::vector<double> columns;

  void add(const LayerPart& part) {
    if (part.attention != Place::kResident) attention = part.attention;
    if (part.ff.empty()) return;
    // Of a hybrid half one rank's columns may have been rounded to all or none.
    if (feed_forward != Place::kHybrid) feed_forward = part.feed_forward;
    cpu_columns.push_back(static_cast<double>(part.ff_on_cpu.size()));
    columns.push_back(static_cast<double>(part.ff.size()));
  }

  // By how many columns a rank misses its own with this share, at most.
  double miss(double share) const {
    double most = 0;
    for (size_t i = 0; i < columns.size(); ++i) {
      most = std::max(most, std::fabs(cpu_columns[i] - share * columns[i]));
    }
    return most;
  }

  // The hybrid share that gives every rank its columns again: the one that misses them by least,
  // in two digits where that is less than half a quant block.
  double share() const {
    double low = 0;
    double high = 1;
    for (int i = 0; i < 60; ++i) {  // a maximum of |linear| has one valley
      const double third = (high - low) / 3;
      if (miss(low + third) < miss(high - third)) {
        high -= third;
      } else {
        low += third;
      }
    }
    const double rounded = std::round(low * 100) / 100;
    return miss(rounded) < 16 ? rounded : std::round(low * 1e4) / 1e4;
  }
};

std::vector<LayerPlaces> layer_places(const Plan& plan) {
  std::vector<LayerPlaces> out;
  for (const StagePlan& stage : plan.stages) {
    for (int64_t i = 0; i < stage.layers.size(); ++i) {
      LayerPlaces layer;
      for (const int rank : stage.ranks) {
        layer.add(plan.parts[static_cast<size_t>(rank)].layers[i]);
      }
      out.push_back(layer);
    }
  }
  return out;
}

// Runs of layers with equal places of one half.
void add_runs(const std::vector<LayerPlaces>& layers, bool attention, std::vector<PlacePin>& out) {
  for (size_t i = 0; i < layers.size(); ++i) {
    const Place place = attention ? layers[i].attention : layers[i].feed_forward;
    if (place == Place::kResident) continue;
    PlacePin pin;
    pin.layers = {static_cast<int64_t>(i), static_cast<int64_t>(i) + 1};
    pin.attention = attention;
    pin.feed_forward = !attention;
    pin.place = place;
    if (place == Place::kHybrid) pin.cpu_share = layers[i].share();
    if (!out.empty() && out.back().layers.end == pin.layers.begin && out.back().place == place &&
        out.back().attention == attention && out.back().cpu_share == pin.cpu_share) {
      ++out.back().layers.end;
    } else {
      out.push_back(pin);
    }
  }
}

}  // namespace

void check_pins(const ModelSpec& model, const ClusterSpec& cluster, const PlanRequest& request) {
  check_layers(model, cluster.size(), request);
  check_shares(cluster.size(), request);
  check_order(cluster.size(), request);
  check_gpu_layers(cluster, request);
}

std::vector<PlacePin> gpu_layer_pins(const ModelSpec& model, int64_t gpu_layers) {
  if (gpu_layers < 0) return {};
  const int64_t off = std::max<int64_t>(0, model.n_layers - gpu_layers);
  std::vector<PlacePin> pins;
  if (off > 0) {
    pins.push_back({{0, off}, false, true, Place::kCpu});
    pins.push_back({{0, off}, true, false, Place::kStreamed});
  }
  if (off < model.n_layers) pins.push_back({{off, model.n_layers}, true, true, Place::kResident});
  return pins;
}

std::string request_flags(const PlanRequest& request) {
  std::string text;
  const auto add = [&text](const std::string& flag) { append_item(text, " ", flag); };
  if (!request.split.empty()) add("--split " + split_text(request.split));
  if (request.tp > 0) add("--tp " + std::to_string(request.tp));
  if (request.pp > 0) add("--pp " + std::to_string(request.pp));
  if (!request.layers.empty()) add(layers_flag(request.layers));
  if (!request.shares.empty()) add(shares_flag(request.shares));
  if (!request.order.empty()) add(order_flag(request.order));
  if (request.gpu_layers >= 0) add("-ngl " + std::to_string(request.gpu_layers));
  if (!request.places.empty()) add("--place '" + places_text(request.places) + "'");
  if (!request.devices.empty()) {
    add("--device " + device_list_text(request.devices));
  } else if (request.device != DeviceChoice::kAuto) {
    add("--device " + device_list_text({request.device}));
  }
  if (request.context > 0) add("-c " + std::to_string(request.context));
  if (request.kv_type != KvType::kF16) add(std::string("-k ") + kv_type_name(request.kv_type));
  if (request.least_kv != KvType::kF16) {
    add(std::string("--kv-least ") + kv_type_name(request.least_kv));
  }
  if (request.gpu_rows > 0 && !request.choose_gpu_rows) {
    add("--ubatch-size " + std::to_string(request.gpu_rows));
  }
  const bool beside = std::any_of(
      request.places.begin(), request.places.end(),
      [](const PlacePin& pin) { return pin.place == Place::kCpu || pin.place == Place::kHybrid; });
  if (beside && !request.choose_cpu_rows) {
    add("--cpu-rows " + std::to_string(request.limits.max_cpu_rows));
  }
  if (!request.gpu_memory.empty()) add("--gpu-memory " + budgets_text(request.gpu_memory));
  if (!request.host_memory.empty()) add("--host-memory " + budgets_text(request.host_memory));
  if (request.objective != Objective::kLatency) {
    add(std::string("--objective ") + objective_name(request.objective));
  }
  return text;
}

std::vector<PlacePin> places_of(const Plan& plan) {
  const std::vector<LayerPlaces> layers = layer_places(plan);
  std::vector<PlacePin> out;
  add_runs(layers, true, out);
  add_runs(layers, false, out);
  return out;
}

std::string spill_text(const Plan& plan) {
  // By half and place, in the order of their first layer.
  std::vector<std::pair<std::string, int64_t>> groups;
  for (const PlacePin& pin : places_of(plan)) {
    std::string where = place_name(pin.place);
    if (pin.place == Place::kHybrid) where += " " + fixed_text(pin.cpu_share, 2);
    const std::string key = std::string(pin.attention ? "attn" : "ffn") + "|" + where;
    auto found = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& group) { return group.first == key; });
    if (found == groups.end()) found = groups.insert(groups.end(), {key, 0});
    found->second += pin.layers.size();
  }
  std::string text;
  for (const auto& [key, layers] : groups) {
    const size_t bar = key.find('|');
    append_item(
        text, ", ",
        key.substr(0, bar) + " of " + count_text(layers, "layer") + " " + key.substr(bar + 1));
  }
  return text;
}

PlanRequest pins_of(const Plan& plan) {
  PlanRequest request;
  for (const StagePlan& stage : plan.stages) {
    const bool even =
        std::equal(stage.shares.begin() + 1, stage.shares.end(), stage.shares.begin());
    const std::vector<double> ones(stage.shares.size(), 1.0);
    request.split.push_back({stage.layers.size(), even ? ones : stage.shares});
    request.order.insert(request.order.end(), stage.ranks.begin(), stage.ranks.end());
  }
  if (std::is_sorted(request.order.begin(), request.order.end())) request.order.clear();
  request.places = places_of(plan);
  request.context = plan.kv.context;
  request.kv_type = plan.kv.type;
  for (const RankPart& part : plan.parts) {
    request.devices.push_back(part.gpu ? DeviceChoice::kGpu : DeviceChoice::kCpu);
  }
  request.limits = plan.limits;
  request.gpu_rows = plan.limits.max_rows;
  return request;
}

const char* objective_name(Objective objective) {
  constexpr const char* kNames[kObjectives] = {"latency", "throughput", "context"};
  return kNames[static_cast<int>(objective)];
}

}  // namespace spillway
