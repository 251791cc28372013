// See gpu_scratch.h.
#include "runtime/stage/gpu_scratch.h"

#include "kernels/core/check.h"
#include "parallel/gpu_ledger.h"

namespace spillway {
namespace {

GpuInputBuffer take_input(BufferTaker& taker, const std::string& name) {
  GpuInputBuffer buffer;
  buffer.all.x = taker.take_array<float>(name);
  buffer.all.q8 = taker.take_array<int8_t>(name + ".q8");
  buffer.all.blocks = taker.take_array<cuda::ActivationBlock>(name + ".blocks");
  buffer.all.bf16 = taker.take_array<uint16_t>(name + ".bf16");
  return buffer;
}

BufferList buffers_of(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  return gpu_activation_buffers(model, part, plan.limits, plan.kv,
                                part.stage == plan.last_stage());
}

}  // namespace

GpuScratch::GpuScratch(const ModelSpec& model, const Plan& plan, int rank)
    : memory_("activations", buffers_of(model, plan, rank).total()) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const BufferList list = buffers_of(model, plan, rank);
  Arena arena("activations", memory_.data(), memory_.bytes());
  BufferTaker taker(list, arena);
  x = taker.take_array<float>("x");
  normed = take_input(taker, "normed");
  qkv = taker.take_array<float>("qkv");
  attended = take_input(taker, "attended");
  gate_up = taker.take_array<float>("gate_up");
  gated = take_input(taker, "gated");
  rope_cos = taker.take_array<float>("rope.cos");
  rope_sin = taker.take_array<float>("rope.sin");
  rope_angles = taker.take_array<double>("rope.angles");
  if (model.window_rope) {
    window_rope_cos = taker.take_array<float>("window_rope.cos");
    window_rope_sin = taker.take_array<float>("window_rope.sin");
    window_rope_angles = taker.take_array<double>("window_rope.angles");
  }
  step = taker.take("step");
  step_bytes = list.bytes_of("step");
  attend = taker.take("attend");
  matrix = taker.take("scratch");
  matrix_bytes = list.bytes_of("scratch");
  library = taker.take("library");
  int64_t host_bytes = step_bytes;
  if (part.stage == plan.last_stage()) {
    logit_x = take_input(taker, "logit_x");
    logits = taker.take_array<float>("logits");
    topk = taker.take("topk");
    candidates = taker.take_array<cuda::Candidate>("candidates");
    host_bytes += list.bytes_of("candidates") +
                  Arena::rounded(kHostLogitRows * part.output_rows.size() * 4);
  }
  CHECK(taker.done());
  pinned_ = cuda::PinnedMemory("pinned staging", host_bytes);
  Arena pinned("pinned staging", pinned_.data(), host_bytes);
  host_step = pinned.take(step_bytes);
  if (part.stage == plan.last_stage()) {
    host_candidates =
        reinterpret_cast<cuda::Candidate*>(pinned.take(list.bytes_of("candidates")));
    host_logits =
        reinterpret_cast<float*>(pinned.take(kHostLogitRows * part.output_rows.size() * 4));
  }
}

}  // namespace spillway
