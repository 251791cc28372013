// GpuSpill: the weights of a rank on a GPU that lie in host memory or on disk, and their way into a
// step. In the order of the step each spilled half is copied to one of two slots on the device
// while the half before is multiplied; in steps of few rows some halves, or some columns of them,
// are multiplied on the CPU meanwhile. Halves on disk are read ahead into slots on the host and
// copied from there. The layers ask for a half's matrices and say when they are done
// (gpu_layer.cc); nothing here waits on the host, and a decode step's copies and calls of the host
// are branches of its graph.
//   Owns the host arena and the disk's slots (pinned) and the slots, exactly the ledger's bytes.
//   Thread: the rank's main thread; what the streams call on the host runs on threads of CUDA's,
//   the CPU's work there on the rank's pool.
//
// A half from disk on the stream of copies: its slot on the device is free, call: the half has been
// read (DiskCalls::wait), copy, call: its slot on the host is free (release), event `copied`. Every
// step takes all of these halves in the same order, so half i always comes through host slot
// i % kDiskSlots: graphs hold the addresses of their copies. Why nothing is stuck: the calls of all
// streams may share one thread of CUDA's, so a call must not wait for what another one has yet to
// do. wait(k) waits for the disk's own threads alone, and these for slots that release() has given
// free, at the latest of half k - 1: before wait(k) on the same stream, in a graph as well, whose
// nodes of one stream are a chain. The next step begins when all of this one's copies have ended,
// since its last product waits for their events, and these come after release(). A half that the
// CPU multiplies may be called a little later for it, behind a wait for the disk; the disk reads on
// meanwhile. A half that cannot be read: see disk_calls.h and check().
//
// Nothing but these copies may wait for the bus: a copy of a few bytes to the device queues behind
// two slots of weights (measured on an H100: 1.9 ms a step of 32 KB). So kernels read what the CPU
// has summed right from host memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/host_pages.h"
#include "kernels/cuda/host_side.h"
#include "kernels/cuda/ops.h"
#include "parallel/spill.h"
#include "runtime/model/weights.h"
#include "runtime/stage/call_trace.h"
#include "runtime/stage/cpu_half.h"
#include "runtime/stage/disk_calls.h"

namespace spillway {

// A half's matrices where they lie on the device in this step. multiplied: to be recorded when
// they are not needed any more; nullptr when they stay.
struct AttentionMatrices {
  std::array<PackedMatrix, 3> qkv;
  PackedMatrix o;
  cuda::Event* multiplied = nullptr;
};
struct FeedForwardColumns {
  std::array<PackedMatrix, 2> gate_up;
  PackedMatrix down;
};
struct FeedForwardMatrices {
  std::array<FeedForwardColumns, 2> pieces;
  size_t n_pieces = 0;  // 0: the CPU has all of them; 2: a hybrid half in a step of many rows
  cuda::Event* multiplied = nullptr;
};

// What the CPU adds to a half's sum: rows in host memory, there when `ready` is reached. No rows:
// nothing.
struct CpuTerm {
  View2D<const float> rows;
  const cuda::Event* ready = nullptr;
};

class GpuSpill {
 public:
  // Reserves what the plan spills; empty when it spills nothing. folder: where the file of weights
  // on disk goes. Throws Error when memory or disk cannot be had.
  GpuSpill(const ModelSpec& model, const Plan& plan, int rank, const cpu::Exec& cpu,
           const std::string& folder);
  ~GpuSpill();
  GpuSpill(GpuSpill&&) = delete;

  // For the loader: all of it to be filled. nullptr, or an empty target, when nothing lies there.
  Arena* host_arena() { return host_.bytes() == 0 ? nullptr : &host_; }
  WeightTarget disk_target() const { return disk_ == nullptr ? WeightTarget{} : disk_->target(); }
  // Once, when they are filled: pins memory and starts to read. weights must stay where they are.
  void loaded(const Weights& weights);

  // A step of n rows begins on this stream: the first copies start. In a graph n is the bucket's.
  void begin(const cuda::Exec& exec, int64_t n);
  // Rows of the step at hand that are somebody's: what the CPU multiplies. Before the step's
  // launch.
  void set_rows(int64_t rows) { rows_ = rows; }

  // Calls by half, in the order of the step. The stream goes on when the matrices are there.
  AttentionMatrices attention(const cuda::Exec& exec, const LayerWeights& w);
  FeedForwardMatrices feed_forward(const cuda::Exec& exec, const LayerWeights& w);
  // `multiplied` has been recorded: the half's slot takes another one.
  void done(const LayerWeights& w, Half half);

  // Whether the CPU multiplies columns of this half in this step.
  bool on_cpu(const LayerWeights& w) const;
  // It begins when the stream gets here. normed [n, dim]: the half's input.
  CpuTerm start_on_cpu(const cuda::Exec& exec, const LayerWeights& w, View2D<const float> normed);

  // Waits for the stream: asleep when the host has work in a step, which may need every core.
  void wait_for(const cuda::Stream& stream);
  // For a thread that polls instead: yields, or sleeps a little when the host has work.
  void leave_core() const;
  // When the step has ended, before anybody hears of it: throws Error when a half could not be
  // read from disk, and then what the step computed is no number.
  void check() const;
  // Any thread, when the job ends: no call of the step at hand waits for the disk any more.
  void stop();
  // The streams' calls of the host from start_trace() on (CallTrace).
  void start_trace() { trace_.start(); }
  std::vector<HostCall> stop_trace(int64_t shift_ns) { return trace_.stop(shift_ns); }

  int64_t device_bytes() const { return slot_memory_.bytes(); }
  int64_t host_bytes() const;

 private:
  struct Slot {
    std::byte* data = nullptr;
    cuda::Event copied;
    cuda::Event multiplied;
  };
  struct Streamed {
    const LayerWeights* layer = nullptr;
    Half half = Half::kAttention;
    const std::byte* base = nullptr;  // the first matrix, as the layer's views have it
    const std::byte* from = nullptr;  // where it is copied from: base, but for halves on disk
    int64_t bytes = 0;
    void* turn = nullptr;  // of DiskCalls
  };
  struct Call {
    GpuSpill* spill = nullptr;
    const LayerWeights* layer = nullptr;
  };
  static void run_call(void* call);
  void list_halves(const LayerWeights& w);
  Streamed listed(const LayerWeights& w, Half half);
  bool host_works() const { return cpu_half_.most_rows() > 0 || disk_ != nullptr; }
  void copy_next();
  bool streamed(Place place) const;
  Slot& fetch(const cuda::Exec& exec, const LayerWeights& w, Half half);
  // Where a matrix of the half that was fetched last lies in its slot.
  PackedMatrix in_slot(PackedMatrix matrix) const;

  ThreadPool& pool_;
  int64_t dim_;
  HostPages host_pages_;
  Arena host_;
  cuda::PinnedRange host_pin_;
  cuda::PinnedMemory pinned_;
  Arena pinned_arena_;
  CpuHalf cpu_half_;
  CallTrace trace_;
  std::unique_ptr<DiskHalves> disk_;  // nullptr when nothing lies there
  cuda::PinnedRange disk_pin_;        // of its slots
  std::unique_ptr<DiskCalls> disk_calls_;
  size_t disk_listed_ = 0;
  // Behind all that the streams' calls use: when it is freed, the device has come to rest.
  cuda::DeviceMemory slot_memory_;
  std::array<Slot, kStreamSlots> slots_;
  cuda::Stream copies_;
  cuda::Stream cpu_stream_;
  cuda::Event forked_;
  cuda::Event normed_;
  cuda::Event computed_;
  cuda::SleepingWait sleeping_wait_;

  std::vector<Streamed> every_;  // in steps of many rows
  std::vector<Streamed> few_;    // in steps of few: without what the CPU multiplies
  std::vector<Call> calls_;      // by layer
  const LayerWeights* first_layer_ = nullptr;

  const std::vector<Streamed>* order_ = nullptr;  // of the step at hand
  bool few_rows_ = false;
  size_t fetched_ = 0;
  size_t copied_ = 0;
  int64_t rows_ = 0;
};

}  // namespace spillway
