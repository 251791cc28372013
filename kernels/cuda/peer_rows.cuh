// The half of peer_sum for many rows: peer_rows.cu.
#pragma once

#include "kernels/cuda/peer.h"
#include "kernels/cuda/row_end.cuh"

namespace spillway::cuda {

// What peer_sum has checked.
void peer_rows_sum(const Exec& exec, const PeerGroup& group, View2D<const float> partial,
                   const RowEnd& end);

}  // namespace spillway::cuda
