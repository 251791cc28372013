// See cpu_half.h.
#include "runtime/stage/cpu_half.h"

#include <array>
#include <string>

#include "kernels/core/check.h"
#include "parallel/spill.h"
#include "runtime/stage/cpu_layer.h"

namespace spillway {
namespace {

void take_int8(BufferTaker& taker, const std::string& name, InputBuffer& out) {
  out.q8 = taker.take_array<int8_t>(name + ".q8");
  out.scale = taker.take_array<float>(name + ".scale");
  out.sum = taker.take_array<int32_t>(name + ".sum");
}

}  // namespace

CpuHalf::CpuHalf(const ModelSpec& model, const Plan& plan, int rank, const cpu::Exec& exec,
                 Arena& pinned)
    : model_(model),
      exec_(exec),
      most_rows_(cpu_half_rows(plan.parts[static_cast<size_t>(rank)], plan.limits)),
      arena_("halves on the CPU",
             spill_cpu_buffers(model, plan.parts[static_cast<size_t>(rank)], plan.limits).total()) {
  if (most_rows_ == 0) return;
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  BufferTaker ends(spill_pinned_buffers(model, part, plan.limits), pinned);
  input_.x = ends.take_array<float>("cpu_in");
  output_ = ends.take_array<float>("cpu_out");
  CHECK(ends.done());
  BufferTaker taker(spill_cpu_buffers(model, part, plan.limits), arena_);
  take_int8(taker, "cpu_in", input_);
  gate_up_ = taker.take_array<float>("gate_up");
  gated_.x = taker.take_array<float>("gated");
  take_int8(taker, "gated", gated_);
  partial_ = taker.take_array<double>("partial");
  CHECK(taker.done());
}

void CpuHalf::run(const LayerWeights& w, int64_t rows) const {
  const bool hybrid = w.part.feed_forward == Place::kHybrid;
  const std::array<PackedMatrix, 2>& gate_up = hybrid ? w.cpu_gate_up : w.gate_up;
  const PackedMatrix& down = hybrid ? w.cpu_down : w.down;
  const int64_t ff = down.cols;
  const cpu::Activations in = input_.of(rows, model_.dim);
  if (reads_int8(gate_up)) cpu::quantize_rows(exec_, in);
  const View2D<float> products(gate_up_, rows, 2 * ff);
  cpu::matmul(exec_, gate_up, in, products);
  const auto gate = model_.activation == GateActivation::kGelu ? cpu::geglu : cpu::swiglu;
  gate(exec_, products, gated_.view(rows, ff));
  const cpu::Activations gated = gated_.of(rows, ff);
  if (reads_int8({&down, 1})) cpu::quantize_rows(exec_, gated);
  const View2D<double> partial(partial_, rows, model_.dim);
  cpu::matmul_partial(exec_, down, gated, partial);
  cpu::round_sum(exec_, partial, output(rows));
}

}  // namespace spillway
