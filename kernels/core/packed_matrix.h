// PackedMatrix: a weight matrix as the kernels read it, the one host layout (docs/ARCHITECTURE.md
// section 4). kernels/cpu/pack.* writes it from GGUF rows; the CPU products and, for layers that
// are streamed, the GPU read it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/quant.h"

namespace spillway {

// Rows that lie interleaved: lane i of a vector register is row i of the group, so a product needs
// no horizontal sum and adds in the same order on every instruction set.
inline constexpr int64_t kRowGroup = 16;

// Alignment of a packed matrix in an arena, bytes.
inline constexpr int64_t kPackedAlignment = 64;

// W[rows, cols], row-major in meaning; y = W x. rows or cols may be 0. Rows are padded to a
// multiple of kRowGroup with zeros.
struct PackedMatrix {
  QuantType type = QuantType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of the type's block_elements
  std::byte* data = nullptr;
};

// Exactly the bytes that a packed matrix takes, a multiple of kPackedAlignment. The type must be
// computable (quant_info) and cols a multiple of its block_elements; anything else is a bug.
int64_t packed_bytes(QuantType type, int64_t rows, int64_t cols);

// Where the planes of one row group lie, in bytes from the group's start. Groups follow each other
// at `bytes`, so any range of whole groups is one contiguous piece of memory. A plane that the type
// does not have is empty and its offset is that of the next one. kernels/cpu/pack.h draws it.
struct GroupLayout {
  int64_t codes = 0;   // values or codes, interleaved over the rows
  int64_t high = 0;    // high bits of the codes
  int64_t sub = 0;     // sub-scales of the blocks of 256
  int64_t scales = 0;  // f16, 16 a block
  int64_t mins = 0;    // f16, 16 a block
  int64_t bytes = 0;   // of the whole group, a multiple of kPackedAlignment
};
GroupLayout group_layout(QuantType type, int64_t cols);

}  // namespace spillway
