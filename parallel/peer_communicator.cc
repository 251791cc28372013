// See peer_communicator.h.
#include "parallel/peer_communicator.h"

#include <algorithm>
#include <array>
#include <exception>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/cuda/peer.h"
#include "kernels/cuda/peer_memory.h"
#include "parallel/agreement.h"
#include "parallel/peer_proof.h"

namespace spillway {
namespace {

constexpr const char* kTodo = "use --comm nccl or --comm staged";

class PeerCommunicator final : public DeviceCommunicator {
 public:
  PeerCommunicator(Communicator& group, const std::vector<RankPlace>& places,
                   const cuda::Exec& exec, const cuda::Stream& stream,
                   const DeviceCommOptions& options, CommMemory& memory, CommReport& report)
      : group_(group), stream_(stream), memory_(memory), report_(report) {
    refuse(peer_obstacle(places, cuda::kMostPeers));
    int major = places.front().major;
    for (const RankPlace& place : places) major = std::min(major, place.major);
    refuse_dim(major, options.dim);
    *memory.abort_word() = 0;
    peers_.rank = group.rank();
    peers_.size = group.size();
    peers_.max_rows = options.max_rows;
    peers_.dim = options.dim;
    peers_.parts =
        options.peer_parts > 0 ? options.peer_parts : cuda::peer_parts(major, options.dim);
    peers_.abort = memory.abort_word();
    open_mailboxes();
    prove(exec, report);
  }

  // A mailbox goes only when nobody maps it any more.
  ~PeerCommunicator() override {
    opened_.clear();
    if (!group_.healthy() || std::uncaught_exceptions() > 0) return;
    (void)obstacle_of([&] { group_.barrier(); });
  }
  PeerCommunicator(const PeerCommunicator&) = delete;
  PeerCommunicator& operator=(const PeerCommunicator&) = delete;

  int rank() const override { return peers_.rank; }
  int size() const override { return peers_.size; }
  const char* kind(int64_t) const override { return "peer"; }
  bool capturable(int64_t) const override { return true; }

  void sum(const cuda::Exec& exec, const DeviceSum& step) override {
    cuda::peer_sum(exec, peers_, step.partial, step.x, step.add, step.norm_weight, step.norm_eps,
                   step.forms, step.normed);
  }

  const CommReport& report() const override { return report_; }
  // A plain word that kernels read through the bus; it only ever becomes 1.
  void abort() override { __atomic_store_n(memory_.abort_word(), 1u, __ATOMIC_RELEASE); }

 private:
  static void refuse(const std::string& obstacle) {
    if (!obstacle.empty()) throw Error(obstacle, "sums by peer access", kTodo);
  }
  static void refuse_dim(int major, int64_t dim) {
    const int64_t most = cuda::most_peer_dim(major);
    if (dim <= most && dim % 4 == 0) return;
    refuse("rows of " + std::to_string(dim) +
           " values: its kernels take a multiple of 4, at most " + std::to_string(most));
  }

  void open_mailboxes() {
    const size_t n = static_cast<size_t>(peers_.size);
    std::vector<cuda::IpcHandle> handles(n);
    cuda::IpcHandle mine;
    std::string obstacle = obstacle_of([&] { mine = cuda::ipc_handle(memory_.mailbox); });
    group_.all_gather(std::as_bytes(std::span(&mine, 1)),
                      std::as_writable_bytes(std::span(handles)));
    refuse(first_obstacle(group_, obstacle));
    opened_.resize(n);
    mailboxes_.resize(n);
    for (size_t r = 0; r < n && obstacle.empty(); ++r) {
      const bool own = static_cast<int>(r) == peers_.rank;
      obstacle = obstacle_of([&] {
        if (!own) opened_[r] = cuda::PeerMemory(handles[r]);
      });
      if (!obstacle.empty()) {
        obstacle = "the memory of rank " + std::to_string(r) + "'s GPU cannot be mapped (" +
                   obstacle + "); every rank must see all GPUs in CUDA_VISIBLE_DEVICES";
      }
      mailboxes_[r] = own ? memory_.mailbox.data() : opened_[r].data();
      peers_.mailboxes[r] = mailboxes_[r];
    }
    refuse(first_obstacle(group_, obstacle));
  }

  void prove(const cuda::Exec& exec, CommReport& report) {
    const PeerProof proof{group_,
                          stream_,
                          exec,
                          mailboxes_,
                          memory_.mailbox.bytes(),
                          memory_.wire.data(),
                          memory_.wire.bytes()};
    refuse(proof.run());
    refuse(proof.measure(report.pushes));
    refuse(proof.clear());
  }

  Communicator& group_;
  const cuda::Stream& stream_;
  CommMemory& memory_;
  const CommReport& report_;
  std::vector<cuda::PeerMemory> opened_;  // by rank; the own one is empty
  std::vector<std::byte*> mailboxes_;
  cuda::PeerGroup peers_;
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_peer_communicator(Communicator& group,
                                                           const std::vector<RankPlace>& places,
                                                           const cuda::Exec& exec,
                                                           const cuda::Stream& stream,
                                                           const DeviceCommOptions& options,
                                                           CommMemory& memory, CommReport& report) {
  return std::make_unique<PeerCommunicator>(group, places, exec, stream, options, memory, report);
}

}  // namespace spillway
