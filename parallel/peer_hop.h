// PeerHops: a rank's links to the stages beside its own, straight into the GPUs' memory over CUDA
// IPC (kernels/cuda/hop.h), for GPUs of one host that reach each other. Every link has to prove
// itself with real hops before it is used; one that cannot says why, and its rows take another way.
//   Owns the rank's hop memory, exactly device_hop_bytes() and device_hop_pinned_bytes().
//   Thread: the rank's main thread; abort() from any. After construction nothing allocates.
//   Errors: CUDA: throws Error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/hop.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/peer_memory.h"
#include "parallel/communicator.h"
#include "parallel/hop_report.h"

namespace spillway {

struct HopOptions {
  int receives_from = -1;  // rank of the job, -1 for none
  std::vector<int> sends_to;
  bool has_slots = false;  // allocates slots, whether or not a link uses them
  int64_t max_rows = 0;
  int64_t dim = 0;
};

class PeerHops {
 public:
  // Takes memory, talks to nobody. exec runs on `stream`; world, exec and stream must outlive it.
  PeerHops(Communicator& world, const cuda::Exec& exec, const cuda::Stream& stream,
           const HopOptions& options);
  // Collective over each link's two ranks, who make their links in the order of the stages. seats:
  // of all ranks of the plan. x: device memory of the size of a slot, zeros afterwards.
  void connect(const std::vector<HopSeat>& seats, CommChoice choice, float* x);
  // Collective over the links' ranks too, unless a rank unwinds or the job was aborted.
  ~PeerHops();
  PeerHops(const PeerHops&) = delete;
  PeerHops& operator=(const PeerHops&) = delete;

  bool receives() const { return receives_; }
  bool sends() const { return sender_.n_links > 0; }
  // To this rank.
  bool sends_to(int rank) const;

  // Launched in the order of the steps, on both sides of a link: x, f32 [n, dim], to all receivers
  // that are reached so; the rows that the sender pushed next, into x.
  void push(const cuda::Exec& exec, View2D<const float> x) const;
  void take(const cuda::Exec& exec, View2D<float> x) const;

  // The rank of the job that a kernel has waited for longer than about a millisecond; -1: none.
  int waits_for() const;
  // Any thread: kernels that wait give up after a few milliseconds, and the links are not used
  // again.
  void abort();

  // Of the links that this rank sends over, all of them.
  const std::vector<HopReport>& reports() const { return reports_; }

 private:
  struct Link;
  std::string make(const Link& link, HopReport* report);
  std::string examine(const Link& link, HopReport* report) const;
  void open(const Link& link, const cuda::IpcHandle& theirs);
  void forget(const Link& link);
  void hop(const Link& link, int64_t rows) const;
  void prove(const Link& link) const;
  double time(const Link& link, int64_t rows, int hops) const;
  void wait() const;
  uint32_t* host_word(int64_t at) const { return reinterpret_cast<uint32_t*>(host_.data() + at); }

  Communicator& world_;
  const cuda::Exec& exec_;
  const cuda::Stream& stream_;
  int64_t max_rows_;
  int64_t dim_;
  float* x_ = nullptr;  // while links are made
  cuda::DeviceMemory memory_;
  cuda::PinnedMemory host_;
  std::vector<cuda::PeerMemory> opened_;  // of the links that work
  std::vector<int> peers_;                // at their other ends
  bool receives_ = false;
  int receives_from_;
  std::vector<int> wanted_receivers_;
  cuda::HopReceiver receiver_;
  cuda::HopSender sender_;
  std::vector<int> receivers_;  // of sender_, in order
  std::vector<HopReport> reports_;
};

}  // namespace spillway
