// GpuHop: the residual stream's way between pipeline stages for a rank on a GPU. Where both ends of
// a link are GPUs of one host that reach each other the rows go straight from one's memory to the
// other's, as kernels on both streams and part of a decode step's graph, and neither host waits
// (parallel/peer_hop.h). Else through pinned host memory and the job's communicator, so that a
// neighbour may compute on a CPU or sit on another host: the copies are work on the rank's stream,
// the messages wait on the host.
//   Thread: the rank's main thread. After connect() allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/cuda/device.h"
#include "parallel/gpu_ledger.h"
#include "parallel/hop_report.h"
#include "parallel/mesh.h"
#include "parallel/open_posts.h"
#include "parallel/peer_hop.h"
#include "parallel/plan.h"
#include "runtime/stage/gpu_scratch.h"

namespace spillway {

class GpuHop {
 public:
  // All must outlive it. exec runs on `stream`. dim: of the residual stream. Throws Error when
  // memory is missing.
  GpuHop(const Plan& plan, Mesh& mesh, const cuda::Exec& exec, const cuda::Stream& stream,
         const GpuScratch& scratch, int64_t dim);
  // Collective over the neighbours, before graphs are captured. seats: of all ranks of the plan.
  void connect(const std::vector<HopSeat>& seats, CommChoice choice);

  bool receives() const { return mesh_.receives_from >= 0; }

  // In the stream, and in a graph: the rows from the stage before into x, where they come from its
  // GPU; x to the next stage's GPUs.
  void take(View2D<float> x);
  void push(View2D<const float> x);

  // On the host, nothing where no rows go through it. Before a step of n rows is launched: waits
  // for them, then copies `rows` rows to the device, in stream order.
  void receive(int64_t n);
  void to_device(int64_t rows);
  // Behind a step: waits until the next stage has received the step before the last, whose buffer
  // is the next in turn, then copies n rows there in stream order; posts them, once the stream has
  // been waited for.
  void to_host(int64_t n);
  void send(int64_t n);
  // Waits until everything that was posted has been received.
  void finish();

  // The rank that a kernel has waited for longer than about a millisecond; -1: none. sending: for
  // it to take rows, not to send them.
  int waits_for(bool& sending) const;
  // Any thread: kernels that wait give up.
  void abort();
  const std::vector<HopReport>& reports() const { return reports_; }

 private:
  bool receives_on_host() const {
    return receives() && !(peers_.has_value() && peers_->receives());
  }
  size_t bytes_of(int64_t n) const { return static_cast<size_t>(n * dim_) * sizeof(float); }
  float* send_buffer() const { return scratch_.host_send + turn_ * scratch_.host_send_floats; }

  Mesh& mesh_;
  const cuda::Exec& exec_;
  const cuda::Stream& stream_;
  const GpuScratch& scratch_;
  int64_t dim_;
  std::optional<PeerHops> peers_;
  std::vector<int> posted_to_;  // ranks whose rows go through the host
  std::array<OpenPosts, kSendBuffers> posts_;
  size_t turn_ = 0;  // which buffer is written next
  std::vector<HopReport> reports_;
};

}  // namespace spillway
