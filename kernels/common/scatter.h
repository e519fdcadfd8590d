// What a scatter does with the element it meets, T the element type.
#pragma once
#include <limits>

#include "binary.h"

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

}  // namespace dg
