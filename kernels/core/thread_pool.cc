// See thread_pool.h. A worker waits for the next epoch by spinning a short while, yielding now and
// then (ranks may share cores), then sleeping; the caller waits for the workers in the same way.
#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/core/start_thread.h"

namespace spillway {
namespace {

// About 20 us: longer than the gap between two ops of a layer, shorter than a time slice.
constexpr int kSpins = 1024;
constexpr int kSpinsPerYield = 128;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// True as soon as ready() is; false when spinning has not been enough.
template <typename Ready>
bool spin_until(Ready ready) {
  for (int i = 1; i <= kSpins; ++i) {
    if (ready()) return true;
    pause_briefly();
    if (i % kSpinsPerYield == 0) std::this_thread::yield();
  }
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

struct ThreadPool::Shared {
  // Written by the caller before `epoch` moves, read by workers after they saw it move.
  void (*call)(void*, int) = nullptr;
  void* context = nullptr;
  bool stop = false;

  std::atomic<uint64_t> epoch{0};
  std::atomic<int> pending{0};  // workers that have not finished this epoch
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable done;
  std::vector<std::thread> threads;
  bool pinned = false;
  cpu_set_t caller_cpus;  // as they were, given back by the destructor

  // Sleeper and waker each write their own flag first and read the other's afterwards, all in one
  // total order (seq_cst), so one of them always sees the other.
  void publish() {
    epoch.fetch_add(1);
    if (sleepers.load() > 0) {
      { const std::lock_guard<std::mutex> lock(mutex); }
      work.notify_all();
    }
  }

  void wait_for_epoch_after(uint64_t seen) {
    const auto moved = [&] { return epoch.load() != seen; };
    if (spin_until(moved)) return;
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.fetch_add(1);
    work.wait(lock, moved);
    sleepers.fetch_sub(1);
  }

  void finish_one() {
    if (pending.fetch_sub(1) == 1 && caller_sleeps.load()) {
      { const std::lock_guard<std::mutex> lock(mutex); }
      done.notify_one();
    }
  }

  void wait_for_workers() {
    const auto finished = [&] { return pending.load() == 0; };
    if (spin_until(finished)) return;
    std::unique_lock<std::mutex> lock(mutex);
    caller_sleeps.store(true);
    done.wait(lock, finished);
    caller_sleeps.store(false);
  }

  void work_until_stopped(int worker, int cpu) {
    if (cpu >= 0) bind_this_thread(cpu);
    for (uint64_t seen = 0;; ++seen) {
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
    : shared_(std::make_unique<Shared>()), n_threads_(n_threads) {
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
