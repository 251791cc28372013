// Kernels of the dry GPU: known by name, launched with shapes that a GPU takes, and without effect
// but for the sums that a fabric proves itself with. See dry_gpu.h.
#include <cxxabi.h>

#include <cstring>
#include <map>
#include <mutex>

#include "kernels/core/tensor.h"
#include "kernels/cuda/peer.h"
#include "tests/dry_gpu/dry_gpu.h"

namespace dry_gpu {
namespace {

constexpr int kSharedWithoutAsking = 48 << 10;

struct Kernel {
  std::string name;
  int shared_bytes = kSharedWithoutAsking;
};
struct Variable {
  size_t bytes = 0;
  void* data = nullptr;
};
// What the program's own initialisers register, before main.
struct Code {
  std::mutex mutex;
  std::map<const void*, Kernel> kernels;
  std::map<const void*, Variable> variables;
};
Code& code() {
  static auto& all = *new Code;
  return all;
}

std::string readable(const char* mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  const std::string out = text == nullptr ? mangled : text;
  std::free(text);
  return out;
}

Kernel& kernel(const void* function) {
  const auto found = code().kernels.find(function);
  if (found == code().kernels.end()) breach("a kernel that the program did not register");
  return found->second;
}

Variable& variable(const void* symbol) {
  const auto found = code().variables.find(symbol);
  if (found == code().variables.end()) breach("a variable that the program did not register");
  Variable& out = found->second;
  if (out.data == nullptr) out.data = symbol_memory(out.bytes);
  return out;
}

std::string shape_text(const cudaLaunchConfig_t& config) {
  const auto text = [](const dim3& d) {
    return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
  };
  return "grid " + text(config.gridDim) + ", block " + text(config.blockDim) + ", " +
         std::to_string(config.dynamicSmemBytes) + " bytes of shared memory";
}

void check_attributes(const cudaLaunchConfig_t& config, const std::string& name) {
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    if (settings().capability < 90) {
      breach("a launch of " + name +
             " with what this GPU does not have: " + std::to_string(attribute.id));
    }
    if (attribute.id != cudaLaunchAttributeClusterDimension) continue;
    const unsigned blocks = attribute.val.clusterDim.x;
    if (blocks == 0 || blocks > 8 || config.gridDim.x % blocks != 0) {
      breach("a launch of " + name + " in clusters of " + std::to_string(blocks) + ", " +
             shape_text(config));
    }
  }
}

void check_shape(const cudaLaunchConfig_t& config, const Kernel& launched) {
  const dim3& grid = config.gridDim;
  const dim3& block = config.blockDim;
  const bool good = grid.x > 0 && grid.x <= INT32_MAX && grid.y > 0 && grid.y <= 65535 &&
                    grid.z > 0 && grid.z <= 65535 && block.x > 0 && block.y > 0 && block.z > 0 &&
                    block.z <= 64 && uint64_t{block.x} * block.y * block.z <= 1024 &&
                    config.dynamicSmemBytes <= static_cast<size_t>(launched.shared_bytes);
  if (!good) {
    breach("a launch of " + readable(launched.name.c_str()) + " that no GPU takes: " +
           shape_text(config) + " of " + std::to_string(launched.shared_bytes));
  }
}

// How the arguments of small_sum_kernel (peer_sum.cu) and round_kernel (peer_rows.cu) begin.
struct PeerSumArguments {
  spillway::cuda::PeerGroup group;
  spillway::View2D<const float> partial;
  spillway::View2D<float> x;
  bool whole_x;
  bool add;
  const float* weight;
};

// The sum of what device_communicator.cc has the ranks add up to prove a fabric, which neither adds
// to x nor norms, as no step's sums.
void prove(const PeerSumArguments& sum) {
  for (int64_t i = 0; i < sum.x.rows * sum.x.cols; ++i) {
    int64_t value = 0;
    for (int64_t rank = 0; rank < sum.group.size; ++rank)
      value += (rank * 5 + i * 3 + i / 7) % 16 - 8;
    sum.x.data[i] = static_cast<float>(value);
  }
}

std::function<void()> effect(const Kernel& launched, void** arguments) {
  const bool sums = launched.name.find("small_sum_kernel") != std::string::npos ||
                    launched.name.find("round_kernel") != std::string::npos;
  if (!sums) return [] {};
  PeerSumArguments sum{};
  std::memcpy(&sum, arguments[0], sizeof(sum));
  if (sum.add || sum.weight != nullptr) return [] {};
  return [sum] { prove(sum); };
}

}  // namespace

int most_shared_bytes() {
  switch (settings().capability) {
    case 90:
      return 227 << 10;
    case 80:
      return 163 << 10;
    default:
      return 99 << 10;
  }
}

}  // namespace dry_gpu

using dry_gpu::breach;
using dry_gpu::enter;
using dry_gpu::enter_synchronous;

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  dry_gpu::code().kernels[function].name = name;
}
void __cudaRegisterVar(void**, char* symbol, char*, const char*, int, size_t bytes, int, int) {
  dry_gpu::code().variables[symbol].bytes = bytes;
}
// Of <<<>>>, which the house does not write, but whose code is there for every kernel.
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaSuccess; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) {
  breach("a kernel is launched by <<<>>>");
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  breach("a kernel is launched by <<<>>>");
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
  enter("cudaLaunchKernelExC");
  std::unique_lock lock(dry_gpu::code().mutex);
  const dry_gpu::Kernel launched = dry_gpu::kernel(function);
  lock.unlock();
  dry_gpu::check_shape(*config, launched);
  dry_gpu::check_attributes(*config, launched.name);
  dry_gpu::enqueue(config->stream, dry_gpu::effect(launched, arguments));
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelExC(&config, function, arguments);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* function) {
  enter("cudaFuncGetAttributes");
  *out = {};
  dry_gpu::kernel(function);
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  enter("cudaFuncSetAttribute");
  const std::lock_guard lock(dry_gpu::code().mutex);
  dry_gpu::Kernel& changed = dry_gpu::kernel(function);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > dry_gpu::most_shared_bytes()) return dry_gpu::refuse(cudaErrorInvalidValue);
  changed.shared_bytes = value;
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void** out, const void* symbol) {
  enter("cudaGetSymbolAddress");
  const std::lock_guard lock(dry_gpu::code().mutex);
  *out = dry_gpu::variable(symbol).data;
  return cudaSuccess;
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t at,
                               cudaMemcpyKind) {
  enter_synchronous("cudaMemcpyToSymbol");
  const std::lock_guard lock(dry_gpu::code().mutex);
  const dry_gpu::Variable& to = dry_gpu::variable(symbol);
  if (at + bytes > to.bytes) breach("a copy to a variable that is smaller");
  std::memcpy(static_cast<std::byte*>(to.data) + at, from, bytes);
  return cudaSuccess;
}

}  // extern "C"
