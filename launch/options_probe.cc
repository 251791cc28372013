// The flags of spillway probe.
#include <CLI/CLI.hpp>

#include "launch/options_verbs.h"

namespace spillway {

void add_probe(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* probe = app.add_subcommand(
      "probe", "Measure this machine, under mpirun all of a job's: what plans are made from");
  probe->add_option("-m,--model", o.model, "also read this file, for the disk's rate")
      ->type_name("FILE");
  probe->add_option("-t,--threads", o.threads, "threads of each rank [its share of the cores]")
      ->check(CLI::Range(1, 1024));
  add_device(probe, raw);
  probe->add_option("--save", o.save, "write a cluster file, for `plan --cluster`")
      ->type_name("FILE");
  probe->add_flag("--refresh", o.refresh, "measure again what an earlier probe has kept");
  probe->add_flag("--json", o.json, "print JSON");
}

}  // namespace spillway
