// What the selected GPU and its bus can do, measured: the probe's half that needs CUDA. Beside it:
// bandwidth.h, the device's own memory. Each call takes memory, gives it back, and waits for the
// stream.
//   Thread: the device's.
#pragma once

#include <vector>

#include "kernels/cuda/device.h"

namespace spillway::cuda {

// bf16, 1e12 operations a second: the best of a few cuBLASLt products 8192 cubed, or smaller ones
// where that takes more than a quarter of the free memory. Under a second. 0 when nothing fits.
double measure_matrix_tflops(const Stream& stream);

// How long an empty kernel inside of a graph takes, in us: the best graph of 1000 in a row.
double measure_launch_gap_us(const Stream& stream);

// The bus to pinned host memory.
class BusProbe {
 public:
  // Takes 256 MiB of host memory, or a sixteenth of `free_host_bytes`, and as much of the device's.
  explicit BusProbe(int64_t free_host_bytes);

  // 1e9 bytes a second: pinning that memory (its pages are made and zeroed on the way), and copies
  // with nothing else going on, the best of a few.
  double pin_gb_per_s() const { return pin_gb_per_s_; }
  double h2d_gb_per_s();
  double d2h_gb_per_s();

  // Copies to the device for about so many seconds, without waiting for them; whether they still
  // run; and their rate, once they have ended. In this order.
  void start_load(double seconds);
  bool loaded() const;
  double finish_load();

 private:
  double best_of_copies(bool to_device);

  PinnedMemory host_;
  DeviceMemory device_;
  Stream stream_;
  Event start_;
  Event end_;
  double pin_gb_per_s_ = 0;
  double h2d_gb_per_s_ = 0;
  int load_copies_ = 0;
};

}  // namespace spillway::cuda
