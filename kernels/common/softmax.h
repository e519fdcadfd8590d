// Softmax and its logarithm along one axis, and their gradients, which are made from the output.
#pragma once
#include "tensor.h"

namespace dg {

// The shape and strides of t, which is not empty, without the extent of `axis`: where rows along the axis begin.
inline Tensor heads(Tensor t, int axis) {
  t.numel /= t.sizes[axis];
  t.sizes[axis] = 1;
  return t;
}

// Provided by each library (softmax.cpp, softmax.cu) for tensors that are not empty; checked by entry/softmax.cpp.
void softmax(const Tensor& y, const Tensor& x, int axis, bool log);
void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y, int axis, bool log);

}  // namespace dg
