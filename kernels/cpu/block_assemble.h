// A GGUF block put together from its parts: the inverse of block_parts.h's take_apart. Called by
// the quantisers; never in a product.
#pragma once

#include "kernels/cpu/block_parts.h"

namespace spillway::cpu {

// The file's block of these parts. Codes, sub-scales and minimums must fit their bits.
void put_together(const BlockParts& parts, BlockQ4_0& out);
void put_together(const BlockParts& parts, BlockQ4_1& out);
void put_together(const BlockParts& parts, BlockQ5_0& out);
void put_together(const BlockParts& parts, BlockQ5_1& out);
void put_together(const BlockParts& parts, BlockQ8_0& out);
void put_together(const BlockParts& parts, BlockQ2_K& out);
void put_together(const BlockParts& parts, BlockQ3_K& out);
void put_together(const BlockParts& parts, BlockQ4_K& out);
void put_together(const BlockParts& parts, BlockQ5_K& out);
void put_together(const BlockParts& parts, BlockQ6_K& out);
void put_together(const BlockParts& parts, BlockIQ4_NL& out);
void put_together(const BlockParts& parts, BlockIQ4_XS& out);
void put_together(const BlockParts& parts, BlockMXFP4& out);

}  // namespace spillway::cpu
