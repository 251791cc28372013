// Which instruction set runs: found once by the caller (best_isa), then passed in Exec.
#include <cpuid.h>

#include "kernels/core/check.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/ops.h"

namespace spillway::cpu {
namespace {

bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 29)) != 0;
}

}  // namespace

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
Isa best_isa() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  if (avx512) return Isa::kAvx512;
  return avx2 ? Isa::kAvx2 : Isa::kScalar;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512-vnni";
  }
  CHECK(false);
}

const KernelTable& kernel_table(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return lanes_scalar::kTable;
    case Isa::kAvx2:
      return lanes_avx2::kTable;
    case Isa::kAvx512:
      return lanes_avx512::kTable;
  }
  CHECK(false);
}

}  // namespace spillway::cpu
