// The first largest or smallest element along an axis, and its position.
#pragma once
#include "plan.h"

namespace dg {

template <class A>
struct Found {
  A value;
  int64_t index;
};

// NaN counts as the extremum, as in PyTorch.
template <class A>
DG_HD bool better(bool smallest, A candidate, A best) {
  return (smallest ? candidate < best : candidate > best) || (candidate != candidate && best == best);
}

// Provided by each library (extremum.cpp, extremum.cu); checked by entry/extremum.cpp. `values` is null where only positions are wanted.
void extremum(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& plan, int axis, bool smallest);

}  // namespace dg
