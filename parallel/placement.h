// Placement: where the weights of half a layer lie and who multiplies them, and the grammar in
// which a person pins it. The unit is half a layer (attention | feed-forward); norms and biases are
// small and always lie in the memory of the device that computes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/int_math.h"

namespace spillway {

enum class Place : uint8_t {
  kResident,  // in the memory of the rank's device: its GPU's, or the host's on a rank without one
  kCpu,       // a rank on a GPU: in pinned host memory, multiplied by the rank's CPU threads
  kStreamed,  // a rank on a GPU: in pinned host memory, copied to the GPU in every step
  kHybrid,    // the same, feed-forward only: some columns kCpu and the others kStreamed, at once
  kDisk,      // in a file, read ahead in every step; then as kStreamed, or as kResident on a CPU
};
inline constexpr int kPlaces = 5;

// "resident", "cpu", "streamed", "hybrid", "disk".
const char* place_name(Place place);
// Whether a rank on a GPU keeps the half's matrices in its spill memory on the host.
constexpr bool in_host_memory(Place place) {
  return place == Place::kCpu || place == Place::kStreamed || place == Place::kHybrid;
}

// `--place`: these halves of these layers, on every rank that holds them, lie there.
struct PlacePin {
  Range layers;
  bool attention = true;
  bool feed_forward = true;
  Place place = Place::kResident;
  double cpu_share = 0.5;  // kHybrid: of the feed-forward columns, what the CPU multiplies
  bool operator==(const PlacePin&) const = default;
};

// Parses `layers 40-79 ffn = cpu; layers 0-9,12 attn = streamed; layer 3 = disk; layers all ffn =
// hybrid 0.6`: a pin a range. Halves: attn or attention, ffn or feed-forward; none: both. Later
// pins win. Throws Error that shows the place and an example; the model's layers are checked later.
std::vector<PlacePin> parse_places(const std::string& text);
std::string places_text(const std::vector<PlacePin>& pins);
// Of all layers: what parse_places makes of "all".
inline constexpr Range kAllLayers{0, INT64_MAX};

}  // namespace spillway
