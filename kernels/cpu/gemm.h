// Matrix products of strided operands. gemm.cpp.
#pragma once
#include <cstdint>

#include "../common/dtype.h"

namespace dg {

// A batch of matrices; strides in elements. data == nullptr stands for an absent one.
template <class T>
struct Matrices {
  T* data;
  int64_t batch, row, column;
  T* at(int64_t index) const { return data + index * batch; }
};

// c[s,i,j] = init[s,i,j] + sum over p of a[s,i,p] * b[s,p,j]. T is float, double, f16 or bf16 (the last two summed in float and rounded once).
// The sum runs over p in fixed blocks, so that the result depends neither on the number of threads nor on the other rows and columns of a tile.
// Takes work space (may throw Error), so it must not be called from a parallel region. `c` overlaps no operand.
template <class T>
void gemm(int64_t batch, int64_t m, int64_t n, int64_t k, Matrices<const T> a, Matrices<const T> b, Matrices<const T> init, Matrices<T> c);

}  // namespace dg
