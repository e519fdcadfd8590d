/**
 * Reductions over axes.
 *
 * Sums are taken over fixed blocks combined in a binary tree: they do not depend on the number of threads, and their error grows with
 * the logarithm of their length. Half types accumulate in float32, integers in int64.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { ReduceOp } from "../ffi/op_codes.ts";
import type { DType } from "../tensor/dtype.ts";
import { axesOf, axisOf, numelOf, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { div, eq, mul, pow, sub, where } from "./binary.ts";
import { to } from "./copy.ts";
import { fullLike, zeros } from "./creation.ts";
import { scatter } from "./indexing.ts";
import { checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { abs, sign } from "./unary.ts";
import { expand, reshape } from "./view.ts";

/** Axes to reduce: one, several, or all (`null`, the default). */
export type Dims = number | readonly number[] | null;

/** Options of a reduction. */
export interface ReductionOptions {
  /** Keep the reduced axes with size 1. Default `false`. */
  keepdim?: boolean;
}

/** Largest or smallest elements along an axis and where they are. */
export interface ValuesAndIndices {
  /** The elements, dtype of the input. */
  values: Tensor;
  /** Their positions along the axis, int64. */
  indices: Tensor;
}

function maskOf(axes: readonly number[]): number {
  return axes.reduce((bits, axis) => bits | 1 << axis, 0);
}

function reduceKernel(x: Tensor, axes: readonly number[], op: keyof typeof ReduceOp, dtype: DType): Tensor {
  const out = emptyTensor(keptShape(x, axes), dtype, x.device);
  native(x.device, (lib, f) => lib.dg_reduce(f.pointer, f.put(out), f.put(x), maskOf(axes), ReduceOp[op]));
  return out;
}

/** Without the reduced axes, unless they are kept with size 1. */
function finish(kept: Tensor, axes: readonly number[], keepdim: boolean): Tensor {
  if (keepdim || axes.length === 0) return kept;
  const y = reshape(kept, kept.shape.filter((_, i) => !axes.includes(i)));
  kept.dispose();
  return y;
}

/** Shape of a reduction that keeps its axes. */
function keptShape(x: Tensor, axes: readonly number[]): number[] {
  return x.shape.map((size, i) => axes.includes(i) ? 1 : size);
}

function countOf(x: Tensor, axes: readonly number[]): number {
  return numelOf(axes.map((axis) => x.shape[axis]));
}

/** Refuses to look for the extremum of nothing. */
function checkSome(x: Tensor, axes: readonly number[], op: string): void {
  if (countOf(x, axes) === 0 && (axes.length === x.rank || numelOf(keptShape(x, axes)) > 0)) {
    throw new ShapeError(`${op}: no elements to choose from in ${textOf(x.shape)} along dim ${axes.join(", ")}`);
  }
}

/** Releases a temporary that a conversion made; what the graph saved of it stays. */
function drop(temporary: Tensor, unless: Tensor): void {
  if (temporary !== unless && temporary.storage !== unless.storage) temporary.dispose();
}

/**
 * Sum. Integers and bool are added as int64; nothing adds up to 0.
 *
 * @param dim Axes to sum over. Default: all.
 * @param options.keepdim Keep them with size 1. Default `false`.
 * @param options.dtype Convert to it first. Default: int64 for integers and bool, else the dtype of `x`.
 *
 * @example
 * ```ts
 * import { sum, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[1, 2], [3, 4]]);
 * assertEquals(sum(x, 0).tolist(), [4, 6]);
 * assertEquals(sum(x).item(), 10);
 * ```
 */
export function sum(x: Tensor, dim: Dims = null, options?: ReductionOptions & { dtype?: DType }): Tensor {
  checkTensor(x, "sum", "the input");
  const axes = axesOf(dim, x.rank, "sum");
  const dtype = options?.dtype ?? (x.isFloat ? x.dtype : "int64");
  // The kernel adds any integers as int64 by itself.
  const input = !x.isFloat && dtype === "int64" ? x : to(x, dtype);
  const shape = input.shape, kept = keptShape(input, axes);
  const y = finish(reduceKernel(input, axes, "sum", dtype), axes, options?.keepdim ?? false);
  const result = record("sum", [input], y, [], (grad) => [expand(reshape(grad, kept), shape)]);
  drop(input, x);
  return result;
}

/**
 * Arithmetic mean; NaN for nothing.
 *
 * @param dim Axes to average over. Default: all.
 * @param options.keepdim Keep them with size 1. Default `false`.
 * @throws {DTypeError} For an integer or bool tensor, unless `options.dtype` is a floating-point one.
 *
 * @example
 * ```ts
 * import { mean, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(mean(tensor([[1, 2], [3, 6]]), 1).tolist(), [1.5, 4.5]);
 * ```
 */
export function mean(x: Tensor, dim: Dims = null, options?: ReductionOptions & { dtype?: DType }): Tensor {
  checkTensor(x, "mean", "the input");
  const axes = axesOf(dim, x.rank, "mean"), input = to(x, options?.dtype ?? x.dtype);
  checkFloat(input, "mean");
  const shape = input.shape, kept = keptShape(input, axes), count = countOf(input, axes);
  const y = finish(reduceKernel(input, axes, "mean", input.dtype), axes, options?.keepdim ?? false);
  const result = record("mean", [input], y, [], (grad) => [expand(reshape(div(grad, count), kept), shape)]);
  drop(input, x);
  return result;
}

/** Sum that takes NaN for 0; options as {@linkcode sum}. */
export function nansum(x: Tensor, dim: Dims = null, options?: ReductionOptions): Tensor {
  checkTensor(x, "nansum", "the input");
  if (!x.isFloat) return sum(x, dim, options);
  const axes = axesOf(dim, x.rank, "nansum"), kept = keptShape(x, axes), shape = x.shape;
  const y = finish(reduceKernel(x, axes, "nansum", x.dtype), axes, options?.keepdim ?? false);
  return record("nansum", [x], y, [x], (grad, [input]) => [where(eq(input, input), expand(reshape(grad, kept), shape), 0)]);
}

/**
 * Product. Integers and bool are multiplied as int64; nothing multiplies to 1.
 *
 * @param dim Axes to multiply over. Default: all.
 * @param options.keepdim Keep them with size 1. Default `false`.
 *
 * Derivative: the product of the other elements, also where elements are 0.
 *
 * @example
 * ```ts
 * import { prod, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([2, 0, 4], { requiresGrad: true });
 * prod(x).backward();
 * assertEquals(x.grad!.tolist(), [0, 8, 0]);
 * ```
 */
export function prod(x: Tensor, dim: Dims = null, options?: ReductionOptions): Tensor {
  checkTensor(x, "prod", "the input");
  const axes = axesOf(dim, x.rank, "prod"), kept = keptShape(x, axes);
  const y = finish(reduceKernel(x, axes, "prod", x.isFloat ? x.dtype : "int64"), axes, options?.keepdim ?? false);
  return record("prod", [x], y, [x], (grad, [input]) => {
    // Zeros are set to 1 and put back by case: none in the group, exactly this one, or another.
    const zero = eq(input, 0), count = sum(zero, axes, { keepdim: true });
    const others = where(zero, 1, input), product = prod(others, axes, { keepdim: true });
    const alone = where(eq(count, 1), product, 0), beside = div(where(eq(count, 0), product, 0), others);
    return [mul(reshape(grad, kept), where(zero, alone, beside))];
  });
}

function extremum(name: "amax" | "amin") {
  return (x: Tensor, dim: Dims = null, options?: ReductionOptions): Tensor => {
    checkTensor(x, name, "the input");
    const axes = axesOf(dim, x.rank, name);
    checkSome(x, axes, name);
    const kept = reduceKernel(x, axes, name, x.dtype), shape = kept.shape;
    const y = finish(kept, axes, options?.keepdim ?? false);
    return record(name, [x], y, [x, y], (grad, [input, value]) => {
      const ties = eq(input, reshape(value, shape)).to(grad.dtype);
      return [mul(ties, div(reshape(grad, shape), sum(ties, axes, { keepdim: true })))];
    });
  };
}

/** Reduces axes, all by default. */
export type Reduction = (x: Tensor, dim?: Dims, options?: ReductionOptions) => Tensor;

/** Largest element over axes, NaN if there is one; equal ones share the gradient. @throws {ShapeError} If there is none. */
export const amax: Reduction = extremum("amax");
/** Smallest element over axes, NaN if there is one; equal ones share the gradient. @throws {ShapeError} If there is none. */
export const amin: Reduction = extremum("amin");

function extremumKernel(x: Tensor, axis: number, smallest: boolean, withValues: boolean): { values: Tensor | null; indices: Tensor } {
  const shape = keptShape(x, [axis]);
  const values = withValues ? emptyTensor(shape, x.dtype, x.device) : null, indices = emptyTensor(shape, "int64", x.device);
  native(
    x.device,
    (lib, f) => lib.dg_extremum(f.pointer, f.put(values), f.put(indices), f.put(x), axis, smallest ? 1 : 0),
  );
  return { values, indices };
}

/** Zeros of `shape` with `grad` at the positions `indices` of an axis: what a choice along an axis gives its input. */
export function placeAt(grad: Tensor, indices: Tensor, axis: number, shape: Shape): Tensor {
  const empty = zeros(shape, { dtype: grad.dtype, device: grad.device });
  return scatter(empty, axis, indices, grad);
}

function alongAxis(x: Tensor, dim: number, keepdim: boolean, smallest: boolean): ValuesAndIndices {
  const name = smallest ? "min" : "max", axis = axisOf(dim, x.rank, name);
  if (x.rank === 0) {
    return { values: x.clone(), indices: fullLike(x, 0, { dtype: "int64" }) };
  }
  checkSome(x, [axis], name);
  const found = extremumKernel(x, axis, smallest, true), shape = x.shape, kept = found.indices.shape;
  const indices = finish(found.indices, [axis], keepdim), values = finish(found.values!, [axis], keepdim);
  record(name, [x], values, [indices], (grad, [at]) => [placeAt(reshape(grad, kept), reshape(at, kept), axis, shape)]);
  return { values, indices };
}

/** `max` and `min`: of the whole tensor, or along one axis with positions. */
export interface Extremum {
  /** The extreme element of the whole tensor; equal ones share the gradient. */
  (x: Tensor): Tensor;
  /** The extreme elements along `dim` and the position of the first one, which receives the gradient. */
  (x: Tensor, dim: number, options?: ReductionOptions): ValuesAndIndices;
}

/**
 * Largest element, or with `dim` the largest along an axis with its position (the first of equal ones). NaN counts as largest.
 *
 * @throws {ShapeError} If there are no elements.
 *
 * @example
 * ```ts
 * import { max, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[1, 5, 5], [7, 0, 2]]);
 * assertEquals(max(x).item(), 7);
 * const { values, indices } = max(x, 1);
 * assertEquals([values.tolist(), indices.tolist()], [[5, 7], [1, 0]]);
 * ```
 */
export const max: Extremum = ((x: Tensor, dim?: number, options?: ReductionOptions) => {
  checkTensor(x, "max", "the input");
  return dim === undefined ? amax(x) : alongAxis(x, dim, options?.keepdim ?? false, false);
}) as Extremum;

/**
 * Smallest element, or with `dim` the smallest along an axis with its position (the first of equal ones). NaN counts as smallest.
 *
 * @throws {ShapeError} If there are no elements.
 */
export const min: Extremum = ((x: Tensor, dim?: number, options?: ReductionOptions) => {
  checkTensor(x, "min", "the input");
  return dim === undefined ? amin(x) : alongAxis(x, dim, options?.keepdim ?? false, true);
}) as Extremum;

function position(name: "argmax" | "argmin", smallest: boolean) {
  return (x: Tensor, dim: number | null = null, options?: ReductionOptions): Tensor => {
    checkTensor(x, name, "the input");
    const keepdim = options?.keepdim ?? false;
    if (x.rank === 0) {
      if (dim !== null) axisOf(dim, 0, name);
      return fullLike(x, 0, { dtype: "int64" });
    }
    if (dim === null) {
      checkSome(x, axesOf(null, x.rank, name), name);
      const flat = reshape(x.detach(), [-1]);
      const { indices } = extremumKernel(flat, 0, smallest, false);
      flat.dispose();
      const y = reshape(indices, keepdim ? x.shape.map(() => 1) : []);
      indices.dispose();
      return y;
    }
    const axis = axisOf(dim, x.rank, name);
    checkSome(x, [axis], name);
    return finish(extremumKernel(x, axis, smallest, false).indices, [axis], keepdim);
  };
}

/** Position of an extreme element; `dim` null (the default) counts through the whole tensor in row-major order. */
export type Position = (x: Tensor, dim?: number | null, options?: ReductionOptions) => Tensor;

/** Position (int64) of the first largest element; a NaN counts as largest. @throws {ShapeError} If there are no elements. */
export const argmax: Position = position("argmax", false);
/** Position (int64) of the first smallest element; a NaN counts as smallest. @throws {ShapeError} If there are no elements. */
export const argmin: Position = position("argmin", true);

/** Options of variance and standard deviation. */
export interface VarianceOptions extends ReductionOptions {
  /** The divisor is the count minus this: 1 (the default) for the unbiased variance, 0 for the mean of squared deviations. */
  correction?: number;
}

function varianceKernel(x: Tensor, axes: readonly number[], correction: number, root: boolean, withMean: boolean): (Tensor | null)[] {
  const shape = keptShape(x, axes), out = emptyTensor(shape, x.dtype, x.device);
  const average = withMean ? emptyTensor(shape, x.dtype, x.device) : null;
  native(x.device, (lib, f) => lib.dg_var(f.pointer, f.put(out), f.put(average), f.put(x), maskOf(axes), correction, root ? 1 : 0));
  return [out, average];
}

function checkVariance(x: Tensor, dim: Dims, options: VarianceOptions | undefined, op: string): [number[], number, boolean] {
  checkTensor(x, op, "the input");
  checkFloat(x, op);
  const correction = options?.correction ?? 1;
  if (!Number.isFinite(correction)) throw new RangeError(`${op}: correction must be a finite number, got ${correction}`);
  return [axesOf(dim, x.rank, op), correction, options?.keepdim ?? false];
}

/** `2 (x - mean) / (count - correction)`: what the variance changes by. */
function varianceSlope(x: Tensor, axes: readonly number[], correction: number): Tensor {
  return mul(sub(x, mean(x, axes, { keepdim: true })), 2 / Math.max(0, countOf(x, axes) - correction));
}

/**
 * Variance `sum((x - mean)^2) / max(0, count - correction)`, in two passes.
 *
 * @param dim Axes over which. Default: all.
 * @param options.correction Default 1, the unbiased variance.
 * @param options.keepdim Keep the axes with size 1. Default `false`.
 * @throws {DTypeError} For a tensor that is not floating-point.
 *
 * @example
 * ```ts
 * import { tensor, variance } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(variance(tensor([1, 2, 3, 4, 5])).item(), 2.5);
 * assertEquals(variance(tensor([1, 2, 3, 4, 5]), null, { correction: 0 }).item(), 2);
 * ```
 */
export function variance(x: Tensor, dim: Dims = null, options?: VarianceOptions): Tensor {
  const [axes, correction, keepdim] = checkVariance(x, dim, options, "var");
  const kept = keptShape(x, axes), y = finish(varianceKernel(x, axes, correction, false, false)[0]!, axes, keepdim);
  return record("var", [x], y, [x], (grad, [input]) => [mul(reshape(grad, kept), varianceSlope(input, axes, correction))]);
}

/** Standard deviation, the square root of {@linkcode variance}; the derivative where it is 0 is 0. */
export function std(x: Tensor, dim: Dims = null, options?: VarianceOptions): Tensor {
  const [axes, correction, keepdim] = checkVariance(x, dim, options, "std");
  const kept = keptShape(x, axes), y = finish(varianceKernel(x, axes, correction, true, false)[0]!, axes, keepdim);
  return record("std", [x], y, [x, y], (grad, [input, deviation]) => {
    const scaled = where(eq(deviation, 0), 0, div(grad, mul(deviation, 2)));
    return [mul(reshape(scaled, kept), varianceSlope(input, axes, correction))];
  });
}

/** {@linkcode variance} and {@linkcode mean} in one go. */
export function varMean(x: Tensor, dim: Dims = null, options?: VarianceOptions): { var: Tensor; mean: Tensor } {
  const [axes, correction, keepdim] = checkVariance(x, dim, options, "varMean");
  const kept = keptShape(x, axes), shape = x.shape, count = countOf(x, axes);
  const [spread, average] = varianceKernel(x, axes, correction, false, true);
  const first = finish(spread!, axes, keepdim), second = finish(average!, axes, keepdim);
  record("varMean", [x], first, [x], (grad, [input]) => [mul(reshape(grad, kept), varianceSlope(input, axes, correction))]);
  record("varMean", [x], second, [], (grad) => [expand(reshape(div(grad, count), kept), shape)]);
  return { var: first, mean: second };
}

/**
 * Vector norm `(sum |x|^p)^(1/p)`: the largest magnitude for `Infinity`, the smallest for `-Infinity`, the number of elements that are not 0 for 0.
 *
 * @param p Order. Default 2.
 * @param dim Axes over which. Default: all.
 * @throws {DTypeError} For a tensor that is not floating-point.
 * @throws {RangeError} If `p` is NaN.
 *
 * Derivative of the 2-norm: `x / |x|`; 0 where the norm is 0.
 *
 * @example
 * ```ts
 * import { norm, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(norm(tensor([3, -4])).item(), 5);
 * assertEquals(norm(tensor([3, -4]), 1).item(), 7);
 * assertEquals(norm(tensor([3, -4]), Infinity).item(), 4);
 * ```
 */
export function norm(x: Tensor, p = 2, dim: Dims = null, options?: ReductionOptions): Tensor {
  checkTensor(x, "norm", "the input");
  checkFloat(x, "norm");
  if (typeof p !== "number" || Number.isNaN(p)) throw new RangeError(`norm: the order must be a number, got ${p}`);
  const axes = axesOf(dim, x.rank, "norm"), keepdim = options?.keepdim ?? false, kept = keptShape(x, axes);
  if (p === Infinity) return amax(abs(x), axes, options);
  if (p === -Infinity) return amin(abs(x), axes, options);
  if (p === 0) {
    const y = to(countNonzero(x, axes, options), x.dtype);
    return record("norm", [x], y, [x], (_, [input]) => [fullLike(input, 0)]);
  }
  if (p === 1) {
    const y = finish(reduceKernel(x, axes, "norm1", x.dtype), axes, keepdim);
    return record("norm", [x], y, [x], (grad, [input]) => [mul(reshape(grad, kept), sign(input))]);
  }
  if (p === 2) {
    const y = finish(reduceKernel(x, axes, "norm2", x.dtype), axes, keepdim);
    return record("norm", [x], y, [x, y], (grad, [input, length]) => {
      const scaled = where(eq(length, 0), 0, div(grad, length));
      return [mul(reshape(scaled, kept), input)];
    });
  }
  const magnitude = abs(x), powers = pow(magnitude, p), total = sum(powers, axes, { keepdim });
  const y = pow(total.detach(), 1 / p);
  for (const temporary of [magnitude, powers, total]) temporary.dispose();
  return record("norm", [x], y, [x, y], (grad, [input, length]) => {
    const scaled = where(eq(length, 0), 0, div(grad, pow(length, p - 1)));
    const slope = mul(sign(input), pow(abs(input), p - 1));
    return [mul(reshape(scaled, kept), p < 1 ? where(eq(input, 0), 0, slope) : slope)];
  });
}

/** True where any element over axes is not 0; false for none. */
export function any(x: Tensor, dim: Dims = null, options?: ReductionOptions): Tensor {
  checkTensor(x, "any", "the input");
  const axes = axesOf(dim, x.rank, "any");
  return finish(reduceKernel(x, axes, "any", "bool"), axes, options?.keepdim ?? false);
}

/** True where all elements over axes are not 0; true for none. */
export function all(x: Tensor, dim: Dims = null, options?: ReductionOptions): Tensor {
  checkTensor(x, "all", "the input");
  const axes = axesOf(dim, x.rank, "all");
  return finish(reduceKernel(x, axes, "all", "bool"), axes, options?.keepdim ?? false);
}

/** How many elements over axes are not 0, int64. */
export function countNonzero(x: Tensor, dim: Dims = null, options?: ReductionOptions): Tensor {
  checkTensor(x, "countNonzero", "the input");
  const axes = axesOf(dim, x.rank, "countNonzero");
  return finish(reduceKernel(x, axes, "count_nonzero", "int64"), axes, options?.keepdim ?? false);
}
