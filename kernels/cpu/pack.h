// The layout of PackedMatrix: how it is written from GGUF rows (pack() in ops.h) and read back one
// row at a time. Called while loading and by embed; the products read the planes themselves
// (product_lanes.h), and so will the GPU's dequantiser.
//
// Rows go in groups of 16, lane r of a vector being row 16g + r. Groups follow each other; each is
//
//   +--------------------+------------------+-------------------+------------------+
//   | codes, all blocks  | fifth bits (Q5)  | scales, f16       | minimums, f16    |
//   +--------------------+------------------+-------------------+------------------+
//   every plane padded to 64 bytes; offsets: group_layout() in kernels/core/packed_matrix.h
//
// Codes of one block of 32 columns, in vectors of 64 bytes of 4 bytes a row:
//
//              lane 0            lane 1                 lane 15
//   vector j [ b0 b1 b2 b3 ] [ b0 b1 b2 b3 ]  ...  [ b0 b1 b2 b3 ]
//
//   8 bits: 8 vectors; byte b of vector j is column 4j + b, stored as code + 128 (unsigned)
//   4 bits: 4 vectors; byte b of vector j has column 4j + b in its low nibble and column
//           16 + 4j + b in its high nibble: the order of bytes in the file's block
//   5 bits: as 4 bits; the fifth bits are one vector a block: bit j of byte b of a lane belongs to
//           column 4j + b, bit 4 + j to column 16 + 4j + b
//
// so that one multiply-add of bytes with four broadcast activation bytes (vpdpbusd and its like)
// works on 16 rows at once and nothing is summed across lanes. Scales: 16 f16 a block, minimums
// likewise. Plain floats (F32, F16, BF16): the 16 rows' values of column 0, then of column 1, ...
//
// Rows beyond the matrix in the last group have scale 0 (plain floats: value 0). Bytes a weight:
// the file's own, e.g. 4.5 bits for Q4_0. K-quants will have the same codes planes and their own
// scale planes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/packed_matrix.h"

namespace spillway::cpu {

// One row of the matrix, dequantised: the floats that dequantize() gives, as doubles.
// out.size() == matrix.cols. Any thread.
void unpack_row(const PackedMatrix& matrix, int64_t row, std::span<double> out);

}  // namespace spillway::cpu
