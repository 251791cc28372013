// What the dry GPU calls a breach, each done on purpose; and that what is right passes.
#include "tests/dry_gpu/dry_gpu.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <utility>

extern "C" void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*,
                                       dim3*, dim3*, int*);

namespace {

const int kTwoGpus = setenv("DRY_GPU_COUNT", "2", 1);  // before anything is asked

struct DryGpu : testing::Test {
  cudaStream_t first = nullptr;
  cudaStream_t second = nullptr;
  cudaEvent_t event = nullptr;
  void* device = nullptr;
  void* pinned = nullptr;

  void SetUp() override {
    cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
    cudaEventCreate(&event);
    cudaMalloc(&device, 64);
    cudaMallocHost(&pinned, 64);
  }
  void TearDown() override {
    cudaStreamDestroy(first);
    cudaStreamDestroy(second);
    cudaEventDestroy(event);
    if (device != nullptr) cudaFree(device);
    cudaFreeHost(pinned);
  }
  void begin() const { cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal); }
  cudaGraphExec_t end() const {
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(first, &graph);
    cudaGraphExec_t out = nullptr;
    cudaGraphInstantiate(&out, graph, 0);
    cudaGraphDestroy(graph);
    return out;
  }
  void to_device(size_t bytes, cudaStream_t stream) const {
    cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream);
  }
  // Second takes part in first's capture.
  void fork() const {
    cudaEventRecord(event, first);
    cudaStreamWaitEvent(second, event, 0);
  }
  void join() const {
    cudaEventRecord(event, second);
    cudaStreamWaitEvent(first, event, 0);
  }
};
using DryGpuDeathTest = DryGpu;

TEST_F(DryGpu, AGraphRunsWhatWasCapturedAndNothingRunsBefore) {
  auto* host = static_cast<char*>(pinned);
  begin();
  fork();
  to_device(64, second);
  join();
  cudaMemcpyAsync(host + 32, device, 32, cudaMemcpyDeviceToHost, first);
  const cudaGraphExec_t graph = end();
  host[0] = 'a';
  EXPECT_EQ(host[32], 0);
  cudaGraphLaunch(graph, first);
  cudaStreamSynchronize(first);
  EXPECT_EQ(host[32], 'a');
  cudaGraphExecDestroy(graph);
}

TEST_F(DryGpu, FillsOfPartsOfPages) {
  constexpr size_t kBytes = 3 * 4096;
  void* pages = nullptr;
  ASSERT_EQ(cudaMalloc(&pages, kBytes), cudaSuccess);
  const auto* bytes = static_cast<const char*>(pages);
  for (const size_t from : {0, 1, 4095, 4096}) {
    for (const size_t to : {4097, 8192, 8195, 12288}) {
      cudaMemset(pages, 7, kBytes);
      cudaMemset(static_cast<char*>(pages) + from, 0, to - from);
      for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(bytes[i], i < from || i >= to ? 7 : 0) << i;
    }
  }
  cudaFree(pages);
}

TEST_F(DryGpu, RefusesTheMemoryThatItDoesNotHave) {
  void* much = nullptr;
  EXPECT_EQ(cudaMalloc(&much, size_t{9} << 30), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(DryGpuDeathTest, Memory) {
  EXPECT_DEATH(to_device(65, first), "a copy to 65 bytes at 0 of an allocation of 64");
  EXPECT_DEATH(cudaMemcpyAsync(pinned, device, 64, cudaMemcpyHostToDevice, first),
               "other kinds of memory");
  EXPECT_DEATH(cudaMemsetAsync(pinned, 0, 64, first), "not the GPU's");
  EXPECT_DEATH(cudaFree(static_cast<char*>(device) + 1), "no beginning");
  EXPECT_DEATH(cudaHostRegister(pinned, 64, 0), "pinned twice");
  void* freed = std::exchange(device, nullptr);
  cudaFree(freed);
  EXPECT_DEATH(cudaMemsetAsync(freed, 0, 64, first), "memory that was freed");
  EXPECT_DEATH(cudaFree(freed), "freed twice");
}

TEST_F(DryGpuDeathTest, WhatCannotBePinned) {
  constexpr size_t kPage = 4096;
  const auto pages_of = [](int protection) {
    void* out = mmap(nullptr, 3 * kPage, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return static_cast<char*>(out);
  };
  char* pages = pages_of(PROT_READ | PROT_WRITE);
  ASSERT_EQ(cudaHostRegister(pages + 100, kPage, 0), cudaSuccess);
  EXPECT_DEATH(cudaHostRegister(pages + kPage + 200, 8, 0), "pinned twice, or a page of it");
  EXPECT_DEATH(cudaHostRegister(pages + 8, 8, 0), "pinned twice, or a page of it");
  EXPECT_EQ(cudaHostRegister(pages + 2 * kPage, kPage, 0), cudaSuccess);
  EXPECT_DEATH(cudaHostRegister(pages_of(PROT_READ), kPage, 0), "cannot be written");
  EXPECT_DEATH(cudaHostRegister(pages, 0, 0), "nothing is pinned");
  cudaHostUnregister(pages + 100);
  cudaHostUnregister(pages + 2 * kPage);
  munmap(pages, 3 * kPage);
}

TEST_F(DryGpuDeathTest, MemoryOfOtherProcesses) {
  cudaIpcMemHandle_t handle{};
  EXPECT_DEATH(cudaIpcGetMemHandle(&handle, device), "part of a block");
  void* block = nullptr;
  ASSERT_EQ(cudaMalloc(&block, size_t{2} << 20), cudaSuccess);
  EXPECT_DEATH(cudaIpcGetMemHandle(&handle, static_cast<char*>(block) + 64), "no beginning");
  ASSERT_EQ(cudaIpcGetMemHandle(&handle, block), cudaSuccess);
  void* opened = nullptr;
  EXPECT_EQ(cudaIpcOpenMemHandle(&opened, handle, 0), cudaErrorInvalidValue);  // its own
  (void)cudaGetLastError();
  cudaFree(block);
}

// As where CUDA has one thread for those of all streams.
TEST_F(DryGpu, HostFunctionsOfTwoStreamsRunOneAtATime) {
  struct Visits {
    std::atomic<int> inside{0};
    std::atomic<int> together{0};
  } visits;
  const auto visit = [](void* data) {
    auto& all = *static_cast<Visits*>(data);
    if (++all.inside > 1) ++all.together;
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    --all.inside;
  };
  const auto visit_often = [&](cudaStream_t stream) {
    for (int i = 0; i < 20; ++i) cudaLaunchHostFunc(stream, visit, &visits);
  };
  std::thread beside([&] { visit_often(second); });
  visit_often(first);
  beside.join();
  EXPECT_EQ(visits.together, 0);
}

TEST_F(DryGpu, AnotherGpusMemoryIsReachedOnce) {
  ASSERT_EQ(kTwoGpus, 0);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(0, 0), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(1, 0), cudaSuccess);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);
  (void)cudaGetLastError();
}

TEST_F(DryGpuDeathTest, MemoryOfAGraphThatWasFreed) {
  begin();
  to_device(64, first);
  const cudaGraphExec_t graph = end();
  cudaFree(std::exchange(device, nullptr));
  EXPECT_DEATH(cudaGraphLaunch(graph, first), "memory that was freed");
  cudaGraphExecDestroy(graph);
}

TEST_F(DryGpuDeathTest, WhatACaptureForbids) {
  cudaEventRecord(event, second);
  begin();
  EXPECT_DEATH(cudaStreamWaitEvent(first, event, 0), "waits for what is not captured");
  EXPECT_DEATH(cudaStreamSynchronize(second), "cudaStreamSynchronize while the thread captures");
  EXPECT_DEATH(cudaFree(device), "cudaFree while the thread captures");
  std::array<char, 64> pageable{};
  EXPECT_DEATH(cudaMemcpyAsync(device, pageable.data(), 64, cudaMemcpyHostToDevice, first),
               "not pinned");
  EXPECT_DEATH(
      {
        fork();
        to_device(64, second);
        end();
      },
      "work that its stream does not wait for");
  fork();
  to_device(64, second);
  join();
  cudaGraphExecDestroy(end());
  EXPECT_DEATH(cudaStreamWaitEvent(second, event, 0), "a capture that has ended");
  EXPECT_DEATH(cudaEventQuery(event), "event that was captured");
}

TEST_F(DryGpuDeathTest, OrderAndThreads) {
  EXPECT_DEATH(cudaStreamWaitEvent(second, event, 0), "that nobody recorded");
  EXPECT_DEATH(cudaLaunchHostFunc(
                   first, [](void* data) { cudaFree(data); }, device),
               "a host function of a stream calls cudaFree");
  cudaEvent_t without_time = nullptr;
  cudaEventCreateWithFlags(&without_time, cudaEventDisableTiming);
  cudaEventRecord(event, first);
  cudaEventRecord(without_time, first);
  float ms = 0;
  EXPECT_DEATH(cudaEventElapsedTime(&ms, event, without_time), "an event that has none");
  cudaEventDestroy(without_time);
  ASSERT_EQ(kTwoGpus, 0);
  cudaSetDevice(1);
  EXPECT_DEATH(to_device(64, first), "a stream of GPU 0 in a thread of GPU 1");
  cudaSetDevice(0);
}

TEST_F(DryGpuDeathTest, AnotherThreadsCapture) {
  const auto elsewhere = [this](bool captured) {
    if (captured) begin();
    std::thread([this] { to_device(64, first); }).join();
  };
  elsewhere(false);
  EXPECT_DEATH(elsewhere(true), "a stream that another thread captures");
}

TEST_F(DryGpuDeathTest, WhatIsNotGivenBack) { EXPECT_DEATH(_exit(0), "at the end"); }

TEST_F(DryGpuDeathTest, Launches) {
  static const char known = 0;
  static const char unknown = 0;
  __cudaRegisterFunction(nullptr, &known, nullptr, "kernel", -1, nullptr, nullptr, nullptr, nullptr,
                         nullptr);
  cudaLaunchConfig_t config{};
  config.stream = first;
  config.gridDim = {1, 1, 1};
  config.blockDim = {1024, 1, 1};
  config.dynamicSmemBytes = 49152;
  EXPECT_EQ(cudaLaunchKernelExC(&config, &known, nullptr), cudaSuccess);
  EXPECT_DEATH(cudaLaunchKernelExC(&config, &unknown, nullptr), "did not register");
  config.dynamicSmemBytes = 49153;
  EXPECT_DEATH(cudaLaunchKernelExC(&config, &known, nullptr), "49153 bytes .* of 49152");
  const auto shared = cudaFuncAttributeMaxDynamicSharedMemorySize;
  EXPECT_EQ(cudaFuncSetAttribute(&known, shared, 232448), cudaSuccess);
  EXPECT_EQ(cudaLaunchKernelExC(&config, &known, nullptr), cudaSuccess);
  EXPECT_EQ(cudaFuncSetAttribute(&known, shared, 232449), cudaErrorInvalidValue);
  config.blockDim.y = 2;
  EXPECT_DEATH(cudaLaunchKernelExC(&config, &known, nullptr), "block 1024 x 2 x 1");
  config.blockDim.y = 1;
  config.gridDim.x = 0;
  EXPECT_DEATH(cudaLaunchKernelExC(&config, &known, nullptr), "grid 0 x 1 x 1");
}

}  // namespace
