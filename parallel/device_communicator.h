// DeviceCommunicator: the GPUs of a TP group, which add partial sums into the residual stream that
// every rank holds. The same contract for all fabrics: all ranks of the group call the same
// sequence with the same shapes; work is launched on exec.stream and nothing waits on the host,
// unless capturable() says otherwise.
//   Fabrics: "nccl"; "peer": kernels that push into each other's memory over CUDA IPC; "staged":
//   through host memory and MPI, for any set of ranks, several on one GPU included.
//   Bits: partial sums are added in rank order from the same values on every rank, so that all
//   ranks hold equal bits and two runs agree (nccl: in NCCL's own fixed order).
//   Thread: the rank's main thread. After construction nothing allocates.
//   Errors: CUDA, NCCL, a lost peer: throws Error.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/tensor.h"
#include "kernels/cuda/ops.h"
#include "parallel/comm_choice.h"
#include "parallel/communicator.h"

namespace spillway {

// One sum over the ranks and what follows it. [n, dim] everywhere.
struct DeviceSum {
  View2D<const float> partial;  // this rank's part; may be overwritten
  View2D<float> x;              // the residual stream, equal on all ranks
  bool add = true;              // x += sum; false: x = sum
  // Then, unless nullptr: normed = rms_norm(x) with this weight, in these forms (cuda::rms_norm).
  const float* norm_weight = nullptr;
  float norm_eps = 0;
  unsigned forms = 0;
  cuda::Input normed = {};
};

class DeviceCommunicator {
 public:
  virtual ~DeviceCommunicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // What carries a sum of n rows: "peer", "nccl", "staged".
  virtual const char* kind(int64_t n_rows) const = 0;
  // Whether sums of n rows may be captured in a graph. staged: no, it waits on the host.
  virtual bool capturable(int64_t n_rows) const = 0;

  virtual void sum(const cuda::Exec& exec, const DeviceSum& step) = 0;
};

struct DeviceCommOptions {
  CommChoice choice = CommChoice::kAuto;
  int64_t max_rows = 0;  // of a step
  int64_t dim = 0;
};

// Collective over `group`, whose ranks have selected their GPUs; `group` must outlive the result.
// Probes what the ranks can do to each other and proves the data right; allocates exactly
// device_comm_bytes() (gpu_ledger.h) of the GPU's memory. Throws Error when a pinned fabric cannot
// work here: why, and what to use instead.
std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& group,
                                                             const cuda::Stream& stream,
                                                             const DeviceCommOptions& options);

}  // namespace spillway
