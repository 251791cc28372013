// The flags of `spillway perplexity`, and the room that its steps need.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "kernels/core/error.h"
#include "launch/options_verbs.h"

namespace spillway {
namespace {

constexpr int64_t kChunk = 512;
// Rows of logits a step. Each takes 4 bytes a vocabulary entry up to four times on the front (head,
// its message, another rank's message, the gathered row): 96 MiB for 49 152 entries, 500 MiB for
// 256 000. A chunk of 512 is then two steps, of 384 and 127 tokens.
constexpr int64_t kLogitRows = 128;

constexpr const char* kDefinition =
    "The text is cut into chunks of -c tokens; what is left over at its end is not read. Every "
    "chunk\n"
    "starts from an empty cache, with BOS in place of its first token if the model adds BOS; the\n"
    "tokens of its second half are scored: llama-perplexity's definition, so figures compare.\n"
    "With --stride N windows of -c tokens begin N tokens apart, each from an empty cache and with\n"
    "BOS as above; a window's last N tokens are scored, and all that the first window predicts.";

}  // namespace

void add_perplexity(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* perplexity =
      app.add_subcommand("perplexity", "Measure how well the model predicts a text");
  perplexity->footer(kDefinition);
  add_model(perplexity, o);
  perplexity->add_option("-f,--file", o.text_file, "the text, tokenised as it is")
      ->required()
      ->type_name("FILE");
  add_split(perplexity, o, raw);
  perplexity->get_option("-c")->description("tokens of a chunk or window [512]");
  perplexity->add_option("--stride", o.stride, "windows that overlap: tokens from one to the next")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  perplexity->add_option("--chunks", o.most_chunks, "read only the first so many [all]")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  add_job(perplexity, o, raw);
  perplexity->add_flag("--json", o.json, "print JSON");
  perplexity->add_flag("-q,--quiet", o.quiet, "only the result and errors");
}

void settle_perplexity(Options& o) {
  if (o.context == 0) o.context = kChunk;
  const std::string context = "-c " + std::to_string(o.context);
  if (o.context < 3) {
    throw Error(context +
                    " leaves nothing to score: the second half of a chunk must predict a "
                    "token",
                "", "pass -c 3 or more; 512 is usual");
  }
  if (o.stride > o.context) {
    throw Error("--stride " + std::to_string(o.stride) + " is more than " + context, "",
                "windows would leave tokens out; pass a stride of at most the context");
  }
}

void size_for_perplexity(const Options& o, StepLimits& limits) {
  limits.all_logits = true;
  limits.max_logit_rows = std::min(kLogitRows, o.context);
}

}  // namespace spillway
