// GpuHop: the residual stream's way between pipeline stages for a rank on a GPU: through pinned
// host memory and the job's communicator, so that a stage's neighbours may compute on GPUs or CPUs,
// on this host or another. The copies are work on the rank's stream (and part of a decode step's
// graph); the messages wait on the host.
//   Thread: the rank's main thread. Allocates nothing.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"
#include "parallel/mesh.h"
#include "parallel/open_posts.h"
#include "runtime/stage/gpu_scratch.h"

namespace spillway {

class GpuHop {
 public:
  // mesh and scratch must outlive it. dim: of the residual stream.
  GpuHop(Mesh& mesh, const GpuScratch& scratch, int64_t dim);

  bool receives() const { return mesh_.receives_from >= 0; }
  bool sends() const { return !mesh_.sends_to.empty(); }

  // Waits for n rows of the stage before; then to_device() may run.
  void receive(int64_t n);
  // Copies that many rows between the pinned buffers and the residual stream, in stream order.
  void to_device(const cuda::Stream& stream, int64_t rows);
  void to_host(const cuda::Stream& stream, int64_t rows);
  // Posts n rows, once the stream has been waited for.
  void send(int64_t n);
  // Waits until the next stage has received what was sent last: before to_host() writes the buffer
  // again. With a second buffer in turn this could wait for the step before the last instead, and a
  // stage would be a step ahead of the next one.
  void finish_send() { posts_.finish(*mesh_.world); }

 private:
  size_t bytes_of(int64_t n) const { return static_cast<size_t>(n * dim_) * sizeof(float); }

  Mesh& mesh_;
  const GpuScratch& scratch_;
  int64_t dim_;
  OpenPosts posts_;
};

}  // namespace spillway
