// See pair_probe.h.
#include "parallel/pair_probe.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <span>

#include "kernels/core/error.h"
#include "kernels/core/seconds.h"
#include "kernels/cuda/peer.h"
#include "parallel/agreement.h"
#include "parallel/device_communicator.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kDim = 4096;  // a row of f32 is 16 KiB, as in models of 4096 and 8192 values
constexpr int64_t kLargeRows = 512;
constexpr int kStagedSums = 10;
constexpr double kMostSeconds = 4;  // no pair is begun later

// What decides how alike two pairs are. Sent between ranks as it is.
struct Seat {
  std::array<char, 64> name{};  // of the GPU; "" without one
  std::array<char, 48> uuid{};
  std::array<char, 128> host{};
};

template <size_t n>
void put(const std::string& text, std::array<char, n>& out) {
  std::copy_n(text.begin(), std::min(text.size(), n - 1), out.begin());
}

std::vector<Seat> gather_seats(Communicator& world, const GpuSpec& gpu, const std::string& host) {
  Seat mine;
  put(gpu.name, mine.name);
  put(gpu.uuid, mine.uuid);
  put(host, mine.host);
  std::vector<Seat> seats(static_cast<size_t>(world.size()));
  world.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(seats)));
  return seats;
}

// What a sum reads and writes. The two find out together that one of them cannot have it.
cuda::DeviceMemory sum_memory(Communicator& group, int64_t rows) {
  cuda::DeviceMemory memory;
  const std::string obstacle =
      first_obstacle(group, obstacle_of([&] {
                       memory = cuda::DeviceMemory("the probe of a pair", 2 * rows * kDim * 4);
                     }));
  if (!obstacle.empty()) throw Error(obstacle);
  return memory;
}

// Seconds of a sum that may wait on the host, the best of a few. memory: of sum_memory().
double sum_seconds(DeviceCommunicator& fabric, const cuda::Stream& stream,
                   const cuda::DeviceMemory& memory, int64_t rows) {
  const cuda::DeviceInfo device = cuda::selected_device();
  cuda::Exec exec;
  exec.stream = stream.handle();
  exec.multiprocessors = device.multiprocessors;
  exec.major = device.major;
  auto* floats = reinterpret_cast<float*>(memory.data());
  DeviceSum sum;
  sum.partial = View2D<float>(floats, rows, kDim);
  sum.x = View2D<float>(floats + rows * kDim, rows, kDim);
  double best = 0;
  for (int i = 0; i < kStagedSums; ++i) {
    const auto start = Clock::now();
    fabric.sum(exec, sum);
    stream.synchronize();
    const double seconds = seconds_since(start);
    if (i == 0 || seconds < best) best = seconds;
  }
  return best;
}

// Collective over the two.
void measure(Communicator& group, PairSpec& pair) {
  const cuda::Stream stream;
  DeviceCommOptions options;
  options.dim = kDim;
  options.max_rows = cuda::kPeerSmallRows;  // what peers carry alone, so NCCL is not started there
  const auto fabric = make_device_communicator(group, stream, options);
  pair.fabric = fabric->kind(1);
  const CommReport& report = fabric->report();
  if (pair.fabric == "peer") {
    pair.small_sum_us = report.peer.small_us;
    for (const CommReport::Push& push : report.pushes) {
      if (pair.gb_per_s == 0 || push.gb_per_s < pair.gb_per_s) pair.gb_per_s = push.gb_per_s;
    }
  } else if (pair.fabric == "nccl") {
    pair.small_sum_us = report.nccl.small_us;
    options.choice = CommChoice::kNccl;
    options.max_rows = kLargeRows;
    const CommReport large = make_device_communicator(group, stream, options)->report();
    // Each of two ranks sends every value once, as bf16.
    const auto bytes = static_cast<double>(large.large_rows * kDim * 2);
    if (large.nccl.large_us > 0) pair.gb_per_s = bytes / large.nccl.large_us * 1e-3;
  } else {
    constexpr int64_t kMost = cuda::kPeerSmallRows;
    const cuda::DeviceMemory memory = sum_memory(group, kMost);
    pair.small_sum_us = greatest(group, sum_seconds(*fabric, stream, memory, 1)) * 1e6;
    const double large = greatest(group, sum_seconds(*fabric, stream, memory, kMost));
    pair.gb_per_s = static_cast<double>(kMost * kDim * 4) / large * 1e-9;
  }
}

// The numbers on all ranks as the pair's first rank has them. Sent as they are.
struct Found {
  std::array<char, 16> fabric{};
  double gb_per_s = 0;
  double small_sum_us = 0;
};

void share(Communicator& world, PairSpec& pair) {
  Found found;
  put(pair.fabric, found.fabric);
  found.gb_per_s = pair.gb_per_s;
  found.small_sum_us = pair.small_sum_us;
  world.broadcast(std::as_writable_bytes(std::span(&found, 1)), pair.from);
  pair.fabric = found.fabric.data();
  pair.gb_per_s = found.gb_per_s;
  pair.small_sum_us = found.small_sum_us;
}

bool alike(const std::vector<Seat>& seats, const PairSpec& a, const PairSpec& b) {
  const auto at = [&](int rank) -> const Seat& { return seats[static_cast<size_t>(rank)]; };
  const bool inside_a = at(a.from).host == at(a.to).host;
  const bool inside_b = at(b.from).host == at(b.to).host;
  return inside_a == inside_b && at(a.from).name == at(b.from).name &&
         at(a.to).name == at(b.to).name;
}

}  // namespace

std::vector<PairSpec> probe_pairs(Communicator& world, const GpuSpec& gpu,
                                  const std::string& host) {
  const std::vector<Seat> seats = gather_seats(world, gpu, host);
  const auto begin = Clock::now();
  std::vector<PairSpec> pairs;
  for (int from = 0; from < world.size(); ++from) {
    for (int to = from + 1; to < world.size(); ++to) {
      const Seat& a = seats[static_cast<size_t>(from)];
      const Seat& b = seats[static_cast<size_t>(to)];
      if (a.name[0] == '\0' || b.name[0] == '\0' || a.uuid == b.uuid) continue;
      PairSpec pair;
      pair.from = from;
      pair.to = to;
      const bool late = greatest(world, seconds_since(begin)) > kMostSeconds;
      const auto like = std::find_if(pairs.begin(), pairs.end(), [&](const PairSpec& other) {
        return alike(seats, pair, other);
      });
      if (late && like != pairs.end()) {
        pair.fabric = like->fabric;
        pair.gb_per_s = like->gb_per_s;
        pair.small_sum_us = like->small_sum_us;
        pairs.push_back(pair);
        continue;
      }
      const bool mine = world.rank() == from || world.rank() == to;
      const std::unique_ptr<Communicator> group = world.split(mine ? 0 : -1, world.rank());
      const std::string obstacle =
          mine ? obstacle_of([&] { measure(*group, pair); }) : std::string();
      const std::string first = first_obstacle(world, obstacle);
      if (!first.empty()) {
        throw Error("the link between the GPUs of ranks " + std::to_string(from) + " and " +
                    std::to_string(to) + " cannot be measured: " + first);
      }
      share(world, pair);
      pairs.push_back(pair);
    }
  }
  return pairs;
}

}  // namespace spillway
