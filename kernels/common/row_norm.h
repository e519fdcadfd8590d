// Headers of the layer and group norms.
#pragma once
#include "tensor.h"

namespace dg {

template <class C> constexpr uint32_t statistics_dtype() { return std::is_same_v<C, double> ? DG_F64 : DG_F32; }

// A contiguous tensor of `count` values in the computing dtype; null when absent.
template <class C>
C* vector_at(const dg_tensor* t, uint32_t slot, int64_t count, const char* op, Access access = Access::read) {
  if (!present(slot)) return nullptr;
  const Tensor v = tensor_at(t, slot, op, access);
  require_dtype(v, statistics_dtype<C>(), op, "statistics and parameters");
  if (!v.contiguous() || v.numel != count)
    fail(DG_SHAPE, "%s: expected %lld contiguous values, got %s", op, (long long)count, shape_text(v).c_str());
  return v.data<C>();
}

// A contiguous tensor with the sizes and dtype of x.
inline Tensor like_input(const dg_tensor* t, uint32_t slot, const Tensor& x, const char* op, Access access = Access::read) {
  const Tensor v = tensor_at(t, slot, op, access);
  require_same_sizes(v, x, op);
  require_dtype(v, x.dtype, op, "each of input, output and gradients");
  if (!v.contiguous()) fail(DG_SHAPE, "%s: tensors must be contiguous", op);
  return v;
}

// Rows of `columns` values.
struct Rows {
  int64_t rows, columns;
};
inline Rows rows_of(const Tensor& x, double columns, const char* op) {
  if (!(columns >= 1 && columns <= double(std::max<int64_t>(x.numel, 1))) || columns != std::floor(columns) || x.numel % int64_t(columns) != 0)
    fail(DG_SHAPE, "%s: %s does not consist of rows of %g values", op, shape_text(x).c_str(), columns);
  return {x.numel / int64_t(columns), int64_t(columns)};
}

// Rows are groups of `per` channels of `inner` values: row r holds those of group r % groups of sample r / groups.
struct Groups {
  int64_t rows, groups, per, inner;
};
inline Groups groups_of(const Tensor& x, double groups, const char* op) {
  if (x.rank < 2 || x.numel == 0 || !(groups >= 1 && groups <= double(x.sizes[1])) || groups != std::floor(groups) ||
      x.sizes[1] % int64_t(groups) != 0)
    fail(DG_SHAPE, "%s: %g groups do not divide the channels of %s", op, groups, shape_text(x).c_str());
  return {x.sizes[0] * int64_t(groups), int64_t(groups), x.sizes[1] / int64_t(groups), x.numel / x.sizes[0] / x.sizes[1]};
}

}  // namespace dg
