// Matrix products through cuBLAS, also for other families. matmul.cu.
#pragma once
#include "runtime.h"

namespace dg {

// A batch of matrices; strides in elements.
struct Matrix {
  void* data;
  int64_t batch, row, column;
};

// True where cuBLAS can address rows x columns matrices of these strides: rows, or columns, without gaps between their elements.
bool addressable(const Matrix& x, int64_t rows, int64_t columns);

// c = a @ b (+ what c holds, if `add`) for each of `batch` matrices [m, k] @ [k, n]; `dtype` is a float dtype, no size is 0. Operands that are not
// addressable are copied first; c must be.
void product(uint32_t dtype, int64_t batch, int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, const Matrix& c, bool add);

}  // namespace dg
