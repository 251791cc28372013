// The ordered dict, numbers as Python spells them, text by code points, and the lexer's tokens.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/error.h"
#include "runtime/token/jinja/format.h"
#include "runtime/token/jinja/json_input.h"
#include "runtime/token/jinja/lexer.h"
#include "runtime/token/jinja/literals.h"
#include "runtime/token/jinja/text.h"

namespace spillway::jinja {
namespace {

TEST(JinjaDict, KeepsOrderWhenSmallAndWhenIndexed) {
  for (int64_t size : {3, 12, 13, 1000}) {
    Heap heap{Limits{}};
    Dict dict;
    for (int64_t i = 0; i < size; ++i) heap.set(dict, heap.text("k" + std::to_string(i)), i);
    heap.set(dict, heap.text("k1"), int64_t{-1});
    ASSERT_EQ(dict.entries().size(), static_cast<size_t>(size));
    EXPECT_EQ(dict.entries()[1].second.integer(), -1);
    for (int64_t i = 2; i < size; ++i) {
      const Value* found = dict.find("k" + std::to_string(i));
      ASSERT_NE(found, nullptr);
      EXPECT_EQ(found->integer(), i);
    }
    EXPECT_EQ(dict.find("absent"), nullptr);
    EXPECT_TRUE(dict.erase(heap, heap.text("k0")));
    EXPECT_FALSE(dict.erase(heap, heap.text("k0")));
    EXPECT_EQ(dict.find("k0"), nullptr);
    EXPECT_EQ(dict.find("k2")->integer(), 2);
  }
}

TEST(JinjaDict, EqualNumbersAreOneKey) {
  Heap heap{Limits{}};
  Dict dict;
  heap.set(dict, int64_t{1}, int64_t{10});
  heap.set(dict, 1.0, int64_t{20});
  heap.set(dict, true, int64_t{30});
  EXPECT_EQ(dict.entries().size(), 1u);
  for (int64_t i = 2; i < 40; ++i) heap.set(dict, i, i);
  EXPECT_EQ(heap.find(dict, 1.0)->integer(), 30);
  EXPECT_EQ(heap.find(dict, 7.0)->integer(), 7);
  EXPECT_EQ(heap.find(dict, 7.5), nullptr);
  EXPECT_THROW(heap.find(dict, heap.list()), Error);
}

TEST(JinjaValue, IntegersAndDoublesCompareExactly) {
  Heap heap{Limits{}};
  const int64_t big = (int64_t{1} << 53) + 1;
  EXPECT_FALSE(equals(heap, big, 9007199254740992.0));
  EXPECT_TRUE(equals(heap, int64_t{1} << 53, 9007199254740992.0));
  EXPECT_FALSE(equals(heap, INT64_MAX, 9223372036854775808.0));
  EXPECT_FALSE(equals(heap, std::nan(""), std::nan("")));
}

TEST(JinjaHeap, CountsBytesBothWays) {
  Limits limits;
  limits.live_bytes = 1000;
  Heap heap(limits);
  {
    const Value text = heap.text(std::string(600, 'x'));
    EXPECT_EQ(heap.live_bytes(), 600);
    EXPECT_THROW(heap.text(std::string(600, 'y')), Error);
  }
  EXPECT_EQ(heap.live_bytes(), 0);
  const Value again = heap.text(std::string(600, 'y'));
}

TEST(JinjaText, SpellsDoublesLikePython) {
  EXPECT_EQ(format_double(0.0), "0.0");
  EXPECT_EQ(format_double(-0.0), "-0.0");
  EXPECT_EQ(format_double(1e15), "1000000000000000.0");
  EXPECT_EQ(format_double(1e16), "1e+16");
  EXPECT_EQ(format_double(123456789012345678.0), "1.2345678901234568e+17");
  EXPECT_EQ(format_double(0.0001), "0.0001");
  EXPECT_EQ(format_double(0.00001), "1e-05");
  EXPECT_EQ(format_double(5e-324), "5e-324");
  EXPECT_EQ(format_double(1.7976931348623157e308), "1.7976931348623157e+308");
  EXPECT_EQ(format_double(0.1 + 0.2), "0.30000000000000004");
  EXPECT_EQ(format_double(-INFINITY), "-inf");
}

TEST(JinjaText, QuotesLikePython) {
  EXPECT_EQ(quoted("a"), "'a'");
  EXPECT_EQ(quoted("it's"), "\"it's\"");
  EXPECT_EQ(quoted("it's \"q\""), "'it\\'s \"q\"'");
  EXPECT_EQ(quoted("\n\t\\\x01\x7f"), "'\\n\\t\\\\\\x01\\x7f'");
  EXPECT_EQ(quoted("\xc2\xa0\xe2\x80\xa8\xc3\xa9"), "'\\xa0\\u2028\xc3\xa9'");
}

TEST(JinjaText, CountsCodePoints) {
  EXPECT_EQ(count_code_points("a\xc3\xa9\xf0\x9f\x99\x82"), 3);
  EXPECT_EQ(strip("\xe3\x80\x80 a \xc2\xa0", std::nullopt, true, true), "a");
  EXPECT_EQ(split("a--b--", "--", -1).size(), 3u);
  EXPECT_EQ(split_lines("a\r\nb\rc\n\n").size(), 4u);
  EXPECT_EQ(invalid_utf8("a\xc3\xa9"), std::nullopt);
  EXPECT_EQ(invalid_utf8("a\xc3"), 1u);
}

TEST(JinjaLiterals, ReadsNumbers) {
  EXPECT_EQ(read_number("12_3abc", true).integer, 123);
  EXPECT_EQ(read_number("12_3abc", true).bytes, 4u);
  EXPECT_EQ(read_number("0x1F+", true).integer, 31);
  EXPECT_TRUE(read_number("1.5", true).is_float);
  EXPECT_FALSE(read_number("1.5", false).is_float);
  EXPECT_FALSE(read_number("1.x", true).is_float);
  EXPECT_EQ(read_number("9223372036854775807", true).integer, INT64_MAX);
  EXPECT_EQ(read_number("9223372036854775808", true).bytes, 0u);
}

TEST(JinjaLexer, TagsEndOutsideOfBracketsOnly) {
  const auto tokens = tokenize("{{ {'a': {}} }}x");
  ASSERT_GE(tokens.size(), 9u);
  EXPECT_EQ(tokens.front().kind, TokenKind::kVariableBegin);
  EXPECT_EQ(tokens[tokens.size() - 2].text, "x");
  EXPECT_EQ(tokens.back().kind, TokenKind::kEnd);
  EXPECT_EQ(tokenize("").size(), 1u);
  EXPECT_EQ(tokenize("\n").size(), 1u);
}

TEST(JinjaJson, KeepsOrderLastOfEqualKeysWins) {
  Heap heap{Limits{}};
  const Value v = read_json(heap, "x", R"({"b": 1, "a": [null, true, 1.5, "é"], "b": 2})");
  EXPECT_EQ(to_text(heap, v), "{'b': 2, 'a': [None, True, 1.5, '\xc3\xa9']}");
  EXPECT_EQ(to_json(heap, v, {}), "{\"b\": 2, \"a\": [null, true, 1.5, \"\xc3\xa9\"]}");
}

TEST(JinjaJson, IntegersBeyondInt64BecomeDoubles) {
  Heap heap{Limits{}};
  EXPECT_EQ(read_json(heap, "x", "-9223372036854775808").integer(), INT64_MIN);
  EXPECT_EQ(read_json(heap, "x", "18446744073709551615").real(), 18446744073709551615.0);
  EXPECT_EQ(read_json(heap, "x", "100000000000000000000").real(), 1e20);
}

TEST(JinjaJson, LimitsHoldWhileReading) {
  Limits limits;
  limits.live_bytes = 10000;
  Heap heap(limits);
  std::string json = "[1";
  for (int i = 0; i < 1000; ++i) json += ",1";
  EXPECT_THROW(read_json(heap, "x", json + "]"), Error);
  EXPECT_THROW(read_json(heap, "x", "\"" + std::string(20000, 'a') + "\""), Error);
}

}  // namespace
}  // namespace spillway::jinja
