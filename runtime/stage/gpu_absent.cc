// GpuExecutor in a build without the CUDA kernels: a clear error instead of a link failure.
#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "runtime/stage/gpu_executor.h"

namespace spillway {

struct GpuExecutor::State {};

GpuExecutor::GpuExecutor(const Gguf&, const ModelSpec&, const Plan&, Mesh&, int, const cpu::Exec&,
                         const std::string&, const std::function<void(int64_t, int64_t)>&) {
  throw Error("this program was built without CUDA", "",
              "build the preset `release` where nvcc is, or use --device cpu");
}
GpuExecutor::~GpuExecutor() = default;
void GpuExecutor::connect(CommChoice, HiddenCheck) { CHECK(false); }
RankPlace GpuExecutor::place() const { CHECK(false); }
void GpuExecutor::link(const std::vector<HopSeat>&, CommChoice) { CHECK(false); }
const std::vector<HopReport>& GpuExecutor::hop_reports() const { CHECK(false); }
void GpuExecutor::run(const StepBatch&, std::byte*) { CHECK(false); }
void GpuExecutor::finish() { CHECK(false); }
int64_t GpuExecutor::device_bytes() const { return 0; }
int64_t GpuExecutor::host_bytes() const { return 0; }
std::string GpuExecutor::comm_report() const { return ""; }
std::string GpuExecutor::sum_kind() const { return ""; }
int64_t GpuExecutor::waited_ns() const { return 0; }
void GpuExecutor::open_trace() { CHECK(false); }
void GpuExecutor::begin_trace() { CHECK(false); }
StepTrace GpuExecutor::end_trace() { CHECK(false); }
bool GpuExecutor::traces() const { return false; }
int64_t GpuExecutor::trace_now_ns() const { return 0; }
void GpuExecutor::trace_wait(int64_t) {}

}  // namespace spillway
