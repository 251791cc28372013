// See device_communicator.h: which fabric carries which sums. Every fabric that is asked for is
// tried, made to prove itself with a sum whose result is known, and timed; the ranks agree after
// each step, so that all choose alike.
#include "parallel/device_communicator.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/cuda/peer.h"
#include "parallel/agreement.h"
#include "parallel/comm_memory.h"
#include "parallel/nccl_communicator.h"
#include "parallel/peer_communicator.h"
#include "parallel/rank_place.h"
#include "parallel/staged_communicator.h"
#include "parallel/stream_patience.h"

namespace spillway {
namespace {

constexpr int64_t kMostProbeRows = 512;
constexpr int kGraphRuns = 4;

// One fabric's examination, in the wire's memory: a sum with a known result, then its time.
class Examination {
 public:
  Examination(Communicator& group, const cuda::Stream& stream, const cuda::Exec& exec,
              const CommMemory& memory, int64_t dim)
      : group_(group), stream_(stream), exec_(exec), memory_(memory), dim_(dim) {}

  // Rows of a large sum that fit: as bf16 for the fabric, as floats twice for the examiner.
  int64_t large_rows() const {
    const int64_t rows = std::min((memory_.wire.bytes() - 1024) / (10 * dim_), kMostProbeRows);
    return rows > cuda::kPeerSmallRows ? rows : 0;
  }

  // Collective: fills the times in, or the obstacle.
  void run(DeviceCommunicator& fabric, FabricReport& report) const {
    report.obstacle = try_rows(fabric, 1, 16, report.small_us);
    if (!report.obstacle.empty() || large_rows() == 0) return;
    report.obstacle = try_rows(fabric, large_rows(), 4, report.large_us);
  }

 private:
  std::string try_rows(DeviceCommunicator& fabric, int64_t rows, int sums, double& us) const {
    std::string found = obstacle_of([&] { prove(fabric, rows); });
    found = first_obstacle(group_, found);
    if (!found.empty()) return found;
    double mine = 0;
    found = first_obstacle(group_, obstacle_of([&] { mine = time(fabric, rows, sums); }));
    us = greatest(group_, mine);
    return found;
  }

  DeviceSum step_of(int64_t rows) const {
    const int64_t wire_bytes = rows > cuda::kPeerSmallRows ? rows * dim_ * 2 : 0;
    auto* floats = reinterpret_cast<float*>(memory_.wire.data() + round_up(wire_bytes, 256));
    DeviceSum step;
    step.partial = View2D<float>(floats, rows, dim_);
    step.x = View2D<float>(floats + rows * dim_, rows, dim_);
    return step;
  }

  // Small whole numbers, which bf16 holds, and their sum too.
  static int64_t value(int rank, int64_t i) { return (rank * 5 + i * 3 + i / 7) % 16 - 8; }

  void prove(DeviceCommunicator& fabric, int64_t rows) const {
    DeviceSum step = step_of(rows);
    step.add = false;
    const int64_t n = rows * dim_;
    std::vector<float> values(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      values[static_cast<size_t>(i)] = static_cast<float>(value(group_.rank(), i));
    }
    cuda::copy_to_device(stream_, step.partial.data, values.data(), n * 4);
    stream_.synchronize();
    fabric.sum(exec_, step);
    wait(fabric);
    cuda::copy_to_host(stream_, values.data(), step.x.data, n * 4);
    stream_.synchronize();
    for (int64_t i = 0; i < n; ++i) {
      int64_t sum = 0;
      for (int r = 0; r < group_.size(); ++r) sum += value(r, i);
      if (values[static_cast<size_t>(i)] == static_cast<float>(sum)) continue;
      throw Error("a sum of " + std::to_string(rows) + " rows came out wrong, value " +
                  std::to_string(i) + " as " + std::to_string(values[static_cast<size_t>(i)]) +
                  " instead of " + std::to_string(sum));
    }
  }

  // us of a sum within a graph, the best of a few runs.
  double time(DeviceCommunicator& fabric, int64_t rows, int sums) const {
    const DeviceSum step = step_of(rows);
    const cuda::Graph graph = cuda::Graph::of(stream_, [&] {
      for (int i = 0; i < sums; ++i) fabric.sum(exec_, step);
    });
    cuda::Event start;
    cuda::Event end;
    double best = 0;
    for (int run = 0; run < kGraphRuns; ++run) {
      start.record(stream_);
      graph.launch(stream_);
      end.record(stream_);
      wait(fabric);
      const double us = end.ms_since(start) * 1e3 / sums;
      if (run == 0 || us < best) best = us;
    }
    return best;
  }

  void wait(DeviceCommunicator& fabric) const {
    if (!waits_in_vain(stream_, [&] { fabric.abort(); })) return;
    throw Error("a sum did not end in 10 s: what the GPUs write does not reach each other");
  }

  Communicator& group_;
  const cuda::Stream& stream_;
  const cuda::Exec& exec_;
  const CommMemory& memory_;
  int64_t dim_;
};

// A rank that cannot have it must not leave the others waiting for what it would have done next.
CommMemory take_memory(Communicator& group, const DeviceCommOptions& options) {
  std::optional<CommMemory> memory;
  const std::string obstacle = first_obstacle(
      group, obstacle_of([&] { memory.emplace(group.size(), options.max_rows, options.dim); }),
      options.ranks);
  if (!obstacle.empty()) throw Error(obstacle);
  return std::move(*memory);
}

class ChosenCommunicator final : public DeviceCommunicator {
 public:
  ChosenCommunicator(Communicator& group, const cuda::Stream& stream,
                     const DeviceCommOptions& options)
      : group_(group), memory_(take_memory(group, options)) {
    const cuda::DeviceInfo device = cuda::selected_device();
    const cuda::Exec exec = cuda::exec_on(stream, device);
    const std::vector<RankPlace> places = gather_places(group, device);
    const Examination examination(group, stream, exec, memory_, options.dim);
    report_.large_rows = examination.large_rows();
    const auto attempt = [&](FabricReport& report, auto make) {
      report.tried = true;
      std::unique_ptr<DeviceCommunicator> fabric;
      try {
        fabric = make();
      } catch (const Error& error) {
        report.obstacle = error.message();
        return fabric;
      }
      examination.run(*fabric, report);
      if (!report.works()) fabric.reset();
      return fabric;
    };
    const bool automatic = options.choice == CommChoice::kAuto;
    if (automatic || options.choice == CommChoice::kPeer) {
      peer_ = attempt(report_.peer, [&] {
        return make_peer_communicator(group, places, exec, stream, options, memory_, report_);
      });
    }
    // NCCL takes a second and hundreds of megabytes: not where peer carries all sums anyway.
    const bool few_rows = options.max_rows <= cuda::kPeerSmallRows && report_.peer.works();
    if ((automatic && !few_rows) || options.choice == CommChoice::kNccl) {
      nccl_ = attempt(report_.nccl, [&] {
        return make_nccl_communicator(group, places, stream, memory_, report_);
      });
    }
    choose_fabrics(options.choice, group.size(), report_);
    staged_ = make_staged_communicator(group, options, memory_, report_);
    if (!uses(CommChoice::kPeer)) peer_.reset();
    if (!uses(CommChoice::kNccl)) nccl_.reset();
  }

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  const char* kind(int64_t n_rows) const override { return comm_choice_name(choice(n_rows)); }
  bool capturable(int64_t n_rows) const override { return fabric(n_rows).capturable(n_rows); }
  void sum(const cuda::Exec& exec, const DeviceSum& step) override {
    CHECK_EQ(step.partial.rows, step.x.rows);
    CHECK_EQ(step.partial.cols, step.x.cols);
    if (step.x.rows > 0) fabric(step.x.rows).sum(exec, step);
  }
  const CommReport& report() const override { return report_; }
  void abort() override {
    for (DeviceCommunicator* fabric : {peer_.get(), nccl_.get(), staged_.get()}) {
      if (fabric != nullptr) fabric->abort();
    }
  }

 private:
  CommChoice choice(int64_t n_rows) const {
    return n_rows <= cuda::kPeerSmallRows ? report_.small : report_.large;
  }
  bool uses(CommChoice choice) const { return report_.small == choice || report_.large == choice; }
  DeviceCommunicator& fabric(int64_t n_rows) const {
    switch (choice(n_rows)) {
      case CommChoice::kPeer:
        return *peer_;
      case CommChoice::kNccl:
        return *nccl_;
      default:
        return *staged_;
    }
  }

  Communicator& group_;
  CommReport report_;
  CommMemory memory_;  // outlives the fabrics
  std::unique_ptr<DeviceCommunicator> peer_;
  std::unique_ptr<DeviceCommunicator> nccl_;
  std::unique_ptr<DeviceCommunicator> staged_;
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& group,
                                                             const cuda::Stream& stream,
                                                             const DeviceCommOptions& options) {
  CHECK_GE(group.size(), 2);
  CHECK(options.max_rows > 0 && options.dim > 0);
  return std::make_unique<ChosenCommunicator>(group, stream, options);
}

}  // namespace spillway
