/**
 * Shape and stride arithmetic.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";

/** Sizes of the axes, outermost first. */
export type Shape = readonly number[];

/** Number of elements. */
export function numelOf(shape: Shape): number {
  let count = 1;
  for (let i = 0; i < shape.length; i++) count *= shape[i];
  return count;
}

/** `[2, 3]`. */
export function textOf(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Refuses sizes that are not whole numbers `>= 0`. */
export function checkShape(shape: Shape, op: string): void {
  if (!Array.isArray(shape)) throw new ShapeError(`${op}: a shape is an array of sizes, got ${typeof shape}`);
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new ShapeError(`${op}: sizes are whole numbers >= 0, got ${textOf(shape)}`);
    }
  }
  if (shape.length > 8) throw new ShapeError(`${op}: rank ${shape.length} exceeds 8: ${textOf(shape)}`);
  if (!Number.isSafeInteger(numelOf(shape))) throw new ShapeError(`${op}: ${textOf(shape)} has more than 2^53 elements`);
}

/** Row-major strides. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  for (let i = shape.length - 1, step = 1; i >= 0; i--) {
    strides[i] = step;
    step *= Math.max(shape[i], 1);
  }
  return strides;
}

/** Strides with axis 1 innermost: `[N, spatial..., C]` in memory. Row-major below rank 3. */
export function channelsLastStrides(shape: Shape): number[] {
  const rank = shape.length;
  if (rank < 3) return contiguousStrides(shape);
  const strides = new Array<number>(rank);
  strides[1] = 1;
  let step = Math.max(shape[1], 1);
  for (let i = rank - 1; i >= 2; i--) {
    strides[i] = step;
    step *= Math.max(shape[i], 1);
  }
  strides[0] = step;
  return strides;
}

/** True for row-major strides without gaps. */
export function isContiguous(shape: Shape, strides: Shape): boolean {
  for (let i = shape.length - 1, step = 1; i >= 0; i--) {
    if (shape[i] === 1) continue;
    if (shape[i] === 0) return true;
    if (strides[i] !== step) return false;
    step *= shape[i];
  }
  return true;
}

/** True when {@linkcode channelsLastStrides} describes the memory (axes of size 1 do not matter). */
export function isChannelsLast(shape: Shape, strides: Shape): boolean {
  const expected = channelsLastStrides(shape);
  return shape.every((size, i) => size === 1 || strides[i] === expected[i]);
}

/** True when the elements (at least one) fill their memory without gaps or overlap, in some order of the axes. */
export function isDense(shape: Shape, strides: Shape): boolean {
  const rank = shape.length;
  let step = 1;
  for (let done = 0; done < rank; done++) {
    // Selection by smallest stride: ranks are small, sorting would allocate.
    let found = false;
    for (let i = 0; i < rank && !found; i++) {
      if (shape[i] !== 1 && strides[i] === step) {
        step *= shape[i];
        found = true;
      }
    }
    if (!found) break;
  }
  return step === numelOf(shape);
}

/** An axis counted from the front; negative ones count from the end. */
export function axisOf(dim: number, rank: number, op: string): number {
  const bound = Math.max(rank, 1);
  if (!Number.isInteger(dim) || dim < -bound || dim >= bound) {
    throw new RangeError(`${op}: dim ${dim} is outside ${-bound} .. ${bound - 1} for a tensor of ${rank} axes`);
  }
  return dim < 0 ? dim + bound : dim;
}

/** Axes counted from the front, without repeats. `null` or an empty list means all. */
export function axesOf(dims: number | readonly number[] | null | undefined, rank: number, op: string): number[] {
  if (dims === null || dims === undefined) return Array.from({ length: rank }, (_, i) => i);
  const list = (typeof dims === "number" ? [dims] : dims).map((dim) => axisOf(dim, rank, op));
  if (new Set(list).size !== list.length) throw new ShapeError(`${op}: an axis appears twice in [${dims}]`);
  if (rank === 0) return [];
  return list.length > 0 ? list : Array.from({ length: rank }, (_, i) => i);
}

/** The shape that two shapes broadcast to. */
export function broadcastShapes(a: Shape, b: Shape, op: string): Shape {
  if (a === b) return a;
  const rank = Math.max(a.length, b.length);
  const shape = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const x = i <= a.length ? a[a.length - i] : 1, y = i <= b.length ? b[b.length - i] : 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(`${op}: shapes do not broadcast: ${textOf(a)} and ${textOf(b)} differ in axis -${i} (${x} and ${y})`);
    }
    shape[rank - i] = x === 1 ? y : x;
  }
  return shape;
}

/** True when both shapes are equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Strides that show `shape` expanded to `target` (0 on broadcast axes). */
export function expandedStrides(shape: Shape, strides: Shape, target: Shape): number[] {
  const lead = target.length - shape.length;
  const out = new Array<number>(target.length);
  for (let i = 0; i < target.length; i++) {
    out[i] = i < lead || (shape[i - lead] === 1 && target[i] !== 1) ? 0 : strides[i - lead];
  }
  return out;
}

/** Replaces one `-1` by the size that makes the element counts agree. */
export function inferShape(shape: Shape, numel: number, op: string): number[] {
  const out = [...shape];
  const unknown = out.indexOf(-1);
  if (unknown >= 0) {
    out[unknown] = 1;
    checkShape(out, op);
    const known = numelOf(out);
    if (out.length === 0 || known === 0 || numel % known !== 0) {
      throw new ShapeError(`${op}: ${textOf(shape)} does not fit ${numel} elements`);
    }
    out[unknown] = numel / known;
  }
  checkShape(out, op);
  if (numelOf(out) !== numel) {
    throw new ShapeError(`${op}: ${textOf(shape)} has ${numelOf(out)} elements, the tensor has ${numel}`);
  }
  return out;
}

/** Strides of a view of another shape, or `null` when the elements would have to be copied. */
export function viewStrides(shape: Shape, strides: Shape, target: Shape): number[] | null {
  if (numelOf(shape) === 0) return contiguousStrides(target);
  const out = new Array<number>(target.length);
  // Walk both shapes from the innermost axis, matching runs of axes that are contiguous with each other.
  let view = target.length - 1;
  let chunkStride = shape.length > 0 ? strides[shape.length - 1] : 1;
  let chunk = 1, covered = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    chunk *= shape[axis];
    const ends = axis === 0 || (shape[axis - 1] !== 1 && strides[axis - 1] !== chunk * chunkStride);
    if (!ends) continue;
    while (view >= 0 && (covered < chunk || target[view] === 1)) {
      out[view] = covered * chunkStride;
      covered *= target[view];
      view--;
    }
    if (covered !== chunk) return null;
    if (axis > 0) {
      chunkStride = strides[axis - 1];
      chunk = 1;
      covered = 1;
    }
  }
  for (; view >= 0; view--) {
    if (target[view] !== 1) return null;
    out[view] = 1;
  }
  return out;
}
