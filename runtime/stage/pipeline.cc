// See pipeline.h.
#include "runtime/stage/pipeline.h"

#include <algorithm>
#include <exception>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "parallel/hop_report.h"
#include "parallel/ledger.h"
#include "runtime/model/loader.h"
#include "runtime/stage/cpu_executor.h"

namespace spillway {

static_assert(kSendBuffers == 2);

namespace {

const RankPart& part_of(const Plan& plan, int rank) {
  return plan.parts[static_cast<size_t>(rank)];
}

// Of host memory.
int64_t weight_arena_bytes(const ModelSpec& model, const Plan& plan, int rank) {
  const RankPart& part = part_of(plan, rank);
  if (part.gpu) return 0;
  return weight_buffers(model, part, plan.stages[static_cast<size_t>(part.stage)].layers,
                        part.stage == 0, part.stage == plan.last_stage())
      .total();
}

std::span<const std::byte> bytes_of(View2D<float> x) {
  return {reinterpret_cast<const std::byte*>(x.data), static_cast<size_t>(x.rows * x.cols) * 4};
}

std::span<std::byte> writable_bytes_of(View2D<float> x) {
  return {reinterpret_cast<std::byte*>(x.data), static_cast<size_t>(x.rows * x.cols) * 4};
}

}  // namespace

Pipeline::Pipeline(const Gguf& gguf, const ModelSpec& model, const Plan& plan, Mesh& mesh,
                   const cpu::Exec& exec, int device, const std::string& spill_folder,
                   const std::function<void(int64_t, int64_t)>& on_progress)
    : exec_(exec),
      model_(model),
      plan_(plan),
      mesh_(mesh),
      weight_arena_("weights", weight_arena_bytes(model, plan, mesh.rank)),
      scratch_(model, plan, mesh.rank),
      head_(exec, model, plan, mesh, weights_, scratch_),
      x_posts_{OpenPosts(mesh.sends_to.size()), OpenPosts(mesh.sends_to.size())} {
  if (part_of(plan, mesh.rank).gpu) {
    gpu_ = std::make_unique<GpuExecutor>(gguf, model, plan, mesh, device, exec, spill_folder,
                                         on_progress);
  } else {
    load_on_cpu(gguf, spill_folder, on_progress);
    executor_ = std::make_unique<CpuExecutor>(exec, model, plan, mesh.rank, weights_, disk_.get(),
                                              scratch_, *mesh.tp, hashes_, &times_);
  }
  weight_arena_.freeze();
  scratch_.freeze();
}

Pipeline::~Pipeline() = default;

void Pipeline::load_on_cpu(const Gguf& gguf, const std::string& spill_folder,
                           const std::function<void(int64_t, int64_t)>& on_progress) {
  const WeightWriter writer = cpu_writer(exec_);
  WeightTargets targets;
  targets.device = {&writer, &weight_arena_};
  if (spills_to(part_of(plan_, mesh_.rank), WeightHome::kDisk)) {
    disk_ = std::make_unique<DiskWeights>(exec_, model_, plan_, mesh_.rank, spill_folder);
    targets.disk = disk_->target();
  }
  weights_ = load_weights(gguf, model_, plan_, mesh_.rank, targets, on_progress);
  if (disk_ != nullptr) disk_->start(weights_);
}

// What a rank throws must not keep the others waiting for it, so it goes on until they know.
void Pipeline::connect(CommChoice comm, HiddenCheck check) {
  if (mesh_.tp->size() == 1) check = HiddenCheck::kOff;
  if (gpu_ == nullptr && check != HiddenCheck::kOff) {
    hashes_ = HiddenHashes(check, plan_.stages[static_cast<size_t>(mesh_.stage)].layers.size(),
                           mesh_.tp->size());
  }
  if (!plan_.uses_gpu()) return;
  std::exception_ptr error;
  const auto attempt = [&error](const auto& step) {
    try {
      step();
    } catch (const Error&) {
      if (error == nullptr) error = std::current_exception();
    }
  };
  HopSeat mine;
  if (gpu_ != nullptr) {
    attempt([&] { gpu_->connect(comm, check); });
    mine.place = gpu_->place();
    mine.gpu = 1;
    mine.failed = error == nullptr ? 0 : 1;
  }
  const std::vector<HopSeat> seats = gather_hop_seats(*mesh_.world, plan_.n_ranks(), mine);
  const bool failed =
      std::any_of(seats.begin(), seats.end(), [](const HopSeat& seat) { return seat.failed != 0; });
  if (!failed) {
    std::vector<HopReport> links;
    attempt([&] {
      if (gpu_ != nullptr) gpu_->link(seats, comm);
      links = gpu_ != nullptr ? gpu_->hop_reports()
                              : staged_hops(seats, mesh_.rank, mesh_.sends_to, comm);
    });
    hop_report_ = hop_report_text(gather_hop_reports(*mesh_.world, plan_.n_ranks(), links));
  }
  if (error != nullptr) std::rethrow_exception(error);
}

std::string Pipeline::comm_report() const {
  return (gpu_ == nullptr ? "" : gpu_->comm_report()) + hop_report_;
}

void Pipeline::open_trace() {
  if (gpu_ != nullptr) gpu_->open_trace();
}

void Pipeline::begin_trace() { gpu_ != nullptr ? gpu_->begin_trace() : times_.start(); }

StepTrace Pipeline::end_trace() { return gpu_ != nullptr ? gpu_->end_trace() : times_.stop(); }

int64_t Pipeline::arena_bytes() const {
  const int64_t kv = gpu_ != nullptr ? 0 : plan_.rank_bytes(mesh_.rank, "kv");
  const int64_t disk = disk_ != nullptr ? disk_->bytes() : 0;
  const int64_t spilled = gpu_ != nullptr ? gpu_->host_bytes() : 0;
  return weight_arena_.bytes() + disk + spilled + scratch_.bytes() + kv;
}

void Pipeline::embed(const StepBatch& batch, View2D<float> x) {
  const View2D<double> partial = scratch_.partial.head_rows(x.rows);
  cpu::embed(exec_, weights_.embedding, batch.tokens, weights_.embedding_rows.begin, partial);
  times_.lap(CpuWork::kOther);
  mesh_.tp->all_reduce({partial.data, static_cast<size_t>(partial.rows * partial.cols)});
  times_.lap(CpuWork::kCollective);
  cpu::round_sum(exec_, partial, x);
  if (model_.embedding_scale != 1.0) {
    cpu::scale_rows(exec_, static_cast<float>(model_.embedding_scale), x);
  }
}

void Pipeline::start_on_cpu(const StepBatch& batch) {
  times_.begin_step();
  const View2D<float> x = scratch_.x[x_turn_].head_rows(batch.n_rows());
  OpenPosts& posts = x_posts_[x_turn_];
  x_turn_ = (x_turn_ + 1) % x_posts_.size();
  posts.finish(*mesh_.world);
  times_.lap(CpuWork::kHop);
  if (mesh_.stage == 0) {
    embed(batch, x);
  } else {
    mesh_.world->recv(writable_bytes_of(x), mesh_.receives_from);
    times_.lap(CpuWork::kWait);
  }
  executor_->forward(batch, x);
  if (hashes_.on()) {
    compare_hidden(*mesh_.tp, plan_.stages[static_cast<size_t>(mesh_.stage)], batch.number,
                   hashes_);
  }
  times_.lap(CpuWork::kOther);
  for (const int to : mesh_.sends_to) posts.post(*mesh_.world, bytes_of(x), to);
  times_.lap(CpuWork::kHop);
  if (mesh_.stage == plan_.last_stage()) head_.run(batch, x);
  times_.lap(CpuWork::kMatrix);  // nearly all of the head is its product
}

void Pipeline::start(const StepBatch& batch) {
  CHECK_LE(batch.n_rows(), plan_.limits.max_rows);
  if (gpu_ == nullptr) return start_on_cpu(batch);
  head_.finish();
  gpu_->run(batch, scratch_.head_message);
  if (mesh_.stage == plan_.last_stage()) head_.deliver(batch);
}

void Pipeline::collect(const StepBatch& batch, StepResult& result) {
  CHECK(mesh_.front());
  const bool traced = gpu_ != nullptr && gpu_->traces();
  const int64_t since = traced ? gpu_->trace_now_ns() : steady_now_ns();
  head_.collect(batch, result);
  traced ? gpu_->trace_wait(since) : times_.waited(since);
}

void Pipeline::forward(const StepBatch& batch, StepResult* result) {
  start(batch);
  if (!mesh_.front()) return;
  CHECK(result != nullptr);
  collect(batch, *result);
}

void Pipeline::finish() {
  for (OpenPosts& posts : x_posts_) posts.finish(*mesh_.world);
  head_.finish();
  if (gpu_ != nullptr) gpu_->finish();
}

}  // namespace spillway
