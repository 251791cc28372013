// The ledger of a rank on a GPU, beside ledger.h: what its steps need in the GPU's memory, what it
// pins on the host, and what CUDA takes for itself. Weights and KV are the lists of ledger.h: the
// packed layout is the same on both sides. Pure, without CUDA.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/ledger.h"
#include "parallel/plan.h"

namespace spillway {

// GPU memory of a CUDA context with the program's kernels loaded: what an H100's driver counted for
// the process (580.159.04, CUDA 13.0; 14 plans of an 8B, 2026-11-26) less the arenas, 531 to 556
// MiB. Free bytes are read when the context exists, so what of it was there already counts twice: a
// reserve for kernels that CUDA loads late.
inline constexpr int64_t kCudaContextBytes = int64_t{556} << 20;
// Bytes of pinned host memory for one byte that the driver takes on the GPU to map them: 2.7 to 29
// GiB of weights took 1/350 to 1/300 on that H100.
inline constexpr int64_t kPinnedBytesAPageTableByte = 288;
// What the loader takes for copies on their way to the GPU: pinned host memory and as much of the
// GPU's, until the weights are there. Then KV cache, activations and words for other GPUs take the
// latter's place; load_peak_bytes() is by how much they are less.
inline constexpr int64_t kLoadStagingBytes = int64_t{128} << 20;
constexpr int64_t load_peak_bytes(int64_t taken_later) {
  return taken_later < kLoadStagingBytes ? kLoadStagingBytes - taken_later : 0;
}
// GPU memory that NCCL and CUDA take, beyond that context, in a rank that sums with other GPUs or
// sends rows to them: 362 to 374 MiB where two H100s did either (14 plans of an 8B, 2026-11-26).
inline constexpr int64_t kGroupContextBytes = int64_t{374} << 20;
// Of cuBLASLt: what its documentation recommends for Hopper.
inline constexpr int64_t kLibraryWorkspaceBytes = int64_t{32} << 20;
// Candidates a row that the GPU picks: kMaxCandidates of kernels/cuda/ops.h.
inline constexpr int64_t kGpuCandidates = 256;

// Why the GPU's kernels cannot run this model, or "".
std::string gpu_obstacle(const ModelSpec& model);

// Rows for which a decode step of n sequences is captured: the next of 1, 2, 4, ..., 64; n itself
// beyond, where steps are launched op by op.
inline constexpr int64_t kMostBucketRows = 64;
int64_t decode_bucket(int64_t n);

// Steps of so few rows attend row by row, as decode does: with its rounding, which is finer, and so
// with the same keys and values for a short prompt as for its tokens one by one.
inline constexpr int64_t kRowwiseRows = 64;

// Activations of a step on the GPU, in the order in which the executor takes them. Rows are
// limits.max_rows and limits.max_logit_rows rounded up to 8. tp_size: ranks of the stage; with
// several, "partial" follows "x", the rank's part of a sum [rows, dim].
BufferList gpu_activation_buffers(const ModelSpec& model, const RankPart& part,
                                  const StepLimits& limits, const KvPlan& kv, bool last_stage,
                                  int tp_size);

// Rows of logits that are brought to the host together, when whole rows are asked for.
inline constexpr int64_t kHostLogitRows = 16;
// Pinned host memory beside the loader's: a step on its way to the GPU, the residual stream
// [rows, dim] on its way from the stage before ("recv") and to the next ("send", kSendBuffers of
// it), results on their way back.
BufferList pinned_buffers(const ModelSpec& model, const RankPart& part, const StepLimits& limits,
                          const KvPlan& kv, bool last_stage);

// The most that attention's partial sums take, whatever the GPU: head_dim sums and two numbers a
// query head for up to 64 pieces of the context a sequence, or three blocks a multiprocessor over
// the KV heads if that is more; a row of outputs where quant blocks cross heads; and 32 KiB of
// counters. Not less than cuda::attend_workspace_bytes(), which knows the GPU.
int64_t attend_workspace_bytes_bound(int64_t max_rows, int64_t max_sequences, int64_t n_heads,
                                     int64_t n_kv_heads, int64_t head_dim);

// The most rows of a sum: a step's, or a decode bucket's.
int64_t device_comm_rows(const StepLimits& limits);

// What a rank of a TP group of tp_size GPUs allocates for its sums (device_communicator.h), the
// same for every fabric: in the GPU's memory its mailbox and a bf16 copy of a step's rows, in
// pinned host memory the pieces that go through MPI. 0 for a group of one. What NCCL allocates for
// itself, at start, comes on top.
// max_rows: device_comm_rows() in a job.
int64_t device_comm_bytes(int tp_size, int64_t max_rows, int64_t dim);
int64_t device_comm_pinned_bytes(int tp_size, int64_t max_rows, int64_t dim);
// Parts of these.
int64_t device_comm_mailbox_bytes(int tp_size, int64_t max_rows, int64_t dim);
int64_t device_comm_wire_bytes(int64_t max_rows, int64_t dim);
int64_t device_comm_piece_bytes(int64_t max_rows, int64_t dim);
inline constexpr int64_t kCommWordsBytes = 4096;  // the abort word, on a page of its own

// What a rank allocates for rows that go from GPU to GPU between stages (peer_hop.h): words, two
// slots of max_rows rows when it receives any, and in pinned host memory a page of words. 0 when it
// neither receives from a GPU nor sends to one.
int64_t device_hop_bytes(bool receives, bool sends, int64_t max_rows, int64_t dim);
int64_t device_hop_pinned_bytes(bool receives, bool sends);
// Whether the stage before the rank's, and the one after it, compute on GPUs as the rank does.
struct GpuNeighbours {
  bool receives = false;
  bool sends = false;
};
GpuNeighbours gpu_neighbours(const Plan& plan, int rank);

}  // namespace spillway
