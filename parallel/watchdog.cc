// See watchdog.h.
#include "parallel/watchdog.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/start_thread.h"
#include "parallel/size_text.h"

namespace spillway {

using Clock = std::chrono::steady_clock;

// A look that comes so late: this process was stopped, as a batch system does with whole jobs, or
// its machine was. The step under way gets its time anew; rpc/coordinator.cc forgives as much.
constexpr std::chrono::milliseconds kOwnPause{1000};

// Thread: begin and end write the atomics; the watchdog's thread reads them. The mutex guards
// only `stop`, which the destructor sets.
struct Watchdog::Shared {
  std::chrono::milliseconds deadline{0};
  std::function<std::string()> describe;
  std::function<void(const std::string&)> on_stuck;

  std::atomic<int64_t> step{0};
  std::atomic<int64_t> begun_ns{0};        // 0: idle
  std::atomic<const char*> name{nullptr};  // of what is no step
  std::atomic<int64_t> limit_ms{0};
  std::atomic<int64_t> grace_ms{0};  // for who waits
  std::atomic<uint64_t> steps_begun{0};

  std::mutex mutex;
  std::condition_variable wake;
  bool stop = false;
  std::thread thread;

  // The watchdog's own:
  std::chrono::milliseconds period{0};
  Clock::time_point looked = Clock::now();
  Clock::time_point resumed{};  // the end of the last pause

  void begin(int64_t number, const char* what, std::chrono::milliseconds limit,
             std::chrono::milliseconds grace);
  void watch();
  void look(uint64_t& reported);
};

void Watchdog::Shared::begin(int64_t number, const char* what, std::chrono::milliseconds limit,
                             std::chrono::milliseconds grace) {
  begun_ns.store(0);  // between two steps the watchdog sees idleness, never a mixture
  steps_begun.fetch_add(1);
  step.store(number);
  name.store(what);
  limit_ms.store(limit.count());
  grace_ms.store(grace.count());
  begun_ns.store(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
}

void Watchdog::Shared::look(uint64_t& reported) {
  // The time comes first: were this thread held up after it, the step only seems younger. Read
  // last, it would add that wait to the age of a step that may have ended long ago.
  const auto now = Clock::now();
  if (now - looked > period + kOwnPause) resumed = now;
  looked = now;
  // begin() counts up before it writes the time and the step, so if the count is the same before
  // and after reading them, they belong to that step.
  const uint64_t count = steps_begun.load();
  const int64_t begun = begun_ns.load();
  const int64_t number = step.load();
  const char* what = name.load();
  const std::chrono::milliseconds limit(limit_ms.load());
  const std::chrono::milliseconds grace(grace_ms.load());
  if (begun == 0 || count == reported || steps_begun.load() != count) return;
  const auto age = now - std::max(Clock::time_point(std::chrono::nanoseconds(begun)), resumed);
  if (age <= limit) return;
  // Who waits is the victim of who computes: the latter reports first and is the one that is named.
  const std::string waiting = describe();
  if (!waiting.empty() && age <= limit + grace) return;
  reported = count;
  const double seconds = std::chrono::duration<double>(limit).count();
  on_stuck((what != nullptr ? what : "step " + std::to_string(number)) + " takes more than " +
           fixed_text(seconds, 1) + " s, " +
           (waiting.empty() ? "computing" : "waiting in " + waiting));
}

void Watchdog::Shared::watch() {
  uint64_t reported = 0;
  std::unique_lock<std::mutex> lock(mutex);
  while (!stop) {
    wake.wait_for(lock, period, [this] { return stop; });
    if (stop) return;
    lock.unlock();  // on_stuck may take its time, the destructor must not wait to tell us
    look(reported);
    lock.lock();
  }
}

Watchdog::Watchdog(std::chrono::milliseconds deadline, std::function<std::string()> describe,
                   std::function<void(const std::string&)> on_stuck)
    : shared_(std::make_unique<Shared>()) {
  CHECK_GT(deadline.count(), 0);
  CHECK(describe != nullptr);
  CHECK(on_stuck != nullptr);
  shared_->deadline = deadline;
  shared_->period =
      std::clamp(deadline / 4, std::chrono::milliseconds(1), std::chrono::milliseconds(100));
  shared_->describe = std::move(describe);
  shared_->on_stuck = std::move(on_stuck);
  shared_->thread = start_thread("watchdog", [shared = shared_.get()] { shared->watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->wake.notify_all();
  shared_->thread.join();
}

void Watchdog::begin(int64_t step, std::chrono::milliseconds allowance) {
  shared_->begin(step, nullptr, shared_->deadline + allowance, shared_->deadline / 3);
}

void Watchdog::begin(const char* name, std::chrono::milliseconds limit) {
  shared_->begin(step(), name, limit, limit / 3);
}

void Watchdog::end() { shared_->begun_ns.store(0); }

int64_t Watchdog::step() const { return shared_->step.load(); }

}  // namespace spillway
