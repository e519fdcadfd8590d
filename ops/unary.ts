/**
 * Unary functions, element by element.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { UnaryOp } from "../ffi/op_codes.ts";
import { context } from "../tensor/context.ts";
import { getDefaultDType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { add, binaryKernel, mul } from "./binary.ts";
import { fullLike } from "./creation.ts";
import { to } from "./copy.ts";
import { maximumScalar, minimumScalar } from "./binary.ts";
import { checkDType, checkTensor, emptyLike, native, overGradient } from "./native.ts";

type Name = keyof typeof UnaryOp;

/** Runs a unary kernel into a new tensor, or into `out`. */
export function unaryKernel(x: Tensor, op: Name, out: Tensor = emptyLike(x)): Tensor {
  native(x.device, (lib, f) => lib.dg_unary(f.pointer, f.put(out), f.put(x), UnaryOp[op]));
  return out;
}

/** A function to floating-point numbers; integers and bool are converted first. The rule gets the gradient, the input and the output. */
function floating(op: Name, rule: (grad: Tensor, x: Tensor, y: Tensor) => Tensor, needs: "x" | "y" | "none") {
  return (x: Tensor): Tensor => {
    checkTensor(x, op, "the input");
    const input = x.isFloat ? x : to(x, getDefaultDType());
    const y = unaryKernel(input, op);
    const saved = needs === "x" ? [input] : needs === "y" ? [y] : [];
    return record(op, [input], y, saved, (grad, [kept]) => [rule(grad, kept, kept)]);
  };
}

/** A function that keeps the dtype; whole numbers have no fraction to round. The derivative is `slope`, or 0. */
function keeping(op: Name, rule: ((grad: Tensor, x: Tensor) => Tensor) | null) {
  return (x: Tensor): Tensor => {
    checkTensor(x, op, "the input");
    const input = x.dtype === "bool" ? to(x, "int64") : x;
    const y = unaryKernel(input, op);
    if (rule === null) return record(op, [input], y, [], (grad) => [fullLike(grad, 0)]);
    return record(op, [input], y, [input], (grad, [kept]) => [rule(grad, kept)]);
  };
}

function test(op: Name) {
  return (x: Tensor): Tensor => {
    checkTensor(x, op, "the input");
    return unaryKernel(x, op, emptyLike(x, "bool"));
  };
}

const LN2 = Math.LN2, LN10 = Math.LN10;

/** A unary function. */
export type Unary = (x: Tensor) => Tensor;

/** `-x`. */
export const neg: Unary = keeping("neg", (grad) => neg(grad));
/** `|x|`; the derivative at 0 is 0. */
export const abs: Unary = keeping("abs", (grad, x) => mul(grad, sign(x)));
/** -1, 0 or 1 (0 for NaN, as in PyTorch); the derivative is 0. */
export const sign: Unary = keeping("sign", null);
/** `x * x`. */
export const square: Unary = keeping("square", (grad, x) => mul(grad, mul(x, 2)));
/** Square root. */
export const sqrt: Unary = floating("sqrt", (grad, _, y) => grad.div(mul(y, 2)), "y");
/** `1 / sqrt(x)`. */
export const rsqrt: Unary = floating("rsqrt", (grad, _, y) => mul(grad, mul(y.mul(y).mul(y), -0.5)), "y");
/** `1 / x`. */
export const reciprocal: Unary = floating("reciprocal", (grad, _, y) => mul(grad, neg(mul(y, y))), "y");
/** `e^x`. */
export const exp: Unary = floating("exp", (grad, _, y) => mul(grad, y), "y");
/** `2^x`. */
export const exp2: Unary = floating("exp2", (grad, _, y) => mul(grad, mul(y, LN2)), "y");
/** `e^x - 1`, exact near 0. */
export const expm1: Unary = floating("expm1", (grad, _, y) => mul(grad, add(y, 1)), "y");
/** Natural logarithm. */
export const log: Unary = floating("log", (grad, x) => grad.div(x), "x");
/** Logarithm to base 2. */
export const log2: Unary = floating("log2", (grad, x) => grad.div(mul(x, LN2)), "x");
/** Logarithm to base 10. */
export const log10: Unary = floating("log10", (grad, x) => grad.div(mul(x, LN10)), "x");
/** `log(1 + x)`, exact near 0. */
export const log1p: Unary = floating("log1p", (grad, x) => grad.div(add(x, 1)), "x");
/** Sine. */
export const sin: Unary = floating("sin", (grad, x) => mul(grad, cos(x)), "x");
/** Cosine. */
export const cos: Unary = floating("cos", (grad, x) => mul(grad, neg(sin(x))), "x");
/** Tangent. */
export const tan: Unary = floating("tan", (grad, _, y) => mul(grad, add(mul(y, y), 1)), "y");
/** Inverse sine. */
export const asin: Unary = floating("asin", (grad, x) => mul(grad, rsqrt(neg(mul(x, x)).add(1))), "x");
/** Inverse cosine. */
export const acos: Unary = floating("acos", (grad, x) => mul(grad, neg(rsqrt(neg(mul(x, x)).add(1)))), "x");
/** Inverse tangent. */
export const atan: Unary = floating("atan", (grad, x) => grad.div(add(mul(x, x), 1)), "x");
/** Hyperbolic sine. */
export const sinh: Unary = floating("sinh", (grad, x) => mul(grad, cosh(x)), "x");
/** Hyperbolic cosine. */
export const cosh: Unary = floating("cosh", (grad, x) => mul(grad, sinh(x)), "x");
/** Hyperbolic tangent. */
export const tanh: Unary = floating(
  "tanh",
  (grad, _, y) => context().grad ? mul(grad, neg(mul(y, y)).add(1)) : binaryKernel(grad, y, "tanh_backward", 1, overGradient(grad, y)),
  "y",
);
/** Inverse hyperbolic sine. */
export const asinh: Unary = floating("asinh", (grad, x) => mul(grad, rsqrt(mul(x, x).add(1))), "x");
/** Inverse hyperbolic cosine. */
export const acosh: Unary = floating("acosh", (grad, x) => mul(grad, rsqrt(mul(x, x).add(-1))), "x");
/** Inverse hyperbolic tangent. */
export const atanh: Unary = floating("atanh", (grad, x) => grad.div(neg(mul(x, x)).add(1)), "x");
/** Error function `2 / sqrt(pi) * integral of e^(-t^2) from 0 to x`. */
export const erf: Unary = floating("erf", (grad, x) => mul(grad, exp(neg(mul(x, x))).mul(2 / Math.sqrt(Math.PI))), "x");
/** `1 - erf(x)`. */
export const erfc: Unary = floating("erfc", (grad, x) => mul(grad, exp(neg(mul(x, x))).mul(-2 / Math.sqrt(Math.PI))), "x");
/** Rounded up; the derivative is 0. */
export const ceil: Unary = keeping("ceil", null);
/** Rounded down; the derivative is 0. */
export const floor: Unary = keeping("floor", null);
/** Rounded to nearest, halves to even; the derivative is 0. */
export const round: Unary = keeping("round", null);
/** Rounded towards 0; the derivative is 0. */
export const trunc: Unary = keeping("trunc", null);
/** True where NaN. */
export const isnan: Unary = test("isnan");
/** True where infinite. */
export const isinf: Unary = test("isinf");
/** True where neither NaN nor infinite. */
export const isfinite: Unary = test("isfinite");
/** True where 0. */
export const logicalNot: Unary = test("logical_not");

/** `x - trunc(x)`. */
export function frac(x: Tensor): Tensor {
  return x.sub(trunc(x));
}

/** Bits of integers inverted; `not` of bool. @throws {DTypeError} For floating-point dtypes. */
export function bitwiseNot(x: Tensor): Tensor {
  checkTensor(x, "bitwiseNot", "the input");
  if (x.dtype === "bool") return logicalNot(x);
  checkDType(x, ["int32", "int64", "uint8", "bool"], "bitwiseNot", "the input");
  return unaryKernel(x, "bitwise_not");
}

/**
 * Elements limited to `[min, max]`; NaN stays NaN. Where `min > max` the result is `max`.
 *
 * @param min Lower bound, or `null` for none.
 * @param max Upper bound, or `null` for none. Default `null`.
 * @throws {RangeError} If both bounds are absent.
 *
 * Derivative: 1 inside, 0 outside and at the bounds (as PyTorch 2.15).
 */
export function clamp(x: Tensor, min: number | null, max: number | null = null): Tensor {
  checkTensor(x, "clamp", "the input");
  if (min === null && max === null) throw new RangeError("clamp: at least one of min and max must be given");
  if (Number.isNaN(min) || Number.isNaN(max)) throw new RangeError(`clamp: a bound is NaN: min ${min}, max ${max}`);
  const lower = min === null ? x : maximumScalar(x, min);
  const y = max === null ? lower : minimumScalar(lower, max);
  return y;
}
