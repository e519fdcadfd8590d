// Operation codes of the elementwise families; ffi/op_codes.ts holds the same lists and a test compares them.
#pragma once

namespace dg {

enum class UnaryOp : unsigned {
  neg, abs, sign, square, sqrt, rsqrt, reciprocal, exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, asin, acos, atan,
  sinh, cosh, tanh, asinh, acosh, atanh, erf, erfc, ceil, floor, round, trunc, bitwise_not, isnan, isinf, isfinite, logical_not,
  count
};

enum class ActivationOp : unsigned {
  relu, leaky_relu, elu, selu, celu, gelu, gelu_tanh, silu, mish, sigmoid, log_sigmoid, softplus, softsign, hardtanh, hardsigmoid, hardswish,
  tanhshrink, softshrink, hardshrink, threshold,
  count
};

enum class BinaryOp : unsigned {
  add, sub, mul, div, pow, atan2, fmod, remainder, floor_divide, maximum, minimum, tanh_backward, sigmoid_backward, bitwise_and,
  bitwise_or, bitwise_xor, left_shift, right_shift,
  count
};

enum class CompareOp : unsigned { eq, ne, lt, le, gt, ge, logical_and, logical_or, logical_xor, count };

enum class ReduceOp : unsigned { sum, mean, prod, amax, amin, any, all, count_nonzero, norm1, norm2, nansum, count };

enum class ScanOp : unsigned { cumsum, cumprod, count };

enum class ScatterOp : unsigned { assign, sum, prod, amax, amin, count };

enum class RandomOp : unsigned { uniform, normal, integers, bernoulli, exponential, truncated_normal, bits, permutation, count };

enum class LossOp : unsigned { mse, l1, smooth_l1, huber, bce_with_logits, bce, count };

enum class InterpolateMode : unsigned { nearest, nearest_exact, linear, cubic, linear_antialias, cubic_antialias, count };

enum class PadMode : unsigned { reflect, replicate, circular, count };

}  // namespace dg
