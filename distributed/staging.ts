/**
 * Memory that collectives work in where they cannot work in a tensor's own.
 *
 * @module
 */
import { allocate } from "../ffi/storage.ts";
import { copyInto } from "../ops/copy.ts";
import { bytesOf } from "../tensor/dtype.ts";
import { contiguousStrides, numelOf, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** A tensor that takes part in a collective: itself, or a contiguous copy. */
export interface Part {
  readonly tensor: Tensor;
  /** Holds memory of the collective's own. */
  readonly staged: boolean;
  /** Copies the result to where it belongs. */
  readonly finish: (() => void) | null;
}

/** True if a collective can work where the tensor lies: without gaps, and not in memory of JavaScript's, which may be detached meanwhile. */
export function lies(x: Tensor): boolean {
  return x.isContiguous() && x.storage.lent === null;
}

/** A contiguous tensor of the collective's own, like `like` but for its shape. No scope knows it: it lives as long as the work. */
export function staged(shape: Shape, like: Tensor): Tensor {
  const storage = allocate(numelOf(shape) * bytesOf(like.dtype), like.device, shape);
  storage.retain();
  return new Tensor(storage, shape, contiguousStrides(shape), 0, like.dtype, false);
}

/** Part `i` of a staged tensor. */
export function piece(whole: Tensor, shape: Shape, i: number): Tensor {
  return new Tensor(whole.storage, shape, contiguousStrides(shape), i * numelOf(shape), whole.dtype, false);
}

/** Copies a result to where it belongs, unless that was disposed of meanwhile. */
export function putBack(x: Tensor, result: Tensor): void {
  if (!x.disposed && x.storage.id !== 0 && !x.storage.detached) copyInto(x, result);
}
