// The host's copy of the grids: see iq_grids.h.
#include "kernels/core/iq_grids.h"

#include "kernels/core/iq_grid_tables.h"

namespace spillway {

constinit const Grid<512> kGridIq2Xxs = iq_grid_tables::iq2_xxs();
constinit const Grid<1024> kGridIq2Xs = iq_grid_tables::iq2_xs();
constinit const Grid<2048> kGridIq2S = iq_grid_tables::iq2_s();
constinit const Grid<256> kGridIq3Xxs = iq_grid_tables::iq3_xxs();
constinit const Grid<512> kGridIq3S = iq_grid_tables::iq3_s();

}  // namespace spillway
