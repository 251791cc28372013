// --help: every verb has one, of its own, with its flags, in lines that a terminal shows whole.
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "launch/options.h"

namespace spillway {
namespace {

Options parse(std::vector<const char*> words) {
  words.insert(words.begin(), "spillway");
  return parse_options(static_cast<int>(words.size()), words.data());
}

TEST(OptionsHelp, NamesVerbsAndFlags) {
  const std::string whole = parse({"--help"}).help;
  for (const char* part : {"run", "inspect", "plan", "verify", "bench", "status", "mpirun"}) {
    EXPECT_NE(whole.find(part), std::string::npos) << part;
  }
  const std::string run = parse({"run", "--help"}).help;
  for (const char* flag :
       {"-m", "-p", "-n", "-c", "-t", "--temp", "--top-k", "--top-p", "--min-p", "--repeat-penalty",
        "--seed", "--tp", "--pp", "--split", "--chat", "--logit-bias"}) {
    EXPECT_NE(run.find(flag), std::string::npos) << flag;
  }
  for (const char* verb : {"run", "inspect", "plan", "verify", "bench", "status"}) {
    EXPECT_NE(parse({verb, "-h"}).help, "") << verb;
    EXPECT_NE(parse({verb, "-h"}).help, whole) << verb;
  }
  EXPECT_NE(parse({"--version"}).help.find("spillway 0."), std::string::npos);
  EXPECT_EQ(parse({"--help"}).verb, Verb::kNone);
}

TEST(OptionsHelp, FitsATerminal) {
  for (const char* verb : {"", "run", "inspect", "plan", "status", "verify", "bench", "sweep",
                           "perplexity", "tokenize", "template", "quantize", "probe"}) {
    const std::string help = *verb == '\0' ? parse({"--help"}).help : parse({verb, "--help"}).help;
    EXPECT_EQ(help.find(" in ["), std::string::npos) << help;
    EXPECT_EQ(help.find("NONNEGATIVE"), std::string::npos) << help;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
  }
  const std::string quantize = parse({"quantize", "--help"}).help;
  EXPECT_NE(quantize.find("\n  Q4_K_M   4.8 bits"), std::string::npos) << quantize;
}

}  // namespace
}  // namespace spillway
