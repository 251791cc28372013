// Words that kernels of different GPUs exchange: how they are written, read and waited for.
// Included by the peers' sums and the hops.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace spillway::cuda {

// Polls between two looks at the abort word, which lies in host memory: a look costs about 1 us.
inline constexpr int kSpinsALook = 1000;

__device__ __forceinline__ size_t global_address(const void* at) {
  return __cvta_generic_to_global(at);
}

// Two values with the time of their sum beside each, in one store of 16 bytes. Each 8 bytes arrive
// whole, so a value whose time is right is right: no fence, no flag of its own (as in NCCL's LL).
struct alignas(16) Line {
  uint64_t words[2];
};

__device__ __forceinline__ uint64_t timed_word(float value, uint32_t time) {
  return static_cast<uint64_t>(time) << 32 | __float_as_uint(value);
}
__device__ __forceinline__ void store_line(Line* to, float a, float b, uint32_t time) {
  asm volatile("st.relaxed.sys.global.v2.b64 [%0], {%1, %2};" ::"l"(global_address(to)),
               "l"(timed_word(a, time)), "l"(timed_word(b, time))
               : "memory");
}
__device__ __forceinline__ Line load_line(const Line* from) {
  Line line;
  asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];"
               : "=l"(line.words[0]), "=l"(line.words[1])
               : "l"(global_address(from))
               : "memory");
  return line;
}
__device__ __forceinline__ bool has_time(const Line& line, uint32_t time) {
  return static_cast<uint32_t>(line.words[0] >> 32) == time &&
         static_cast<uint32_t>(line.words[1] >> 32) == time;
}
__device__ __forceinline__ float2 values_of(const Line& line) {
  return {__uint_as_float(static_cast<uint32_t>(line.words[0])),
          __uint_as_float(static_cast<uint32_t>(line.words[1]))};
}

// A flag behind data: who reads it with load_flag() sees all that was written before store_flag().
__device__ __forceinline__ void store_flag(uint32_t* to, uint32_t time) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(global_address(to)), "r"(time)
               : "memory");
}
__device__ __forceinline__ uint32_t load_flag(const uint32_t* from) {
  uint32_t time;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
               : "=r"(time)
               : "l"(global_address(from))
               : "memory");
  return time;
}

// Whether to stop waiting, asked after every poll that found nothing.
struct Patience {
  const uint32_t* abort;
  int spins = 0;
  __device__ __forceinline__ bool is_over() {
    if (++spins < kSpinsALook) return false;
    spins = 0;
    uint32_t told;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];"
                 : "=r"(told)
                 : "l"(global_address(abort))
                 : "memory");
    return told != 0;
  }
};

}  // namespace spillway::cuda
