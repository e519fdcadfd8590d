// Searching, counting and grouping: binary search in sorted rows, occurrences of small integers, histograms, runs of equal elements.
#include "../common/search.h"

#include "optional.h"

using namespace dg;

namespace {

void require_flat(const Tensor& t, int64_t count, const char* op, const char* what) {
  if (t.rank != 1 || t.sizes[0] != count || !t.contiguous())
    fail(DG_SHAPE, "%s: %s must be contiguous [%lld], got %s", op, what, static_cast<long long>(count), shape_text(t).c_str());
}

}  // namespace

int32_t dg_searchsorted(const dg_tensor* t, uint32_t out_slot, uint32_t sorted_slot, uint32_t x_slot, uint32_t right) {
  return guard([&] {
    const char* const name = "searchsorted";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Tensor sorted = tensor_at(t, sorted_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, DG_I64, name, "the output");
    require_dtype(x, sorted.dtype, name, "the values");
    if (sorted.rank < 1 || (sorted.rank > 1 && sorted.rank != x.rank))
      fail(DG_SHAPE, "%s: sorted sequences %s for values %s", name, shape_text(sorted).c_str(), shape_text(x).c_str());
    Tensor starts = x;
    for (int i = 0; i < x.rank; i++) {
      const bool own = sorted.rank > 1 && i < sorted.rank - 1;
      if (own && sorted.sizes[i] != x.sizes[i])
        fail(DG_SHAPE, "%s: sorted sequences %s for values %s", name, shape_text(sorted).c_str(), shape_text(x).c_str());
      starts.strides[i] = own ? sorted.strides[i] : 0;
    }
    if (x.numel == 0) return;
    searchsorted(out, sorted, x, starts, right != 0);
  });
}

int32_t dg_bincount(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t weights_slot) {
  return guard([&] {
    const char* const name = "bincount";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    if (out.rank != 1) fail(DG_SHAPE, "%s: the output is %s", name, shape_text(out).c_str());
    require_flat(out, out.sizes[0], name, "the output");
    require_dtype(x, DG_I64, name, "the input");
    require_flat(x, x.numel, name, "the input");
    const Optional weights(t, weights_slot, name);
    require_dtype(out, weights ? DG_F64 : DG_I64, name, "the output");
    if (weights) {
      require_dtype(*weights, DG_F64, name, "the weights");
      require_flat(*weights, x.numel, name, "the weights");
    }
    bincount(out, x, weights);
  });
}

int32_t dg_histc(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double low, double high) {
  return guard([&] {
    const char* const name = "histc";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_finite_work(x, name);
    if (out.rank != 1 || out.numel == 0) fail(DG_SHAPE, "%s: the output is %s", name, shape_text(out).c_str());
    require_flat(out, out.sizes[0], name, "the output");
    require_dtype(out, DG_I64, name, "the output");
    if (!(low < high) || !std::isfinite(high - low)) fail(DG_RANGE, "%s: bounds %g and %g", name, low, high);
    require_float(x, name);
    histc(out, x, low, high);
  });
}

int32_t dg_groups(const dg_tensor* t, uint32_t group_slot, uint32_t sorted_slot) {
  return guard([&] {
    const char* const name = "unique";
    const Tensor group = tensor_at(t, group_slot, name, Access::write), x = tensor_at(t, sorted_slot, name);
    require_dtype(group, DG_I64, name, "the groups");
    require_flat(x, x.numel, name, "the sorted elements");
    require_flat(group, x.numel, name, "the groups");
    if (x.numel == 0) return;
    groups(group, x);
  });
}

int32_t dg_unique(const dg_tensor* t, uint32_t values_slot, uint32_t inverse_slot, uint32_t counts_slot, uint32_t sorted_slot,
                  uint32_t order_slot, uint32_t group_slot) {
  return guard([&] {
    const char* const name = "unique";
    const UniqueTensors io{tensor_at(t, values_slot, name, Access::write), tensor_at(t, inverse_slot, name, Access::write),
                           tensor_at(t, counts_slot, name, Access::write), tensor_at(t, sorted_slot, name), tensor_at(t, order_slot, name),
                           tensor_at(t, group_slot, name)};
    require_dtype(io.values, io.sorted.dtype, name, "the values");
    for (const Tensor* it : {&io.inverse, &io.counts, &io.order, &io.group}) require_dtype(*it, DG_I64, name, "positions and counts");
    for (const Tensor* it : {&io.inverse, &io.sorted, &io.order, &io.group}) require_flat(*it, io.sorted.numel, name, "every list");
    for (const Tensor* it : {&io.values, &io.counts}) require_flat(*it, io.values.numel, name, "the distinct elements and their counts");
    unique(io);
  });
}
