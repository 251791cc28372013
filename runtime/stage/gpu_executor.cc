// See gpu_executor.h.
#include "runtime/stage/gpu_executor.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ops.h"
#include "parallel/gpu_ledger.h"
#include "parallel/ledger.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/loader.h"
#include "runtime/stage/gpu_layer.h"
#include "runtime/stage/gpu_scratch.h"
#include "runtime/stage/gpu_step.h"
#include "runtime/stage/gpu_upload.h"
#include "runtime/stage/rope_table.h"

namespace spillway {
namespace {

// Rows of logits that are computed together: the head's matrix is too large to be dequantised.
constexpr int64_t kHeadRows = 64;

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
  const RankPart& part;
  const cpu::Exec& cpu;
  cuda::DeviceInfo device;
  cuda::Stream stream;
  cuda::Exec exec;
  cuda::DeviceMemory weight_memory;
  Weights weights;
  cuda::DeviceMemory kv_memory;
  std::vector<KvView> kv;
  GpuScratch scratch;
  cuda::Library library;
  double rope_magnitude = 1;
  double window_rope_magnitude = 1;
  std::map<std::pair<int64_t, int64_t>, cuda::Graph> graphs;  // by bucket and candidates

  State(const Gguf& gguf, const ModelSpec& model_in, const Plan& plan_in, int rank, int ordinal,
        const cpu::Exec& cpu_in, const std::function<void(int64_t, int64_t)>& on_progress)
      : model(model_in),
        plan(plan_in),
        part(plan_in.parts[static_cast<size_t>(rank)]),
        cpu(cpu_in),
        device(cuda::select_device(ordinal)),
        exec(make_exec()),
        weight_memory("weights", weight_list().total()),
        weights(load(gguf, rank, on_progress)),
        kv_memory("kv", kv_list().total()),
        kv(make_kv(rank)),
        scratch(model_in, plan_in, rank),
        library(scratch.library) {
    exec.library = &library;
    exec.scratch = scratch.matrix;
    exec.scratch_bytes = scratch.matrix_bytes;
    set_up_rope();
    capture_all();
    stream.synchronize();
  }

  // Every graph that a step may want: nothing is allocated once requests come.
  void capture_all() {
    if (part.stage != 0 || !last_stage()) return;
    const int64_t vocab = part.output_rows.size();
    const int64_t most = std::min(decode_bucket(plan.limits.max_sequences), kMostBucketRows);
    for (int64_t bucket = 1; bucket <= most; bucket *= 2) {
      const GpuStepArrays arrays(bucket, bucket, bucket);
      for (const int64_t k : {int64_t{0}, int64_t{1}, int64_t{64}, cuda::kMaxCandidates}) {
        cuda::Graph& graph = graphs[{bucket, std::min(k, vocab)}];
        if (graph.empty()) graph = capture(arrays, bucket, std::min(k, vocab));
      }
    }
  }

  cuda::Exec make_exec() const {
    cuda::Exec out;
    out.stream = stream.handle();
    out.multiprocessors = device.multiprocessors;
    out.major = device.major;
    out.overlap = device.major >= 9;
    // GeForce multiplies bf16 at half rate and int8 at full.
    out.bf16_tiles = device.major == 9 || (device.major == 8 && device.minor == 0);
    return out;
  }

  Range layers() const { return plan.stages[static_cast<size_t>(part.stage)].layers; }
  bool last_stage() const { return part.stage == plan.last_stage(); }
  BufferList weight_list() const {
    return weight_buffers(model, part, layers(), part.stage == 0, last_stage());
  }
  BufferList kv_list() const { return kv_buffers(model, part, layers(), plan.kv); }

  Weights load(const Gguf& gguf, int rank,
               const std::function<void(int64_t, int64_t)>& on_progress) {
    Arena arena("weights", weight_memory.data(), weight_memory.bytes());
    GpuUpload upload(cpu, exec, stream);
    Weights loaded = load_weights(gguf, model, plan, rank, upload.writer(), arena, on_progress);
    upload.finish();
    return loaded;
  }

  std::vector<KvView> make_kv(int rank) {
    Arena arena("kv", kv_memory.data(), kv_memory.bytes());
    return take_kv_views(model, plan, rank, arena);
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

  // Embedding and layers of n rows, launched.
  View2D<float> forward(const GpuStepArrays& arrays, int64_t n, const cuda::StepRows& rows) {
    const View2D<float> x(scratch.x, n, model.dim);
    cuda::embed(exec, weights.embedding, arrays.tokens(scratch.step), weights.embedding_rows.begin,
                x);
    if (model.embedding_scale != 1.0) {
      cuda::scale_rows(exec, static_cast<float>(model.embedding_scale), x);
    }
    const int32_t* positions = arrays.positions(scratch.step);
    const cuda::RopeTable rope = rope_table(positions, n, false);
    const cuda::RopeTable window = model.window_rope ? rope_table(positions, n, true) : rope;
    GpuStep step{exec, model, scratch, rope, window, arrays.slots(scratch.step), rows};
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      gpu_attention_half(step, weights.layers[i], kv[i], x);
      gpu_feed_forward_half(step, weights.layers[i], x);
    }
    return x;
  }

  // Logits of these rows of the residual stream, and their k best. The head reads int8 input for
  // any number of rows, so that many rows get the logits that each would get alone, and the CPU's.
  void head(View2D<const float> x, int64_t k) {
    cuda::Exec head_exec = exec;
    head_exec.bf16_tiles = false;
    const QuantType type = weights.output.type;
    const bool plain = quant_info(type).block_elements == 1;
    const int64_t most = plain ? cuda::kVectorRows : kHeadRows;
    const int64_t vocab = weights.output_rows.size();
    for (int64_t row = 0; row < x.rows; row += most) {
      const int64_t n = std::min(most, x.rows - row);
      const cuda::Input in = scratch.logit_x.of(n, model.dim);
      cuda::rms_norm(head_exec, {x.data + row * x.stride, n, x.cols, x.stride},
                     weights.output_norm.data(), static_cast<float>(model.norm_eps),
                     cuda::input_forms(head_exec, type, n), in);
      cuda::matmul(head_exec, {&weights.output, 1}, in, {scratch.logits + row * vocab, n, vocab});
    }
    if (k > 0) {
      cuda::top_k(exec, View2D<const float>(scratch.logits, x.rows, vocab),
                  weights.output_rows.begin, k, scratch.topk, scratch.candidates);
      cuda::copy_to_host(stream, scratch.host_candidates, scratch.candidates,
                         x.rows * k * static_cast<int64_t>(sizeof(cuda::Candidate)));
    }
  }

  // Candidates that are asked for at most, in few sizes, since each has a graph.
  int64_t candidates_of(const StepBatch& batch) const {
    int64_t most = 0;
    for (const LogitRow& row : batch.logit_rows) most = std::max<int64_t>(most, row.n_candidates);
    const int64_t vocab = part.output_rows.size();
    if (most <= 1) return std::min(most, vocab);
    return std::min(most <= 64 ? int64_t{64} : cuda::kMaxCandidates, vocab);
  }

  void decode(const StepBatch& batch, int64_t k) {
    const int64_t bucket = decode_bucket(batch.n_rows());
    const GpuStepArrays arrays(bucket, bucket, bucket);
    const int64_t bytes =
        arrays.fill(batch, plan.kv.page_tokens, scratch.host_step, scratch.step_bytes);
    cuda::copy_to_device(stream, scratch.step, scratch.host_step, bytes);
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
    head(forward(arrays, bucket, rows), k);
    return cuda::Graph::end(stream);
  }

  void eager(const StepBatch& batch, int64_t k) {
    const int64_t n = batch.n_rows();
    const auto n_sequences = static_cast<int64_t>(batch.sequences.size());
    const auto n_logits = static_cast<int64_t>(batch.logit_rows.size());
    const bool rowwise = n <= kRowwiseRows;
    const GpuStepArrays arrays(n, n_sequences, n_logits, rowwise);
    const int64_t bytes =
        arrays.fill(batch, plan.kv.page_tokens, scratch.host_step, scratch.step_bytes);
    cuda::copy_to_device(stream, scratch.step, scratch.host_step, bytes);
    cuda::StepRows rows{arrays.sequences(scratch.step), arrays.pages(scratch.step),
                        arrays.n_sequences(), n};
    for (const StepSequence& s : batch.sequences) {
      rows.most_rows = rowwise ? 1 : std::max<int64_t>(rows.most_rows, s.n_rows);
      rows.most_context = std::max<int64_t>(rows.most_context, s.first_position + s.n_rows);
    }
    const View2D<float> x = forward(arrays, n, rows);
    if (n_logits == 0) return;
    // The rows with logits, side by side where the layers' scratch is free again.
    const View2D<float> wanted(scratch.normed.all.x, n_logits, model.dim);
    cuda::gather_rows(exec, x, arrays.logit_rows(scratch.step), wanted);
    head(wanted, k);
  }

  // Rows [first, first + n) of the logits on the host.
  void fetch_logits(int64_t first, int64_t n) {
    const int64_t vocab = part.output_rows.size();
    cuda::copy_to_host(stream, scratch.host_logits, scratch.logits + first * vocab, n * vocab * 4);
    stream.synchronize();
  }

  // As head.cc: for every row its candidates, or all its logits, then those that are wanted.
  void write_message(const StepBatch& batch, int64_t k, std::byte* out) {
    const Range vocab = part.output_rows;
    const int32_t* wanted = batch.wanted.data();
    int64_t fetched_end = 0;
    int64_t fetched_begin = 0;
    const auto n_rows = static_cast<int64_t>(batch.logit_rows.size());
    for (int64_t i = 0; i < n_rows; ++i) {
      const LogitRow& row = batch.logit_rows[static_cast<size_t>(i)];
      const bool whole = row.n_candidates == 0;
      const bool picked_here = row.n_candidates > cuda::kMaxCandidates;
      if ((whole || picked_here || row.n_wanted > 0) && i >= fetched_end) {
        fetched_begin = i;
        fetched_end = std::min(n_rows, i + kHostLogitRows);
        fetch_logits(fetched_begin, fetched_end - fetched_begin);
      }
      const float* logits = scratch.host_logits + (i - fetched_begin) * vocab.size();
      if (whole) {
        std::memcpy(out, logits, static_cast<size_t>(vocab.size()) * 4);
        out += vocab.size() * 4;
      } else {
        const int64_t n = std::min<int64_t>(row.n_candidates, vocab.size());
        const auto bytes = static_cast<size_t>(n) * sizeof(cuda::Candidate);
        if (picked_here) {
          cpu::top_k(cpu, {logits, static_cast<size_t>(vocab.size())}, vocab.begin,
                     {reinterpret_cast<cpu::Candidate*>(out), static_cast<size_t>(n)});
        } else {
          std::memcpy(out, scratch.host_candidates + i * k, bytes);
        }
        out += bytes;
      }
      for (int32_t j = 0; j < row.n_wanted; ++j, ++wanted, out += 4) {
        const bool mine = *wanted >= vocab.begin && *wanted < vocab.end;
        const float logit =
            mine ? logits[*wanted - vocab.begin] : -std::numeric_limits<float>::infinity();
        std::memcpy(out, &logit, 4);
      }
    }
  }
};

static_assert(sizeof(cuda::Candidate) == sizeof(cpu::Candidate));

GpuExecutor::GpuExecutor(const Gguf& gguf, const ModelSpec& model, const Plan& plan, int rank,
                         int device, const cpu::Exec& cpu,
                         const std::function<void(int64_t, int64_t)>& on_progress)
    : state_(std::make_unique<State>(gguf, model, plan, rank, device, cpu, on_progress)) {}

GpuExecutor::~GpuExecutor() = default;

void GpuExecutor::run(const StepBatch& batch, std::byte* message) {
  State& s = *state_;
  const int64_t k = s.candidates_of(batch);
  if (is_decode(batch)) {
    s.decode(batch, k);
  } else {
    s.eager(batch, k);
  }
  s.stream.synchronize();
  if (!batch.logit_rows.empty()) s.write_message(batch, k, message);
}

int64_t GpuExecutor::device_bytes() const {
  return state_->weight_memory.bytes() + state_->kv_memory.bytes() + state_->scratch.bytes();
}

}  // namespace spillway
