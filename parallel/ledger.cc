// See ledger.h. Order and names of the buffers here are a contract with runtime/model/loader.cc,
// runtime/kv/kv_cache.cc and runtime/stage/scratch.cc, which take them from their arenas by name.
#include "parallel/ledger.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/gpu_ledger.h"
#include "parallel/like_layers.h"
#include "parallel/list_writer.h"
#include "parallel/spill.h"

namespace spillway {
namespace {

constexpr int64_t kFloatBytes = 4;

// The matrices of a half lie in its home, norms and biases with what is resident.
void attention_buffers(ListWriter& out, const ModelSpec& model, const LayerSpec& layer,
                       const LayerPart& part, WeightHome home) {
  const int64_t q_rows = part.heads.size() * model.head_dim;
  const int64_t kv_rows = part.kv_heads.size() * model.head_dim;
  const bool vectors = home == WeightHome::kDevice;
  if (vectors) out.floats("norm", model.dim);
  if (home_of(part.attention) == home) {
    out.matrix("q", layer.q.type, q_rows, model.dim);
    out.matrix("k", layer.k.type, kv_rows, model.dim);
    out.matrix("v", layer.v.type, kv_rows, model.dim);
    out.matrix("o", layer.o.type, model.dim, q_rows);
  }
  if (!vectors) return;
  if (layer.q_bias) out.floats("q_bias", q_rows);
  if (layer.k_bias) out.floats("k_bias", kv_rows);
  if (layer.v_bias) out.floats("v_bias", kv_rows);
  if (layer.o_bias) out.floats("o_bias", model.dim);
  if (layer.q_norm) out.floats("q_norm", model.head_dim);
  if (layer.k_norm) out.floats("k_norm", model.head_dim);
  if (layer.attention_post_norm) out.floats("post_norm", model.dim);
}

void feed_forward_matrices(ListWriter& out, const ModelSpec& model, const LayerSpec& layer,
                           int64_t ff) {
  out.matrix("gate", layer.gate.type, ff, model.dim);
  out.matrix("up", layer.up.type, ff, model.dim);
  out.matrix("down", layer.down.type, model.dim, ff);
}

void feed_forward_buffers(ListWriter& out, const ModelSpec& model, const LayerSpec& layer,
                          const LayerPart& part, WeightHome home, int64_t index) {
  const int64_t ff = part.ff.size();
  const bool vectors = home == WeightHome::kDevice;
  if (vectors) out.floats("norm", model.dim);
  if (home_of(part.feed_forward) == home && part.feed_forward == Place::kHybrid) {
    out.under_layer(index, "feed-forward.cpu ");
    feed_forward_matrices(out, model, layer, part.ff_on_cpu.size());
    out.under_layer(index, "feed-forward.");
    feed_forward_matrices(out, model, layer, ff_off_cpu(part).size());
  } else if (home_of(part.feed_forward) == home) {
    feed_forward_matrices(out, model, layer, ff);
  }
  if (!vectors) return;
  if (layer.gate_bias) out.floats("gate_bias", ff);
  if (layer.up_bias) out.floats("up_bias", ff);
  if (layer.down_bias) out.floats("down_bias", model.dim);
  if (layer.feed_forward_post_norm) out.floats("post_norm", model.dim);
}

void add_messages(ListWriter& out, const ModelSpec& model, const RankPart& part,
                  const StepLimits& limits, bool last_stage) {
  if (last_stage) out.add("head_message", head_message_bytes(part.output_rows.size(), limits));
  if (part.rank != 0) return;
  out.add("front_message", head_message_bytes(model.vocab_size, limits));
  out.floats("front_rows", limits.all_logits ? limits.max_logit_rows * model.vocab_size : 0);
}

}  // namespace

int64_t BufferList::total() const {
  int64_t sum = 0;
  for (const BufferSpec& buffer : buffers) sum += buffer.bytes;
  return sum;
}

int64_t BufferList::bytes_of(const std::string& name) const {
  for (const BufferSpec& buffer : buffers) {
    if (buffer.name == name) return buffer.bytes;
  }
  return 0;
}

std::byte* BufferTaker::take(const std::string& name) {
  CHECK_LT(next_, list_.buffers.size());
  const BufferSpec& buffer = list_.buffers[next_++];
  CHECK_EQ(buffer.name, name);
  return arena_->take(buffer.bytes);
}

namespace {

void write_layer(ListWriter& out, const ModelSpec& model, const RankPart& part, const Range& layers,
                 int64_t i, WeightHome home) {
  const int64_t index = layers.begin + i;
  const LayerSpec& layer = model.layers[index];
  out.under_layer(index, "attention.");
  attention_buffers(out, model, layer, part.layers[i], home);
  out.under_layer(index, "feed-forward.");
  feed_forward_buffers(out, model, layer, part.layers[i], home, index);
}

void write_vocabulary(ListWriter& out, const ModelSpec& model, const RankPart& part,
                      bool first_stage, bool last_stage, WeightHome home) {
  out.under_nothing();
  if (home != WeightHome::kDevice) return;
  if (first_stage) {
    out.matrix("embedding", model.embedding.type, part.embedding_rows.size(), model.dim);
  }
  if (last_stage) {
    out.floats("output_norm", model.dim);
    const bool shared = model.tied_output() && first_stage;
    const QuantType type = model.tied_output() ? model.embedding.type : model.output.type;
    if (!shared) out.matrix("output", type, part.output_rows.size(), model.dim);
  }
}

void write_kv(ListWriter& out, const ModelSpec& model, const RankPart& part, const Range& layers,
              const KvPlan& kv) {
  for (int64_t i = 0; i < layers.size(); ++i) {
    const int64_t bytes = kv.n_pages * kv.page_tokens * part.layers[i].kv_heads.size() *
                          kv_row_bytes(kv.type, model.head_dim);
    out.numbered("k", layers.begin + i, bytes);
    out.numbered("v", layers.begin + i, bytes);
  }
}

}  // namespace

BufferList weight_buffers(const ModelSpec& model, const RankPart& part, const Range& layers,
                          bool first_stage, bool last_stage, WeightHome home) {
  ListWriter out;
  for (int64_t i = 0; i < layers.size(); ++i) write_layer(out, model, part, layers, i, home);
  write_vocabulary(out, model, part, first_stage, last_stage, home);
  return out.take();
}

int64_t weight_bytes(const ModelSpec& model, const RankPart& part, const Range& layers,
                     bool first_stage, bool last_stage, WeightHome home) {
  // Layers of a kind once.
  std::vector<std::pair<size_t, int64_t>> kinds;  // the first, and its bytes
  int64_t sum = 0;
  for (size_t i = 0; i < part.layers.size(); ++i) {
    const LayerSpec& layer = model.layers[static_cast<size_t>(layers.begin) + i];
    auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const auto& one) {
      return same_size(part.layers[i], part.layers[one.first]) &&
             same_layer(layer, model.layers[static_cast<size_t>(layers.begin) + one.first]);
    });
    if (kind == kinds.end()) {
      ListWriter out(ListWriter::Keep::kSum);
      write_layer(out, model, part, layers, static_cast<int64_t>(i), home);
      kind = kinds.insert(kinds.end(), {i, out.total_bytes()});
    }
    sum += kind->second;
  }
  ListWriter out(ListWriter::Keep::kSum);
  write_vocabulary(out, model, part, first_stage, last_stage, home);
  return sum + out.total_bytes();
}

BufferList kv_buffers(const ModelSpec& model, const RankPart& part, const Range& layers,
                      const KvPlan& kv) {
  ListWriter out;
  write_kv(out, model, part, layers, kv);
  return out.take();
}

int64_t kv_bytes(const ModelSpec& model, const RankPart& part, const Range& layers,
                 const KvPlan& kv) {
  ListWriter out(ListWriter::Keep::kSum);
  write_kv(out, model, part, layers, kv);
  return out.total_bytes();
}

BufferList activation_buffers(const ModelSpec& model, const RankPart& part,
                              const StepLimits& limits, bool last_stage) {
  int64_t q_cols = 0;
  int64_t qkv_cols = 0;
  int64_t ff = 0;
  for (const LayerPart& layer : part.layers) {
    q_cols = std::max(q_cols, layer.heads.size() * model.head_dim);
    qkv_cols =
        std::max(qkv_cols, (layer.heads.size() + 2 * layer.kv_heads.size()) * model.head_dim);
    ff = std::max(ff, layer.ff.size());
  }
  const int64_t rows = limits.max_rows;
  ListWriter out;
  out.floats("x", (last_stage ? 1 : kSendBuffers) * rows * model.dim);
  out.floats("normed", rows * model.dim);
  out.quantized_input("normed", rows, model.dim);
  out.floats("qkv", rows * qkv_cols);
  out.floats("attended", rows * q_cols);
  out.quantized_input("attended", rows, q_cols);
  out.floats("gate_up", rows * 2 * ff);
  out.floats("gated", rows * ff);
  out.quantized_input("gated", rows, ff);
  out.add("partial", rows * model.dim * 8);
  out.floats("rope.cos", rows * (model.rope.n_rot / 2));
  out.floats("rope.sin", rows * (model.rope.n_rot / 2));
  if (model.window_rope) {
    out.floats("window_rope.cos", rows * (model.window_rope->n_rot / 2));
    out.floats("window_rope.sin", rows * (model.window_rope->n_rot / 2));
  }
  if (last_stage) {
    out.floats("logit_x", limits.max_logit_rows * model.dim);
    out.quantized_input("logit_x", limits.max_logit_rows, model.dim);
    out.floats("logits", limits.max_logit_rows * part.output_rows.size());
  }
  add_messages(out, model, part, limits, last_stage);
  return out.take();
}

BufferList message_buffers(const ModelSpec& model, const RankPart& part, const StepLimits& limits,
                           bool last_stage) {
  ListWriter out;
  add_messages(out, model, part, limits, last_stage);
  return out.take();
}

int64_t head_message_bytes(int64_t vocab_rows, const StepLimits& limits) {
  constexpr int64_t kCandidateBytes = 8;
  const int64_t candidates = std::min(limits.max_candidates, vocab_rows) * kCandidateBytes;
  const int64_t row =
      limits.all_logits ? std::max(candidates, vocab_rows * kFloatBytes) : candidates;
  return limits.max_logit_rows * (row + limits.max_wanted * kFloatBytes);
}

int64_t program_bytes(int n_ranks, bool front, const ModelSpec& model, int threads) {
  // Resident bytes of a process beyond its arenas: VmRSS less arenas on Debian 12 (gRPC 1.51, Open
  // MPI 4.1.4), 1 to 4 ranks, 2026-11-22 (docs/bench/smollm2.md): 18 MiB of program, libraries and
  // gRPC; 5.5 MiB more with MPI and its shared-memory segments, 0.9 for each further rank.
  constexpr int64_t kAlone = 18LL << 20;
  constexpr int64_t kWithMpi = (23LL << 20) + (512LL << 10);
  constexpr int64_t kAnotherRank = 900LL << 10;
  constexpr int64_t kThread = 64LL << 10;
  // The front also holds the tokeniser (text, hash tables, merges).
  const int64_t tokenizer = front ? model.vocab_size * 160 : 0;
  return (n_ranks == 1 ? kAlone : kWithMpi + kAnotherRank * (n_ranks - 1)) + kThread * threads +
         tokenizer;
}

namespace {

// "layer 12 attention.q" -> "layer 12 attention".
std::string detail_of(const std::string& buffer) { return buffer.substr(0, buffer.find('.')); }

void add_lines(Plan& plan, int rank, const std::string& place, const std::string& name,
               const BufferList& list) {
  for (const BufferSpec& buffer : list.buffers) {
    const std::string detail =
        name == "kv" ? "layer " + buffer.name.substr(1) : detail_of(buffer.name);
    LedgerLine* last = plan.ledger.empty() ? nullptr : &plan.ledger.back();
    if (last != nullptr && last->rank == rank && last->name == name && last->detail == detail) {
      last->bytes += buffer.bytes;
    } else {
      plan.ledger.push_back({rank, place, name, detail, buffer.bytes});
    }
  }
}

// What only a rank on a GPU has.
void add_gpu_lines(Plan& plan, const ModelSpec& model, const RankPart& part) {
  const int tp_size = static_cast<int>(plan.stages[part.stage].ranks.size());
  const bool last = part.stage == plan.last_stage();
  const int64_t rows = device_comm_rows(plan.limits);
  const GpuNeighbours near = gpu_neighbours(plan, part.rank);
  const int64_t pinned = pinned_buffers(model, part, plan.limits, plan.kv, last).total() +
                         device_comm_pinned_bytes(tp_size, rows, model.dim) +
                         device_hop_pinned_bytes(near.receives, near.sends);
  const auto add = [&](const char* place, const char* name, const char* detail, int64_t bytes) {
    plan.ledger.push_back({part.rank, place, name, detail, bytes});
  };
  add("host", "program", "pinned staging", pinned + kLoadStagingBytes);
  add("host", "activations", "messages", message_buffers(model, part, plan.limits, last).total());
  add("gpu", "program", "CUDA context", kCudaContextBytes);
  const int64_t hops = device_hop_bytes(near.receives, near.sends, rows, model.dim);
  if (hops > 0) add("gpu", "activations", "hops", hops);
  const int64_t sums = tp_size > 1 ? device_comm_bytes(tp_size, rows, model.dim) : 0;
  if (sums > 0) add("gpu", "activations", "comm", sums);
  const Range& layers = plan.stages[part.stage].layers;
  const int64_t later =
      kv_bytes(model, part, layers, plan.kv) + hops + sums +
      gpu_activation_buffers(model, part, plan.limits, plan.kv, last, tp_size).total();
  if (load_peak_bytes(later) > 0) add("gpu", "program", "loading", load_peak_bytes(later));
  if (hops > 0 || tp_size > 1) {
    add("gpu", "program", "NCCL and CUDA with other GPUs", kGroupContextBytes);
  }
}

// What the way of spilled halves takes beside their own bytes.
void add_spill_lines(Plan& plan, const ModelSpec& model, const RankPart& part) {
  const Range& layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  const auto add = [&](const char* place, const char* name, const char* detail, int64_t bytes) {
    if (bytes > 0) plan.ledger.push_back({part.rank, place, name, detail, bytes});
  };
  const bool first = part.stage == 0;
  const bool last = part.stage == plan.last_stage();
  const int64_t disk_slots = kDiskSlots * disk_slot_bytes(model, part, layers);
  if (part.gpu) {
    const int64_t pinned =
        weight_bytes(model, part, layers, first, last, WeightHome::kHost) + disk_slots;
    add("gpu", "program", "page tables of pinned weights", pinned / kPinnedBytesAPageTableByte);
  }
  add("gpu", "activations", "streaming slots",
      kStreamSlots * Arena::rounded(stream_slot_bytes(model, part, layers)));
  if (!part.gpu) {
    const int64_t on_disk = weight_bytes(model, part, layers, first, last, WeightHome::kDisk);
    add("host", "program", "page tables of mapped weights",
        div_up(on_disk, kMappedBytesAPageTableByte));
  }
  add("host", "activations", "disk slots", disk_slots);
  add("host", "activations", "halves on the CPU",
      spill_pinned_buffers(model, part, plan.limits).total() +
          spill_cpu_buffers(model, part, plan.limits).total());
}

// Weights and KV pages of one rank, by layer or as sums.
void add_layers(Plan& plan, const ModelSpec& model, const RankPart& part, LedgerLines lines) {
  const StagePlan& stage = plan.stages[part.stage];
  const bool first = part.stage == 0;
  const bool last = part.stage == plan.last_stage();
  const char* device = part.gpu ? "gpu" : "host";
  const auto add_weights = [&](const char* place, WeightHome home) {
    if (lines == LedgerLines::kAll) {
      add_lines(plan, part.rank, place, "weights",
                weight_buffers(model, part, stage.layers, first, last, home));
    } else {
      plan.ledger.push_back({part.rank, place, "weights", "",
                             weight_bytes(model, part, stage.layers, first, last, home)});
    }
  };
  add_weights(device, WeightHome::kDevice);
  if (spills_to(part, WeightHome::kHost)) add_weights("host", WeightHome::kHost);
  if (spills_to(part, WeightHome::kDisk)) add_weights("disk", WeightHome::kDisk);
  add_spill_lines(plan, model, part);
  if (lines == LedgerLines::kAll) {
    add_lines(plan, part.rank, device, "kv", kv_buffers(model, part, stage.layers, plan.kv));
  } else {
    plan.ledger.push_back(
        {part.rank, device, "kv", "", kv_bytes(model, part, stage.layers, plan.kv)});
  }
}

void add_rank(Plan& plan, const ModelSpec& model, const RankPart& part, int threads,
              LedgerLines lines) {
  const bool last = part.stage == plan.last_stage();
  const int tp_size = static_cast<int>(plan.stages[part.stage].ranks.size());
  add_layers(plan, model, part, lines);
  const BufferList activations =
      part.gpu ? gpu_activation_buffers(model, part, plan.limits, plan.kv, last, tp_size)
               : activation_buffers(model, part, plan.limits, last);
  const char* device = part.gpu ? "gpu" : "host";
  if (lines == LedgerLines::kAll) {
    add_lines(plan, part.rank, device, "activations", activations);
  } else {
    plan.ledger.push_back({part.rank, device, "activations", "", activations.total()});
  }
  plan.ledger.push_back({part.rank, "host", "program", "program, MPI, gRPC",
                         program_bytes(plan.n_ranks(), part.rank == 0, model, threads)});
  if (part.gpu) add_gpu_lines(plan, model, part);
}

}  // namespace

void write_ledger(Plan& plan, const ModelSpec& model, const ClusterSpec& cluster,
                  LedgerLines lines) {
  plan.ledger.clear();
  const RankPart* before = nullptr;  // whose lines begin at `begin`
  size_t begin = 0;
  for (const RankPart& part : plan.parts) {
    const int threads = cluster.ranks[part.rank].threads;
    // Rank 0 leads: it has lines of its own.
    const bool same = lines == LedgerLines::kSums && before != nullptr && before->rank != 0 &&
                      same_size(*before, part) && cluster.ranks[before->rank].threads == threads;
    const size_t end = plan.ledger.size();
    if (same) {
      for (size_t i = begin; i < end; ++i) {
        plan.ledger.push_back(LedgerLine(plan.ledger[i]));
        plan.ledger.back().rank = part.rank;
      }
    } else {
      add_rank(plan, model, part, threads, lines);
    }
    before = &part;
    begin = end;
  }
}

}  // namespace spillway
