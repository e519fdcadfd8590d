// Ordering elements along an axis: numbers as unsigned keys in the same order, and the tensors of a call.
#pragma once
#include "tensor.h"

namespace dg {

// The order of floats as unsigned numbers: -0 equals 0, all NaN are equal and largest.
DG_HD uint32_t key_of(float x) {
  uint32_t bits;
  x += 0.0f;
  memcpy(&bits, &x, 4);
  return x != x ? 0xffffffffu : (bits >> 31 ? ~bits : bits | 0x80000000u);
}
DG_HD uint64_t key_of(double x) {
  uint64_t bits;
  x += 0.0;
  memcpy(&bits, &x, 8);
  return x != x ? ~uint64_t(0) : (bits >> 63 ? ~bits : bits | uint64_t(1) << 63);
}
DG_HD uint64_t key_of(int64_t x) { return uint64_t(x) ^ uint64_t(1) << 63; }

// The tensors of a call that orders elements along an axis.
struct SortTensors {
  Tensor values, indices, x;
  bool wanted;
  SortTensors(const dg_tensor* t, uint32_t values_slot, uint32_t indices_slot, uint32_t x_slot, uint32_t axis, const char* name)
      : indices(tensor_at(t, indices_slot, name, Access::write)), x(tensor_at(t, x_slot, name)), wanted(present(values_slot)) {
    values = wanted ? tensor_at(t, values_slot, name, Access::write) : indices;
    if (axis >= uint32_t(x.rank)) fail(DG_RANGE, "%s: axis %u does not exist in %s", name, axis, shape_text(x).c_str());
    require_dtype(indices, DG_I64, name, "the output of positions");
    if (wanted) require_dtype(values, x.dtype, name, "the output of values");
    require_same_sizes(values, indices, name);
    if (!same_strides(values, indices)) fail(DG_SHAPE, "%s: the strides of values and positions differ", name);
    if (indices.rank != x.rank) fail(DG_SHAPE, "%s: the output has rank %d, the input %d", name, indices.rank, x.rank);
    if (indices.sizes[axis] > x.sizes[axis])
      fail(DG_SHAPE, "%s: %lld of %lld elements", name, static_cast<long long>(indices.sizes[axis]), static_cast<long long>(x.sizes[axis]));
  }
};

}  // namespace dg
