// See options.h. Only this and the other options_*.cc see CLI11.
#include "launch/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <system_error>

#include "kernels/core/error.h"
#include "launch/options_verbs.h"
#include "launch/plan_file.h"
#include "launch/version.h"

namespace spillway {
namespace {

constexpr const char* kIntro =
    "Spillway runs large language models over several ranks: tensor and pipeline parallel, "
    "planned\n"
    "before anything is allocated.\n\n"
    "  spillway run -m model.gguf -p \"Once upon a time\"\n"
    "  mpirun -np 2 spillway run -m model.gguf --chat -p \"What is a spillway?\"\n"
    "  spillway plan -m model.gguf --ranks 4 --split 20@2:1+10@1\n";

// Tokens a step on a GPU: its products of many rows need so many before they run at full speed.
constexpr int64_t kGpuRows = 2048;

constexpr int64_t kMostNewTokens = int64_t{1} << 30;

constexpr const char* kSplitHelp =
    "stages joined by +, each [LAYERS@]SHARE[:SHARE...]: 20@2:1+10@1 is 20 layers on two ranks "
    "with shares 2:1, then 10 layers on a third";

}  // namespace

void add_model(CLI::App* app, Options& o) {
  app->add_option("-m,--model", o.model, "GGUF file (of several parts: any of them)")
      ->required()
      ->type_name("FILE");
}

// Not /tmp, which is memory on many machines.
std::string default_spill_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return std::string(cache) + "/spillway/spill";
  const char* home = std::getenv("HOME");
  return (home != nullptr ? std::string(home) : std::string("/var/tmp")) + "/.cache/spillway/spill";
}

void add_split(CLI::App* app, Options& o, RawTexts& raw) {
  app->add_option("-c,--ctx-size", o.context, "context in tokens [the model's, at most 4096]")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app->add_option(
         "--ubatch-size", o.step_rows,
         "tokens a step: a prompt is read in chunks of so many [2048 on GPUs, 512 on CPUs]")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app->add_option("-t,--threads", o.threads, "threads of each rank [its share of the cores]")
      ->check(CLI::Range(1, 1024));
  auto* tp = app->add_option("--tp", o.tp, "tensor-parallel degree of every stage")
                 ->check(CLI::Range(1, 4096));
  auto* pp = app->add_option("--pp", o.pp, "pipeline stages")->check(CLI::Range(1, 4096));
  app->add_option("--split", raw.split, kSplitHelp)->type_name("S")->excludes(tp)->excludes(pp);
  app->add_option("--place", raw.places,
                  "where weights lie, by half layer: 'layers 40-79 ffn = cpu; layers 0-9 = "
                  "streamed' (attn or ffn; resident, cpu, streamed, hybrid [SHARE], disk)")
      ->type_name("P");
  app->add_option("--cpu-rows", o.cpu_rows,
                  "beside a GPU: steps of more rows stream what lies in host memory, the CPU "
                  "multiplies none of it [up to where that is slower by the rates, 64 at most]")
      ->check(CLI::Range(int64_t{1}, int64_t{512}));
  app->add_option("--spill-dir", o.spill_folder,
                  "folder for weights placed on disk, of the size that the plan says; the file is "
                  "gone when the program ends [~/.cache/spillway/spill]")
      ->type_name("DIR");
  app->add_option("-k,--kv-type", raw.kv_type, "KV cache: f16, f32, q8_0 or q4_0")
      ->capture_default_str()
      ->check(CLI::IsMember({"f16", "f32", "q8_0", "q4_0"}));
  add_devices(app, o, raw);
  add_plan_pins(app, o, raw);
  app->add_option("--isa", o.isa, "instruction set of the CPU kernels [the best there is]")
      ->check(CLI::IsMember({"scalar", "avx2", "avx512"}));
}

void add_job(CLI::App* app, Options& o, RawTexts& raw) {
  app->add_option("--coordinator", o.listen,
                  "address where rank 0 listens for the other ranks and for `status`; several "
                  "hosts need one that all can reach")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app->add_option("--step-timeout", o.step_timeout_s,
                  "seconds, beyond ten times its predicted time, after which a step is hung")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 86400.0));
  add_check_hidden(app, raw);
}

namespace {

// By hand: CLI11 2.1 takes -1 and 2^64 for unsigned numbers and wraps them.
uint64_t parse_seed(const std::string& text) {
  uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, seed);
  if (result.ec != std::errc() || result.ptr != end) {
    throw CLI::ValidationError("--seed",
                               "\"" + text + "\" is not a number from 0 to 18446744073709551615");
  }
  return seed;
}

void add_sampling(CLI::App* app, Options& o, RawTexts& raw) {
  SamplingParams& s = o.sampling;
  app->add_option("--temp", s.temperature, "temperature; 0 takes the best token")
      ->capture_default_str();
  app->add_option("--top-k", s.top_k, "draw from the best K tokens; 0: all")->capture_default_str();
  app->add_option("--top-p", s.top_p, "... from the best that hold this probability")
      ->capture_default_str();
  app->add_option("--min-p", s.min_p, "... not below this share of the best one's probability")
      ->capture_default_str();
  app->add_option("--repeat-penalty", s.repeat_penalty, "divides logits of tokens seen; 1: off")
      ->capture_default_str();
  app->add_option("--frequency-penalty", s.frequency_penalty, "subtracted for each time seen")
      ->capture_default_str();
  app->add_option("--presence-penalty", s.presence_penalty, "subtracted once when seen")
      ->capture_default_str();
  app->add_option("--repeat-last-n", s.repeat_last_n, "tokens that the penalties look back")
      ->capture_default_str()
      ->check(CLI::Range(int32_t{0}, int32_t{1} << 20));
  app->add_option("--logit-bias", raw.logit_bias, "TOKEN=NUMBER added to a logit (-inf bans it)")
      ->type_name("ID=B");
  app->add_option_function<std::string>(
         "--seed",
         [&o](const std::string& text) {
           o.sampling.seed = parse_seed(text);
           o.seed_given = true;
         },
         "random seed [a random one, printed at the end]")
      ->type_name("UINT");
  app->add_flag("--ignore-eos", o.ignore_eos, "go on past the model's end token");
}

CLI::App* add_run(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* run = app.add_subcommand("run", "Generate text: a prompt, standard input, or a chat");
  add_model(run, o);
  run->add_option("-p,--prompt", o.prompt, "text to complete [standard input]")->type_name("TEXT");
  auto* chat = run->add_flag("--chat", o.chat,
                             "talk with the model's chat template: answer -p, or a line of "
                             "standard input a turn");
  run->add_option("--system", o.system, "system message of the chat")
      ->type_name("TEXT")
      ->needs(chat);
  run->add_option("-n,--predict", o.new_tokens,
                  "most new tokens (of an answer); -1: as many as the context holds")
      ->capture_default_str()
      ->transform(CLI::Validator(
          [](std::string& text) {
            if (text == "-1") text = std::to_string(kMostNewTokens);
            return std::string();
          },
          ""))
      ->check(CLI::Range(int64_t{1}, kMostNewTokens));
  add_split(run, o, raw);
  add_sampling(run, o, raw);
  add_job(run, o, raw);
  auto* show = run->add_flag("--show-plan", o.show_plan, "print the plan's table before loading");
  run->add_flag("-q,--quiet", o.quiet, "only the text and errors")->excludes(show);
  return run;
}

void add_verify(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* verify = app.add_subcommand(
      "verify", "Compare splits with one rank: logits, KL divergence, greedy text");
  add_model(verify, o);
  add_split(verify, o, raw);
  add_job(verify, o, raw);
  auto* all = verify->add_flag("--all-splits", o.all_splits, "every legal split of 1 to N ranks");
  verify->add_option("--ranks", o.ranks, "start this many ranks with mpirun")
      ->check(CLI::Range(1, 64));
  for (const char* name : {"--tp", "--pp", "--split"}) all->excludes(verify->get_option(name));
  verify->add_option("-n,--tokens", o.verify_tokens, "greedy tokens of each of three prompts")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{512}));
  verify
      ->add_option("--tolerance", o.tolerance,
                   "greatest logit difference that passes; with GPUs only when it is given")
      ->capture_default_str()
      ->each([&o](const std::string&) { o.tolerance_given = true; })
      ->check(CLI::NonNegativeNumber);
  verify->add_flag("-q,--quiet", o.quiet, "only the last line");
}

void add_bench(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* bench = app.add_subcommand("bench", "Measure prefill and decode speed");
  add_model(bench, o);
  bench->add_option("-p", o.bench_prompt, "prompt tokens; 0: no prefill test")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  bench->add_option("-n", o.bench_new, "decoded tokens; 0: no decode test")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  bench->add_option("-d,--depth", o.bench_depth, "tokens in the cache before decode")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  bench->add_option("--sequences", o.bench_sequences, "sequences decoded at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  bench->add_option("-r,--repetitions", o.repetitions, "runs of each test")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  add_split(bench, o, raw);
  bench->get_option("--ctx-size")->description("context in tokens [what the tests need]");
  add_job(bench, o, raw);
  bench->add_flag("--profile", o.profile,
                  "then trace some steps: where every rank's time goes, by term, and which was "
                  "predicted worst");
  bench->add_flag("--json", o.json, "print JSON");
}

void add_others(CLI::App& app, Options& o, RawTexts& raw) {
  CLI::App* inspect = app.add_subcommand("inspect", "Show a GGUF file's metadata and tensors");
  add_model(inspect, o);
  inspect->add_flag("--json", o.json, "print JSON");

  CLI::App* plan = app.add_subcommand("plan", "Show where everything would lie, and how fast");
  plan->add_option("-m,--model", o.model,
                   "GGUF file, its header is enough; or a shape and a type: llama-70b:Q4_K_M "
                   "(configs/models, or SHAPE.toml:TYPE)")
      ->required()
      ->type_name("FILE|SHAPE:TYPE");
  plan->add_option(
          "--cluster", o.cluster,
          "machines to plan for [this one]: a file of `probe --save`, or the name of one in "
          "configs/clusters: 2x3090")
      ->type_name("FILE|NAME");
  plan->add_option("--ranks", o.ranks,
                   "ranks to plan for [the cluster's, or what --tp, --pp or --split need]")
      ->check(CLI::Range(1, 4096));
  plan->add_option("--sequences", o.bench_sequences,
                   "sequences decoded at once, which --objective throughput is about")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  add_split(plan, o, raw);
  auto* json = plan->add_flag("--json", o.json, "print JSON: every allocation by name and bytes");
  plan->add_flag("--toml", o.toml, "print the plan's pins, a file for --plan")->excludes(json);
  plan->add_option("--svg", o.svg, "draw the plan: devices as bars, layers as blocks")
      ->type_name("FILE");

  CLI::App* status = app.add_subcommand("status", "Show a running job's ranks, memory and speed");
  status->add_option("address", o.address, "the coordinator's address, as `run` printed it")
      ->required()
      ->type_name("HOST:PORT");
  status->add_option("--secret", o.secret, "the job's secret, when asked from another host");
}

std::pair<int32_t, float> parse_bias(const std::string& text) {
  const size_t equals = text.find('=');
  try {
    if (equals == std::string::npos || equals == 0) throw std::invalid_argument("no =");
    size_t used_id = 0;
    size_t used_bias = 0;
    const std::string id_text = text.substr(0, equals);
    const std::string bias_text = text.substr(equals + 1);
    const int id = std::stoi(id_text, &used_id);
    const float bias = std::stof(bias_text, &used_bias);
    if (used_id != id_text.size() || used_bias != bias_text.size()) {
      throw std::invalid_argument("rest");
    }
    return {id, bias};
  } catch (const std::logic_error&) {
    throw Error("--logit-bias \"" + text + "\" is not TOKEN=NUMBER", "",
                "e.g. --logit-bias 42=-inf");
  }
}

Verb verb_of(const CLI::App& app) {
  static constexpr std::pair<const char*, Verb> kVerbs[] = {
      {"run", Verb::kRun},           {"inspect", Verb::kInspect},
      {"plan", Verb::kPlan},         {"verify", Verb::kVerify},
      {"bench", Verb::kBench},       {"sweep", Verb::kSweep},
      {"status", Verb::kStatus},     {"tokenize", Verb::kTokenize},
      {"template", Verb::kTemplate}, {"perplexity", Verb::kPerplexity},
      {"quantize", Verb::kQuantize}, {"probe", Verb::kProbe}};
  for (const auto& [name, verb] : kVerbs) {
    if (app.got_subcommand(name)) return verb;
  }
  return Verb::kNone;
}

// What flags cannot say alone.
void check_together(const Options& o) {
  if (o.verb == Verb::kBench && o.bench_prompt == 0 && o.bench_new == 0) {
    throw Error("nothing to measure: -p and -n are both 0");
  }
  if (o.verb == Verb::kVerify && o.all_splits && o.ranks == 0) {
    throw Error("--all-splits needs --ranks N", "",
                "e.g. spillway verify -m F --all-splits --ranks 4");
  }
  if (o.verb == Verb::kTemplate && o.model.empty() && o.text.template_file.empty()) {
    throw Error("there is no template: -m and --template are both missing", "",
                "give -m MODEL or --template FILE");
  }
  const std::string sampling =
      check_sampling(o.sampling, std::numeric_limits<int32_t>::max(), plan_request(o).limits);
  if (!sampling.empty()) throw Error(sampling);
}

// Fills the options; o.help where the line asks for nothing more.
void parse_words(CLI::App& app, const std::vector<std::string>& words, Options& o) {
  std::vector<std::string> backwards(words.rbegin(), words.rend());  // as CLI11 takes a vector
  try {
    app.parse(std::move(backwards));
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    if (!chosen.empty()) refuse_foreign(*chosen.front(), words);
    o.help = chosen.empty() ? app.help() : chosen.front()->help("spillway");
  } catch (const CLI::CallForVersion&) {
    o.help = std::string(kProgram) + "\n";
  } catch (const CLI::ConfigError& error) {
    refuse_config(error.what());
  } catch (const CLI::ParseError& error) {
    refuse_line(app, words, error.what());
  }
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  Options o;
  RawTexts raw;
  CLI::App app(kIntro, "spillway");
  app.set_version_flag("--version", kProgram);
  app.require_subcommand(1);
  app.set_config("--config", "", "flags from a TOML file, a table a verb (docs/config.md)");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.get_config_ptr()->type_name("FILE");
  set_help_format(app);
  add_run(app, o, raw);
  add_others(app, o, raw);
  add_verify(app, o, raw);
  add_bench(app, o, raw);
  add_sweep(app, o, raw);
  add_perplexity(app, o, raw);
  add_tokenize(app, o);
  add_template(app, o);
  add_quantize(app, o);
  add_probe(app, o, raw);
  const std::vector<std::string> words = expanded_arguments({argv + 1, argv + std::max(1, argc)});
  parse_words(app, words, o);
  if (!o.help.empty()) return o;
  o.verb = verb_of(app);
  o.command_line.assign(argv, argv + argc);
  std::error_code no_error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", no_error);
  if (!self.empty()) o.command_line[0] = self.string();
  if (raw.split.has_value()) o.split = parse_split(*raw.split);
  if (raw.places.has_value()) o.places = parse_places(*raw.places);
  if (o.spill_folder.empty()) o.spill_folder = default_spill_folder();
  for (uint32_t t = 0; t < kKvTypes; ++t) {
    if (raw.kv_type == kv_type_name(static_cast<KvType>(t))) o.kv_type = static_cast<KvType>(t);
  }
  settle_devices(o, raw);
  settle_plan_pins(o, raw);
  for (const std::string& text : raw.logit_bias) o.sampling.logit_bias.push_back(parse_bias(text));
  if (o.verb == Verb::kPerplexity) settle_perplexity(o);
  check_together(o);
  return o;
}

int ranks_named(const Options& options) {
  if (options.ranks > 0) return options.ranks;
  if (!options.split.empty()) {
    size_t n = 0;
    for (const StagePin& stage : options.split) n += stage.shares.size();
    return static_cast<int>(n);
  }
  const size_t listed = std::max({options.shares.size(), options.order.size(),
                                  options.gpu_memory.size(), options.host_memory.size()});
  if (options.tp == 0 && options.pp == 0 && listed > std::max<size_t>(1, options.devices.size())) {
    return static_cast<int>(listed);
  }
  if (options.tp == 0 && options.pp == 0 && !options.devices.empty()) {
    return static_cast<int>(options.devices.size());
  }
  return std::max(1, options.tp) * std::max(1, options.pp);
}

PlanRequest plan_request(const Options& o) {
  PlanRequest request;
  request.tp = o.tp;
  request.pp = o.pp;
  request.split = o.split;
  request.places = o.places;
  request.context = o.context;
  request.kv_type = o.kv_type;
  request.device = o.device;
  request.devices = o.devices;
  request.share_gpus = o.share_gpus;
  request.layers = o.layers;
  request.shares = o.shares;
  request.order = o.order;
  request.gpu_layers = o.gpu_layers;
  request.gpu_memory = o.gpu_memory;
  request.host_memory = o.host_memory;
  request.objective = o.objective;
  request.least_kv = o.least_kv;
  request.choose_cpu_rows = o.cpu_rows == 0;
  request.choose_gpu_rows = o.step_rows == 0;
  request.gpu_rows = o.step_rows > 0 ? o.step_rows : kGpuRows;
  if (o.step_rows > 0) request.limits.max_rows = o.step_rows;
  if (o.cpu_rows > 0) request.limits.max_cpu_rows = o.cpu_rows;
  // One conversation at a time; verify compares whole rows of logits, and so does sampling from
  // more tokens than candidates are sent.
  request.limits.max_sequences = 1;
  request.limits.max_logit_rows = 1;
  if (o.verb == Verb::kBench || o.verb == Verb::kSweep || o.verb == Verb::kPlan) {
    request.limits.max_sequences = o.bench_sequences;
    request.limits.max_logit_rows = o.bench_sequences;
  }
  const SamplingParams& s = o.sampling;
  request.limits.all_logits =
      o.verb == Verb::kVerify || s.top_k == 0 || s.top_k > request.limits.max_candidates / 2;
  if (o.verb == Verb::kPerplexity) size_for_perplexity(o, request.limits);
  request.limits.max_wanted = std::max<int64_t>(
      request.limits.max_wanted, s.repeat_last_n + static_cast<int64_t>(s.logit_bias.size()));
  request.limits.max_candidates =
      std::max<int64_t>(request.limits.max_candidates, request.limits.max_wanted + 128);
  return request;
}

}  // namespace spillway
