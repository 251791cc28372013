// See cublas_lt.h.
#include "kernels/cuda/cublas_lt.h"

#include <dlfcn.h>

#include <array>

#include "kernels/core/error.h"

namespace spillway::cuda {
namespace {

constexpr const char* kWhere = "products of many rows";

// That of the headers: other versions have other structs.
std::string library_name() { return "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR); }

// Where the loader looks (the folder that it was built with among it), then where toolkits put it.
void* open_library() {
  const std::array<const char*, 2> folders = {"", "/usr/local/cuda/lib64/"};
  std::string why;
  for (const char* folder : folders) {
    void* library = dlopen((folder + library_name()).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
    const char* said = dlerror();
    if (why.empty() && said != nullptr) why = said;
  }
  throw Error("cuBLASLt cannot be opened: " + (why.empty() ? library_name() : why), kWhere,
              "install it (it comes with the CUDA toolkit; PyPI: nvidia-cublas), or put its folder "
              "into LD_LIBRARY_PATH");
}

template <typename Function>
void find(void* library, const char* name, Function& out) {
  out = reinterpret_cast<Function>(dlsym(library, name));
  if (out != nullptr) return;
  throw Error(library_name() + " has no " + name, kWhere,
              "install the one of the CUDA toolkit that spillway was built with");
}

}  // namespace

CublasLt::CublasLt() {
  void* library = open_library();
  find(library, "cublasLtGetStatusString", status_string);
  find(library, "cublasLtCreate", create);
  find(library, "cublasLtDestroy", destroy);
  find(library, "cublasLtMatmul", matmul);
  find(library, "cublasLtMatmulAlgoGetHeuristic", heuristic);
  find(library, "cublasLtMatmulDescCreate", operation_create);
  find(library, "cublasLtMatmulDescDestroy", operation_destroy);
  find(library, "cublasLtMatmulDescSetAttribute", operation_set);
  find(library, "cublasLtMatrixLayoutCreate", layout_create);
  find(library, "cublasLtMatrixLayoutDestroy", layout_destroy);
  find(library, "cublasLtMatmulPreferenceCreate", preference_create);
  find(library, "cublasLtMatmulPreferenceDestroy", preference_destroy);
  find(library, "cublasLtMatmulPreferenceSetAttribute", preference_set);
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
