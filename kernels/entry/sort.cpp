// Ordering along an axis: its first elements, and the one of a rank.
#include "../common/sort.h"

#include "optional.h"

using namespace dg;

namespace {

struct SortCall {
  Tensor indices, x;
  Optional values;

  SortCall(const dg_tensor* t, uint32_t values_slot, uint32_t indices_slot, uint32_t x_slot, uint32_t axis, const char* name)
      : indices(tensor_at(t, indices_slot, name, Access::write)), x(tensor_at(t, x_slot, name)), values(t, values_slot, name, Access::write) {
    require_axis(x, axis, name);
    require_picks(indices, values, x, name);
    if (indices.rank != x.rank) fail(DG_SHAPE, "%s: the output has rank %d, the input %d", name, indices.rank, x.rank);
    if (indices.sizes[axis] > x.sizes[axis])
      fail(DG_SHAPE, "%s: %lld of %lld elements", name, static_cast<long long>(indices.sizes[axis]), static_cast<long long>(x.sizes[axis]));
  }

  Plan rows(uint32_t axis, const char* name) const {
    const Plan plan = lines_along(axis, indices, x, name);
    if (x.sizes[axis] > (narrow_keys(x.dtype) ? int64_t(UINT32_MAX) : int64_t(1) << 40))
      fail(DG_SHAPE, "sort: an axis of %lld elements", static_cast<long long>(x.sizes[axis]));
    return plan;
  }
};

}  // namespace

int32_t dg_sort(const dg_tensor* t, uint32_t values_slot, uint32_t indices_slot, uint32_t x_slot, uint32_t axis, uint32_t descending) {
  return guard([&] {
    const char* const name = "sort";
    const SortCall call(t, values_slot, indices_slot, x_slot, axis, name);
    if (call.indices.numel == 0) return;
    sort(call.values, call.indices, call.x, call.rows(axis, name), int(axis), descending != 0);
  });
}

int32_t dg_kth(const dg_tensor* t, uint32_t values_slot, uint32_t indices_slot, uint32_t x_slot, uint32_t axis, double k, uint32_t median) {
  return guard([&] {
    const char* const name = "kth";
    const SortCall call(t, values_slot, indices_slot, x_slot, axis, name);
    const int64_t picks = call.indices.sizes[axis], count = call.x.sizes[axis];
    if (picks != 1) fail(DG_SHAPE, "%s: the output has size %lld along the axis", name, static_cast<long long>(picks));
    const Plan rows = call.rows(axis, name);
    if (rows.outputs == 0) return;
    if (!(k >= 1 && k <= double(count))) fail(DG_RANGE, "%s: no element number %g of %lld", name, k, static_cast<long long>(count));
    kth(call.values, call.indices, call.x, rows, int(axis), int64_t(k) - 1, median != 0);
  });
}
