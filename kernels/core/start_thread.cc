// See start_thread.h.
#include "kernels/core/start_thread.h"

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/core/simulated_fault.h"

namespace spillway {
namespace {

// The index-th of n.
std::thread start_one(const std::string& who, int index, int n, std::function<void()> body) {
  try {
    if (fault_simulated("start", who)) {
      throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
    }
    return std::thread(std::move(body));
  } catch (const std::system_error& error) {
    const std::string what = n == 1 ? "cannot start a thread"
                                    : "only " + std::to_string(index) + " of " + std::to_string(n) +
                                          " threads could be started";
    throw Error(what + ": " + error.code().message(), who,
                "raise the limits of processes (ulimit -u) and memory (ulimit -v), or take fewer "
                "threads (-t)");
  }
}

}  // namespace

std::thread start_thread(const std::string& who, std::function<void()> body) {
  return start_one(who, 0, 1, std::move(body));
}

void start_threads(const std::string& who, int n, const std::function<void(int)>& body,
                   std::vector<std::thread>& threads) {
  CHECK_GE(n, 0);
  // What is started is in the list, whatever happens to the next.
  threads.reserve(threads.size() + static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    threads.push_back(start_one(who, i, n, [body, i] { body(i); }));
  }
}

void check_threads(const std::string& who, int n) {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::vector<std::thread> threads;
  const auto end = [&] {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      over = true;
    }
    changed.notify_all();
    for (std::thread& thread : threads) thread.join();
  };
  const auto stay = [&](int) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return over; });
  };
  try {
    start_threads(who, n, stay, threads);
  } catch (...) {
    end();
    throw;
  }
  end();
}

}  // namespace spillway
