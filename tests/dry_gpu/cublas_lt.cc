// cuBLASLt for the dry GPU: a library of its own under that name, since the program opens it
// (kernels/cuda/cublas_lt.h). Products have no effect; descriptions are given out and taken back.
// An algorithm is what the preference promised, and the product is refused where that is not so.
#include <cublasLt.h>

#include <cstdlib>
#include <cstring>

namespace {

// Structs that nobody looks into.
template <typename Handle>
cublasStatus_t make(Handle* out) {
  *out = static_cast<Handle>(std::calloc(1, 64));
  return CUBLAS_STATUS_SUCCESS;
}
template <typename Handle>
cublasStatus_t take_back(Handle made) {
  std::free(made);
  return CUBLAS_STATUS_SUCCESS;
}

// Alignments of A, B, C and D in bytes, as cuBLASLt has them when nobody says.
struct Promise {
  uint64_t workspace_bytes = 0;
  uint32_t alignment[4] = {256, 256, 256, 256};
};
static_assert(sizeof(Promise) <= sizeof(cublasLtMatmulAlgo_t));

bool aligned(const void* data, uint32_t alignment) {
  return data != nullptr && reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* out) { return make(out); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t made) { return take_back(made); }
const char* cublasLtGetStatusString(cublasStatus_t) { return "refused by the dry GPU"; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* out, cublasComputeType_t,
                                        cudaDataType_t) {
  return make(out);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t made) { return take_back(made); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
                                              const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* out, cudaDataType, uint64_t rows,
                                          uint64_t cols, int64_t stride) {
  if (rows == 0 || cols == 0 || stride < static_cast<int64_t>(rows)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return make(out);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t made) { return take_back(made); }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* out) {
  static_assert(sizeof(Promise) <= 64);
  const cublasStatus_t made = make(out);
  const Promise usual;
  std::memcpy(static_cast<void*>(*out), &usual, sizeof(usual));
  return made;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t made) {
  return take_back(made);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void* value, size_t bytes) {
  Promise promise;
  std::memcpy(&promise, static_cast<const void*>(preference), sizeof(promise));
  void* to = nullptr;
  size_t room = sizeof(uint32_t);
  if (which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    to = &promise.workspace_bytes;
    room = sizeof(uint64_t);
  } else if (which >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
             which <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES) {
    to = &promise.alignment[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES];
  }
  if (to == nullptr || bytes != room) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(to, value, bytes);
  std::memcpy(static_cast<void*>(preference), &promise, sizeof(promise));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t* out, int* found) {
  std::memcpy(&out->algo, static_cast<const void*>(preference), sizeof(Promise));
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void*, const void* a,
                              cublasLtMatrixLayout_t, const void* b, cublasLtMatrixLayout_t,
                              const void*, const void* c, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t* algorithm,
                              void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  Promise promise;
  std::memcpy(static_cast<void*>(&promise), algorithm, sizeof(promise));
  const bool good = aligned(a, promise.alignment[0]) && aligned(b, promise.alignment[1]) &&
                    aligned(c, promise.alignment[2]) && aligned(d, promise.alignment[3]) &&
                    aligned(workspace, 256) && workspace_bytes >= promise.workspace_bytes &&
                    stream != nullptr;
  return good ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

}  // extern "C"
