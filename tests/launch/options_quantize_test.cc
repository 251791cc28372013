// The command line of `spillway quantize`.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "launch/options.h"

namespace spillway::testing {
namespace {

Options parse(std::vector<std::string> args) {
  args.insert(args.begin(), {"spillway", "quantize"});
  std::vector<const char*> argv;
  for (const std::string& arg : args) argv.push_back(arg.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

TEST(OptionsQuantizeTest, EveryFlagArrives) {
  const Options o =
      parse({"in.gguf", "out.gguf", "Q4_K_M", "-t", "3", "--force", "--dry-run", "--pure",
             "--output-tensor-type", "Q8_0", "--token-embedding-type", "Q5_K", "-q"});
  EXPECT_EQ(o.verb, Verb::kQuantize);
  EXPECT_EQ(o.quantize.input, "in.gguf");
  EXPECT_EQ(o.quantize.output, "out.gguf");
  EXPECT_EQ(o.quantize.type, "Q4_K_M");
  EXPECT_EQ(o.threads, 3);
  EXPECT_TRUE(o.quantize.force);
  EXPECT_TRUE(o.quantize.dry_run);
  EXPECT_TRUE(o.quantize.pure);
  EXPECT_EQ(o.quantize.output_type, "Q8_0");
  EXPECT_EQ(o.quantize.embedding_type, "Q5_K");
  EXPECT_TRUE(o.quiet);
}

TEST(OptionsQuantizeTest, NothingIsReplacedUnlessAsked) {
  const Options o = parse({"in.gguf", "out.gguf", "q8_0"});
  EXPECT_FALSE(o.quantize.force);
  EXPECT_FALSE(o.quantize.dry_run);
  EXPECT_FALSE(o.quantize.pure);
  EXPECT_EQ(o.threads, 0);
}

TEST(OptionsQuantizeTest, WrongLinesAreErrors) {
  EXPECT_THROW(parse({"in.gguf", "out.gguf"}), Error);
  EXPECT_THROW(parse({"in.gguf", "out.gguf", "Q8_0", "more"}), Error);
  EXPECT_THROW(parse({"in.gguf", "out.gguf", "Q8_0", "-t", "0"}), Error);
  EXPECT_THROW(parse({"in.gguf", "out.gguf", "Q8_0", "--frobnicate"}), Error);
  EXPECT_NE(parse({"--help"}).help.find("--dry-run"), std::string::npos);
}

}  // namespace
}  // namespace spillway::testing
