// Comparisons of two operands of one shape and dtype, the second of which may be a number, and selection between two.
#include "../common/binary.h"

using namespace dg;

namespace {

CompareOp op_of(uint32_t op) {
  if (op >= uint32_t(CompareOp::count)) fail(DG_RANGE, "compare: op code %u does not exist", op);
  return CompareOp(op);
}

}  // namespace

int32_t dg_compare(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t y_slot, uint32_t op) {
  return guard([&] {
    const char* const name = "compare";
    const CompareOp code = op_of(op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name), y = tensor_at(t, y_slot, name);
    require_same_sizes(out, x, name);
    require_same_sizes(out, y, name);
    require_dtype(out, DG_BOOL, name, "the output");
    require_dtype(y, x.dtype, name, "the second operand");
    compare(out, x, y, code);
  });
}

int32_t dg_compare_scalar(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double scalar, uint32_t op) {
  return guard([&] {
    const char* const name = "compare";
    const CompareOp code = op_of(op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, DG_BOOL, name, "the output");
    compare_scalar(out, x, scalar, code);
  });
}

int32_t dg_where(const dg_tensor* t, uint32_t out_slot, uint32_t condition_slot, uint32_t x_slot, uint32_t y_slot) {
  return guard([&] {
    const char* const name = "where";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), condition = tensor_at(t, condition_slot, name),
                 x = tensor_at(t, x_slot, name), y = tensor_at(t, y_slot, name);
    require_dtype(condition, DG_BOOL, name, "the condition");
    require_dtype(x, out.dtype, name, "the first choice");
    require_dtype(y, out.dtype, name, "the second choice");
    require_same_sizes(out, condition, name);
    require_same_sizes(out, x, name);
    require_same_sizes(out, y, name);
    where(out, condition, x, y);
  });
}
