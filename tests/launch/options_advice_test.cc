// What people type who know llama.cpp, or who mistype: taken where it means the same, else told
// what to type. Flags and their meaning are those of llama.cpp's `llama-cli --help`.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "launch/options.h"
#include "tests/launch/command_lines.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

void refused_run(Args args, const Args& parts) {
  args.insert(args.begin(), {"run", "-m", "f.gguf", "-p", "hi"});
  refused(args, parts);
}

TEST(OptionsAdviceTest, WordsThatMeanTheSame) {
  const Options o = parse({"run", "-m", "f", "-ub", "64", "-ngl", "7", "-ts", "3,1", "-ctk", "q8_0",
                           "-ctv", "q8_0", "--n-predict", "9", "-cnv", "-sys", "be brief"});
  EXPECT_EQ(o.step_rows, 64);
  EXPECT_EQ(o.gpu_layers, 7);
  EXPECT_EQ(o.shares, (std::vector<double>{3, 1}));
  EXPECT_EQ(o.kv_type, KvType::kQ8_0);
  EXPECT_EQ(o.new_tokens, 9);
  EXPECT_TRUE(o.chat);
  EXPECT_EQ(o.system, "be brief");
  EXPECT_EQ(parse({"run", "-m", "f", "--n-gpu-layers=5"}).gpu_layers, 5);
  EXPECT_EQ(parse({"run", "-m", "f", "--cache-type-k=q4_0", "--cache-type-v", "q4_0"}).kv_type,
            KvType::kQ4_0);
  EXPECT_GE(parse({"run", "-m", "f", "-n", "-1"}).new_tokens, 1 << 30);
  EXPECT_GE(parse({"plan", "-m", "f", "-ngl", "all"}).gpu_layers, 9999);
  EXPECT_EQ(parse({"plan", "-m", "f", "-ngl", "auto"}).gpu_layers,
            parse({"plan", "-m", "f"}).gpu_layers);
}

TEST(OptionsAdviceTest, TextIsNoFlag) {
  EXPECT_EQ(parse({"run", "-m", "f", "-p", "-ub"}).prompt, "-ub");
  EXPECT_EQ(parse({"run", "-m", "f", "--prompt", "-ctk"}).prompt, "-ctk");
  EXPECT_EQ(parse({"run", "-m", "-ngl", "-p", "help"}).model, "-ngl");
}

TEST(OptionsAdviceTest, OneTypeOfBothCaches) {
  refused_run({"-ctk", "q8_0"}, {"-ctk q8_0", "-ctv f16", "use -k q8_0"});
  refused_run({"-ctk", "q8_0", "-ctv", "q4_0"}, {"-ctk q8_0", "-ctv q4_0"});
  refused_run({"-ctk"}, {"no value"});
  refused_run({"-ctk", "q8", "-ctv", "q8"}, {"q8", "q8_0"});
}

TEST(OptionsAdviceTest, FlagsOfOthers) {
  const std::vector<std::pair<Args, const char*>> cases = {
      {{"-b", "512"}, "--ubatch-size"}, {{"-fa"}, "leave it out"},
      {{"--no-mmap"}, "leave it out"},  {{"-sm", "row"}, "--tp N"},
      {{"-mg", "0"}, "CUDA_VISIBLE"},   {{"-f", "x.txt"}, "standard input"},
      {{"-np", "2"}, "--sequences"},    {{"-hf", "a/b"}, "nothing is downloaded"},
      {{"-nkvo"}, "leave it out"},      {{"-ot", "exps=CPU"}, "--place"},
      {{"-md", "d.gguf"}, "draft"},     {{"--rpc", "h:1"}, "mpirun"},
      {{"-tb", "4"}, "-t N"},           {{"--port", "8080"}, "no HTTP server"},
      {{"-s", "1"}, "--seed"},          {{"--jinja"}, "leave it out"}};
  for (const auto& [args, todo] : cases) {
    refused_run(args, {args[0] + " is llama.cpp's", todo, "see spillway run --help"});
  }
  // Where the verb has the flag it is the verb's; behind -p it is text.
  EXPECT_EQ(parse({"perplexity", "-m", "f", "-f", "text"}).verb, Verb::kPerplexity);
  refused_run({"--system", "-fa", "--bogus"}, {"--bogus"});
}

TEST(OptionsAdviceTest, MistypedFlags) {
  refused_run({"--promt", "x"}, {"--promt is no flag of run", "did you mean --prompt?"});
  refused_run({"--n-gpu-layer", "x"}, {"--gpu-layers"});
  refused_run({"--Temp=1"}, {"--Temp is no flag of run", "--temp"});
  refused_run({"--frobnicate"}, {"--frobnicate is no flag of run (see spillway run --help)"});
  refused_run({"--seed", "7", "--bogus", "1", "--other"}, {"--bogus is no flag"});
  refused_run({"-ngl", "-1"}, {"--gpu-layers", "\"-1\"", "all or auto"});
  refused_run({"-n", "-2"}, {"--predict", "-2"});
}

TEST(OptionsAdviceTest, WordsWithoutAFlag) {
  refused({"run", "f.gguf", "-p", "hi"}, {"\"f.gguf\" belongs to no flag", "-m f.gguf"});
  refused({"run", "-m", "f", "-p", "once", "upon", "a", "time"}, {"\"upon\"", "quotes"});
  refused({"tokenize", "-m", "f", "hello"}, {"\"hello\"", "standard input"});
  refused({"status", "h:1", "h:2"}, {"\"h:2\""});
}

TEST(OptionsAdviceTest, ConfigFiles) {
  TempDir dir;
  const auto refused_file = [&](const std::string& text, const Args& parts) {
    refused({"--config", dir.write("c.toml", text), "run", "-m", "f"}, parts);
  };
  refused_file("[run]\ntemprature = 3\n", {"sets run.temprature", "docs/config.md"});
  refused_file("[runn]\ntemp = 3\n", {"a table [runn], which is no verb"});
  refused_file("temp = 3\n", {"sets temp outside of the tables", "[run]"});
  refused_file("[run]\ntemp = \"hot\"\n", {"--temp: \"hot\" is no value of its kind"});
  refused_file("GGUF\x03\x01", {"sets GGUF??"});
  refused({"--config", "/nonexistent/c", "run", "-m", "f"}, {"/nonexistent/c cannot be read"});
  refused({"run", "-m", "f", "--config", "c.toml"}, {"--config", "before run"});
  refused_run({"--temp", "hot"}, {"--temp: \"hot\""});
  const std::string all = dir.write("all.toml", "[run]\ngpu-layers = \"all\"\n");
  EXPECT_EQ(parse({"--config", all, "run", "-m", "f"}).gpu_layers, 9999);
}

TEST(OptionsAdviceTest, Verbs) {
  refused({"-m", "f.gguf", "-p", "hi"}, {"a verb comes first", "spillway run -m"});
  refused({"runn", "-m", "f"}, {"no verb \"runn\"", "did you mean run?", "see spillway --help"});
  refused({"serve", "-m", "f"}, {"no verb \"serve\"", "no HTTP server"});
  refused({"chat"}, {"run --chat"});
  EXPECT_NE(parse({"help"}).help.find("Subcommands"), std::string::npos);
  EXPECT_NE(parse({"help", "plan"}).help.find("--cluster"), std::string::npos);
}

}  // namespace
}  // namespace spillway::testing
