// Tensor-core tiles of 16 x 8 x 16 halves, and what feeds them.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace spillway::cuda {

// d += a b. a: 16 x 16 by rows, b: 16 x 8 by columns, d: 16 x 8. With g = lane / 4, c = lane % 4:
//   a[0] (g, 2c..2c+1), a[1] (g+8, 2c..), a[2] (g, 2c+8..), a[3] (g+8, 2c+8..)
//   b0 (2c..2c+1, g), b1 (2c+8.., g);  d[0..1] (g, 2c..2c+1), d[2..3] (g+8, 2c..)
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint4& a, uint32_t b0,
                                             uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t half_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float2 float_pair(uint32_t halves) {
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

// Four 8 x 8 matrices of halves; the lanes' addresses name their rows. Transposed: each as seen
// along its columns.
__device__ __forceinline__ uint4 load_matrices(const __half* row) {
  uint4 r;
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(address)
               : "memory");
  return r;
}
__device__ __forceinline__ uint4 load_matrices_transposed(const __half* row) {
  uint4 r;
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(address)
               : "memory");
  return r;
}

// 16 bytes to shared memory, past the registers and the first cache.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace spillway::cuda
