// Loader: the parts of every split, multiplied, give what the whole file's matrices give.
#include "runtime/model/loader.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "parallel/ledger.h"
#include "parallel/planner.h"
#include "runtime/model/spec.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace spillway::testing {
namespace {

struct Loaded {
  std::unique_ptr<Arena> arena;
  Weights weights;
};

class LoaderTest : public ::testing::Test {
 protected:
  void open(TinyOptions options) {
    model_ = std::make_unique<TinyModel>(std::move(options));
    gguf_ = std::make_unique<Gguf>(Gguf::open(model_->write(dir_.file("m.gguf"))));
    spec_ = read_model_spec(*gguf_);
  }

  std::vector<Loaded> load(const char* split) {
    PlanRequest request;
    request.split = parse_split(split);
    int n = 0;
    for (const StagePin& pin : request.split) n += static_cast<int>(pin.shares.size());
    plan_ = make_plan(spec_, assumed_cluster(n), request);
    std::vector<Loaded> all;
    for (int rank = 0; rank < n; ++rank) {
      const RankPart& part = plan_.parts[static_cast<size_t>(rank)];
      const auto list =
          weight_buffers(spec_, part, plan_.stages[static_cast<size_t>(part.stage)].layers,
                         part.stage == 0, part.stage == plan_.last_stage());
      Loaded loaded;
      loaded.arena = std::make_unique<Arena>("weights", list.total());
      std::vector<std::pair<int64_t, int64_t>> progress;
      const WeightWriter writer = cpu_writer(exec_);
      loaded.weights =
          load_weights(*gguf_, spec_, plan_, rank, {{&writer, loaded.arena.get()}, {}, {}},
                       [&](int64_t done, int64_t total) { progress.emplace_back(done, total); });
      EXPECT_EQ(loaded.arena->used(), loaded.arena->bytes());
      EXPECT_FALSE(progress.empty());
      for (size_t i = 1; i < progress.size(); ++i) {
        EXPECT_LE(progress[i - 1].first, progress[i].first);
      }
      EXPECT_EQ(progress.back(), std::pair(loaded.arena->bytes(), loaded.arena->bytes()));
      all.push_back(std::move(loaded));
    }
    return all;
  }

  // W x in doubles, from the file's values, of rows [rows) and columns [cols).
  std::vector<double> expected(const std::string& name, Range rows, Range cols) const {
    const TinyTensor& t = model_->tensor(name);
    const int64_t n_cols = t.dims[0];
    std::vector<double> out;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      double sum = 0;
      for (int64_t c = cols.begin; c < cols.end; ++c) {
        sum += static_cast<double>(t.decoded[static_cast<size_t>(r * n_cols + c)]) * input(c);
      }
      out.push_back(sum);
    }
    return out;
  }
  // Whole numbers, 127 in every block of 32: exact as int8 codes.
  static double input(int64_t column) { return column % 32 == 0 ? 127.0 : (column * 37) % 127; }

  // The packed part times the same input.
  std::vector<double> product(const PackedMatrix& w, int64_t first_col) const {
    const int64_t blocks = w.cols / 32;
    std::vector<float> x;
    for (int64_t c = 0; c < w.cols; ++c) x.push_back(static_cast<float>(input(first_col + c)));
    std::vector<int8_t> q8(x.size() + 1);
    std::vector<float> scale(static_cast<size_t>(blocks) + 1);
    std::vector<int32_t> sum(static_cast<size_t>(2 * blocks) + 1);
    const cpu::Activations a{{x.data(), 1, w.cols},
                             {q8.data(), 1, w.cols},
                             {scale.data(), 1, blocks},
                             {sum.data(), 1, 2 * blocks}};
    if (quant_info(w.type).block_elements > 1) cpu::quantize_rows(exec_, a);
    std::vector<double> out(static_cast<size_t>(w.rows), -1);
    cpu::matmul_partial(exec_, w, a, {out.data(), 1, w.rows});
    return out;
  }

  void expect_part(const PackedMatrix& w, const std::string& name, Range rows, Range cols) {
    SCOPED_TRACE(name);
    ASSERT_EQ(w.rows, rows.size());
    ASSERT_EQ(w.cols, cols.size());
    EXPECT_EQ(w.type, model_->tensor(name).type);
    const auto want = expected(name, rows, cols);
    const auto got = product(w, cols.begin);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-4) << "row " << i;
  }
  void expect_vector(std::span<const float> got, const std::string& name, Range range) {
    SCOPED_TRACE(name);
    const std::vector<float> all = model_->values(name);
    const std::vector<float> want(all.begin() + range.begin, all.begin() + range.end);
    EXPECT_EQ(std::vector<float>(got.begin(), got.end()), want);
  }

  void expect_layer(const LayerWeights& w, int64_t index) {
    const TinyOptions& o = model_->options();
    const int64_t d = o.head_dim;
    const Range q{w.part.heads.begin * d, w.part.heads.end * d};
    const Range kv{w.part.kv_heads.begin * d, w.part.kv_heads.end * d};
    const Range ff = w.part.ff;
    const Range dim{0, o.dim};
    const std::string blk = "blk." + std::to_string(index) + ".";
    expect_part(w.qkv[0], blk + "attn_q.weight", q, dim);
    expect_part(w.qkv[1], blk + "attn_k.weight", kv, dim);
    expect_part(w.qkv[2], blk + "attn_v.weight", kv, dim);
    expect_part(w.o, blk + "attn_output.weight", dim, q);
    expect_part(w.gate_up[0], blk + "ffn_gate.weight", ff, dim);
    expect_part(w.gate_up[1], blk + "ffn_up.weight", ff, dim);
    expect_part(w.down, blk + "ffn_down.weight", dim, ff);
    expect_vector(w.attention_norm, blk + "attn_norm.weight", dim);
    expect_vector(w.feed_forward_norm, blk + "ffn_norm.weight", dim);
    const Range none{};
    expect_vector(w.q_bias, blk + "attn_q.bias", o.biases ? q : none);
    expect_vector(w.k_bias, blk + "attn_k.bias", o.biases ? kv : none);
    expect_vector(w.v_bias, blk + "attn_v.bias", o.biases ? kv : none);
    expect_vector(w.o_bias, blk + "attn_output.bias", o.biases ? dim : none);
    expect_vector(w.gate_bias, blk + "ffn_gate.bias", o.biases ? ff : none);
    expect_vector(w.up_bias, blk + "ffn_up.bias", o.biases ? ff : none);
    expect_vector(w.down_bias, blk + "ffn_down.bias", o.biases ? dim : none);
  }

  void expect_split(const char* split) {
    SCOPED_TRACE(split);
    const std::vector<Loaded> ranks = load(split);
    const Range dim{0, model_->options().dim};
    for (size_t r = 0; r < ranks.size(); ++r) {
      SCOPED_TRACE("rank " + std::to_string(r));
      const RankPart& part = plan_.parts[r];
      const Weights& w = ranks[r].weights;
      const Range layers = plan_.stages[static_cast<size_t>(part.stage)].layers;
      ASSERT_EQ(static_cast<int64_t>(w.layers.size()), layers.size());
      for (int64_t i = 0; i < layers.size(); ++i) {
        EXPECT_EQ(w.layers[static_cast<size_t>(i)].part, part.layers[static_cast<size_t>(i)]);
        expect_layer(w.layers[static_cast<size_t>(i)], layers.begin + i);
      }
      if (part.stage == 0) {
        EXPECT_EQ(w.embedding_rows, part.embedding_rows);
        expect_part(w.embedding, "token_embd.weight", part.embedding_rows, dim);
      }
      if (part.stage == plan_.last_stage()) {
        const bool tied = model_->options().tied;
        EXPECT_EQ(w.output_rows, part.output_rows);
        expect_part(w.output, tied ? "token_embd.weight" : "output.weight", part.output_rows, dim);
        expect_vector(w.output_norm, "output_norm.weight", dim);
        // Stored once where the same rank embeds.
        EXPECT_EQ(w.output.data == w.embedding.data, tied && part.stage == 0);
      }
    }
  }

  TempDir dir_;
  ThreadPool pool_{1};
  cpu::Exec exec_{&pool_, cpu::best_isa()};
  std::unique_ptr<TinyModel> model_;
  std::unique_ptr<Gguf> gguf_;
  ModelSpec spec_;
  Plan plan_;
};

constexpr const char* kSplits[] = {"1", "5:2:3", "1:1:1:1:1", "1+1", "1@1:2+2@3:1:1", "2@1:1+1"};

TEST_F(LoaderTest, FloatWeightsWithBiases) {
  TinyOptions options;
  options.n_layers = 3;
  options.heads = 6;
  options.kv_heads = 3;
  options.ff = 170;
  options.vocab = 75;
  options.biases = true;
  options.vector_type = QuantType::kF16;
  open(options);
  for (const char* split : kSplits) expect_split(split);
}

TEST_F(LoaderTest, QuantizedTiedWeights) {
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_1, QuantType::kF16}) {
    TinyOptions options;
    options.n_layers = 3;
    options.heads = 9;
    options.kv_heads = 3;
    options.head_dim = 32;
    options.ff = 192;
    options.tied = true;
    options.type = type;
    open(options);
    for (const char* split : kSplits) expect_split(split);
  }
}

TEST_F(LoaderTest, SplitsReassembleTheWholeMatrix) {
  TinyOptions options;
  options.n_layers = 1;
  options.heads = 8;
  options.ff = 320;
  options.type = QuantType::kQ8_0;
  open(options);
  const std::vector<Loaded> ranks = load("5:2:3");
  std::vector<double> down(64, 0.0);
  std::vector<double> q;
  std::vector<double> up;
  for (const Loaded& rank : ranks) {
    const LayerWeights& w = rank.weights.layers[0];
    const auto part = product(w.down, w.part.ff.begin);
    for (size_t i = 0; i < down.size(); ++i) down[i] += part[i];
    for (const double v : product(w.qkv[0], 0)) q.push_back(v);
    for (const double v : product(w.gate_up[1], 0)) up.push_back(v);
  }
  const auto near = [](const std::vector<double>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-4) << i;
  };
  near(down, expected("blk.0.ffn_down.weight", {0, 64}, {0, 320}));
  near(q, expected("blk.0.attn_q.weight", {0, 128}, {0, 64}));
  near(up, expected("blk.0.ffn_up.weight", {0, 320}, {0, 64}));
}

TEST_F(LoaderTest, ModelOfSeveralFiles) {
  TinyOptions options;
  options.n_layers = 3;
  options.heads = 6;
  options.kv_heads = 3;
  model_ = std::make_unique<TinyModel>(options);
  const auto paths = model_->builder().write_split(dir_.file("parts"), 3);
  gguf_ = std::make_unique<Gguf>(Gguf::open(paths[1]));
  spec_ = read_model_spec(*gguf_);
  expect_split("1:1");
  expect_split("1@1+2@1");
}

}  // namespace
}  // namespace spillway::testing
