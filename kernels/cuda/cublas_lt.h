// CublasLt: the functions of cuBLASLt that are used, from a library that is opened when a GPU's
// rank asks for them. Linked, it would be in every process: 60 MiB resident (its initialisers touch
// pages all over its code) and 0.15 s of every start, also of ranks on CPUs and where no GPU is.
// Called by library.cc and, to find what lies beside it, trace.cc.
//   Thread: any. The library stays open.
#pragma once

#include <cublasLt.h>

#include <string>

namespace spillway::cuda {

struct CublasLt {
  decltype(&::cublasLtGetStatusString) status_string = nullptr;
  decltype(&::cublasLtCreate) create = nullptr;
  decltype(&::cublasLtDestroy) destroy = nullptr;
  decltype(&::cublasLtMatmul) matmul = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&::cublasLtMatmulDescCreate) operation_create = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) operation_destroy = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) operation_set = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;

  // Throws Error when the library or one of the functions is missing.
  CublasLt();

  // Throws Error with cuBLASLt's own words.
  void check(cublasStatus_t status, const char* what) const;
  // Where CUDA's libraries lie: the opened one's folder, with a slash behind it.
  std::string folder() const;
};

}  // namespace spillway::cuda
