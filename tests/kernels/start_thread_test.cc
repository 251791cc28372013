// Threads that the system does not give: who wanted how many, and what to do; nothing that was
// started before the refusal is left running. The refusals are simulated; tests/e2e/threads_e2e.py
// has real ones.
#include "kernels/core/start_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/simulated_fault.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/simulated_refusal.h"

namespace spillway {
namespace {

constexpr char kWayOut[] =
    ": Resource temporarily unavailable (raise the limits of processes (ulimit -u) and memory "
    "(ulimit -v), or take fewer threads (-t))";

class StartThread : public testing::SimulatedRefusal {};

TEST_F(StartThread, EveryBodyRunsOnceWithItsIndex) {
  std::vector<int> calls(5, 0);  // not atomic: one thread an element
  std::vector<std::thread> threads;
  start_threads(
      "readers", 5, [&](int i) { ++calls[static_cast<size_t>(i)]; }, threads);
  threads.push_back(start_thread("one", [] {}));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(calls, std::vector<int>(5, 1));
}

TEST_F(StartThread, OneThatIsRefusedNamesItsOwner) {
  simulate_fault("start watchdog");
  EXPECT_EQ(refusal([] { start_thread("watchdog", [] {}); }),
            std::string("watchdog: cannot start a thread") + kWayOut);
  start_thread("heartbeats", [] {}).join();
}

TEST_F(StartThread, ThoseBeforeTheRefusalAreTheCallersToJoin) {
  simulate_fault("start readers #4");
  std::atomic<int> ran{0};
  std::vector<std::thread> threads;
  EXPECT_EQ(refusal([&] {
              start_threads(
                  "readers", 7, [&](int) { ++ran; }, threads);
            }),
            std::string("readers: only 3 of 7 threads could be started") + kWayOut);
  ASSERT_EQ(threads.size(), 3u);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ran.load(), 3);
}

TEST_F(StartThread, AProbeEndsWhatItStarted) {
  check_threads("gRPC", 0);
  check_threads("gRPC", 9);
  simulate_fault("start gRPC #3");
  // A thread that it left behind would be joinable still, and end the process.
  EXPECT_EQ(refusal([] { check_threads("gRPC", 9); }),
            std::string("gRPC: only 2 of 9 threads could be started") + kWayOut);
}

TEST_F(StartThread, APoolSaysHowManyItWanted) {
  simulate_fault("start thread pool #6");
  EXPECT_EQ(refusal([] { ThreadPool(32); }),
            std::string("thread pool: only 5 of 31 threads could be started") + kWayOut);
  simulate_fault("");
  ThreadPool pool(3);
  std::atomic<int> sum{0};
  pool.run([&](int worker) { sum += worker; });
  EXPECT_EQ(sum.load(), 3);
}

}  // namespace
}  // namespace spillway
