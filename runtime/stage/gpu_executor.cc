// See gpu_executor.h.
#include "runtime/stage/gpu_executor.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/peer.h"
#include "kernels/cuda/trace.h"
#include "kernels/cuda/wide.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/loader.h"
#include "runtime/stage/gpu_head.h"
#include "runtime/stage/gpu_hidden.h"
#include "runtime/stage/gpu_hop.h"
#include "runtime/stage/gpu_layer.h"
#include "runtime/stage/gpu_scratch.h"
#include "runtime/stage/gpu_spill.h"
#include "runtime/stage/gpu_step.h"
#include "runtime/stage/gpu_upload.h"
#include "runtime/stage/rope_table.h"

namespace spillway {
namespace {

// A decode step: one row a sequence, all with logits.
bool is_decode(const StepBatch& batch) {
  const int64_t n = batch.n_rows();
  if (n == 0 || n > kMostBucketRows) return false;
  if (static_cast<int64_t>(batch.sequences.size()) != n) return false;
  return static_cast<int64_t>(batch.logit_rows.size()) == n;
}

}  // namespace

struct GpuExecutor::State {
  const ModelSpec& model;
  const Plan& plan;
  Mesh& mesh;
  const RankPart& part;
  const cpu::Exec& cpu;
  cuda::DeviceInfo device;
  cuda::Stream stream;
  cuda::Exec exec;
  cuda::DeviceMemory weight_memory;
  GpuSpill spill;
  Weights weights;
  cuda::DeviceMemory kv_memory;
  std::vector<KvView> kv;
  GpuScratch scratch;
  cuda::Library library;
  GpuHop hop;
  GpuHead head;
  std::unique_ptr<DeviceCommunicator> tp;  // nullptr: the stage is this rank alone
  std::optional<GpuAside> aside;           // with tp
  std::chrono::nanoseconds waited{0};      // for the GPU
  cuda::Event reached;                     // the end of a step
  double rope_magnitude = 1;
  double window_rope_magnitude = 1;
  std::map<std::pair<int64_t, int64_t>, cuda::Graph> graphs;  // by bucket and candidates
  std::optional<GpuHidden> hidden;
  std::unique_ptr<cuda::Trace> tracer;
  bool tracing = false;
  bool graphs_traced = false;  // they were made while tracing
  StepTrace trace;

  State(const Gguf& gguf, const ModelSpec& model_in, const Plan& plan_in, Mesh& mesh_in,
        int ordinal, const cpu::Exec& cpu_in, const std::string& spill_folder,
        const std::function<void(int64_t, int64_t)>& on_progress)
      : model(model_in),
        plan(plan_in),
        mesh(mesh_in),
        part(plan_in.parts[static_cast<size_t>(mesh_in.rank)]),
        cpu(cpu_in),
        device(cuda::select_device(ordinal)),
        exec(make_exec()),
        weight_memory("weights", weight_list().total()),
        spill(model_in, plan_in, mesh_in.rank, cpu_in, spill_folder),
        weights(load(gguf, on_progress)),
        kv_memory("kv", kv_list().total()),
        kv(make_kv()),
        scratch(model_in, plan_in, mesh_in.rank),
        library(scratch.library),
        hop(plan_in, mesh_in, exec, stream, scratch, model_in.dim),
        head(exec, stream, cpu_in, model_in, part, weights, scratch) {
    spill.loaded(weights);
    exec.library = &library;
    exec.scratch = scratch.matrix;
    exec.scratch_bytes = scratch.matrix_bytes;
    set_up_rope();
    stream.synchronize();
  }

  // What may fail on one rank alone comes when the group is through with what it does together.
  void connect(CommChoice comm, HiddenCheck check) {
    if (mesh.tp->size() > 1) {
      DeviceCommOptions options{comm, device_comm_rows(plan.limits), model.dim};
      options.ranks = plan.stages[static_cast<size_t>(part.stage)].ranks;
      if (plan.stages.size() > 1) {
        options.wait_for = [this](const cuda::Event& event) { wait_for_others(event); };
      }
      tp = make_device_communicator(*mesh.tp, stream, options);
      aside.emplace();
    }
    if (check != HiddenCheck::kOff) hidden.emplace(check, layers().size(), mesh.tp->size());
    stream.synchronize();
  }

  void link(const std::vector<HopSeat>& seats, CommChoice comm) {
    if (plan.stages.size() > 1) hop.connect(seats, comm);
    capture_all();
    stream.synchronize();
  }

  bool graphs_possible(int64_t rows) const { return tp == nullptr || tp->capturable(rows); }

  // Every graph that a step may want: nothing is allocated once requests come.
  void capture_all() {
    const int64_t vocab = part.output_rows.size();
    const int64_t most = std::min(decode_bucket(plan.limits.max_sequences), kMostBucketRows);
    for (int64_t bucket = 1; bucket <= most && graphs_possible(bucket); bucket *= 2) {
      const GpuStepArrays arrays(bucket, bucket, bucket);
      for (const int64_t k : GpuHead::kCandidateCounts) {
        cuda::Graph& graph = graphs[{bucket, std::min(k, vocab)}];
        if (graph.empty()) graph = capture(arrays, bucket, std::min(k, vocab));
      }
    }
  }

  cuda::Exec make_exec() const {
    cuda::Exec out = cuda::exec_on(stream, device);
    // GeForce multiplies bf16 at half rate and int8 at full.
    out.bf16_tiles = device.major == 9 || (device.major == 8 && device.minor == 0);
    // There 5 rows cost what 16 do, and vectors more from 5 on: docs/bench/gpu.md.
    if (out.bf16_tiles) out.most_vector_rows = 4;
    out.wide = cuda::wide_here(out);
    return out;
  }

  Range layers() const { return plan.stages[static_cast<size_t>(part.stage)].layers; }
  bool last_stage() const { return part.stage == plan.last_stage(); }
  BufferList weight_list() const {
    return weight_buffers(model, part, layers(), part.stage == 0, last_stage());
  }
  BufferList kv_list() const { return kv_buffers(model, part, layers(), plan.kv); }

  Weights load(const Gguf& gguf, const std::function<void(int64_t, int64_t)>& on_progress) {
    Arena arena("weights", weight_memory.data(), weight_memory.bytes());
    GpuUpload upload(cpu, exec, stream);
    const WeightWriter writer = upload.writer();
    const WeightWriter host_writer = cpu_writer(cpu);
    Weights loaded = load_weights(
        gguf, model, plan, mesh.rank,
        {{&writer, &arena}, {&host_writer, spill.host_arena()}, spill.disk_target()}, on_progress);
    upload.finish();
    return loaded;
  }

  std::vector<KvView> make_kv() {
    Arena arena("kv", kv_memory.data(), kv_memory.bytes());
    return take_kv_views(model, plan, mesh.rank, arena);
  }

  void set_up_rope() {
    const RopeFrequencies rope(model.rope);
    rope_magnitude = rope.magnitude();
    cuda::copy_to_device(stream, scratch.rope_angles, rope.angles().data(),
                         static_cast<int64_t>(rope.angles().size_bytes()));
    stream.synchronize();  // the angles are gone after this
    if (!model.window_rope) return;
    const RopeFrequencies window(*model.window_rope);
    window_rope_magnitude = window.magnitude();
    cuda::copy_to_device(stream, scratch.window_rope_angles, window.angles().data(),
                         static_cast<int64_t>(window.angles().size_bytes()));
    stream.synchronize();
  }

  cuda::RopeTable rope_table(const int32_t* positions, int64_t n, bool window) {
    const int64_t pairs = (window ? model.window_rope->n_rot : model.rope.n_rot) / 2;
    const View2D<float> cos(window ? scratch.window_rope_cos : scratch.rope_cos, n, pairs);
    const View2D<float> sin(window ? scratch.window_rope_sin : scratch.rope_sin, n, pairs);
    cuda::rope_table(exec, positions, window ? scratch.window_rope_angles : scratch.rope_angles,
                     window ? window_rope_magnitude : rope_magnitude, cos, sin);
    return {cos, sin};
  }

  // The residual stream as it enters the stage: embedded here or come from the stage before, by the
  // host if not by its GPU.
  void enter(const GpuStepArrays& arrays, View2D<float> x) {
    if (hop.receives()) return hop.take(x);
    const View2D<float> part_of_x =
        tp == nullptr ? x : View2D<float>(scratch.partial, x.rows, x.cols);
    cuda::embed(exec, weights.embedding, arrays.tokens(scratch.step), weights.embedding_rows.begin,
                part_of_x);
    // Every row lies on one rank, the others add zeros.
    if (tp != nullptr) tp->sum(exec, {part_of_x, x, false});
    if (model.embedding_scale != 1.0) {
      cuda::scale_rows(exec, static_cast<float>(model.embedding_scale), x);
    }
  }

  void hash_after(const GpuStep& step, int64_t point, View2D<const float> x) {
    if (hidden) hidden->after(step, point, x);
  }

  // Launches the stage's part of a step of n rows. decode: every row is a sequence of its own, not
  // one of several that attend row by row.
  View2D<float> forward(const GpuStepArrays& arrays, int64_t n, const cuda::StepRows& rows,
                        bool decode) {
    const View2D<float> x(scratch.x, n, model.dim);
    spill.begin(exec, n);
    enter(arrays, x);
    const int32_t* positions = arrays.positions(scratch.step);
    const cuda::RopeTable rope = rope_table(positions, n, false);
    const cuda::RopeTable window = model.window_rope ? rope_table(positions, n, true) : rope;
    GpuAside* beside = tp != nullptr && n >= GpuAside::kLeastRows ? &*aside : nullptr;
    GpuStep step{exec, model,    scratch, spill, rope, window, arrays.slots(scratch.step),
                 rows, tp.get(), beside};
    step.decode = decode;
    if (hidden) hidden->begin(step);
    hash_after(step, 0, x);
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      const auto layer = static_cast<int64_t>(i);
      gpu_attention_half(step, weights.layers[i], kv[i], x);
      hash_after(step, 2 * layer + 1, x);
      gpu_feed_forward_half(step, weights.layers[i], x);
      hash_after(step, 2 * layer + 2, x);
    }
    settle(step, x);
    hash_after(step, 2 * layers().size(), x);
    if (hidden) hidden->end(step);
    hop.push(View2D<const float>(x));
    return x;
  }

  void upload_step(const GpuStepArrays& arrays, const StepBatch& batch) {
    const int64_t bytes =
        arrays.fill(batch, plan.kv.page_tokens, scratch.host_step, scratch.step_bytes);
    cuda::copy_to_device(stream, scratch.step, scratch.host_step, bytes);
  }

  // For the step's end. With several stages it may depend on other ranks' hosts, which need this
  // one to move its posts along; and whom the GPU waits for is then known to the watchdog.
  void wait() {
    const auto begin = std::chrono::steady_clock::now();
    if (plan.stages.size() == 1) {
      spill.wait_for(stream);
    } else {
      reached.record(stream);
      wait_for_others(reached);
    }
    waited += std::chrono::steady_clock::now() - begin;
  }

  void compare(int64_t number) {
    compare_hidden(*mesh.tp, plan.stages[static_cast<size_t>(part.stage)], number,
                   hidden->hashes());
  }

  void begin_trace() {
    CHECK(tracer != nullptr && !tracing);
    stream.synchronize();
    trace = {};
    tracer->start();
    spill.start_trace();
    tracing = true;
    if (graphs_traced) return;
    graphs.clear();
    capture_all();
    graphs_traced = true;
  }

  StepTrace end_trace() {
    CHECK(tracing);
    tracing = false;
    stream.synchronize();
    trace.calls = spill.stop_trace(tracer->now_ns() - steady_now_ns());
    trace.device = tracer->stop();
    return std::move(trace);
  }

  // A moment of the step in work, when it is traced.
  void mark(int64_t HostSpan::*moment) {
    if (tracing) trace.spans.back().*moment = tracer->now_ns();
  }

  void wait_for_others(const cuda::Event& event) {
    constexpr int kPollsALook = 64;
    int noted = -1;
    for (int polls = 1; !event.reached(); ++polls) {
      mesh.world->progress();
      if (polls % kPollsALook != 0) continue;
      bool sending = false;
      const int rank = hop.waits_for(sending);
      if (rank != noted) mesh.world->note_wait(rank, sending);
      noted = rank;
      spill.leave_core();
    }
    if (noted >= 0) mesh.world->note_wait(-1, false);
  }

  void decode(const StepBatch& batch, int64_t bucket, int64_t k) {
    upload_step(GpuStepArrays(bucket, bucket, bucket), batch);
    hop.to_device(bucket);
    graphs.at({bucket, k}).launch(stream);
  }

  cuda::Graph capture(const GpuStepArrays& arrays, int64_t bucket, int64_t k) {
    const cuda::StepRows rows{arrays.sequences(scratch.step),
                              arrays.pages(scratch.step),
                              bucket,
                              bucket,
                              1,
                              plan.kv.context};
    cuda::Graph::begin(stream);
    const View2D<float> x = forward(arrays, bucket, rows, true);
    if (last_stage()) head.run(x, k);
    return cuda::Graph::end(stream);
  }

  void run(const StepBatch& batch, std::byte* message) {
    const int64_t n = batch.n_rows();
    const int64_t bucket = decode_bucket(n);
    const int64_t k = last_stage() ? head.candidates_of(batch) : 0;
    if (tracing) trace.spans.push_back({n});
    mark(&HostSpan::begin_ns);
    spill.set_rows(n);
    hop.receive(n);
    mark(&HostSpan::received_ns);
    if (is_decode(batch) && graphs_possible(bucket)) {
      decode(batch, bucket, k);
    } else {
      eager(batch, k);
    }
    hop.to_host(n);
    mark(&HostSpan::launched_ns);
    wait();
    mark(&HostSpan::end_ns);
    spill.check();
    if (hidden) compare(batch.number);
    hop.send(n);
    if (last_stage() && !batch.logit_rows.empty()) head.write_message(batch, k, message);
  }

  void eager(const StepBatch& batch, int64_t k) {
    const int64_t n = batch.n_rows();
    const auto n_sequences = static_cast<int64_t>(batch.sequences.size());
    const auto n_logits = static_cast<int64_t>(batch.logit_rows.size());
    const bool rowwise = n <= kRowwiseRows;
    const GpuStepArrays arrays(n, n_sequences, n_logits, rowwise);
    upload_step(arrays, batch);
    hop.to_device(n);
    cuda::StepRows rows{arrays.sequences(scratch.step), arrays.pages(scratch.step),
                        arrays.n_sequences(), n};
    for (const StepSequence& s : batch.sequences) {
      rows.most_rows = rowwise ? 1 : std::max<int64_t>(rows.most_rows, s.n_rows);
      rows.most_context = std::max<int64_t>(rows.most_context, s.first_position + s.n_rows);
    }
    const bool decode = std::all_of(batch.sequences.begin(), batch.sequences.end(),
                                    [](const StepSequence& s) { return s.n_rows == 1; });
    const View2D<float> x = forward(arrays, n, rows, decode);
    if (n_logits == 0 || !last_stage()) return;
    // The rows with logits, side by side where the layers' scratch is free again.
    const View2D<float> wanted(scratch.normed.all.x, n_logits, model.dim);
    cuda::gather_rows(exec, x, arrays.logit_rows(scratch.step), wanted);
    head.run(wanted, k);
  }
};

GpuExecutor::GpuExecutor(const Gguf& gguf, const ModelSpec& model, const Plan& plan, Mesh& mesh,
                         int device, const cpu::Exec& cpu, const std::string& spill_folder,
                         const std::function<void(int64_t, int64_t)>& on_progress)
    : state_(std::make_unique<State>(gguf, model, plan, mesh, device, cpu, spill_folder,
                                     on_progress)) {}

GpuExecutor::~GpuExecutor() = default;

void GpuExecutor::connect(CommChoice comm, HiddenCheck check) { state_->connect(comm, check); }

RankPlace GpuExecutor::place() const { return rank_place_of(state_->device); }

void GpuExecutor::link(const std::vector<HopSeat>& seats, CommChoice comm) {
  state_->link(seats, comm);
}

void GpuExecutor::run(const StepBatch& batch, std::byte* message) {
  State& s = *state_;
  try {
    s.run(batch, message);
  } catch (...) {
    // The job ends, and with it what the GPU's kernels and the streams' calls wait for: they must
    // end before their memory.
    s.spill.stop();
    if (s.tp != nullptr) s.tp->abort();
    s.hop.abort();
    throw;
  }
}

void GpuExecutor::finish() { state_->hop.finish(); }

int64_t GpuExecutor::waited_ns() const { return state_->waited.count(); }

std::string GpuExecutor::comm_report() const {
  const DeviceCommunicator* tp = state_->tp.get();
  return tp == nullptr ? "" : comm_report_text(tp->report(), tp->size(), cuda::kPeerSmallRows);
}

const std::vector<HopReport>& GpuExecutor::hop_reports() const { return state_->hop.reports(); }

std::string GpuExecutor::sum_kind() const {
  return state_->tp == nullptr ? "" : state_->tp->kind(1);
}

void GpuExecutor::open_trace() {
  if (state_->tracer == nullptr) state_->tracer = std::make_unique<cuda::Trace>();
}

void GpuExecutor::begin_trace() { state_->begin_trace(); }

StepTrace GpuExecutor::end_trace() { return state_->end_trace(); }

bool GpuExecutor::traces() const { return state_->tracing; }

int64_t GpuExecutor::trace_now_ns() const { return state_->tracer->now_ns(); }

void GpuExecutor::trace_wait(int64_t since_ns) {
  state_->trace.waits.push_back({since_ns, trace_now_ns()});
}

int64_t GpuExecutor::device_bytes() const {
  return state_->weight_memory.bytes() + state_->spill.device_bytes() + state_->kv_memory.bytes() +
         state_->scratch.bytes();
}

int64_t GpuExecutor::host_bytes() const { return state_->spill.host_bytes(); }

}  // namespace spillway
