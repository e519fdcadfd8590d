// cuBLAS on the host: plain loops over operands whose every element is checked.
#include <cublas_v2.h>

#include <vector>

#include "../../common/math.h"
#include "state.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
};

namespace {

using dg::bf16;
using dg::f16;

struct Gemm {
  bool transposed_a, transposed_b;
  int64_t m, n, k;
  const char* a;
  int64_t lda, stride_a;
  const char* b;
  int64_t ldb, stride_b;
  char* c;
  int64_t ldc, stride_c, batches;
  double alpha, beta;
  bool tf32;
};

// The value with a mantissa of 10 bits, to nearest.
float rounded_to_tf32(float x) {
  const uint32_t bits = dg::bit_cast<uint32_t>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return dg::bit_cast<float>((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
}

void check(const void* matrix, int64_t rows, int64_t columns, int64_t leading, size_t size, bool write) {
  for (int64_t j = 0; j < columns; j++)
    emulation::check_access(static_cast<const char*>(matrix) + size_t(j * leading) * size, size_t(rows) * size, write, "cublasGemm");
}

template <class T, class C>
void run(const Gemm& g) {
  std::vector<C> a(size_t(g.m * g.k)), sums(size_t(g.m));
  for (int64_t s = 0; s < g.batches; s++) {
    const T *pa = reinterpret_cast<const T*>(g.a) + s * g.stride_a, *pb = reinterpret_cast<const T*>(g.b) + s * g.stride_b;
    T* const pc = reinterpret_cast<T*>(g.c) + s * g.stride_c;
    check(pa, g.transposed_a ? g.k : g.m, g.transposed_a ? g.m : g.k, g.lda, sizeof(T), false);
    check(pb, g.transposed_b ? g.n : g.k, g.transposed_b ? g.k : g.n, g.ldb, sizeof(T), false);
    if (g.beta != 0) check(pc, g.m, g.n, g.ldc, sizeof(T), false);
    check(pc, g.m, g.n, g.ldc, sizeof(T), true);
    const auto operand = [&](T x) {
      if constexpr (std::is_same_v<T, float>) return g.tf32 ? rounded_to_tf32(x) : x;
      else return C(x);
    };
    for (int64_t p = 0; p < g.k; p++)
      for (int64_t i = 0; i < g.m; i++) a[size_t(p * g.m + i)] = operand(pa[g.transposed_a ? p + i * g.lda : i + p * g.lda]);
    for (int64_t j = 0; j < g.n; j++) {
      std::fill(sums.begin(), sums.end(), C(0));
      for (int64_t p = 0; p < g.k; p++) {
        const C factor = operand(pb[g.transposed_b ? j + p * g.ldb : p + j * g.ldb]);
        const C* const column = a.data() + p * g.m;
        for (int64_t i = 0; i < g.m; i++) sums[size_t(i)] += column[i] * factor;
      }
      for (int64_t i = 0; i < g.m; i++) {
        T& out = pc[i + j * g.ldc];
        out = T(g.beta != 0 ? C(g.alpha) * sums[size_t(i)] + C(g.beta) * C(out) : C(g.alpha) * sums[size_t(i)]);
      }
    }
  }
}

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  if (emulation::fails("cublasCreate")) return CUBLAS_STATUS_ALLOC_FAILED;
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  handle->workspace = nullptr;  // as documented: the work space is the default one again
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, size_t) {
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = workspace;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t mode) {
  return mode == CUBLAS_ATOMICS_NOT_ALLOWED ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "the function failed to launch on the GPU";
    default: return "the functionality requested is not supported";
  }
}

cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int64_t m, int64_t n,
                                             int64_t k, const void* alpha, const void* A, cudaDataType Atype, int64_t lda, long long strideA,
                                             const void* B, cudaDataType Btype, int64_t ldb, long long strideB, const void* beta, void* C,
                                             cudaDataType Ctype, int64_t ldc, long long strideC, int64_t batches, cublasComputeType_t compute,
                                             cublasGemmAlgo_t) {
  if (emulation::fails("cublasGemm")) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (!handle->workspace) return CUBLAS_STATUS_NOT_INITIALIZED;  // the deterministic mode asks for one
  const bool ta = transa == CUBLAS_OP_T, tb = transb == CUBLAS_OP_T, wide = compute == CUBLAS_COMPUTE_64F;
  if (m < 0 || n < 0 || k < 0 || batches < 0 || lda < std::max<int64_t>(1, ta ? k : m) || ldb < std::max<int64_t>(1, tb ? n : k) ||
      ldc < std::max<int64_t>(1, m))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (Atype != Btype || Atype != Ctype || wide != (Atype == CUDA_R_64F)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto number = [wide](const void* p) { return wide ? *static_cast<const double*>(p) : double(*static_cast<const float*>(p)); };
  const Gemm g{ta,  tb,  m, n, k, static_cast<const char*>(A), lda, strideA, static_cast<const char*>(B), ldb, strideB, static_cast<char*>(C),
               ldc, strideC, batches, number(alpha), number(beta), compute == CUBLAS_COMPUTE_32F_FAST_TF32};
  const auto work = [g, Atype] {
    switch (Atype) {
      case CUDA_R_32F: return run<float, float>(g);
      case CUDA_R_64F: return run<double, double>(g);
      case CUDA_R_16F: return run<f16, float>(g);
      default: return run<bf16, float>(g);
    }
  };
  return emulation::enqueue(handle->stream, "cublasGemm", work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int64_t m, int64_t n, int64_t k,
                               const void* alpha, const void* A, cudaDataType Atype, int64_t lda, const void* B, cudaDataType Btype, int64_t ldb,
                               const void* beta, void* C, cudaDataType Ctype, int64_t ldc, cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx_64(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1,
                                       compute, algorithm);
}
