/**
 * Reductions over axes.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ReduceOp } from "../ffi/op_codes.ts";
import type { DType } from "../tensor/dtype.ts";
import { axesOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { to } from "./copy.ts";
import { checkTensor, emptyTensor, native } from "./native.ts";
import { expand, reshape } from "./view.ts";

/** Axes to reduce: one, several, or all (`null`, the default). */
export type Dims = number | readonly number[] | null;

function reduceKernel(x: Tensor, axes: readonly number[], op: keyof typeof ReduceOp, dtype: DType): Tensor {
  const mask = axes.reduce((bits, axis) => bits | 1 << axis, 0);
  const out = emptyTensor(x.shape.map((size, i) => axes.includes(i) ? 1 : size), dtype, x.device);
  native(x.device, (lib, f) => lib.dg_reduce(f.pointer, f.put(out), f.put(x), mask, ReduceOp[op]));
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

/**
 * Sum. Integers and bool are added as int64.
 *
 * @param dim Axes to sum over. Default: all.
 * @param options.keepdim Keep them with size 1. Default `false`.
 */
export function sum(x: Tensor, dim: Dims = null, options?: { keepdim?: boolean; dtype?: DType }): Tensor {
  checkTensor(x, "sum", "the input");
  const axes = axesOf(dim, x.rank, "sum");
  const input = to(x, options?.dtype ?? (x.isFloat ? x.dtype : "int64"));
  const shape = input.shape, kept = keptShape(input, axes);
  const y = finish(reduceKernel(input, axes, "sum", input.dtype), axes, options?.keepdim ?? false);
  return record("sum", [input], y, [], (grad) => [expand(reshape(grad, kept), shape)]);
}

/** True where any element is not 0. */
export function any(x: Tensor, dim: Dims = null, options?: { keepdim?: boolean }): Tensor {
  checkTensor(x, "any", "the input");
  const axes = axesOf(dim, x.rank, "any");
  return finish(reduceKernel(to(x, "bool"), axes, "any", "bool"), axes, options?.keepdim ?? false);
}
