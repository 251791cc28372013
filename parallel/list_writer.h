// ListWriter: how the ledger's lists are written down. Used by ledger.cc, gpu_ledger.cc
// and spill.cc only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/core/arena.h"
#include "kernels/core/int_math.h"
#include "kernels/core/packed_matrix.h"
#include "parallel/ledger.h"

namespace spillway {

class ListWriter {
 public:
  // kSum: no list is made, which takes most of the time.
  enum class Keep { kList, kSum };
  explicit ListWriter(Keep keep = Keep::kList) : keep_(keep) {}

  // What the names that follow begin with: "layer 3 attention.".
  void under_layer(int64_t layer, std::string_view half) {
    if (keep_ == Keep::kSum) return;
    prefix_ = "layer " + std::to_string(layer) + " ";
    prefix_ += half;
  }
  void under_nothing() { prefix_.clear(); }

  void add(std::string_view name, int64_t bytes) {
    bytes = Arena::rounded(bytes);
    total_bytes_ += bytes;
    if (keep_ == Keep::kList) list_.buffers.push_back({prefix_ + std::string(name), bytes});
  }
  // "k12"
  void numbered(std::string_view name, int64_t number, int64_t bytes) {
    keep_ == Keep::kSum ? add(name, bytes) : add(std::string(name) + std::to_string(number), bytes);
  }
  void matrix(std::string_view name, QuantType type, int64_t rows, int64_t cols) {
    add(name, packed_bytes(type, rows, cols));
  }
  void floats(std::string_view name, int64_t n) { add(name, n * int64_t{sizeof(float)}); }
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
  int64_t total_bytes() const { return total_bytes_; }

 private:
  Keep keep_;
  std::string prefix_;
  BufferList list_;
  int64_t total_bytes_ = 0;
};

}  // namespace spillway
