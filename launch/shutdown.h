// Shutdown: how a rank ends when something is wrong. A fault (a dead or silent peer, a hung step, a
// signal) is printed once, on the front or by whoever knows it alone, the communicator is aborted
// so that the main thread leaves its wait, and past a short grace the process exits with 1.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <thread>

#include "parallel/communicator.h"

namespace spillway {

class FaultGate {
 public:
  // Starts the signal thread: SIGINT and SIGTERM end the job with one line. Block these signals in
  // the calling thread first: block_signals(). front: this rank prints what concerns all.
  FaultGate(Communicator& world, bool front);
  ~FaultGate();

  // From any thread, first one wins: prints `sentence` when this rank should, aborts the
  // communicator, and sees to it that the process is gone within a second.
  void fault(const std::string& sentence, bool print_here);

  // The main thread caught an error: waits a moment for a fault that explains it. Whether one was
  // seen (then it is printed already).
  bool explained() const;
  // The job ended well: no fault counts any more.
  void close();

 private:
  void watch_signals();
  void end_soon();

  Communicator& world_;
  bool front_;
  std::atomic<bool> faulted_{false};
  std::atomic<bool> closed_{false};
  std::thread signals_;
  std::thread reaper_;
};

// The error's own words, and for what the standard library throws when the host has no memory and
// no thread to give, words with a way out.
std::string words_of(const std::exception& error);

// While an error unwinds the stack destructors may wait for what will never be (gRPC's, for a
// thread that it could not start). After `grace` the process says `sentence`, unless it is empty,
// and exits with 1, without a thread of its own. Thread: main.
void end_at_latest(const std::string& sentence, std::chrono::seconds grace);

// SIGINT and SIGTERM are taken by FaultGate's thread only. Before any thread starts.
void block_signals();

}  // namespace spillway
