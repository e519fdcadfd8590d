// softmax(), logSoftmax() and their gradients.
#include "../common/softmax.h"

using namespace dg;

namespace {

int axis_of(const Tensor& x, uint32_t axis, const char* name) {
  if (axis >= uint32_t(x.rank)) fail(DG_RANGE, "%s: axis %u does not exist in %s", name, axis, shape_text(x).c_str());
  return int(axis);
}

}  // namespace

int32_t dg_softmax(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t axis, uint32_t log) {
  return guard([&] {
    const char* const name = "softmax";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(y, x, name);
    require_dtype(y, x.dtype, name, "the output");
    const int along = axis_of(x, axis, name);
    require_float(x, name);
    if (x.numel > 0) softmax(y, x, along, log != 0);
  });
}

int32_t dg_softmax_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t y_slot, uint32_t axis, uint32_t log) {
  return guard([&] {
    const char* const name = "softmax_backward";
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), y = tensor_at(t, y_slot, name);
    require_same_sizes(dx, y, name);
    require_same_sizes(dy, y, name);
    require_dtype(dx, y.dtype, name, "the gradient of the input");
    require_dtype(dy, y.dtype, name, "the gradient of the output");
    const int along = axis_of(y, axis, name);
    require_float(y, name);
    if (y.numel > 0) softmax_backward(dx, dy, y, along, log != 0);
  });
}
