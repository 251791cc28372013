// See staged_communicator.h. A sum goes in pieces of CommMemory::piece_bytes; the host waits for
// each on its way down, and the stream's order keeps the next one from overwriting it on its way
// back.
#include "parallel/staged_communicator.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace spillway {
namespace {

class StagedCommunicator final : public DeviceCommunicator {
 public:
  StagedCommunicator(Communicator& group, const DeviceCommOptions& options, CommMemory& memory,
                     const CommReport& report)
      : group_(group), memory_(memory), report_(report), wait_for_(options.wait_for) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  const char* kind(int64_t) const override { return "staged"; }
  bool capturable(int64_t) const override { return false; }

  void sum(const cuda::Exec& exec, const DeviceSum& step) override {
    const View2D<float>& partial = step.partial;
    CHECK(partial.rows <= 1 || partial.stride == partial.cols);
    const int64_t values = partial.rows * partial.cols;
    const int64_t most = memory_.piece_bytes / static_cast<int64_t>(sizeof(float));
    for (int64_t at = 0; at < values; at += most) {
      sum_piece(exec, partial.data + at, std::min(most, values - at));
    }
    cuda::add_rms_norm(exec, View2D<const float>(partial), step.x, step.add, step.norm_weight,
                       step.norm_eps, step.forms, step.normed);
  }

  const CommReport& report() const override { return report_; }
  void abort() override {}  // it waits in the group's calls alone, and those are aborted there

 private:
  void sum_piece(const cuda::Exec& exec, float* device, int64_t n) {
    const int64_t bytes = n * static_cast<int64_t>(sizeof(float));
    const auto size = static_cast<size_t>(bytes);
    std::byte* all = memory_.pieces();
    std::byte* mine = all + bytes * group_.rank();
    cuda::copy_to_host(exec.stream, mine, device, bytes);
    wait(exec.stream);
    group_.all_gather({mine, size}, {all, size * static_cast<size_t>(group_.size())});
    auto* sum = reinterpret_cast<float*>(all);
    for (int r = 1; r < group_.size(); ++r) {
      const float* part = sum + r * n;
      for (int64_t i = 0; i < n; ++i) sum[i] += part[i];
    }
    cuda::copy_to_device(exec.stream, device, sum, bytes);
  }

  // What stands before the sum may be rows that another stage owes.
  void wait(cuda::StreamHandle stream) {
    if (wait_for_ == nullptr) return cuda::synchronize(stream);
    reached_.record(stream);
    wait_for_(reached_);
  }

  Communicator& group_;
  CommMemory& memory_;
  const CommReport& report_;
  std::function<void(const cuda::Event&)> wait_for_;
  cuda::Event reached_;
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_staged_communicator(Communicator& group,
                                                             const DeviceCommOptions& options,
                                                             CommMemory& memory,
                                                             const CommReport& report) {
  return std::make_unique<StagedCommunicator>(group, options, memory, report);
}

}  // namespace spillway
