// FlippedBit: a communicator, in one of whose sums a bit of one value flips on this rank alone, as
// with faulty memory or a kernel that reads too early.
#pragma once

#include <bit>
#include <memory>
#include <string>
#include <utility>

#include "parallel/communicator.h"

namespace spillway::testing {

class FlippedBit final : public Communicator {
 public:
  // number: of the sum, from 0.
  FlippedBit(std::unique_ptr<Communicator> group, int64_t number)
      : group_(std::move(group)), left_(number) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  const char* kind() const override { return group_->kind(); }
  void all_reduce(std::span<double> values) override {
    group_->all_reduce(values);
    if (left_-- != 0) return;
    constexpr uint64_t kBit = uint64_t{1} << 50;  // of the mantissa, kept by a float
    for (double& value : values) {
      if (value == 0) continue;
      value = std::bit_cast<double>(std::bit_cast<uint64_t>(value) ^ kBit);
      return;
    }
  }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    group_->all_gather(mine, all);
  }
  void broadcast(std::span<std::byte> bytes, int root) override { group_->broadcast(bytes, root); }
  void send(std::span<const std::byte> bytes, int to) override { group_->send(bytes, to); }
  void recv(std::span<std::byte> bytes, int from) override { group_->recv(bytes, from); }
  int64_t post(std::span<const std::byte> bytes, int to) override {
    return group_->post(bytes, to);
  }
  void finish(int64_t ticket) override { group_->finish(ticket); }
  bool progress() override { return group_->progress(); }
  void barrier() override { group_->barrier(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return group_->split(color, key);
  }
  bool healthy() const override { return group_->healthy(); }
  void abort(const std::string& reason) override { group_->abort(reason); }
  std::string waiting_for() const override { return group_->waiting_for(); }
  void note_wait(int rank, bool sending) override { group_->note_wait(rank, sending); }
  void note_call(const std::string& call) override { group_->note_call(call); }

 private:
  std::unique_ptr<Communicator> group_;
  int64_t left_;
};

}  // namespace spillway::testing
