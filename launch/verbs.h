// The verbs of the command line. Each returns the process's exit code and throws Error.
#pragma once

#include "launch/options.h"
#include "launch/supervise.h"

namespace spillway {

int verb_run(const Options& options, WorkerNote& note);
int verb_verify(const Options& options, WorkerNote& note);
int verb_bench(const Options& options, WorkerNote& note);
int verb_sweep(const Options& options, WorkerNote& note);
int verb_perplexity(const Options& options, WorkerNote& note);
int verb_inspect(const Options& options);
int verb_plan(const Options& options);
int verb_quantize(const Options& options);
int verb_probe(const Options& options);
int verb_status(const Options& options);
int verb_tokenize(const Options& options);
int verb_template(const Options& options);

}  // namespace spillway
