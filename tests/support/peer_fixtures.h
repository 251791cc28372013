// The ranks of a TP group in one process: each a stream with a mailbox of its own, all on one GPU
// or spread over several. What is launched for one rank waits for the others, so everything is
// allocated before, and on one GPU the blocks of all ranks must find room side by side.
#pragma once

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/cuda/peer.h"
#include "kernels/cuda/peer_memory.h"
#include "tests/support/cuda_row_fixtures.h"

namespace spillway::cuda_test {

class PeerRanks {
 public:
  struct Rank {
    cuda::Stream stream;
    cuda::Exec exec;
    cuda::DeviceMemory mailbox;
    cuda::PeerGroup group;
  };

  // ordinals: the GPU of every rank. parts: blocks a row of a small sum, 0 for what peer_parts
  // says.
  PeerRanks(const std::vector<int>& ordinals, int64_t max_rows, int64_t dim, int parts = 0)
      : ordinals_(ordinals), abort_((device(), "test"), 64) {
    abort_word() = 0;
    const auto size_now = static_cast<int>(ordinals.size());
    for (int r = 0; r < size_now; ++r) {
      ranks_.push_back(make_rank(r, size_now, max_rows, dim, parts));
    }
    for (const auto& rank : ranks_) {
      for (int r = 0; r < size(); ++r) rank->group.mailboxes[r] = at(r).mailbox.data();
    }
    if (spread()) cuda::select_device(ordinals_[0]);
  }

  int size() const { return static_cast<int>(ordinals_.size()); }
  Rank& at(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  volatile uint32_t& abort_word() { return *reinterpret_cast<uint32_t*>(abort_.data()); }

  // Programmatic dependent launch. On one GPU kernels that start early take the room of those that
  // they wait for, so only few may.
  void set_overlap(bool overlap) {
    for (const auto& rank : ranks_) rank->exec.overlap = overlap && rank->exec.major >= 9;
  }

  // Whether all ranks' sums of n rows find room on one GPU at once, small ones with up to 128
  // registers a thread (512 threads fill a multiprocessor), large ones with up to 64.
  bool fits(int64_t rows, int64_t dim) {
    const bool small = rows <= cuda::kPeerSmallRows;
    const int64_t a_quad = dim <= 2048 ? 1 : dim <= 4096 ? 2 : 4;
    const int64_t block = std::max<int64_t>(32, div_up(dim / 4, a_quad));
    const int64_t threads = small ? std::max<int64_t>(block, 32 * at(0).group.parts) : block;
    return size() * rows * round_up(threads, 32) <=
           int64_t{at(0).exec.multiprocessors} * (small ? 512 : 1024);
  }

  // body(rank): on one GPU one after the other, else every rank in a thread that has its GPU.
  template <typename Body>
  void each(const Body& body) {
    if (!spread()) {
      for (int r = 0; r < size(); ++r) body(r);
      return;
    }
    std::vector<std::thread> threads;
    for (int r = 0; r < size(); ++r) {
      threads.emplace_back([&, r] {
        cuda::select_device(ordinals_[static_cast<size_t>(r)]);
        body(r);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  void wait() {
    each([&](int r) { at(r).stream.synchronize(); });
  }

 private:
  bool spread() const { return ordinals_.front() != ordinals_.back(); }

  std::unique_ptr<Rank> make_rank(int r, int n_ranks, int64_t max_rows, int64_t dim, int parts) {
    const int ordinal = ordinals_[static_cast<size_t>(r)];
    if (spread()) {
      cuda::select_device(ordinal);
      for (const int other : ordinals_) {
        if (other != ordinal) cuda::enable_peer_access(other);
      }
    }
    auto rank = std::make_unique<Rank>();
    rank->mailbox = cuda::DeviceMemory("test", cuda::peer_layout(n_ranks, max_rows, dim).bytes);
    rank->exec.major = device().major;
    rank->exec.multiprocessors = device().multiprocessors;
    rank->exec.stream = rank->stream.handle();
    rank->group.rank = r;
    rank->group.size = n_ranks;
    rank->group.max_rows = max_rows;
    rank->group.dim = dim;
    rank->group.parts = parts > 0 ? parts : cuda::peer_parts(device().major, dim);
    rank->group.abort = reinterpret_cast<uint32_t*>(abort_.data());
    return rank;
  }

  std::vector<int> ordinals_;
  cuda::PinnedMemory abort_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace spillway::cuda_test
