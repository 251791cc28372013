// Flags of `spillway quantize`. See options_verbs.h.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "launch/options.h"
#include "launch/options_verbs.h"
#include "runtime/model/quant_mix.h"

namespace spillway {
namespace {

std::string types_with_sizes() {
  std::string list = "Types, and the bits of a weight in them:";
  for (const QuantMix& mix : quant_mixes()) {
    char line[96];
    std::snprintf(line, sizeof(line), "\n  %-8s %s", mix.name, mix.about);
    list += line;
  }
  return list;
}

}  // namespace

void add_quantize(CLI::App& app, Options& o) {
  CLI::App* quantize = app.add_subcommand("quantize", "Write a model in another type");
  QuantizeOptions& q = o.quantize;
  quantize->add_option("input", q.input, "GGUF file (of several parts: any of them)")
      ->required()
      ->type_name("IN");
  quantize->add_option("output", q.output, "the new file")->required()->type_name("OUT");
  quantize
      ->add_option("type", q.type, "Q4_K_M, Q5_K_M, Q6_K, Q8_0, ...: all of them are listed below")
      ->required()
      ->type_name("TYPE");
  quantize->add_option("-t,--threads", o.threads, "threads [all cores]")
      ->check(CLI::Range(1, 1024));
  quantize->add_flag("-f,--force", q.force, "replace OUT when it is there");
  quantize->add_flag("--dry-run", q.dry_run,
                     "print every tensor's new type and size, write nothing");
  quantize->add_flag("--pure", q.pure, "every matrix in one type");
  quantize->add_option("--output-tensor-type", q.output_type, "type of output.weight")
      ->type_name("T");
  quantize->add_option("--token-embedding-type", q.embedding_type, "type of token_embd.weight")
      ->type_name("T");
  quantize->add_flag("-q,--quiet", o.quiet, "only warnings and errors");
  quantize->footer(types_with_sizes());
}

}  // namespace spillway
