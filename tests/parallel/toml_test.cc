// The TOML that configuration files are written in: what is read, where a refusal points, and that
// what is written reads back. Expected values by hand from toml.io/en/v1.0.0.
#include "parallel/toml.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/core/error.h"
#include "parallel/near_word.h"
#include "tests/support/temp_dir.h"

namespace spillway::testing {
namespace {

std::string refusal(const std::string& text) {
  try {
    parse_toml(text, "f.toml");
  } catch (const Error& error) {
    return error.what();
  }
  return "it was read";
}

void expect_refused(const std::string& text, const std::string& line, const std::string& why) {
  const std::string said = refusal(text);
  EXPECT_NE(said.find("f.toml, line " + line), std::string::npos) << said << "\n" << text;
  EXPECT_NE(said.find(why), std::string::npos) << said << "\n" << text;
}

TEST(Toml, ValuesTablesAndLines) {
  const TomlTable root = parse_toml(
      "# comment\nname = \"a \\\"b\\\" \\u00e9\\n\"  # more\nn=24_000\r\nx = -1.5e3\nyes = true\n"
      "list = [1, 2.5, # in between\n \"t\",\n]\n[a]\nk = 1\n[[b]]\n[b.c]\nz = 7\n[[b]]\n[b.c]\n",
      "f.toml");
  ASSERT_EQ(root.values.size(), 5u);
  EXPECT_EQ(root.values[0].second.text, "a \"b\" \xc3\xa9\n");
  EXPECT_EQ(root.values[0].second.line, 2);
  EXPECT_EQ(root.values[1].second.integer, 24000);
  EXPECT_EQ(root.values[2].second.number, -1500);
  EXPECT_TRUE(root.values[3].second.flag);
  ASSERT_EQ(root.values[4].second.list.size(), 3u);
  EXPECT_EQ(root.values[4].second.list[1].number, 2.5);
  EXPECT_EQ(root.values[4].second.list[2].line, 7);
  ASSERT_EQ(root.tables.size(), 3u);
  EXPECT_EQ(root.tables[0].name, "a");
  EXPECT_FALSE(root.tables[0].element);
  EXPECT_TRUE(root.tables[1].element);
  ASSERT_EQ(root.tables[1].tables.size(), 1u);
  EXPECT_EQ(root.tables[1].tables[0].name, "b.c");
  EXPECT_EQ(root.tables[1].tables[0].values[0].second.integer, 7);
  EXPECT_EQ(root.tables[2].line, 14);
  EXPECT_EQ(parse_toml("", "f").values.size(), 0u);
}

TEST(Toml, WhatIsNotReadIsRefusedAtItsLine) {
  expect_refused("\n\nkey", "3", "= is missing after key");
  expect_refused("a = 1\na = 2", "2", "a is there twice, first in line 1");
  expect_refused("[t]\n[t]", "2", "[t] is there twice, first in line 1");
  expect_refused("[t]\n[[t]]", "2", "there twice");
  expect_refused("[a.b]", "1", "[a] is not there yet");
  expect_refused("[a", "1", "does not end with ]");
  expect_refused("a = \"x", "1", "does not end with \"");
  expect_refused("a = \"\\x\"", "1", "backslash");
  expect_refused("a = \"\\u00\"", "1", "four digits");
  expect_refused("a = \"\\ud800\"", "1", "four digits");
  expect_refused("a = [1, 2", "1", "does not end with ]");
  expect_refused("a = [1\n2]", "2", "comma");
  expect_refused("a = [[1]]", "1", "lists in lists");
  expect_refused("a = {b = 1}", "1", "tables in a line");
  expect_refused("a.b = 1", "1", "dotted keys");
  expect_refused("a = 'x'", "1", "double quotes");
  expect_refused("a = ", "1", "no value");
  expect_refused("a = nan", "1", "no value");
  expect_refused("a = 1979-05-27", "1", "\"1979-05-27\" is no value");
  expect_refused("a = 1 b", "1", "something follows");
  expect_refused("\x01", "1", "a key of letters");
}

// Names are compared one by one: files of many are refused, not read for minutes.
TEST(Toml, TooManyNamesAreRefused) {
  std::string keys;
  for (int i = 0; i < 1025; ++i) keys += "a" + std::to_string(i) + " = 1\n";
  expect_refused(keys, "1025", "more than 1024 keys");
  std::string tables;
  for (int i = 0; i < 16385; ++i) tables += "[[t]]\n";
  expect_refused(tables, "16385", "more than 16384 tables");
}

TEST(Toml, AnyBytesEndInATableOrAnError) {
  const std::string good = "a = [1, \"x\\n\"]\n[[t]]\nb = 1.5\n[t.u]\nc = true\n";
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (size_t i = 0; i < 1 + random() % 3; ++i) {
      text[random() % text.size()] = "[]=.\"\\\n#{x1\xff"[random() % 12];
    }
    if (random() % 4 == 0) text.resize(random() % text.size());
    const std::string said = refusal(text);
    EXPECT_NE(said, "");
    if (said != "it was read") ++refused;
  }
  EXPECT_GT(refused, 1000);
}

TEST(Toml, WhatIsWrittenReadsBackBitForBit) {
  TomlText out;
  out.comment("made");
  out.text("t", "a\"\\\x01\x7f\n\xff");
  const double values[] = {5, 0.1, 1e300, 5e-324, 1.0 / 3, 0};
  out.numbers("n", {values, values + 6});
  out.integers("i", {-1, INT64_MAX});
  out.element("e");
  out.flag("f", true);
  out.table("e.g");
  out.number("x", 123456789.0);
  const TomlTable root = parse_toml(out.str(), "f");
  EXPECT_EQ(root.values[0].second.text, "a\"\\\x01\x7f\n\xff");
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(root.values[1].second.list[i].kind, TomlValue::Kind::kNumber);
    EXPECT_EQ(root.values[1].second.list[i].number, values[i]);
  }
  EXPECT_EQ(root.values[2].second.list[1].integer, INT64_MAX);
  EXPECT_EQ(root.tables[0].tables[0].values[0].second.number, 123456789.0);
}

TEST(Toml, AFileThatIsNotThereOrTooLargeIsNamed) {
  const TempDir dir;
  EXPECT_THROW(read_toml(dir.file("none")), Error);
  EXPECT_THROW(read_toml(dir.path()), Error);
  std::ofstream(dir.file("large")) << std::string((1 << 20) + 1, '#');
  EXPECT_THROW(read_toml(dir.file("large")), Error);
  std::ofstream(dir.file("full")) << std::string(1 << 20, '#');
  EXPECT_NO_THROW(read_toml(dir.file("full")));
}

TEST(NearWord, TheNearestOrNone) {
  const std::vector<std::string> words = {"read_gb_per_s", "rank", "threads", "free_bytes"};
  EXPECT_EQ(near_word("read_gb_per_sec", words), "read_gb_per_s");
  EXPECT_EQ(near_word("Thread", words), "threads");
  EXPECT_EQ(near_word("rnak", words), "rank");
  EXPECT_EQ(near_word("read_gbps", words), "read_gb_per_s");
  EXPECT_EQ(near_word("colour", words), "");
  const std::vector<std::string> shapes = {"llama-1b", "llama-8b", "llama-405b", "qwen-7b"};
  EXPECT_EQ(near_word("llama-7b", shapes), "llama-1b or llama-8b");
  EXPECT_EQ(near_word("", words), "");
  EXPECT_EQ(near_word(std::string(1 << 20, 'x'), words), "");
}

}  // namespace
}  // namespace spillway::testing
