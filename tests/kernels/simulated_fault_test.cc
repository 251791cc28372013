// Simulated faults: the deed and the name that were asked for, from the time on that was given, and
// nothing else; owners of memory then say what they say when the machine refuses them.
#include "kernels/core/simulated_fault.h"

#include <gtest/gtest.h>

#include "kernels/core/arena.h"
#include "kernels/core/host_pages.h"
#include "tests/support/simulated_refusal.h"

namespace spillway {
namespace {

class SimulatedFault : public testing::SimulatedRefusal {};

TEST_F(SimulatedFault, IsTheWholeDeedAndName) {
  EXPECT_FALSE(fault_simulated("allocate host", "kv"));
  simulate_fault("allocate host kv");
  EXPECT_TRUE(fault_simulated("allocate host", "kv"));
  EXPECT_TRUE(fault_simulated("allocate host", "kv"));
  EXPECT_FALSE(fault_simulated("allocate host", "k"));
  EXPECT_FALSE(fault_simulated("allocate host", "kv pages"));
  EXPECT_FALSE(fault_simulated("allocate gpu", "kv"));
  EXPECT_FALSE(fault_simulated("allocate", "host kv 1"));
  EXPECT_FALSE(fault_simulated("", ""));
  simulate_fault("");
  EXPECT_FALSE(fault_simulated("allocate host", "kv"));
}

TEST_F(SimulatedFault, BeginsWithTheTimeAskedFor) {
  simulate_fault("read disk weights of rank 3 #3");
  EXPECT_FALSE(fault_simulated("read disk", "weights of rank 3"));
  EXPECT_FALSE(fault_simulated("write disk", "weights of rank 3"));  // is not counted
  EXPECT_FALSE(fault_simulated("read disk", "weights of rank 3"));
  EXPECT_TRUE(fault_simulated("read disk", "weights of rank 3"));
  EXPECT_TRUE(fault_simulated("read disk", "weights of rank 3"));
}

TEST_F(SimulatedFault, RefusesWhatIsNoFault) {
  for (const char* text :
       {"kv", "allocate host", "allocate host ", "read kv", "pin", "free host kv",
        "allocate host kv #0", "allocate host kv #x", "allocate host kv #"}) {
    EXPECT_NE(refusal([&] { simulate_fault(text); }).find("simulated fault"), std::string::npos)
        << text;
  }
  EXPECT_FALSE(fault_simulated("allocate host", "kv"));
}

TEST_F(SimulatedFault, ArenasAndPagesNameTheLine) {
  simulate_fault("allocate host kv");
  EXPECT_EQ(refusal([] { Arena("kv", 4096); }),
            "host memory for kv: cannot reserve 4096 bytes: Cannot allocate memory (free memory on "
            "this host, or let less be planned for it: --host-memory, -c)");
  EXPECT_EQ(Arena("weights", 4096).bytes(), 4096);
  ThreadPool pool(2);
  EXPECT_EQ(refusal([&] { HostPages("kv", 4096, pool); }),
            "host memory for kv: cannot reserve 4096 bytes: Cannot allocate memory (free memory on "
            "this host, or let less be spilled to it: --host-memory)");
  EXPECT_EQ(HostPages("weights", 4096, pool).bytes(), 4096);
}

}  // namespace
}  // namespace spillway
