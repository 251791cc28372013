// See shutdown.h.
#include "launch/shutdown.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>

namespace spillway {
namespace {

using namespace std::chrono_literals;  // NOLINT: literals only, in this file

// The front leaves first, so that its sentence is read before mpirun's own report; the others give
// it this long.
constexpr auto kFrontGrace = 150ms;
constexpr auto kOthersGrace = 500ms;

sigset_t end_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void block_signals() {
  const sigset_t set = end_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A reader of our output that goes away is an error on write, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a spill file beyond `ulimit -f` is an error with words
}

FaultGate::FaultGate(Communicator& world, bool front) : world_(world), front_(front) {
  signals_ = std::thread([this] { watch_signals(); });
}

FaultGate::~FaultGate() {
  close();
  if (signals_.joinable()) signals_.join();
  if (reaper_.joinable()) reaper_.join();
}

void FaultGate::watch_signals() {
  const sigset_t set = end_signals();
  while (!closed_) {
    const timespec tick{0, 50 * 1000000};
    const int got = sigtimedwait(&set, nullptr, &tick);
    if (got != SIGINT && got != SIGTERM) continue;
    // mpirun ends us because of another rank: the coordinator names that one within this moment.
    for (int i = 0; got == SIGTERM && i < 25 && !faulted_; ++i) std::this_thread::sleep_for(20ms);
    fault(got == SIGINT ? "interrupted" : "ended by SIGTERM", front_);
    return;
  }
}

void FaultGate::fault(const std::string& sentence, bool print_here) {
  if (closed_ || faulted_.exchange(true)) return;
  if (print_here) {
    std::fflush(stdout);
    std::fprintf(stderr, "\nspillway: %s\n", sentence.c_str());
    std::fflush(stderr);
  }
  world_.abort(sentence);
  reaper_ = std::thread([this] { end_soon(); });
}

void FaultGate::end_soon() {
  std::this_thread::sleep_for(front_ ? kFrontGrace : kOthersGrace);
  // Threads of MPI or gRPC may wait for ever on a dead peer: no destructors, no MPI_Finalize.
  _exit(1);
}

bool FaultGate::explained() const {
  for (int i = 0; i < 50 && !faulted_; ++i) std::this_thread::sleep_for(20ms);
  return faulted_;
}

void FaultGate::close() { closed_ = true; }

}  // namespace spillway
