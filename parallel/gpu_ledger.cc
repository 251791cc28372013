// See gpu_ledger.h. Order and names of the buffers are a contract with the GPU executor, which
// takes them from its arena by name.
#include "parallel/gpu_ledger.h"

#include <algorithm>

#include "kernels/core/int_math.h"
#include "kernels/cuda/hop.h"
#include "kernels/cuda/peer.h"
#include "parallel/list_writer.h"

namespace spillway {
namespace {

constexpr int64_t kRowUnit = 8;  // padded_rows() of kernels/cuda/ops.h
constexpr int64_t kActivationBlock = 32;
constexpr int64_t kActivationBlockBytes = 8;
constexpr int64_t kFloatBytes = 4;
constexpr int64_t kCandidateBytes = 8;
constexpr int64_t kSequenceBytes = 16;  // cuda::SequenceRows
constexpr int64_t kMostSplits = 64;
constexpr int64_t kMostMultiprocessors = 256;  // an H100 has 132, the largest sold today 192

int64_t padded(int64_t rows) { return round_up(rows, kRowUnit); }

// The widest of what the stage's layers put into one row.
struct Widths {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // the fewest: they share the GPU's blocks
  int64_t q_cols = 0;
  int64_t qkv_cols = 0;
  int64_t ff = 0;
  int64_t matrix = 0;  // rows * cols of the greatest matrix
};

Widths widths_of(const ModelSpec& model, const RankPart& part) {
  Widths out;
  for (const LayerPart& layer : part.layers) {
    const int64_t kv_cols = layer.kv_heads.size() * model.head_dim;
    const int64_t q_cols = layer.heads.size() * model.head_dim;
    out.heads = std::max(out.heads, layer.heads.size());
    if (out.kv_heads == 0 || (!layer.kv_heads.empty() && layer.kv_heads.size() < out.kv_heads)) {
      out.kv_heads = layer.kv_heads.size();
    }
    out.q_cols = std::max(out.q_cols, q_cols);
    out.qkv_cols = std::max(out.qkv_cols, q_cols + 2 * kv_cols);
    out.ff = std::max(out.ff, layer.ff.size());
    // q and o are alike, so are k and v, gate, up and down.
    out.matrix = std::max(
        {out.matrix, q_cols * model.dim, kv_cols * model.dim, layer.ff.size() * model.dim});
  }
  return out;
}

// A product's input in its forms: cuda::Input.
void product_input(ListWriter& out, const std::string& name, int64_t rows, int64_t cols) {
  const int64_t blocks = div_up(cols, kActivationBlock);
  out.floats(name, rows * cols);
  out.add(name + ".q8", rows * blocks * kActivationBlock);
  out.add(name + ".blocks", rows * blocks * kActivationBlockBytes);
  out.add(name + ".bf16", rows * cols * 2);
}

void rope_tables(ListWriter& out, const std::string& name, const RopeSpec& rope, int64_t rows) {
  out.floats(name + ".cos", rows * (rope.n_rot / 2));
  out.floats(name + ".sin", rows * (rope.n_rot / 2));
}

// Room for the rows that fill a bucket up.
StepLimits with_buckets(StepLimits limits) {
  const int64_t bucket = decode_bucket(limits.max_sequences);
  limits.max_sequences = std::max(bucket, kRowwiseRows);
  limits.max_rows = std::max(limits.max_rows, bucket);
  limits.max_logit_rows = std::max(limits.max_logit_rows, bucket);
  return limits;
}

// Tokens, positions and cache slots by row, sequences, page lists, rows with logits, all as one
// copy; 4096 bytes for what aligns them and for counts.
int64_t step_bytes(const StepLimits& limits, const KvPlan& kv) {
  return padded(limits.max_rows) * (4 + 4 + 8) + limits.max_sequences * kSequenceBytes +
         std::max<int64_t>(kv.n_pages, 1) * 4 + padded(limits.max_logit_rows) * 4 + 4096;
}

}  // namespace

std::string gpu_obstacle(const ModelSpec& model) {
  if (model.head_dim % 16 != 0 || model.head_dim > 256) {  // cuda::attend
    return "the model's heads have " + std::to_string(model.head_dim) +
           " values, attention on the GPU wants a multiple of 16, at most 256";
  }
  return "";
}

int64_t attend_workspace_bytes_bound(int64_t max_rows, int64_t max_sequences, int64_t n_heads,
                                     int64_t n_kv_heads, int64_t head_dim) {
  if (n_heads == 0 || n_kv_heads == 0) return 0;
  const int64_t pieces = 3 * kMostMultiprocessors / n_kv_heads + max_sequences;
  const int64_t sums = pieces * n_heads * (head_dim + 2) * kFloatBytes;
  const bool crossing = head_dim % kActivationBlock != 0;
  const int64_t rows = crossing ? max_rows * n_heads * head_dim * kFloatBytes : 0;
  constexpr int64_t kCounters = 32768;    // cuda::kAttendCounterBytes
  return sums + rows + kCounters + 1024;  // and alignment
}

int64_t decode_bucket(int64_t n) {
  int64_t bucket = 1;
  while (bucket < n && bucket < kMostBucketRows) bucket *= 2;
  return std::max(n, bucket);
}

BufferList gpu_activation_buffers(const ModelSpec& model, const RankPart& part,
                                  const StepLimits& given, const KvPlan& kv, bool last_stage,
                                  int tp_size) {
  const Widths widths = widths_of(model, part);
  const StepLimits limits = with_buckets(given);
  const int64_t rows = padded(limits.max_rows);
  const int64_t logit_rows = padded(limits.max_logit_rows);
  ListWriter out;
  out.floats("x", rows * model.dim);
  if (tp_size > 1) out.floats("partial", rows * model.dim);
  product_input(out, "normed", rows, model.dim);
  product_input(out, "attended", rows, widths.q_cols);
  product_input(out, "gated", rows, widths.ff);
  if (last_stage) product_input(out, "logit_x", logit_rows, model.dim);
  out.floats("qkv", rows * widths.qkv_cols);
  out.floats("gate_up", rows * 2 * widths.ff);
  rope_tables(out, "rope", model.rope, rows);
  if (model.window_rope) rope_tables(out, "window_rope", *model.window_rope, rows);
  out.add("rope.angles", model.rope.n_rot / 2 * 8);
  if (model.window_rope) out.add("window_rope.angles", model.window_rope->n_rot / 2 * 8);
  out.add("step", step_bytes(limits, kv));
  out.add("attend", attend_workspace_bytes_bound(rows, limits.max_sequences, widths.heads,
                                                 widths.kv_heads, model.head_dim));
  out.add("scratch", 2 * widths.matrix);
  out.add("library", kLibraryWorkspaceBytes);
  if (last_stage) {
    out.floats("logits", logit_rows * part.output_rows.size());
    out.add("topk", logit_rows * (kGpuCandidates * kCandidateBytes * kMostSplits) + 65536);
    out.add("candidates", logit_rows * kGpuCandidates * kCandidateBytes);
  }
  return out.take();
}

BufferList pinned_buffers(const ModelSpec& model, const RankPart& part, const StepLimits& given,
                          const KvPlan& kv, bool last_stage) {
  const StepLimits limits = with_buckets(given);
  ListWriter out;
  out.add("step", step_bytes(limits, kv));
  if (part.stage > 0) out.floats("recv", padded(limits.max_rows) * model.dim);
  if (!last_stage) out.floats("send", kSendBuffers * padded(limits.max_rows) * model.dim);
  if (last_stage) {
    out.add("candidates", padded(limits.max_logit_rows) * kGpuCandidates * kCandidateBytes);
    out.floats("logits", kHostLogitRows * part.output_rows.size());
  }
  return out.take();
}

int64_t device_comm_rows(const StepLimits& limits) { return with_buckets(limits).max_rows; }

// A group of more ranks than a mailbox is made for goes another way.
int64_t device_comm_mailbox_bytes(int tp_size, int64_t max_rows, int64_t dim) {
  if (tp_size < 2 || tp_size > cuda::kMostPeers) return 0;
  // Whoever maps it maps the whole block that it lies in, so nothing else may lie there.
  return round_up(cuda::peer_layout(tp_size, max_rows, dim).bytes, cuda::kHopMemoryUnit);
}

// Not less than the probe at start needs for a sum of a few rows.
int64_t device_comm_wire_bytes(int64_t max_rows, int64_t dim) {
  return round_up(std::max(max_rows, cuda::kPeerSmallRows) * dim * 2, 256);
}

int64_t device_comm_piece_bytes(int64_t max_rows, int64_t dim) {
  constexpr int64_t kMostPieceBytes = int64_t{4} << 20;
  return std::min(round_up(max_rows * dim * kFloatBytes, kCommWordsBytes), kMostPieceBytes);
}

int64_t device_comm_bytes(int tp_size, int64_t max_rows, int64_t dim) {
  if (tp_size < 2) return 0;
  return device_comm_mailbox_bytes(tp_size, max_rows, dim) + device_comm_wire_bytes(max_rows, dim);
}

int64_t device_comm_pinned_bytes(int tp_size, int64_t max_rows, int64_t dim) {
  if (tp_size < 2) return 0;
  return kCommWordsBytes + tp_size * device_comm_piece_bytes(max_rows, dim);
}

int64_t device_hop_bytes(bool receives, bool sends, int64_t max_rows, int64_t dim) {
  return receives || sends ? cuda::hop_layout(receives, max_rows, dim).bytes : 0;
}

int64_t device_hop_pinned_bytes(bool receives, bool sends) {
  return receives || sends ? kCommWordsBytes : 0;
}

GpuNeighbours gpu_neighbours(const Plan& plan, int rank) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const auto on_gpu = [&](int stage) {
    return stage >= 0 && stage <= plan.last_stage() &&
           plan.on_gpu(plan.stages[static_cast<size_t>(stage)]);
  };
  return {part.gpu && on_gpu(part.stage - 1), part.gpu && on_gpu(part.stage + 1)};
}

}  // namespace spillway
