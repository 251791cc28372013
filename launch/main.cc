// spillway: one program for every rank and every verb. Parses, dispatches, prints errors: the last
// catch of the process.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#include "kernels/core/simulated_fault.h"
#include "launch/bring_up.h"
#include "launch/bus_guard.h"
#include "launch/options.h"
#include "launch/shutdown.h"
#include "launch/supervise.h"
#include "launch/verbs.h"

namespace spillway {
namespace {

int dispatch(const Options& options, WorkerNote& note) {
  switch (options.verb) {
    case Verb::kRun:
      return verb_run(options, note);
    case Verb::kVerify:
      return verb_verify(options, note);
    case Verb::kSweep:
      return verb_sweep(options, note);
    case Verb::kBench:
      return verb_bench(options, note);
    case Verb::kPerplexity:
      return verb_perplexity(options, note);
    case Verb::kInspect:
      return verb_inspect(options);
    case Verb::kPlan:
      return verb_plan(options);
    case Verb::kQuantize:
      return verb_quantize(options);
    case Verb::kProbe:
      return verb_probe(options);
    case Verb::kStatus:
      return verb_status(options);
    case Verb::kTokenize:
      return verb_tokenize(options);
    case Verb::kTemplate:
      return verb_template(options);
    case Verb::kNone:
      break;
  }
  return 2;
}

// The one file that a verb reads through a mapping; "" for a verb without.
const std::string& mapped_file(const Options& options) {
  return options.verb == Verb::kQuantize ? options.quantize.input : options.model;
}

// For tests: "rank 1: allocate host kv", without a rank on all of them. docs/failure.md has the
// deeds.
void take_simulated_fault(const LaunchedAs& launched) {
  const char* text = std::getenv("SPILLWAY_SIMULATE_FAULT");
  if (text == nullptr || *text == '\0') return;
  std::string fault = text;
  if (launched.rank == 0) std::fprintf(stderr, "spillway: a fault is simulated: %s\n", text);
  if (fault.rfind("rank ", 0) == 0) {
    const std::string mine = "rank " + std::to_string(launched.rank) + ": ";
    if (fault.rfind(mine, 0) != 0) return;
    fault.erase(0, mine.size());
  }
  simulate_fault(fault);
}

void print_error(const std::string& words, bool here) {
  if (!here) return;
  std::cout.flush();
  std::fprintf(stderr, "spillway: %s\n", words.c_str());
}

// What all ranks see alike, the front alone prints.
int run_main(int argc, char** argv) {
  const LaunchedAs launched = launched_as();
  const bool front = launched.rank == 0;
  const std::string rank = launched.size > 1 ? "rank " + std::to_string(launched.rank) + ": " : "";
  try {
    const Options options = parse_options(argc, argv);
    if (!options.help.empty()) {
      if (front) std::cout << options.help;
      return 0;
    }
    const std::string& mapped = mapped_file(options);
    if (!mapped.empty()) guard_mapped_file(mapped);
    WorkerNote* note = supervise(launched);
    take_simulated_fault(launched);
    return dispatch(options, *note);
  } catch (const SharedError& error) {
    print_error(error.what(), front);
  } catch (const RankError& error) {
    print_error(rank + error.what(), true);
  } catch (const Error& error) {
    // Before the ranks know each other an error is everybody's: a bad flag, a bad address.
    print_error(error.what(), front);
  } catch (const std::exception& error) {
    // No memory for a table: of this rank alone.
    print_error(rank + words_of(error), true);
  }
  return 1;
}

}  // namespace
}  // namespace spillway

int main(int argc, char** argv) {
  const int code = spillway::run_main(argc, argv);
  std::cout.flush();
  std::fflush(stdout);
  std::fflush(stderr);
  // Threads of MPI or gRPC may still wait when an error ended us early; an orderly end has nothing
  // left to do here either.
  _exit(code);
}
