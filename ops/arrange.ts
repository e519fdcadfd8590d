/**
 * Elements in another place: reversed, rolled, on or beside a diagonal, spread over a grid.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { axesOf, axisOf, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { clone, copyInto } from "./copy.ts";
import { zeros } from "./creation.ts";
import { checkTensor, emptyLike, native } from "./native.ts";
import { cat, diagonal, expand, narrow, reshape, stack, transpose } from "./view.ts";

/**
 * Axes reversed (a copy).
 *
 * @example
 * ```ts
 * import { flip, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(flip(tensor([[1, 2], [3, 4]]), 1).tolist(), [[2, 1], [4, 3]]);
 * ```
 */
export function flip(x: Tensor, dims: number | readonly number[]): Tensor {
  checkTensor(x, "flip", "the input");
  const list = typeof dims === "number" ? [dims] : dims;
  const axes = list.length === 0 ? [] : axesOf(list, x.rank, "flip");
  const mask = axes.reduce((bits, axis) => bits | 1 << axis, 0), out = emptyLike(x);
  native(x.device, (lib, f) => lib.dg_flip(f.pointer, f.put(out), f.put(x), mask));
  return record("flip", [x], out, [], (grad) => [flip(grad, axes)]);
}

/**
 * Elements moved along axes, those pushed out at the end coming back at the start.
 *
 * @param shifts Positions to move by, for each of `dims`.
 * @param dims Axes. Default: the flattened tensor.
 */
export function roll(x: Tensor, shifts: number | readonly number[], dims: number | readonly number[] | null = null): Tensor {
  checkTensor(x, "roll", "the input");
  const steps = typeof shifts === "number" ? [shifts] : shifts;
  if (!steps.every(Number.isInteger)) throw new RangeError(`roll: shifts must be whole numbers, got [${steps}]`);
  const list = dims === null || (Array.isArray(dims) && dims.length === 0) ? null : typeof dims === "number" ? [dims] : dims;
  if (list === null) {
    if (steps.length !== 1) throw new ShapeError(`roll: ${steps.length} shifts need as many dims`);
    return reshape(rollAxis(reshape(x, [-1]), steps[0], 0), x.shape);
  }
  if (steps.length !== list.length) throw new ShapeError(`roll: ${steps.length} shifts and ${list.length} dims`);
  if (x.rank === 0) throw new ShapeError("roll: a tensor without axes is rolled without dims");
  const y = list.reduce((y, dim, i) => rollAxis(y, steps[i], axisOf(dim, x.rank, "roll")), x);
  return y === x ? clone(x) : y;
}

function rollAxis(x: Tensor, shift: number, axis: number): Tensor {
  const size = x.shape[axis];
  if (x.numel() === 0) return clone(x);
  const start = ((-shift % size) + size) % size;
  return start === 0 ? clone(x) : cat([narrow(x, axis, start, size - start), narrow(x, axis, 0, start)], axis);
}

/** Turned by `k` quarter turns in the plane of two axes, from the first towards the second. */
export function rot90(x: Tensor, k = 1, dims: readonly [number, number] = [0, 1]): Tensor {
  checkTensor(x, "rot90", "the input");
  if (!Number.isInteger(k)) throw new RangeError(`rot90: k must be a whole number, got ${k}`);
  if (x.rank < 2) throw new ShapeError(`rot90: takes at least 2 axes, got ${textOf(x.shape)}`);
  const a = axisOf(dims[0], x.rank, "rot90"), b = axisOf(dims[1], x.rank, "rot90");
  if (dims.length !== 2 || a === b) throw new ShapeError(`rot90: dims must be two different axes, got [${dims}]`);
  const turns = ((k % 4) + 4) % 4;
  if (turns === 0) return clone(x);
  if (turns === 2) return flip(x, [a, b]);
  return turns === 1 ? transpose(flip(x, b), a, b) : flip(transpose(x, a, b), b);
}

function triangle(name: string, x: Tensor, offset: number, upper: boolean): Tensor {
  checkTensor(x, name, "the input");
  if (x.rank < 2) throw new ShapeError(`${name}: takes at least 2 axes, got ${textOf(x.shape)}`);
  if (!Number.isSafeInteger(offset)) throw new RangeError(`${name}: the diagonal must be a whole number, got ${offset}`);
  const out = emptyLike(x);
  native(x.device, (lib, f) => lib.dg_triangle(f.pointer, f.put(out), f.put(x), offset, upper ? 1 : 0));
  return record(name, [x], out, [], (grad) => [triangle(name, grad, offset, upper)]);
}

/** Matrices with 0 above the diagonal that lies `diagonal` places above the main one. */
export function tril(x: Tensor, diagonal = 0): Tensor {
  return triangle("tril", x, diagonal, false);
}

/** Matrices with 0 below the diagonal that lies `diagonal` places above the main one. */
export function triu(x: Tensor, diagonal = 0): Tensor {
  return triangle("triu", x, diagonal, true);
}

/** A vector on the diagonal of a new matrix, or a copy of the diagonal of a matrix. */
export function diag(x: Tensor, offset = 0): Tensor {
  checkTensor(x, "diag", "the input");
  if (x.rank === 1) return diagEmbed(x, offset);
  if (x.rank === 2) return clone(diagonal(x, offset));
  throw new ShapeError(`diag: takes 1 or 2 axes, got ${textOf(x.shape)}`);
}

/** The last axis spread over the diagonal (`offset` places above the main one) of two new axes, 0 elsewhere. */
export function diagEmbed(x: Tensor, offset = 0, dim1 = -2, dim2 = -1): Tensor {
  checkTensor(x, "diagEmbed", "the input");
  if (x.rank === 0) throw new ShapeError("diagEmbed: takes at least 1 axis");
  if (!Number.isSafeInteger(offset)) throw new RangeError(`diagEmbed: offset must be a whole number, got ${offset}`);
  const a = axisOf(dim1, x.rank + 1, "diagEmbed"), b = axisOf(dim2, x.rank + 1, "diagEmbed");
  if (a === b) throw new ShapeError(`diagEmbed: dim1 and dim2 are the same axis ${dim1}`);
  const size = x.shape[x.rank - 1] + Math.abs(offset), shape: number[] = x.shape.slice(0, -1);
  for (const axis of [Math.min(a, b), Math.max(a, b)]) shape.splice(axis, 0, size);
  const out = zeros(shape, { dtype: x.dtype, device: x.device }), window = diagonal(out, offset, a, b);
  copyInto(window, x);
  window.dispose();
  return record("diagEmbed", [x], out, [], (grad) => [diagonal(grad, offset, a, b)]);
}

/**
 * Coordinates of the points of a grid, as views.
 *
 * @param tensors One axis each, the positions along the axes of the grid.
 * @param options.indexing `"ij"`: axis i of the results runs along tensor i. `"xy"`: the first two exchanged. Default `"ij"`.
 */
export function meshgrid(tensors: readonly Tensor[], options?: { indexing?: "ij" | "xy" }): Tensor[] {
  const indexing = options?.indexing ?? "ij";
  if (indexing !== "ij" && indexing !== "xy") {
    throw new RangeError(`meshgrid: indexing must be "ij" or "xy", got ${JSON.stringify(indexing)}`);
  }
  if (tensors.length === 0) throw new ShapeError("meshgrid: expected at least one tensor");
  tensors.forEach((x, i) => {
    checkTensor(x, "meshgrid", `tensor ${i}`, tensors[0]);
    if (x.rank > 1) throw new ShapeError(`meshgrid: tensor ${i} must have at most one axis, got ${textOf(x.shape)}`);
  });
  const order = tensors.map((_, i) => i);
  if (indexing === "xy" && order.length > 1) [order[0], order[1]] = [1, 0];
  const shape: Shape = order.map((i) => tensors[i].numel());
  return tensors.map((x, i) => expand(reshape(x, order.map((at) => at === i ? x.numel() : 1)), shape));
}

/** All combinations of the elements of tensors with one axis, `[n1 * n2 * ..., count]`; of one tensor, the tensor itself. */
export function cartesianProd(...tensors: readonly Tensor[]): Tensor {
  if (tensors.length === 1) return clone(tensors[0]);
  return stack(meshgrid(tensors).map((x) => reshape(x, [-1])), 1);
}
