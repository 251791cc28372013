// See gpu_spill.h.
#include "runtime/stage/gpu_spill.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <thread>

#include "kernels/core/check.h"
#include "parallel/ledger.h"

namespace spillway {
namespace {

// Longer than the GPU takes from one CPU half to the next: with workers that sleep between them an
// 8B whose feed-forward lies on 16 cores has 2 to 15 % less (docs/bench/spill.md).
constexpr std::chrono::microseconds kAwake{300};

const RankPart& part_of(const Plan& plan, int rank) {
  return plan.parts[static_cast<size_t>(rank)];
}
const Range& layers_of(const Plan& plan, int rank) {
  return plan.stages[static_cast<size_t>(part_of(plan, rank).stage)].layers;
}

BufferList host_list(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = part_of(plan, rank);
  return weight_buffers(model, part, layers_of(plan, rank), part.stage == 0,
                        part.stage == plan.last_stage(), WeightHome::kHost);
}

int64_t slot_bytes(const ModelSpec& model, const Plan& plan, int rank) {
  return Arena::rounded(stream_slot_bytes(model, part_of(plan, rank), layers_of(plan, rank)));
}

}  // namespace

GpuSpill::GpuSpill(const ModelSpec& model, const Plan& plan, int rank, const cpu::Exec& cpu,
                   const std::string& folder)
    : pool_(*cpu.pool),
      dim_(model.dim),
      host_pages_("weights spilled to the host", host_list(model, plan, rank).total(), *cpu.pool),
      host_("spilled weights", host_pages_.data(), host_pages_.bytes()),
      pinned_("halves on the CPU",
              spill_pinned_buffers(model, part_of(plan, rank), plan.limits).total()),
      pinned_arena_("halves on the CPU", pinned_.data(), pinned_.bytes()),
      cpu_half_(model, plan, rank, cpu, pinned_arena_),
      disk_(spills_to(part_of(plan, rank), WeightHome::kDisk)
                ? std::make_unique<DiskHalves>(cpu, model, plan, rank, folder, InCache::kCopied)
                : nullptr),
      slot_memory_("weights, streaming slots", kStreamSlots * slot_bytes(model, plan, rank)) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].data = slot_memory_.data() + static_cast<int64_t>(i) * slot_bytes(model, plan, rank);
  }
}

GpuSpill::~GpuSpill() { stop(); }

void GpuSpill::loaded(const Weights& weights) {
  host_pin_ =
      cuda::PinnedRange("weights spilled to the host", host_pages_.data(), host_pages_.bytes());
  host_.freeze();
  if (disk_ != nullptr) {
    const std::span<std::byte> slots = disk_->slots();
    disk_pin_ = cuda::PinnedRange("disk slots", slots.data(), disk_->bytes());
    disk_->start(weights);
    disk_calls_ = std::make_unique<DiskCalls>(*disk_, &trace_);
  }
  if (cpu_half_.most_rows() > 0) pool_.stay_awake(kAwake);
  first_layer_ = weights.layers.data();
  for (const LayerWeights& w : weights.layers) {
    calls_.push_back({this, &w});
    list_halves(w);
  }
}

void GpuSpill::list_halves(const LayerWeights& w) {
  if (w.part.attention != Place::kResident) {
    every_.push_back(listed(w, Half::kAttention));
    few_.push_back(every_.back());
  }
  if (w.part.feed_forward == Place::kResident) return;
  every_.push_back(listed(w, Half::kFeedForward));
  if (w.part.feed_forward == Place::kCpu) return;
  few_.push_back(every_.back());
  if (w.part.feed_forward != Place::kHybrid) return;
  // Without the CPU's columns, which lie before the others.
  Streamed& rest = few_.back();
  rest.bytes -= w.gate_up[0].data - rest.base;
  rest.base = rest.from = w.gate_up[0].data;
}

GpuSpill::Streamed GpuSpill::listed(const LayerWeights& w, Half half) {
  const std::span<const std::byte> span = half_span(w, half);
  Streamed out{&w, half, span.data(), span.data(), static_cast<int64_t>(span.size())};
  if (place_of_half(w.part, half) != Place::kDisk) return out;
  CHECK(disk_->stored(disk_listed_).data() == out.base);
  out.from = disk_->at(disk_listed_);
  out.turn = disk_calls_->turn(disk_listed_++);
  return out;
}

void GpuSpill::begin(const cuda::Exec& exec, int64_t n) {
  few_rows_ = n <= cpu_half_.most_rows();
  order_ = few_rows_ ? &few_ : &every_;
  fetched_ = copied_ = 0;
  if (order_->empty()) return;
  forked_.record(exec.stream);
  forked_.wait_in(copies_);
  while (copied_ < std::min(slots_.size(), order_->size())) copy_next();
}

void GpuSpill::copy_next() {
  const Streamed& half = (*order_)[copied_];
  Slot& slot = slots_[copied_ % slots_.size()];
  if (copied_ >= slots_.size()) slot.multiplied.wait_in(copies_);
  if (half.turn != nullptr) cuda::call_host(copies_.handle(), DiskCalls::wait, half.turn);
  cuda::copy_to_device(copies_, slot.data, half.from, half.bytes);
  if (half.turn != nullptr) cuda::call_host(copies_.handle(), DiskCalls::release, half.turn);
  slot.copied.record(copies_);
  ++copied_;
}

bool GpuSpill::streamed(Place place) const {
  return place != Place::kResident && !(few_rows_ && place == Place::kCpu);
}

GpuSpill::Slot& GpuSpill::fetch(const cuda::Exec& exec, const LayerWeights& w, Half half) {
  CHECK_LT(fetched_, copied_);
  const Streamed& next = (*order_)[fetched_];
  CHECK(next.layer == &w && next.half == half);
  Slot& slot = slots_[fetched_ % slots_.size()];
  slot.copied.wait_in(exec.stream);
  return slot;
}

PackedMatrix GpuSpill::in_slot(PackedMatrix matrix) const {
  const Slot& slot = slots_[fetched_ % slots_.size()];
  matrix.data = slot.data + (matrix.data - (*order_)[fetched_].base);
  return matrix;
}

void GpuSpill::done(const LayerWeights& w, Half half) {
  if (!streamed(place_of_half(w.part, half))) return;
  ++fetched_;
  if (copied_ < order_->size()) copy_next();
}

AttentionMatrices GpuSpill::attention(const cuda::Exec& exec, const LayerWeights& w) {
  if (!streamed(w.part.attention)) return {w.qkv, w.o, nullptr};
  Slot& slot = fetch(exec, w, Half::kAttention);
  return {
      {in_slot(w.qkv[0]), in_slot(w.qkv[1]), in_slot(w.qkv[2])}, in_slot(w.o), &slot.multiplied};
}

FeedForwardMatrices GpuSpill::feed_forward(const cuda::Exec& exec, const LayerWeights& w) {
  FeedForwardMatrices out;
  if (!streamed(w.part.feed_forward)) {
    if (!on_cpu(w)) out.pieces[out.n_pieces++] = {w.gate_up, w.down};
    return out;
  }
  out.multiplied = &fetch(exec, w, Half::kFeedForward).multiplied;
  if (w.part.feed_forward == Place::kHybrid && !few_rows_) {
    out.pieces[out.n_pieces++] = {{in_slot(w.cpu_gate_up[0]), in_slot(w.cpu_gate_up[1])},
                                  in_slot(w.cpu_down)};
  }
  out.pieces[out.n_pieces++] = {{in_slot(w.gate_up[0]), in_slot(w.gate_up[1])}, in_slot(w.down)};
  return out;
}

bool GpuSpill::on_cpu(const LayerWeights& w) const {
  return few_rows_ && !w.part.ff_on_cpu.empty();
}

void GpuSpill::wait_for(const cuda::Stream& stream) {
  if (!host_works()) return stream.synchronize();
  sleeping_wait_.wait_for(stream);
}

void GpuSpill::leave_core() const {
  constexpr std::chrono::microseconds kNap{50};
  if (!host_works()) return std::this_thread::yield();
  std::this_thread::sleep_for(kNap);
}

void GpuSpill::check() const {
  if (disk_calls_ != nullptr) disk_calls_->check();
}

void GpuSpill::stop() {
  if (disk_calls_ != nullptr) disk_calls_->stop();
}

int64_t GpuSpill::host_bytes() const {
  const int64_t disk = disk_ == nullptr ? 0 : disk_->bytes();
  return host_.bytes() + pinned_.bytes() + cpu_half_.bytes() + disk;
}

void GpuSpill::run_call(void* call) {
  const auto& [spill, layer] = *static_cast<const Call*>(call);
  const CallTrace::Scope scope(&spill->trace_, HostCall::Kind::kMultiply);
  spill->cpu_half_.run(*layer, spill->rows_);
}

CpuTerm GpuSpill::start_on_cpu(const cuda::Exec& exec, const LayerWeights& w,
                               View2D<const float> normed) {
  if (!on_cpu(w)) return {};
  // A kernel's stores to host memory: a copy.
  cuda::add_rms_norm(exec, normed, cpu_half_.input(normed.rows), false, nullptr, 0, 0, {});
  normed_.record(exec.stream);
  normed_.wait_in(cpu_stream_);
  cuda::call_host(cpu_stream_.handle(), run_call, &calls_[static_cast<size_t>(&w - first_layer_)]);
  computed_.record(cpu_stream_);
  return {cpu_half_.output(normed.rows), &computed_};
}

}  // namespace spillway
