// See gpu_hidden.h.
#include "runtime/stage/gpu_hidden.h"

#include <cstring>

namespace spillway {

GpuHidden::GpuHidden(HiddenCheck where, int64_t n_layers, int n_ranks)
    : hashes_(where, n_layers, n_ranks),
      bytes_(static_cast<int64_t>(hashes_.values().size_bytes())),
      sums_("hashes of the residual stream", bytes_),
      host_("hashes of the residual stream", bytes_) {}

void GpuHidden::begin(const GpuStep& step) {
  hashes_.begin();
  cuda::fill_zero(step.exec.stream, sums_.data(), bytes_);
}

void GpuHidden::after(const GpuStep& step, int64_t point, View2D<const float> x) {
  const int64_t settled = step.pending ? point - 1 : point;
  if (!hashes_.take(settled)) return;
  cuda::hash_rows(step.exec, x, step.slots, sums() + settled);
  if (step.aside == nullptr) return;
  // The next sum writes x there.
  hashed_.record(step.exec.stream);
  hashed_.wait_in(step.aside->stream);
}

void GpuHidden::end(const GpuStep& step) {
  cuda::copy_to_host(step.exec.stream, host_.data(), sums_.data(), bytes_);
}

HiddenHashes& GpuHidden::hashes() {
  std::memcpy(hashes_.values().data(), host_.data(), static_cast<size_t>(bytes_));
  return hashes_;
}

}  // namespace spillway
