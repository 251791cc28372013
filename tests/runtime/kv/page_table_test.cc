// PageTable: room is given whole or not at all, and nothing is lost or given twice.
#include "runtime/kv/page_table.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <stdexcept>
#include <vector>

namespace spillway::testing {
namespace {

std::vector<int32_t> pages_of(const PageTable& table, int64_t slot) {
  const auto pages = table.pages(slot);
  return {pages.begin(), pages.end()};
}

TEST(PageTableTest, StartsEmpty) {
  const PageTable table(5, 32, 2);
  EXPECT_EQ(table.free_pages(), 5);
  EXPECT_EQ(table.n_pages(), 5);
  EXPECT_EQ(table.page_tokens(), 32);
  EXPECT_TRUE(table.pages(0).empty());
  EXPECT_TRUE(table.pages(1).empty());
}

TEST(PageTableTest, RoundsUpToPages) {
  PageTable table(10, 32, 1);
  for (const auto& [tokens, pages] :
       {std::pair<int64_t, size_t>{0, 0}, {1, 1}, {32, 1}, {33, 2}, {64, 2}, {65, 3}}) {
    ASSERT_TRUE(table.reserve(0, tokens));
    EXPECT_EQ(table.pages(0).size(), pages) << tokens << " tokens";
    EXPECT_EQ(table.free_pages(), 10 - static_cast<int64_t>(pages));
  }
}

TEST(PageTableTest, GrowingKeepsWhatIsThere) {
  PageTable table(6, 4, 2);
  ASSERT_TRUE(table.reserve(0, 8));
  const auto before = pages_of(table, 0);
  ASSERT_TRUE(table.reserve(1, 4));
  ASSERT_TRUE(table.reserve(0, 16));
  const auto after = pages_of(table, 0);
  ASSERT_EQ(after.size(), 4U);
  EXPECT_EQ(std::vector<int32_t>(after.begin(), after.begin() + 2), before);
  ASSERT_TRUE(table.reserve(0, 1));  // less than it has: keeps all
  EXPECT_EQ(pages_of(table, 0), after);
}

TEST(PageTableTest, ExhaustionTakesNothing) {
  PageTable table(4, 4, 2);
  ASSERT_TRUE(table.reserve(0, 12));
  EXPECT_FALSE(table.reserve(1, 8));
  EXPECT_TRUE(table.pages(1).empty());
  EXPECT_EQ(table.free_pages(), 1);
  EXPECT_FALSE(table.reserve(0, 24));
  EXPECT_EQ(table.pages(0).size(), 3U);
  EXPECT_TRUE(table.reserve(1, 4));
  EXPECT_EQ(table.free_pages(), 0);
  EXPECT_FALSE(table.reserve(1, 5));
  EXPECT_TRUE(table.reserve(1, 4));
}

TEST(PageTableTest, ReleaseGivesAllBackInOrder) {
  PageTable table(4, 4, 2);
  ASSERT_TRUE(table.reserve(0, 16));
  const auto first = pages_of(table, 0);
  table.release(0);
  EXPECT_EQ(table.free_pages(), 4);
  EXPECT_TRUE(table.pages(0).empty());
  ASSERT_TRUE(table.reserve(1, 16));
  EXPECT_EQ(pages_of(table, 1), first);
  table.release(0);  // nothing to give: nothing happens
  EXPECT_EQ(table.free_pages(), 0);
}

TEST(PageTableTest, AnUnknownSlotIsRefused) {
  PageTable table(4, 4, 2);
  EXPECT_THROW(table.reserve(2, 4), std::out_of_range);
  EXPECT_THROW(table.release(-1), std::out_of_range);
  EXPECT_THROW(table.pages(2), std::out_of_range);
}

TEST(PageTableTest, RandomUseNeverLosesOrSharesAPage) {
  std::mt19937 random(3);
  PageTable table(37, 8, 6);
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto slot = static_cast<int64_t>(random() % 6);
    if (random() % 3 == 0) {
      table.release(slot);
    } else {
      const auto tokens = static_cast<int64_t>(random() % 120);
      const auto before = pages_of(table, slot);
      if (!table.reserve(slot, tokens)) {
        ++refused;
        ASSERT_EQ(pages_of(table, slot), before);
      } else {
        ASSERT_GE(static_cast<int64_t>(table.pages(slot).size()) * 8, tokens);
      }
    }
    std::set<int32_t> held;
    int64_t n = 0;
    for (int64_t s = 0; s < 6; ++s) {
      for (const int32_t page : table.pages(s)) {
        ASSERT_GE(page, 0);
        ASSERT_LT(page, 37);
        held.insert(page);
        ++n;
      }
    }
    ASSERT_EQ(static_cast<int64_t>(held.size()), n);
    ASSERT_EQ(n + table.free_pages(), 37);
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace spillway::testing
