// unary(): each element through a function, in the dtype of the input; tests give bool.
#include "../common/unary.h"

using namespace dg;

int32_t dg_unary(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t op) {
  return guard([&] {
    const char* const name = "unary";
    if (op >= uint32_t(UnaryOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const UnaryOp code = UnaryOp(op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, tests(code) ? uint32_t(DG_BOOL) : x.dtype, name, tests(code) ? "the result of a test" : "the output");
    if (!tests(code)) {
      require_numbers(x, name);
      if (is_float_dtype(x.dtype) ? !takes_floats(code) : !takes_integers(code))
        fail(DG_DTYPE, "%s: this function does not take %s", name, dtype_name(x.dtype));
    }
    unary(out, x, code);
  });
}
