// What the planner is told beside splits and devices: budgets, objective, and pins by stage, rank
// or layer: --gpu-memory, --host-memory, --objective, --kv-least, --layers, -ngl, -ts, --order,
// --plan.
#include <CLI/CLI.hpp>
#include <charconv>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "launch/options_verbs.h"

namespace spillway {
namespace {

// "3,1": numbers joined by commas.
template <typename T>
std::vector<T> parse_list(const std::string& flag, const std::string& text,
                          const std::string& example) {
  std::vector<T> values;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    T value{};
    const char* end = text.data() + comma;
    const auto result = std::from_chars(text.data() + at, end, value);
    if (result.ec != std::errc() || result.ptr != end) {
      throw Error(flag + ": \"" + text.substr(at, comma - at) + "\" is no number", "",
                  "e.g. " + flag + " " + example);
    }
    values.push_back(value);
    at = comma + 1;
  }
  return values;
}

constexpr int64_t kMostLayers = int64_t{1} << 20;
constexpr int64_t kAllLayers = 9999;  // more than a model has

// Of -ngl; -1 for auto. Throws what CLI11 prints.
int64_t parse_gpu_layers(const std::string& text) {
  if (text == "auto") return -1;
  if (text == "all") return kAllLayers;
  int64_t layers = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, layers);
  if (result.ec != std::errc() || result.ptr != end || layers < 0 || layers > kMostLayers) {
    throw CLI::ValidationError("--gpu-layers",
                               "\"" + text + "\" is no number of layers, nor all or auto");
  }
  return layers;
}

std::string check_gpu_layers(const std::string& text) {
  parse_gpu_layers(text);
  return "";
}

}  // namespace

void add_plan_pins(CLI::App* app, Options& o, RawTexts& raw) {
  app->add_option(
         "--gpu-memory", raw.gpu_memory,
         "what the job may hold of each GPU, as nvidia-smi counts it: 11.5GiB, or 0.8 of "
         "what is free; a list by rank [what is free once the CUDA context is there, which "
         "is counted once more: a margin of 600 MiB; so too where more is asked for than is free]")
      ->type_name("M[,M...]");
  app->add_option("--host-memory", raw.host_memory,
                  "what the job may take of each host's memory; a list by rank [what is free less "
                  "a margin of 1/32; so too where more is asked for than is free]")
      ->type_name("M[,M...]");
  app->add_option("--objective", raw.objective,
                  "latency (the shortest step of one sequence), throughput (most tokens of all "
                  "sequences), context (the longest that fits)")
      ->capture_default_str()
      ->check(CLI::IsMember({"latency", "throughput", "context"}));
  app->add_option("--kv-least", raw.kv_least,
                  "let the KV cache shrink down to this type where the other does not fit, or for "
                  "a longer context [not]")
      ->check(CLI::IsMember({"q8_0", "q4_0"}));
  app->add_option("--layers", raw.layers, "layers of each pipeline stage: 24,8")
      ->type_name("N[,N...]");
  app->add_option("--gpu-layers", raw.gpu_layers,
                  "also -ngl: the last N layers lie on the GPUs (all: every one), of the others "
                  "the feed-forward part is multiplied by the CPU [auto: as many as fit]")
      ->type_name("N|all|auto")
      ->check(CLI::Validator(check_gpu_layers, ""));
  app->add_option("--tensor-split", raw.shares,
                  "also -ts: shares by rank, of layers between stages, of every layer within one")
      ->type_name("S[,S...]");
  app->add_option("--order", raw.order, "the ranks as the stages take them, 0 first: 0,2,1")
      ->type_name("R[,R...]");
  app->add_option("--plan", o.plan_file,
                  "pins from a file that `plan --toml` wrote; flags win over it")
      ->type_name("FILE");
}

void settle_plan_pins(Options& o, const RawTexts& raw) {
  if (raw.gpu_memory) o.gpu_memory = parse_budgets("--gpu-memory", *raw.gpu_memory);
  if (raw.host_memory) o.host_memory = parse_budgets("--host-memory", *raw.host_memory);
  if (raw.layers) o.layers = parse_list<int64_t>("--layers", *raw.layers, "24,8");
  if (raw.shares) o.shares = parse_list<double>("-ts", *raw.shares, "3,1");
  if (raw.gpu_layers) o.gpu_layers = parse_gpu_layers(*raw.gpu_layers);
  if (raw.order) o.order = parse_list<int>("--order", *raw.order, "0,2,1");
  for (int i = 0; i < kObjectives; ++i) {
    const auto objective = static_cast<Objective>(i);
    if (raw.objective == objective_name(objective)) o.objective = objective;
  }
  if (raw.kv_least == "q8_0") o.least_kv = KvType::kQ8_0;
  if (raw.kv_least == "q4_0") o.least_kv = KvType::kQ4_0;
}

}  // namespace spillway
