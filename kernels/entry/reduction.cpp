// Sums, products, extrema, norms, tests and variances over any set of axes.
#include "../common/reduction.h"

#include "optional.h"

using namespace dg;

int32_t dg_reduce(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t axes, uint32_t op) {
  return guard([&] {
    const char* const name = "reduce";
    if (op >= unsigned(ReduceOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const ReduceOp code = ReduceOp(op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Plan plan(out, x, axes, name);
    if (takes_floats_alone(code) && !is_float_dtype(x.dtype))
      fail(DG_DTYPE, "%s: operation %u takes a floating point dtype, got %s", name, op, dtype_name(x.dtype));
    dispatch_accumulator(tells_truths(code) ? uint32_t(DG_I64) : x.dtype,
                         [&](auto kind) { require_stored_as<typename decltype(kind)::type>(out, name); });
    if (plan.outputs == 0) return;
    if (plan.count == 0 && needs_elements(code)) fail(DG_SHAPE, "%s: no largest or smallest of no elements", name);
    reduce(out, x, plan, code);
  });
}

int32_t dg_var(const dg_tensor* t, uint32_t var_slot, uint32_t mean_slot, uint32_t x_slot, uint32_t axes, double correction,
               uint32_t root) {
  return guard([&] {
    const char* const name = "var";
    const Tensor var = tensor_at(t, var_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Optional mean(t, mean_slot, name, Access::write);
    if (mean) {
      require_same_sizes(*mean, var, name);
      if (!same_strides(*mean, var)) fail(DG_SHAPE, "%s: the strides of mean and variance differ", name);
    }
    const Plan plan(var, x, axes, name);
    require_float(x, name);
    dispatch_accumulator(x.dtype, [&](auto kind) {
      using A = typename decltype(kind)::type;
      require_stored_as<A>(var, name);
      if (mean) require_stored_as<A>(*mean, name);
    });
    if (plan.outputs == 0) return;
    variance(var, mean, x, plan, std::max(0.0, double(plan.count) - correction), root != 0);
  });
}
