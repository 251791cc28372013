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
#include "kernels/core/start_thread.h"

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
  watch_ = start_thread("signals", [this] { watch(); });
}

FaultGate::~FaultGate() {
  close();
  watch_.join();
}

void FaultGate::watch() {
  const sigset_t set = end_signals();
  while (state_ != State::kClosed) {
    if (told_) end_soon();
    const timespec tick{0, 50 * 1000000};
    const int got = sigtimedwait(&set, nullptr, &tick);
    if (got == SIGINT || got == SIGTERM) take_signal(got);
  }
}

void FaultGate::take_signal(int number) {
  // mpirun ends us because of another rank: the coordinator names that one within this moment.
  for (int i = 0; number == SIGTERM && i < 25 && state_ == State::kOpen; ++i) {
    std::this_thread::sleep_for(20ms);
  }
  fault(number == SIGINT ? "interrupted" : "ended by SIGTERM", front_);
}

void FaultGate::fault(const std::string& sentence, bool print_here) {
  State open = State::kOpen;
  if (!state_.compare_exchange_strong(open, State::kFaulted)) return;
  if (print_here) {
    std::fflush(stdout);
    std::fprintf(stderr, "\nspillway: %s\n", sentence.c_str());
    std::fflush(stderr);
  }
  world_.abort(sentence);
  told_ = true;
}

void FaultGate::end_soon() {
  std::this_thread::sleep_for(front_ ? kFrontGrace : kOthersGrace);
  // Threads of MPI or gRPC may wait for ever on a dead peer: no destructors, no MPI_Finalize.
  _exit(1);
}

bool FaultGate::explained(std::chrono::milliseconds patience) const {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (state_ != State::kFaulted && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(20ms);
  }
  return state_ == State::kFaulted;
}

void FaultGate::close() {
  State open = State::kOpen;
  state_.compare_exchange_strong(open, State::kClosed);
}

}  // namespace spillway
