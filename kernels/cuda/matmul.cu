// Matrix products: floats through cuBLAS, integers by a kernel of their own. cuBLAS takes matrices stored by columns; ours are stored by rows, so it
// computes out^T = b^T a^T. Results are deterministic: each stream has its own handle with its own work space, and atomics are off.
#include "matmul.h"

#include <cublas_v2.h>

#include <atomic>
#include <map>
#include <mutex>
#include <optional>

#include "../common/matmul.h"
#include "copy.h"
#include "map.h"

namespace dg {
namespace {

constexpr size_t kWorkspace = size_t(32) << 20;  // what NVIDIA recommends for Hopper

std::atomic<bool> tf32{false};

void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(status == CUBLAS_STATUS_ALLOC_FAILED ? DG_OUT_OF_MEMORY : DG_DEVICE, "%s: %s", failed_call(what).c_str(), cublasGetStatusString(status));
}

// A handle may be used by one thread at a time.
std::mutex handles_mutex;
std::map<cudaStream_t, cublasHandle_t> handles;

cublasHandle_t handle_of(cudaStream_t stream) {
  const auto found = handles.find(stream);
  if (found != handles.end()) return found->second;
  void* workspace = nullptr;
  check_cuda(cudaMalloc(&workspace, kWorkspace), "cudaMalloc");
  cublasHandle_t handle = nullptr;
  try {
    check_cublas(cublasCreate(&handle), "cublasCreate");
    check_cublas(cublasSetStream(handle, stream), "cublasSetStream");
    check_cublas(cublasSetWorkspace(handle, workspace, kWorkspace), "cublasSetWorkspace");
    check_cublas(cublasSetAtomicsMode(handle, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
    check_cublas(cublasSetMathMode(handle, cublasMath_t(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
                 "cublasSetMathMode");
  } catch (...) {
    if (handle) cublasDestroy(handle);
    cudaFree(workspace);
    throw;
  }
  return handles[stream] = handle;
}

bool by_rows(const Matrix& x, int64_t rows, int64_t columns) { return (x.column == 1 || columns == 1) && (x.row >= columns || rows == 1); }

Matrix flipped(const Matrix& x) { return {x.data, x.batch, x.column, x.row}; }

// An operand as cuBLAS takes it.
class Operand {
 public:
  Operand(uint32_t dtype, const Matrix& x, int64_t batch, int64_t rows, int64_t columns) : data(x.data), stride(x.batch) {
    Matrix m = x;
    if (!addressable(x, rows, columns)) m = copied(dtype, x, x.batch == 0 ? 1 : batch, rows, columns);
    transposed = !by_rows(m, rows, columns);
    leading = transposed ? (columns == 1 ? rows : m.column) : (rows == 1 ? columns : m.row);
    data = m.data;
    stride = m.batch;
  }
  cublasOperation_t op() const { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

  const void* data;
  int64_t stride, leading;
  bool transposed;  // stored by columns

 private:
  Matrix copied(uint32_t dtype, const Matrix& x, int64_t batch, int64_t rows, int64_t columns) {
    Tensor from, to;
    from.storage_data = static_cast<char*>(x.data);
    from.dtype = dtype;
    from.rank = 3;
    from.numel = batch * rows * columns;
    const int64_t sizes[] = {batch, rows, columns}, strides[] = {x.batch, x.row, x.column}, dense[] = {rows * columns, columns, 1};
    std::copy(sizes, sizes + 3, from.sizes);
    to = from;
    std::copy(strides, strides + 3, from.strides);
    std::copy(dense, dense + 3, to.strides);
    memory_.emplace(from.numel * dtype_size(dtype));
    to.storage_data = memory_->as<char>();
    copy_tensor(to, from);
    return {to.storage_data, x.batch == 0 ? 0 : dense[0], dense[1], 1};
  }
  std::optional<Scratch> memory_;
};

template <class T>
struct Zero {
  __device__ T operator()() const { return T(0.0f); }
};

// Integers: exact modulo 2^bits, summed in an unsigned type of at least 32 bits. A thread an element.
template <class T>
struct Integers {
  const T* data;
  int64_t batch, row, column;
  __device__ T at(int64_t s, int64_t i, int64_t j) const { return data[s * batch + i * row + j * column]; }
};
template <class T>
__global__ void integer_product(T* out, int64_t out_batch, int64_t out_row, int64_t out_column, Integers<T> a, Integers<T> b, Integers<T> bias,
                                int64_t count, int64_t m, int64_t n, int64_t k) {
  using U = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += step) {
    const int64_t row = at / n, j = at - row * n, s = row / m, i = row - s * m;
    U sum = bias.data ? U(bias.at(s, i, j)) : U(0);
    for (int64_t p = 0; p < k; p++) sum += U(a.at(s, i, p)) * U(b.at(s, p, j));
    out[s * out_batch + i * out_row + j * out_column] = T(sum);
  }
}

Matrix matrix(const Tensor& t) {
  return {t.storage_data + t.offset * dtype_size(t.dtype), t.rank == 3 ? t.strides[0] : 0, t.stride(-2), t.stride(-1)};
}

template <class T>
void multiply_integers(const char* name, const MatmulShape& s) {
  auto operand = [](const Tensor& t) {
    const Matrix m = matrix(t);
    return Integers<T>{static_cast<const T*>(m.data), m.batch, m.row, m.column};
  };
  const Matrix out = matrix(s.out);
  const int64_t count = s.batch * s.m * s.n;
  const unsigned threads = count < kThreads ? 32 : kThreads;
  launch(name, integer_product<T>, blocks_for(count, threads), threads, 0, static_cast<T*>(out.data), out.batch, out.row, out.column,
         operand(s.a), operand(s.b), s.biased ? operand(s.bias) : Integers<T>{}, count, s.m, s.n, s.k);
}

template <class T>
void multiply_floats(const MatmulShape& s) {
  Matrix c = matrix(s.out);
  Tensor result = s.out;  // what the product is written to
  std::optional<Scratch> memory;
  if (!addressable(c, s.m, s.n)) {
    memory.emplace(s.out.numel * int64_t(sizeof(T)));
    result.storage_data = memory->as<char>();
    result.offset = 0;
    int64_t stride = 1;
    for (int i = result.rank - 1; i >= 0; i--) {
      result.strides[i] = stride;
      stride *= result.sizes[i];
    }
    c = matrix(result);
  }
  if (s.biased) copy_tensor(result, s.bias);
  else if (s.k == 0) map<T>("matmul", Zero<T>{}, result);
  if (s.k > 0) product(s.out.dtype, s.batch, s.m, s.n, s.k, matrix(s.a), matrix(s.b), c, s.biased);
  if (memory) copy_tensor(s.out, result);
}

}  // namespace

bool addressable(const Matrix& x, int64_t rows, int64_t columns) { return by_rows(x, rows, columns) || by_rows(flipped(x), columns, rows); }

void product(uint32_t dtype, int64_t batch, int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, const Matrix& c, bool add) {
  if (!by_rows(c, m, n)) return product(dtype, batch, n, m, k, flipped(b), flipped(a), flipped(c), add);
  const Operand first(dtype, b, batch, k, n), second(dtype, a, batch, m, k);
  const int64_t leading = m == 1 ? n : c.row;
  const double one64 = 1, factor64 = add ? 1 : 0;
  const float one32 = 1, factor32 = add ? 1 : 0;
  const bool wide = dtype == DG_F64;
  const void *one = wide ? static_cast<const void*>(&one64) : &one32, *factor = wide ? static_cast<const void*>(&factor64) : &factor32;
  static constexpr cudaDataType types[] = {CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF};
  const cudaDataType type = types[dtype];
  const cublasComputeType_t compute =
      wide ? CUBLAS_COMPUTE_64F : dtype == DG_F32 && tf32.load() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  std::lock_guard<std::mutex> lock(handles_mutex);
  const cublasHandle_t handle = handle_of(current_stream());
  const char* const name = batch == 1 ? "cublasGemmEx" : "cublasGemmStridedBatchedEx";
  if (batch == 1)
    check_cublas(cublasGemmEx_64(handle, first.op(), second.op(), n, m, k, one, first.data, type, first.leading, second.data, type, second.leading,
                                 factor, c.data, type, leading, compute, CUBLAS_GEMM_DEFAULT),
                 name);
  else
    check_cublas(cublasGemmStridedBatchedEx_64(handle, first.op(), second.op(), n, m, k, one, first.data, type, first.leading, first.stride,
                                               second.data, type, second.leading, second.stride, factor, c.data, type, leading, c.batch, batch,
                                               compute, CUBLAS_GEMM_DEFAULT),
                 name);
  library_called(name);
}

void matmul(const MatmulShape& s) {
  dispatch_numbers(s.out.dtype, "matmul", [&](auto kind) {
    using T = typename decltype(kind)::type;
    if constexpr (is_float<T>) multiply_floats<T>(s);
    else multiply_integers<T>("matmul", s);
  });
}

void set_tf32(bool on) { tf32.store(on); }
bool get_tf32() { return tf32.load(); }

}  // namespace dg
