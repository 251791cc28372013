// The flags of `sweep`.
#include <CLI/CLI.hpp>

#include "launch/options_verbs.h"

namespace spillway {

void add_sweep(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* sweep = app.add_subcommand(
      "sweep", "Predict every legal configuration, run the best, print both side by side");
  add_model(sweep, o);
  SweepOptions& s = o.sweep;
  sweep->add_option("-p", o.bench_prompt, "prompt tokens; 0: no prefill test")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  sweep->add_option("-n", o.bench_new, "decoded tokens")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  sweep->add_option("-d,--depth", o.bench_depth, "tokens in the cache before decode")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  sweep->add_option("-r,--repetitions", o.repetitions, "runs of each test, in all rounds")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  sweep
      ->add_option("--rounds", s.rounds,
                   "pass over all configurations so often, with a part of the runs each [one run "
                   "a round; where loading takes longer than that, two rounds]")
      ->check(CLI::Range(1, 100));
  auto* offload = sweep->add_option(
      "--offload", s.offload_steps,
      "instead: the share of the layers on the GPU from none to all, in so many steps");
  offload->expected(0, 1)->default_str("8")->check(CLI::Range(1, 64));
  sweep->add_option("--best", s.best, "run so many of the fastest predicted")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000))
      ->excludes(offload);
  sweep->add_option("--controls", s.controls, "and so many of the others")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000))
      ->excludes(offload);
  sweep->add_option("--spill", s.spilled, "shares of the feed-forward halves off the GPU")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0))
      ->excludes(offload);
  sweep->add_option("--kv-types", s.kv_types, "KV caches to try: f16, f32, q8_0, q4_0")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::IsMember({"f16", "f32", "q8_0", "q4_0"}))
      ->excludes(offload);
  sweep->add_flag("--uneven", s.uneven, "also stages with shares 2:1:...:1")->excludes(offload);
  sweep->add_option("--csv", s.csv_file, "write the table there as CSV")->type_name("FILE");
  sweep->add_option("--svg", s.svg_file, "draw it there")->type_name("FILE");
  sweep->add_flag("--json", o.json, "print JSON");
  add_split(sweep, o, raw);
  sweep->get_option("--ctx-size")->description("context in tokens [what the tests need]");
  add_job(sweep, o, raw);
  sweep->add_flag("-q,--quiet", o.quiet, "only the table");
}

}  // namespace spillway
