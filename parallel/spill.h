// Spill: what of a rank's weights does not lie in its device's memory, in which order, and the
// buffers that its way to the device takes. Pure, beside ledger.h and gpu_ledger.h.
//
// A half layer that is spilled has its matrices side by side in its home, in the order of
// weight_buffers(): one copy takes them to a slot on the device, where they lie at the same
// distances. Steps of at most StepLimits::max_cpu_rows rows multiply kCpu halves and the CPU's part
// of kHybrid ones on the CPU; steps of more rows stream everything that is spilled.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/ledger.h"
#include "parallel/plan.h"

namespace spillway {

// Halves of streamed weights that the device has room for: one is multiplied while the next comes.
inline constexpr int64_t kStreamSlots = 2;
// Halves read ahead from the disk.
inline constexpr int64_t kDiskSlots = 3;

// The columns of a feed-forward half that the device multiplies: all but ff_on_cpu.
inline Range ff_off_cpu(const LayerPart& part) {
  return part.ff_on_cpu.empty() ? part.ff : Range{part.ff_on_cpu.end, part.ff.end};
}

// Bytes of a half's matrices (packed layout), and where they lie.
enum class Half { kAttention, kFeedForward };
int64_t half_bytes(const ModelSpec& model, const LayerSpec& layer, const LayerPart& part,
                   Half half);
Place place_of_half(const LayerPart& part, Half half);

// Whether any half of this rank lies in that home.
bool spills_to(const RankPart& part, WeightHome home);
// Whether a decode step copies weights to the rank's GPU.
bool uses_bus(const RankPart& part);
// Whether a decode step reads weights or the cache with the rank's threads.
bool reads_host(const RankPart& part);
// Bytes of one slot: on the device, of the greatest half that is not resident; on the host (pinned
// beside a GPU), of the greatest that lies on disk with the whole pages around it, a number of
// pages. 0 when there is none.
int64_t stream_slot_bytes(const ModelSpec& model, const RankPart& part, const Range& layers);
int64_t disk_slot_bytes(const ModelSpec& model, const RankPart& part, const Range& layers);
// The latter for a half of so many bytes.
int64_t disk_slot_bytes(int64_t half_bytes);

// The sizes of the copies by which steps bring this rank's spilled halves to its GPU, each once.
std::vector<int64_t> streamed_copies(const ModelSpec& model, const RankPart& part,
                                     const Range& layers);

// Rows for which the CPU's buffers of a rank on a GPU are made: 0 when it multiplies nothing.
int64_t cpu_half_rows(const RankPart& part, const StepLimits& limits);
// Pinned host memory of a rank on a GPU with halves on the CPU: "cpu_in" [rows, dim] f32, their
// input from the GPU, and "cpu_out" [rows, dim] f32, the part of the sum on its way back.
BufferList spill_pinned_buffers(const ModelSpec& model, const RankPart& part,
                                const StepLimits& limits);
// What the CPU needs to multiply them: the int8 copy of the input, gate and up, the gated values
// with their int8 copy, the sum in f64.
BufferList spill_cpu_buffers(const ModelSpec& model, const RankPart& part,
                             const StepLimits& limits);

// Places the halves of the plan's ranks as the pins say, later ones over earlier ones. Throws Error
// when a pin names layers that the model has not, or a place that a rank cannot give: cpu, streamed
// and hybrid on a rank without a GPU, cpu for attention beside a GPU, hybrid for attention, cpu or
// hybrid where gate, up or down have biases.
void place_weights(Plan& plan, const ModelSpec& model, const std::vector<PlacePin>& pins);

}  // namespace spillway
