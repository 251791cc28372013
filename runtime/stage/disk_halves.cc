// See disk_halves.h.
#include "runtime/stage/disk_halves.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/disk_rate.h"

namespace spillway {
namespace {

const RankPart& part_of(const Plan& plan, int rank) {
  return plan.parts[static_cast<size_t>(rank)];
}

const Range& layers_of(const Plan& plan, int rank) {
  return plan.stages[static_cast<size_t>(part_of(plan, rank).stage)].layers;
}

int64_t file_bytes(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = part_of(plan, rank);
  return weight_buffers(model, part, layers_of(plan, rank), part.stage == 0,
                        part.stage == plan.last_stage(), WeightHome::kDisk)
      .total();
}

std::string ledger_name(int rank) { return "weights on disk of rank " + std::to_string(rank); }

// In the order of a step; where they lie in the file is known when they have been loaded.
std::vector<FilePiece> pieces_of(const ModelSpec& model, const Plan& plan, int rank) {
  std::vector<FilePiece> pieces;
  const Range& layers = layers_of(plan, rank);
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part_of(plan, rank).layers[static_cast<size_t>(i)];
    const int64_t index = layers.begin + i;
    const LayerSpec& spec = model.layers[static_cast<size_t>(index)];
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (place_of_half(layer, half) != Place::kDisk) continue;
      const char* name = half == Half::kAttention ? " attention" : " feed-forward";
      pieces.push_back(
          {0, half_bytes(model, spec, layer, half), "layer " + std::to_string(index) + name});
    }
  }
  return pieces;
}

}  // namespace

// So that the loader's matrices have places while none of them is in memory.
struct DiskHalves::Reserved {
  std::byte* base = nullptr;
  size_t bytes = 0;

  explicit Reserved(int64_t n) : bytes(static_cast<size_t>(n)) {
    void* got = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) {
      throw Error(
          "cannot reserve addresses for " + std::to_string(n) + " bytes: " + std::strerror(errno),
          "weights on disk", "raise the limit of virtual memory (ulimit -v)");
    }
    base = static_cast<std::byte*>(got);
  }
  ~Reserved() { munmap(base, bytes); }
  Reserved(Reserved&&) = delete;
};

std::span<const std::byte> half_span(const LayerWeights& w, Half half) {
  const bool attention = half == Half::kAttention;
  const bool hybrid = !attention && w.part.feed_forward == Place::kHybrid;
  const PackedMatrix& first = attention ? w.qkv[0] : hybrid ? w.cpu_gate_up[0] : w.gate_up[0];
  const PackedMatrix& last = attention ? w.o : w.down;
  const std::byte* end = last.data + packed_bytes(last.type, last.rows, last.cols);
  return {first.data, static_cast<size_t>(end - first.data)};
}

DiskHalves::DiskHalves(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
                       const std::string& folder, InCache in_cache)
    : in_cache_(in_cache),
      file_(folder, ledger_name(rank), file_bytes(model, plan, rank)),
      slots_("disk slots",
             kDiskSlots * disk_slot_bytes(model, part_of(plan, rank), layers_of(plan, rank))),
      reserved_(std::make_unique<Reserved>(file_bytes(model, plan, rank))),
      pieces_(pieces_of(model, plan, rank)) {
  for (int64_t i = 0; i < kDiskSlots; ++i) {
    slot_bases_.push_back(slots_.take(slots_.bytes() / kDiskSlots));
  }
  addresses_ =
      std::make_unique<Arena>("weights on disk", reserved_->base, file_bytes(model, plan, rank));
  // Norms and biases are resident: only matrices come here.
  writer_.pack = [this, exec](const cpu::GgufMatrix& source, Range rows, Range cols,
                              const PackedMatrix& out) { write(exec, source, rows, cols, out); };
}

DiskHalves::~DiskHalves() = default;

// Packed in a slot, which nobody reads yet.
void DiskHalves::write(const cpu::Exec& exec, const cpu::GgufMatrix& source, Range rows, Range cols,
                       const PackedMatrix& out) {
  PackedMatrix packed = out;
  packed.data = slot_bases_[0];
  const int64_t bytes = packed_bytes(out.type, out.rows, out.cols);
  CHECK_LE(bytes, slots_.bytes() / kDiskSlots);
  // Between planes there are bytes that nothing is packed into: zeros, as in an arena.
  std::memset(packed.data, 0, static_cast<size_t>(bytes));
  cpu::pack(exec, source, rows, cols, packed, 0);
  file_.write(out.data - reserved_->base, {packed.data, static_cast<size_t>(bytes)});
}

void DiskHalves::start(const Weights& weights) {
  size_t piece = 0;
  for (const LayerWeights& layer : weights.layers) {
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (place_of_half(layer.part, half) != Place::kDisk) continue;
      const std::span<const std::byte> bytes = half_span(layer, half);
      CHECK_LT(piece, pieces_.size());
      CHECK_EQ(static_cast<int64_t>(bytes.size()), pieces_[piece].bytes);
      pieces_[piece++].offset = bytes.data() - reserved_->base;
    }
  }
  CHECK_EQ(piece, pieces_.size());
  reader_ = std::make_unique<ReadAhead>(file_, pieces_, slot_bases_, kDiskReaders, in_cache_);
}

std::span<const std::byte> DiskHalves::stored(size_t half) const {
  const FilePiece& piece = pieces_[half];
  return {reserved_->base + piece.offset, static_cast<size_t>(piece.bytes)};
}

}  // namespace spillway
