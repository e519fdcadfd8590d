// Activation functions and their gradients, which are made from the input.
#include "../common/activation.h"

using namespace dg;

namespace {

ActivationOp op_of(uint32_t op, const char* name) {
  if (op >= uint32_t(ActivationOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
  return ActivationOp(op);
}

}  // namespace

int32_t dg_activation(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t op, double a, double b) {
  return guard([&] {
    const char* const name = "activation";
    const ActivationOp code = op_of(op, name);
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(y, x, name);
    require_dtype(y, x.dtype, name, "the output");
    require_float(x, name);
    activation(y, x, code, a, b);
  });
}

int32_t dg_activation_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t op, double a, double b) {
  return guard([&] {
    const char* const name = "activation_backward";
    const ActivationOp code = op_of(op, name);
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    require_same_sizes(dx, x, name);
    require_same_sizes(dy, x, name);
    require_dtype(dx, x.dtype, name, "the gradient of the input");
    require_dtype(dy, x.dtype, name, "the gradient of the output");
    require_float(x, name);
    activation_backward(dx, dy, x, code, a, b);
  });
}
