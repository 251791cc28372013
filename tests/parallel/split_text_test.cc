// The grammar of --split: what it reads, what it refuses and how it says so; numbers as text.
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "parallel/planner.h"
#include "parallel/size_text.h"

namespace spillway {
namespace {

TEST(ParseSplit, Stages) {
  const auto split = parse_split("20@2:1+10@1");
  ASSERT_EQ(split.size(), 2u);
  EXPECT_EQ(split[0].n_layers, 20);
  EXPECT_EQ(split[0].shares, (std::vector<double>{2, 1}));
  EXPECT_EQ(split[1].n_layers, 10);
  EXPECT_EQ(split[1].shares, (std::vector<double>{1}));
}

TEST(ParseSplit, LayersAreOptionalAndSharesMayBeFractions) {
  const auto split = parse_split("0.5:1.25:3+7");
  ASSERT_EQ(split.size(), 2u);
  EXPECT_EQ(split[0].n_layers, 0);
  EXPECT_EQ(split[0].shares, (std::vector<double>{0.5, 1.25, 3}));
  EXPECT_EQ(split[1].shares, (std::vector<double>{7}));
}

TEST(ParseSplit, RoundTrip) {
  for (const char* text : {"1", "1:1", "2:1+1", "20@2:1+10@1", "0.1:0.7+3@2.5", "1+1+1+1"}) {
    EXPECT_EQ(split_text(parse_split(text)), text);
  }
  EXPECT_EQ(split_text({}), "");
}

struct BadSplit {
  const char* text;
  const char* where;
  const char* what;
};

class ParseSplitRefuses : public ::testing::TestWithParam<BadSplit> {};

TEST_P(ParseSplitRefuses, WithPlaceAndExample) {
  const BadSplit& bad = GetParam();
  try {
    parse_split(bad.text);
    FAIL() << bad.text;
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), std::string("character ") + bad.where) << bad.text;
    EXPECT_NE(error.message().find(bad.what), std::string::npos) << error.message();
    EXPECT_NE(error.todo().find("20@2:1+10@1"), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ParseSplitRefuses,
    ::testing::Values(BadSplit{"", "1", "a number expected"}, BadSplit{"+", "1", "a number"},
                      BadSplit{"1+", "3", "found the end"}, BadSplit{"1:", "3", "found the end"},
                      BadSplit{"2:x+1", "3", "\"x+1\""}, BadSplit{"1 :1", "2", "\"+\" or \":\""},
                      BadSplit{"0:1", "1", "above 0"}, BadSplit{"1:-1", "3", "a number expected"},
                      BadSplit{"1e3", "2", "expected"}, BadSplit{"inf", "1", "a number expected"},
                      BadSplit{"nan:1", "1", "a number expected"},
                      BadSplit{"1.2.3", "1", "a number expected"}, BadSplit{".", "1", "a number"},
                      BadSplit{"1.5@1", "1", "whole number"}, BadSplit{"0@1", "1", "above 0"},
                      BadSplit{"@1", "1", "a number expected"},
                      BadSplit{"3@", "3", "found the end"}, BadSplit{"3@2@1", "4", "expected"},
                      BadSplit{"99999999999@1", "1", "large"},
                      BadSplit{"9999999@1", "1", "whole number"}, BadSplit{"1,1", "2", "\",1\""}));

TEST(SizeText, UnitsAndDecimals) {
  EXPECT_EQ(size_text(0), "0.00 MiB");
  EXPECT_EQ(size_text(1 << 20), "1.00 MiB");
  EXPECT_EQ(size_text((int64_t{1} << 30) - 1), "1024.00 MiB");
  EXPECT_EQ(size_text(int64_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(fixed_text(2.345, 1), "2.3");
  EXPECT_EQ(fixed_text(7, 0), "7");
  EXPECT_EQ(shortest_text(0.1), "0.1");
  EXPECT_EQ(shortest_text(2), "2");
}

TEST(WrappedText, CutsAtBlanks) {
  EXPECT_EQ(wrapped_text("", 10, 2), "");
  EXPECT_EQ(wrapped_text("one two", 7, 2), "one two");
  EXPECT_EQ(wrapped_text("one two three", 7, 2), "one two\n  three");
  EXPECT_EQ(wrapped_text("  one two", 7, 4), "  one\n    two");
  EXPECT_EQ(wrapped_text("aaaaaaaaaaaa b", 5, 0), "aaaaaaaaaaaa\nb");
  EXPECT_EQ(wrapped_text("a\nb  c", 9, 1), "a\n b  c");
}

}  // namespace
}  // namespace spillway
