// See library.h. cuBLASLt is column-major: out^T [rows, n] = w [rows, cols] x^T.
#include "kernels/cuda/library.h"

#include <map>
#include <string>
#include <tuple>

#include "kernels/core/check.h"
#include "kernels/core/error.h"
#include "kernels/cuda/cublas_lt.h"

namespace spillway::cuda {
namespace {

#define LT(call) lt.check((call), #call)

constexpr int64_t kWorkspaceAlignment = 256;

// Descriptions of one product, freed when it goes.
struct Product {
  const CublasLt& lt;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  explicit Product(const CublasLt& library) : lt(library) {}
  Product(const Product&) = delete;
  ~Product() {
    if (operation != nullptr) (void)lt.operation_destroy(operation);
    if (w != nullptr) (void)lt.layout_destroy(w);
    if (x != nullptr) (void)lt.layout_destroy(x);
    if (out != nullptr) (void)lt.layout_destroy(out);
  }
};

// rows, cols, n, out's stride and alignment in bytes
using Shape = std::tuple<int64_t, int64_t, int64_t, int64_t, uint32_t>;

// Parts of an output lie side by side, so it begins where it does; at most 16 counts.
uint32_t alignment_of(const View2D<float>& out) {
  const auto both = reinterpret_cast<uintptr_t>(out.data) | static_cast<uintptr_t>(4 * out.stride);
  uint32_t alignment = 16;
  while (both % alignment != 0) alignment /= 2;
  return alignment;
}

}  // namespace

struct Library::State {
  // The workspace from its first boundary on.
  static constexpr int64_t kUsed = kWorkspaceBytes - kWorkspaceAlignment;
  CublasLt lt;
  cublasLtHandle_t handle = nullptr;
  std::byte* workspace = nullptr;
  std::map<Shape, Product> products;

  ~State() {
    products.clear();
    if (handle != nullptr) (void)lt.destroy(handle);
  }

  const Product& find(const Shape& shape) {
    const auto found = products.find(shape);
    if (found != products.end()) return found->second;
    return describe(shape);
  }

  const Product& describe(const Shape& shape) {
    Product& p = products.try_emplace(shape, lt).first->second;
    try {
      fill(p, shape);
    } catch (...) {
      products.erase(shape);  // the next call asks again
      throw;
    }
    return p;
  }

  void fill(Product& p, const Shape& shape) const {
    const auto [rows, cols, n, stride, out_alignment] = shape;
    LT(lt.operation_create(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    LT(lt.operation_set(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    const auto unsigned_of = [](int64_t v) { return static_cast<uint64_t>(v); };
    LT(lt.layout_create(&p.w, CUDA_R_16BF, unsigned_of(cols), unsigned_of(rows), cols));
    LT(lt.layout_create(&p.x, CUDA_R_16BF, unsigned_of(cols), unsigned_of(n), cols));
    LT(lt.layout_create(&p.out, CUDA_R_32F, unsigned_of(rows), unsigned_of(n), stride));
    cublasLtMatmulPreference_t preference = nullptr;
    LT(lt.preference_create(&preference));
    const uint64_t bytes = kUsed;
    cublasStatus_t status = lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &bytes, sizeof(bytes));
    // Weights and input begin on an arena's boundaries.
    const auto aligned = [&](cublasLtMatmulPreferenceAttributes_t which, uint32_t to) {
      if (status != CUBLAS_STATUS_SUCCESS) return;
      status = lt.preference_set(preference, which, &to, sizeof(to));
    };
    aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 64);
    aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 64);
    aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out_alignment);
    aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_alignment);
    cublasLtMatmulHeuristicResult_t result{};
    int n_found = 0;
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = lt.heuristic(handle, p.operation, p.w, p.x, p.out, p.out, preference, 1, &result,
                            &n_found);
    }
    (void)lt.preference_destroy(preference);
    lt.check(status, "cublasLtMatmulAlgoGetHeuristic");
    if (n_found == 0) {
      throw Error("cuBLASLt has no algorithm for a product",
                  std::to_string(rows) + " x " + std::to_string(cols) + " x " + std::to_string(n));
    }
    p.algorithm = result.algo;
  }
};

Library::Library(std::byte* workspace) : state_(std::make_unique<State>()) {
  const auto address = reinterpret_cast<uintptr_t>(workspace);
  state_->workspace = workspace + (-address) % kWorkspaceAlignment;
  const CublasLt& lt = state_->lt;
  LT(lt.create(&state_->handle));
}

Library::~Library() = default;

void Library::product(StreamHandle stream, const uint16_t* w, int64_t rows, int64_t cols,
                      const uint16_t* x, View2D<float> out, bool add) {
  CHECK_EQ(out.cols, rows);
  const Product& p = state_->find({rows, cols, out.rows, out.stride, alignment_of(out)});
  const float one = 1.0f;
  const float beta = add ? 1.0f : 0.0f;
  const CublasLt& lt = state_->lt;
  LT(lt.matmul(state_->handle, p.operation, &one, w, p.w, x, p.x, &beta, out.data, p.out, out.data,
               p.out, &p.algorithm, state_->workspace, static_cast<size_t>(State::kUsed), stream));
}

}  // namespace spillway::cuda
