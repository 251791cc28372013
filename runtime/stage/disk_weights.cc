// See disk_weights.h.
#include "runtime/stage/disk_weights.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/check.h"
#include "kernels/core/error.h"

namespace spillway {
namespace {

// The disk is busy with two.
constexpr int kReaders = 2;

Range layers_of(const Plan& plan, int rank) {
  return plan.stages[static_cast<size_t>(plan.parts[static_cast<size_t>(rank)].stage)].layers;
}

int64_t file_bytes(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  return weight_buffers(model, part, layers_of(plan, rank), part.stage == 0,
                        part.stage == plan.last_stage(), WeightHome::kDisk)
      .total();
}

std::string ledger_name(int rank) { return "weights on disk of rank " + std::to_string(rank); }

}  // namespace

// So that the loader's matrices have places while none of them is in memory.
struct DiskWeights::Reserved {
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

DiskWeights::DiskWeights(const cpu::Exec& exec, const ModelSpec& model, const Plan& plan, int rank,
                         const std::string& folder)
    : plan_(plan),
      part_(plan.parts[static_cast<size_t>(rank)]),
      file_(folder, ledger_name(rank), file_bytes(model, plan, rank)),
      slots_("disk slots", kDiskSlots * disk_slot_bytes(model, part_, layers_of(plan, rank))),
      reserved_(std::make_unique<Reserved>(file_bytes(model, plan, rank))) {
  for (int64_t i = 0; i < kDiskSlots; ++i) {
    slot_bases_.push_back(slots_.take(slots_.bytes() / kDiskSlots));
  }
  addresses_ =
      std::make_unique<Arena>("weights on disk", reserved_->base, file_bytes(model, plan, rank));
  // Norms and biases are resident: only matrices come here.
  writer_.pack = [this, exec](const cpu::GgufMatrix& source, Range rows, Range cols,
                              const PackedMatrix& out) { write(exec, source, rows, cols, out); };
  const Range layers = layers_of(plan, rank);
  for (int64_t i = 0; i < layers.size(); ++i) {
    const LayerPart& layer = part_.layers[static_cast<size_t>(i)];
    for (const Half half : {Half::kAttention, Half::kFeedForward}) {
      if (place_of_half(layer, half) != Place::kDisk) continue;
      const int64_t index = layers.begin + i;
      pieces_.push_back({0,
                         half_bytes(model, model.layers[static_cast<size_t>(index)], layer, half),
                         "layer " + std::to_string(index) +
                             (half == Half::kAttention ? " attention" : " feed-forward")});
    }
  }
}

DiskWeights::~DiskWeights() = default;

// Packed in a slot, which nobody reads yet.
void DiskWeights::write(const cpu::Exec& exec, const cpu::GgufMatrix& source, Range rows,
                        Range cols, const PackedMatrix& out) {
  PackedMatrix packed = out;
  packed.data = slot_bases_[0];
  const int64_t bytes = packed_bytes(out.type, out.rows, out.cols);
  CHECK_LE(bytes, slots_.bytes() / kDiskSlots);
  cpu::pack(exec, source, rows, cols, packed, 0);
  file_.write(out.data - reserved_->base, {packed.data, static_cast<size_t>(bytes)});
}

void DiskWeights::start(const Weights& weights) {
  layers_ = weights.layers;
  size_t piece = 0;
  for (const LayerWeights& layer : layers_) {
    if (layer.part.attention == Place::kDisk) {
      pieces_[piece++].offset = layer.qkv[0].data - reserved_->base;
    }
    if (layer.part.feed_forward == Place::kDisk) {
      pieces_[piece++].offset = layer.gate_up[0].data - reserved_->base;
    }
  }
  CHECK_EQ(piece, pieces_.size());
  reader_ = std::make_unique<ReadAhead>(file_, pieces_, slot_bases_, kReaders, InCache::kMapped);
}

const LayerWeights& DiskWeights::fetch(size_t layer, Half half) {
  const LayerWeights& stored = layers_[layer];
  if (place_of_half(stored.part, half) != Place::kDisk) return stored;
  const std::byte* from = reserved_->base + pieces_[piece_].offset;
  std::byte* to = const_cast<std::byte*>(reader_->wait());
  fetched_ = stored;
  const auto move = [from, to](PackedMatrix& w) { w.data = to + (w.data - from); };
  if (half == Half::kAttention) {
    for (PackedMatrix& w : fetched_.qkv) move(w);
    move(fetched_.o);
  } else {
    for (PackedMatrix& w : fetched_.gate_up) move(w);
    move(fetched_.down);
  }
  return fetched_;
}

void DiskWeights::done(size_t layer, Half half) {
  if (place_of_half(layers_[layer].part, half) != Place::kDisk) return;
  reader_->release();
  piece_ = (piece_ + 1) % pieces_.size();
}

}  // namespace spillway
