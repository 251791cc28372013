// One GPU: what it is, its memory, streams, events and graphs as owners. Everything in kernels/cuda
// and the GPU executor stand on it. CUDA's own headers stay in the sources: what is declared here
// can be included by code that is compiled without nvcc.
//   Errors: what CUDA refuses is an Error with the device, the bytes and what to do.
//   Thread: a Device belongs to the thread that selects it (one rank, one thread, one device).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/arena.h"

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace spillway::cuda {

using StreamHandle = CUstream_st*;

struct DeviceInfo {
  int ordinal = 0;   // as CUDA counts, after CUDA_VISIBLE_DEVICES
  std::string name;  // "NVIDIA H100 80GB HBM3"
  std::string uuid;  // "GPU-…", as nvidia-smi prints it
  std::string pci;   // "0000:1b:00.0"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  int64_t l2_bytes = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // when it was asked
};

// The GPUs that this process may use; empty without a GPU. Throws Error when there is a driver, but
// one that is too old for this program: with its version and the one needed.
std::vector<DeviceInfo> visible_devices();

// Makes `ordinal` the calling thread's device. Throws Error when it does not exist or has a compute
// capability for which the program holds no code.
DeviceInfo select_device(int ordinal);
// The one that the calling thread has selected.
DeviceInfo selected_device();
int64_t free_device_bytes();

// Waits for the stream; throws Error with what failed on the device.
void synchronize(StreamHandle stream);

// An ordered queue of device work.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&&) = delete;
  StreamHandle handle() const { return handle_; }
  void synchronize() const { spillway::cuda::synchronize(handle_); }

 private:
  StreamHandle handle_ = nullptr;
};

// A point in a stream, with the time when it was reached.
class Event {
 public:
  Event();
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&&) = delete;
  void record(const Stream& stream) { record(stream.handle()); }
  void record(StreamHandle stream);
  // The stream goes on when this has been reached.
  void wait_in(const Stream& stream) const { wait_in(stream.handle()); }
  void wait_in(StreamHandle stream) const;
  void synchronize() const;
  bool reached() const;  // throws Error with what failed on the device before it
  float ms_since(const Event& start) const;

 private:
  CUevent_st* handle_ = nullptr;
};

// What a stream was asked to do between begin and end, to be replayed with one launch.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;
  static void begin(const Stream& stream);
  static Graph end(const Stream& stream);
  // What launch() asks the stream to do, for launches that may be refused: when it throws, the
  // stream takes work again.
  template <typename Launch>
  static Graph of(const Stream& stream, const Launch& launch) {
    begin(stream);
    try {
      launch();
    } catch (...) {
      forget(stream);
      throw;
    }
    return end(stream);
  }
  void launch(const Stream& stream) const;
  bool empty() const { return handle_ == nullptr; }

 private:
  static void forget(const Stream& stream);

  CUgraphExec_st* handle_ = nullptr;
};

// Memory of the device, of exactly these bytes, zeroed; and pinned host memory. Owners for Arena's
// `memory`: see DeviceArena.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const std::string& name, int64_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const std::string& name, int64_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Copies in stream order. Host memory should be pinned, or the call waits.
void copy_to_device(StreamHandle stream, void* to, const void* from, int64_t bytes);
void copy_to_host(StreamHandle stream, void* to, const void* from, int64_t bytes);
inline void copy_to_device(const Stream& stream, void* to, const void* from, int64_t bytes) {
  copy_to_device(stream.handle(), to, from, bytes);
}
inline void copy_to_host(const Stream& stream, void* to, const void* from, int64_t bytes) {
  copy_to_host(stream.handle(), to, from, bytes);
}
void fill_zero(StreamHandle stream, void* to, int64_t bytes);
inline void fill_zero(const Stream& stream, void* to, int64_t bytes) {
  fill_zero(stream.handle(), to, bytes);
}

}  // namespace spillway::cuda
