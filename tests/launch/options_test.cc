// The command line: every flag of every verb arrives, and whatever is unknown, contradictory or out
// of range is an Error that says what to do.
#include "launch/options.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/launch/command_lines.h"

namespace spillway::testing {
namespace {

// The same for a verb with a model.
void refused_with_model(const std::string& verb, Args args, const Args& parts) {
  args.insert(args.begin(), {verb, "-m", "f.gguf"});
  refused(args, parts);
}

TEST(OptionsTest, RunWithEveryFlag) {
  // clang-format off
  const Options o = parse({
      "run", "-m", "f.gguf", "--chat", "-p", "hello there", "--system", "Be brief.", "-n", "7",
      "-c", "512", "-t", "3", "--tp", "2", "--pp", "3", "-k", "f32",
      "--device", "gpu", "--isa", "scalar",
      "--temp", "0.5", "--top-k", "9", "--top-p", "0.8", "--min-p", "0.1",
      "--repeat-penalty", "1.1", "--frequency-penalty", "0.2", "--presence-penalty", "-0.3",
      "--repeat-last-n", "12", "--logit-bias", "5=-1.5", "--logit-bias", "6=-inf",
      "--seed", "18446744073709551615", "--ignore-eos", "--coordinator", "0.0.0.0:7777",
      "--step-timeout", "4.5", "--show-plan"});
  // clang-format on
  EXPECT_EQ(o.verb, Verb::kRun);
  EXPECT_EQ(o.help, "");
  EXPECT_EQ(o.model, "f.gguf");
  EXPECT_TRUE(o.chat);
  EXPECT_EQ(o.prompt, "hello there");
  EXPECT_EQ(o.system, "Be brief.");
  EXPECT_EQ(o.new_tokens, 7);
  EXPECT_EQ(o.context, 512);
  EXPECT_EQ(o.threads, 3);
  EXPECT_EQ(o.tp, 2);
  EXPECT_EQ(o.pp, 3);
  EXPECT_EQ(o.kv_type, KvType::kF32);
  EXPECT_EQ(o.device, DeviceChoice::kGpu);
  EXPECT_EQ(o.isa, "scalar");
  EXPECT_EQ(o.sampling.temperature, 0.5F);
  EXPECT_EQ(o.sampling.top_k, 9);
  EXPECT_EQ(o.sampling.top_p, 0.8F);
  EXPECT_EQ(o.sampling.min_p, 0.1F);
  EXPECT_EQ(o.sampling.repeat_penalty, 1.1F);
  EXPECT_EQ(o.sampling.frequency_penalty, 0.2F);
  EXPECT_EQ(o.sampling.presence_penalty, -0.3F);
  EXPECT_EQ(o.sampling.repeat_last_n, 12);
  ASSERT_EQ(o.sampling.logit_bias.size(), 2U);
  EXPECT_EQ(o.sampling.logit_bias[0], std::pair(5, -1.5F));
  EXPECT_EQ(o.sampling.logit_bias[1].first, 6);
  EXPECT_TRUE(std::isinf(o.sampling.logit_bias[1].second));
  EXPECT_EQ(o.sampling.seed, 18446744073709551615ULL);
  EXPECT_TRUE(o.seed_given);
  EXPECT_TRUE(o.ignore_eos);
  EXPECT_EQ(o.listen, "0.0.0.0:7777");
  EXPECT_EQ(o.step_timeout_s, 4.5);
  EXPECT_TRUE(o.show_plan);
  EXPECT_FALSE(o.quiet);
  EXPECT_EQ(o.command_line.size(), 53U);
  EXPECT_EQ(o.command_line[0].front(), '/');
  EXPECT_EQ(o.command_line.back(), "--show-plan");
}

TEST(OptionsTest, DeviceOfEveryVerbThatComputes) {
  const Args verbs[] = {{"run"}, {"bench"}, {"verify"}, {"plan"}, {"perplexity", "-f", "text"}};
  for (Args args : verbs) {
    const std::string verb = args[0];
    SCOPED_TRACE(verb);
    args.insert(args.end(), {"-m", "f.gguf", "--device", "cpu"});
    const Options cpu = parse(args);
    EXPECT_EQ(cpu.device, DeviceChoice::kCpu);
    EXPECT_EQ(plan_request(cpu).device, DeviceChoice::kCpu);
    args.back() = "auto";
    EXPECT_EQ(parse(args).device, DeviceChoice::kAuto);
    args.back() = "tpu";
    refused(args, {"--device", "tpu", "auto", "gpu"});
  }
  const PlanRequest request = plan_request(parse({"run", "-m", "f.gguf"}));
  EXPECT_EQ(request.limits.max_rows, 512);
  EXPECT_EQ(request.gpu_rows, 2048);
}

TEST(OptionsTest, DevicesByRank) {
  const Options list = parse({"run", "-m", "f.gguf", "--device", "gpu,auto,cpu"});
  EXPECT_EQ(list.devices, (std::vector<DeviceChoice>{DeviceChoice::kGpu, DeviceChoice::kAuto,
                                                     DeviceChoice::kCpu}));
  EXPECT_EQ(plan_request(list).devices, list.devices);
  EXPECT_EQ(plan_request(list).device_of(2), DeviceChoice::kCpu);
  EXPECT_EQ(ranks_named(list), 3);
  EXPECT_EQ(ranks_named(parse({"plan", "-m", "f", "--device", "gpu,cpu", "--ranks", "4"})), 4);
  const Options one = parse({"run", "-m", "f.gguf", "--device", "gpu"});
  EXPECT_TRUE(one.devices.empty());
  EXPECT_EQ(plan_request(one).device_of(7), DeviceChoice::kGpu);
  for (const char* text : {"gpu,", ",", ",gpu", "gpu,tpu", "gpu;cpu", "gpu cpu", "GPU", ""}) {
    refused_with_model("run", {"--device", text}, {"--device", "gpu,gpu,cpu"});
  }
}

TEST(OptionsTest, SharedGpusAndTheirFabric) {
  for (Args args : {Args{"run"}, Args{"bench"}, Args{"verify"}, Args{"plan"},
                    Args{"perplexity", "-f", "text"}}) {
    SCOPED_TRACE(args[0]);
    args.insert(args.end(), {"-m", "f.gguf"});
    Options o = parse(args);
    EXPECT_FALSE(o.share_gpus);
    EXPECT_FALSE(plan_request(o).share_gpus);
    EXPECT_EQ(o.comm, CommChoice::kAuto);
    args.insert(args.end(), {"--share-gpus", "--comm", "staged"});
    o = parse(args);
    EXPECT_TRUE(plan_request(o).share_gpus);
    EXPECT_EQ(o.comm, CommChoice::kStaged);
    args.back() = "nccl";
    EXPECT_EQ(parse(args).comm, CommChoice::kNccl);
    args.back() = "peer";
    EXPECT_EQ(parse(args).comm, CommChoice::kPeer);
    args.back() = "ring";
    refused(args, {"--comm", "ring", "nccl", "peer", "staged"});
  }
}

TEST(OptionsTest, AToleranceThatIsGiven) {
  EXPECT_FALSE(parse({"verify", "-m", "f"}).tolerance_given);
  const Options o = parse({"verify", "-m", "f", "--tolerance", "0.001"});
  EXPECT_TRUE(o.tolerance_given);
  EXPECT_EQ(o.tolerance, 1e-3);
}

TEST(OptionsTest, RunsDefaults) {
  const Options o = parse({"run", "--model=f.gguf"});
  EXPECT_EQ(o.model, "f.gguf");
  EXPECT_FALSE(o.prompt.has_value());
  EXPECT_FALSE(o.chat || o.quiet || o.show_plan || o.ignore_eos || o.seed_given || o.json);
  EXPECT_EQ(o.context, 0);
  EXPECT_EQ(o.threads, 0);
  EXPECT_EQ(o.tp, 0);
  EXPECT_EQ(o.pp, 0);
  EXPECT_TRUE(o.split.empty());
  EXPECT_EQ(o.kv_type, KvType::kF16);
  EXPECT_EQ(o.device, DeviceChoice::kAuto);
  EXPECT_EQ(o.listen, "127.0.0.1:0");
  EXPECT_EQ(o.step_timeout_s, 3);
}

TEST(OptionsTest, PromptsOfAllKinds) {
  EXPECT_EQ(parse({"run", "-m", "f", "-p", ""}).prompt, "");
  EXPECT_EQ(parse({"run", "-m", "f", "--prompt", "a b\n\"c\""}).prompt, "a b\n\"c\"");
  EXPECT_EQ(parse({"run", "-m", "f", "--prompt=-x"}).prompt, "-x");
  EXPECT_EQ(parse({"run", "-m", "f", "-p", "plan"}).prompt, "plan");
}

TEST(OptionsTest, Split) {
  const Options o = parse({"plan", "-m", "f", "--split", "20@2:1+10@1"});
  ASSERT_EQ(o.split.size(), 2U);
  EXPECT_EQ(o.split[0].n_layers, 20);
  EXPECT_EQ(o.split[0].shares, (std::vector<double>{2, 1}));
  EXPECT_EQ(o.split[1].n_layers, 10);
  EXPECT_EQ(o.split[1].shares, (std::vector<double>{1}));
}

TEST(OptionsTest, OtherVerbs) {
  Options o = parse({"inspect", "-m", "f", "--json"});
  EXPECT_EQ(o.verb, Verb::kInspect);
  EXPECT_TRUE(o.json);
  o = parse({"plan", "-m", "f", "--ranks", "4", "--json", "-c", "100", "-k", "f16"});
  EXPECT_EQ(o.verb, Verb::kPlan);
  EXPECT_EQ(o.ranks, 4);
  EXPECT_TRUE(o.json);
  o = parse(
      {"verify", "-m", "f", "--all-splits", "--ranks", "4", "-n", "8", "--tolerance", "0.5", "-q"});
  EXPECT_EQ(o.verb, Verb::kVerify);
  EXPECT_TRUE(o.all_splits);
  EXPECT_EQ(o.ranks, 4);
  EXPECT_EQ(o.verify_tokens, 8);
  EXPECT_EQ(o.tolerance, 0.5);
  EXPECT_TRUE(o.quiet);
  EXPECT_EQ(parse({"verify", "-m", "f"}).verify_tokens, 64);
  o = parse({"bench", "-m", "f", "-p", "0", "-n", "16", "-r", "5", "--json"});
  EXPECT_EQ(o.verb, Verb::kBench);
  EXPECT_EQ(o.bench_prompt, 0);
  EXPECT_EQ(o.bench_new, 16);
  EXPECT_EQ(o.repetitions, 5);
  EXPECT_EQ(parse({"bench", "-m", "f"}).bench_prompt, 512);
  EXPECT_EQ(parse({"bench", "-m", "f"}).bench_new, 128);
  o = parse({"status", "10.0.0.1:7777", "--secret", "abc"});
  EXPECT_EQ(o.verb, Verb::kStatus);
  EXPECT_EQ(o.address, "10.0.0.1:7777");
  EXPECT_EQ(o.secret, "abc");
}

TEST(OptionsErrorTest, NoVerbOrAWrongOne) {
  refused({}, {"what to do is missing: run, ", "probe", "see spillway --help"});
  refused({"walk"}, {"no verb \"walk\"", "see spillway --help"});
  refused({"Run", "-m", "f"}, {"no verb \"Run\""});
  refused({"--fast", "run", "-m", "f"}, {"--fast"});
  refused({"run", "-m", "f", "plan", "-m", "f"}, {"see spillway"});
  refused({"run"}, {"--model", "see spillway run --help"});
  refused({"run", "-m"}, {"--model"});
  refused({"status"}, {"address"});
}

TEST(OptionsErrorTest, FlagsThatTheVerbDoesNotHave) {
  for (const char* verb : {"run", "inspect", "plan", "verify", "bench"}) {
    refused_with_model(verb, {"--fast"}, {"--fast", "see spillway " + std::string(verb)});
    refused_with_model(verb, {"stray"}, {"stray"});
  }
  refused_with_model("run", {"--json"}, {"--json"});
  refused_with_model("run", {"--ranks", "2"}, {"--ranks"});
  refused_with_model("run", {"--Temp", "1"}, {"--Temp"});
  refused_with_model("run", {"--tem", "1"}, {"--tem"});
  refused_with_model("inspect", {"--tp", "2"}, {"--tp"});
  refused_with_model("plan", {"--coordinator", "x:1"}, {"--coordinator"});
  refused_with_model("plan", {"--temp", "1"}, {"--temp"});
  refused_with_model("verify", {"--prompt", "x"}, {"--prompt"});
  refused_with_model("verify", {"--seed", "1"}, {"--seed"});
  refused_with_model("bench", {"--temp", "1"}, {"--temp"});
  refused({"status", "h:1", "-m", "f"}, {"-m"});
  refused({"status", "h:1", "h:2"}, {"h:2"});
}

TEST(OptionsErrorTest, FlagsThatContradictEachOther) {
  refused_with_model("run", {"--tp", "2", "--split", "1:1"}, {"--split", "--tp"});
  refused_with_model("plan", {"--pp", "2", "--split", "1+1"}, {"--split", "--pp"});
  refused_with_model("verify", {"--all-splits", "--ranks", "2", "--tp", "2"}, {"--all-splits"});
  refused_with_model("verify", {"--all-splits", "--ranks", "2", "--split", "1:1"},
                     {"--all-splits"});
  refused_with_model("verify", {"--all-splits"}, {"--all-splits needs --ranks N", "e.g."});
  refused_with_model("run", {"--system", "x"}, {"--system", "--chat"});
  refused_with_model("run", {"-q", "--show-plan"}, {"--show-plan"});
  refused_with_model("bench", {"-p", "0", "-n", "0"}, {"nothing to measure"});
  refused_with_model("run", {"--tp", "2", "--tp", "3"}, {"--tp"});
  refused({"run", "-m", "f", "-m", "g"}, {"--model"});
}

TEST(OptionsErrorTest, NumbersOutOfRange) {
  const std::vector<std::pair<std::string, Args>> cases = {
      {"-n", {"0", "-2", "x", "1.5", "", "99999999999999999999"}},
      {"-c", {"0", "-4", "x", "2000000000", "1e3"}},
      {"-t", {"0", "1025", "two"}},
      {"--tp", {"0", "-1", "4097", "1.5"}},
      {"--pp", {"0", "-2", "x"}},
      {"--isa", {"sse", "", "AVX2"}},
      {"-k", {"q8", "F16", ""}},
      {"--seed", {"-1", "x", "18446744073709551616", "1.5"}},
      {"--step-timeout", {"0", "-1", "soon"}},
      {"--top-k", {"x", "1.5", "3000000000"}},
      {"--repeat-last-n", {"-1", "2000000000"}},
  };
  for (const auto& [flag, values] : cases) {
    for (const std::string& value : values) refused_with_model("run", {flag, value}, {"--help"});
  }
  refused_with_model("verify", {"--tolerance", "-1"}, {"--tolerance"});
  refused_with_model("verify", {"-n", "513"}, {"--tokens"});
  refused_with_model("verify", {"--ranks", "65"}, {"--ranks"});
  refused_with_model("bench", {"-r", "0"}, {"--repetitions"});
  refused_with_model("bench", {"-p", "-1"}, {"-p"});
  refused_with_model("plan", {"--ranks", "0"}, {"--ranks"});
}

TEST(OptionsTest, Tokenize) {
  const Options o = parse({"tokenize", "-m", "f.gguf", "--no-bos", "--no-parse-special"});
  EXPECT_EQ(o.verb, Verb::kTokenize);
  EXPECT_EQ(o.model, "f.gguf");
  EXPECT_TRUE(o.text.no_bos);
  EXPECT_TRUE(o.text.no_parse_special);
  EXPECT_FALSE(o.text.decode);
  EXPECT_TRUE(parse({"tokenize", "-m", "f", "--decode"}).text.decode);
  refused({"tokenize"}, {"--model"});
  refused_with_model("tokenize", {"--decode", "--no-parse-special"}, {"--no-parse-special"});
  refused_with_model("tokenize", {"text"}, {"text"});
}

TEST(OptionsTest, Template) {
  const Options o = parse({"template", "--template", "t.jinja", "--tools", "tools.json",
                           "--add-generation-prompt", "--bos", "", "--eos", "</s>"});
  EXPECT_EQ(o.verb, Verb::kTemplate);
  EXPECT_EQ(o.text.template_file, "t.jinja");
  EXPECT_EQ(o.text.tools_file, "tools.json");
  EXPECT_TRUE(o.text.add_generation_prompt);
  EXPECT_EQ(o.text.bos, "");
  EXPECT_EQ(o.text.eos, "</s>");
  EXPECT_EQ(parse({"template", "-m", "f"}).text.bos, std::nullopt);
  refused({"template"}, {"-m and --template are both missing", "--template FILE"});
}

TEST(OptionsErrorTest, SamplingThatCannotBe) {
  const auto bad = [](const std::string& flag, const std::string& value, const std::string& part) {
    refused_with_model("run", {flag, value}, {part});
  };
  bad("--temp", "-1", "temperature is -1, must be");
  bad("--temp", "nan", "temperature");
  bad("--temp", "inf", "temperature");
  bad("--temp", "warm", "--temp");
  bad("--top-k", "-1", "top_k is -1");
  bad("--top-p", "0", "top_p is 0, must be in (0, 1]");
  bad("--top-p", "1.5", "top_p");
  bad("--min-p", "1", "min_p");
  bad("--repeat-penalty", "0", "repeat_penalty");
  bad("--frequency-penalty", "3", "frequency_penalty");
  bad("--presence-penalty", "-3", "presence_penalty");
}

TEST(OptionsErrorTest, LogitBias) {
  for (const char* bad : {"5", "=1", "5=", "x=1", "5=x", "5=1x", "5x=1", "5==1", "5=1=2", "1.5=1",
                          "99999999999=1", "5=1e99"}) {
    refused_with_model("run", {"--logit-bias", bad},
                       {"--logit-bias \"" + std::string(bad) + "\" is not TOKEN=NUMBER", "e.g."});
  }
  refused_with_model("run", {"--logit-bias", "5=inf"}, {"a number or -inf"});
  refused_with_model("run", {"--logit-bias", "5=nan"}, {"a number or -inf"});
  refused_with_model("run", {"--logit-bias", "-1=1"}, {"token -1"});
  refused_with_model("run", {"--logit-bias", "5=1", "--logit-bias", "5=2"}, {"token 5 twice"});
}

TEST(OptionsErrorTest, SplitGrammar) {
  for (const char* bad : {"", "a", "1:", ":1", "0", "1@", "@1", "20@2:1+", "+1", "-1", "1e3", "1:0",
                          "1,1", "1 1", "0@1", "1.5@1", "1@2@3", "1::1", "1++1"}) {
    refused_with_model("run", {"--split", bad},
                       {"--split \"" + std::string(bad) + "\"", "character", "20@2:1+10@1"});
  }
}

TEST(OptionsTest, PerplexityWithEveryFlag) {
  const Options o = parse({"perplexity", "-m", "f.gguf", "-f", "text", "-c", "64", "--stride", "16",
                           "--chunks", "9", "--split", "2:1+1", "-t", "3", "--json", "-q"});
  EXPECT_EQ(o.verb, Verb::kPerplexity);
  EXPECT_EQ(o.text_file, "text");
  EXPECT_EQ(o.context, 64);
  EXPECT_EQ(o.stride, 16);
  EXPECT_EQ(o.most_chunks, 9);
  EXPECT_EQ(o.split.size(), 2U);
  EXPECT_TRUE(o.json);
  EXPECT_TRUE(o.quiet);
  const Options plain = parse({"perplexity", "-m", "f.gguf", "-f", "text"});
  EXPECT_EQ(plain.context, 512);
  EXPECT_EQ(plain.stride, 0);
  EXPECT_EQ(plain.most_chunks, 0);
}

TEST(OptionsErrorTest, Perplexity) {
  refused_with_model("perplexity", {}, {"--file"});
  refused_with_model("perplexity", {"-f", "t", "-c", "2"}, {"-c 2", "score"});
  refused_with_model("perplexity", {"-f", "t", "-c", "0"}, {"-c"});
  refused_with_model("perplexity", {"-f", "t", "--stride", "0"}, {"--stride"});
  refused_with_model("perplexity", {"-f", "t", "--stride", "513"}, {"--stride 513", "-c 512"});
  refused_with_model("perplexity", {"-f", "t", "-c", "8", "--stride", "9"}, {"9", "-c 8"});
  refused_with_model("perplexity", {"-f", "t", "--chunks", "0"}, {"--chunks"});
  parse({"perplexity", "-m", "f", "-f", "t", "-c", "8", "--stride", "8"});
}

TEST(PlanRequestTest, TakesWhatTheFlagsSay) {
  const PlanRequest request =
      plan_request(parse({"run", "-m", "f", "--tp", "2", "--pp", "3", "-c", "99", "-k", "f32"}));
  EXPECT_EQ(request.tp, 2);
  EXPECT_EQ(request.pp, 3);
  EXPECT_EQ(request.context, 99);
  EXPECT_EQ(request.kv_type, KvType::kF32);
  EXPECT_EQ(parse({"run", "-m", "f", "--kv-type", "q8_0"}).kv_type, KvType::kQ8_0);
  EXPECT_EQ(parse({"run", "-m", "f", "--kv-type", "q4_0"}).kv_type, KvType::kQ4_0);
  EXPECT_EQ(request.limits.max_sequences, 1);
  EXPECT_FALSE(request.limits.all_logits);
  EXPECT_EQ(plan_request(parse({"run", "-m", "f", "--split", "1:2"})).split.size(), 1U);
}

TEST(PlanRequestTest, WholeRowsWhereSamplingOrVerifyNeedsThem) {
  const auto all_logits = [](Args args) { return plan_request(parse(args)).limits.all_logits; };
  EXPECT_TRUE(all_logits({"verify", "-m", "f"}));
  EXPECT_TRUE(all_logits({"perplexity", "-m", "f", "-f", "t"}));
  EXPECT_TRUE(all_logits({"run", "-m", "f", "--top-k", "0"}));
  EXPECT_TRUE(all_logits({"run", "-m", "f", "--top-k", "1000"}));
  EXPECT_FALSE(all_logits({"run", "-m", "f", "--top-k", "40"}));
  EXPECT_FALSE(all_logits({"bench", "-m", "f"}));
}

TEST(PlanRequestTest, LimitsHoldWhateverSamplingAsksFor) {
  for (const Args& extra :
       {Args{},
        {"--top-k", "128"},
        {"--top-k", "129"},
        {"--repeat-last-n", "5000"},
        {"--temp", "0", "--repeat-penalty", "1.2", "--repeat-last-n", "256"},
        {"--repeat-penalty", "1.2", "--repeat-last-n", "4000", "--top-k", "128"}}) {
    Args args = {"run", "-m", "f"};
    args.insert(args.end(), extra.begin(), extra.end());
    for (int token = 0; token < 300; ++token) {
      args.insert(args.end(), {"--logit-bias", std::to_string(token) + "=1"});
    }
    const Options o = parse(args);
    EXPECT_EQ(check_sampling(o.sampling, 50000, plan_request(o).limits), "");
    EXPECT_EQ(o.sampling.logit_bias.size(), 300U);
  }
}

}  // namespace
}  // namespace spillway::testing
