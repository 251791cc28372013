// DiskHalves: the halves of a rank that lie on disk, whatever it computes on. While loading their
// matrices are packed and written to a spill file; from then on they are read ahead, half by half
// in the order of a step, into slots of host memory. DiskWeights gives them to a CPU's layers,
// GpuSpill copies them to a GPU.
//   Owns the file, the slots (the ledger's "disk slots") and the reading threads.
//   Thread: the rank's main thread up to start(); then wait() and release() by turns, from one
//   thread at a time, stop() from any. After start() nothing allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/spill.h"
#include "runtime/io/read_ahead.h"
#include "runtime/io/spill_file.h"
#include "runtime/model/loader.h"

namespace spillway {

// From the first to the end of the last of a half's matrices, which lie side by side.
std::span<const std::byte> half_span(const LayerWeights& w, Half half);

class DiskHalves {
 public:
  // For a rank with halves on disk. folder: where the file lies. in_cache: what becomes of halves
  // that the page cache holds. Throws Error when there is no room for the file or the slots.
  DiskHalves(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
             const std::string& folder, InCache in_cache);
  ~DiskHalves();
  DiskHalves(DiskHalves&&) = delete;

  // For load_weights(), before start(). Its arena has addresses but no memory.
  WeightTarget target() const { return {&writer_, addresses_.get()}; }
  // The loaded layers, whose matrices on disk are addresses of target()'s arena. Reading starts.
  void start(const Weights& weights);

  // Halves of a step, in its order; the names are errors' ("layer 12 feed-forward").
  size_t size() const { return pieces_.size(); }
  const std::string& name(size_t half) const { return pieces_[half].name; }
  // After start(): where the half's matrices lie in target()'s arena, and with InCache::kCopied
  // where the first of them lies in memory between wait() and release(): in slot
  // `half` % kDiskSlots, at the same distances from each other, in every step.
  std::span<const std::byte> stored(size_t half) const;
  std::byte* at(size_t half) const { return reader_->at(half); }

  // As ReadAhead's.
  const std::byte* wait() { return reader_->wait(); }
  void release() { reader_->release(); }
  void stop() { reader_->stop(); }

  // All slots, which begin on a page; and the one that a half is read into.
  std::span<std::byte> slots() const {
    return {slot_bases_[0], static_cast<size_t>(slots_.bytes())};
  }
  std::span<std::byte> slot_of(size_t half) const {
    return {slot_bases_[half % slot_bases_.size()], slots().size() / slot_bases_.size()};
  }
  int64_t bytes() const { return slots_.bytes(); }  // of host memory
  const SpillFile& file() const { return file_; }

 private:
  struct Reserved;  // addresses without memory

  void write(const cpu::Exec& exec, const cpu::GgufMatrix& source, Range rows, Range cols,
             const PackedMatrix& out);

  InCache in_cache_;
  int n_readers_;
  SpillFile file_;
  Arena slots_;
  std::vector<std::byte*> slot_bases_;
  std::unique_ptr<Reserved> reserved_;
  std::unique_ptr<Arena> addresses_;
  WeightWriter writer_;
  std::vector<FilePiece> pieces_;
  std::unique_ptr<ReadAhead> reader_;
};

}  // namespace spillway
