// How fast host memory is read, by threads, and how fast while the bus to a GPU is busy with
// copies: what decides between computing spilled weights, streaming them, and both at once.
//   Thread: the pool's owner. Takes its buffer from the heap and gives it back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/cpu/ops.h"
#include "parallel/cluster_spec.h"

namespace spillway {

// Host memory written by the threads that read it, so that it lies near them.
class ReadBuffer {
 public:
  ReadBuffer(const cpu::Exec& exec, int64_t bytes);
  // The pool's first n threads read all of it, once, in pieces of about kPieceBytes one after the
  // other, each shared out as products are (ThreadPool::share). The rates of the pieces, 1e9 bytes
  // a second, are appended to `rates` if given: a thread that others interrupt spoils a piece and
  // not the whole. A piece is long beside a pool's start (0.3 ms at 100 GB/s) and short beside a
  // scheduler's turn.
  static constexpr int64_t kPieceBytes = int64_t{32} << 20;
  void read(int n_threads, std::vector<double>* rates = nullptr);
  int64_t bytes() const { return n_words_ * 8; }
  int n_threads() const { return exec_.pool->size(); }
  // All of it: numbers that every type of weights reads as ordinary ones.
  std::span<std::byte> memory() const {
    return {reinterpret_cast<std::byte*>(words_), static_cast<size_t>(bytes())};
  }
  int n_pieces() const { return static_cast<int>(std::max<int64_t>(1, bytes() / kPieceBytes)); }

 private:
  Range blocks_of(int piece) const;

  const cpu::Exec& exec_;
  int64_t n_words_;
  Arena memory_;  // large pages, as weights lie in
  uint64_t* words_;
};

// What copies to the rank's GPU meanwhile; empty without one. start: for about so many seconds, at
// once; running: whether it still copies; finish: waits, and says the rate in 1e9 bytes a second.
struct BusLoad {
  std::function<void(double seconds)> start;
  std::function<bool()> running;
  std::function<double()> finish;
};

// Of a buffer that no cache holds, as far as `free_bytes` of memory allow: a sixteenth of them.
int64_t read_buffer_bytes(int64_t free_bytes);

// One thread, half of the pool's, all of them: the best pieces of a few reads of read_buffer_bytes.
// About a second in all. Nobody else should read meanwhile.
std::vector<HostRead> measure_host_reads(const cpu::Exec& exec, int64_t free_bytes,
                                         const BusLoad& bus);

// The best piece of what all of the pool's threads read within `seconds`.
double best_read_gb_per_s(ReadBuffer& buffer, int n_threads, double seconds);

// All of the pool's threads while the host's other ranks do the same, which begin at the same time:
// the median piece of the reads within `seconds`, then as many again beside the bus. threads: of
// all the host's ranks.
HostRead measure_together(ReadBuffer& buffer, int threads, double seconds, const BusLoad& bus);

}  // namespace spillway
