// Crossing lines: what it costs that a product's rows come from other cores. Norms, gates and sums
// divide a step by its rows, products by their columns (kernels/cpu/product.cc): half of what two
// threads read then was written by the other one, and comes line by line. The rates of products and
// of the other ops, each of which is run over and over by itself, do not show it. Called by
// cpu_rates.cc, which counts the difference of the two ways below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/ops.h"

namespace spillway {

class CrossingLines {
 public:
  // Of a layer with so many values in its hidden state and of its feed-forward part, at most.
  CrossingLines(int64_t rows, int64_t dim, int64_t ff);

  // The reads and writes of a layer's products and attention, without arithmetic, and between them
  // the writes of the ops before and the reads of those after. by_columns: divided as these divide
  // them; else all by rows, which as many lines are read and written for, none of them from others.
  void run(const cpu::Exec& exec, int64_t rows, int64_t dim, int64_t ff, bool by_columns);

 private:
  void product(const cpu::Exec& exec, int64_t rows, int64_t in_bytes, int64_t out_bytes,
               bool by_columns);

  std::vector<std::byte> codes_;  // what a product reads
  std::vector<std::byte> out_;    // and writes
};

}  // namespace spillway
