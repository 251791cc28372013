// See loader.h.
#include "runtime/model/loader.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "kernels/core/check.h"
#include "parallel/ledger.h"
#include "parallel/spill.h"
#include "runtime/model/names.h"

namespace spillway {
namespace {

class Loader {
 public:
  Loader(const Gguf& gguf, const ModelSpec& model, const RankPart& part, const Range& layers,
         bool first, bool last, const WeightTargets& targets)
      : gguf_(gguf), model_(model), architecture_(*find_architecture(model.architecture)) {
    for (const WeightHome home : {WeightHome::kDevice, WeightHome::kHost, WeightHome::kDisk}) {
      BufferList list = weight_buffers(model, part, layers, first, last, home);
      const WeightTarget& target = targets.of(home);
      if (target.arena == nullptr) {
        CHECK(list.buffers.empty());
        continue;
      }
      sinks_[static_cast<size_t>(home)].emplace(
          Sink{*target.writer, BufferTaker(std::move(list), *target.arena)});
    }
  }

  LayerWeights layer(int64_t index, const LayerPart& part) {
    layer_ = index;
    const LayerSpec& spec = model_.layers[static_cast<size_t>(index)];
    LayerWeights w;
    w.part = part;
    w.window = spec.window;
    prefix_ = "layer " + std::to_string(index) + " attention.";
    w.attention_norm = vector("norm", Field::kAttentionNorm, part);
    home_ = home_of(part.attention);
    w.qkv[0] = matrix("q", Field::kQ, spec.q, part);
    w.qkv[1] = matrix("k", Field::kK, spec.k, part);
    w.qkv[2] = matrix("v", Field::kV, spec.v, part);
    w.o = matrix("o", Field::kO, spec.o, part);
    if (spec.q_bias) w.q_bias = vector("q_bias", Field::kQBias, part);
    if (spec.k_bias) w.k_bias = vector("k_bias", Field::kKBias, part);
    if (spec.v_bias) w.v_bias = vector("v_bias", Field::kVBias, part);
    if (spec.o_bias) w.o_bias = vector("o_bias", Field::kOBias, part);
    if (spec.q_norm) w.q_norm = vector("q_norm", Field::kQNorm, part);
    if (spec.k_norm) w.k_norm = vector("k_norm", Field::kKNorm, part);
    if (spec.attention_post_norm) {
      w.attention_post_norm = vector("post_norm", Field::kAttentionPostNorm, part);
    }
    prefix_ = "layer " + std::to_string(index) + " feed-forward.";
    w.feed_forward_norm = vector("norm", Field::kFeedForwardNorm, part);
    home_ = home_of(part.feed_forward);
    LayerPart rest = part;
    if (part.feed_forward == Place::kHybrid) {
      LayerPart on_cpu = part;
      on_cpu.ff = part.ff_on_cpu;
      w.cpu_gate_up[0] = matrix("cpu gate", Field::kGate, spec.gate, on_cpu);
      w.cpu_gate_up[1] = matrix("cpu up", Field::kUp, spec.up, on_cpu);
      w.cpu_down = matrix("cpu down", Field::kDown, spec.down, on_cpu);
      rest.ff = ff_off_cpu(part);
    }
    w.gate_up[0] = matrix("gate", Field::kGate, spec.gate, rest);
    w.gate_up[1] = matrix("up", Field::kUp, spec.up, rest);
    w.down = matrix("down", Field::kDown, spec.down, rest);
    if (spec.gate_bias) w.gate_bias = vector("gate_bias", Field::kGateBias, part);
    if (spec.up_bias) w.up_bias = vector("up_bias", Field::kUpBias, part);
    if (spec.down_bias) w.down_bias = vector("down_bias", Field::kDownBias, part);
    if (spec.feed_forward_post_norm) {
      w.feed_forward_post_norm = vector("post_norm", Field::kFeedForwardPostNorm, part);
    }
    prefix_.clear();
    return w;
  }

  PackedMatrix vocabulary(const char* buffer, Field field, const MatrixSpec& spec,
                          const Range& rows) {
    const GgufTensor& tensor = require(field);
    PackedMatrix out{spec.type, rows.size(), spec.cols, device().taker.take(buffer)};
    device().writer.pack(view(tensor), rows, {0, spec.cols}, out);
    return out;
  }

  std::span<const float> output_norm() { return vector("output_norm", Field::kOutputNorm, {}); }

  bool done() const {
    return std::all_of(sinks_.begin(), sinks_.end(), [](const std::optional<Sink>& sink) {
      return !sink.has_value() || sink->taker.done();
    });
  }

 private:
  struct Sink {
    const WeightWriter& writer;
    BufferTaker taker;
  };
  Sink& sink(WeightHome home) { return sinks_[static_cast<size_t>(home)].value(); }
  Sink& device() { return sink(WeightHome::kDevice); }

  const GgufTensor& require(Field field) const {
    const GgufTensor* tensor = gguf_.tensor(layer_tensor_name(entry(field), layer_));
    CHECK(tensor != nullptr);  // read_model_spec has seen it
    return *tensor;
  }

  const TensorName& entry(Field field) const {
    const TensorName* found = tensor_name(architecture_, field);
    CHECK(found != nullptr);
    return *found;
  }

  static cpu::GgufMatrix view(const GgufTensor& tensor) {
    return {tensor.type, tensor.rows(), tensor.cols(), tensor.data};
  }

  // Rows and columns of a [rows, cols] tensor that the split axis gives to this part.
  std::pair<Range, Range> cut(Field field, const LayerPart& part, int64_t rows,
                              int64_t cols) const {
    const int64_t d = model_.head_dim;
    switch (entry(field).axis) {
      case SplitAxis::kHeadRows:
        return {{part.heads.begin * d, part.heads.end * d}, {0, cols}};
      case SplitAxis::kKvHeadRows:
        return {{part.kv_heads.begin * d, part.kv_heads.end * d}, {0, cols}};
      case SplitAxis::kHeadCols:
        return {{0, rows}, {part.heads.begin * d, part.heads.end * d}};
      case SplitAxis::kFfRows:
        return {{part.ff.begin, part.ff.end}, {0, cols}};
      case SplitAxis::kFfCols:
        return {{0, rows}, {part.ff.begin, part.ff.end}};
      case SplitAxis::kWhole:
      case SplitAxis::kVocabRows:
        break;
    }
    return {{0, rows}, {0, cols}};
  }

  PackedMatrix matrix(const char* buffer, Field field, const MatrixSpec& spec,
                      const LayerPart& part) {
    const auto [rows, cols] = cut(field, part, spec.rows, spec.cols);
    Sink& to = sink(home_);
    PackedMatrix out{spec.type, rows.size(), cols.size(), to.taker.take(prefix_ + buffer)};
    to.writer.pack(view(require(field)), rows, cols, out);
    return out;
  }

  // Norms and biases: the file's row vector, cut like the rows of its matrix.
  std::span<const float> vector(const char* buffer, Field field, const LayerPart& part) {
    const GgufTensor& tensor = require(field);
    const Range range = cut(field, part, tensor.elements(), 1).first;
    const int64_t element_bytes = quant_info(tensor.type).block_bytes;
    float* out = device().taker.take_array<float>(prefix_ + buffer);
    device().writer.floats(tensor.type, tensor.data + range.begin * element_bytes,
                           {out, static_cast<size_t>(range.size())});
    return {out, static_cast<size_t>(range.size())};
  }

  const Gguf& gguf_;
  const ModelSpec& model_;
  const Architecture& architecture_;
  std::array<std::optional<Sink>, 3> sinks_;  // by WeightHome
  WeightHome home_ = WeightHome::kDevice;     // of the half's matrices
  int64_t layer_ = 0;
  std::string prefix_;
};

}  // namespace

WeightWriter cpu_writer(const cpu::Exec& exec) {
  return {[&exec](const cpu::GgufMatrix& source, Range rows, Range cols, const PackedMatrix& out) {
            cpu::pack(exec, source, rows, cols, out, 0);
          },
          [](QuantType type, const std::byte* data, std::span<float> out) {
            cpu::dequantize(type, data, out);
          }};
}

Weights load_weights(const Gguf& gguf, const ModelSpec& model, const Plan& plan, int rank,
                     const WeightTargets& targets,
                     const std::function<void(int64_t, int64_t)>& on_progress) {
  const RankPart& part = plan.parts[static_cast<size_t>(rank)];
  const Range layers = plan.stages[static_cast<size_t>(part.stage)].layers;
  const bool first = part.stage == 0;
  const bool last = part.stage == plan.last_stage();
  Loader loader(gguf, model, part, layers, first, last, targets);
  const auto progress = [&](bool all) {
    if (!on_progress) return;
    int64_t done = 0;
    int64_t total = 0;
    for (const WeightTarget* target : {&targets.device, &targets.host, &targets.disk}) {
      if (target->arena == nullptr) continue;
      done += target->arena->used();
      total += target->arena->bytes();
    }
    on_progress(all ? total : done, total);
  };
  Weights weights;
  weights.layers.reserve(static_cast<size_t>(layers.size()));
  for (int64_t i = 0; i < layers.size(); ++i) {
    weights.layers.push_back(loader.layer(layers.begin + i, part.layers[static_cast<size_t>(i)]));
    progress(false);
  }
  if (first) {
    weights.embedding_rows = part.embedding_rows;
    weights.embedding =
        loader.vocabulary("embedding", Field::kEmbedding, model.embedding, part.embedding_rows);
  }
  if (last) {
    weights.output_norm = loader.output_norm();
    weights.output_rows = part.output_rows;
    if (model.tied_output() && first) {
      CHECK(part.embedding_rows == part.output_rows);
      weights.output = weights.embedding;
    } else if (model.tied_output()) {
      weights.output =
          loader.vocabulary("output", Field::kEmbedding, model.embedding, part.output_rows);
    } else {
      weights.output = loader.vocabulary("output", Field::kOutput, model.output, part.output_rows);
    }
  }
  CHECK(loader.done());
  progress(true);
  return weights;
}

}  // namespace spillway
