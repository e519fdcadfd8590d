// Layer and group norms: what their rows are.
#pragma once
#include "tensor.h"

namespace dg {

// Rows of `columns` values.
struct NormRows {
  int64_t rows, columns;
};

// Rows are groups of `per` channels of `inner` values: row r holds those of group r % groups of sample r / groups.
struct NormGroups {
  int64_t rows, groups, per, inner;
};

// The elements of a tensor, or null if it is absent.
template <class T>
T* data_of(const Tensor* t) {
  return t ? t->data<T>() : nullptr;
}

// Provided by each library (layer_norm.cpp, layer_norm.cu); checked by entry/layer_norm.cpp. All tensors are contiguous; mean and invstd have
// an element a row, weight and bias one a column, or a channel of groups, all in the computing dtype. A layer norm without mean is about 0.
void layer_norm(const Tensor& y, const Tensor* mean, const Tensor& invstd, const Tensor& x, const Tensor* weight, const Tensor* bias,
                const NormRows& rows, double eps);
void layer_norm_backward(const Tensor* dx, const Tensor* dweight, const Tensor* dbias, const Tensor& dy, const Tensor& x, const Tensor* mean,
                         const Tensor& invstd, const Tensor* weight, const NormRows& rows);
void group_norm(const Tensor& y, const Tensor& mean, const Tensor& invstd, const Tensor& x, const Tensor* weight, const Tensor* bias,
                const NormGroups& groups, double eps);
void group_norm_backward(const Tensor* dx, const Tensor* dweight, const Tensor* dbias, const Tensor& dy, const Tensor& x, const Tensor& mean,
                         const Tensor& invstd, const Tensor* weight, const NormGroups& groups);

}  // namespace dg
