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
  // Starts its thread, which also ends the process after a fault, when no other thread may be had:
  // SIGINT and SIGTERM end the job with one line. Block these signals in the calling thread first:
  // block_signals(). front: this rank prints what concerns all. Throws Error without a thread.
  FaultGate(Communicator& world, bool front);
  ~FaultGate();

  // From any thread, first one wins: prints `sentence` when this rank should, aborts the
  // communicator, and sees to it that the process is gone within a second.
  void fault(const std::string& sentence, bool print_here);

  // The main thread caught an error: waits for a fault that explains it, `patience` at most.
  // Whether one was seen (then it is printed already, or the front prints it).
  bool explained(std::chrono::milliseconds patience) const;
  // No fault counts any more, unless there has been one.
  void close();

 private:
  void watch();
  void take_signal(int number);
  void end_soon();

  enum class State { kOpen, kFaulted, kClosed };

  Communicator& world_;
  bool front_;
  std::atomic<State> state_{State::kOpen};  // changes once
  std::atomic<bool> told_{false};  // the fault is printed, and the communicator knows of it
  std::thread watch_;
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
