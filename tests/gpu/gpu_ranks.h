// What the programs share that mpirun starts on GPUs: the GPU that a rank takes, a jury that speaks
// through rank 0 and counts what is wrong on all ranks, times on all of them, and main().
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/device.h"
#include "parallel/agreement.h"
#include "parallel/mpi_communicator.h"

namespace spillway::testing {

// Thread: the rank's main thread.
class Jury {
 public:
  explicit Jury(Communicator& world) : world_(world) {}

  // By rank 0 alone.
  template <typename... Args>
  void say(const char* format, Args... args) const {
    if (world_.rank() != 0) return;
    std::printf(format, args...);
    std::fflush(stdout);
  }
  void fail(const std::string& what) {
    std::fprintf(stderr, "rank %d: %s\n", world_.rank(), what.c_str());
    ++failures_;
  }
  // Of all ranks, which call it together.
  bool all_good() const { return greatest(world_, failures_) == 0; }

 private:
  Communicator& world_;
  int failures_ = 0;
};

// us of one of the `n` that launch() starts on the stream: the slowest rank's median over runs that
// all ranks begin together.
template <typename Launch>
double median_us(Communicator& world, const cuda::Stream& stream, size_t runs, int n,
                 const Launch& launch) {
  cuda::Event start;
  cuda::Event end;
  std::vector<double> us;
  for (size_t run = 0; run < runs; ++run) {
    world.barrier();
    start.record(stream);
    launch();
    end.record(stream);
    end.synchronize();
    us.push_back(end.ms_since(start) * 1e3 / n);
  }
  std::sort(us.begin(), us.end());
  return greatest(world, us[runs / 2]);
}

// Rank r of a host takes GPU r of those it sees, in turn where there are fewer.
inline std::unique_ptr<Communicator> world_on_gpus() {
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  int local_rank = 0;
  MPI_Comm_rank(host, &local_rank);
  MPI_Comm_free(&host);
  const size_t visible = cuda::visible_devices().size();
  if (visible == 0) throw Error("there is no GPU");
  cuda::select_device(local_rank % static_cast<int>(visible));
  return make_mpi_communicator();
}

// main() of such a program: check(argc, argv) says whether all is right. An error ends all ranks.
template <typename Check>
int run_under_mpi(int argc, char** argv, const Check& check) {
  int level = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  bool good = false;
  try {
    good = check(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return good ? 0 : 1;
}

}  // namespace spillway::testing
