/**
 * Views: the same memory under another shape, order or selection, and what is made of several of them.
 *
 * @module
 */
import { type Gradients, record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { allocate } from "../ffi/storage.ts";
import { bytesOf, type DType, promoteTypes } from "../tensor/dtype.ts";
import {
  axisOf,
  broadcastShapes,
  contiguousStrides,
  inferShape,
  numelOf,
  sameShape,
  type Shape,
  textOf,
  viewStrides,
} from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { clone, copyInto } from "./copy.ts";
import { checkTensor, emptyTensor } from "./native.ts";

/** A view of `x` with other geometry; `rule` is its derivative. */
export function makeView(name: string, x: Tensor, shape: Shape, strides: Shape, offset: number, rule: (grad: Tensor) => Tensor): Tensor {
  const y = new Tensor(x.storage, shape, strides, offset, x.dtype);
  y.viewOf = x.viewOf ?? x;
  return record(name, [x], y, [], (grad): Gradients => [rule(grad)]);
}

/** Where a tensor's elements lie: all that a derivative keeps of it. */
type Layout = Pick<Tensor, "shape" | "strides">;
const layoutOf = ({ shape, strides }: Tensor): Layout => ({ shape, strides });

/** The adjoint of a selecting view of `x`: zeros of its shape and memory order with `grad` written where `select` points. */
function embed(name: string, grad: Tensor, x: Layout, select: (x: Tensor) => Tensor): Tensor {
  const { shape } = x, zeros = allocate(numelOf(shape) * bytesOf(grad.dtype), grad.device, shape, true);
  const out = new Tensor(zeros, shape, layoutLike(x, shape), 0, grad.dtype);
  const window = select(out);
  copyInto(window, grad);
  window.dispose();
  return record(`${name} (derivative)`, [grad], out, [], (again) => [select(again)]);
}

/** The same elements in another shape; one size may be -1. A view where the strides allow, else a copy. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  checkTensor(x, "reshape", "the input");
  const target = inferShape(shape, x.numel(), "reshape");
  const strides = viewStrides(x.shape, x.strides, target);
  if (strides !== null) return makeView("reshape", x, target, strides, x.offset, (grad) => reshape(grad, x.shape));
  const copy = copyInto(emptyTensor(x.shape, x.dtype, x.device), x);
  const y = new Tensor(copy.storage, target, viewStrides(copy.shape, copy.strides, target)!, 0, x.dtype);
  copy.dispose();
  return record("reshape", [x], y, [], (grad) => [reshape(grad, x.shape)]);
}

/** The same memory in another shape. @throws {ShapeError} If the strides do not allow it: use `reshape` or `contiguous`. */
export function view(x: Tensor, shape: Shape): Tensor {
  checkTensor(x, "view", "the input");
  const target = inferShape(shape, x.numel(), "view");
  const strides = viewStrides(x.shape, x.strides, target);
  if (strides === null) {
    throw new ShapeError(`view: ${textOf(x.shape)} with strides ${textOf(x.strides)} cannot be seen as ${textOf(target)}: use reshape()`);
  }
  return makeView("view", x, target, strides, x.offset, (grad) => reshape(grad, x.shape));
}

/** Axes `startDim` to `endDim` merged into one. */
export function flatten(x: Tensor, startDim = 0, endDim = -1): Tensor {
  checkTensor(x, "flatten", "the input");
  if (x.rank === 0) return reshape(x, [1]);
  const from = axisOf(startDim, x.rank, "flatten"), until = axisOf(endDim, x.rank, "flatten");
  if (from > until) throw new RangeError(`flatten: startDim ${startDim} comes after endDim ${endDim}`);
  const merged = numelOf(x.shape.slice(from, until + 1));
  return reshape(x, [...x.shape.slice(0, from), merged, ...x.shape.slice(until + 1)]);
}

/** Axis `dim` split into axes of `sizes`; one may be -1. */
export function unflatten(x: Tensor, dim: number, sizes: Shape): Tensor {
  checkTensor(x, "unflatten", "the input");
  const axis = axisOf(dim, x.rank, "unflatten");
  const inner = inferShape(sizes, x.shape[axis], "unflatten");
  return view(x, [...x.shape.slice(0, axis), ...inner, ...x.shape.slice(axis + 1)]);
}

/** Axes in the order `dims`. @throws {ShapeError} If `dims` is not a permutation of the axes. */
export function permute(x: Tensor, dims: Shape): Tensor {
  checkTensor(x, "permute", "the input");
  const order = dims.map((dim) => axisOf(dim, x.rank, "permute"));
  if (order.length !== x.rank || new Set(order).size !== x.rank) {
    throw new ShapeError(`permute: [${dims}] does not name each of the ${x.rank} axes once`);
  }
  const inverse = new Array<number>(x.rank);
  order.forEach((axis, i) => inverse[axis] = i);
  return makeView("permute", x, order.map((i) => x.shape[i]), order.map((i) => x.strides[i]), x.offset, (grad) => permute(grad, inverse));
}

/** Two axes exchanged. */
export function transpose(x: Tensor, dim0: number, dim1: number): Tensor {
  checkTensor(x, "transpose", "the input");
  const a = axisOf(dim0, x.rank, "transpose"), b = axisOf(dim1, x.rank, "transpose");
  const order = x.shape.map((_, i) => i === a ? b : i === b ? a : i);
  return permute(x, order);
}

/** Axis `source` moved to `destination`, the others in order. */
export function movedim(x: Tensor, source: number, destination: number): Tensor {
  checkTensor(x, "movedim", "the input");
  const from = axisOf(source, x.rank, "movedim"), to = axisOf(destination, x.rank, "movedim");
  const order = x.shape.map((_, i) => i).filter((i) => i !== from);
  order.splice(to, 0, from);
  return permute(x, order);
}

/** Without axes of size 1: all of them, or those of `dim` that have size 1. */
export function squeeze(x: Tensor, dim?: number | readonly number[]): Tensor {
  checkTensor(x, "squeeze", "the input");
  const named = dim === undefined ? null : (typeof dim === "number" ? [dim] : dim).map((d) => axisOf(d, x.rank, "squeeze"));
  const kept = x.shape.map((_, i) => i).filter((i) => x.shape[i] !== 1 || (named !== null && !named.includes(i)));
  return makeView("squeeze", x, kept.map((i) => x.shape[i]), kept.map((i) => x.strides[i]), x.offset, (grad) => reshape(grad, x.shape));
}

/** With an axis of size 1 inserted before axis `dim`. */
export function unsqueeze(x: Tensor, dim: number): Tensor {
  checkTensor(x, "unsqueeze", "the input");
  const axis = axisOf(dim, x.rank + 1, "unsqueeze");
  const shape = [...x.shape], strides = [...x.strides];
  shape.splice(axis, 0, 1);
  strides.splice(axis, 0, axis < x.rank ? x.strides[axis] * x.shape[axis] : 1);
  return makeView("unsqueeze", x, shape, strides, x.offset, (grad) => reshape(grad, x.shape));
}

/**
 * Axes of size 1 repeated without copying (stride 0), new axes in front; -1 keeps a size. Writing to the result in place is refused.
 *
 * @throws {ShapeError} If a size other than 1 would change.
 */
export function expand(x: Tensor, shape: Shape): Tensor {
  checkTensor(x, "expand", "the input");
  const lead = shape.length - x.rank;
  const target = shape.map((size, i) => size === -1 && i >= lead ? x.shape[i - lead] : size);
  const fits = lead >= 0 &&
    target.every((size, i) =>
      Number.isSafeInteger(size) && size >= 0 && (i < lead || x.shape[i - lead] === size || x.shape[i - lead] === 1)
    );
  if (!fits) throw new ShapeError(`expand: ${textOf(x.shape)} does not expand to ${textOf(shape)}`);
  const strides = target.map((size, i) => i < lead || (x.shape[i - lead] === 1 && size !== 1) ? 0 : x.strides[i - lead]);
  return makeView("expand", x, target, strides, x.offset, (grad) => grad);
}

/** Tensors expanded to their common shape. */
export function broadcastTensors(...tensors: readonly Tensor[]): Tensor[] {
  const shape = tensors.reduce<Shape>((common, x) => broadcastShapes(common, x.shape, "broadcastTensors"), []);
  return tensors.map((x) => expand(x, shape));
}

/** `x` expanded to `shape` by broadcasting. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : expand(x, shape);
}

/**
 * Positions `start` to `end` (exclusive) of axis `dim`, in steps of `step`. Negative positions count from the end; positions outside are
 * moved to the nearest end, as in Python.
 *
 * @throws {RangeError} If `step` is not a whole number of at least 1.
 */
export function slice(x: Tensor, dim: number, start: number | null = null, end: number | null = null, step = 1): Tensor {
  checkTensor(x, "slice", "the input");
  const axis = axisOf(dim, x.rank, "slice");
  if (x.rank === 0) throw new ShapeError("slice: a tensor without axes cannot be sliced");
  if (!Number.isSafeInteger(step) || step < 1) throw new RangeError(`slice: step must be a whole number >= 1, got ${step}`);
  const size = x.shape[axis];
  const position = (value: number | null, absent: number): number => {
    if (value === null) return absent;
    if (!Number.isInteger(value)) throw new RangeError(`slice: positions are whole numbers, got ${value}`);
    return Math.min(Math.max(value < 0 ? value + size : value, 0), size);
  };
  const from = position(start, 0), until = position(end, size);
  const shape = [...x.shape], strides = [...x.strides];
  shape[axis] = Math.max(0, Math.ceil((until - from) / step));
  strides[axis] *= step;
  const offset = shape[axis] > 0 ? x.offset + from * x.strides[axis] : x.offset;
  const layout = layoutOf(x);
  return makeView("slice", x, shape, strides, offset, (grad) => embed("slice", grad, layout, (z) => slice(z, axis, from, until, step)));
}

/** `length` positions of axis `dim` from `start`. @throws {RangeError} If they are not all inside. */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  checkTensor(x, "narrow", "the input");
  const axis = axisOf(dim, x.rank, "narrow");
  const from = start < 0 ? start + x.shape[axis] : start;
  if (!Number.isInteger(from) || !Number.isInteger(length) || from < 0 || length < 0 || from + length > (x.shape[axis] ?? 0)) {
    throw new RangeError(`narrow: ${length} positions from ${start} are not inside axis ${dim} of ${textOf(x.shape)}`);
  }
  return slice(x, axis, from, from + length);
}

/** Position `index` of axis `dim`, without that axis. @throws {RangeError} If it is outside. */
export function select(x: Tensor, dim: number, index: number): Tensor {
  checkTensor(x, "select", "the input");
  if (x.rank === 0) throw new ShapeError("select: a tensor without axes has no positions");
  const axis = axisOf(dim, x.rank, "select"), size = x.shape[axis];
  if (!Number.isInteger(index) || index < -size || index >= size) {
    throw new RangeError(`select: index ${index} is outside axis ${dim} of ${textOf(x.shape)}`);
  }
  const at = index < 0 ? index + size : index, layout = layoutOf(x);
  const shape = x.shape.filter((_, i) => i !== axis), strides = x.strides.filter((_, i) => i !== axis);
  return makeView(
    "select",
    x,
    shape,
    strides,
    x.offset + at * x.strides[axis],
    (grad) => embed("select", grad, layout, (z) => select(z, axis, at)),
  );
}

/** The positions of axis `dim`, each without that axis. */
export function unbind(x: Tensor, dim = 0): Tensor[] {
  checkTensor(x, "unbind", "the input");
  if (x.rank === 0) throw new ShapeError("unbind: a tensor without axes has no positions");
  const axis = axisOf(dim, x.rank, "unbind");
  return Array.from({ length: x.shape[axis] }, (_, i) => select(x, axis, i));
}

/** Pieces of `size` along `dim` (the last may be smaller), or of the sizes given, which must add up. */
export function split(x: Tensor, size: number | readonly number[], dim = 0): Tensor[] {
  checkTensor(x, "split", "the input");
  const axis = axisOf(dim, x.rank, "split"), total = x.shape[axis];
  if (total === undefined) throw new ShapeError("split: a tensor without axes cannot be split");
  let sizes: readonly number[];
  if (typeof size === "number") {
    if (!Number.isInteger(size) || size < 1) throw new RangeError(`split: size must be a whole number >= 1, got ${size}`);
    sizes = Array.from({ length: Math.max(1, Math.ceil(total / size)) }, (_, i) => Math.min(size, total - i * size));
  } else {
    sizes = size;
    const sum = sizes.reduce((a, b) => a + b, 0);
    if (sum !== total) throw new ShapeError(`split: sizes [${sizes}] add up to ${sum}, axis ${dim} has ${total}`);
  }
  let from = 0;
  return sizes.map((length) => {
    const piece = narrow(x, axis, from, length);
    from += length;
    return piece;
  });
}

/** At most `chunks` pieces of equal size along `dim`; the last may be smaller. */
export function chunk(x: Tensor, chunks: number, dim = 0): Tensor[] {
  checkTensor(x, "chunk", "the input");
  if (!Number.isInteger(chunks) || chunks < 1) throw new RangeError(`chunk: chunks must be a whole number >= 1, got ${chunks}`);
  const axis = axisOf(dim, x.rank, "chunk");
  return split(x, Math.max(1, Math.ceil(x.shape[axis] / chunks)), axis);
}

/** The diagonal `offset` places above the main one of axes `dim1` and `dim2`, as the last axis of a view. */
export function diagonal(x: Tensor, offset = 0, dim1 = 0, dim2 = 1): Tensor {
  checkTensor(x, "diagonal", "the input");
  const a = axisOf(dim1, x.rank, "diagonal"), b = axisOf(dim2, x.rank, "diagonal");
  if (a === b) throw new ShapeError(`diagonal: dim1 and dim2 are the same axis ${dim1}`);
  const length = Math.max(0, offset >= 0 ? Math.min(x.shape[a], x.shape[b] - offset) : Math.min(x.shape[a] + offset, x.shape[b]));
  const start = length === 0 ? 0 : offset >= 0 ? offset * x.strides[b] : -offset * x.strides[a];
  const rest = x.shape.map((_, i) => i).filter((i) => i !== a && i !== b), layout = layoutOf(x);
  return makeView(
    "diagonal",
    x,
    [...rest.map((i) => x.shape[i]), length],
    [...rest.map((i) => x.strides[i]), x.strides[a] + x.strides[b]],
    x.offset + start,
    (grad) => embed("diagonal", grad, layout, (z) => diagonal(z, offset, a, b)),
  );
}

/**
 * Tensors of one shape but for axis `dim`, one after the other along it. dtypes are promoted; the memory order of the first is kept.
 *
 * @throws {ShapeError} If another axis differs.
 */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  if (tensors.length === 0) throw new ShapeError("cat: expected at least one tensor");
  const [first] = tensors;
  tensors.forEach((x, i) => checkTensor(x, "cat", `tensor ${i}`, i > 0 ? first : undefined));
  const axis = axisOf(dim, first.rank, "cat");
  if (first.rank === 0) throw new ShapeError("cat: tensors without axes cannot be joined, stack() them");
  const dtype = tensors.reduce<DType>((common, x) => promoteTypes(common, x.dtype), first.dtype);
  let total = 0;
  tensors.forEach((x, i) => {
    if (x.rank !== first.rank || !x.shape.every((size, d) => d === axis || size === first.shape[d])) {
      throw new ShapeError(`cat: tensor ${i} of ${textOf(x.shape)} does not join ${textOf(first.shape)} along axis ${dim}`);
    }
    total += x.shape[axis];
  });
  const shape = first.shape.map((size, d) => d === axis ? total : size);
  const out = emptyTensor(shape, dtype, first.device, layoutLike(first, shape));
  const starts: number[] = [];
  let at = 0;
  for (const x of tensors) {
    starts.push(at);
    const window = new Tensor(out.storage, x.shape, out.strides, at * out.strides[axis], dtype, false);
    if (x.numel() > 0) copyInto(window, x);
    at += x.shape[axis];
  }
  const sizes = tensors.map((x) => x.shape[axis]);
  return record("cat", tensors, out, [], (grad, _, needs) => sizes.map((size, i) => needs[i] ? narrow(grad, axis, starts[i], size) : null));
}

/** Dense strides for `shape` in the memory order of `x`, gaps or not; row-major where `x` repeats elements. */
function layoutLike(x: Layout, shape: Shape): Shape {
  if (x.shape.some((size, i) => size > 1 && x.strides[i] === 0)) return contiguousStrides(shape);
  const order = shape.map((_, i) => i).sort((a, b) => x.strides[b] - x.strides[a] || x.shape[b] - x.shape[a] || a - b);
  return emptyOrder(shape, order);
}

function emptyOrder(shape: Shape, order: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = order.length - 1; i >= 0; i--) {
    strides[order[i]] = step;
    step *= Math.max(shape[order[i]], 1);
  }
  return strides;
}

/** Tensors of one shape along a new axis `dim`. */
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  if (tensors.length === 0) throw new ShapeError("stack: expected at least one tensor");
  const [first] = tensors;
  tensors.forEach((x, i) => {
    checkTensor(x, "stack", `tensor ${i}`, i > 0 ? first : undefined);
    if (!sameShape(x.shape, first.shape)) {
      throw new ShapeError(`stack: tensor ${i} is ${textOf(x.shape)}, the first is ${textOf(first.shape)}`);
    }
  });
  const axis = axisOf(dim, first.rank + 1, "stack");
  return cat(tensors.map((x) => unsqueeze(x, axis)), axis);
}

/** The whole tensor repeated `times[i]` times along axis i (a copy); further counts in front add axes. */
export function repeat(x: Tensor, times: readonly number[]): Tensor {
  checkTensor(x, "repeat", "the input");
  if (times.length < x.rank || !times.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new ShapeError(`repeat: [${times}] must hold at least ${x.rank} whole numbers >= 0`);
  }
  const lead = times.length - x.rank;
  const sizes = times.map((_, i) => i < lead ? 1 : x.shape[i - lead]);
  const spread = expand(reshape(x, sizes.flatMap((size) => [1, size])), sizes.flatMap((size, i) => [times[i], size]));
  return reshape(clone(spread), sizes.map((size, i) => size * times[i]));
}
