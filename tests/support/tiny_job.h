// TinyJob: a TinyModel on disk, opened, planned and run as a job of threads. What the tests of
// stage, engine and launch share: the plan of a split, the ranks' pipelines, the logits of a
// prompt.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/ops.h"
#include "parallel/mesh.h"
#include "parallel/placement.h"
#include "parallel/planner.h"
#include "runtime/io/gguf.h"
#include "runtime/model/spec.h"
#include "runtime/stage/pipeline.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thread_communicator.h"
#include "tests/support/tiny_model.h"

namespace spillway::testing {

// A request with small limits; every row of a step may ask for its whole logits.
inline PlanRequest tiny_request(std::vector<StagePin> split = {}) {
  PlanRequest request;
  request.split = std::move(split);
  request.kv_type = KvType::kF32;
  request.limits.max_rows = 64;
  request.limits.max_sequences = 4;
  request.limits.max_logit_rows = 64;
  request.limits.max_candidates = 32;
  request.limits.max_wanted = 16;
  request.limits.all_logits = true;
  return request;
}

// One rank of a running job, built as launch builds it.
struct TinyRank {
  const Plan& plan;
  Mesh& mesh;
  Pipeline& pipeline;
};

class TinyJob {
 public:
  explicit TinyJob(TinyOptions options)
      : model(std::move(options)),
        gguf(Gguf::open(model.write(folder_.file("tiny.gguf")))),
        spec(read_model_spec(gguf)) {}

  Plan plan(const PlanRequest& request) const {
    int ranks = request.split.empty() ? 1 : 0;
    for (const StagePin& pin : request.split) ranks += static_cast<int>(pin.shares.size());
    return make_plan(spec, assumed_cluster(ranks), request);
  }

  // Runs body on every rank of the plan. Throws what the first rank threw.
  void run(const Plan& plan, const std::function<void(TinyRank&)>& body, int threads = 1,
           cpu::Isa isa = cpu::best_isa()) const {
    run_ranks(plan.n_ranks(), [&](std::unique_ptr<Communicator> world) {
      ThreadPool pool(threads);
      const cpu::Exec exec{&pool, isa};
      Mesh mesh = build_mesh(plan, std::move(world));
      Pipeline pipeline(gguf, spec, plan, mesh, exec, 0, spill_folder(), {});
      TinyRank rank{plan, mesh, pipeline};
      body(rank);
      pipeline.finish();
    });
  }

  // The logits of every position of `tokens`, read in chunks of `chunk` rows: [position][vocab].
  std::vector<std::vector<float>> logits(const Plan& plan, const std::vector<int32_t>& tokens,
                                         int64_t chunk = 64, int threads = 1,
                                         cpu::Isa isa = cpu::best_isa()) const {
    std::vector<std::vector<float>> all;
    run(
        plan,
        [&](TinyRank& rank) {
          StepBatch batch(plan.limits, plan.kv.n_pages);
          StepResult result(plan.limits, static_cast<int64_t>(plan.stages.back().ranks.size()));
          for (int64_t at = 0; at < static_cast<int64_t>(tokens.size()); at += chunk) {
            const int64_t n = std::min(chunk, static_cast<int64_t>(tokens.size()) - at);
            batch.clear();
            append(batch, plan, {tokens.begin() + at, tokens.begin() + at + n}, at, 0, 0);
            rank.pipeline.forward(batch, rank.mesh.front() ? &result : nullptr);
            if (!rank.mesh.front()) continue;
            for (int64_t i = 0; i < result.n_rows; ++i) {
              const auto& whole = result.rows[static_cast<size_t>(i)].whole;
              all.emplace_back(whole.begin(), whole.end());
            }
          }
        },
        threads, isa);
    return all;
  }

  // Where the ranks' weights on disk are.
  std::string spill_folder() const { return folder_.file("spill"); }

  // Adds rows of one sequence to a step, each with its whole logits. Its pages are first_page,
  // first_page + stride, ...
  static void append(StepBatch& batch, const Plan& plan, const std::vector<int32_t>& tokens,
                     int64_t first_position, int32_t slot, int32_t first_page, int32_t stride = 1) {
    const auto n = static_cast<int64_t>(tokens.size());
    const int64_t pages = div_up(first_position + n, plan.kv.page_tokens);
    batch.sequences.push_back({slot, static_cast<int32_t>(n), static_cast<int32_t>(pages),
                               static_cast<int32_t>(first_position)});
    for (int32_t p = 0; p < pages; ++p) batch.pages.push_back(first_page + p * stride);
    for (const int32_t token : tokens) {
      batch.logit_rows.push_back({static_cast<int32_t>(batch.n_rows()), 0, 0});
      batch.tokens.push_back(token);
    }
  }

 private:
  TempDir folder_;  // before the model, which is written into it

 public:
  TinyModel model;
  Gguf gguf;
  ModelSpec spec;
};

// For one rank on a GPU that nobody has, with weights as --place says.
inline Plan made_up_gpu_plan(const TinyJob& job, const std::string& places) {
  ClusterSpec cluster = assumed_cluster(1);
  cluster.ranks[0].gpu.name = "Made Up 9000";
  cluster.ranks[0].gpu.total_bytes = int64_t{80} << 30;
  cluster.ranks[0].gpu.free_bytes = int64_t{79} << 30;
  PlanRequest request = tiny_request();
  request.device = DeviceChoice::kGpu;
  request.places = parse_places(places);
  return make_plan(job.spec, cluster, request);
}

// n tokens that look random and are the same everywhere.
inline std::vector<int32_t> tiny_tokens(int64_t n, int64_t vocab, uint32_t seed = 7) {
  std::mt19937 generator(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>(generator() % static_cast<uint32_t>(vocab)));
  }
  return tokens;
}

}  // namespace spillway::testing
