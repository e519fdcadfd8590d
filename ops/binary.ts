/**
 * Binary functions and comparisons, element by element, with broadcasting and PyTorch's dtype promotion.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { DTypeError } from "../ffi/errors.ts";
import { BinaryOp, CompareOp } from "../ffi/op_codes.ts";
import { type DType, getDefaultDType, isFloat, resultType } from "../tensor/dtype.ts";
import { broadcastShapes, contiguousStrides, expandedStrides, sameShape, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { to } from "./copy.ts";
import { checkTensor, emptyLike, emptyTensor, native } from "./native.ts";
import { log, neg } from "./unary.ts";

type Op = keyof typeof BinaryOp;
type Comparison = keyof typeof CompareOp;

/** A handle that shows `x` expanded to `shape`, for one native call. */
function expanded(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  return new Tensor(x.storage, shape, expandedStrides(x.shape, x.strides, shape), x.offset, x.dtype, false);
}

/** Memory order of a result: that of an operand that already has its shape, else row-major. */
function resultStrides(x: Tensor, y: Tensor, shape: Shape): Shape {
  if (x.isDense && sameShape(x.shape, shape)) return x.strides;
  if (y.isDense && sameShape(y.shape, shape)) return y.strides;
  return contiguousStrides(shape);
}

/** Runs a binary kernel on operands of one dtype. */
export function binaryKernel(x: Tensor, y: Tensor, op: Op, alpha = 1, out?: Tensor): Tensor {
  const shape = broadcastShapes(x.shape, y.shape, op);
  const result = out ?? emptyTensor(shape, x.dtype, x.device, resultStrides(x, y, shape));
  native(
    x.device,
    (lib, f) => lib.dg_binary(f.pointer, f.put(result), f.put(expanded(x, shape)), f.put(expanded(y, shape)), BinaryOp[op], alpha),
  );
  return result;
}

/** Runs a binary kernel on a tensor and a number. */
export function scalarKernel(x: Tensor, value: number, op: Op, reversed = false, out: Tensor = emptyLike(x)): Tensor {
  native(x.device, (lib, f) => lib.dg_binary_scalar(f.pointer, f.put(out), f.put(x), value, BinaryOp[op], reversed ? 1 : 0));
  return out;
}

/** Checks the operands and converts them to their common dtype, or to `dtype`. */
function operands(x: Tensor, y: Tensor, op: string, dtype?: DType): [Tensor, Tensor] {
  checkTensor(x, op, "the first operand");
  checkTensor(y, op, "the second operand", x);
  const common = dtype ?? resultType(x, y);
  return [x.dtype === common ? x : to(x, common), y.dtype === common ? y : to(y, common)];
}

function checkNumber(value: unknown, op: string): asserts value is number {
  if (typeof value !== "number") {
    throw new TypeError(`${op}: the second operand must be a tensor or a number, got ${value === null ? "null" : typeof value}`);
  }
}

function withNumber(x: Tensor, value: unknown, op: string): asserts value is number {
  checkTensor(x, op, "the first operand");
  checkNumber(value, op);
}

function promoted(x: Tensor, value: number): Tensor {
  const dtype = resultType(x, value);
  return dtype === x.dtype ? x : to(x, dtype);
}

/** The dtype of a true division: the common one if it is floating-point, else the default. */
function quotientType(x: Tensor, y: Tensor | number): DType {
  const dtype = resultType(x, y);
  return isFloat(dtype) ? dtype : getDefaultDType();
}

/** `x + alpha * y`. */
export function add(x: Tensor, y: Tensor | number, options?: { alpha?: number }): Tensor {
  const alpha = options?.alpha ?? 1;
  if (!(y instanceof Tensor)) {
    withNumber(x, y, "add");
    const input = promoted(x, y * alpha);
    return record("add", [input], scalarKernel(input, y * alpha, "add"), [], (grad) => [grad]);
  }
  const [a, b] = operands(x, y, "add");
  return record("add", [a, b], binaryKernel(a, b, "add", alpha), [], (grad) => [grad, alpha === 1 ? grad : mul(grad, alpha)]);
}

/** `x - alpha * y`. @throws {DTypeError} For two bool tensors. */
export function sub(x: Tensor, y: Tensor | number, options?: { alpha?: number }): Tensor {
  const alpha = options?.alpha ?? 1;
  if (!(y instanceof Tensor)) {
    withNumber(x, y, "sub");
    return add(x, -y * alpha);
  }
  const [a, b] = operands(x, y, "sub");
  if (a.dtype === "bool") throw new DTypeError("sub: bool tensors have no difference, use logicalXor() or bitwiseXor()");
  return record("sub", [a, b], binaryKernel(a, b, "sub", alpha), [], (grad) => [grad, alpha === 1 ? neg(grad) : mul(grad, -alpha)]);
}

/** `value - x`. */
export function rsub(x: Tensor, value: number): Tensor {
  withNumber(x, value, "rsub");
  const input = promoted(x, value);
  return record("rsub", [input], scalarKernel(input, value, "sub", true), [], (grad) => [neg(grad)]);
}

/** Product. */
export function mul(x: Tensor, y: Tensor | number): Tensor {
  if (!(y instanceof Tensor)) {
    withNumber(x, y, "mul");
    const input = promoted(x, y);
    return record("mul", [input], scalarKernel(input, y, "mul"), [], (grad) => [mul(grad, y)]);
  }
  const [a, b] = operands(x, y, "mul");
  return record("mul", [a, b], binaryKernel(a, b, "mul"), [a, b], (grad, [p, q], [forA, forB]) => [
    forA ? mul(grad, q) : null,
    forB ? mul(grad, p) : null,
  ]);
}

/**
 * Quotient. Without rounding, integers give a floating-point result.
 *
 * @param options.rounding `"trunc"` rounds towards 0, `"floor"` down; both keep integer dtypes and have derivative 0. Default: none.
 * @throws {RangeError} For a rounded division of integers by 0.
 */
export function div(x: Tensor, y: Tensor | number, options?: { rounding?: "trunc" | "floor" | null }): Tensor {
  const rounding = options?.rounding ?? null;
  if (rounding === "floor") return floorDivide(x, y);
  if (rounding === "trunc") return truncDivide(x, y);
  if (!(y instanceof Tensor)) {
    withNumber(x, y, "div");
    const input = to(x, quotientType(x, y));
    return record("div", [input], scalarKernel(input, y, "div"), [], (grad) => [div(grad, y)]);
  }
  checkTensor(x, "div", "the first operand");
  const [a, b] = operands(x, y, "div", quotientType(x, y));
  const quotient = binaryKernel(a, b, "div");
  return record("div", [a, b], quotient, [b, quotient], (grad, [q, value], [forA, forB]) => {
    const first = div(grad, q);
    return [forA ? first : null, forB ? neg(mul(first, value)) : null];
  });
}

/** `value / x`. */
export function rdiv(x: Tensor, value: number): Tensor {
  withNumber(x, value, "rdiv");
  const input = to(x, quotientType(x, value));
  const y = scalarKernel(input, value, "div", true);
  return record("rdiv", [input], y, [input, y], (grad, [p, q]) => [neg(mul(grad, div(q, p)))]);
}

function stepFunction(op: Op, name: string) {
  return (x: Tensor, y: Tensor | number): Tensor => {
    if (!(y instanceof Tensor)) {
      withNumber(x, y, name);
      const input = promoted(x, y);
      return record(name, [input], scalarKernel(input, y, op), [], (grad) => [mul(grad, 0)]);
    }
    const [a, b] = operands(x, y, name);
    return record(name, [a, b], binaryKernel(a, b, op), [], (grad) => [mul(grad, 0), mul(grad, 0)]);
  };
}

/** A function of two tensors, or a tensor and a number. */
export type Binary = (x: Tensor, y: Tensor | number) => Tensor;

/** Quotient rounded down; derivative 0. @throws {RangeError} For an integer 0 divisor. */
export const floorDivide: Binary = stepFunction("floor_divide", "floorDivide");

function truncDivide(x: Tensor, y: Tensor | number): Tensor {
  checkTensor(x, "div", "the first operand");
  const dtype = resultType(x, y);
  if (isFloat(dtype)) return div(x, y).trunc();
  return stepFunction("div", "div")(x, y);
}

function remainderFunction(op: "remainder" | "fmod", rounding: "floor" | "trunc") {
  return (x: Tensor, y: Tensor | number): Tensor => {
    if (!(y instanceof Tensor)) {
      withNumber(x, y, op);
      const input = promoted(x, y);
      return record(op, [input], scalarKernel(input, y, op), [], (grad) => [grad]);
    }
    const [a, b] = operands(x, y, op);
    return record(op, [a, b], binaryKernel(a, b, op), [a, b], (grad, [p, q], [, forB]) => [
      grad,
      forB ? neg(mul(grad, div(p, q, { rounding }))) : null,
    ]);
  };
}

/** Remainder with the divisor's sign: `x - floor(x / y) * y`. */
export const remainder: Binary = remainderFunction("remainder", "floor");
/** Remainder with the dividend's sign: `x - trunc(x / y) * y`. */
export const fmod: Binary = remainderFunction("fmod", "trunc");

/** Angle of the point (`x`, `y`) in radians, `-pi` to `pi`: `atan2(y, x)` as in C. */
export function atan2(y: Tensor, x: Tensor): Tensor {
  checkTensor(y, "atan2", "the first operand");
  checkTensor(x, "atan2", "the second operand", y);
  const [a, b] = operands(y, x, "atan2", quotientType(y, x));
  return record("atan2", [a, b], binaryKernel(a, b, "atan2"), [a, b], (grad, [p, q]) => {
    const scaled = div(grad, add(mul(p, p), mul(q, q)));
    return [mul(scaled, q), neg(mul(scaled, p))];
  });
}

/**
 * Power.
 *
 * Derivatives: `n * x^(n-1)`, 0 where `n` is 0; for a tensor exponent `x^n * log(x)`, 0 where `x` is 0 and `n >= 0`.
 */
export function pow(x: Tensor, exponent: Tensor | number): Tensor {
  if (!(exponent instanceof Tensor)) {
    withNumber(x, exponent, "pow");
    const input = promoted(x, exponent);
    return record("pow", [input], scalarKernel(input, exponent, "pow"), [input], (grad, [p]) => [
      exponent === 0 ? mul(grad, 0) : mul(grad, mul(pow(p, exponent - 1), exponent)),
    ]);
  }
  const [a, b] = operands(x, exponent, "pow");
  const y = binaryKernel(a, b, "pow");
  return record("pow", [a, b], y, [a, b, y], (grad, [p, n, value], [forA, forB]) => [
    forA ? where(eq(n, 0), 0, mul(grad, mul(n, pow(p, sub(n, 1))))) : null,
    forB ? where(logicalAnd(eq(p, 0), ge(n, 0)), 0, mul(grad, mul(value, log(p)))) : null,
  ]);
}

function extremum(op: "maximum" | "minimum", beaten: (x: Tensor, y: Tensor) => Tensor) {
  return (x: Tensor, y: Tensor): Tensor => {
    const [a, b] = operands(x, y, op);
    return record(op, [a, b], binaryKernel(a, b, op), [a, b], (grad, [p, q]) => {
      const halved = where(eq(p, q), mul(grad, 0.5), grad); // a tie shares the gradient
      return [where(beaten(p, q), 0, halved), where(beaten(q, p), 0, halved)];
    });
  };
}

/** The larger of two, NaN where either is; at a tie each receives half of the gradient. */
export const maximum: (x: Tensor, y: Tensor) => Tensor = extremum("maximum", (x, y) => lt(x, y));
/** The smaller of two, NaN where either is; at a tie each receives half of the gradient. */
export const minimum: (x: Tensor, y: Tensor) => Tensor = extremum("minimum", (x, y) => gt(x, y));

/** `max(x, bound)`; at the bound the derivative is 0. */
export function maximumScalar(x: Tensor, bound: number): Tensor {
  const input = promoted(x, bound);
  return record("clamp", [input], scalarKernel(input, bound, "maximum"), [input], (grad, [p]) => [where(gt(p, bound), grad, 0)]);
}

/** `min(x, bound)`; at the bound the derivative is 0. */
export function minimumScalar(x: Tensor, bound: number): Tensor {
  const input = promoted(x, bound);
  return record("clamp", [input], scalarKernel(input, bound, "minimum"), [input], (grad, [p]) => [where(lt(p, bound), grad, 0)]);
}

function bitwise(op: Op, name: string) {
  return (x: Tensor, y: Tensor | number): Tensor => {
    if (!(y instanceof Tensor)) {
      withNumber(x, y, name);
      if (x.isFloat) throw new DTypeError(`${name}: takes an integer or bool tensor, got ${x.dtype}`);
      return scalarKernel(promoted(x, y), y, op);
    }
    const [a, b] = operands(x, y, name);
    if (a.isFloat) throw new DTypeError(`${name}: takes integer or bool tensors, got ${x.dtype} and ${y.dtype}`);
    return binaryKernel(a, b, op);
  };
}

/** Bits set in both. @throws {DTypeError} For floating-point dtypes. */
export const bitwiseAnd: Binary = bitwise("bitwise_and", "bitwiseAnd");
/** Bits set in either. @throws {DTypeError} For floating-point dtypes. */
export const bitwiseOr: Binary = bitwise("bitwise_or", "bitwiseOr");
/** Bits set in one of the two. @throws {DTypeError} For floating-point dtypes. */
export const bitwiseXor: Binary = bitwise("bitwise_xor", "bitwiseXor");
/** Bits moved up by `y` places. @throws {DTypeError} For floating-point dtypes. */
export const bitwiseLeftShift: Binary = bitwise("left_shift", "bitwiseLeftShift");
/** Bits moved down by `y` places, the sign kept. @throws {DTypeError} For floating-point dtypes. */
export const bitwiseRightShift: Binary = bitwise("right_shift", "bitwiseRightShift");

function comparison(op: Comparison, name: string) {
  return (x: Tensor, y: Tensor | number): Tensor => {
    if (!(y instanceof Tensor)) {
      withNumber(x, y, name);
      const out = emptyLike(x, "bool");
      native(x.device, (lib, f) => lib.dg_compare_scalar(f.pointer, f.put(out), f.put(x), y, CompareOp[op]));
      return out;
    }
    const [a, b] = operands(x, y, name);
    const shape = broadcastShapes(a.shape, b.shape, name);
    const out = emptyTensor(shape, "bool", a.device, resultStrides(a, b, shape));
    native(
      a.device,
      (lib, f) => lib.dg_compare(f.pointer, f.put(out), f.put(expanded(a, shape)), f.put(expanded(b, shape)), CompareOp[op]),
    );
    return out;
  };
}

/** True where equal. */
export const eq: Binary = comparison("eq", "eq");
/** True where not equal. */
export const ne: Binary = comparison("ne", "ne");
/** True where less. */
export const lt: Binary = comparison("lt", "lt");
/** True where less or equal. */
export const le: Binary = comparison("le", "le");
/** True where greater. */
export const gt: Binary = comparison("gt", "gt");
/** True where greater or equal. */
export const ge: Binary = comparison("ge", "ge");
/** True where both are not 0. */
export const logicalAnd: Binary = comparison("logical_and", "logicalAnd");
/** True where either is not 0. */
export const logicalOr: Binary = comparison("logical_or", "logicalOr");
/** True where one of the two is not 0. */
export const logicalXor: Binary = comparison("logical_xor", "logicalXor");

/**
 * `x` where `condition`, else `y`; all three broadcast.
 *
 * @param condition A bool tensor.
 * @throws {DTypeError} If the condition is not bool.
 *
 * @example
 * ```ts
 * import { tensor, where } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([-1, 2]);
 * assertEquals(where(x.gt(0), x, 0).tolist(), [0, 2]);
 * ```
 */
export function where(condition: Tensor, x: Tensor | number, y: Tensor | number): Tensor {
  checkTensor(condition, "where", "the condition");
  if (condition.dtype !== "bool") throw new DTypeError(`where: the condition must be bool, got ${condition.dtype}: compare it first`);
  const sample = x instanceof Tensor ? x : y instanceof Tensor ? y : null;
  const choose = (value: Tensor | number, what: string): Tensor => {
    if (value instanceof Tensor) {
      checkTensor(value, "where", what, condition);
      return value;
    }
    checkNumber(value, "where");
    const dtype = sample === null ? getDefaultDType() : resultType(sample, value);
    const out = emptyTensor([], dtype, condition.device);
    native(condition.device, (lib, f) => lib.dg_fill(f.pointer, f.put(out), value));
    return out;
  };
  const chosen = choose(x, "the first choice"), other = choose(y, "the second choice");
  const [a, b] = operands(chosen, other, "where");
  const shape = broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape, "where"), "where");
  const out = emptyTensor(shape, a.dtype, a.device, resultStrides(a, b, shape));
  native(
    a.device,
    (lib, f) =>
      lib.dg_where(f.pointer, f.put(out), f.put(expanded(condition, shape)), f.put(expanded(a, shape)), f.put(expanded(b, shape))),
  );
  const result = record("where", [a, b], out, [condition], (grad, [mask], [forA, forB]) => [
    forA ? where(mask, grad, 0) : null,
    forB ? where(mask, 0, grad) : null,
  ]);
  if (!(x instanceof Tensor)) chosen.dispose();
  if (!(y instanceof Tensor)) other.dispose();
  return result;
}

/** `x + weight * (y - x)`. */
export function lerp(x: Tensor, y: Tensor, weight: Tensor | number): Tensor {
  return add(x, mul(sub(y, x), weight));
}
