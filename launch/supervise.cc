// See supervise.h.
#include "launch/supervise.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <string_view>

#include "launch/bring_up.h"

namespace spillway {
namespace {

// mpirun ends a job with SIGTERM and, about a second later, SIGKILL; a stopped worker must be gone
// before that.
constexpr int kGraceMs = 700;

int environment_number(const char* name, int fallback) {
  const char* text = std::getenv(name);
  if (text == nullptr) return fallback;
  int value = fallback;
  std::from_chars(text, text + std::strlen(text), value);
  return value;
}

// Passes SIGTERM and SIGINT on; waits for the worker, and past the grace kills it.
struct Ended {
  int status = 0;      // as waitpid gives it
  bool asked = false;  // we were told to end it
};

Ended wait_for_worker(pid_t worker, const sigset_t& watched) {
  int asked_ms = -1;
  for (;;) {
    int status = 0;
    const pid_t done = waitpid(worker, &status, WNOHANG);
    if (done == worker) return {status, asked_ms >= 0};
    if (done < 0 && errno != EINTR) return {1 << 8, asked_ms >= 0};
    const timespec tick{0, 20 * 1000000};
    const int got = sigtimedwait(&watched, nullptr, &tick);
    if (got == SIGTERM || got == SIGINT) {
      kill(worker, got);
      if (asked_ms < 0) asked_ms = 0;
    } else if (asked_ms >= 0) {
      asked_ms += 20;
      if (asked_ms > kGraceMs) kill(worker, SIGKILL);
    }
  }
}

[[noreturn]] void be_parent(pid_t worker, const LaunchedAs& launched, const WorkerNote& note,
                            const sigset_t& watched) {
  prctl(PR_SET_NAME, "spillway-guard");
  const Ended ended = wait_for_worker(worker, watched);
  if (WIFEXITED(ended.status)) _exit(WEXITSTATUS(ended.status));
  const int signal_number = WIFSIGNALED(ended.status) ? WTERMSIG(ended.status) : 0;
  if (!ended.asked) {
    char host[256] = "?";
    gethostname(host, sizeof(host) - 1);
    const long long step = note.metrics.step.load();
    char where[64] = "before its first step";
    if (step >= 0) std::snprintf(where, sizeof(where), "in step %lld", step);
    std::fprintf(stderr, "spillway: rank %d (pid %d on %s) was ended by signal %d (%s) %s\n",
                 launched.rank, static_cast<int>(worker), host, signal_number,
                 strsignal(signal_number), where);
  }
  _exit(1);
}

}  // namespace

LaunchedAs launched_as() {
  return {environment_number("OMPI_COMM_WORLD_RANK", 0),
          environment_number("OMPI_COMM_WORLD_SIZE", 0)};
}

WorkerNote* supervise(const LaunchedAs& launched) {
  void* page =
      mmap(nullptr, sizeof(WorkerNote), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) {
    throw RankError(std::string("cannot map a page: ") + std::strerror(errno));
  }
  auto* note = new (page) WorkerNote;
  if (launched.size == 0) return note;

  const pid_t launcher = getppid();
  sigset_t watched;
  sigset_t before;
  sigemptyset(&watched);
  sigaddset(&watched, SIGTERM);
  sigaddset(&watched, SIGINT);
  sigprocmask(SIG_BLOCK, &watched, &before);
  // When mpirun's daemon goes, so do we.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != launcher) _exit(1);
  const pid_t parent = getpid();
  const pid_t worker = fork();
  if (worker < 0) {
    throw RankError(std::string("cannot start the worker: ") + std::strerror(errno), "",
                    "raise the limits of processes (ulimit -u) and memory (ulimit -v)");
  }
  if (worker > 0) be_parent(worker, launched, *note, watched);

  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return note;
}

}  // namespace spillway
