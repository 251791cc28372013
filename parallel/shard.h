// Cutting rows, columns and heads into uneven parts. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/int_math.h"
#include "parallel/model_spec.h"
#include "parallel/plan.h"

namespace spillway {

// Cuts [0, n) in units of `unit` (the last may be short) into shares.size() ranges in order.
// `carry` (same length, starts at zeros) holds each share's rounding error and is diffused into the
// next call, so that over many layers the achieved shares come near the requested ones.
std::vector<Range> split_units(int64_t n, int64_t unit, std::span<const double> shares,
                               std::vector<double>& carry);

// Query heads that must stay together: whole KV groups while every rank can have one, else as few
// heads as the output projection's quant blocks allow (KV heads are then replicated).
int64_t head_unit(const ModelSpec& model, const LayerSpec& layer, int64_t tp);
// Feed-forward columns that must stay together: a quant block of `down`, at least 32.
int64_t ff_unit(const LayerSpec& layer);

// The parts of all ranks of a stage, [tp][layer], error-diffused over the layers.
std::vector<std::vector<LayerPart>> shard_layers(const ModelSpec& model, const Range& layers,
                                                 std::span<const double> shares);

}  // namespace spillway
