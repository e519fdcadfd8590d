/**
 * Softmax and its relatives.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { context } from "../tensor/context.ts";
import { scope } from "../tensor/scope.ts";
import { axesOf, axisOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { add, eq, mul, sub, where } from "./binary.ts";
import { contiguous } from "./copy.ts";
import { checkFloat, checkTensor, emptyLike, native } from "./native.ts";
import { amax, type Dims, sum } from "./reduction.ts";
import { abs, exp, log } from "./unary.ts";
import { reshape } from "./view.ts";

function normalised(x: Tensor, dim: number, logarithm: boolean): Tensor {
  const name = logarithm ? "logSoftmax" : "softmax";
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  const axis = axisOf(dim, x.rank, name);
  if (x.rank === 0) { // one element, one row
    const row = reshape(x, [1]), y = normalised(row, 0, logarithm), z = reshape(y, []);
    row.dispose();
    y.dispose();
    return z;
  }
  const flag = logarithm ? 1 : 0;
  const out = emptyLike(x);
  native(x.device, (lib, f) => lib.dg_softmax(f.pointer, f.put(out), f.put(x), axis, flag));
  return record(name, [x], out, [out], (grad, [y]) => {
    if (context().grad) {
      if (logarithm) return [sub(grad, mul(exp(y), sum(grad, axis, { keepdim: true })))];
      return [mul(y, sub(grad, sum(mul(grad, y), axis, { keepdim: true })))];
    }
    const dx = emptyLike(y);
    native(y.device, (lib, f) => lib.dg_softmax_backward(f.pointer, f.put(dx), f.put(grad), f.put(y), axis, flag));
    return [dx];
  });
}

/**
 * Softmax: `y[i] = exp(x[i]) / sum over j of exp(x[j])` along `dim`, without overflow.
 *
 * A row of -inf only, or with +inf, gives NaN.
 *
 * @param x Floating-point, any shape and strides.
 * @param dim The axis that is normalised. Default -1.
 * @throws {RangeError} If `dim` does not exist.
 * @throws {DTypeError} If `x` is not floating-point.
 *
 * Derivative: `dx = y * (dy - sum(dy * y))`.
 *
 * @example
 * ```ts
 * import { softmax, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const y = softmax(tensor([0, Math.log(3)]));
 * assertAlmostEquals(y.select(0, 1).item(), 0.75, 1e-6);
 * ```
 */
export function softmax(x: Tensor, dim = -1): Tensor {
  return normalised(x, dim, false);
}

/**
 * Logarithm of {@linkcode softmax}: `y[i] = x[i] - log(sum over j of exp(x[j]))`, exact where the softmax underflows.
 *
 * @param x Floating-point, any shape and strides.
 * @param dim The axis that is normalised. Default -1.
 * @throws {RangeError} If `dim` does not exist.
 *
 * Derivative: `dx = dy - exp(y) * sum(dy)`.
 */
export function logSoftmax(x: Tensor, dim = -1): Tensor {
  return normalised(x, dim, true);
}

/**
 * `log(sum(exp(x)))` over axes, without overflow.
 *
 * -inf where every element is -inf, +inf where one is +inf; the derivative is NaN at both.
 *
 * @param x Floating-point, any shape.
 * @param dim Axes to reduce. Default: all.
 * @param options.keepdim Keep them with size 1. Default `false`.
 *
 * Derivative: `dy * exp(x - y)`, the softmax.
 *
 * @example
 * ```ts
 * import { logsumexp, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * assertAlmostEquals(logsumexp(tensor([1000, 1000])).item(), 1000 + Math.log(2), 1e-3);
 * ```
 */
export function logsumexp(x: Tensor, dim: Dims = null, options?: { keepdim?: boolean }): Tensor {
  checkTensor(x, "logsumexp", "the input");
  checkFloat(x, "logsumexp");
  const axes = axesOf(dim, x.rank, "logsumexp");
  const kept = x.shape.map((size, i) => axes.includes(i) ? 1 : size);
  const shape = options?.keepdim ? kept : x.shape.filter((_, i) => !axes.includes(i));
  return scope(() => {
    const empty = axes.some((axis) => x.shape[axis] === 0);
    const input = x.detach();
    let y: Tensor;
    if (empty) {
      y = log(sum(input, axes, { keepdim: true }));
    } else {
      const top = axes.length === 0 ? input : amax(input, axes, { keepdim: true });
      const finite = where(eq(abs(top), Infinity), 0, top);
      y = add(log(sum(exp(sub(input, finite)), axes, { keepdim: true })), finite);
    }
    const out = contiguous(y).view(shape);
    return record("logsumexp", [x], out, [x, out], (grad, [input, value]) => {
      return [mul(reshape(grad, kept), exp(sub(input, reshape(value, kept))))];
    });
  });
}
