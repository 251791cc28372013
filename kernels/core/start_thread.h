// Threads with an owner's name: the system may have none left to give (ulimit -u, a container's
// limit of processes, no memory for a stack), and who wanted them says so with a way out.
//   Thread: any. Errors: Error; a test has it by simulate_fault("start " + who).
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace spillway {

// One thread, for `who`: "watchdog".
std::thread start_thread(const std::string& who, std::function<void()> body);

// body(i) for i in [0, n), each in a thread of its own, appended to `threads`. After an Error those
// that could be started are in there and run: the caller ends and joins them.
void start_threads(const std::string& who, int n, const std::function<void(int)>& body,
                   std::vector<std::thread>& threads);

// That n threads more can be had at once: starts them and lets them end. For a library that aborts
// the process where it cannot start one of its own.
void check_threads(const std::string& who, int n);

}  // namespace spillway
