// Plans as files and as flags: what --toml writes leads back to the plan, flags win over the file,
// and what an Error calls the nearest that is possible is possible.
#include "launch/plan_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "launch/options.h"
#include "parallel/pins.h"
#include "parallel/planner.h"
#include "tests/parallel/made_up_gpus.h"
#include "tests/parallel/refusal.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

using Args = std::vector<std::string>;

Options parse(Args args) {
  args.insert(args.begin(), {"spillway", "plan", "-m", "f.gguf"});
  std::vector<const char*> argv;
  for (const std::string& arg : args) argv.push_back(arg.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

// Words of a shell's line, 'quoted' ones as one.
Args words_of(const std::string& line) {
  Args words;
  std::string word;
  bool quoted = false;
  for (const char c : line + " ") {
    if (c == '\'') {
      quoted = !quoted;
    } else if (c != ' ' || quoted) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(word);
      word.clear();
    }
  }
  return words;
}

class PlanFile : public ::testing::Test {
 protected:
  ~PlanFile() override { std::remove(path_.c_str()); }
  void write(const std::string& text) { std::ofstream(path_) << text; }
  std::string fault(Args args) {
    args.insert(args.end(), {"--plan", path_});
    try {
      parse(args);
    } catch (const Error& error) {
      return error.what();
    }
    return "it was read";
  }
  TempDir folder_;  // tests of other processes write files of the same name
  std::string path_ = folder_.file("plan.toml");
};

TEST_F(PlanFile, LeadsBackToThePlan) {
  const ClusterSpec cluster = with_host_rates(gpus({24, 24}));
  const Options asked = parse({"--gpu-memory", "12GiB", "--device", "gpu"});
  const Plan plan = make_plan(llama_70b(), cluster, plan_request(asked));
  ASSERT_NE(spill_text(plan), "");
  write(plan_toml(plan));
  const Options again = parse({"--gpu-memory", "12GiB", "--plan", path_});
  const Plan back = make_plan(llama_70b(), cluster, plan_request(again));
  for (size_t r = 0; r < plan.parts.size(); ++r) {
    EXPECT_EQ(back.parts[r].layers, plan.parts[r].layers) << r;
  }
  EXPECT_EQ(back.ledger.size(), plan.ledger.size());
  EXPECT_EQ(plan_title(back), plan_title(plan));
}

// Of halves on the CPU the plan says up to how many rows they are multiplied there.
TEST_F(PlanFile, KeepsTheRowsOfHalvesOnTheCpu) {
  const ClusterSpec cluster = with_host_rates(gpus({24, 24}));
  const Args device = {"--gpu-memory", "12GiB", "--device", "gpu"};
  for (const char* rows : {"3", "0"}) {
    Options asked = parse(device);
    asked.cpu_rows = std::stoi(rows);  // 0: by the rates
    const Plan plan = make_plan(llama_70b(), cluster, plan_request(asked));
    EXPECT_EQ(plan.limits.max_cpu_rows == 3, asked.cpu_rows > 0);
    write(plan_toml(plan));
    const Options again = parse({"--gpu-memory", "12GiB", "--plan", path_});
    EXPECT_EQ(again.cpu_rows, plan.limits.max_cpu_rows);
    const Plan back = make_plan(llama_70b(), cluster, plan_request(again));
    EXPECT_EQ(back.limits, plan.limits);
    EXPECT_EQ(plan_fingerprint(back), plan_fingerprint(plan));
    expect_says(request_flags(pins_of(plan)),
                {"--cpu-rows " + std::to_string(plan.limits.max_cpu_rows)});
    EXPECT_EQ(parse({"--cpu-rows", "5", "--plan", path_}).cpu_rows, 5);
  }
  const ClusterSpec large = with_host_rates(gpus({80, 80}));
  EXPECT_EQ(plan_toml(make_plan(llama_70b(), large, plan_request(parse({})))).find("cpu-rows"),
            std::string::npos);
}

TEST_F(PlanFile, FlagsWinOverIt) {
  write(
      "split = \"20@1:1+10@1\"\nctx-size = 512\nkv-type = \"q8_0\"\nplace = \"layers 3 = disk\"\n");
  Options o = parse({"--plan", path_});
  EXPECT_EQ(split_text(o.split), "20@1:1+10@1");
  EXPECT_EQ(o.context, 512);
  EXPECT_EQ(o.kv_type, KvType::kQ8_0);
  EXPECT_EQ(places_text(o.places), "layer 3 = disk");
  o = parse({"--tp", "2", "-c", "64", "-k", "f32", "--plan", path_});
  EXPECT_TRUE(o.split.empty());
  EXPECT_EQ(o.tp, 2);
  EXPECT_EQ(o.context, 64);
  EXPECT_EQ(o.kv_type, KvType::kF32);
  EXPECT_EQ(places_text(o.places), "layer 3 = disk");
  o = parse({"-c64", "-kf32", "--plan", path_});
  EXPECT_EQ(o.context, 64);
  EXPECT_EQ(o.kv_type, KvType::kF32);
  o = parse({"-ngl", "7", "--plan", path_});
  EXPECT_TRUE(o.places.empty());
  EXPECT_EQ(o.gpu_layers, 7);
}

TEST_F(PlanFile, WhatIsNoPinIsRefused) {
  EXPECT_NE(fault({}).find("cannot be read"), std::string::npos) << fault({});
  write("# pins\ntemp = 0.5\n");
  expect_says(fault({}), {"temp, which pins nothing", path_ + ", line 2", "split, order, place"});
  write("[run]\nsplit = \"1\"\n");
  expect_says(fault({}), {"which pins nothing"});
  write("split = [\"1\", \"2\"]\n");
  expect_says(fault({}), {"sets split to a list"});
  write("split = \"1:\"\n");
  EXPECT_NE(fault({}), "it was read");
  write("tp = true\n");
  expect_says(fault({}), {"sets tp to true or false", "line 1"});
  write("tp = 1\ntp = 2\n");
  expect_says(fault({}), {"tp is there twice, first in line 1", "line 2"});
  write("split = \"1:1\n");
  expect_says(fault({}), {"does not end", "line 1"});
  std::string deep = "a";
  for (int i = 0; i < 10000; ++i) deep += ".a";
  write("[" + deep + "]\nx = 1\n");
  EXPECT_NE(fault({}), "it was read");
  write("split = \"" + std::string(2 << 20, '1') + "\"\n");
  expect_says(fault({}), {"larger than the 1048576 bytes"});
}

TEST(PlanFlags, ArriveInTheRequest) {
  const PlanRequest request = plan_request(parse(
      {"--gpu-memory", "24GiB,0.5", "--host-memory", "48GiB", "--objective", "throughput",
       "--layers", "3,4", "-ts", "3,1.5", "--order", "0,1", "-ngl", "5", "--kv-least", "q4_0"}));
  EXPECT_EQ(budgets_text(request.gpu_memory), "24GiB,0.5");
  EXPECT_EQ(budgets_text(request.host_memory), "48GiB");
  EXPECT_EQ(request.objective, Objective::kThroughput);
  EXPECT_EQ(request.layers, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(request.shares, (std::vector<double>{3, 1.5}));
  EXPECT_EQ(request.order, (std::vector<int>{0, 1}));
  EXPECT_EQ(request.gpu_layers, 5);
  EXPECT_EQ(request.least_kv, KvType::kQ4_0);
  EXPECT_TRUE(request.choose_cpu_rows);
  EXPECT_EQ(parse({"--tensor-split", "1,1,1"}).shares.size(), 3u);
  EXPECT_EQ(ranks_named(parse({"-ts", "1,1,1"})), 3);
}

TEST(PlanFlags, WhatIsNoNumberIsRefused) {
  for (const Args& args :
       {Args{"--layers", "3,x"}, Args{"-ts", "1,,2"}, Args{"--order", "0;1"}, Args{"-ngl", "-3"},
        Args{"--gpu-memory", "lots"}, Args{"--objective", "speed"}, Args{"--kv-least", "f32"}}) {
    EXPECT_THROW(parse(args), Error) << args[0];
  }
}

TEST(PlanFlags, OfARequestMakeItAgain) {
  const Args args = {"--split",
                     "20@2:1+10@1",
                     "--place",
                     "layers 3-5 ffn = hybrid 0.6; layer 9 = disk",
                     "--device",
                     "gpu,gpu,cpu",
                     "-c",
                     "512",
                     "-k",
                     "q8_0",
                     "--ubatch-size",
                     "256",
                     "--gpu-memory",
                     "11.5GiB,0.5,1GiB",
                     "--objective",
                     "context"};
  const std::string flags = request_flags(plan_request(parse(args)));
  EXPECT_EQ(request_flags(plan_request(parse(words_of(flags)))), flags);
}

TEST(PlanFlags, ThroughputIsOfSeveralSequences) {
  const PlanRequest request = plan_request(parse({"--sequences", "16"}));
  EXPECT_EQ(request.limits.max_sequences, 16);
  EXPECT_EQ(request.limits.max_logit_rows, 16);
  EXPECT_EQ(plan_request(parse({})).limits.max_sequences, 1);
}

// What cannot be says what can; feeding that back plans.
TEST(PlanFlags, TheNearestThatIsPossibleIs) {
  const ModelSpec model = llama_8b();
  const Args impossible[] = {
      {"--place", "layers all = resident", "--device", "gpu", "--gpu-memory", "3GiB"},
      {"--tp", "3"},
      {"--layers", "10,10"},
      {"-ts", "1"},
      {"--split", "1:1:1"},
      {"-ngl", "32", "--device", "gpu", "--gpu-memory", "3GiB"},
      {"--gpu-memory", "100GiB"},
      {"-c", "100000", "--gpu-memory", "3GiB", "--host-memory", "6GiB", "--device", "gpu"},
      {"--place", "layers 0-40 ffn = cpu"},
      {"--place", "layers 0-3 attn = cpu"},
      {"--order", "1,0"},
      {"--kv-type", "q4_0", "--split", "31@1+2@1"},
  };
  const ClusterSpec cluster = with_host_rates(gpus({80, 80}));
  for (const Args& args : impossible) {
    std::string line;
    for (const std::string& arg : args) line += " " + arg;
    SCOPED_TRACE(line);
    const std::string said = refusal(model, cluster, plan_request(parse(args)));
    ASSERT_NE(said, "it was planned");
    const size_t fits = said.find(" fits; or ");
    if (fits != std::string::npos) {  // beside the other flags
      const size_t open = said.rfind('(', fits) + 1;
      const PlanRequest more = plan_request(parse(words_of(said.substr(open, fits - open))));
      PlanRequest less = plan_request(parse(args));
      if (more.context > 0) less.context = more.context;
      less.gpu_rows = more.gpu_rows;
      less.limits.max_rows = more.limits.max_rows;
      less.choose_gpu_rows = more.choose_gpu_rows;
      EXPECT_EQ(refusal(model, cluster, less), "it was planned") << said;
      continue;
    }
    const std::string mark = "the nearest that is possible: ";
    const size_t at = said.find(mark);
    ASSERT_NE(at, std::string::npos) << said;
    std::string flags = said.substr(at + mark.size());
    ASSERT_EQ(flags.back(), ')') << said;
    flags.pop_back();
    flags = flags.substr(0, flags.find(", without "));
    if (flags == "without these flags") flags.clear();
    EXPECT_EQ(refusal(model, cluster, plan_request(parse(words_of(flags)))), "it was planned")
        << flags;
  }
}

}  // namespace
}  // namespace spillway::testing
