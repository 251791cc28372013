// See step_wire.h.
#include "runtime/engine/step_wire.h"

#include <algorithm>
#include <cstring>
#include <numeric>
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

// Written to `bytes`; how many.
int64_t pack(const StepBatch& batch, std::vector<std::byte>& bytes) {
  const auto total = static_cast<int64_t>(
      sizeof(WireHeader) + 4 * (batch.tokens.size() + batch.pages.size() + batch.wanted.size()) +
      sizeof(StepSequence) * batch.sequences.size() + sizeof(LogitRow) * batch.logit_rows.size());
  CHECK_LE(total, static_cast<int64_t>(bytes.size()));
  std::byte* out = bytes.data() + sizeof(WireHeader);
  out = put(out, batch.tokens);
  out = put(out, batch.sequences);
  out = put(out, batch.pages);
  out = put(out, batch.logit_rows);
  out = put(out, batch.wanted);
  CHECK_EQ(out - bytes.data(), total);
  const WireHeader header{batch.number,
                          total,
                          static_cast<int32_t>(batch.kind),
                          static_cast<int32_t>(batch.tokens.size()),
                          static_cast<int32_t>(batch.sequences.size()),
                          static_cast<int32_t>(batch.pages.size()),
                          static_cast<int32_t>(batch.logit_rows.size()),
                          static_cast<int32_t>(batch.wanted.size())};
  std::memcpy(bytes.data(), &header, sizeof(header));
  return total;
}

}  // namespace

StepAllowance::StepAllowance(const Plan& plan)
    : plan_(plan), last_(plan.stages.size() > 1 ? plan.stages.size() + 1 : 1) {}

std::chrono::milliseconds StepAllowance::next(const StepBatch& batch) {
  constexpr double kTimesPredicted = 10;
  last_[at_] = std::chrono::milliseconds(
      static_cast<int64_t>(kTimesPredicted * predicted_step_ms(plan_, batch.n_rows())));
  at_ = (at_ + 1) % last_.size();
  return std::accumulate(last_.begin(), last_.end(), std::chrono::milliseconds(0));
}

// As many buffers as steps are in flight and one: when the front has the last of those to send, the
// last stage has received the first, see pipeline.h.
StepWire::StepWire(const Plan& plan, Communicator& world) : world_(world) {
  const size_t n = world.rank() == 0 ? plan.stages.size() + 1 : 1;
  const auto others = static_cast<size_t>(world.size() - 1);
  for (size_t i = 0; i < n && others > 0; ++i) {
    const auto bytes = static_cast<size_t>(std::max(kFirstBytes, most_bytes(plan)));
    buffers_.push_back({std::vector<std::byte>(bytes), OpenPosts(2 * others)});
  }
  for (const int rank : plan.stages.front().ranks) {
    if (rank != world.rank()) companions_.push_back(rank);
  }
  companion_tickets_.reserve(companions_.size());
}

void StepWire::send(const StepBatch& batch) {
  if (world_.size() == 1) return;
  Buffer& buffer = buffers_[turn_];
  turn_ = (turn_ + 1) % buffers_.size();
  buffer.posts.finish(world_);
  const int64_t total = pack(batch, buffer.bytes);
  const std::span<const std::byte> all(buffer.bytes);
  const auto post_to = [&](int to) {
    int64_t last = buffer.posts.post(world_, all.first(kFirstBytes), to);
    if (total > kFirstBytes) {
      const auto rest = static_cast<size_t>(total - kFirstBytes);
      last = buffer.posts.post(world_, all.subspan(kFirstBytes, rest), to);
    }
    return last;
  };
  companion_tickets_.clear();
  for (int to = 1; to < world_.size(); ++to) {
    const int64_t ticket = post_to(to);
    if (std::find(companions_.begin(), companions_.end(), to) != companions_.end()) {
      companion_tickets_.push_back(ticket);
    }
  }
  for (const int64_t ticket : companion_tickets_) world_.finish(ticket);
}

void StepWire::finish() {
  for (Buffer& buffer : buffers_) buffer.posts.finish(world_);
}

void StepWire::receive(StepBatch& batch) {
  const std::span<std::byte> all(buffers_.front().bytes);
  world_.recv(all.first(kFirstBytes), 0);
  WireHeader header;
  std::memcpy(&header, all.data(), sizeof(header));
  CHECK_LE(header.bytes, static_cast<int64_t>(all.size()));
  if (header.bytes > kFirstBytes) {
    world_.recv(all.subspan(kFirstBytes, static_cast<size_t>(header.bytes - kFirstBytes)), 0);
  }
  batch.number = header.number;
  batch.kind = static_cast<StepKind>(header.kind);
  const std::byte* in = all.data() + sizeof(WireHeader);
  in = get(in, header.n_tokens, batch.tokens);
  in = get(in, header.n_sequences, batch.sequences);
  in = get(in, header.n_pages, batch.pages);
  in = get(in, header.n_logit_rows, batch.logit_rows);
  get(in, header.n_wanted, batch.wanted);
}

}  // namespace spillway
