// See gpu_sum.h.
#include "runtime/stage/gpu_sum.h"

#include <algorithm>

#include "kernels/core/int_math.h"

namespace spillway {
namespace {

constexpr int64_t kRowUnit = 8;

template <typename T>
View2D<T> rows_of(const cuda::RowBlock& block, View2D<T> x) {
  return {x.data + block.begin * x.stride, block.end - block.begin, x.cols, x.stride};
}

float epsilon(const GpuStep& step) { return static_cast<float>(step.model.norm_eps); }

// The step's rows in about equal blocks.
void cut_rows(int64_t n, NormedInput& out) {
  out.n_blocks = GpuAside::kBlocks;
  const int64_t each = round_up(div_up(n, static_cast<int64_t>(out.n_blocks)), kRowUnit);
  for (size_t i = 0; i < out.n_blocks; ++i) {
    const auto begin = static_cast<int64_t>(i) * each;
    out.rows[i] = {std::min(n, begin), std::min(n, begin + each), nullptr, nullptr};
  }
}

// The pending sum on the stream aside, block by block; out.rows tell when each is ready.
void sum_aside(GpuStep& step, const DeviceSum& whole, NormedInput& out) {
  cut_rows(whole.x.rows, out);
  cuda::Exec exec = step.exec;
  exec.stream = step.aside->stream.handle();
  for (size_t i = 0; i < out.n_blocks; ++i) {
    cuda::RowBlock& block = out.rows[i];
    DeviceSum part = whole;
    part.x = rows_of(block, whole.x);
    part.partial = rows_of(block, whole.partial);
    if (whole.norm_weight != nullptr) {
      part.normed = step.scratch.normed.rows_of(block.begin, part.x.rows, part.x.cols);
    }
    step.aside->multiplied[i].wait_in(exec.stream);
    step.tp->sum(exec, part);
    step.aside->summed[i].record(exec.stream);
    block.ready = &step.aside->summed[i];
  }
}

void add_pending(GpuStep& step, const DeviceSum& sum, NormedInput& out) {
  if (step.aside != nullptr) {
    sum_aside(step, sum, out);
  } else {
    step.tp->sum(step.exec, sum);
  }
  step.pending = false;
}

// The terms in their order, as `to` or added to it. done: as matmul's blocks.
void add_terms(const GpuStep& step, const HalfTerms& terms, View2D<float> to, bool add,
               std::span<const cuda::RowBlock> done) {
  if (terms.products.empty() && !add) {
    cuda::fill_zero(step.exec.stream, to.data, to.rows * to.cols * 4);
  }
  for (const Product& product : terms.products) {
    if (add) {
      cuda::matmul_add(step.exec, product.w, product.input, to);
    } else {
      cuda::matmul(step.exec, {&product.w, 1}, product.input, to, done);
    }
    add = true;
  }
  if (terms.multiplied != nullptr) terms.multiplied->record(step.exec.stream);
  if (terms.cpu.rows.rows == 0) return;
  terms.cpu.ready->wait_in(step.exec.stream);
  cuda::add_rows(step.exec, terms.cpu.rows, to);
}

// This rank's part of a half's sum, and the events that sum_aside() waits for.
void sum_part(GpuStep& step, const HalfTerms& terms, std::span<const float> bias,
              View2D<float> partial) {
  NormedInput done;
  const bool mine = step.tp->rank() == 0 && !bias.empty();
  if (step.aside != nullptr) {
    cut_rows(partial.rows, done);
    for (size_t i = 0; i < done.n_blocks; ++i) done.rows[i].done = &step.aside->multiplied[i];
  }
  const bool by_blocks = terms.products.size() == 1 && !mine;
  add_terms(step, terms, partial, false,
            by_blocks ? done.blocks() : std::span<const cuda::RowBlock>());
  if (mine) add_bias(step, bias, partial);
  if (by_blocks) return;
  for (const cuda::RowBlock& block : done.blocks()) block.done->record(step.exec.stream);
}

// A rank alone.
void sum_alone(GpuStep& step, const HalfTerms& terms, std::span<const float> bias,
               std::span<const float> post_norm, View2D<float> x) {
  if (post_norm.empty()) {
    add_terms(step, terms, x, true, {});
    add_bias(step, bias, x);
    return;
  }
  // The half's own input is not needed any more.
  const cuda::Input sum = step.scratch.normed.of(x.rows, x.cols);
  const View2D<float> view(sum.x, x.rows, x.cols);
  add_terms(step, terms, view, false, {});
  add_bias(step, bias, view);
  cuda::rms_norm(step.exec, view, post_norm.data(), epsilon(step), cuda::kFloatForm, sum);
  cuda::add_rows(step.exec, view, x);
}

}  // namespace

unsigned forms_of(const cuda::Exec& exec, std::span<const PackedMatrix> readers, int64_t n) {
  unsigned forms = 0;
  for (const PackedMatrix& w : readers) forms |= cuda::input_forms(exec, w.type, n);
  return forms;
}

NormedInput norm_input(GpuStep& step, View2D<float> x, std::span<const float> weight,
                       std::span<const PackedMatrix> readers, unsigned also) {
  NormedInput out;
  out.input = step.scratch.normed.of(x.rows, x.cols);
  const unsigned forms = forms_of(step.exec, readers, x.rows) | also;
  if (!step.pending) {
    cuda::rms_norm(step.exec, x, weight.data(), epsilon(step), forms, out.input);
    return out;
  }
  const View2D<float> partial(step.scratch.partial, x.rows, x.cols);
  add_pending(step, {partial, x, true, weight.data(), epsilon(step), forms, out.input}, out);
  return out;
}

void wait_for(const GpuStep& step, const NormedInput& input) {
  for (const cuda::RowBlock& block : input.blocks()) block.ready->wait_in(step.exec.stream);
}

void sum_into(GpuStep& step, const HalfTerms& terms, std::span<const float> bias,
              std::span<const float> post_norm, View2D<float> x) {
  if (step.tp == nullptr) return sum_alone(step, terms, bias, post_norm, x);
  const View2D<float> partial(step.scratch.partial, x.rows, x.cols);
  sum_part(step, terms, bias, partial);
  step.pending = true;
  if (post_norm.empty()) return;
  // The sum takes the part's place: its norm goes to other memory than the sum itself.
  const cuda::Input sum = step.scratch.normed.of(x.rows, x.cols);
  NormedInput ready;
  add_pending(step,
              {partial, partial, false, post_norm.data(), epsilon(step), cuda::kFloatForm, sum},
              ready);
  wait_for(step, ready);
  cuda::add_rows(step.exec, View2D<const float>(sum.x, x.rows, x.cols), x);
}

void settle(GpuStep& step, View2D<float> x) {
  if (!step.pending) return;
  NormedInput ready;
  add_pending(step, {View2D<float>(step.scratch.partial, x.rows, x.cols), x, true}, ready);
  wait_for(step, ready);
}

void add_bias(GpuStep& step, std::span<const float> bias, View2D<float> x) {
  if (!bias.empty()) cuda::add_bias(step.exec, bias.data(), x);
}

}  // namespace spillway
