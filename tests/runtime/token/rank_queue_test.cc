// RankQueue against the definition: always the least pair of rank and position, whatever the order
// in which they come.
#include "runtime/token/rank_queue.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace spillway {
namespace {

void agree(unsigned seed, bool ascending) {
  std::mt19937 random(seed);
  RankQueue queue;
  queue.reserve(50);
  for (int round = 0; round < 20; ++round) {  // a queue is used again when it is empty
    std::multiset<std::pair<uint32_t, int32_t>> expected;
    uint32_t floor = 0;
    int left = 400;
    const auto push = [&] {
      const uint32_t rank = floor + random() % (50 - floor);
      const auto position = static_cast<int32_t>(random() % 1000);
      queue.push(rank, position);
      expected.insert({rank, position});
    };
    for (int i = 0; i < 100; ++i) push();
    uint32_t rank = 0;
    int32_t position = 0;
    while (queue.pop(rank, position)) {
      ASSERT_FALSE(expected.empty());
      ASSERT_EQ(std::pair(rank, position), *expected.begin()) << "seed " << seed;
      expected.erase(expected.begin());
      if (ascending) floor = std::min(rank + 1, 49u);
      if (random() % 2 == 0 && left-- > 0) push();
    }
    ASSERT_TRUE(expected.empty());
  }
}

TEST(RankQueue, RanksThatOnlyGrow) {
  for (unsigned seed = 1; seed <= 5; ++seed) agree(seed, true);
}

TEST(RankQueue, RanksThatComeTooLate) {
  for (unsigned seed = 1; seed <= 5; ++seed) agree(seed, false);
}

}  // namespace
}  // namespace spillway
