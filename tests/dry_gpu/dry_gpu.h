// The dry GPU: the functions of the CUDA runtime that the program uses, without a GPU. Linked
// before cudart into spillway_dry_gpu, which is otherwise the program: so tests/e2e/dry_gpu_e2e.py
// runs the host's side of GPU ranks anywhere. A function that is missing here is taken from cudart,
// whose single object then defines all the others a second time, and the link fails.
//
// What is real: host functions, copies, fills, the order of streams, events, captures and graphs.
// What is not: kernels compute nothing, so all activations stay zeros and every candidate is token
// 0; events are 0.05 ms apart; memory of another process is a copy of its own, which nobody else
// sees. Two kernels' results are looked at before the first step and so are made up: sums by peers
// (launches.cc). Nothing is shown about kernels, numbers, speed, what ranks write to each other,
// nor whether a copy waits for the kernels that use its memory.
//
// What is checked: a breach is "dry GPU: ..." on stderr and abort().
//   memory    copies and fills lie within one allocation, of the kind that the copy says, which
//             lives when they are asked for and when they run; what is captured is pinned; what is
//             pinned can be written, each page once; other processes get whole blocks of CUDA IPC
//   captures  what the capture has no part in is not waited for, nor is the captured waited for,
//             asked about or forked outside; all of it is joined at its end; nothing synchronous,
//             nothing from another thread
//   launches  a kernel that is known, shapes and shared memory within the device's limits
//   threads   streams and events belong to the calling thread's GPU; host functions call no CUDA
//   cuBLASLt  pointers and workspace are as the preference promised
//   the end   streams, events, graphs and memory are given back when a rank ends well
//
// Streams run what they are asked for at once, on the calling thread; with DRY_GPU_SEED each has a
// thread and works late, by random delays of that seed, and graphs run their nodes in a random
// order that their edges allow, one at a time. One host function runs at a time, whatever stream or
// graph it is of: CUDA may have one thread for all, which one that waits holds up.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace dry_gpu {

// From the environment, which mpirun gives to every rank or to some.
struct Settings {
  int gpus = 1;                     // DRY_GPU_COUNT
  int capability = 90;              // DRY_GPU_CAPABILITY
  size_t bytes = size_t{8} << 30;   // of each GPU
  size_t refused_bytes = SIZE_MAX;  // DRY_GPU_REFUSES: allocations of so many bytes and more
  bool ipc = true;                  // DRY_GPU_NO_IPC
  bool threads = false;             // DRY_GPU_SEED
  unsigned seed = 0;
};
const Settings& settings();

[[noreturn]] void breach(const std::string& what);
// A refusal that the program may meet: for cudaGetLastError as well.
cudaError_t refuse(cudaError_t error);

// Every function of CUDA begins with one of these: neither is called by a host function, the second
// not while the thread captures either.
void enter(const char* function);
void enter_synchronous(const char* function);
// Around a host function of a stream.
void call_host_function(cudaHostFn_t function, void* context);

int current_device();  // of the calling thread

// memory.cc. Whether the bytes lie in memory that CUDA knows, within one allocation; breach when
// they leave it, or it was freed.
enum class Where { kPageable, kPinned, kDevice };
Where examine(const void* data, size_t bytes, const std::string& what);
// For what the program declares as __device__: memory of the device that is never freed.
void* symbol_memory(size_t bytes);

// streams.cc. Asks the stream to run this after all before it, or makes a node of it.
void enqueue(cudaStream_t stream, std::function<void()> run);
bool is_capturing(cudaStream_t stream);
bool thread_captures();
void wait_for_all_streams();

// What still lives at the end, by kind, is a breach.
void count_alive(const char* kind, int change);

// launches.cc: the largest dynamic shared memory of a block, of the capability.
int most_shared_bytes();

}  // namespace dry_gpu
