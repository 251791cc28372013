// The layout of PackedMatrix: how it is written from GGUF rows (pack() in ops.h) and read back one
// row at a time. Called while loading and by embed; the products read the planes themselves
// (product_lanes.h), and so will the GPU's dequantiser.
//
// Rows go in groups of 16, lane r of a vector being row 16g + r. Groups follow each other; each is
//
//   +--------------------+-----------+------------+-------------+---------------+
//   | codes, all blocks  | high bits | sub-scales | scales, f16 | minimums, f16 |
//   +--------------------+-----------+------------+-------------+---------------+
//   every plane padded to 64 bytes; offsets: group_layout() in kernels/core/packed_matrix.h
//
// Codes of 32 columns, in vectors of 64 bytes of 4 bytes a row. Columns 4q to 4q + 3 are quad q:
//
//              lane 0            lane 1                 lane 15
//   vector j [ b0 b1 b2 b3 ] [ b0 b1 b2 b3 ]  ...  [ b0 b1 b2 b3 ]
//
//   8 bits: 8 vectors; vector j is quad j, stored as code + 128 (unsigned)
//   4 bits: 4 vectors; vector j has quad j in its low nibbles and quad 4 + j in its high ones
//   2 bits: 2 vectors; bits 2s and 2s + 1 of vector h are quad 4h + s
//   High bits of 5 and 3 bits: 1 vector; bit q belongs to quad q. Of 6 bits: as 2 bits.
//
// so that one multiply-add of bytes with four broadcast activation bytes (vpdpbusd and its like)
// works on 16 rows at once and nothing is summed across lanes. Scales: 16 f16 a block, minimums
// likewise. Plain floats (F32, F16, BF16): the 16 rows' values of column 0, then of column 1, ...
//
// Sub-scales of a block of 256 columns, in strips of 16 bytes, one a row:
//   6 bits, n of them (Q4_K, Q5_K: 8 scales, 8 minimums; Q3_K: 16 scales; IQ4_XS: 8): n/2 strips of
//     nibbles, strip i having number i low and number n/2 + i high; n/4 strips of the upper two
//     bits, strip i having those of number i + s * n/4 at bit 2s
//   bytes (Q6_K; Q2_K: scale low, minimum high): 16 strips, strip i of sub-block i
//   MXFP4: 1 strip of exponents for every 32 columns
//
// Grids (IQ2, IQ3) keep the file's bytes, a row a lane. For 32 columns: 1 vector of 4 indices (8
// bits) or 2 of them (8 indices; IQ2_XS: 4 words of index and signs), and a vector of the 32 bits
// of signs (XXS: 28 and the scale) in the plane of high bits. Strips: the upper bits of indices,
// one strip for 32 columns, then the bytes of scales.
//
// Rows beyond the matrix in the last group have scale 0 (plain floats: value 0). Bytes a weight:
// the file's own, e.g. 4.5 bits for Q4_K; dispatch.h asserts it.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/packed_matrix.h"

namespace spillway::cpu {

// One row of the matrix, dequantised: the floats that dequantize() gives, as doubles.
// out.size() == matrix.cols. Any thread.
void unpack_row(const PackedMatrix& matrix, int64_t row, std::span<double> out);

}  // namespace spillway::cpu
