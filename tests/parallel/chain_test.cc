// The chain of halves against timelines drawn by hand.
#include "parallel/chain.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

HalfWork device(double ms) { return {ms, 0, 0, 0}; }
HalfWork streamed(double device_ms, double bus_ms) { return {device_ms, 0, bus_ms, 0}; }
HalfWork cpu(double ms) { return {0, ms, 0, 0}; }
HalfWork disk(double device_ms, double bus_ms, double disk_ms) {
  return {device_ms, 0, bus_ms, disk_ms};
}

std::vector<double> base_of(const std::vector<HalfWork>& halves) {
  std::vector<double> base;
  for (const HalfWork& half : halves) base.push_back(half.device_ms);
  return base;
}

ChainWaits waits(const std::vector<HalfWork>& halves, double sum_ms = 0) {
  return chain_waits({halves}, base_of(halves), sum_ms);
}

TEST(Chain, ResidentHalvesWaitForNothing) {
  EXPECT_EQ(waits({device(1), device(2), device(3)}).total_ms(), 0);
  EXPECT_EQ(waits({}).total_ms(), 0);
}

TEST(Chain, ACopyRunsBesideWhatComesBeforeIt) {
  // The copy takes 0 to 5, the halves before it 0 to 3: 2 are waited for.
  EXPECT_DOUBLE_EQ(waits({device(1), device(2), streamed(1, 5)}).bus_ms, 2);
  EXPECT_DOUBLE_EQ(waits({device(4), device(2), streamed(1, 5)}).bus_ms, 0);
}

TEST(Chain, TwoSlotsBoundHowFarCopiesRunAhead) {
  // Copies 0-2 and 2-4; the third waits for the first slot, free when the first product ends at 11:
  // 11-13. Halves: 10, then 10-11, 11-12, and the third 13-14, 1 late.
  const ChainWaits w = waits({device(10), streamed(1, 2), streamed(1, 2), streamed(1, 2)});
  EXPECT_DOUBLE_EQ(w.bus_ms, 1);
  // Alone the bus is never idle: four copies of 3 and the last product.
  const ChainWaits all = waits({streamed(1, 3), streamed(1, 3), streamed(1, 3), streamed(1, 3)});
  EXPECT_DOUBLE_EQ(all.bus_ms + 4, 4 * 3 + 1);
}

TEST(Chain, CpuAndBusInTurnsWorkAtOnce) {
  // CPU 0-4, its copy 0-4 meanwhile, product 4-5; CPU 5-9, copy 4-8, product 9-10.
  const ChainWaits w = waits({cpu(4), streamed(1, 4), cpu(4), streamed(1, 4)});
  EXPECT_DOUBLE_EQ(w.cpu_ms, 8);
  EXPECT_DOUBLE_EQ(w.bus_ms, 0);
  EXPECT_DOUBLE_EQ(waits({cpu(4), cpu(4), cpu(4), cpu(4)}).cpu_ms, 16);
}

TEST(Chain, AHybridHalfLastsAsLongAsItsSlowerPart) {
  HalfWork half = streamed(1, 4);
  half.cpu_ms = 3;
  EXPECT_DOUBLE_EQ(waits({half}).bus_ms, 4);  // 4 + 1 against 3; 1 is the device's own
  half.cpu_ms = 7;
  EXPECT_DOUBLE_EQ(waits({half}).cpu_ms, 6);
  EXPECT_DOUBLE_EQ(waits({half}).bus_ms, 0);
}

TEST(Chain, TheDiskReadsThreeHalvesAhead) {
  // Reads 0-2, 2-4, 4-6 and, when the first has been copied (at 3), 6-8; copies end 3, 5, 7, 9.
  const HalfWork half = disk(0.5, 1, 2);
  const ChainWaits w = waits({half, half, half, half});
  EXPECT_DOUBLE_EQ(w.disk_ms, 9.5 - 4 * 0.5);
  EXPECT_DOUBLE_EQ(w.bus_ms, 0);
  // Three are there when the device comes to them, the fourth read waits for a copy, which waits
  // for a slot on the GPU: slots are free at 20.5 and 21.
  const ChainWaits late = waits({device(20), half, half, half, half});
  // Copies 2-3, 4-5, 20.5-21.5, 21.5-22.5: the third product 21.5-22, the fourth 22.5-23.
  EXPECT_DOUBLE_EQ(late.total_ms(), 23 - 22);
}

TEST(Chain, ARankWithoutAGpuReadsAheadIntoItsSlots) {
  HalfWork half = device(2);
  half.disk_ms = 3;
  // Reads 0-3, 3-6, 6-9: products 3-5, 6-8, 9-11.
  EXPECT_DOUBLE_EQ(waits({half, half, half}).disk_ms, 11 - 6);
}

TEST(Chain, AStageWaitsForItsSlowestRank) {
  const std::vector<HalfWork> quick = {device(1), streamed(1, 1)};
  const std::vector<HalfWork> slow = {device(1), streamed(1, 6)};
  EXPECT_DOUBLE_EQ(chain_waits({quick, slow}, {1, 1}, 0.5).bus_ms, 6 - 1.5);
  EXPECT_DOUBLE_EQ(chain_waits({slow, quick}, {1, 1}, 0.5).bus_ms, 6 - 1.5);
}

}  // namespace
}  // namespace spillway
