// Rows from stage to stage between the GPUs of real ranks: right in both slots, by single launches
// and in a graph that is replayed, told from each other over a thousand hops, then how long a hop
// takes. Run by tests/gpu/run, or by hand:
//
//   mpirun -np 2 hop_check [--fan-out]
//
// Rank r takes GPU r of those it sees and sends to rank r + 1; with --fan-out rank 0 sends to all
// others. The exit code is 0 only when every link works and is right.
#include <chrono>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/peer_memory.h"
#include "parallel/hop_report.h"
#include "parallel/peer_hop.h"
#include "tests/gpu/gpu_ranks.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kDim = 4096;
constexpr int64_t kMostRows = 2048;
constexpr int kReplays = 1000;

class Check : private testing::Jury {
 public:
  Check(Communicator& world, bool fan_out)
      : Jury(world),
        world_(world),
        x_("test", kMostRows * kDim * 4),
        copy_("test", kMostRows * kDim * 4),
        n_wrong_("test", 4) {
    const cuda::DeviceInfo device = cuda::selected_device();
    exec_ = cuda::exec_on(stream_, device);
    HopOptions options;
    const int rank = world.rank();
    if (fan_out) {
      options.receives_from = rank == 0 ? -1 : 0;
      for (int to = 1; rank == 0 && to < world.size(); ++to) options.sends_to.push_back(to);
    } else {
      options.receives_from = rank - 1;
      if (rank + 1 < world.size()) options.sends_to.push_back(rank + 1);
    }
    receives_ = options.receives_from >= 0;
    sends_ = !options.sends_to.empty();
    options.has_slots = receives_;
    options.max_rows = kMostRows;
    options.dim = kDim;
    hops_ = std::make_unique<PeerHops>(world, exec_, stream_, options);
    HopSeat mine;
    mine.place = rank_place_of(device);
    mine.gpu = 1;
    const std::vector<HopSeat> seats = gather_hop_seats(world, world.size(), mine);
    hops_->connect(seats, CommChoice::kAuto, floats(x_));
    // By kernels of the rank's own; hops between neighbours need it.
    if (receives_ && !hops_->receives()) fail("no link to receive over");
    for (const int to : options.sends_to) {
      if (!hops_->sends_to(to)) fail("no link to rank " + std::to_string(to));
    }
    const std::vector<HopReport> all = gather_hop_reports(world, world.size(), hops_->reports());
    if (rank == 0) std::printf("%s", hop_report_text(all).c_str());
  }

  bool run() {
    if (all_good()) {
      say("single launches\n");
      for (const int64_t rows : {1, 2, 5, 64, 65, 511, 2048, 2048, 1, 2048}) check_rows(rows);
    }
    if (all_good()) {
      say("a graph of 4, 16 and 64 rows, replayed %d times\n", kReplays);
      check_replays();
    }
    if (all_good()) {
      say("a fast sender and a slow receiver\n");
      check_slow_receiver();
    }
    if (all_good()) time_hops();
    if (all_good()) check_abort();
    const bool good = all_good();
    say(good ? "all hops are right\n" : "FAILED\n");
    return good;
  }

 private:
  static float* floats(const cuda::DeviceMemory& m) { return reinterpret_cast<float*>(m.data()); }
  static uint32_t* words(const cuda::DeviceMemory& memory) {
    return reinterpret_cast<uint32_t*>(memory.data());
  }
  uint32_t seed(int hop) const { return 1000u + static_cast<uint32_t>(hop); }

  // A rank's part of one hop down the chain: what comes is judged, then sent on as it is.
  void pass_on(int64_t rows, uint32_t seed) {
    const int64_t n = rows * kDim;
    const View2D<float> x(floats(x_), rows, kDim);
    if (receives_) {
      cuda::fill_zero(stream_, x_.data(), n * 4);
      hops_->take(exec_, x);
      cuda::count_wrong(exec_, words(x_), n, seed, words(n_wrong_));
    } else {
      cuda::write_pattern(exec_, words(x_), n, seed);
    }
    if (sends_) hops_->push(exec_, View2D<const float>(x));
  }

  void judge(const std::string& what) {
    uint32_t wrong = 0;
    cuda::copy_to_host(stream_, &wrong, n_wrong_.data(), 4);
    stream_.synchronize();
    if (wrong > 0) fail(what + ": " + std::to_string(wrong) + " words are wrong");
    cuda::fill_zero(stream_, n_wrong_.data(), 4);
    stream_.synchronize();
  }

  void check_rows(int64_t rows) {
    pass_on(rows, seed(++hop_));
    judge(std::to_string(rows) + " rows");
  }

  // Three hops a replay, so that a replay begins in either slot. The pattern is written between
  // replays: a step has other rows each time.
  void check_replays() {
    cuda::Graph::begin(stream_);
    for (const int64_t rows : {4, 16, 64}) {
      const View2D<float> x(floats(x_), rows, kDim);
      if (receives_) {
        hops_->take(exec_, x);
        cuda::copy_on_device(stream_, copy_.data() + at_of(rows), x_.data(), rows * kDim * 4);
      }
      if (sends_) hops_->push(exec_, View2D<const float>(x));
    }
    const cuda::Graph graph = cuda::Graph::end(stream_);
    for (int replay = 0; replay < kReplays; ++replay) {
      const uint32_t now = seed(++hop_);
      if (!receives_) cuda::write_pattern(exec_, words(x_), 64 * kDim, now);
      graph.launch(stream_);
      for (const int64_t rows : {4, 16, 64}) {
        if (!receives_) continue;
        auto* came = reinterpret_cast<uint32_t*>(copy_.data() + at_of(rows));
        cuda::count_wrong(exec_, came, rows * kDim, now, words(n_wrong_));
      }
      if (replay % 100 == 0) stream_.synchronize();  // launch queues are finite
    }
    judge("replays");
  }
  static int64_t at_of(int64_t rows) { return rows * 4 * kDim * 4; }  // apart from each other

  // The sender may be two hops ahead and must then wait: rows of earlier hops stay as they are.
  void check_slow_receiver() {
    for (int i = 0; i < 20; ++i) {
      if (receives_) {
        // About as long as some hops of all rows.
        for (int k = 0; k < 20; ++k) {
          cuda::write_pattern(exec_, words(copy_), kMostRows * kDim, 1);
        }
      }
      pass_on(kMostRows, seed(++hop_));
    }
    judge("a slow receiver");
  }

  // us a hop, on the side that takes longest.
  double time(int64_t rows, int hops) {
    const View2D<float> x(floats(x_), rows, kDim);
    cuda::Graph::begin(stream_);
    for (int i = 0; i < hops; ++i) {
      if (receives_) hops_->take(exec_, x);
      if (sends_) hops_->push(exec_, View2D<const float>(x));
    }
    const cuda::Graph graph = cuda::Graph::end(stream_);
    return testing::median_us(world_, stream_, 11, hops, [&] { graph.launch(stream_); });
  }

  void time_hops() {
    for (const int64_t rows : {1, 8, 32, 64, 256, 512, 1024, 2048}) {
      const double us = time(rows, rows <= 64 ? 128 : 16);
      const double bytes = static_cast<double>(rows * kDim * 4);
      say("%5ld rows, %6.0f KiB: %7.1f us, %4.0f GB/s\n", static_cast<long>(rows), bytes / 1024, us,
          bytes / us * 1e-3);
    }
    time_there_and_through();
    time_copy_engine();
  }

  // What the copy engine would do for large steps: from rank 0 into memory of rank 1's GPU.
  void time_copy_engine() {
    cuda::IpcHandle handle;
    if (world_.rank() == 1) handle = cuda::ipc_handle(copy_);
    world_.broadcast(std::as_writable_bytes(std::span(&handle, 1)), 1);
    for (const int64_t rows : {64, 256, 1024, 2048}) {
      double us = 0;
      if (world_.rank() == 0) {
        const cuda::PeerMemory theirs(handle);
        const int64_t bytes = rows * kDim * 4;
        cuda::Event start;
        cuda::Event end;
        for (int run = 0; run < 2; ++run) {
          start.record(stream_);
          for (int i = 0; i < 16; ++i) {
            cuda::copy_on_device(stream_, theirs.data(), x_.data(), bytes);
          }
          end.record(stream_);
          end.synchronize();
          us = end.ms_since(start) * 1e3 / 16;
        }
        say("copy engine, %5ld rows: %7.1f us, %4.0f GB/s\n", static_cast<long>(rows), us,
            static_cast<double>(bytes) / us * 1e-3);
      }
    }
    world_.barrier();
  }

  // A row down the whole chain alone, with nothing behind it: the latency.
  void time_there_and_through() {
    const View2D<float> x(floats(x_), 1, kDim);
    const double us = testing::median_us(world_, stream_, 200, 1, [&] {
      if (receives_) hops_->take(exec_, x);
      if (sends_) hops_->push(exec_, View2D<const float>(x));
    });
    say("one row alone, launched after a barrier of the hosts: %.1f us\n", us);
  }

  // Rows that nobody sends: who waits is told, and the kernel ends when it is told to. The last
  // thing to do with a link.
  void check_abort() {
    world_.barrier();
    if (receives_) {
      hops_->take(exec_, View2D<float>(floats(x_), 1, kDim));
      cuda::Event done;
      done.record(stream_);
      const auto start = Clock::now();
      const auto soon = [&start] { return Clock::now() - start < std::chrono::seconds(2); };
      while (hops_->waits_for() < 0 && soon()) {
      }
      const int rank = hops_->waits_for();
      if (rank < 0 || rank >= world_.rank()) fail("whom it waits for is said to be nobody");
      if (done.reached()) fail("a take ended without rows");
      hops_->abort();
      while (!done.reached() && soon()) {
      }
      if (!done.reached()) fail("a take does not end when it is told to");
    }
    say("aborted\n");
  }

  Communicator& world_;
  cuda::Stream stream_;
  cuda::Exec exec_;
  cuda::DeviceMemory x_, copy_, n_wrong_;
  std::unique_ptr<PeerHops> hops_;
  bool receives_ = false;
  bool sends_ = false;
  int hop_ = 0;
};

bool check_all(int argc, char** argv) {
  const bool fan_out = argc > 1 && std::string(argv[1]) == "--fan-out";
  const auto world = testing::world_on_gpus();
  if (world->size() < 2)
    throw Error("one rank has nobody to send to", "", "mpirun -np 2 hop_check");
  return Check(*world, fan_out).run();
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  return spillway::testing::run_under_mpi(argc, argv, spillway::check_all);
}
