// The grids of the IQ2 and IQ3 types on the device: 18 KB, copied once a process from
// kernels/core/iq_grids.cc, read through L1 by the products.
#include <cstring>

#include "kernels/core/check.h"
#include "kernels/core/iq_grids.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/product.h"

namespace spillway::cuda {
namespace {

constexpr int kXxs = 0, kXs = 512, kS = 1536, kXxs3 = 3584, kS3 = 3840, kEnd = 4352;
__device__ uint32_t device_grids[kEnd];

int offset_of(QuantType type) {
  switch (type) {
    case QuantType::kIQ2_XXS:
      return kXxs;
    case QuantType::kIQ2_XS:
      return kXs;
    case QuantType::kIQ2_S:
      return kS;
    case QuantType::kIQ3_XXS:
      return kXxs3;
    case QuantType::kIQ3_S:
      return kS3;
    default:
      return -1;
  }
}

}  // namespace

const uint32_t* grid_on_device(QuantType type) {
  const int offset = offset_of(type);
  if (offset < 0) return nullptr;
  void* address = nullptr;
  CU(cudaGetSymbolAddress(&address, device_grids));
  return static_cast<const uint32_t*>(address) + offset;
}

void upload_grids() {
  static uint32_t host[kEnd];
  std::memcpy(host + kXxs, kGridIq2Xxs.words, sizeof(kGridIq2Xxs.words));
  std::memcpy(host + kXs, kGridIq2Xs.words, sizeof(kGridIq2Xs.words));
  std::memcpy(host + kS, kGridIq2S.words, sizeof(kGridIq2S.words));
  std::memcpy(host + kXxs3, kGridIq3Xxs.words, sizeof(kGridIq3Xxs.words));
  std::memcpy(host + kS3, kGridIq3S.words, sizeof(kGridIq3S.words));
  CU(cudaMemcpyToSymbol(device_grids, host, sizeof(host)));
}

}  // namespace spillway::cuda
