/**
 * Indexing with several tensors at once (`x[a, :, b]`) and whole positions of one axis.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import { axisOf, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { mul } from "./binary.ts";
import { checkIndex, checkSource, type IndexItem, Plan, planOf, readRows, writeRows } from "./index_plan.ts";
import { checkTensor } from "./native.ts";
import { reshape } from "./view.ts";

export type { IndexItem };

/**
 * PyTorch's `x[a, :, b]`, written `index(x, [a, null, b])`.
 *
 * Integer tensors broadcast to a common shape, which takes the place of the indexed axes: in front of the result when `null`s lie between
 * them, else where the first of them was. A mask stands for the coordinates of its true elements and takes as many axes as it has. A number takes one
 * position and drops the axis; that happens first. Negative indices count from the end. The result is always a copy.
 *
 * Derivative: the gradients of the rows are added to where they came from.
 *
 * @param items Numbers, int64 or int32 tensors, bool masks, `null` for a whole axis, `"..."` for as many as are left; axes not named are whole.
 * @throws {RangeError} For an index outside its axis.
 * @throws {ShapeError} If the index tensors do not broadcast or a mask does not fit its axes.
 *
 * @example
 * ```ts
 * import { index, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[1, 2, 3], [4, 5, 6]]);
 * assertEquals(index(x, [tensor([0, 1], { dtype: "int64" }), tensor([2, -3], { dtype: "int64" })]).tolist(), [3, 4]);
 * assertEquals(index(x, [x.gt(2)]).tolist(), [3, 4, 5, 6]);
 * ```
 */
export function index(x: Tensor, items: readonly IndexItem[]): Tensor {
  const { plan, made } = planOf("index", x, items);
  const y = readRows(x, plan);
  for (const temporary of made) temporary.dispose();
  return y;
}

function put_(
  name: string,
  x: Tensor,
  items: readonly IndexItem[],
  values: Tensor | number,
  accumulate: boolean,
  inPlace: boolean,
): Tensor {
  const { plan, made } = planOf(name, x, items);
  let source = values;
  if (values instanceof Tensor) checkSource(values, name, x);
  else if (typeof values !== "number") throw new TypeError(`${name}: the values must be a tensor or a number, got ${typeof values}`);
  else if (accumulate) source = scalarLike(x, values);
  const y = writeRows(x, plan, source, accumulate ? "sum" : "assign", inPlace);
  for (const temporary of made) temporary.dispose();
  return y;
}

function scalarLike(x: Tensor, value: number): Tensor {
  const out = new Tensor(x.storage, [], [], x.offset, x.dtype, false);
  return out.mul(0).detach().fill_(value);
}

/**
 * A copy of `x` with `values` at the places that {@linkcode index} would read.
 *
 * @param values A tensor of x's dtype that broadcasts to the shape that `index` gives, or a number.
 * @param options.accumulate Add to what is there; repeated places add up, in the order of the index. Default `false`: the last one stays.
 *
 * Derivative: of `x` the gradient, with 0 at overwritten places; of the values the gradient at their places.
 */
export function indexPut(x: Tensor, items: readonly IndexItem[], values: Tensor | number, options?: { accumulate?: boolean }): Tensor {
  return put_("indexPut", x, items, values, options?.accumulate ?? false, false);
}

/** {@linkcode indexPut} in place. */
export function indexPut_<T extends Tensor>(
  x: T,
  items: readonly IndexItem[],
  values: Tensor | number,
  options?: { accumulate?: boolean },
): T {
  return put_("indexPut_", x, items, values, options?.accumulate ?? false, true) as T;
}

/** Checks an index of one axis; one without axes counts as one position. */
function positions(x: Tensor, dim: number, index: unknown, op: string): { axis: number; at: Tensor } {
  checkTensor(x, op, "the input");
  checkIndex(index, op, x);
  if (x.rank === 0) throw new ShapeError(`${op}: a tensor without axes has no positions`);
  if (index.rank > 1) throw new ShapeError(`${op}: the index must have one axis, got ${textOf(index.shape)}`);
  return { axis: axisOf(dim, x.rank, op), at: index.rank === 0 ? reshape(index, [1]) : index };
}

/**
 * Whole positions of an axis, in the order of `index`.
 *
 * @param index One axis; negative indices are refused.
 * @returns The shape of `x` with axis `dim` as long as the index.
 * @throws {RangeError} For an index outside the axis.
 *
 * @example
 * ```ts
 * import { indexSelect, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[1, 2, 3], [4, 5, 6]]);
 * assertEquals(indexSelect(x, 1, tensor([2, 0], { dtype: "int64" })).tolist(), [[3, 1], [6, 4]]);
 * ```
 */
export function indexSelect(x: Tensor, dim: number, index: Tensor): Tensor {
  const { axis, at } = positions(x, dim, index, "indexSelect");
  return readRows(x, Plan.axis("indexSelect", x.rank, axis, at));
}

function withSource(
  op: string,
  x: Tensor,
  dim: number,
  index: Tensor,
  source: Tensor,
  mode: "assign" | "sum",
  inPlace: boolean,
): Tensor {
  const { axis, at } = positions(x, dim, index, op);
  checkSource(source, op, x);
  const plan = Plan.axis(op, x.rank, axis, at), shape: Shape = plan.resultShape(x.shape);
  const given = source.rank === 0 && x.rank === 1 ? reshape(source, [1]) : source;
  if (!sameShape(given.shape, shape)) {
    throw new ShapeError(`${op}: the source must be ${textOf(shape)} for ${textOf(x.shape)} and this index, got ${textOf(source.shape)}`);
  }
  return writeRows(x, plan, given, mode, inPlace);
}

/** A copy of `x` with `alpha * source` added to positions `index` of axis `dim`; repeated positions add up in the order of the index. */
export function indexAdd(x: Tensor, dim: number, index: Tensor, source: Tensor, options?: { alpha?: number }): Tensor {
  const alpha = options?.alpha ?? 1;
  return withSource("indexAdd", x, dim, index, alpha === 1 ? source : mul(source, alpha), "sum", false);
}

/** {@linkcode indexAdd} in place. */
export function indexAdd_<T extends Tensor>(x: T, dim: number, index: Tensor, source: Tensor, options?: { alpha?: number }): T {
  const alpha = options?.alpha ?? 1;
  return withSource("indexAdd_", x, dim, index, alpha === 1 ? source : mul(source, alpha), "sum", true) as T;
}

/** A copy of `x` with positions `index` of axis `dim` overwritten by those of `source`; of a repeated position the last stays. */
export function indexCopy(x: Tensor, dim: number, index: Tensor, source: Tensor): Tensor {
  return withSource("indexCopy", x, dim, index, source, "assign", false);
}

/** {@linkcode indexCopy} in place. */
export function indexCopy_<T extends Tensor>(x: T, dim: number, index: Tensor, source: Tensor): T {
  return withSource("indexCopy_", x, dim, index, source, "assign", true) as T;
}

function fill(op: string, x: Tensor, dim: number, index: Tensor, value: Tensor | number, inPlace: boolean): Tensor {
  const { axis, at } = positions(x, dim, index, op);
  if (value instanceof Tensor) {
    checkSource(value, op, x);
    if (value.rank !== 0) throw new ShapeError(`${op}: the value must have no axes, got ${textOf(value.shape)}`);
  } else if (typeof value !== "number") {
    throw new TypeError(`${op}: the value must be a number or a tensor, got ${typeof value}`);
  }
  return writeRows(x, Plan.axis(op, x.rank, axis, at, true), value, "assign", inPlace);
}

/** A copy of `x` with positions `index` of axis `dim` set to a number or a tensor without axes; negative indices count from the end. */
export function indexFill(x: Tensor, dim: number, index: Tensor, value: Tensor | number): Tensor {
  return fill("indexFill", x, dim, index, value, false);
}

/** {@linkcode indexFill} in place. */
export function indexFill_<T extends Tensor>(x: T, dim: number, index: Tensor, value: Tensor | number): T {
  return fill("indexFill_", x, dim, index, value, true) as T;
}

/** Elements of the flattened `x`, in the shape of `index`; negative indices count from the end. */
export function take(x: Tensor, index: Tensor): Tensor {
  checkTensor(x, "take", "the input");
  checkIndex(index, "take", x);
  return readRows(reshape(x, [-1]), Plan.axis("take", 1, 0, index, true));
}

/**
 * A copy of `x` in which elements of its flattened form are overwritten.
 *
 * @param source As many elements as `index`.
 * @param options.accumulate Add to what is there. Default `false`.
 */
export function put(x: Tensor, index: Tensor, source: Tensor, options?: { accumulate?: boolean }): Tensor {
  checkTensor(x, "put", "the input");
  checkIndex(index, "put", x);
  checkSource(source, "put", x);
  if (source.numel() !== index.numel()) {
    throw new ShapeError(`put: the index ${textOf(index.shape)} and the source ${textOf(source.shape)} must have as many elements`);
  }
  const values = reshape(source, index.shape), plan = Plan.axis("put", 1, 0, index, true);
  return reshape(writeRows(reshape(x, [-1]), plan, values, options?.accumulate ? "sum" : "assign", false), x.shape);
}
