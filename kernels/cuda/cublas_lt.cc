// See cublas_lt.h.
#include "kernels/cuda/cublas_lt.h"

#include <dlfcn.h>

#include "kernels/core/error.h"
#include "kernels/core/opened_library.h"

namespace spillway::cuda {
namespace {

constexpr OpenedLibrary::Words kWords = {
    "cuBLASLt", "products of many rows",
    "install it (it comes with the CUDA toolkit; PyPI: nvidia-cublas), or put its folder into "
    "LD_LIBRARY_PATH",
    "install the one of the CUDA toolkit that spillway was built with"};

// Where the loader looks (the folder that it was built with among it), then where toolkits put it;
// of the headers' version, since others have other structs.
OpenedLibrary open_library() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  return OpenedLibrary(kWords, {name, "/usr/local/cuda/lib64/" + name});
}

}  // namespace

CublasLt::CublasLt() {
  const OpenedLibrary library = open_library();
  library.find("cublasLtGetStatusString", status_string);
  library.find("cublasLtCreate", create);
  library.find("cublasLtDestroy", destroy);
  library.find("cublasLtMatmul", matmul);
  library.find("cublasLtMatmulAlgoGetHeuristic", heuristic);
  library.find("cublasLtMatmulDescCreate", operation_create);
  library.find("cublasLtMatmulDescDestroy", operation_destroy);
  library.find("cublasLtMatmulDescSetAttribute", operation_set);
  library.find("cublasLtMatrixLayoutCreate", layout_create);
  library.find("cublasLtMatrixLayoutDestroy", layout_destroy);
  library.find("cublasLtMatmulPreferenceCreate", preference_create);
  library.find("cublasLtMatmulPreferenceDestroy", preference_destroy);
  library.find("cublasLtMatmulPreferenceSetAttribute", preference_set);
}

void CublasLt::check(cublasStatus_t status, const char* what) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(std::string("cuBLASLt: ") + status_string(status), what);
}

std::string CublasLt::folder() const {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(create), &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

}  // namespace spillway::cuda
