/**
 * Dropout.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { BinaryOp } from "../ffi/op_codes.ts";
import { recorder } from "../tensor/recorder.ts";
import { scope } from "../tensor/scope.ts";
import { type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkProbability, defaultGenerator, fillKernel, type Generator, type StreamPart } from "./generator.ts";
import { checkFloat, checkTensor, emptyLike, emptyTensor, native } from "./native.ts";

/** What the dropout functions take besides the input and `p`. */
export interface DropoutOptions {
  /** Drop; otherwise the input is returned as it is. Default `true`. */
  training?: boolean;
  /** Source of the numbers. Default {@linkcode defaultGenerator}. */
  generator?: Generator;
}

/**
 * Dropout (Srivastava et al. 2014): each element is 0 with probability `p`, else divided by `1 - p`, so that the mean stays.
 *
 * No mask is kept: backward draws the same numbers again. Which elements are dropped goes by their order in memory.
 *
 * @param p Probability of a 0, in `[0, 1]`. Default `0.5`. `p = 0` changes nothing, `p = 1` gives zeros.
 * @param options.training When `false`, `x` itself is returned. Default `true`.
 * @throws {RangeError} If `p` is outside `[0, 1]`.
 *
 * Derivative: the same mask and factor.
 *
 * @example
 * ```ts
 * import { dropout, ones } from "@dinograd/dinograd";
 * import { assert } from "@std/assert";
 * const y = dropout(ones([1000]), 0.5);
 * assert(y.data().every((v) => v === 0 || v === 2));
 * ```
 */
export function dropout(x: Tensor, p = 0.5, options?: DropoutOptions): Tensor {
  checkTensor(x, "dropout", "the input");
  checkFloat(x, "dropout");
  checkProbability("dropout", p);
  if (options?.training === false || p === 0) return x;
  const part = (options?.generator ?? defaultGenerator).take(Math.ceil(x.numel() / 4));
  const y = emptyLike(x), strides = y.strides;
  dropoutKernel(y, x, p, part);
  return record("dropout", [x], y, [], (grad) => [dropoutAgain(grad, strides, p, part)]);
}

function dropoutKernel(y: Tensor, x: Tensor, p: number, part: StreamPart): void {
  recorder?.draws(part, 3);
  native(x.device, (lib, f) => lib.dg_dropout(f.pointer, f.put(y), f.put(x), p, ...part));
}

/** The same mask on a gradient; linear in it, so it is its own derivative's rule. */
function dropoutAgain(grad: Tensor, strides: Shape, p: number, part: StreamPart): Tensor {
  const dx = emptyTensor(grad.shape, grad.dtype, grad.device, strides);
  dropoutKernel(dx, grad, p, part);
  return record("dropout (derivative)", [grad], dx, [], (again) => [dropoutAgain(again, strides, p, part)]);
}

/** Factors per channel of `[N, C, ...]` (or `[C, ...]`), as a tensor that broadcasts. */
function channelMask(x: Tensor, p: number, axes: number, generator?: Generator): Tensor {
  const mask = emptyTensor(x.shape.map((size, i) => i < axes ? size : 1), x.dtype, x.device);
  fillKernel(mask, "bernoulli", [1 - p], generator);
  if (p > 0 && p < 1) native(x.device, (lib, f) => lib.dg_binary_scalar(f.pointer, f.put(mask), f.put(mask), 1 / (1 - p), BinaryOp.mul, 0));
  return mask;
}

function channelDropout(name: string, x: Tensor, p: number, spatial: number, options?: DropoutOptions): Tensor {
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  checkProbability(name, p);
  if (x.rank !== spatial + 1 && x.rank !== spatial + 2) {
    throw new ShapeError(`${name}: takes ${spatial + 2} axes [N, C, ...] or ${spatial + 1} [C, ...], got ${textOf(x.shape)}`);
  }
  if (options?.training === false || p === 0) return x;
  const mask = channelMask(x, p, x.rank - spatial, options?.generator);
  const y = x.mul(mask);
  mask.dispose();
  return y;
}

/** {@linkcode dropout} of whole channels of `[N, C, L]` or `[C, L]`. @throws {ShapeError} For other ranks. */
export function dropout1d(x: Tensor, p = 0.5, options?: DropoutOptions): Tensor {
  return channelDropout("dropout1d", x, p, 1, options);
}

/** {@linkcode dropout} of whole channels of `[N, C, H, W]` or `[C, H, W]`. @throws {ShapeError} For other ranks. */
export function dropout2d(x: Tensor, p = 0.5, options?: DropoutOptions): Tensor {
  return channelDropout("dropout2d", x, p, 2, options);
}

/** {@linkcode dropout} of whole channels of `[N, C, D, H, W]` or `[C, D, H, W]`. @throws {ShapeError} For other ranks. */
export function dropout3d(x: Tensor, p = 0.5, options?: DropoutOptions): Tensor {
  return channelDropout("dropout3d", x, p, 3, options);
}

/** SELU's value far below 0, which takes the place of 0. */
const ALPHA_PRIME = -1.7580993408473766;

function alpha(name: string, x: Tensor, p: number, axes: number, options?: DropoutOptions): Tensor {
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  checkProbability(name, p);
  if (options?.training === false || p === 0) return x;
  return scope(() => {
    if (p === 1) return x.mul(0);
    const keep = emptyTensor(x.shape.map((size, i) => i < axes ? size : 1), x.dtype, x.device);
    fillKernel(keep, "bernoulli", [1 - p], options?.generator);
    const a = 1 / Math.sqrt((1 - p) * (1 + p * ALPHA_PRIME * ALPHA_PRIME)), b = -a * ALPHA_PRIME * p;
    // a (x keep + alpha' (1 - keep)) + b
    return x.mul(keep.mul(a)).add(keep.mul(-a * ALPHA_PRIME).add(a * ALPHA_PRIME + b));
  });
}

/**
 * Dropout that keeps mean and variance of SELU's outputs (Klambauer et al. 2017): dropped elements become `-1.758`, then all are scaled.
 *
 * @throws {RangeError} If `p` is outside `[0, 1]`.
 */
export function alphaDropout(x: Tensor, p = 0.5, options?: DropoutOptions): Tensor {
  return alpha("alphaDropout", x, p, 8, options);
}

/** {@linkcode alphaDropout} of whole channels of `[N, C, ...]`. @throws {ShapeError} If `x` has fewer than 2 axes. */
export function featureAlphaDropout(x: Tensor, p = 0.5, options?: DropoutOptions): Tensor {
  checkTensor(x, "featureAlphaDropout", "the input");
  if (x.rank < 2) throw new ShapeError(`featureAlphaDropout: takes [N, C, ...], got ${textOf(x.shape)}`);
  return alpha("featureAlphaDropout", x, p, 2, options);
}
