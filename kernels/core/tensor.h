// Typed 2-D views: row-major, rows may be further apart than they are long. Views own nothing and
// are copied freely; whoever made the memory keeps it alive.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "kernels/core/check.h"

namespace spillway {

template <typename T>
struct View2D {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next, >= cols

  View2D() = default;
  View2D(T* data_in, int64_t rows_in, int64_t cols_in, int64_t stride_in = -1)
      : data(data_in), rows(rows_in), cols(cols_in), stride(stride_in < 0 ? cols_in : stride_in) {}
  // A view of const from a view of the same type.
  template <typename U>
  requires(std::is_same_v<const U, T>)
      View2D(const View2D<U>& other)  // NOLINT: views convert as pointers do
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  std::span<T> row(int64_t r) const {
    CHECK(r >= 0 && r < rows);
    return {data + r * stride, static_cast<size_t>(cols)};
  }
  // The first n rows.
  View2D head_rows(int64_t n) const {
    CHECK_LE(n, rows);
    return View2D(data, n, cols, stride);
  }
  // Columns [begin, begin+n) of every row.
  View2D columns(int64_t begin, int64_t n) const {
    CHECK_LE(begin + n, cols);
    return View2D(data + begin, rows, n, stride);
  }
};

}  // namespace spillway
