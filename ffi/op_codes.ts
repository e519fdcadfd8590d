/**
 * Operation codes of the elementwise families, in the order of `kernels/common/op_codes.h` (a test compares them).
 *
 * @module
 */

function codes<const N extends readonly string[]>(names: N): { readonly [K in N[number]]: number } {
  return Object.fromEntries(names.map((name, code) => [name, code])) as { readonly [K in N[number]]: number };
}

/** Codes of `dg_unary`. */
// deno-fmt-ignore
export const UnaryOp = codes([
  "neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos",
  "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "ceil", "floor", "round", "trunc",
  "bitwise_not", "isnan", "isinf", "isfinite", "logical_not",
]);

/** Codes of `dg_activation` and `dg_activation_backward`. */
// deno-fmt-ignore
export const ActivationOp = codes([
  "relu", "leaky_relu", "elu", "selu", "celu", "gelu", "gelu_tanh", "silu", "mish", "sigmoid", "log_sigmoid", "softplus", "softsign",
  "hardtanh", "hardsigmoid", "hardswish", "tanhshrink", "softshrink", "hardshrink", "threshold",
]);

/** Codes of `dg_binary` and `dg_binary_scalar`. */
// deno-fmt-ignore
export const BinaryOp = codes([
  "add", "sub", "mul", "div", "pow", "atan2", "fmod", "remainder", "floor_divide", "maximum", "minimum", "tanh_backward",
  "sigmoid_backward", "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift",
]);

/** Codes of `dg_compare` and `dg_compare_scalar`. */
export const CompareOp = codes(["eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor"]);

/** Codes of `dg_scatter`; the first two are those of `dg_index_put`. */
export const ScatterOp = codes(["assign", "sum", "prod", "amax", "amin"]);

/** Codes of `dg_reduce`. */
// deno-fmt-ignore
export const ReduceOp = codes([
  "sum", "mean", "prod", "amax", "amin", "any", "all", "count_nonzero", "norm1", "norm2", "nansum",
]);

/** Codes of `dg_scan`. */
export const ScanOp = codes(["cumsum", "cumprod"]);

/** Codes of `dg_random`. */
export const RandomOp = codes(["uniform", "normal", "integers", "bernoulli", "exponential", "truncated_normal", "bits", "permutation"]);

/** Codes of `dg_loss` and `dg_loss_backward`. */
export const LossOp = codes(["mse", "l1", "smooth_l1", "huber", "bce_with_logits", "bce"]);
/** Codes of `dg_interpolate`. */
export const InterpolateMode = codes(["nearest", "nearest_exact", "linear", "cubic", "linear_antialias", "cubic_antialias"]);

/** Codes of `dg_pad`. */
export const PadMode = codes(["reflect", "replicate", "circular"]);
