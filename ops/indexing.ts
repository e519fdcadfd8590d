/**
 * Reading and writing along one axis through an index tensor: gather, scatter and what is made of them; selection by a mask.
 *
 * An index is int64 or int32. One that lies outside its axis is a `RangeError` that names the index, the axis and its size; nothing is
 * written then. Where several indices name one element, sums are added in the order of the index on any number of threads.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { ScatterOp } from "../ffi/op_codes.ts";
import { axisOf, broadcastShapes, expandedStrides, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { div, eq, floorDivide, mul, where } from "./binary.ts";
import { copyInto, to } from "./copy.ts";
import { full, onesLike, zeros } from "./creation.ts";
import { checkIndex, checkSource, coordinates, nativeNamed, Plan, readRows, wideType, writeRows } from "./index_plan.ts";
import { overwrite } from "./inplace.ts";
import { checkTensor, emptyLike, emptyTensor, native } from "./native.ts";
import { broadcastTo, narrow, reshape } from "./view.ts";

/** How {@linkcode scatterReduce} joins elements that meet. */
export type ScatterReduction = "sum" | "prod" | "mean" | "amax" | "amin";

/** Checks an index along an axis and gives tensors without axes one. */
function alongAxis(x: Tensor, dim: number, index: unknown, op: string): { base: Tensor; axis: number; at: Tensor } {
  checkTensor(x, op, "the input");
  checkIndex(index, op, x);
  const axis = axisOf(dim, x.rank, op);
  const base = x.rank === 0 ? reshape(x, [1]) : x, at = index.rank === 0 ? reshape(index, [1]) : index;
  if (base.rank !== at.rank) {
    throw new ShapeError(`${op}: the index ${textOf(index.shape)} must have as many axes as the input ${textOf(x.shape)}`);
  }
  at.shape.forEach((size, i) => {
    if (i !== axis && size > base.shape[i]) {
      throw new ShapeError(
        `${op}: the index ${textOf(index.shape)} exceeds the input ${textOf(x.shape)} in axis ${i}, not the indexed one`,
      );
    }
  });
  return { base, axis, at };
}

/**
 * Elements picked along an axis: `y[i][j][k] = x[i][index[i][j][k]][k]` for `dim = 1`.
 *
 * Derivative: each picked element's gradient is added to where it came from ({@linkcode scatterAdd}).
 *
 * @param x Any shape and dtype.
 * @param dim The axis to pick along.
 * @param index As many axes as `x`, no longer than it but along `dim`; negative indices are refused.
 * @returns The shape of `index`.
 * @throws {RangeError} For an index outside the axis.
 *
 * @example
 * ```ts
 * import { gather, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[1, 2], [3, 4]]);
 * assertEquals(gather(x, 1, tensor([[0, 0], [1, 0]], { dtype: "int64" })).tolist(), [[1, 1], [4, 3]]);
 * ```
 */
export function gather(x: Tensor, dim: number, index: Tensor): Tensor {
  const { base, axis, at } = alongAxis(x, dim, index, "gather");
  const out = emptyTensor(at.shape, x.dtype, x.device), shape = base.shape;
  nativeNamed("gather", x.device, (lib, f) => lib.dg_gather(f.pointer, f.put(out), f.put(base), f.put(at), axis));
  const y = record("gather", [base], out, [at], (grad, [ix]) => [spread(grad, shape, axis, ix)]);
  return sameShape(y.shape, index.shape) ? y : reshape(y, index.shape);
}

/** The adjoint of gather: zeros of `shape` to which the gradients are added. */
function spread(grad: Tensor, shape: Shape, axis: number, index: Tensor): Tensor {
  const wide = wideType(grad.dtype), sums = zeros(shape, { dtype: wide, device: grad.device });
  scatterKernel("gather", sums, axis, index, to(grad.detach(), wide), "sum");
  const out = wide === grad.dtype ? sums : copyInto(emptyLike(sums, grad.dtype), sums);
  return record("gather (derivative)", [grad], out, [index], (again, [ix]) => [gather(again, axis, ix)]);
}

function scatterKernel(
  op: string,
  out: Tensor,
  axis: number,
  index: Tensor,
  source: Tensor | number,
  mode: keyof typeof ScatterOp,
  includeSelf = true,
): void {
  nativeNamed(op, out.device, (lib, f) => {
    const to = f.put(out), at = f.put(index), from = f.put(source instanceof Tensor ? source : null);
    return lib.dg_scatter(f.pointer, to, at, from, source instanceof Tensor ? 0 : source, axis, ScatterOp[mode], includeSelf ? 1 : 0);
  });
}

/** The part of the source that an index of `shape` reads. */
function sourcePart(source: unknown, shape: Shape, x: Tensor, op: string): Tensor {
  checkSource(source, op, x);
  const lifted = source.rank === 0 ? reshape(source, [1]) : source;
  if (lifted.rank !== shape.length || !shape.every((size, i) => size <= lifted.shape[i])) {
    throw new ShapeError(`${op}: the index ${textOf(shape)} must not exceed the source ${textOf(source.shape)} in any axis`);
  }
  return shape.reduce((part, size, i) => part.shape[i] === size ? part : narrow(part, i, 0, size), lifted);
}

/** Writes in `x` or in a copy of it, sums of half types in float32. */
function scatterValue(
  op: string,
  x: Tensor,
  axis: number,
  at: Tensor,
  source: Tensor | number,
  mode: keyof typeof ScatterOp,
  self: boolean,
) {
  const wide = mode === "sum" || mode === "prod" ? wideType(x.dtype) : x.dtype;
  if (wide === x.dtype) return scatterKernel(op, x, axis, at, source, mode, self);
  const work = copyInto(emptyLike(x, wide), x);
  scatterKernel(op, work, axis, at, source instanceof Tensor ? to(source.detach(), wide) : source, mode, self);
  copyInto(x, work);
  work.dispose();
}

function scatterOrAdd<T extends Tensor>(
  op: string,
  x: T,
  dim: number,
  index: Tensor,
  source: Tensor | number,
  mode: "assign" | "sum",
  inPlace: boolean,
): Tensor {
  const { base, axis, at } = alongAxis(x, dim, index, op);
  if (!(source instanceof Tensor) && typeof source !== "number") throw new TypeError(`${op}: the source must be a tensor or a number`);
  if (mode === "sum" && x.dtype === "bool") throw new DTypeError(`${op}: bool tensors are not added`);
  let from = source instanceof Tensor ? sourcePart(source, at.shape, x, op) : source;
  const rule = (grad: Tensor, [ix]: readonly Tensor[], [forX, forSource]: readonly boolean[]) => {
    const g = grad.rank === 0 ? reshape(grad, [1]) : grad;
    return [
      forX ? mode === "sum" ? grad : reshape(scatterOrAdd(op, g, axis, ix, 0, "assign", false), grad.shape) : null,
      forSource ? gather(g, axis, ix) : null,
    ];
  };
  if (inPlace) {
    if (from instanceof Tensor && from.storage === x.storage) from = from.clone();
    const others = from instanceof Tensor ? [from] : [], given = from;
    return overwrite(op, x, others, () => scatterValue(op, base, axis, at, given, mode, true), [at], rule);
  }
  const out = copyInto(emptyLike(base), base);
  scatterValue(op, out, axis, at, from, mode, true);
  const y = record(op, [base, ...(from instanceof Tensor ? [from] : [])], out, [at], rule);
  return x.rank === 0 ? reshape(y, []) : y;
}

/**
 * A copy of `x` with elements overwritten along an axis: `y[i][index[i][j][k]][k] = source[i][j][k]` for `dim = 1`.
 *
 * Derivative: of `x` the gradient with 0 at the overwritten elements, of the source what {@linkcode gather} picks. Where several indices
 * name one element, the last one is written.
 *
 * @param source A tensor of x's dtype, at least as long as `index` in each axis, or a number.
 * @throws {RangeError} For an index outside the axis.
 */
export function scatter(x: Tensor, dim: number, index: Tensor, source: Tensor | number): Tensor {
  return scatterOrAdd("scatter", x, dim, index, source, "assign", false);
}

/** {@linkcode scatter} in place. */
export function scatter_<T extends Tensor>(x: T, dim: number, index: Tensor, source: Tensor | number): T {
  return scatterOrAdd("scatter_", x, dim, index, source, "assign", true) as T;
}

/**
 * A copy of `x` with numbers added along an axis: `y[i][index[i][j][k]][k] += source[i][j][k]` for `dim = 1`.
 *
 * Derivative: of `x` the gradient itself, of the source what {@linkcode gather} picks. Half types are added in float32.
 */
export function scatterAdd(x: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
  return scatterOrAdd("scatterAdd", x, dim, index, source, "sum", false);
}

/** {@linkcode scatterAdd} in place. */
export function scatterAdd_<T extends Tensor>(x: T, dim: number, index: Tensor, source: Tensor): T {
  return scatterOrAdd("scatterAdd_", x, dim, index, source, "sum", true) as T;
}

/**
 * A copy of `x` in which elements are joined with those of `source` along an axis.
 *
 * Derivative: for `amax` and `amin` shared equally among the elements that have the value; for `prod` the product of the others, zeros
 * included.
 *
 * @param reduce `"sum"`, `"prod"`, `"mean"`, `"amax"` or `"amin"`; a mean of integers is rounded down.
 * @param options.includeSelf Elements of `x` take part where the index names them. Default `true`.
 *
 * @example The largest of each group
 * ```ts
 * import { scatterReduce, tensor, zeros } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const group = tensor([0, 1, 0, 1], { dtype: "int64" });
 * const y = scatterReduce(zeros([2]), 0, group, tensor([-1, 5, -3, 2]), "amax", { includeSelf: false });
 * assertEquals(y.tolist(), [-1, 5]);
 * ```
 */
export function scatterReduce(
  x: Tensor,
  dim: number,
  index: Tensor,
  source: Tensor,
  reduce: ScatterReduction,
  options?: { includeSelf?: boolean },
): Tensor {
  const op = "scatterReduce", self = options?.includeSelf ?? true;
  const { base, axis, at } = alongAxis(x, dim, index, op);
  if (!["sum", "prod", "mean", "amax", "amin"].includes(reduce)) {
    throw new RangeError(`${op}: reduce must be "sum", "prod", "mean", "amax" or "amin", got ${JSON.stringify(reduce)}`);
  }
  if (x.dtype === "bool") throw new DTypeError(`${op}: takes a numeric dtype, got bool`);
  const from = sourcePart(source, at.shape, x, op);
  const out = copyInto(emptyLike(base), base);
  scatterValue(op, out, axis, at, from, reduce === "mean" ? "sum" : reduce, self);
  if (reduce === "mean") {
    const counts = countsOf(base, axis, at, from, self);
    copyInto(out, x.isFloat ? div(out, counts) : floorDivide(out, counts));
    counts.dispose();
  }
  const y = record(op, [base, from], out, [base, from, out, at], (grad, [p, q, value, ix], [forX, forSource]) => {
    const [dx, dq] = reduceGradients(reduce, grad, p, q, value, axis, ix, self);
    return [forX ? self ? dx : scatter(dx, axis, ix, 0) : null, forSource ? dq : null];
  });
  return x.rank === 0 ? reshape(y, []) : y;
}

/** How many elements each mean is over; 1 where the index names none. */
function countsOf(x: Tensor, axis: number, index: Tensor, source: Tensor, self: boolean): Tensor {
  const counts = self ? onesLike(x.detach()) : zeros(x.shape, { dtype: x.dtype, device: x.device });
  scatterValue("scatterReduce", counts, axis, index, onesLike(source.detach()), "sum", true);
  return self ? counts : where(eq(counts, 0), full([], 1, { dtype: x.dtype, device: x.device }), counts);
}

function reduceGradients(
  reduce: ScatterReduction,
  grad: Tensor,
  x: Tensor,
  source: Tensor,
  value: Tensor,
  axis: number,
  index: Tensor,
  self: boolean,
): [Tensor, Tensor] {
  const pick = (t: Tensor) => gather(t, axis, index);
  const options = { includeSelf: self };
  if (reduce === "sum") return [grad, pick(grad)];
  if (reduce === "mean") {
    const counts = countsOf(x, axis, index, source, self);
    return [div(grad, counts), div(pick(grad), pick(counts))];
  }
  if (reduce === "amax" || reduce === "amin") {
    const fromX = to(eq(x, value), x.dtype), fromSource = to(eq(source, pick(value)), x.dtype);
    // Where x takes no part its own tie does not count; where the index names nothing, x is the value.
    const share = div(grad, scatterAdd(self ? fromX : scatter(fromX, axis, index, 0), axis, index, fromSource));
    return [mul(fromX, share), where(fromSource.bool(), pick(share), 0)];
  }
  // Without zeros the product of the others is product / element; a lone zero gets the product taken without it.
  const xSafe = maskedFill(x, eq(x, 0), 1);
  const dx = div(mul(grad, scatterReduce(xSafe, axis, index, source, "prod", options)), xSafe);
  const zero = eq(source, 0);
  const zeroCount = pick(scatterAdd(zeros(x.shape, { dtype: x.dtype, device: x.device }), axis, index, to(zero, x.dtype)));
  const lone = zero.logicalAnd(eq(zeroCount, 1));
  const without = scatterReduce(x, axis, index, maskedFill(source, lone, 1), "prod", options);
  return [dx, where(lone, pick(mul(grad, without)), div(pick(mul(grad, value)), maskedFill(source, zero, 1)))];
}

/**
 * {@linkcode gather} with the index broadcast against `x` in the other axes, as `argsort` and `argmax` (with `keepdim`) give it.
 *
 * @param dim The axis; `null` takes from the flattened `x`.
 */
export function takeAlongDim(x: Tensor, index: Tensor, dim: number | null = null): Tensor {
  checkTensor(x, "takeAlongDim", "the input");
  checkIndex(index, "takeAlongDim", x);
  if (dim === null) return gather(reshape(x, [-1]), 0, reshape(index, [-1]));
  const axis = axisOf(dim, x.rank, "takeAlongDim");
  if (x.rank !== index.rank) {
    throw new ShapeError(`takeAlongDim: the index ${textOf(index.shape)} must have as many axes as the input ${textOf(x.shape)}`);
  }
  const rest = (shape: Shape) => shape.map((size, i) => i === axis ? 1 : size);
  const shape = broadcastShapes(rest(x.shape), rest(index.shape), "takeAlongDim");
  const sized = (t: Tensor) => broadcastTo(t, shape.map((size, i) => i === axis ? t.shape[axis] : size));
  return gather(sized(x), axis, sized(index));
}

// ---- masks

function checkMask(mask: unknown, op: string, x: Tensor): asserts mask is Tensor {
  checkTensor(mask, op, "the mask", x);
  if (mask.dtype !== "bool") throw new DTypeError(`${op}: the mask must be bool, got ${mask.dtype}: compare it first`);
}

/** Row-major positions of the true elements of `mask` broadcast to `shape`. */
function positions(mask: Tensor, shape: Shape): Tensor {
  const shown = broadcastTo(mask, shape), flat = reshape(shown, [-1]), found = coordinates(flat);
  const y = reshape(found, [-1]);
  for (const temporary of [found, flat, shown]) if (temporary !== mask) temporary.dispose();
  return y;
}

/**
 * The elements of `x` where `mask` is true, in row-major order; both broadcast.
 *
 * @returns One axis.
 */
export function maskedSelect(x: Tensor, mask: Tensor): Tensor {
  checkTensor(x, "maskedSelect", "the input");
  checkMask(mask, "maskedSelect", x);
  const shape = broadcastShapes(x.shape, mask.shape, "maskedSelect");
  const at = positions(mask, shape);
  const y = readRows(reshape(broadcastTo(x, shape), [-1]), Plan.axis("maskedSelect", 1, 0, at));
  at.dispose();
  return y;
}

/** The filling value as a tensor without axes of x's dtype. */
function fillValue(x: Tensor, value: Tensor | number | boolean, op: string): Tensor {
  if (value instanceof Tensor) {
    checkTensor(value, op, "the value", x);
    if (value.rank !== 0) throw new ShapeError(`${op}: the value must have no axes, got ${textOf(value.shape)}`);
    if (value.isFloat && !x.isFloat) throw new DTypeError(`${op}: a value of ${value.dtype} cannot be stored in a tensor of ${x.dtype}`);
    return to(value, x.dtype);
  }
  if (typeof value !== "number" && typeof value !== "boolean") throw new TypeError(`${op}: the value must be a number or a tensor`);
  if (!x.isFloat && !Number.isInteger(Number(value))) throw new DTypeError(`${op}: ${value} cannot be stored in a tensor of ${x.dtype}`);
  return full([], Number(value), { dtype: x.dtype, device: x.device });
}

/**
 * A copy of `x` with `value` where `mask` is true; both broadcast.
 *
 * @param value A number, or a tensor without axes (differentiable).
 */
export function maskedFill(x: Tensor, mask: Tensor, value: Tensor | number): Tensor {
  checkTensor(x, "maskedFill", "the input");
  checkMask(mask, "maskedFill", x);
  const filling = fillValue(x, value, "maskedFill");
  const y = where(mask, filling, x);
  if (filling !== value) filling.dispose();
  return y;
}

/** {@linkcode maskedFill} in place; the mask broadcasts to `x`. */
export function maskedFill_<T extends Tensor>(x: T, mask: Tensor, value: Tensor | number): T {
  checkTensor(x, "maskedFill_", "the tensor to write to");
  checkMask(mask, "maskedFill_", x);
  if (!sameShape(broadcastShapes(x.shape, mask.shape, "maskedFill_"), x.shape)) {
    throw new ShapeError(`maskedFill_: a mask of ${textOf(mask.shape)} does not broadcast to ${textOf(x.shape)}`);
  }
  const filling = fillValue(x, value, "maskedFill_");
  const write = () => {
    const shown = (t: Tensor) => new Tensor(t.storage, x.shape, expandedStrides(t.shape, t.strides, x.shape), t.offset, t.dtype, false);
    native(x.device, (lib, f) => lib.dg_where(f.pointer, f.put(x), f.put(shown(mask)), f.put(shown(filling)), f.put(x)));
  };
  return overwrite("maskedFill_", x, [filling], write, [mask], (grad, [m], [forX, forValue]) => [
    forX ? maskedFill(grad, m, 0) : null,
    forValue ? where(m, grad, 0) : null,
  ]);
}

/**
 * A copy of `x` in which the elements where `mask` is true are replaced, in row-major order, by the first elements of `source`.
 *
 * @throws {ShapeError} If the source has fewer elements than the mask has true ones.
 */
export function maskedScatter(x: Tensor, mask: Tensor, source: Tensor): Tensor {
  const op = "maskedScatter";
  checkTensor(x, op, "the input");
  checkMask(mask, op, x);
  checkSource(source, op, x);
  const shape = broadcastShapes(x.shape, mask.shape, op), at = positions(mask, shape), count = at.shape[0];
  if (source.numel() < count) {
    throw new ShapeError(`${op}: the mask is true ${count} times, the source ${textOf(source.shape)} has ${source.numel()} elements`);
  }
  const values = narrow(reshape(source, [-1]), 0, 0, count);
  const y = writeRows(reshape(broadcastTo(x, shape), [-1]), Plan.axis(op, 1, 0, at), values, "assign", false);
  at.dispose();
  return reshape(y, shape);
}

/**
 * Positions of the elements that are not 0, in row-major order.
 *
 * @returns `[n, rank]`, int64.
 *
 * @example
 * ```ts
 * import { nonzero, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(nonzero(tensor([[0, 3], [5, 0]])).tolist(), [[0, 1], [1, 0]]);
 * ```
 */
export function nonzero(x: Tensor): Tensor {
  checkTensor(x, "nonzero", "the input");
  const mask = to(x.detach(), "bool"), y = coordinates(mask);
  mask.dispose();
  return y;
}

/** The same as {@linkcode nonzero}. */
export function argwhere(x: Tensor): Tensor {
  return nonzero(x);
}

/**
 * Each class number as a row with a 1 in its place: `y[..., c] = 1` where `x[...] = c`.
 *
 * @param x Class numbers, int64 or int32, any shape.
 * @param numClasses Length of a row. Default: the largest class number + 1.
 * @returns int64, the shape of `x` with an axis of `numClasses` added.
 * @throws {RangeError} For a class number outside `0 .. numClasses - 1`.
 */
export function oneHot(x: Tensor, numClasses = -1): Tensor {
  checkIndex(x, "oneHot", x);
  if (!Number.isSafeInteger(numClasses) || numClasses < -1 || numClasses === 0) {
    throw new RangeError(`oneHot: numClasses must be a whole number >= 1, or -1 for the largest class + 1, got ${numClasses}`);
  }
  let classes = numClasses;
  if (classes === -1) {
    if (x.numel() === 0) throw new ShapeError("oneHot: numClasses must be given for a tensor without elements");
    for (const value of x.data()) classes = Math.max(classes, Number(value) + 1);
    classes = Math.max(classes, 1);
  }
  const out = zeros([...x.shape, classes], { dtype: "int64", device: x.device });
  const at = new Tensor(x.storage, [...x.shape, 1], [...x.strides, 1], x.offset, x.dtype, false);
  scatterKernel("oneHot", out, x.rank, at, 1, "assign");
  return out;
}
