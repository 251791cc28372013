// Watchdog: one thread that looks whether the main thread gets on. The main thread calls begin()
// when it starts a step and end() when it is done; a step that takes longer than the deadline calls
// on_stuck once, from the watchdog's thread, with a sentence ("step 9123 takes more than 3.0 s,
// waiting in all-reduce 57"). What is no step has a name and a limit of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace spillway {

class Watchdog {
 public:
  // describe: what the main thread waits for; called from the watchdog's thread.
  Watchdog(std::chrono::milliseconds deadline, std::function<std::string()> describe,
           std::function<void(const std::string&)> on_stuck);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // No locks, no allocation. Idle (between end and begin) never counts as stuck.
  // allowance: time that this step may take beyond the deadline, since it is known to be long.
  void begin(int64_t step, std::chrono::milliseconds allowance = std::chrono::milliseconds(0));
  // name: what is done instead of a step ("connecting"); it outlives the watchdog.
  void begin(const char* name, std::chrono::milliseconds limit);
  void end();
  int64_t step() const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// A step's time on the watchdog, or a named thing's: begins here, ends with the scope, also when
// that throws.
class WatchedStep {
 public:
  WatchedStep(Watchdog& watchdog, int64_t step, std::chrono::milliseconds allowance)
      : watchdog_(watchdog) {
    watchdog_.begin(step, allowance);
  }
  WatchedStep(Watchdog& watchdog, const char* name, std::chrono::milliseconds limit)
      : watchdog_(watchdog) {
    watchdog_.begin(name, limit);
  }
  ~WatchedStep() { watchdog_.end(); }
  WatchedStep(const WatchedStep&) = delete;
  WatchedStep& operator=(const WatchedStep&) = delete;

 private:
  Watchdog& watchdog_;
};

}  // namespace spillway
