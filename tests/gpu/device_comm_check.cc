// Sums over the GPUs of real ranks, by every fabric in turn: right against sums on the host, equal
// bits on all ranks and in two runs, then how long they take. Run by tests/gpu/run, or by hand:
//
//   mpirun -np 2 device_comm_check [--fabrics peer,nccl,staged,auto] [--parts N] [--no-times]
//                                  [--ranks-share-a-gpu]
//
// Rank r takes GPU r of those it sees. --parts: thread blocks a row of a small sum by peer.
// --ranks-share-a-gpu: staged alone. The exit code is 0 only when every fabric that was asked for
// works and is right.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "kernels/cuda/peer.h"
#include "parallel/device_communicator.h"
#include "tests/gpu/gpu_ranks.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostRows = 2048;
constexpr unsigned kForms = cuda::kFloatForm | cuda::kInt8Form | cuda::kBf16Form;
constexpr float kEps = 1e-5f;

struct Settings {
  std::string fabrics = "peer,nccl,staged,auto";
  int parts = 0;
  bool times = true;
  bool share = false;
};

// Known to every rank: between -1 and 1, of very different sizes.
float value_of(int source, int64_t i) {
  constexpr float kSizes[8] = {1, 0x1p-1f, 0x1p-2f, 0x1p-3f, 0x1p-4f, 0x1p-5f, 0x1p-6f, 0x1p-7f};
  auto h = static_cast<uint64_t>(i * 8 + source + 1) * 0x9E3779B97F4A7C15u;
  h ^= h >> 29;
  return static_cast<float>(static_cast<int32_t>(h >> 32)) * 0x1p-31f * kSizes[h % 8];
}
std::vector<float> values_of(int source, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = value_of(source, i);
  return values;
}

uint16_t bf16_of(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// FNV-1a over words of 8 bytes; the arrays are whole numbers of them.
template <typename T>
uint64_t hash_of(const std::vector<T>& values, uint64_t hash = 14695981039346656037u) {
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  for (size_t at = 0; at + 8 <= values.size() * sizeof(T); at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + at, 8);
    hash = (hash ^ word) * 1099511628211u;
    hash ^= hash >> 32;
  }
  return hash;
}

// Device memory for sums of up to kMostRows rows of dim values, and copies of it on the host.
struct Buffers {
  explicit Buffers(int64_t dim_in)
      : dim(dim_in),
        partial("test", kMostRows * dim * 4),
        x("test", kMostRows * dim * 4),
        weight("test", dim * 4),
        normed_x("test", kMostRows * dim * 4),
        q8("test", kMostRows * dim),
        blocks("test", kMostRows * dim / 4),
        bf16("test", kMostRows * dim * 2) {}

  cuda::Input input(int64_t rows) const {
    return {rows,
            dim,
            reinterpret_cast<float*>(normed_x.data()),
            reinterpret_cast<int8_t*>(q8.data()),
            reinterpret_cast<cuda::ActivationBlock*>(blocks.data()),
            reinterpret_cast<uint16_t*>(bf16.data())};
  }
  DeviceSum step(int64_t rows, unsigned forms) const {
    DeviceSum out;
    out.partial = View2D<float>(reinterpret_cast<float*>(partial.data()), rows, dim);
    out.x = View2D<float>(reinterpret_cast<float*>(x.data()), rows, dim);
    out.norm_weight = reinterpret_cast<const float*>(weight.data());
    out.norm_eps = kEps;
    out.forms = forms;
    out.normed = input(rows);
    return out;
  }

  int64_t dim;
  cuda::DeviceMemory partial, x, weight, normed_x, q8, blocks, bf16;
};

class Check : private testing::Jury {
 public:
  Check(Communicator& world, const Settings& settings)
      : Jury(world),
        world_(world),
        settings_(settings),
        device_(cuda::selected_device()),
        exec_(cuda::exec_on(stream_, device_)) {}

  bool run() {
    say("%d ranks, %s\n", world_.size(), device_.name.c_str());
    for (const int64_t dim : {4096, 8192, 576}) {
      const Buffers buffers(dim);
      say("\nrows of %ld values; us a sum with norm and int8 codes\n", static_cast<long>(dim));
      if (settings_.times && dim != 576) time_alone(buffers);
      for (const CommChoice choice :
           {CommChoice::kPeer, CommChoice::kNccl, CommChoice::kStaged, CommChoice::kAuto}) {
        if (!wanted(choice)) continue;
        const std::string obstacle = obstacle_of([&] { one_fabric(choice, buffers); });
        if (!obstacle.empty()) fail(std::string(comm_choice_name(choice)) + ": " + obstacle);
      }
    }
    const bool good = all_good();
    say(good ? "\nall sums are right\n" : "\nFAILED\n");
    return good;
  }

 private:
  bool wanted(CommChoice choice) const {
    if (settings_.share) return choice == CommChoice::kStaged;
    return settings_.fabrics.find(comm_choice_name(choice)) != std::string::npos;
  }

  void one_fabric(CommChoice choice, const Buffers& buffers) {
    DeviceCommOptions options;
    options.choice = choice;
    options.max_rows = kMostRows;
    options.dim = buffers.dim;
    options.peer_parts = settings_.parts;
    const auto start = Clock::now();
    const auto comm = make_device_communicator(world_, stream_, options);
    const double s = std::chrono::duration<double>(Clock::now() - start).count();
    if (choice == CommChoice::kAuto) {
      say("%s", comm_report_text(comm->report(), comm->size(), cuda::kPeerSmallRows).c_str());
    }
    for (const int64_t rows : {1, 2, 5, 8, 17, 64, 65, 200, 512, 700, 2048}) {
      check(*comm, buffers, rows);
    }
    say("%-7s ready in %.2f s", comm_choice_name(choice), s);
    if (settings_.times && buffers.dim != 576) time_fabric(*comm, buffers);
    say("\n");
  }

  // What x must be: exactly, unless NCCL added, in an order and a rounding of its own.
  std::vector<float> expected_of(bool rounded, int64_t n) const {
    std::vector<float> x = values_of(100, n);
    std::vector<float> sum(static_cast<size_t>(n));
    for (int r = 0; r < world_.size(); ++r) {
      for (int64_t i = 0; i < n; ++i) {
        float v = value_of(r, i);
        if (rounded) v = bf16_to_f32(bf16_of(v));
        float& to = sum[static_cast<size_t>(i)];
        to = r == 0 ? v : to + v;
      }
    }
    for (size_t i = 0; i < x.size(); ++i) x[i] += sum[i];
    return x;
  }

  template <typename T>
  std::vector<T> fetch(const cuda::DeviceMemory& memory, int64_t n) const {
    std::vector<T> out(static_cast<size_t>(n));
    cuda::copy_to_host(stream_, out.data(), memory.data(), n * static_cast<int64_t>(sizeof(T)));
    stream_.synchronize();
    return out;
  }

  // One sum of fresh values; the hash of all that it wrote.
  uint64_t sum_once(DeviceCommunicator& comm, const Buffers& b, int64_t rows,
                    std::vector<float>& x) const {
    const int64_t n = rows * b.dim;
    const std::vector<float> mine = values_of(world_.rank(), n);
    x = values_of(100, n);
    const std::vector<float> weight = values_of(200, b.dim);
    cuda::copy_to_device(stream_, b.partial.data(), mine.data(), n * 4);
    cuda::copy_to_device(stream_, b.x.data(), x.data(), n * 4);
    cuda::copy_to_device(stream_, b.weight.data(), weight.data(), b.dim * 4);
    for (const auto* memory : {&b.normed_x, &b.q8, &b.blocks, &b.bf16}) {
      cuda::fill_zero(stream_, memory->data(), memory->bytes());
    }
    stream_.synchronize();
    comm.sum(exec_, b.step(rows, kForms));
    stream_.synchronize();
    x = fetch<float>(b.x, n);
    return forms_hash(b, rows, hash_of(x));
  }
  uint64_t forms_hash(const Buffers& b, int64_t rows, uint64_t hash) const {
    const int64_t padded = cuda::padded_rows(rows);
    hash = hash_of(fetch<float>(b.normed_x, rows * b.dim), hash);
    hash = hash_of(fetch<int8_t>(b.q8, padded * b.dim), hash);
    hash = hash_of(fetch<std::byte>(b.blocks, padded * b.dim / 4), hash);
    return hash_of(fetch<uint16_t>(b.bf16, rows * b.dim), hash);
  }

  void check(DeviceCommunicator& comm, const Buffers& b, int64_t rows) {
    const std::string kind = comm.kind(rows);
    const std::string name = kind + ", " + std::to_string(rows) + " rows: ";
    const bool small = rows <= cuda::kPeerSmallRows;
    std::vector<float> x;
    std::vector<float> again;
    const uint64_t hash = sum_once(comm, b, rows, x);
    const uint64_t hash_again = sum_once(comm, b, rows, again);
    if (hash != hash_again) fail(name + "two runs differ");
    std::vector<uint64_t> hashes(static_cast<size_t>(world_.size()));
    world_.all_gather(std::as_bytes(std::span(&hash, 1)),
                      std::as_writable_bytes(std::span(hashes)));
    for (const uint64_t other : hashes) {
      if (other != hash) {
        fail(name + "bits differ between ranks");
        break;
      }
    }
    const std::vector<float> expected = expected_of(kind == "peer" && !small, rows * b.dim);
    const double tolerance = kind != "nccl" ? 0 : world_.size() * (small ? 0x1p-23 : 0x1p-7);
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::abs(static_cast<double>(x[i]) - expected[i]) <= tolerance) continue;
      fail(name + "value " + std::to_string(i) + " is " + std::to_string(x[i]) + ", not " +
           std::to_string(expected[i]));
      break;
    }
    // The forms are rms_norm's of this x.
    for (const auto* memory : {&b.normed_x, &b.q8, &b.blocks, &b.bf16}) {
      cuda::fill_zero(stream_, memory->data(), memory->bytes());
    }
    const DeviceSum step = b.step(rows, kForms);
    cuda::rms_norm(exec_, View2D<const float>(step.x), step.norm_weight, kEps, kForms, step.normed);
    if (forms_hash(b, rows, hash_of(x)) != hash) fail(name + "the forms are not rms_norm's");
  }

  void time_fabric(DeviceCommunicator& comm, const Buffers& b) {
    for (const int64_t rows : {1, 8, 32, 64, 256, 512, 2048}) {
      const DeviceSum step = b.step(rows, cuda::kInt8Form);
      const auto sum = [&] { comm.sum(exec_, step); };
      const int sums = comm.capturable(rows) ? (rows <= 64 ? 64 : 8) : 4;
      say(" | %ld: %.1f", static_cast<long>(rows), time(b, sum, sums, comm.capturable(rows)));
    }
  }
  // The floor: what follows a sum, without the sum.
  void time_alone(const Buffers& b) {
    say("%-23s", "no sum, add_rms_norm");
    for (const int64_t rows : {1, 8, 32, 64, 256, 512, 2048}) {
      const DeviceSum step = b.step(rows, cuda::kInt8Form);
      const auto sum = [&] {
        cuda::add_rms_norm(exec_, View2D<const float>(step.partial), step.x, true, step.norm_weight,
                           kEps, step.forms, step.normed);
      };
      say(" | %ld: %.1f", static_cast<long>(rows), time(b, sum, rows <= 64 ? 64 : 8, true));
    }
    say("\n");
  }

  // us a sum: the slowest rank's median of some runs, which begin together.
  template <typename Sum>
  double time(const Buffers& b, const Sum& sum, int sums, bool captured) {
    const size_t runs = captured ? 11 : 3;
    cuda::fill_zero(stream_, b.partial.data(), b.partial.bytes());
    cuda::fill_zero(stream_, b.x.data(), b.x.bytes());
    stream_.synchronize();
    cuda::Graph graph;
    if (captured) {
      cuda::Graph::begin(stream_);
      for (int i = 0; i < sums; ++i) sum();
      graph = cuda::Graph::end(stream_);
    }
    return testing::median_us(world_, stream_, runs, sums, [&] {
      if (captured) return graph.launch(stream_);
      for (int i = 0; i < sums; ++i) sum();
    });
  }

  Communicator& world_;
  Settings settings_;
  cuda::DeviceInfo device_;
  cuda::Stream stream_;
  cuda::Exec exec_;
};

Settings settings_of(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--ranks-share-a-gpu") {
      settings.share = true;
    } else if (flag == "--no-times") {
      settings.times = false;
    } else if (flag == "--fabrics" && i + 1 < argc) {
      settings.fabrics = argv[++i];
    } else if (flag == "--parts" && i + 1 < argc) {
      settings.parts = std::stoi(argv[++i]);
    } else {
      throw Error("unknown flag " + flag, "device_comm_check", "see the top of its source");
    }
  }
  return settings;
}

bool check_all(int argc, char** argv) {
  const Settings settings = settings_of(argc, argv);
  const auto world = testing::world_on_gpus();
  return Check(*world, settings).run();
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  return spillway::testing::run_under_mpi(argc, argv, spillway::check_all);
}
