// See device.h.
#include "kernels/cuda/device.h"

#include <cstdio>
#include <utility>

#include "kernels/core/check.h"
#include "kernels/core/simulated_fault.h"
#include "kernels/cuda/cuda_check.h"

namespace spillway::cuda {
namespace {

// The toolkit that this was built with needs a driver of the same major version.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    char hex[3];
    std::snprintf(hex, sizeof(hex), "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    text += hex;
    if (i == 3 || i == 5 || i == 7 || i == 9) text += '-';
  }
  return text;
}

std::string mib(int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

DeviceInfo info_of(int ordinal) {
  cudaDeviceProp properties{};
  CU(cudaGetDeviceProperties(&properties, ordinal));
  DeviceInfo info;
  info.ordinal = ordinal;
  info.name = properties.name;
  info.uuid = uuid_text(properties.uuid);
  char pci[32] = "";
  CU(cudaDeviceGetPCIBusId(pci, sizeof(pci), ordinal));
  info.pci = pci;
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.l2_bytes = properties.l2CacheSize;
  info.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  return info;
}

std::byte* allocate(const std::string& name, int64_t bytes, bool pinned) {
  if (bytes == 0) return nullptr;
  void* data = nullptr;
  const auto size = static_cast<size_t>(bytes);
  cudaError_t status = cudaErrorMemoryAllocation;
  if (!fault_simulated(pinned ? "pin" : "allocate gpu", name)) {
    status = pinned ? cudaMallocHost(&data, size) : cudaMalloc(&data, size);
  }
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // it is told here, not by the next call
    throw Error("out of " + std::string(pinned ? "memory that can be pinned" : "GPU memory"),
                name + " wants " + mib(bytes) +
                    (pinned ? "" : ", the device has " + mib(free_device_bytes()) + " free"),
                pinned ? "raise the limit of locked memory (ulimit -l)"
                       : "free the GPU, shorten the context (-c), or use --device cpu");
  }
  check_cuda(status, pinned ? "cudaMallocHost" : "cudaMalloc");
  return static_cast<std::byte*>(data);
}

}  // namespace

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  int ordinal = -1;
  if (cudaGetDevice(&ordinal) != cudaSuccess) ordinal = -1;
  throw Error(
      std::string("CUDA: ") + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")",
      "GPU " + std::to_string(ordinal) + ", " + what);
}

std::vector<DeviceInfo> visible_devices() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    (void)cudaGetLastError();
    return {};  // no driver, no GPU
  }
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (status == cudaErrorNoDevice) return {};
  if (status == cudaErrorInsufficientDriver) {
    throw Error("the NVIDIA driver is too old for this program",
                "it supports CUDA " + version_text(driver) + ", the program was built with CUDA " +
                    version_text(CUDART_VERSION),
                "update the driver, or use --device cpu");
  }
  check_cuda(status, "cudaGetDeviceCount");
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) devices.push_back(info_of(i));
  return devices;
}

DeviceInfo selected_device() {
  int ordinal = 0;
  CU(cudaGetDevice(&ordinal));
  return info_of(ordinal);
}

int64_t free_device_bytes() {
  size_t available = 0;
  size_t total = 0;
  CU(cudaMemGetInfo(&available, &total));
  return static_cast<int64_t>(available);
}

// Any kernel of the library shows whether it holds code for a device.
const void* probe_kernel();
void upload_grids();  // product.h

DeviceInfo select_device(int ordinal) {
  int count = 0;
  (void)cudaGetDeviceCount(&count);
  if (ordinal < 0 || ordinal >= count) {
    throw Error("there is no GPU " + std::to_string(ordinal),
                "this process sees " + std::to_string(count) + " (CUDA_VISIBLE_DEVICES)",
                "pass --device cpu, or start fewer ranks");
  }
  CU(cudaSetDevice(ordinal));
  DeviceInfo info = info_of(ordinal);
  cudaFuncAttributes attributes{};
  if (cudaFuncGetAttributes(&attributes, probe_kernel()) != cudaSuccess) {
    (void)cudaGetLastError();
    throw Error(
        "this program holds no code for " + info.name,
        "compute capability " + std::to_string(info.major) + "." + std::to_string(info.minor),
        "build it with -DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(info.major) +
            std::to_string(info.minor) + ", or use --device cpu");
  }
  upload_grids();
  info.free_bytes = free_device_bytes();
  return info;
}

Stream::Stream() { CU(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking)); }
Stream::~Stream() {
  if (handle_ != nullptr) (void)cudaStreamDestroy(handle_);
}
Stream::Stream(Stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
void synchronize(StreamHandle stream) { CU(cudaStreamSynchronize(stream)); }

Event::Event() { CU(cudaEventCreate(&handle_)); }
Event::~Event() {
  if (handle_ != nullptr) (void)cudaEventDestroy(handle_);
}
Event::Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
void Event::record(StreamHandle stream) { CU(cudaEventRecord(handle_, stream)); }
void Event::wait_in(StreamHandle stream) const { CU(cudaStreamWaitEvent(stream, handle_, 0)); }
void Event::synchronize() const { CU(cudaEventSynchronize(handle_)); }
bool Event::reached() const {
  const cudaError_t status = cudaEventQuery(handle_);
  if (status != cudaErrorNotReady) check_cuda(status, "cudaEventQuery");
  return status == cudaSuccess;
}
float Event::ms_since(const Event& start) const {
  float ms = 0;
  CU(cudaEventElapsedTime(&ms, start.handle_, handle_));
  return ms;
}

Graph::~Graph() {
  if (handle_ != nullptr) (void)cudaGraphExecDestroy(handle_);
}
Graph::Graph(Graph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}
void Graph::begin(const Stream& stream) {
  CU(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal));
}
Graph Graph::end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  CU(cudaStreamEndCapture(stream.handle(), &graph));
  Graph out;
  const cudaError_t status = cudaGraphInstantiate(&out.handle_, graph, 0);
  (void)cudaGraphDestroy(graph);
  check_cuda(status, "cudaGraphInstantiate");
  return out;
}
void Graph::forget(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  (void)cudaStreamEndCapture(stream.handle(), &graph);
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();  // what was thrown tells it, not the next call
}
void Graph::launch(const Stream& stream) const {
  CHECK(handle_ != nullptr);
  CU(cudaGraphLaunch(handle_, stream.handle()));
}

DeviceMemory::DeviceMemory(const std::string& name, int64_t bytes)
    : data_(allocate(name, bytes, false)), bytes_(bytes) {
  if (bytes == 0) return;
  CU(cudaMemset(data_, 0, static_cast<size_t>(bytes)));
  CU(cudaStreamSynchronize(nullptr));  // our streams do not wait for the default one
}
DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) (void)cudaFree(data_);
}
DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::PinnedMemory(const std::string& name, int64_t bytes)
    : data_(allocate(name, bytes, true)), bytes_(bytes) {}
PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) (void)cudaFreeHost(data_);
}
PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void copy_to_device(StreamHandle stream, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  CU(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream));
}
void copy_to_host(StreamHandle stream, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  CU(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream));
}
void fill_zero(StreamHandle stream, void* to, int64_t bytes) {
  if (bytes == 0) return;
  CU(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream));
}

}  // namespace spillway::cuda
