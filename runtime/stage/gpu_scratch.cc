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

int tp_size(const Plan& plan, const RankPart& part) {
  return static_cast<int>(plan.stages[static_cast<size_t>(part.stage)].ranks.size());
}

BufferList buffers_of(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  return gpu_activation_buffers(model, part, plan.limits, plan.kv, part.stage == plan.last_stage(),
                                tp_size(plan, part));
}

}  // namespace

GpuScratch::GpuScratch(const ModelSpec& model, const Plan& plan, int rank)
    : memory_("activations", buffers_of(model, plan, rank).total()) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const BufferList list = buffers_of(model, plan, rank);
  Arena arena("activations", memory_.data(), memory_.bytes());
  BufferTaker taker(list, arena);
  const bool last = part.stage == plan.last_stage();
  x = taker.take_array<float>("x");
  if (tp_size(plan, part) > 1) partial = taker.take_array<float>("partial");
  normed = take_input(taker, "normed");
  attended = take_input(taker, "attended");
  gated = take_input(taker, "gated");
  if (last) logit_x = take_input(taker, "logit_x");
  qkv = taker.take_array<float>("qkv");
  gate_up = taker.take_array<float>("gate_up");
  rope_cos = taker.take_array<float>("rope.cos");
  rope_sin = taker.take_array<float>("rope.sin");
  if (model.window_rope) {
    window_rope_cos = taker.take_array<float>("window_rope.cos");
    window_rope_sin = taker.take_array<float>("window_rope.sin");
  }
  rope_angles = taker.take_array<double>("rope.angles");
  if (model.window_rope) window_rope_angles = taker.take_array<double>("window_rope.angles");
  step = taker.take("step");
  step_bytes = list.bytes_of("step");
  attend = taker.take("attend");
  matrix = taker.take("scratch");
  matrix_bytes = list.bytes_of("scratch");
  library = taker.take("library");
  if (last) {
    logits = taker.take_array<float>("logits");
    topk = taker.take("topk");
    candidates = taker.take_array<cuda::Candidate>("candidates");
  }
  CHECK(taker.done());

  const BufferList pinned_list = pinned_buffers(model, part, plan.limits, plan.kv, last);
  pinned_ = cuda::PinnedMemory("pinned staging", pinned_list.total());
  Arena pinned("pinned staging", pinned_.data(), pinned_.bytes());
  BufferTaker pinned_taker(pinned_list, pinned);
  host_step = pinned_taker.take("step");
  if (part.stage > 0) host_recv = pinned_taker.take_array<float>("recv");
  if (!last) {
    host_send = pinned_taker.take_array<float>("send");
    host_send_floats = pinned_list.bytes_of("send") / (kSendBuffers * int64_t{sizeof(float)});
  }
  if (last) {
    host_candidates = pinned_taker.take_array<cuda::Candidate>("candidates");
    host_logits = pinned_taker.take_array<float>("logits");
  }
  CHECK(pinned_taker.done());
}

}  // namespace spillway
