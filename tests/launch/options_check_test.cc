// The flags that look at what a job does: --check-hidden and bench --profile.
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "launch/options.h"

namespace spillway::testing {
namespace {

Options parse(std::vector<const char*> words) {
  words.insert(words.begin(), "spillway");
  return parse_options(static_cast<int>(words.size()), words.data());
}

TEST(OptionsTest, CheckHidden) {
  EXPECT_EQ(parse({"run", "-m", "f"}).check_hidden, HiddenCheck::kOff);
  EXPECT_EQ(parse({"bench", "-m", "f", "--check-hidden", "stage"}).check_hidden,
            HiddenCheck::kStage);
  EXPECT_EQ(parse({"run", "-m", "f", "--check-hidden", "sums"}).check_hidden, HiddenCheck::kSums);
  EXPECT_EQ(parse({"verify", "-m", "f"}).check_hidden, HiddenCheck::kSums);
  EXPECT_EQ(parse({"verify", "-m", "f", "--check-hidden", "off"}).check_hidden, HiddenCheck::kOff);
  EXPECT_THROW(parse({"run", "-m", "f", "--check-hidden", "layers"}), Error);
}

TEST(OptionsTest, Profile) {
  EXPECT_FALSE(parse({"bench", "-m", "f"}).profile);
  EXPECT_TRUE(parse({"bench", "-m", "f", "--profile"}).profile);
  EXPECT_THROW(parse({"run", "-m", "f", "--profile"}), Error);
}

}  // namespace
}  // namespace spillway::testing
