// Nothing allocates after start: between two decoded tokens no rank asks the heap for a byte. Run
// by ctest alone and under mpirun with 2 ranks, sharing every layer and as two stages.
//   What is counted is every operator new of the process, by whatever thread. What MPI's C library
//   takes from malloc is not; tests/soak/run sees that.
#include <gtest/gtest.h>
#include <mpi.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include "parallel/mpi_communicator.h"
#include "tests/support/tiny_engine.h"

namespace {

std::atomic<int64_t> n_allocations{0};

void* counted(size_t bytes) {
  n_allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* counted(size_t bytes, std::align_val_t alignment) {
  n_allocations.fetch_add(1, std::memory_order_relaxed);
  const auto unit = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return counted(bytes); }
void* operator new[](size_t bytes) { return counted(bytes); }
void* operator new(size_t bytes, std::align_val_t alignment) { return counted(bytes, alignment); }
void* operator new[](size_t bytes, std::align_val_t alignment) { return counted(bytes, alignment); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace spillway {
namespace {

using testing::TinyJob;

constexpr int64_t kTokens = 60;
constexpr int64_t kFirst = 8;  // tokens until every buffer has been used once

// Notes the count at every token.
class CountingSink : public TokenSink {
 public:
  bool on_token(int32_t) override {
    if (n_ < kTokens) at_[static_cast<size_t>(n_)] = n_allocations.load();
    ++n_;
    return true;
  }
  void on_finish(FinishReason reason, const std::string& message) override {
    EXPECT_EQ(reason, FinishReason::kLength) << message;
  }
  // Between token kFirst and the last.
  int64_t allocations() const {
    EXPECT_EQ(n_, kTokens);
    EXPECT_GT(at_[kFirst], 0);  // it counts
    return at_[kTokens - 1] - at_[kFirst];
  }

 private:
  std::array<int64_t, kTokens> at_{};
  int64_t n_ = 0;
};

// As follow(), counting between the steps of the same tokens.
int64_t follow_and_count(const Plan& plan, Pipeline& pipeline, Mesh& mesh) {
  StepWire wire(plan, *mesh.world);
  StepBatch batch(plan.limits, plan.kv.n_pages);
  int64_t from = 0;
  int64_t to = 0;
  for (int64_t step = 0;; ++step) {
    wire.receive(batch);
    if (batch.kind == StepKind::kStop) break;
    pipeline.start(batch);
    if (step == kFirst) from = n_allocations.load();
    if (step == kTokens - 1) to = n_allocations.load();
  }
  pipeline.finish();
  EXPECT_GT(from, 0);
  EXPECT_GE(to, from);
  return to - from;
}

// On every rank: its allocations in 50 steps of decode.
int64_t allocations(const TinyJob& job, const std::string& split, const SamplingParams& sampling) {
  PlanRequest request = testing::request_of(split);
  request.limits.all_logits = false;
  request.limits.max_candidates = 100;  // 20 and what penalties touch
  const Plan plan = job.plan(request);
  Mesh mesh = build_mesh(plan, make_mpi_communicator());
  ThreadPool pool(2);
  const cpu::Exec exec{&pool, cpu::best_isa()};
  Pipeline pipeline(job.gguf, job.spec, plan, mesh, exec, 0, "", {});
  if (!mesh.front()) return follow_and_count(plan, pipeline, mesh);
  Watchdog watchdog = testing::quiet_watchdog();
  Metrics metrics;
  Engine engine(plan, job.spec, pipeline, mesh, watchdog, metrics);
  CountingSink sink;
  Request one;
  one.prompt = {1, 5, 9};
  one.max_new_tokens = kTokens;
  one.sampling = sampling;
  one.sink = &sink;
  EXPECT_EQ(engine.submit(std::move(one)), "");
  engine.run_until_idle();
  engine.stop();
  return sink.allocations();
}

class Decode : public ::testing::TestWithParam<bool> {
 protected:
  static std::vector<std::string> splits() {
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size == 1) return {"1"};
    return {"1:1", "1+1"};
  }
};

TEST_P(Decode, AllocatesNothing) {
  const TinyJob job(testing::tiny());
  SamplingParams greedy;
  greedy.temperature = 0;
  for (const std::string& split : splits()) {
    EXPECT_EQ(allocations(job, split, GetParam() ? testing::warm(7) : greedy), 0) << split;
  }
}

INSTANTIATE_TEST_SUITE_P(Sampling, Decode, ::testing::Bool());

}  // namespace
}  // namespace spillway
