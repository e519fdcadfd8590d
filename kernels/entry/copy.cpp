// Strided copy with conversion, fill, arange.
#include "../common/copy.h"

using namespace dg;

int32_t dg_copy(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot) {
  return guard([&] {
    const Tensor out = tensor_at(t, out_slot, "copy", Access::write), x = tensor_at(t, x_slot, "copy");
    require_same_sizes(out, x, "copy");
    dg::copy(out, x);
  });
}

int32_t dg_fill(const dg_tensor* t, uint32_t out_slot, double value) {
  return guard([&] { dg::fill(tensor_at(t, out_slot, "fill", Access::write), value); });
}

int32_t dg_arange(const dg_tensor* t, uint32_t out_slot, double start, double step) {
  return guard([&] {
    const Tensor out = tensor_at(t, out_slot, "arange", Access::write);
    if (!out.contiguous()) fail(DG_SHAPE, "arange: the output must be contiguous");
    require_numbers(out, "arange");
    arange(out, start, step);
  });
}
