// What a scatter does with the element it meets, T the element type.
#pragma once
#include <limits>

#include "binary.h"
#include "indexing.h"

namespace dg {

template <ScatterOp op, class T>
DG_HD T scatter_value(T old, T v) {
  using C = compute_t<T>;
  if constexpr (op == ScatterOp::sum) return T(C(old) + C(v));
  else if constexpr (op == ScatterOp::prod) return T(C(old) * C(v));
  else if constexpr (op == ScatterOp::amax) return T(binary_value<BinaryOp::maximum, C>(old, v));
  else if constexpr (op == ScatterOp::amin) return T(binary_value<BinaryOp::minimum, C>(old, v));
  else return v;
}

// What the reductions start from where the old value does not take part.
template <class T>
DG_HD T scatter_identity(ScatterOp op) {
  using C = compute_t<T>;
  using L = std::numeric_limits<C>;
  if (op == ScatterOp::prod) return T(C(1));
  if (op == ScatterOp::amax) return T(L::has_infinity ? C(-L::infinity()) : L::lowest());
  if (op == ScatterOp::amin) return T(L::has_infinity ? L::infinity() : L::max());
  return T(C(0));
}

// What a scatter writes: the elements of a tensor or, if constant, a number in place of each; then `tensor` has no memory and strides of 0.
struct ScatterSource {
  Tensor tensor;
  bool constant = false;
  double value = 0;
};

// Provided by each library (scatter.cpp, scatter.cu); checked by entry/scatter.cpp, but for the values of the indices, which
// are all checked before the first write.
void scatter(const Tensor& out, const Tensor& index, const ScatterSource& src, int axis, ScatterOp op, bool include_self);
void index_put(const Tensor& x, const ScatterSource& src, const RowIndices& rows, ScatterOp op);

}  // namespace dg
