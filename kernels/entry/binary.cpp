// binary(): a function of two operands of one shape and dtype, the second of which may be a number.
#include "../common/binary.h"

using namespace dg;

namespace {

const char* const name = "binary";

BinaryOp op_of(uint32_t op) {
  if (op >= uint32_t(BinaryOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
  return BinaryOp(op);
}

void check_dtype(const Tensor& x, BinaryOp op) {
  const bool known = is_float_dtype(x.dtype) ? takes<float>(op) : takes<int64_t>(op);
  if (!known || (x.dtype == DG_BOOL && !takes_bool(op))) fail(DG_DTYPE, "%s: this function does not take %s", name, dtype_name(x.dtype));
}

}  // namespace

int32_t dg_binary(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t y_slot, uint32_t op, double alpha) {
  return guard([&] {
    const BinaryOp code = op_of(op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name), y = tensor_at(t, y_slot, name);
    require_same_sizes(out, x, name);
    require_same_sizes(out, y, name);
    require_dtype(out, x.dtype, name, "the output");
    require_dtype(y, x.dtype, name, "the second operand");
    check_dtype(x, code);
    binary(out, x, y, code, alpha);
  });
}

int32_t dg_binary_scalar(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double scalar, uint32_t op, uint32_t reversed) {
  return guard([&] {
    const BinaryOp code = op_of(op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, x.dtype, name, "the output");
    check_dtype(x, code);
    if (!is_float_dtype(x.dtype) && divides(code) && !reversed && x.numel > 0 && operand_of<int64_t>(scalar, x.dtype) == 0)
      fail(DG_RANGE, "integer division by zero");
    binary_scalar(out, x, scalar, code, reversed != 0);
  });
}
