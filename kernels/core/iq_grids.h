// The grids of the IQ2 and IQ3 types: an index in a block stands for eight or four magnitudes at
// once, out of the few combinations that a grid lists. Read by the dequantisers and the products.
#pragma once

#include <cstdint>

namespace spillway {

// Four magnitudes a word, the first in the lowest byte.
template <int n>
struct Grid {
  alignas(64) uint32_t words[n];
};

// Eight values an index: words 2i and 2i + 1.
extern const Grid<512> kGridIq2Xxs;
extern const Grid<1024> kGridIq2Xs;
extern const Grid<2048> kGridIq2S;
// Four values an index: word i.
extern const Grid<256> kGridIq3Xxs;
extern const Grid<512> kGridIq3S;

}  // namespace spillway
