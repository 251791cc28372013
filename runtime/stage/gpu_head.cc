// See gpu_head.h.
#include "runtime/stage/gpu_head.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "parallel/gpu_ledger.h"

namespace spillway {
namespace {

// Rows of logits that are computed together: the head's matrix is too large to be dequantised.
constexpr int64_t kHeadRows = 64;

static_assert(sizeof(cuda::Candidate) == sizeof(cpu::Candidate));

}  // namespace

GpuHead::GpuHead(const cuda::Exec& exec, const cuda::Stream& stream, const cpu::Exec& cpu,
                 const ModelSpec& model, const RankPart& part, const Weights& weights,
                 GpuScratch& scratch)
    : exec_(exec),
      stream_(stream),
      cpu_(cpu),
      model_(model),
      part_(part),
      weights_(weights),
      scratch_(scratch) {}

int64_t GpuHead::candidates_of(const StepBatch& batch) const {
  int64_t most = 0;
  for (const LogitRow& row : batch.logit_rows) most = std::max<int64_t>(most, row.n_candidates);
  const int64_t vocab = part_.output_rows.size();
  for (const int64_t k : kCandidateCounts) {
    if (most <= k) return std::min(k, vocab);
  }
  return std::min(cuda::kMaxCandidates, vocab);
}

// The head reads int8 input for any number of rows, so that many rows get the logits that each
// would get alone, and the CPU's.
void GpuHead::run(View2D<const float> x, int64_t k) {
  cuda::Exec exec = exec_;
  exec.bf16_tiles = false;
  exec.wide = false;
  exec.most_vector_rows = cuda::kVectorRows;
  const QuantType type = weights_.output.type;
  const bool plain = quant_info(type).block_elements == 1;
  const int64_t most = plain ? cuda::kVectorRows : kHeadRows;
  const int64_t vocab = weights_.output_rows.size();
  for (int64_t row = 0; row < x.rows; row += most) {
    const int64_t n = std::min(most, x.rows - row);
    const cuda::Input in = scratch_.logit_x.of(n, model_.dim);
    cuda::rms_norm(exec, {x.data + row * x.stride, n, x.cols, x.stride},
                   weights_.output_norm.data(), static_cast<float>(model_.norm_eps),
                   cuda::input_forms(exec, type, n), in);
    cuda::matmul(exec, {&weights_.output, 1}, in, {scratch_.logits + row * vocab, n, vocab});
  }
  if (k == 0) return;
  cuda::top_k(exec, View2D<const float>(scratch_.logits, x.rows, vocab), weights_.output_rows.begin,
              k, scratch_.topk, scratch_.candidates);
  cuda::copy_to_host(stream_, scratch_.host_candidates, scratch_.candidates,
                     x.rows * k * static_cast<int64_t>(sizeof(cuda::Candidate)));
}

// Rows [first, first + n) of the logits on the host.
void GpuHead::fetch_logits(int64_t first, int64_t n) {
  const int64_t vocab = part_.output_rows.size();
  cuda::copy_to_host(stream_, scratch_.host_logits, scratch_.logits + first * vocab, n * vocab * 4);
  stream_.synchronize();
}

void GpuHead::write_message(const StepBatch& batch, int64_t k, std::byte* out) {
  const Range vocab = part_.output_rows;
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
    const float* logits = scratch_.host_logits + (i - fetched_begin) * vocab.size();
    if (whole) {
      std::memcpy(out, logits, static_cast<size_t>(vocab.size()) * 4);
      out += vocab.size() * 4;
    } else {
      const int64_t n = std::min<int64_t>(row.n_candidates, vocab.size());
      const auto bytes = static_cast<size_t>(n) * sizeof(cuda::Candidate);
      if (picked_here) {
        cpu::top_k(cpu_, {logits, static_cast<size_t>(vocab.size())}, vocab.begin,
                   {reinterpret_cast<cpu::Candidate*>(out), static_cast<size_t>(n)});
      } else {
        std::memcpy(out, scratch_.host_candidates + i * k, bytes);
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

}  // namespace spillway
