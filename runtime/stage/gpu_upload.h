// GpuUpload: a GGUF's tensors into packed weights in device memory. Threads copy file pages into
// pinned slots, the copy engine takes them to the device, a kernel packs them there; the three
// overlap over a ring of slots.
//   Owns its slots, pinned and on the device, until it goes: before the KV cache and the
//   activations are taken, whose place the slots have until then. Where these are less, the ledger
//   has the rest as "loading" (kLoadStagingBytes of parallel/gpu_ledger.h).
//   Thread: main. finish() waits for everything and throws what failed.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cpu/ops.h"
#include "kernels/cuda/ops.h"
#include "runtime/model/loader.h"

namespace spillway {

class GpuUpload {
 public:
  // Bytes of device memory and of pinned host memory while loading.
  static constexpr int64_t kSlots = 4;
  static constexpr int64_t kSlotBytes = 32 << 20;

  GpuUpload(const cpu::Exec& cpu, const cuda::Exec& gpu, const cuda::Stream& stream);
  ~GpuUpload();
  GpuUpload(GpuUpload&&) = delete;

  // For load_weights. Valid while this lives.
  WeightWriter writer();
  void finish();

 private:
  struct Slot;
  void pack(const cpu::GgufMatrix& source, Range rows, Range cols, const PackedMatrix& out);
  void floats(QuantType type, const std::byte* data, std::span<float> out);
  Slot& next_slot();
  void copy_in(std::byte* to, const std::byte* from, int64_t bytes);

  const cpu::Exec& cpu_;
  const cuda::Exec& gpu_;
  const cuda::Stream& stream_;
  std::unique_ptr<Slot[]> slots_;
  int64_t turn_ = 0;
};

}  // namespace spillway
