// Which operations of reduce() take and give what.
#pragma once
#include "op_codes.h"
#include "plan.h"

namespace dg {

// The elements count as true or false, and the result is a whole number.
constexpr bool tells_truths(ReduceOp op) { return op == ReduceOp::any || op == ReduceOp::all || op == ReduceOp::count_nonzero; }
constexpr bool takes_floats_alone(ReduceOp op) { return op == ReduceOp::mean || op >= ReduceOp::norm1; }
// Without a value for no elements.
constexpr bool needs_elements(ReduceOp op) { return op == ReduceOp::amax || op == ReduceOp::amin; }

// Provided by each library (reduction.cpp, reduction.cu); checked by entry/reduction.cpp. `mean` may be null; it has the strides of `var`.
void reduce(const Tensor& out, const Tensor& x, const Plan& plan, ReduceOp op);
void variance(const Tensor& var, const Tensor* mean, const Tensor& x, const Plan& plan, double divisor, bool root);

}  // namespace dg
