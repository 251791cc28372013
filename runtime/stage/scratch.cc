// See scratch.h.
#include "runtime/stage/scratch.h"

#include <string>

#include "kernels/core/check.h"
#include "parallel/ledger.h"

namespace spillway {
namespace {

BufferList buffers_of(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const bool last = part.stage == plan.last_stage();
  return part.gpu ? message_buffers(model, part, plan.limits, last)
                  : activation_buffers(model, part, plan.limits, last);
}

InputBuffer take_input(BufferTaker& taker, const std::string& name) {
  InputBuffer buffer;
  buffer.x = taker.take_array<float>(name);
  buffer.q8 = taker.take_array<int8_t>(name + ".q8");
  buffer.scale = taker.take_array<float>(name + ".scale");
  buffer.sum = taker.take_array<int32_t>(name + ".sum");
  return buffer;
}

}  // namespace

Scratch::Scratch(const ModelSpec& model, const Plan& plan, int rank)
    : arena_("activations", buffers_of(model, plan, rank).total()) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const StepLimits& limits = plan.limits;
  const BufferList list = buffers_of(model, plan, rank);
  BufferTaker taker(list, arena_);
  if (!part.gpu) take_activations(taker, model, plan, part);
  if (part.stage == plan.last_stage()) {
    head_message = taker.take("head_message");
    head_message_bytes = list.bytes_of("head_message");
  }
  if (rank == 0) {
    front_message = taker.take("front_message");
    front_message_bytes = list.bytes_of("front_message");
    front_rows = taker.take_view<float>("front_rows", limits.all_logits ? limits.max_logit_rows : 0,
                                        model.vocab_size);
  }
  CHECK(taker.done());
}

void Scratch::take_activations(BufferTaker& taker, const ModelSpec& model, const Plan& plan,
                               const RankPart& part) {
  const StepLimits& limits = plan.limits;
  auto* rows = taker.take_array<float>("x");
  const bool sends = part.stage != plan.last_stage();
  for (View2D<float>& view : x) {
    view = View2D<float>(rows, limits.max_rows, model.dim);
    if (sends) rows += limits.max_rows * model.dim;
  }
  normed = take_input(taker, "normed");
  qkv = taker.take_array<float>("qkv");
  attended = take_input(taker, "attended");
  gate_up = taker.take_array<float>("gate_up");
  gated = take_input(taker, "gated");
  partial = taker.take_view<double>("partial", limits.max_rows, model.dim);
  rope_cos = taker.take_view<float>("rope.cos", limits.max_rows, model.rope.n_rot / 2);
  rope_sin = taker.take_view<float>("rope.sin", limits.max_rows, model.rope.n_rot / 2);
  if (model.window_rope) {
    const int64_t pairs = model.window_rope->n_rot / 2;
    window_rope_cos = taker.take_view<float>("window_rope.cos", limits.max_rows, pairs);
    window_rope_sin = taker.take_view<float>("window_rope.sin", limits.max_rows, pairs);
  }
  if (part.stage == plan.last_stage()) {
    logit_x = take_input(taker, "logit_x");
    logits = taker.take_view<float>("logits", limits.max_logit_rows, part.output_rows.size());
  }
}

}  // namespace spillway
