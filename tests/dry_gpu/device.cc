// What a dry GPU says about itself, how breaches end, and what is left at the end. See dry_gpu.h.
#include <cuda.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "tests/dry_gpu/dry_gpu.h"

namespace dry_gpu {
namespace {

thread_local int selected = 0;
thread_local bool in_host_function = false;
thread_local cudaError_t last_error = cudaSuccess;

int64_t number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

Settings read_settings() {
  Settings out;
  out.gpus = static_cast<int>(number("DRY_GPU_COUNT", out.gpus));
  out.capability = static_cast<int>(number("DRY_GPU_CAPABILITY", out.capability));
  out.refused_bytes = static_cast<size_t>(number("DRY_GPU_REFUSES", -1));
  out.ipc = std::getenv("DRY_GPU_NO_IPC") == nullptr;
  out.threads = std::getenv("DRY_GPU_SEED") != nullptr;
  out.seed = static_cast<unsigned>(number("DRY_GPU_SEED", 0));
  return out;
}

struct Count {
  std::mutex mutex;
  std::map<std::string, int> alive;
};
Count& counts() {
  static auto& all = *new Count;  // outlives every other static
  return all;
}

// The driver's function that describes a matrix for TMA: its own conditions.
CUresult encode_map(CUtensorMap*, CUtensorMapDataType, cuuint32_t rank, void* address,
                    const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                    const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  bool good = address != nullptr && reinterpret_cast<uintptr_t>(address) % 16 == 0;
  for (cuuint32_t i = 0; i < rank; ++i) {
    good = good && sizes[i] > 0 && box[i] > 0 && box[i] <= 256;
    if (i + 1 < rank) good = good && strides[i] % 16 == 0;
  }
  if (!good) breach("a tensor map that the driver refuses: sizes, strides or an address");
  return CUDA_SUCCESS;
}

}  // namespace

const Settings& settings() {
  static const Settings read = read_settings();
  return read;
}

void breach(const std::string& what) {
  std::fprintf(stderr, "dry GPU: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

cudaError_t refuse(cudaError_t error) {
  last_error = error;
  return error;
}

void enter(const char* function) {
  if (in_host_function) breach(std::string("a host function of a stream calls ") + function);
}
void enter_synchronous(const char* function) {
  enter(function);
  if (thread_captures()) breach(std::string(function) + " while the thread captures");
}
void call_host_function(cudaHostFn_t function, void* context) {
  static std::mutex one_at_a_time;  // CUDA may have one thread for those of all streams
  const std::lock_guard lock(one_at_a_time);
  in_host_function = true;
  function(context);
  in_host_function = false;
}

int current_device() { return selected; }

void count_alive(const char* kind, int change) {
  const std::lock_guard lock(counts().mutex);
  counts().alive[kind] += change;
}

}  // namespace dry_gpu

using dry_gpu::enter;
using dry_gpu::settings;

extern "C" {

// The program ends by _exit, and on a good end it has given everything back: --wrap=_exit.
[[noreturn]] void __real__exit(int code);
[[noreturn]] void __wrap__exit(int code) {
  for (const auto& [kind, count] : dry_gpu::counts().alive) {
    if (code == 0 && count != 0) {
      dry_gpu::breach(std::to_string(count) + " of " + kind + " at the end");
    }
  }
  __real__exit(code);
}

cudaError_t cudaDriverGetVersion(int* version) {
  enter("cudaDriverGetVersion");
  *version = settings().gpus > 0 ? CUDART_VERSION : 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  enter("cudaGetDeviceCount");
  *count = settings().gpus;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  enter("cudaSetDevice");
  if (device < 0 || device >= settings().gpus) return dry_gpu::refuse(cudaErrorInvalidDevice);
  dry_gpu::selected = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  enter("cudaGetDevice");
  *device = dry_gpu::selected;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  enter("cudaGetDeviceProperties");
  *out = {};
  std::strcpy(out->name, "dry GPU");
  out->uuid.bytes[0] = static_cast<char>(device + 1);
  out->major = settings().capability / 10;
  out->minor = settings().capability % 10;
  out->multiProcessorCount = 132;
  out->l2CacheSize = 50 << 20;
  out->totalGlobalMem = settings().bytes;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  enter("cudaDeviceGetAttribute");
  if (attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin) {
    *value = dry_gpu::most_shared_bytes();
  } else if (attribute == cudaDevAttrMultiProcessorCount) {
    *value = 132;
  } else {
    dry_gpu::breach("attribute " + std::to_string(attribute) + " is asked for; add it");
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  enter("cudaDeviceGetPCIBusId");
  std::snprintf(text, static_cast<size_t>(bytes), "0000:%02x:00.0", device + 16);
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int other, unsigned) {
  enter("cudaDeviceEnablePeerAccess");
  static std::mutex mutex;
  static std::set<std::pair<int, int>> enabled;
  if (other == dry_gpu::selected) return dry_gpu::refuse(cudaErrorInvalidDevice);
  const std::lock_guard lock(mutex);
  const bool first = enabled.insert({dry_gpu::selected, other}).second;
  return first ? cudaSuccess : dry_gpu::refuse(cudaErrorPeerAccessAlreadyEnabled);
}

#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** out, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
#else
cudaError_t cudaGetDriverEntryPoint(const char*, void** out, unsigned long long,
                                    cudaDriverEntryPointQueryResult* result) {
#endif
  enter("cudaGetDriverEntryPoint");
  *out = reinterpret_cast<void*>(&dry_gpu::encode_map);
  if (result != nullptr) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t) { return "dry"; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "refused by the dry GPU";
}
cudaError_t cudaGetLastError() {
  enter("cudaGetLastError");
  return std::exchange(dry_gpu::last_error, cudaSuccess);
}

}  // extern "C"
