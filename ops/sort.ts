/**
 * Sorting and what follows from it. NaN sorts after every number; equal elements keep their order.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { axisOf, numelOf, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { contiguous, to } from "./copy.ts";
import { fullLike, zeros } from "./creation.ts";
import { checkTensor, emptyTensor, native } from "./native.ts";
import { placeAt, type ReductionOptions, type ValuesAndIndices } from "./reduction.ts";
import { reshape } from "./view.ts";

function withSize(shape: Shape, axis: number, size: number): number[] {
  return shape.map((it, i) => i === axis ? size : it);
}

/** Records that `values` are the elements of `x` at `indices` along `axis`. */
function chosen(name: string, x: Tensor, values: Tensor, indices: Tensor, axis: number): ValuesAndIndices {
  const shape = x.shape;
  record(name, [x], values, [indices], (grad, [at]) => [placeAt(grad, at, axis, shape)]);
  return { values, indices };
}

function scalarCase(x: Tensor): ValuesAndIndices {
  return { values: x.clone(), indices: fullLike(x, 0, { dtype: "int64" }) };
}

/** The first `count` elements of the order along `axis`. */
function firstOf(name: string, x: Tensor, axis: number, count: number, descending: boolean): ValuesAndIndices {
  const shape = withSize(x.shape, axis, count);
  const values = emptyTensor(shape, x.dtype, x.device), indices = emptyTensor(shape, "int64", x.device);
  native(x.device, (lib, f) => lib.dg_sort(f.pointer, f.put(values), f.put(indices), f.put(x), axis, descending ? 1 : 0));
  return chosen(name, x, values, indices, axis);
}

/** Options of {@linkcode sort} and {@linkcode argsort}. */
export interface SortOptions {
  /** Largest first (NaN before them). Default `false`. */
  descending?: boolean;
  /** Equal elements keep their order; they always do. */
  stable?: boolean;
}

/**
 * Elements in order along `dim`, with their positions. Stable.
 *
 * @param dim Default -1, the last axis.
 * @param options.descending Largest first. Default `false`.
 * @returns `values` of the shape and dtype of `x`, `indices` (int64).
 *
 * Derivative: each value's gradient goes to the element that it is.
 *
 * @example
 * ```ts
 * import { sort, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const { values, indices } = sort(tensor([3, 1, NaN, 2]));
 * assertEquals(values.tolist(), [1, 2, 3, NaN]);
 * assertEquals(indices.tolist(), [1, 3, 0, 2]);
 * ```
 */
export function sort(x: Tensor, dim = -1, options?: SortOptions): ValuesAndIndices {
  checkTensor(x, "sort", "the input");
  const axis = axisOf(dim, x.rank, "sort");
  return x.rank === 0 ? scalarCase(x) : firstOf("sort", x, axis, x.shape[axis], options?.descending ?? false);
}

/** Positions (int64) that put the elements along `dim` in order; see {@linkcode sort}. */
export function argsort(x: Tensor, dim = -1, options?: SortOptions): Tensor {
  checkTensor(x, "argsort", "the input");
  const { values, indices } = sort(x.detach(), dim, options);
  values.dispose();
  return indices;
}

/** Options of {@linkcode topk}. */
export interface TopkOptions {
  /** The largest elements, or the smallest. Default `true`. */
  largest?: boolean;
  /** In order; they always are. */
  sorted?: boolean;
}

/**
 * The `k` largest elements along `dim`, largest first, with their positions; of equal ones those that come first.
 *
 * @param dim Default -1.
 * @param options.largest `false` for the smallest, smallest first. Default `true`.
 * @throws {RangeError} If there are fewer than `k` elements.
 *
 * @example
 * ```ts
 * import { tensor, topk } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(topk(tensor([4, 9, 1, 7]), 2).indices.tolist(), [1, 3]);
 * ```
 */
export function topk(x: Tensor, k: number, dim = -1, options?: TopkOptions): ValuesAndIndices {
  checkTensor(x, "topk", "the input");
  const axis = axisOf(dim, x.rank, "topk"), size = x.rank === 0 ? 1 : x.shape[axis];
  if (!Number.isInteger(k) || k < 0 || k > size) throw new RangeError(`topk: k must be 0 to ${size}, the size of dim ${dim}, got ${k}`);
  if (x.rank === 0 && k === 1) return scalarCase(x);
  if (x.rank === 0) throw new RangeError("topk: a tensor without axes has one element, k must be 1");
  return firstOf("topk", x, axis, k, options?.largest ?? true);
}

function kth(name: string, x: Tensor, axis: number, k: number, median: boolean, keepdim: boolean): ValuesAndIndices {
  const shape = withSize(x.shape, axis, 1);
  const values = emptyTensor(shape, x.dtype, x.device), indices = emptyTensor(shape, "int64", x.device);
  native(x.device, (lib, f) => lib.dg_kth(f.pointer, f.put(values), f.put(indices), f.put(x), axis, k, median ? 1 : 0));
  const kept = chosen(name, x, values, indices, axis);
  if (keepdim) return kept;
  const without = x.shape.filter((_, i) => i !== axis);
  const result = { values: reshape(kept.values, without), indices: reshape(kept.indices, without) };
  values.dispose();
  indices.dispose();
  return result;
}

/**
 * Element number `k` (from 1) of the ascending order along `dim`, with its position.
 *
 * @param dim Default -1.
 * @param options.keepdim Keep the axis with size 1. Default `false`.
 * @throws {RangeError} If `k` is not 1 to the size of the axis.
 */
export function kthvalue(x: Tensor, k: number, dim = -1, options?: ReductionOptions): ValuesAndIndices {
  checkTensor(x, "kthvalue", "the input");
  const axis = axisOf(dim, x.rank, "kthvalue"), size = x.rank === 0 ? 1 : x.shape[axis];
  if (!Number.isInteger(k) || k < 1 || k > size) throw new RangeError(`kthvalue: k must be 1 to ${size}, the size of dim ${dim}, got ${k}`);
  return x.rank === 0 ? scalarCase(x) : kth("kthvalue", x, axis, k, false, options?.keepdim ?? false);
}

/** {@linkcode median} of the whole tensor, or along one axis with positions. */
export interface Median {
  /** The median of all elements; NaN for none. */
  (x: Tensor): Tensor;
  /** The medians along `dim` and where they are. */
  (x: Tensor, dim: number, options?: ReductionOptions): ValuesAndIndices;
}

/**
 * Median: the element in the middle of the order, of two the lower; NaN if there is one.
 *
 * @throws {ShapeError} Along an axis without elements.
 *
 * @example
 * ```ts
 * import { median, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(median(tensor([5, 1, 4, 2])).item(), 2);
 * assertEquals(median(tensor([[5, 1, 3], [2, 9, 8]]), 1).indices.tolist(), [2, 2]);
 * ```
 */
export const median: Median = ((x: Tensor, dim?: number, options?: ReductionOptions): Tensor | ValuesAndIndices => {
  checkTensor(x, "median", "the input");
  if (dim === undefined) {
    if (x.numel() === 0) return fullLike(zeros([], { dtype: x.dtype, device: x.device }), x.isFloat ? NaN : 0);
    const flat = reshape(x, [-1]);
    const { values, indices } = kth("median", flat, 0, Math.ceil(flat.shape[0] / 2), true, false);
    indices.dispose();
    return values;
  }
  const axis = axisOf(dim, x.rank, "median");
  if (x.rank === 0) return scalarCase(x);
  if (x.shape[axis] === 0) throw new ShapeError(`median: no elements in ${textOf(x.shape)} along dim ${dim}`);
  return kth("median", x, axis, Math.ceil(x.shape[axis] / 2), true, options?.keepdim ?? false);
}) as Median;

/** What {@linkcode unique} returns. */
export interface Unique {
  /** The distinct elements, ascending. */
  values: Tensor;
  /** For each element of the input its place in `values`, int64, shape of the input. */
  inverse: Tensor;
  /** How often each value occurs, int64. */
  counts: Tensor;
}

/**
 * The distinct elements of a tensor in ascending order, with how often they occur and where each went. Every NaN is distinct.
 *
 * @example
 * ```ts
 * import { tensor, unique } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const { values, inverse, counts } = unique(tensor([3, 1, 3, 2]));
 * assertEquals(values.tolist(), [1, 2, 3]);
 * assertEquals(inverse.tolist(), [2, 0, 2, 1]);
 * assertEquals(counts.tolist(), [1, 1, 2]);
 * ```
 */
export function unique(x: Tensor): Unique {
  checkTensor(x, "unique", "the input");
  const flat = reshape(x.detach(), [-1]), count = flat.shape[0];
  const { values: sorted, indices: order } = sort(flat, 0);
  const group = emptyTensor([count], "int64", x.device), inverse = emptyTensor([count], "int64", x.device);
  native(x.device, (lib, f) => lib.dg_groups(f.pointer, f.put(group), f.put(sorted)));
  const distinct = count === 0 ? 0 : group.select(0, count - 1).item() + 1;
  const values = emptyTensor([distinct], x.dtype, x.device), counts = emptyTensor([distinct], "int64", x.device);
  native(
    x.device,
    (lib, f) => lib.dg_unique(f.pointer, f.put(values), f.put(inverse), f.put(counts), f.put(sorted), f.put(order), f.put(group)),
  );
  const shaped = reshape(inverse, x.shape);
  for (const temporary of [flat, sorted, order, group, inverse]) temporary.dispose();
  return { values, inverse: shaped, counts };
}

/**
 * Where `values` would be inserted into ascending sequences to keep them ascending: the first place whose element is not less.
 *
 * @param sorted One sequence `[n]`, or one for each leading position of `values`: `[..., n]`. Dtype of `values`.
 * @param options.right The first place whose element is greater. Default `false`.
 * @returns Positions 0 to n, int64, shape of `values`.
 * @throws {ShapeError} If the leading sizes differ.
 *
 * @example
 * ```ts
 * import { searchsorted, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const edges = tensor([1, 3, 5]);
 * assertEquals(searchsorted(edges, tensor([0, 3, 9])).tolist(), [0, 1, 3]);
 * assertEquals(searchsorted(edges, tensor([3]), { right: true }).tolist(), [2]);
 * ```
 */
export function searchsorted(sorted: Tensor, values: Tensor, options?: { right?: boolean }): Tensor {
  checkTensor(sorted, "searchsorted", "the sorted sequence");
  checkTensor(values, "searchsorted", "the values", sorted);
  if (sorted.dtype !== values.dtype) {
    throw new DTypeError(`searchsorted: the values must be ${sorted.dtype} like the sorted sequence, got ${values.dtype}`);
  }
  const batched = sorted.rank > 1;
  if (sorted.rank === 0 || (batched && (sorted.rank !== values.rank || !sameShape(sorted.shape.slice(0, -1), values.shape.slice(0, -1))))) {
    throw new ShapeError(`searchsorted: sequences ${textOf(sorted.shape)} do not fit values ${textOf(values.shape)}`);
  }
  const out = emptyTensor(values.shape, "int64", values.device);
  native(values.device, (lib, f) => lib.dg_searchsorted(f.pointer, f.put(out), f.put(sorted), f.put(values), options?.right ? 1 : 0));
  return out;
}

/**
 * How often each whole number from 0 occurs.
 *
 * @param x Integers `>= 0`, shape `[n]`.
 * @param options.weights Added in place of 1, shape `[n]`. The result is then float64, or float32 for float32 weights.
 * @param options.minLength Least size of the result. Default 0.
 * @throws {RangeError} For a negative number.
 *
 * @example
 * ```ts
 * import { bincount, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(bincount(tensor([1, 3, 1], { dtype: "int64" })).tolist(), [0, 2, 0, 1]);
 * ```
 */
export function bincount(x: Tensor, options?: { weights?: Tensor; minLength?: number }): Tensor {
  checkTensor(x, "bincount", "the input");
  const { weights, minLength = 0 } = options ?? {};
  if (x.isFloat || x.dtype === "bool") throw new DTypeError(`bincount: takes an integer tensor, got ${x.dtype}`);
  if (x.rank !== 1) throw new ShapeError(`bincount: takes a tensor with one axis, got ${textOf(x.shape)}`);
  if (!Number.isSafeInteger(minLength) || minLength < 0) {
    throw new RangeError(`bincount: minLength must be a whole number >= 0, got ${minLength}`);
  }
  if (weights !== undefined) {
    checkTensor(weights, "bincount", "the weights", x);
    if (!sameShape(weights.shape, x.shape)) {
      throw new ShapeError(`bincount: the weights must be ${textOf(x.shape)} like the input, got ${textOf(weights.shape)}`);
    }
  }
  const whole = contiguous(to(x.detach(), "int64")), some = numelOf(x.shape) > 0;
  if (some && whole.amin().item() < 0) throw new RangeError(`bincount: takes numbers >= 0, got ${whole.amin().item()}`);
  const length = Math.max(minLength, some ? whole.amax().item() + 1 : 0);
  if (weights === undefined) {
    const out = emptyTensor([length], "int64", x.device);
    native(x.device, (lib, f) => lib.dg_bincount(f.pointer, f.put(out), f.put(whole), f.put(null)));
    return out;
  }
  const wide = contiguous(to(weights.detach(), "float64")), out = emptyTensor([length], "float64", x.device);
  native(x.device, (lib, f) => lib.dg_bincount(f.pointer, f.put(out), f.put(whole), f.put(wide)));
  return weights.dtype === "float32" ? to(out, "float32") : out;
}

/**
 * Histogram: how many elements fall into each of `bins` equal parts of `[min, max]`; others, and NaN, are not counted.
 *
 * @param bins Default 100.
 * @param min Default: with `max` equal to it, the range of the elements.
 * @param max Default 0. The upper bound counts into the last part.
 * @returns Counts, shape `[bins]`, dtype of `x`.
 * @throws {RangeError} If `min > max`, a bound is not finite, or `bins < 1`.
 *
 * @example
 * ```ts
 * import { histc, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(histc(tensor([1, 2, 1]), 4, 0, 3).tolist(), [0, 2, 1, 0]);
 * ```
 */
export function histc(x: Tensor, bins = 100, min = 0, max = 0): Tensor {
  checkTensor(x, "histc", "the input");
  if (!x.isFloat) throw new DTypeError(`histc: takes a floating point tensor, got ${x.dtype}`);
  if (!Number.isSafeInteger(bins) || bins < 1) throw new RangeError(`histc: bins must be a whole number >= 1, got ${bins}`);
  const elements = x.detach();
  let [low, high] = [min, max];
  if (low === high && x.numel() > 0) [low, high] = [elements.amin().item(), elements.amax().item()];
  if (low === high) [low, high] = [low - 1, high + 1];
  if (!(low < high) || !Number.isFinite(high - low)) throw new RangeError(`histc: the range ${low} to ${high} is empty or not finite`);
  const counts = emptyTensor([bins], "int64", x.device);
  native(x.device, (lib, f) => lib.dg_histc(f.pointer, f.put(counts), f.put(elements), low, high));
  return to(counts, x.dtype);
}
