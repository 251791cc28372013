// Where the time of a step went: kernels' names to terms, and made-up records to times. Expected
// values are counted by hand from the intervals beside them.
#include "launch/terms.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <regex>
#include <set>

namespace spillway::testing {
namespace {

using Kind = DeviceRecord::Kind;

// As nvcc mangles a kernel of an unnamed namespace.
std::string mangled(const std::string& name) {
  return "_ZN8spillway4cuda12_GLOBAL__N_1" + std::to_string(name.size()) + name + "Ei";
}

// Names out of the program's own code for GPUs.
constexpr const char* kGemv =
    "_ZN8spillway4cuda11gemv_kernelILNS_9QuantTypeE12ELi8EEEvNS0_10GemvParamsE";
constexpr const char* kSum =
    "_ZN8spillway4cuda44_GLOBAL__N__fdbaa442_11_peer_sum_cu_39bd6f4016small_sum_"
    "kernelILi4ELi7EEEvNS"
    "1_8SmallSumE";
constexpr const char* kAttend =
    "_ZN8spillway4cuda12attend_splitILb0ENS0_9PlainRowsINS0_13FloatElementsEEELi128ELb1ELi1EEEvNS0_"
    "12AttendParamsE";

TEST(KernelNames, TheFunctionAlone) {
  EXPECT_EQ(kernel_name(kGemv), "gemv_kernel");
  EXPECT_EQ(kernel_name(kSum), "small_sum_kernel");
  EXPECT_EQ(kernel_name(kAttend), "attend_split");
  EXPECT_EQ(kernel_name(mangled("put_forms")), "put_forms");
  EXPECT_EQ(kernel_name("_ZN8spillway4cuda7nothingEv"), "nothing");
  EXPECT_EQ(kernel_name("nvjet_tst_128x64_64x6_1x2"), "nvjet_tst_128x64_64x6_1x2");
}

TEST(KernelNames, Terms) {
  EXPECT_EQ(term_of_kernel(kGemv), Term::kMatrix);
  EXPECT_EQ(term_of_kernel(kSum), Term::kCollective);
  EXPECT_EQ(term_of_kernel(kAttend), Term::kAttention);
  EXPECT_EQ(term_of_kernel(mangled("rms_norm_kernel")), Term::kOther);
  EXPECT_EQ(term_of_kernel("nvjet_tst_128x64_64x6_1x2_h_bz_TNT"), Term::kMatrix);
  EXPECT_EQ(term_of_kernel("_ZN7cutlass7Kernel2I66cutlass_80_tensorop_bf16_s16816EEvNT_6ParamsE"),
            Term::kMatrix);
  EXPECT_EQ(term_of_kernel("_Z33ncclDevKernel_AllReduce_Sum_bf16v"), Term::kCollective);
  EXPECT_EQ(term_of_kernel(mangled("gemv_kernel_of_tomorrow")), std::nullopt);
  EXPECT_EQ(term_of_kernel("somebody_else"), std::nullopt);
}

// Names of all __global__ functions of a source.
std::set<std::string> kernels_of(const std::string& source) {
  static const std::regex start(R"(__global__\s+void\s+)");
  static const std::regex name(R"(^(\w+)\s*\()");
  std::set<std::string> names;
  for (std::sregex_iterator it(source.begin(), source.end(), start), end; it != end; ++it) {
    auto at = static_cast<size_t>(it->position() + it->length());
    std::smatch found;
    std::string rest = source.substr(at, 400);
    if (rest.rfind("__launch_bounds__", 0) == 0) {
      size_t i = rest.find('(');
      int depth = 0;
      do {
        depth += rest[i] == '(' ? 1 : rest[i] == ')' ? -1 : 0;
      } while (++i < rest.size() && depth > 0);
      rest = rest.substr(rest.find_first_not_of(" \n", i));
    }
    EXPECT_TRUE(std::regex_search(rest, found, name)) << rest.substr(0, 80);
    names.insert(found[1]);
  }
  return names;
}

TEST(KernelNames, EveryKernelOfTheSourcesHasATerm) {
  const std::filesystem::path folder = std::filesystem::path(SPILLWAY_SOURCE_DIR) / "kernels/cuda";
  size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path());
    const std::string source((std::istreambuf_iterator<char>(file)), {});
    for (const std::string& name : kernels_of(source)) {
      ++n;
      EXPECT_TRUE(term_of_kernel(mangled(name)).has_value())
          << entry.path() << ": " << name << " is missing in launch/terms.cc";
    }
  }
  EXPECT_GT(n, 30U);
}

// A trace whose first run, which only gives the begin, ends at 0; times are microseconds.
class Made {
 public:
  Made() {
    trace.device.names = {kGemv, kAttend, kSum, "stranger"};
    trace.spans.push_back({1, -100000, -100000, -100000, 0});
  }
  Made& run(int64_t begin, int64_t received, int64_t launched, int64_t end, int64_t rows = 1) {
    trace.spans.push_back({rows, begin * 1000, received * 1000, launched * 1000, end * 1000});
    return *this;
  }
  Made& kernel(int32_t name, int64_t begin, int64_t end) {
    trace.device.records.push_back({Kind::kKernel, name, 0, begin * 1000, end * 1000});
    return *this;
  }
  Made& copy(Kind kind, int64_t bytes, int64_t begin, int64_t end) {
    trace.device.records.push_back({kind, -1, bytes, begin * 1000, end * 1000});
    return *this;
  }
  StepTrace trace;
};

// Microseconds by term, in the order of Term.
using Us = std::array<int, kTerms>;
Us us_of(const TermTimes& times) {
  Us out;
  for (size_t i = 0; i < kTerms; ++i) out[i] = static_cast<int>(1000 * times.ms[i] + 0.5);
  const double sum = std::accumulate(times.ms.begin(), times.ms.end(), 0.0);
  EXPECT_NEAR(sum, times.total_ms, 1e-9) << "every instant has one term";
  return out;
}

TEST(TermTimes, TheEarlierKernelHasWhatTheyShare) {
  // matrix 20-50, attention from 40 within it to 60, sum 45-48 wholly beside others.
  Made made;
  made.run(0, 0, 10, 100).kernel(1, 40, 60).kernel(0, 20, 50).kernel(2, 45, 48);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true})),
            (Us{30, 10, 0, 0, 0, 10 + 40, 0, 10}));
}

TEST(TermTimes, IdleTimeIsTheHosts) {
  // Outside of run() 0-5, a wait for rows to 15, launching to 30, the GPU from 25 to 40, end at 50.
  Made made;
  made.run(5, 15, 30, 50).kernel(0, 25, 40);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true})),
            (Us{15, 0, 0, 0, 0, 10, 10, 15}));
  // A follower has nothing to do outside of run() but to wait.
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, false})),
            (Us{15, 0, 0, 0, 0, 10, 15, 10}));
  // The front waits for the logits of others from 52 to 58.
  made.trace.waits.push_back({52000, 58000});
  made.run(60, 60, 62, 70).kernel(0, 62, 70);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true})), (Us{8, 0, 0, 0, 0, 0, 6, 6}));
}

TEST(TermTimes, MeanOfSteps) {
  Made made;
  made.run(0, 0, 10, 50).kernel(0, 10, 50).run(50, 50, 60, 70).kernel(0, 60, 70);
  EXPECT_EQ(us_of(term_times(made.trace, 2, 2, {16, false, true})), (Us{25, 0, 0, 0, 0, 0, 0, 10}));
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true})), (Us{10, 0, 0, 0, 0, 0, 0, 10}));
}

TEST(TermTimes, CopiesOfRowsAreHops) {
  // Rows of 16 bytes, two of them; the step's own arrays are shorter.
  Made made;
  made.run(0, 0, 0, 40, 2)
      .copy(Kind::kToDevice, 24, 0, 5)
      .copy(Kind::kToDevice, 32, 5, 12)
      .kernel(0, 12, 30)
      .copy(Kind::kToHost, 32, 30, 40);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true})), (Us{18, 0, 0, 17, 5, 0, 0, 0}));
}

TEST(TermTimes, StagedSumsAreCollectiveWithTheTimeOnTheHost) {
  Made made;
  made.run(0, 0, 90, 100)
      .kernel(0, 0, 20)
      .copy(Kind::kToHost, 16, 20, 25)
      .copy(Kind::kToDevice, 16, 60, 70)
      .kernel(0, 75, 100);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, true, true})),
            (Us{45, 0, 5 + 35 + 10, 0, 0, 0, 0, 5}));
}

// Halves of 640 bytes, longer than the step's rows: no hops. Times are in the comments.
TEST(TermTimes, CopiesOfSpilledHalvesCountWhereTheGpuWaitsForThem) {
  Made made;
  made.run(0, 0, 10, 100)
      .copy(Kind::kToDevice, 640, 0, 40)  // 10 of it while the host launches, then waited for
      .kernel(0, 40, 60)
      .copy(Kind::kToDevice, 640, 40, 55)   // beside a kernel
      .copy(Kind::kToDevice, 640, 60, 120)  // of nobody here: the next kernel begins before its end
      .kernel(0, 70, 90);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true, {640}})),
            (Us{40, 0, 0, 0, 0, 20, 0, 0, 0, 40, 0}));
  // Without knowing them they are taken for rows.
  EXPECT_GT(us_of(term_times(made.trace, 1, 1, {16, false, true}))[3], 0);
}

TEST(TermTimes, CallsOfTheHostCountWhereTheGpuWaitsForThem) {
  Made made;
  made.run(0, 0, 0, 100).kernel(0, 0, 10).kernel(0, 50, 60).kernel(0, 90, 100);
  const auto call = [&](HostCall::Kind kind, int64_t begin, int64_t end) {
    made.trace.calls.push_back({kind, begin * 1000, end * 1000});
  };
  call(HostCall::Kind::kMultiply, 5, 45);   // from 10 to 45; 5 until the kernel are a gap
  call(HostCall::Kind::kReadDisk, 55, 75);  // from 60 to 75, then the copy until 90
  made.copy(Kind::kToDevice, 640, 75, 90);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true, {640}})),
            (Us{30, 0, 0, 0, 0, 5, 0, 0, 35, 15, 15}));
}

// What a rank on a CPU tells of itself, and what it does between its steps.
TEST(TermTimes, OfARankOnACpu) {
  StepTrace trace;
  trace.on_cpu = {{-50000, 0, {}},
                  {10000, 60000, {20000, 10000, 5000, 4000, 3000, 2000, 6000}},
                  {70000, 100000, {30000, 0, 0, 0, 0, 0, 0}}};
  trace.waits.push_back({62000, 66000});
  // 10 + 10 us outside of steps, 4 of them waiting for results.
  EXPECT_EQ(us_of(term_times(trace, 2, 1, {16, false, true})),
            (Us{50, 10, 5, 4, 6, 0, 3 + 4, 16, 0, 0, 2}));
  EXPECT_EQ(us_of(term_times(trace, 2, 1, {16, false, false})),
            (Us{50, 10, 5, 4, 6, 0, 3 + 4 + 16, 0, 0, 0, 2}));
}

TEST(TermTimes, RecordsOutsideOfTheStepsDoNotCount) {
  Made made;
  made.kernel(0, -50, 10).run(0, 0, 10, 50).kernel(0, 45, 80);
  EXPECT_EQ(us_of(term_times(made.trace, 1, 1, {16, false, true})), (Us{15, 0, 0, 0, 0, 35, 0, 0}));
}

TEST(TermTimes, AStrangeKernelIsNamed) {
  Made made;
  made.run(0, 0, 0, 10).kernel(3, 0, 10);
  const TermTimes times = term_times(made.trace, 1, 1, {16, false, true});
  EXPECT_EQ(us_of(times), (Us{0, 0, 0, 0, 10, 0, 0, 0}));
  EXPECT_EQ(times.unknown, "stranger");
}

}  // namespace
}  // namespace spillway::testing
