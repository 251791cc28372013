// The ledger: every buffer that a rank allocates, by name and bytes, computed from the plan alone.
// The loader and the executors take their buffers from exactly these lists, so that the plan's
// bytes come true; the planner adds them up. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/arena.h"
#include "parallel/plan.h"

namespace spillway {

struct BufferSpec {
  std::string name;
  int64_t bytes = 0;  // already rounded to the arena's alignment
};

// The buffers of one arena and their sum.
struct BufferList {
  std::vector<BufferSpec> buffers;
  int64_t total() const;
  int64_t bytes_of(const std::string& name) const;  // 0 when there is none
};

// Hands out one arena's buffers in the ledger's order. A name that is not the next one is a bug, so
// the ledger and its users cannot drift apart.
class BufferTaker {
 public:
  BufferTaker(BufferList list, Arena& arena) : list_(std::move(list)), arena_(&arena) {}
  std::byte* take(const std::string& name);
  template <typename T>
  T* take_array(const std::string& name) {
    return reinterpret_cast<T*>(take(name));
  }
  template <typename T>
  View2D<T> take_view(const std::string& name, int64_t rows, int64_t cols) {
    return View2D<T>(take_array<T>(name), rows, cols);
  }
  // All buffers have been taken.
  bool done() const { return next_ == list_.buffers.size(); }

 private:
  BufferList list_;
  Arena* arena_;
  size_t next_ = 0;
};

// Which of a rank's weight arenas a buffer lies in: the memory of the device that computes, the
// rank's spill memory on the host (pinned), or its spill file.
enum class WeightHome { kDevice, kHost, kDisk };
inline WeightHome home_of(Place place) {
  if (place == Place::kDisk) return WeightHome::kDisk;
  return in_host_memory(place) ? WeightHome::kHost : WeightHome::kDevice;
}

// Packed weights of this rank that lie in one home, in the order in which the loader takes them;
// norms, biases and the vocabulary's matrices lie on the device. The CPU's columns of a hybrid half
// are "... cpu gate" and so on, before the others.
BufferList weight_buffers(const ModelSpec& model, const RankPart& part, const Range& layers,
                          bool first_stage, bool last_stage, WeightHome home = WeightHome::kDevice);
// Their sum, in a hundredth of the time.
int64_t weight_bytes(const ModelSpec& model, const RankPart& part, const Range& layers,
                     bool first_stage, bool last_stage, WeightHome home = WeightHome::kDevice);
// KV pages of this rank's layers: "k<layer>" and "v<layer>" for every layer of the stage.
BufferList kv_buffers(const ModelSpec& model, const RankPart& part, const Range& layers,
                      const KvPlan& kv);
int64_t kv_bytes(const ModelSpec& model, const RankPart& part, const Range& layers,
                 const KvPlan& kv);
// Buffers of the residual stream that a rank sends to the next stage from host memory, used in
// turn: a step waits until the one before the last was received.
inline constexpr int64_t kSendBuffers = 2;
// Activations of a step, "x" as often as it is sent from; on the last stage also the head's, on the
// front (rank 0) the gathered logits.
BufferList activation_buffers(const ModelSpec& model, const RankPart& part,
                              const StepLimits& limits, bool last_stage);
// The end of that list, which a rank on a GPU has in host memory as well: what the head sends and
// what the front gathers.
BufferList message_buffers(const ModelSpec& model, const RankPart& part, const StepLimits& limits,
                           bool last_stage);
// The most bytes that a rank with this many vocabulary rows sends to the front in a step.
int64_t head_message_bytes(int64_t vocab_rows, const StepLimits& limits);

// Bytes of a rank's process beyond the arenas: program, MPI, gRPC, threads, tokeniser. Measured;
// the source says how.
int64_t program_bytes(int n_ranks, bool front, const ModelSpec& model, int threads);

// Fills plan.ledger from everything above; a rank on a GPU has the lists of gpu_ledger.h, weights,
// KV and activations in its GPU's memory. kSums: the lines of layers and activations added up, one
// for each name and place, without a detail: what a search needs of the plans that it compares.
enum class LedgerLines { kAll, kSums };
void write_ledger(Plan& plan, const ModelSpec& model, const ClusterSpec& cluster,
                  LedgerLines lines = LedgerLines::kAll);
// Of a spill file that a rank on a CPU reads through a mapping: 8 bytes for a page of 4 KiB. The
// pages themselves are the page cache's.
inline constexpr int64_t kMappedBytesAPageTableByte = 512;

}  // namespace spillway
