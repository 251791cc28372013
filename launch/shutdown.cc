// See shutdown.h.
#include "launch/shutdown.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <new>
#include <system_error>

#include "kernels/core/error.h"

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

// A handler gets no argument of ours; written once before it is installed.
std::array<char, 4096> last_words;
size_t last_words_bytes = 0;

void on_alarm(int) {
  // Nobody is left to tell when this fails.
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, last_words.data(), last_words_bytes);
  _exit(1);
}

}  // namespace

std::string words_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return Error("the process cannot have more memory for its own tables", "heap",
                 "free memory on this host, or raise its limit (ulimit -v)")
        .what();
  }
  const auto* refused = dynamic_cast<const std::system_error*>(&error);
  if (refused != nullptr && refused->code() == std::errc::resource_unavailable_try_again) {
    return Error("the process cannot start a thread: " + refused->code().message(), "threads",
                 "raise the limits of processes (ulimit -u) and memory (ulimit -v), or take fewer "
                 "threads (-t)")
        .what();
  }
  return error.what();
}

void end_at_latest(const std::string& sentence, std::chrono::seconds grace) {
  const std::string line = sentence.empty() ? "" : "spillway: " + sentence + "\n";
  last_words_bytes = std::min(line.size(), last_words.size());
  std::copy_n(line.begin(), last_words_bytes, last_words.begin());
  std::signal(SIGALRM, on_alarm);
  alarm(static_cast<unsigned>(grace.count()));
}

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
