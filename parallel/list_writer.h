// ListWriter: how the ledger's lists are written down. Used by ledger.cc and gpu_ledger.cc only.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/core/arena.h"
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
  BufferList take() { return std::move(list_); }

 private:
  BufferList list_;
};

}  // namespace spillway
