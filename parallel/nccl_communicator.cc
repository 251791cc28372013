// See nccl_communicator.h. nccl.h is needed for types alone; a build without it says so when NCCL
// is asked for.
#include "parallel/nccl_communicator.h"

#include "kernels/core/error.h"

#if __has_include(<nccl.h>)

#include <nccl.h>

#include <atomic>
#include <exception>

#include "kernels/core/check.h"
#include "kernels/core/opened_library.h"
#include "kernels/cuda/peer.h"
#include "parallel/agreement.h"
#include "parallel/patience.h"

namespace spillway {
namespace {

constexpr const char* kWhere = "sums by NCCL";
constexpr OpenedLibrary::Words kWords = {
    "NCCL", kWhere, "install it (package libnccl2), or use --comm peer or --comm staged",
    "install NCCL 2.18 or later"};

// The functions that are used, from the library.
struct Nccl {
  decltype(&::ncclGetErrorString) error_string = nullptr;
  decltype(&::ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&::ncclCommInitRank) init_rank = nullptr;
  decltype(&::ncclCommDestroy) destroy = nullptr;
  decltype(&::ncclCommAbort) abort = nullptr;
  decltype(&::ncclAllReduce) all_reduce = nullptr;

  void open() {
    const OpenedLibrary library(kWords, {"libnccl.so.2"});
    library.find("ncclGetErrorString", error_string);
    library.find("ncclGetUniqueId", get_unique_id);
    library.find("ncclCommInitRank", init_rank);
    library.find("ncclCommDestroy", destroy);
    library.find("ncclCommAbort", abort);
    library.find("ncclAllReduce", all_reduce);
  }

  void check(ncclResult_t status, const char* what) const {
    if (status == ncclSuccess) return;
    throw Error(std::string("NCCL: ") + what + ": " + error_string(status), kWhere,
                "NCCL_DEBUG=INFO says more; or use --comm peer or --comm staged");
  }
};

// The ranks' connection. Destroying it waits for the peers; who gave up, or is thrown out of a sum,
// does not wait.
struct Connection {
  Nccl nccl;
  ncclComm_t comm = nullptr;
  bool calm = false;

  Connection() = default;
  ~Connection() {
    if (comm != nullptr) (void)(calm ? nccl.destroy(comm) : nccl.abort(comm));
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
};

class NcclCommunicator final : public DeviceCommunicator {
 public:
  NcclCommunicator(Communicator& group, const std::vector<RankPlace>& places,
                   const cuda::Stream& stream, CommMemory& memory, const CommReport& report)
      : group_(group), stream_(stream), memory_(memory), report_(report) {
    const std::string shared = shared_gpu(places);
    refuse(shared.empty() ? shared : shared + ", which NCCL does not allow");
    refuse(first_obstacle(group, obstacle_of([&] { connection_.nccl.open(); })));
    connect();
    // The first sum sets connections up, which a capture could not.
    together("ncclAllReduce, the first",
             [&] { all_reduce(stream_.handle(), memory.wire.data(), 32, ncclFloat); });
    together("ncclAllReduce, the first of bf16", [&] {
      all_reduce(stream_.handle(), memory.wire.data(), 32, ncclBfloat16);
      stream_.synchronize();
    });
  }

  ~NcclCommunicator() override {
    connection_.calm = !aborted_.load() && group_.healthy() && std::uncaught_exceptions() == 0;
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  const char* kind(int64_t) const override { return "nccl"; }
  bool capturable(int64_t) const override { return true; }

  void sum(const cuda::Exec& exec, const DeviceSum& step) override {
    const View2D<float>& partial = step.partial;
    CHECK(partial.rows <= 1 || partial.stride == partial.cols);
    const int64_t values = partial.rows * partial.cols;
    if (values == 0) return;
    if (partial.rows <= cuda::kPeerSmallRows) {
      all_reduce(exec.stream, partial.data, values, ncclFloat);
      cuda::add_rms_norm(exec, View2D<const float>(partial), step.x, step.add, step.norm_weight,
                         step.norm_eps, step.forms, step.normed);
      return;
    }
    CHECK_LE(values * 2, memory_.wire.bytes());
    auto* wire = reinterpret_cast<uint16_t*>(memory_.wire.data());
    const cuda::Input halves{partial.rows, partial.cols, nullptr, nullptr, nullptr, wire};
    cuda::quantize_rows(exec, View2D<const float>(partial), cuda::kBf16Form, halves);
    all_reduce(exec.stream, wire, values, ncclBfloat16);
    cuda::add_rms_norm(exec, View2D<const uint16_t>(wire, partial.rows, partial.cols), step.x,
                       step.add, step.norm_weight, step.norm_eps, step.forms, step.normed);
  }

  const CommReport& report() const override { return report_; }
  void abort() override { aborted_.store(true); }

 private:
  static void refuse(const std::string& obstacle) {
    if (!obstacle.empty()) throw Error(obstacle, kWhere, "use --comm peer or --comm staged");
  }

  // A call that waits within NCCL for the others, without a limit and deaf to abort(): the watchdog
  // says which it is. Whoever comes out of it with an error has patience with those that do not.
  template <typename Call>
  void together(const char* name, const Call& call) {
    group_.note_call(name);
    const std::string obstacle = obstacle_of(call);
    group_.note_call("");
    const Patience patience(group_, obstacle);
    refuse(first_obstacle(group_, obstacle));
  }

  void connect() {
    ncclUniqueId id{};
    const std::string obstacle = obstacle_of([&] {
      if (group_.rank() == 0)
        connection_.nccl.check(connection_.nccl.get_unique_id(&id), "ncclGetUniqueId");
    });
    refuse(first_obstacle(group_, obstacle));
    group_.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
    together("ncclCommInitRank", [&] {
      connection_.nccl.check(
          connection_.nccl.init_rank(&connection_.comm, group_.size(), id, group_.rank()),
          "ncclCommInitRank");
    });
  }

  // In place.
  void all_reduce(cuda::StreamHandle stream, void* data, int64_t n, ncclDataType_t type) {
    connection_.nccl.check(connection_.nccl.all_reduce(data, data, static_cast<size_t>(n), type,
                                                       ncclSum, connection_.comm, stream),
                           "ncclAllReduce");
  }

  Communicator& group_;
  const cuda::Stream& stream_;
  CommMemory& memory_;
  const CommReport& report_;
  Connection connection_;
  std::atomic<bool> aborted_{false};
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator& group,
                                                           const std::vector<RankPlace>& places,
                                                           const cuda::Stream& stream,
                                                           CommMemory& memory,
                                                           const CommReport& report) {
  return std::make_unique<NcclCommunicator>(group, places, stream, memory, report);
}

}  // namespace spillway

#else

namespace spillway {

std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator&,
                                                           const std::vector<RankPlace>&,
                                                           const cuda::Stream&, CommMemory&,
                                                           const CommReport&) {
  throw Error(
      "this program was built without NCCL: its header was not there", "sums by NCCL",
      "build it where nccl.h is (package libnccl-dev), or use --comm peer or --comm staged");
}

}  // namespace spillway

#endif
