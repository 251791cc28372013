// See spill.h.
#include "parallel/spill.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/list_writer.h"
#include "parallel/shard.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

const char* half_name(Half half) { return half == Half::kAttention ? "attn" : "ffn"; }

std::string where_text(const RankPart& part, int64_t layer, Half half) {
  return "--place, layer " + std::to_string(layer) + " " + half_name(half) + ", rank " +
         std::to_string(part.rank);
}

bool biased(const LayerSpec& layer) { return layer.gate_bias || layer.up_bias || layer.down_bias; }

// Throws unless this rank can keep the half there.
void check_place(const RankPart& part, const LayerSpec& spec, int64_t layer, Half half,
                 Place place) {
  const std::string name = place_name(place);
  if (!part.gpu && in_host_memory(place)) {
    throw Error("the rank computes on its CPU: weights are resident or on disk there, not " + name,
                where_text(part, layer, half), "use resident or disk, or --device gpu");
  }
  if (half == Half::kAttention && (place == Place::kCpu || place == Place::kHybrid)) {
    throw Error("attention stays on the GPU with its cache; its weights cannot be " + name,
                where_text(part, layer, half),
                "use streamed or disk for attn, and cpu or hybrid for ffn");
  }
  if (half == Half::kFeedForward && biased(spec) &&
      (place == Place::kCpu || place == Place::kHybrid)) {
    throw Error("feed-forward matrices with biases are not multiplied on the CPU beside a GPU",
                where_text(part, layer, half), "use streamed or disk");
  }
}

// Columns at the front of the part for the CPU, whole quant blocks of `down`.
Range cpu_columns(const LayerSpec& spec, const LayerPart& part, double share) {
  const int64_t unit = ff_unit(spec);
  const auto wanted = static_cast<double>(part.ff.size()) * share / static_cast<double>(unit);
  const int64_t n = std::min(part.ff.size(), static_cast<int64_t>(std::llround(wanted)) * unit);
  return {part.ff.begin, part.ff.begin + n};
}

void place_feed_forward(const LayerSpec& spec, LayerPart& part, const PlacePin& pin) {
  part.feed_forward = pin.place;
  part.ff_on_cpu = {};
  if (part.ff.empty()) part.feed_forward = Place::kResident;
  if (part.feed_forward == Place::kCpu) part.ff_on_cpu = part.ff;
  if (part.feed_forward != Place::kHybrid) return;
  part.ff_on_cpu = cpu_columns(spec, part, pin.cpu_share);
  if (part.ff_on_cpu.empty()) part.feed_forward = Place::kStreamed;
  if (part.ff_on_cpu == part.ff) part.feed_forward = Place::kCpu;
}

void place_rank(RankPart& part, const Range& layers, const ModelSpec& model, const PlacePin& pin) {
  const int64_t end = std::min(layers.end, pin.layers.end);
  for (int64_t index = std::max(layers.begin, pin.layers.begin); index < end; ++index) {
    const LayerSpec& spec = model.layers[static_cast<size_t>(index)];
    LayerPart& layer = part.layers[static_cast<size_t>(index - layers.begin)];
    if (pin.attention) {
      check_place(part, spec, index, Half::kAttention, pin.place);
      layer.attention = layer.heads.empty() ? Place::kResident : pin.place;
    }
    if (pin.feed_forward) {
      check_place(part, spec, index, Half::kFeedForward, pin.place);
      place_feed_forward(spec, layer, pin);
    }
  }
}

// Of the halves that `counts` names.
template <typename Counts>
int64_t greatest_half(const ModelSpec& model, const RankPart& part, const Range& layers,
                      const Counts& counts) {
  int64_t most = 0;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part.layers[static_cast<size_t>(i)];
    const LayerSpec& spec = model.layers[static_cast<size_t>(layers.begin + i)];
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (counts(place_of_half(layer, half))) {
        most = std::max(most, half_bytes(model, spec, layer, half));
      }
    }
  }
  return most;
}

int64_t most_cpu_columns(const RankPart& part) {
  int64_t most = 0;
  for (const LayerPart& layer : part.layers) most = std::max(most, layer.ff_on_cpu.size());
  return most;
}

}  // namespace

Place place_of_half(const LayerPart& part, Half half) {
  return half == Half::kAttention ? part.attention : part.feed_forward;
}

int64_t half_bytes(const ModelSpec& model, const LayerSpec& layer, const LayerPart& part,
                   Half half) {
  if (half == Half::kAttention) {
    const int64_t q_rows = part.heads.size() * model.head_dim;
    const int64_t kv_rows = part.kv_heads.size() * model.head_dim;
    return packed_bytes(layer.q.type, q_rows, model.dim) +
           packed_bytes(layer.k.type, kv_rows, model.dim) +
           packed_bytes(layer.v.type, kv_rows, model.dim) +
           packed_bytes(layer.o.type, model.dim, q_rows);
  }
  int64_t bytes = 0;
  const Range pieces[] = {part.feed_forward == Place::kHybrid ? part.ff_on_cpu : Range{},
                          part.feed_forward == Place::kHybrid ? ff_off_cpu(part) : part.ff};
  for (const Range& ff : pieces) {
    if (ff.empty()) continue;
    bytes += packed_bytes(layer.gate.type, ff.size(), model.dim) +
             packed_bytes(layer.up.type, ff.size(), model.dim) +
             packed_bytes(layer.down.type, model.dim, ff.size());
  }
  return bytes;
}

bool uses_bus(const RankPart& part) {
  const auto streamed = [](Place place) {
    return place == Place::kStreamed || place == Place::kHybrid || place == Place::kDisk;
  };
  return std::any_of(part.layers.begin(), part.layers.end(), [&](const LayerPart& layer) {
    return streamed(layer.attention) || streamed(layer.feed_forward);
  });
}

bool reads_host(const RankPart& part) {
  return !part.gpu || std::any_of(part.layers.begin(), part.layers.end(),
                                  [](const LayerPart& layer) { return !layer.ff_on_cpu.empty(); });
}

bool spills_to(const RankPart& part, WeightHome home) {
  return std::any_of(part.layers.begin(), part.layers.end(), [home](const LayerPart& layer) {
    return home_of(layer.attention) == home || home_of(layer.feed_forward) == home;
  });
}

int64_t stream_slot_bytes(const ModelSpec& model, const RankPart& part, const Range& layers) {
  if (!part.gpu) return 0;
  return greatest_half(model, part, layers, [](Place p) { return p != Place::kResident; });
}

int64_t disk_slot_bytes(int64_t half_bytes) {
  constexpr int64_t kPage = 4096;                                 // SpillFile::kAlignment
  return half_bytes == 0 ? 0 : (half_bytes / kPage + 2) * kPage;  // ReadAhead::slot_bytes
}

int64_t disk_slot_bytes(const ModelSpec& model, const RankPart& part, const Range& layers) {
  return disk_slot_bytes(
      greatest_half(model, part, layers, [](Place p) { return p == Place::kDisk; }));
}

std::vector<int64_t> streamed_copies(const ModelSpec& model, const RankPart& part,
                                     const Range& layers) {
  std::vector<int64_t> sizes;
  if (!part.gpu) return sizes;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part.layers[static_cast<size_t>(i)];
    const LayerSpec& spec = model.layers[static_cast<size_t>(layers.begin + i)];
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (place_of_half(layer, half) == Place::kResident) continue;
      sizes.push_back(half_bytes(model, spec, layer, half));
    }
    if (layer.feed_forward != Place::kHybrid) continue;
    // Steps of few rows go without the CPU's columns.
    LayerPart rest = layer;
    rest.ff = ff_off_cpu(layer);
    rest.feed_forward = Place::kStreamed;
    sizes.push_back(half_bytes(model, spec, rest, Half::kFeedForward));
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

int64_t cpu_half_rows(const RankPart& part, const StepLimits& limits) {
  return most_cpu_columns(part) == 0 ? 0 : std::min(limits.max_cpu_rows, limits.max_rows);
}

BufferList spill_pinned_buffers(const ModelSpec& model, const RankPart& part,
                                const StepLimits& limits) {
  const int64_t rows = cpu_half_rows(part, limits);
  ListWriter out;
  if (rows == 0) return out.take();
  out.floats("cpu_in", rows * model.dim);
  out.floats("cpu_out", rows * model.dim);
  return out.take();
}

BufferList spill_cpu_buffers(const ModelSpec& model, const RankPart& part,
                             const StepLimits& limits) {
  const int64_t rows = cpu_half_rows(part, limits);
  const int64_t ff = most_cpu_columns(part);
  ListWriter out;
  if (rows == 0) return out.take();
  out.quantized_input("cpu_in", rows, model.dim);
  out.floats("gate_up", rows * 2 * ff);
  out.floats("gated", rows * ff);
  out.quantized_input("gated", rows, ff);
  out.add("partial", rows * model.dim * 8);
  return out.take();
}

void place_weights(Plan& plan, const ModelSpec& model, const std::vector<PlacePin>& pins) {
  for (const PlacePin& pin : pins) {
    if (!(pin.layers == kAllLayers) && pin.layers.end > model.n_layers) {
      throw Error("layer " + std::to_string(pin.layers.end - 1) + " is not there, the model has " +
                      count_text(model.n_layers, "layer") + ", from 0",
                  "--place " + places_text({pin}),
                  model.n_layers == 1 ? "name layer 0"
                                      : "name layers 0-" + std::to_string(model.n_layers - 1));
    }
    for (RankPart& part : plan.parts) {
      place_rank(part, plan.stages[static_cast<size_t>(part.stage)].layers, model, pin);
    }
  }
}

}  // namespace spillway
