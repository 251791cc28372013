// DeviceCommunicator: the GPUs of a TP group, which add partial sums into the residual stream that
// every rank holds. The same contract for all fabrics: all ranks of the group call the same
// sequence with the same shapes; work is launched on exec.stream and nothing waits on the host,
// unless capturable() says otherwise.
//   Fabrics: "nccl"; "peer": kernels that push into each other's memory over CUDA IPC; "staged":
//   through host memory and MPI, for any set of ranks, several on one GPU included.
//   Bits: partial sums are added in rank order from the same values on every rank, so that all
//   ranks hold equal bits and two runs agree (nccl: in NCCL's own fixed order).
//   Wire: up to cuda::kPeerSmallRows rows travel as f32; more as bf16, which "staged" never uses.
//   Thread: the rank's main thread; abort() from any. After construction nothing allocates.
//   Errors: CUDA, NCCL, a lost peer: throws Error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/core/tensor.h"
#include "kernels/cuda/ops.h"
#include "parallel/comm_report.h"
#include "parallel/communicator.h"

namespace spillway {

// One sum over the ranks and what follows it. [n, dim] everywhere.
struct DeviceSum {
  View2D<float> partial;  // this rank's part; may be overwritten. Rows without gaps
  View2D<float> x;        // the residual stream, equal on all ranks; `partial` itself without add
  bool add = true;        // x += sum; false: x = sum
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

  // On any of this rank's streams: sums on several are put in order by their caller, and in the
  // same order on all ranks.
  virtual void sum(const cuda::Exec& exec, const DeviceSum& step) = 0;

  // What the probe at start found.
  virtual const CommReport& report() const = 0;

  // Any thread, when a peer is lost: each kernel that waits for it gives up after a few
  // milliseconds, what it computed is undefined, and the group is not used again. ("nccl": its
  // kernels end when the result is destroyed, which then does not wait for them.)
  virtual void abort() = 0;
};

struct DeviceCommOptions {
  CommChoice choice = CommChoice::kAuto;
  int64_t max_rows = 0;  // of a step
  int64_t dim = 0;
  // How the host waits where a sum makes it wait, e.g. looking meanwhile whom the GPU waits for;
  // empty: in CUDA.
  std::function<void(const cuda::Event&)> wait_for = {};
  int peer_parts = 0;  // thread blocks a row of a small sum by "peer"; 0: cuda::peer_parts()
  std::vector<int> ranks = {};  // the group's by their numbers in the job, for words; empty: places
};

// Collective over `group`, of at least two ranks that have selected their GPUs; `group` and
// `stream` must outlive the result. Probes what the ranks can do to each other and proves the data
// right; allocates exactly device_comm_bytes() of the GPU's and device_comm_pinned_bytes() of
// pinned memory (gpu_ledger.h). Throws Error, on all ranks alike, when the fabric that was asked
// for cannot work here: why, and what to use instead. The destructor is collective as well, unless
// a rank unwinds or the group was aborted.
std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& group,
                                                             const cuda::Stream& stream,
                                                             const DeviceCommOptions& options);

}  // namespace spillway
