// See step_wire.h.
#include "runtime/engine/step_wire.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/core/check.h"
#include "parallel/cost.h"

namespace spillway {
namespace {

struct WireHeader {
  int64_t number;
  int64_t bytes;  // header included
  int32_t kind;
  int32_t n_tokens;
  int32_t n_sequences;
  int32_t n_pages;
  int32_t n_logit_rows;
  int32_t n_wanted;
};

template <typename T>
std::byte* put(std::byte* out, const std::vector<T>& values) {
  const size_t bytes = values.size() * sizeof(T);
  if (bytes > 0) std::memcpy(out, values.data(), bytes);
  return out + bytes;
}

template <typename T>
const std::byte* get(const std::byte* in, int32_t n, std::vector<T>& values) {
  CHECK_LE(static_cast<size_t>(n), values.capacity());
  values.resize(static_cast<size_t>(n));
  const size_t bytes = values.size() * sizeof(T);
  if (bytes > 0) std::memcpy(values.data(), in, bytes);
  return in + bytes;
}

int64_t most_bytes(const Plan& plan) {
  const StepLimits& limits = plan.limits;
  return static_cast<int64_t>(sizeof(WireHeader)) + 4 * limits.max_rows +
         static_cast<int64_t>(sizeof(StepSequence)) * limits.max_sequences + 4 * plan.kv.n_pages +
         limits.max_logit_rows * (static_cast<int64_t>(sizeof(LogitRow)) + 4 * limits.max_wanted);
}

}  // namespace

std::chrono::milliseconds step_allowance(const Plan& plan, const StepBatch& batch) {
  constexpr double kTimesPredicted = 10;
  return std::chrono::milliseconds(
      static_cast<int64_t>(kTimesPredicted * predicted_step_ms(plan, batch.n_rows())));
}

StepWire::StepWire(const Plan& plan)
    : bytes_(static_cast<size_t>(std::max(kFirstBytes, most_bytes(plan)))) {}

void StepWire::send(const StepBatch& batch, Communicator& world) {
  if (world.size() == 1) return;
  std::byte* out = bytes_.data() + sizeof(WireHeader);
  out = put(out, batch.tokens);
  out = put(out, batch.sequences);
  out = put(out, batch.pages);
  out = put(out, batch.logit_rows);
  out = put(out, batch.wanted);
  const int64_t total = out - bytes_.data();
  CHECK_LE(total, static_cast<int64_t>(bytes_.size()));
  const WireHeader header{batch.number,
                          total,
                          static_cast<int32_t>(batch.kind),
                          static_cast<int32_t>(batch.tokens.size()),
                          static_cast<int32_t>(batch.sequences.size()),
                          static_cast<int32_t>(batch.pages.size()),
                          static_cast<int32_t>(batch.logit_rows.size()),
                          static_cast<int32_t>(batch.wanted.size())};
  std::memcpy(bytes_.data(), &header, sizeof(header));
  const std::span<std::byte> all(bytes_);
  world.broadcast(all.first(kFirstBytes), 0);
  if (total > kFirstBytes) {
    world.broadcast(all.subspan(kFirstBytes, static_cast<size_t>(total - kFirstBytes)), 0);
  }
}

void StepWire::receive(StepBatch& batch, Communicator& world) {
  const std::span<std::byte> all(bytes_);
  world.broadcast(all.first(kFirstBytes), 0);
  WireHeader header;
  std::memcpy(&header, bytes_.data(), sizeof(header));
  CHECK_LE(header.bytes, static_cast<int64_t>(bytes_.size()));
  if (header.bytes > kFirstBytes) {
    world.broadcast(all.subspan(kFirstBytes, static_cast<size_t>(header.bytes - kFirstBytes)), 0);
  }
  batch.number = header.number;
  batch.kind = static_cast<StepKind>(header.kind);
  const std::byte* in = bytes_.data() + sizeof(WireHeader);
  in = get(in, header.n_tokens, batch.tokens);
  in = get(in, header.n_sequences, batch.sequences);
  in = get(in, header.n_pages, batch.pages);
  in = get(in, header.n_logit_rows, batch.logit_rows);
  get(in, header.n_wanted, batch.wanted);
}

}  // namespace spillway
