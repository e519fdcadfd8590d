// Losses of predictions and targets of equal sizes, and their gradients.
#include "../common/loss.h"

using namespace dg;

namespace {

LossOp op_of(uint32_t op, const char* name) {
  if (op >= uint32_t(LossOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
  return LossOp(op);
}

}  // namespace

int32_t dg_loss(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t target_slot, uint32_t op, double parameter,
                uint32_t reduction) {
  return guard([&] {
    const char* const name = op == uint32_t(LossOp::bce) ? "binaryCrossEntropy" : "loss";
    const LossOp code = op_of(op, name);
    if (reduction > 2) fail(DG_RANGE, "%s: reduction %u does not exist", name, reduction);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name), target = tensor_at(t, target_slot, name);
    require_same_sizes(target, x, name);
    require_dtype(target, x.dtype, name, "the target");
    require_dtype(out, x.dtype, name, "the output");
    if (reduction == 0) require_same_sizes(out, x, name);
    else if (out.rank != 0) fail(DG_SHAPE, "%s: a reduced output has no axes, got %s", name, shape_text(out).c_str());
    require_float(x, name);
    loss(out, x, target, code, parameter, reduction);
  });
}

int32_t dg_loss_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t target_slot, uint32_t op,
                         double parameter, double scale) {
  return guard([&] {
    const char* const name = "loss_backward";
    const LossOp code = op_of(op, name);
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name),
                 target = tensor_at(t, target_slot, name);
    for (const Tensor* other : {&dx, &dy, &target}) {
      require_same_sizes(*other, x, name);
      require_dtype(*other, x.dtype, name, "every tensor");
    }
    require_float(x, name);
    loss_backward(dx, dy, x, target, code, parameter, scale);
  });
}
