// How a half layer's product gets into the residual stream of a GPU, and how the next half reads
// it: on a rank alone the product adds to x; in a TP group the ranks' partial sums wait until the
// next norm, which the communicator makes together with the sum. In steps of many rows the sums run
// on a stream aside while the rank multiplies other rows.
// Called by gpu_layer.cc; launches only, never waits on the host.
#pragma once

#include <array>
#include <span>

#include "kernels/cuda/ops.h"
#include "parallel/device_communicator.h"
#include "parallel/model_spec.h"
#include "runtime/stage/gpu_scratch.h"
#include "runtime/stage/gpu_spill.h"

namespace spillway {

// A stream beside the rank's own for the sums of steps of many rows: the rows in blocks, each with
// an event when its partial sums are there and one when they are added and normed.
struct GpuAside {
  static constexpr size_t kBlocks = 2;
  static constexpr int64_t kLeastRows = 1024;  // of a step: fewer are not worth the events

  cuda::Stream stream;
  std::array<cuda::Event, kBlocks> multiplied;
  std::array<cuda::Event, kBlocks> summed;
};

// What all layers of a step share. Pointers are device memory.
struct GpuStep {
  const cuda::Exec& exec;
  const ModelSpec& model;
  GpuScratch& scratch;
  GpuSpill& spill;
  cuda::RopeTable rope;
  cuda::RopeTable window_rope;  // of layers with a window
  const int64_t* slots;
  cuda::StepRows rows;
  DeviceCommunicator* tp = nullptr;  // of a TP group of several ranks
  GpuAside* aside = nullptr;         // in a TP group, for a step of many rows
  bool pending = false;              // partial sums in scratch.partial are not in x yet
  bool decode = false;               // every row is a sequence of its own
};

// A half layer's input: its forms, and the blocks of rows in which they become ready.
struct NormedInput {
  cuda::Input input;
  std::array<cuda::RowBlock, GpuAside::kBlocks> rows;
  size_t n_blocks = 0;
  std::span<const cuda::RowBlock> blocks() const { return std::span(rows).first(n_blocks); }
};

// The forms that a product of n rows with these matrices reads.
unsigned forms_of(const cuda::Exec& exec, std::span<const PackedMatrix> readers, int64_t n);

// norm(x) for these readers, and in the forms `also`, after what is pending has been added to x.
NormedInput norm_input(GpuStep& step, View2D<float> x, std::span<const float> weight,
                       std::span<const PackedMatrix> readers, unsigned also = 0);

// The rank's stream goes on when all of the input is there: for a half that multiplies nothing.
void wait_for(const GpuStep& step, const NormedInput& input);

// What a half adds on this rank, in this order: w * input of every product, then the CPU's part.
// multiplied, unless nullptr, is recorded when the products have been made.
struct Product {
  PackedMatrix w;
  cuda::Input input;
};
struct HalfTerms {
  std::span<const Product> products;
  cuda::Event* multiplied = nullptr;
  CpuTerm cpu = {};
};

// x += the terms and the bias, through the post norm when there is one; summed over the TP group.
void sum_into(GpuStep& step, const HalfTerms& terms, std::span<const float> bias,
              std::span<const float> post_norm, View2D<float> x);

// Adds what is pending to x.
void settle(GpuStep& step, View2D<float> x);

void add_bias(GpuStep& step, std::span<const float> bias, View2D<float> x);

}  // namespace spillway
