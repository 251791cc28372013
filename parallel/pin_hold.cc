// See pin_hold.h.
#include "parallel/pin_hold.h"

#include <algorithm>

#include "parallel/pins.h"
#include "parallel/size_text.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

// A list by layer, as a plan's file has it, is not read in a sentence.
constexpr size_t kLongestFlag = 60;

bool places_half(const PlacePin& pin, int64_t layer, Half half) {
  return layer >= pin.layers.begin && layer < pin.layers.end &&
         (half == Half::kAttention ? pin.attention : pin.feed_forward);
}

// Adds one rank's halves; whether it has some that no pin placed and that are spilled.
bool add_rank(const RankPart& part, const Range& layers, const ModelSpec& model,
              const std::vector<PlacePin>& pins, PinHold& hold) {
  bool others = false;
  bool spills = false;
  int64_t kept_bytes = 0;
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part.layers[static_cast<size_t>(i)];
    const int64_t index = layers.begin + i;
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      const bool pinned = std::any_of(pins.begin(), pins.end(), [&](const PlacePin& pin) {
        return places_half(pin, index, half);
      });
      const bool resident = place_of_half(layer, half) == Place::kResident;
      spills = spills || !resident;
      others = others || (!resident && !pinned);
      if (!pinned) continue;
      const int64_t bytes =
          half_bytes(model, model.layers[static_cast<size_t>(index)], layer, half);
      (resident ? kept_bytes : hold.off_bytes) += bytes;
    }
  }
  if (spills) hold.kept_bytes += kept_bytes;
  return others;
}

// Not what it means elsewhere, where such a layer's cache and attention are the CPU's too.
std::string gpu_layers_text(const ModelSpec& model, int64_t gpu_layers) {
  const int64_t off = model.n_layers - gpu_layers;
  if (gpu_layers < 0 || off <= 0) return "";
  if (gpu_layers == 0) return "-ngl 0: all layers are the CPU's";
  const std::string which = off == 1 ? "layer 0" : "layers 0-" + std::to_string(off - 1);
  return "-ngl " + std::to_string(gpu_layers) + ": of " + which +
         " the CPU multiplies the feed-forward part; attention stays on the GPU beside its cache, "
         "its weights come over the bus";
}

}  // namespace

PinHold pin_hold(const Plan& plan, const ModelSpec& model, const PlanRequest& request) {
  PinHold hold;
  if (request.gpu_layers >= 0) hold.flags = "-ngl " + std::to_string(request.gpu_layers);
  if (!request.places.empty()) {
    const std::string flag = "--place '" + places_text(request.places) + "'";
    append_item(hold.flags, " and ", flag.size() > kLongestFlag ? "--place" : flag);
  }
  std::vector<PlacePin> pins = gpu_layer_pins(model, request.gpu_layers);
  pins.insert(pins.end(), request.places.begin(), request.places.end());
  bool others = false;
  for (const RankPart& part : plan.parts) {
    const Range& layers = plan.stages[static_cast<size_t>(part.stage)].layers;
    if (add_rank(part, layers, model, pins, hold)) others = true;
  }
  hold.all_spilled = hold.off_bytes > 0 && !others;
  hold.note = gpu_layers_text(model, request.gpu_layers);
  return hold;
}

}  // namespace spillway
