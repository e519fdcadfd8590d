// maxUnpool() and its gradient.
#include "../common/pooling.h"

using namespace dg;

namespace {

// `full` has the sizes of the planes that `indices` point into.
void check(const char* op, const Tensor& full, const Tensor& pooled, const Tensor& indices) {
  if (full.rank < 3 || full.rank > 5 || pooled.rank != full.rank || full.sizes[0] != pooled.sizes[0] || full.sizes[1] != pooled.sizes[1])
    fail(DG_SHAPE, "%s: takes [N, C, spatial...] with 1 to 3 spatial axes, got %s and %s", op, shape_text(pooled).c_str(),
         shape_text(full).c_str());
  require_same_sizes(indices, pooled, op);
  require_dtype(indices, DG_I64, op, "indices");
  require_dtype(full, pooled.dtype, op, "the output");
  require_float(pooled, op);
}

}  // namespace

int32_t dg_unpool_scatter(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t indices_slot, uint32_t accumulate) {
  return guard([&] {
    const char* const name = "unpool_scatter";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name), indices = tensor_at(t, indices_slot, name);
    check(name, y, x, indices);
    unpool_scatter(y, x, indices, accumulate != 0);
  });
}

int32_t dg_unpool_gather(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t indices_slot) {
  return guard([&] {
    const char* const name = "unpool_gather";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name), indices = tensor_at(t, indices_slot, name);
    check(name, x, y, indices);
    unpool_gather(y, x, indices);
  });
}
