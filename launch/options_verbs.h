// What the files that describe a verb's flags share: options.cc and options_<verb>.cc, which are
// the only ones to see CLI11.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/options.h"

namespace CLI {
class App;
}  // namespace CLI

namespace spillway {

// Flags that are read as text and understood once all of them are there.
struct RawTexts {
  std::optional<std::string> split;
  std::optional<std::string> places;
  std::string kv_type = "f16";
  std::string device = "auto";
  std::string comm = "auto";
  std::optional<std::string> gpu_memory;
  std::optional<std::string> host_memory;
  std::optional<std::string> layers;
  std::optional<std::string> shares;
  std::optional<std::string> gpu_layers;
  std::optional<std::string> order;
  std::string objective = "latency";
  std::string kv_least;
  std::optional<std::string> check_hidden;
  std::vector<std::string> logit_bias;
};

// Words of llama.cpp that mean the same here in this program's names, and `help VERB`. Throws Error
// where -ctk and -ctv differ: there is one type of both caches.
std::vector<std::string> own_words(const std::vector<std::string>& words);

// Throws Error when there is a flag of llama.cpp that the verb has not: CLI11 takes "-hf x" for -h.
void refuse_foreign(const CLI::App& verb, const std::vector<std::string>& words);
// Throws Error for a key of the --config file, of which CLI11 says "INI was not able to parse
// run.bogus".
[[noreturn]] void refuse_config(const std::string& said);
// Throws Error: what CLI11 says of the line, or better words where a flag or a verb is unknown.
[[noreturn]] void refuse_line(const CLI::App& app, const std::vector<std::string>& words,
                              const std::string& said);

void set_help_format(CLI::App& app);        // of the verbs that are added afterwards, too
void add_model(CLI::App* app, Options& o);  // -m
void add_split(CLI::App* app, Options& o, RawTexts& raw);  // -c, -t, --tp, --pp, --split, ...
// --coordinator, --step-timeout, --check-hidden
void add_job(CLI::App* app, Options& o, RawTexts& raw);

void add_devices(CLI::App* app, Options& o, RawTexts& raw);  // --device, --share-gpus, --comm
void add_check_hidden(CLI::App* app, RawTexts& raw);
void add_device(CLI::App* app, RawTexts& raw);  // --device alone
void settle_devices(Options& o, const RawTexts& raw);

void add_plan_pins(CLI::App* app, Options& o, RawTexts& raw);  // --gpu-memory, --layers, -ngl, ...
void settle_plan_pins(Options& o, const RawTexts& raw);

void add_quantize(CLI::App& app, Options& o);
void add_probe(CLI::App& app, Options& o, RawTexts& raw);

void add_sweep(CLI::App& app, Options& o, RawTexts& raw);

void add_perplexity(CLI::App& app, Options& o, RawTexts& raw);
// What the flags of `perplexity` cannot say alone, and its context when -c is not given.
void settle_perplexity(Options& o);
// Room for the logits of a chunk's scored rows.
void size_for_perplexity(const Options& o, StepLimits& limits);

void add_tokenize(CLI::App& app, Options& o);
void add_template(CLI::App& app, Options& o);

}  // namespace spillway
