// See thread_pool.h. A worker waits for the next epoch by spinning a short while, yielding now and
// then (ranks may share cores), then sleeping; the caller waits for the workers in the same way.
#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/start_thread.h"

namespace spillway {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the gap between two ops of a layer, shorter than a time slice.
constexpr std::chrono::microseconds kStayAwake{20};
constexpr int kSpinsPerYield = 128;  // and per look at the clock
// Pieces of a worker's part in share(): what one that is late at the end is waited for is a piece.
constexpr int64_t kPieces = 8;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// True as soon as ready() is; false when spinning so long has not been enough.
template <typename Ready>
bool spin_until(Ready ready, std::chrono::microseconds most) {
  std::optional<Clock::time_point> end;
  do {
    for (int i = 0; i < kSpinsPerYield; ++i) {
      if (ready()) return true;
      pause_briefly();
    }
    std::this_thread::yield();
    if (!end) end = Clock::now() + most;
  } while (Clock::now() < *end);
  return ready();
}

cpu_set_t allowed_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) CPU_SET(0, &allowed);
  return allowed;
}

// The index-th allowed CPU, counted round.
int nth_cpu(const cpu_set_t& allowed, int index) {
  int left = index % std::max(1, CPU_COUNT(&allowed));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && left-- == 0) return cpu;
  }
  return 0;
}

// Best effort: a container may forbid it, and the work is right on any CPU.
void bind_this_thread(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof(one), &one);
}

}  // namespace

// What a worker has not come to of its part of share()'s elements; others take from it too.
struct alignas(64) Cursor {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

struct ThreadPool::Shared {
  // Written by the caller before `epoch` moves, read by workers after they saw it move.
  void (*call)(void*, int) = nullptr;
  void* context = nullptr;
  bool stop = false;
  std::atomic<std::chrono::microseconds> awake{kStayAwake};  // read by workers that are done
  int64_t piece = 1;
  int sharing = 0;              // workers that do
  std::vector<Cursor> cursors;  // by worker

  std::atomic<uint32_t> epoch{0};  // as wide as a futex; it may come round
  std::atomic<int> pending{0};     // workers that have not finished this epoch
  std::vector<std::thread> threads;
  bool pinned = false;
  cpu_set_t caller_cpus;  // as they were, given back by the destructor

  explicit Shared(int n_threads) : cursors(static_cast<size_t>(n_threads)) {}

  void publish() {
    epoch.fetch_add(1);
    epoch.notify_all();
  }

  void wait_for_epoch_after(uint32_t seen) {
    if (spin_until([&] { return epoch.load() != seen; }, awake.load())) return;
    epoch.wait(seen);
  }

  void finish_one() {
    if (pending.fetch_sub(1) == 1) pending.notify_one();
  }

  void wait_for_workers() {
    if (spin_until([&] { return pending.load() == 0; }, kStayAwake)) return;
    for (int left = pending.load(); left != 0; left = pending.load()) pending.wait(left);
  }

  void work_until_stopped(int worker, int cpu) {
    if (cpu >= 0) bind_this_thread(cpu);
    for (uint32_t seen = 0;; ++seen) {
      wait_for_epoch_after(seen);
      if (stop) return;
      call(context, worker);
      finish_one();
    }
  }

  void stop_and_join() {
    stop = true;
    publish();
    for (std::thread& thread : threads) thread.join();
  }
};

ThreadPool::ThreadPool(int n_threads, bool pin, int first_cpu)
    : shared_(std::make_unique<Shared>(std::max(n_threads, 0))), n_threads_(n_threads) {
  CHECK_GE(n_threads, 1);
  CHECK_GE(first_cpu, 0);
  const cpu_set_t allowed = allowed_cpus();
  const auto work = [shared = shared_.get(), allowed, pin, first_cpu](int index) {
    const int worker = index + 1;  // the caller is worker 0
    shared->work_until_stopped(worker, pin ? nth_cpu(allowed, first_cpu + worker) : -1);
  };
  try {
    start_threads("thread pool", n_threads - 1, work, shared_->threads);
  } catch (...) {
    shared_->stop_and_join();
    throw;
  }
  if (pin) {
    shared_->pinned = true;
    shared_->caller_cpus = allowed;
    bind_this_thread(nth_cpu(allowed, first_cpu));
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop_and_join();
  if (shared_->pinned) {
    sched_setaffinity(0, sizeof(shared_->caller_cpus), &shared_->caller_cpus);
  }
}

void ThreadPool::run_raw(void (*call)(void*, int), void* context) {
  if (n_threads_ > 1) {
    shared_->call = call;
    shared_->context = context;
    shared_->pending.store(n_threads_ - 1);
    shared_->publish();
  }
  call(context, 0);
  if (n_threads_ > 1) shared_->wait_for_workers();
}

void ThreadPool::stay_awake(std::chrono::microseconds most) { shared_->awake = most; }

void ThreadPool::deal(int64_t n, int n_workers) {
  CHECK(n_workers >= 1 && n_workers <= n_threads_);
  shared_->piece = std::max<int64_t>(div_up(n, n_workers * kPieces), 1);
  shared_->sharing = n_workers;
  for (int worker = 0; worker < n_workers; ++worker) {
    Cursor& cursor = shared_->cursors[static_cast<size_t>(worker)];
    cursor.next.store(n * worker / n_workers, std::memory_order_relaxed);
    cursor.end = n * (worker + 1) / n_workers;
  }
}

Range ThreadPool::next_piece(int worker) {
  const int64_t piece = shared_->piece;
  const int sharing = shared_->sharing;
  for (int i = 0; i < sharing && worker < sharing; ++i) {
    Cursor& cursor = shared_->cursors[static_cast<size_t>((worker + i) % sharing)];
    if (cursor.next.load(std::memory_order_relaxed) >= cursor.end) continue;
    const int64_t begin = cursor.next.fetch_add(piece, std::memory_order_relaxed);
    if (begin < cursor.end) return {begin, std::min(begin + piece, cursor.end)};
  }
  return {};
}

Range ThreadPool::part(int worker, int64_t n, int64_t grain) const {
  CHECK(worker >= 0 && worker < n_threads_);
  CHECK_GE(n, 0);
  CHECK_GE(grain, 1);
  const int64_t units = div_up(n, grain);
  const int64_t begin = units * worker / n_threads_;
  const int64_t end = units * (worker + 1) / n_threads_;
  return {std::min(begin * grain, n), std::min(end * grain, n)};
}

}  // namespace spillway
