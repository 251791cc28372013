// Arena: one block of memory of exactly the size that the plan's ledger gives a place, handed out
// front to back. Owns host memory that it reserved itself; a GPU's memory, or any other that
// somebody owns, it only hands out and never touches. Thread: used by one thread while loading;
// after freeze() nothing may be taken any more (a CHECK), which is how "nothing allocates after
// start" is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/tensor.h"

namespace spillway {

class Arena {
 public:
  static constexpr int64_t kAlignment = 64;

  // Reserves `bytes` of zeroed, page-aligned memory and touches it, so that a machine that is out
  // of memory says so here. Throws Error naming `name` and the bytes when it cannot.
  Arena(std::string name, int64_t bytes);
  // Hands out [base, base + bytes), which the caller keeps until nothing of it is used any more;
  // base is a multiple of kAlignment.
  Arena(std::string name, std::byte* base, int64_t bytes);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&&) = delete;

  // `bytes` rounded up to kAlignment. Asking for more than is left, or after freeze(), is a bug.
  std::byte* take(int64_t bytes);
  template <typename T>
  T* take_array(int64_t n) {
    return reinterpret_cast<T*>(take(n * static_cast<int64_t>(sizeof(T))));
  }
  template <typename T>
  View2D<T> take_view(int64_t rows, int64_t cols) {
    return View2D<T>(take_array<T>(rows * cols), rows, cols);
  }

  void freeze() { frozen_ = true; }
  const std::string& name() const { return name_; }
  int64_t bytes() const { return bytes_; }
  int64_t used() const { return used_; }

  // What take(bytes) really uses.
  static constexpr int64_t rounded(int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

 private:
  std::string name_;
  std::byte* base_ = nullptr;
  int64_t bytes_ = 0;
  int64_t used_ = 0;
  bool frozen_ = false;
  bool owned_ = false;
};

}  // namespace spillway
