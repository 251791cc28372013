// ListWriter: how the ledger's lists are written down. Used by ledger.cc, gpu_ledger.cc
// and spill.cc only.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/core/arena.h"
#include "kernels/core/int_math.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/ledger.h"

namespace spillway {

class ListWriter {
 public:
  void add(const std::string& name, int64_t bytes) {
    list_.buffers.push_back({name, Arena::rounded(bytes)});
  }
  void matrix(const std::string& name, QuantType type, int64_t rows, int64_t cols) {
    add(name, packed_bytes(type, rows, cols));
  }
  void floats(const std::string& name, int64_t n) { add(name, n * int64_t{sizeof(float)}); }
  // int8 copy of a product's input, as kernels/cpu/ops.h Activations wants it.
  void quantized_input(const std::string& name, int64_t rows, int64_t cols) {
    constexpr int64_t kBlock = 32;  // kActivationBlock and kSumBlock of kernels/cpu/ops.h
    constexpr int64_t kSum = 16;
    const int64_t blocks = div_up(cols, kBlock);
    add(name + ".q8", rows * blocks * kBlock);
    floats(name + ".scale", rows * blocks);
    floats(name + ".sum", rows * blocks * kBlock / kSum);
  }
  BufferList take() { return std::move(list_); }

 private:
  BufferList list_;
};

}  // namespace spillway
