// matmul, matmul_add, matmul_gated: picks the kernel by the number of rows. Up to kVectorRows the
// weights are the bytes that count and the vector kernels read them once; up to most_tile_rows the
// tensor cores' tiles follow; beyond, wide.h where it is, or weights become bf16 for cuBLASLt.
#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/int_math.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/plain.h"
#include "kernels/cuda/type_table.h"
#include "kernels/cuda/wide.h"

namespace spillway::cuda {
namespace {

bool is_plain(QuantType type) { return quant_info(type).block_elements == 1; }

// Tiles want rows in eights.
bool vectors(const Exec& exec, int64_t n) {
  return n <= exec.most_vector_rows || padded_rows(n) < 8;
}

// Looking values up in a grid costs more than writing them to memory once from a quarter of the
// rows on.
bool wide(const Exec& exec, QuantType type, int64_t n) {
  if (!exec.wide || is_plain(type) || n <= exec.most_tile_rows) return false;
  const bool grid = grid_on_device(type) != nullptr;
  return exec.library == nullptr || n <= exec.most_wide_rows / (grid ? 4 : 1);
}

bool bf16_tiled(const Exec& exec, QuantType type, int64_t n) {
  return exec.bf16_tiles && !is_plain(type) && !vectors(exec, n) &&
         (n <= exec.most_tile_rows || exec.library == nullptr) && !wide(exec, type, n);
}

const TypeKernels& kernels_of(QuantType type) {
  const TypeKernels* found = nullptr;
  dispatch(type, [&](auto tag) {
    if constexpr (decltype(tag)::Traits::kBits != 0) {
      found = &type_kernels<decltype(tag)::kType>();
    }
  });
  CHECK(found != nullptr);
  return *found;
}

// Parts from begin on that have the same type, as one launch's arguments. Returns where they end.
size_t take_run(std::span<const PackedMatrix> parts, size_t begin, int64_t first_column,
                ProductArgs& args) {
  args.type = parts[begin].type;
  args.cols = static_cast<int>(parts[begin].cols);
  args.layout = group_layout(args.type, parts[begin].cols);
  size_t i = begin;
  for (; i < parts.size() && parts[i].type == args.type && args.n_parts < 3; ++i) {
    const PackedMatrix& w = parts[i];
    CHECK_EQ(w.cols, parts[begin].cols);
    ProductPart& part = args.parts[args.n_parts++];
    part.data = w.data;
    part.rows = static_cast<int32_t>(w.rows);
    part.first_group = args.n_groups;
    part.first_column = static_cast<int32_t>(first_column);
    args.n_groups += static_cast<int>(div_up(w.rows, kRowGroup));
    first_column += w.rows;
  }
  args.grid = grid_on_device(args.type);
  return i;
}

void wait_for(const Exec& exec, const RowBlock& block) {
  if (block.ready != nullptr) block.ready->wait_in(exec.stream);
}

void record(const Exec& exec, const RowBlock& block) {
  if (block.done != nullptr) block.done->record(exec.stream);
}

// Every block of rows is a launch of its own.
void wide_by_rows(const Exec& exec, const ProductArgs& args, const GatedOutput* gated,
                  std::span<const RowBlock> blocks) {
  const RowBlock whole{0, args.in.n};
  for (const RowBlock& block : blocks.empty() ? std::span(&whole, 1) : blocks) {
    wait_for(exec, block);
    ProductArgs rows = args;
    rows.in.n = block.end - block.begin;
    rows.in.bf16 += block.begin * args.in.cols;
    if (gated != nullptr) {
      GatedOutput rows_gated = *gated;
      rows_gated.to.n = rows.in.n;
      rows_gated.to.bf16 += block.begin * gated->to.cols;
      if (rows.in.n > 0) wide_product(exec, rows, &rows_gated);
    } else {
      rows.out += block.begin * args.out_stride;
      if (rows.in.n > 0) wide_product(exec, rows, nullptr);
    }
    record(exec, block);
  }
}

// The matrix becomes bf16 once, then every block of rows is multiplied.
void product_of_many(const Exec& exec, const PackedMatrix& w, const Input& a, View2D<float> out,
                     bool add, std::span<const RowBlock> blocks) {
  CHECK(exec.library != nullptr);
  CHECK_LE(library_scratch_bytes(w.type, w.rows, w.cols), exec.scratch_bytes);
  auto* values = reinterpret_cast<uint16_t*>(exec.scratch);
  if (is_plain(w.type)) {
    plain_bf16(exec, w, values);
  } else {
    kernels_of(w.type).dequant(exec, w, grid_on_device(w.type), values);
  }
  const RowBlock whole{0, a.n};
  for (const RowBlock& block : blocks.empty() ? std::span(&whole, 1) : blocks) {
    wait_for(exec, block);
    const View2D<float> rows(out.data + block.begin * out.stride, block.end - block.begin, out.cols,
                             out.stride);
    exec.library->product(exec.stream, values, w.rows, w.cols, a.bf16 + block.begin * a.cols, rows,
                          add);
    record(exec, block);
  }
}

void run(const Exec& exec, std::span<const PackedMatrix> parts, const Input& a, View2D<float> out,
         bool add, std::span<const RowBlock> blocks) {
  int64_t rows = 0;
  for (const PackedMatrix& w : parts) {
    CHECK_EQ(w.cols, a.cols);
    rows += w.rows;
  }
  CHECK_EQ(out.cols, rows);
  CHECK_EQ(out.rows, a.n);
  if (a.n == 0 || rows == 0) return;
  const bool by_rows =
      input_forms(exec, parts[0].type, a.n) == kBf16Form && !bf16_tiled(exec, parts[0].type, a.n);
  for (const RowBlock& block : blocks) {
    if (!by_rows) wait_for(exec, block);
  }
  int64_t column = 0;
  for (size_t begin = 0; begin < parts.size();) {
    const unsigned form = input_forms(exec, parts[begin].type, a.n);
    const bool tiled = form == kBf16Form && bf16_tiled(exec, parts[begin].type, a.n);
    const bool in_wide = wide(exec, parts[begin].type, a.n);
    if (form == kBf16Form && !tiled && !in_wide) {
      const PackedMatrix& w = parts[begin];
      product_of_many(exec, w, a, out.columns(column, w.rows), add, blocks);
      column += w.rows;
      ++begin;
      continue;
    }
    ProductArgs args;
    args.in = a;
    args.out = out.data;
    args.out_stride = out.stride;
    args.add = add;
    const size_t end = take_run(parts, begin, column, args);
    if (in_wide) {
      wide_by_rows(exec, args, nullptr, blocks);
    } else if (form == kFloatForm) {
      plain_gemv(exec, args);
    } else if (tiled) {
      kernels_of(args.type).strips(exec, args, nullptr);
    } else if (vectors(exec, a.n)) {
      kernels_of(args.type).gemv(exec, args, nullptr);
    } else {
      kernels_of(args.type).tiles(exec, args);
    }
    for (; begin < end; ++begin) column += parts[begin].rows;
  }
  for (const RowBlock& block : blocks) {
    if (!by_rows) record(exec, block);
  }
}

}  // namespace

unsigned input_forms(const Exec& exec, QuantType type, int64_t n) {
  if (is_plain(type)) return n <= kVectorRows ? kFloatForm : kBf16Form;
  if (vectors(exec, n)) return kInt8Form;
  if (wide(exec, type, n)) return kBf16Form;
  if (exec.library != nullptr && n > exec.most_tile_rows) return kBf16Form;
  return exec.bf16_tiles ? kBf16Form : kInt8Form;
}

int64_t library_scratch_bytes(QuantType, int64_t rows, int64_t cols) { return 2 * rows * cols; }

void matmul(const Exec& exec, std::span<const PackedMatrix> parts, const Input& a,
            View2D<float> out, std::span<const RowBlock> blocks) {
  run(exec, parts, a, out, false, blocks);
}

void matmul_add(const Exec& exec, const PackedMatrix& w, const Input& a, View2D<float> out) {
  run(exec, {&w, 1}, a, out, true, {});
}

bool fused_gate(const Exec& exec, const PackedMatrix& gate, const PackedMatrix& up, int64_t n,
                unsigned forms) {
  if (is_plain(gate.type) || gate.type != up.type || gate.rows != up.rows) return false;
  if (vectors(exec, n)) {
    return gate.rows % 32 == 0 && (forms & kBf16Form) == 0 && (forms & kInt8Form) != 0;
  }
  if (wide(exec, gate.type, n)) return gate.rows % kRowGroup == 0 && forms == kBf16Form;
  return bf16_tiled(exec, gate.type, n) && gate.rows % kRowGroup == 0 && (forms & kBf16Form) != 0 &&
         (forms & kInt8Form) == 0;
}

void matmul_gated(const Exec& exec, const PackedMatrix& gate, const PackedMatrix& up, bool gelu,
                  const Input& a, unsigned forms, const Input& out,
                  std::span<const RowBlock> blocks) {
  CHECK(fused_gate(exec, gate, up, a.n, forms));
  CHECK_EQ(out.n, a.n);
  CHECK_EQ(out.cols, gate.rows);
  if (a.n == 0 || gate.rows == 0) return;
  const PackedMatrix parts[2] = {gate, up};
  ProductArgs args;
  args.in = a;
  CHECK_EQ(take_run(parts, 0, 0, args), size_t{2});
  GatedOutput gated;
  gated.gelu = gelu;
  gated.forms = forms;
  gated.to = out;
  if (wide(exec, args.type, a.n)) return wide_by_rows(exec, args, &gated, blocks);
  for (const RowBlock& block : blocks) wait_for(exec, block);
  if (vectors(exec, a.n)) {
    kernels_of(args.type).gemv(exec, args, &gated);
  } else {
    kernels_of(args.type).strips(exec, args, &gated);
  }
  for (const RowBlock& block : blocks) record(exec, block);
}

}  // namespace spillway::cuda
