// See gpu_upload.h.
#include "runtime/stage/gpu_upload.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/gpu_ledger.h"

namespace spillway {

static_assert(GpuUpload::kSlots * GpuUpload::kSlotBytes == kLoadStagingBytes);

struct GpuUpload::Slot {
  cuda::PinnedMemory host{"loading, a slot", kSlotBytes};
  cuda::DeviceMemory device{"loading, a slot", kSlotBytes};
  cuda::Event done;
  bool used = false;
};

GpuUpload::GpuUpload(const cpu::Exec& cpu, const cuda::Exec& gpu, const cuda::Stream& stream)
    : cpu_(cpu), gpu_(gpu), stream_(stream), slots_(std::make_unique<Slot[]>(kSlots)) {}

GpuUpload::~GpuUpload() = default;

WeightWriter GpuUpload::writer() {
  return {[this](const cpu::GgufMatrix& source, Range rows, Range cols, const PackedMatrix& out) {
            pack(source, rows, cols, out);
          },
          [this](QuantType type, const std::byte* data, std::span<float> out) {
            floats(type, data, out);
          }};
}

// A slot that the device has done with.
GpuUpload::Slot& GpuUpload::next_slot() {
  Slot& slot = slots_[static_cast<size_t>(turn_++ % kSlots)];
  if (slot.used) slot.done.synchronize();
  slot.used = true;
  return slot;
}

void GpuUpload::copy_in(std::byte* to, const std::byte* from, int64_t bytes) {
  cpu_.pool->run([&](int worker) {
    const Range part = cpu_.pool->part(worker, bytes, 4096);
    if (!part.empty()) {
      std::memcpy(to + part.begin, from + part.begin, static_cast<size_t>(part.size()));
    }
  });
}

void GpuUpload::pack(const cpu::GgufMatrix& source, Range rows, Range cols,
                     const PackedMatrix& out) {
  if (rows.empty() || cols.empty()) return;
  const int64_t row_bytes = quant_bytes(source.type, source.cols);
  if (row_bytes * kRowGroup > kSlotBytes) {
    throw Error("a row of a matrix is too long to be loaded",
                std::to_string(row_bytes) + " bytes a row");
  }
  // Whole groups a slot, so that every slot's rows are packed on their own.
  const int64_t most = kSlotBytes / row_bytes / kRowGroup * kRowGroup;
  for (int64_t row = rows.begin; row < rows.end; row += most) {
    const int64_t n = std::min(most, rows.end - row);
    Slot& slot = next_slot();
    copy_in(slot.host.data(), source.data + row * row_bytes, n * row_bytes);
    cuda::copy_to_device(stream_, slot.device.data(), slot.host.data(), n * row_bytes);
    cuda::pack(gpu_, source.type, slot.device.data(), n, source.cols, cols, out, row - rows.begin);
    slot.done.record(stream_);
  }
}

void GpuUpload::floats(QuantType type, const std::byte* data, std::span<float> out) {
  CHECK_LE(static_cast<int64_t>(out.size_bytes()), kSlotBytes);
  Slot& slot = next_slot();
  const std::span<float> values(reinterpret_cast<float*>(slot.host.data()), out.size());
  cpu::dequantize(type, data, values);
  cuda::copy_to_device(stream_, out.data(), values.data(), static_cast<int64_t>(out.size_bytes()));
  slot.done.record(stream_);
}

void GpuUpload::finish() { stream_.synchronize(); }

}  // namespace spillway
