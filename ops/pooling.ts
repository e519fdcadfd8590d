/**
 * Pooling: maxima and averages over windows, and max unpooling.
 *
 * Shapes: `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]` for 1d, 2d and 3d, or the same without `N`. A window along an axis starts at
 * `o * stride - padding` and takes `kernelSize` positions, `dilation` apart; the output has
 * `floor((size + 2 * padding - dilation * (kernelSize - 1) - 1) / stride) + 1` of them (`ceil` with `ceilMode`, without windows that
 * would start in the right padding). The memory order of the input (channels-last or row-major) is kept.
 *
 * @module
 */
import { record, recording } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { channelsLastStrides, contiguousStrides, isChannelsLast, numelOf, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { channelsLast, contiguous } from "./copy.ts";
import { checkDType, checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { squeeze, unsqueeze } from "./view.ts";

/** A size for each pooled axis, or one number for all of them. */
export type PoolSize = number | readonly number[];

/** Options of max pooling. */
export interface MaxPoolOptions {
  /** Steps between windows. Default: `kernelSize`. */
  stride?: PoolSize;
  /** Positions added on both sides, at most half of the (dilated) window; they never win. Default `0`. */
  padding?: PoolSize;
  /** Steps between the positions of a window. Default `1`. */
  dilation?: PoolSize;
  /** Keep a last window that reaches over the border. Default `false`. */
  ceilMode?: boolean;
  /** Return the winners' positions, too. Default `false`. */
  returnIndices?: boolean;
}

/** Options of average pooling. */
export interface AvgPoolOptions {
  /** Steps between windows. Default: `kernelSize`. */
  stride?: PoolSize;
  /** Zeros added on both sides, at most half of the window. Default `0`. */
  padding?: PoolSize;
  /** Keep a last window that reaches over the border. Default `false`. */
  ceilMode?: boolean;
  /** Count the padding when dividing. Default `true`. */
  countIncludePad?: boolean;
  /** Divide by this instead, not 0. Default: the number of positions. */
  divisorOverride?: number | null;
}

/** Options of max unpooling. */
export interface MaxUnpoolOptions {
  /** Window of the pooling that is undone. */
  kernelSize: PoolSize;
  /** Its stride. Default: `kernelSize`. */
  stride?: PoolSize;
  /** Its padding. Default `0`. */
  padding?: PoolSize;
  /** Spatial sizes, or the whole shape, of the result. Default: `(size - 1) * stride - 2 * padding + kernelSize`. */
  outputSize?: Shape | null;
}

/** Window arguments of the native calls, always for three axes. Kernel 0: adaptive. */
interface Window {
  readonly name: string;
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[];
  readonly dilation: readonly number[];
}

type Triple = [number, number, number];

/** `value` for each of `axes` axes, checked. */
function sizes(value: PoolSize, axes: number, least: number, op: string, what: string): number[] {
  const list = typeof value === "number" ? new Array<number>(axes).fill(value) : [...value];
  if (list.length !== axes) throw new RangeError(`${op}: ${what} must be a number or ${axes} of them, got [${list.join(", ")}]`);
  for (const v of list) {
    if (!Number.isInteger(v) || v < least || v > 2 ** 30) {
      throw new RangeError(`${op}: ${what} must be whole numbers >= ${least}, got ${textOf(list)}`);
    }
  }
  return list;
}

/** Three values, the given ones last. */
function triple(list: readonly number[], fill: number): Triple {
  return [...new Array<number>(3 - list.length).fill(fill), ...list] as Triple;
}

function makeWindow(name: string, axes: number, kernelSize: PoolSize, options: MaxPoolOptions | undefined, effective: boolean): Window {
  const kernel = sizes(kernelSize, axes, 1, name, "kernelSize");
  const stride = sizes(options?.stride ?? kernel, axes, 1, name, "stride");
  const padding = sizes(options?.padding ?? 0, axes, 0, name, "padding");
  const dilation = sizes(options?.dilation ?? 1, axes, 1, name, "dilation");
  padding.forEach((p, i) => {
    const reach = effective ? (kernel[i] - 1) * dilation[i] + 1 : kernel[i];
    if (p > Math.floor(reach / 2)) {
      throw new RangeError(`${name}: padding must be at most half of the window, got ${p} for a window of ${reach}`);
    }
  });
  return { name, kernel: triple(kernel, 1), stride: triple(stride, 1), padding: triple(padding, 0), dilation: triple(dilation, 1) };
}

function adaptiveWindow(name: string, axes: number): Window {
  const kernel = triple(new Array<number>(axes).fill(0), 1);
  return { name, kernel, stride: [1, 1, 1], padding: [0, 0, 0], dilation: [1, 1, 1] };
}

/** Sizes of the pooled axes. */
function pooledSizes(window: Window, spatial: Shape, ceil: boolean): number[] {
  const skip = 3 - spatial.length;
  return spatial.map((size, i) => {
    const [k, s, p, d] = [window.kernel, window.stride, window.padding, window.dilation].map((list) => list[i + skip]);
    const room = size + 2 * p - d * (k - 1) - 1;
    let count = Math.floor((room + (ceil ? s - 1 : 0)) / s) + 1;
    if (ceil && (count - 1) * s >= size + p) count--;
    if (count < 1) {
      throw new ShapeError(
        `${window.name}: a window of ${d * (k - 1) + 1} does not fit an axis of ${size} with padding ${p}, spatial sizes ${
          textOf(spatial)
        }`,
      );
    }
    return count;
  });
}

/** Refuses ranks other than batched or not; true for batched. */
function checkInput(x: Tensor, axes: number, op: string): boolean {
  checkTensor(x, op, "the input");
  if (x.rank !== axes + 2 && x.rank !== axes + 1) {
    throw new ShapeError(`${op}: takes ${axes + 2} axes, or ${axes + 1} without a batch, got ${textOf(x.shape)}`);
  }
  checkFloat(x, op);
  const batched = x.rank === axes + 2;
  if (x.shape.slice(batched ? 1 : 0).includes(0)) throw new ShapeError(`${op}: only the batch may be empty, got ${textOf(x.shape)}`);
  return batched;
}

/** Runs `body` on a batch, adding one of size 1 for the time if `x` has none. */
function batchwise<R extends readonly Tensor[]>(x: Tensor, batched: boolean, body: (x: Tensor) => R): R {
  if (batched) return body(x);
  const input = unsqueeze(x, 0), results = body(input);
  input.dispose();
  return results.map((y) => {
    const out = squeeze(y, 0);
    y.dispose();
    return out;
  }) as readonly Tensor[] as R;
}

const inChannelsLast = (x: Tensor): boolean => !x.isContiguous() && isChannelsLast(x.shape, x.strides);

function layoutStrides(shape: Shape, last: boolean): number[] {
  return last ? channelsLastStrides(shape) : contiguousStrides(shape);
}

function arrange(x: Tensor, last: boolean): Tensor {
  return last ? channelsLast(x) : contiguous(x);
}

type Twelve = [...Triple, ...Triple, ...Triple, ...Triple];

const twelve = (w: Window): Twelve => [...w.kernel, ...w.stride, ...w.padding, ...w.dilation] as Twelve;

/** `dx[i]`: the sum of `dy[o]` over the windows that `i` won. */
function spreadToWinners(dy: Tensor, codes: Tensor, shape: Shape, window: Window): Tensor {
  const last = inChannelsLast(codes), grad = arrange(dy, last);
  const dx = emptyTensor(shape, dy.dtype, dy.device, layoutStrides(shape, last));
  native(dy.device, (lib, f) => lib.dg_max_pool_backward(f.pointer, f.put(dx), f.put(grad), f.put(codes), ...twelve(window)));
  record(`${window.name} (derivative)`, [grad], dx, [codes], (again, [kept]) => [takeWinners(again, kept, window)]);
  if (grad !== dy) grad.dispose();
  return dx;
}

/** `y[o]`: the element of `x` that won window `o`. */
function takeWinners(x: Tensor, codes: Tensor, window: Window): Tensor {
  const last = inChannelsLast(codes), input = arrange(x, last);
  const y = emptyTensor(codes.shape, x.dtype, x.device, codes.strides);
  native(x.device, (lib, f) => lib.dg_max_pool_gather(f.pointer, f.put(y), f.put(input), f.put(codes), ...twelve(window)));
  const from = x.shape;
  record(`${window.name} (derivative)`, [input], y, [codes], (grad, [kept]) => [spreadToWinners(grad, kept, from, window)]);
  if (input !== x) input.dispose();
  return y;
}

/** Max pooling of a batch; the second result is there on request. */
function maxKernel(x: Tensor, window: Window, spatial: Shape, returnIndices: boolean): Tensor[] {
  const shape = [x.shape[0], x.shape[1], ...spatial], strides = layoutStrides(shape, inChannelsLast(x));
  const y = emptyTensor(shape, x.dtype, x.device, strides);
  const indices = returnIndices ? emptyTensor(shape, "int64", x.device, strides) : null;
  let codes: Tensor | null = null;
  if (recording(x)) {
    const skip = 3 - spatial.length;
    const extent = numelOf(spatial.map((out, i) => window.kernel[i + skip] || Math.ceil(x.shape[i + 2] / out) + 1));
    if (extent > 2 ** 31 - 1) throw new RangeError(`${window.name}: a window of ${extent} positions is too large`);
    codes = emptyTensor(shape, extent <= 256 ? "uint8" : "int32", x.device, strides);
  }
  native(x.device, (lib, f) => lib.dg_max_pool(f.pointer, f.put(y), f.put(indices), f.put(codes), f.put(x), ...twelve(window)));
  if (codes !== null) {
    const from = x.shape;
    record(window.name, [x], y, [codes], (grad, [kept]) => [spreadToWinners(grad, kept, from, window)]);
    codes.dispose();
  }
  return indices === null ? [y] : [y, indices];
}

/** Result of max pooling with options `O`: `[values, indices]` with `returnIndices: true`, else the values. */
export type Pooled<O extends { returnIndices?: boolean }> = O extends { returnIndices: true } ? [Tensor, Tensor] : Tensor;

function maxPool(name: string, axes: number, x: Tensor, kernelSize: PoolSize, options?: MaxPoolOptions): Tensor | [Tensor, Tensor] {
  const batched = checkInput(x, axes, name), window = makeWindow(name, axes, kernelSize, options, true);
  const spatial = pooledSizes(window, x.shape.slice(-axes), options?.ceilMode ?? false);
  const results = batchwise(x, batched, (input) => maxKernel(input, window, spatial, options?.returnIndices ?? false));
  return results.length === 2 ? results as [Tensor, Tensor] : results[0];
}

/**
 * Maxima over windows of the last axis.
 *
 * @param x Input, shape `[N, C, L]` or `[C, L]`, any float dtype.
 * @param kernelSize Window.
 * @param options Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices` (then `[values, indices]`).
 * @throws {ShapeError} If the rank does not fit or no window does.
 * @throws {RangeError} If an argument is not a whole number in its range, or the padding exceeds half of the window.
 *
 * See {@linkcode maxPool2d} for ties, NaN and the derivative.
 */
export function maxPool1d<const O extends MaxPoolOptions = MaxPoolOptions>(x: Tensor, kernelSize: PoolSize, options?: O): Pooled<O> {
  return maxPool("maxPool1d", 1, x, kernelSize, options) as Pooled<O>;
}

/**
 * Maxima over windows of the last two axes.
 *
 * Of equal maxima the first wins, NaN wins over numbers; the gradient goes to the winner. `indices` (int64) hold the winner's position
 * in its plane, `h * W + w`; -1 in a dilated window that meets no element.
 *
 * @param x Input, shape `[N, C, H, W]` or `[C, H, W]`, any float dtype.
 * @param kernelSize Window, one number or `[height, width]`.
 * @param options Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices` (then `[values, indices]`).
 * @throws {ShapeError} If the rank does not fit or no window does.
 * @throws {RangeError} If an argument is not a whole number in its range, or the padding exceeds half of the window.
 *
 * @example
 * ```ts
 * import { maxPool2d, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const [y, indices] = maxPool2d(tensor([[[1, 2, 5, 0], [4, 3, 5, 1]]]), 2, { returnIndices: true });
 * assertEquals(y.tolist(), [[[4, 5]]]);
 * assertEquals(indices.to("int32").tolist(), [[[4, 2]]]);
 * ```
 */
export function maxPool2d<const O extends MaxPoolOptions = MaxPoolOptions>(x: Tensor, kernelSize: PoolSize, options?: O): Pooled<O> {
  return maxPool("maxPool2d", 2, x, kernelSize, options) as Pooled<O>;
}

/** {@linkcode maxPool2d} over the last three axes, of `[N, C, D, H, W]` or `[C, D, H, W]`. */
export function maxPool3d<const O extends MaxPoolOptions = MaxPoolOptions>(x: Tensor, kernelSize: PoolSize, options?: O): Pooled<O> {
  return maxPool("maxPool3d", 3, x, kernelSize, options) as Pooled<O>;
}

/** Average pooling's arguments beside the window. */
interface Divisor {
  readonly include: number;
  readonly override: number;
}

type Nine = [...Triple, ...Triple, ...Triple];

const nine = (w: Window): Nine => [...w.kernel, ...w.stride, ...w.padding] as Nine;

function averageKernel(x: Tensor, shape: Shape, window: Window, divisor: Divisor): Tensor {
  const last = inChannelsLast(x), y = emptyTensor(shape, x.dtype, x.device, layoutStrides(shape, last));
  native(x.device, (lib, f) => lib.dg_avg_pool(f.pointer, f.put(y), f.put(x), ...nine(window), divisor.include, divisor.override));
  const from = x.shape;
  return record(window.name, [x], y, [], (grad) => [spreadAverage(grad, from, window, divisor, last)]);
}

function spreadAverage(dy: Tensor, shape: Shape, window: Window, divisor: Divisor, last: boolean): Tensor {
  const grad = arrange(dy, last);
  const dx = emptyTensor(shape, dy.dtype, dy.device, layoutStrides(shape, last));
  native(
    dy.device,
    (lib, f) => lib.dg_avg_pool_backward(f.pointer, f.put(dx), f.put(grad), ...nine(window), divisor.include, divisor.override),
  );
  const from = dy.shape;
  record(`${window.name} (derivative)`, [grad], dx, [], (again) => [averageKernel(again, from, window, divisor)]);
  if (grad !== dy) grad.dispose();
  return dx;
}

function avgPool(name: string, axes: number, x: Tensor, kernelSize: PoolSize, options?: AvgPoolOptions): Tensor {
  const batched = checkInput(x, axes, name), window = makeWindow(name, axes, kernelSize, options, false);
  const override = options?.divisorOverride ?? null;
  if (override !== null && (!Number.isFinite(override) || override === 0)) {
    throw new RangeError(`${name}: divisorOverride must be a number other than 0, got ${override}`);
  }
  const spatial = pooledSizes(window, x.shape.slice(-axes), options?.ceilMode ?? false);
  const divisor = { include: (options?.countIncludePad ?? true) ? 1 : 0, override: override ?? 0 };
  return batchwise(x, batched, (input) => [averageKernel(input, [...input.shape.slice(0, 2), ...spatial], window, divisor)])[0];
}

/** {@linkcode avgPool2d} over the last axis, of `[N, C, L]` or `[C, L]`. */
export function avgPool1d(x: Tensor, kernelSize: PoolSize, options?: AvgPoolOptions): Tensor {
  return avgPool("avgPool1d", 1, x, kernelSize, options);
}

/**
 * Averages over windows of the last two axes.
 *
 * `y[o] = sum of x over the window / divisor`, the divisor counting the window's positions (those of the padding, too, unless
 * `countIncludePad` is false; those beyond the padding, under `ceilMode`, never).
 *
 * @param x Input, shape `[N, C, H, W]` or `[C, H, W]`, any float dtype.
 * @param kernelSize Window, one number or `[height, width]`.
 * @param options Stride (default: the window), padding, `ceilMode`, `countIncludePad`, `divisorOverride`.
 * @throws {ShapeError} If the rank does not fit or no window does.
 * @throws {RangeError} If an argument is not a whole number in its range, or the padding exceeds half of the window.
 *
 * @example
 * ```ts
 * import { avgPool2d, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[[1, 2, 5, 1], [4, 1, 2, 0]]]);
 * assertEquals(avgPool2d(x, 2).tolist(), [[[2, 2]]]);
 * ```
 */
export function avgPool2d(x: Tensor, kernelSize: PoolSize, options?: AvgPoolOptions): Tensor {
  return avgPool("avgPool2d", 2, x, kernelSize, options);
}

/** {@linkcode avgPool2d} over the last three axes, of `[N, C, D, H, W]` or `[C, D, H, W]`. */
export function avgPool3d(x: Tensor, kernelSize: PoolSize, options?: AvgPoolOptions): Tensor {
  return avgPool("avgPool3d", 3, x, kernelSize, options);
}

/** Sizes of the result of adaptive pooling; `null` keeps the input's. */
export type AdaptiveSize = number | null | readonly (number | null)[];

function adaptiveSizes(x: Tensor, axes: number, outputSize: AdaptiveSize, op: string): number[] {
  const list = outputSize === null || typeof outputSize === "number" ? new Array<number | null>(axes).fill(outputSize) : outputSize;
  return sizes(list.map((size, i) => size ?? x.shape[x.rank - axes + i]), axes, 1, op, "outputSize");
}

function adaptiveAvg(name: string, axes: number, x: Tensor, outputSize: AdaptiveSize): Tensor {
  const batched = checkInput(x, axes, name), spatial = adaptiveSizes(x, axes, outputSize, name), window = adaptiveWindow(name, axes);
  const divisor = { include: 0, override: 0 };
  return batchwise(x, batched, (input) => [averageKernel(input, [...input.shape.slice(0, 2), ...spatial], window, divisor)])[0];
}

function adaptiveMax(name: string, axes: number, x: Tensor, outputSize: AdaptiveSize, returnIndices: boolean): Tensor | [Tensor, Tensor] {
  const batched = checkInput(x, axes, name), spatial = adaptiveSizes(x, axes, outputSize, name), window = adaptiveWindow(name, axes);
  const results = batchwise(x, batched, (input) => maxKernel(input, window, spatial, returnIndices));
  return results.length === 2 ? results as [Tensor, Tensor] : results[0];
}

/** {@linkcode adaptiveAvgPool2d} over the last axis. */
export function adaptiveAvgPool1d(x: Tensor, outputSize: AdaptiveSize): Tensor {
  return adaptiveAvg("adaptiveAvgPool1d", 1, x, outputSize);
}

/**
 * Averages over windows chosen so that the result has `outputSize`: output `o` takes positions `floor(o * in / out)` to
 * `ceil((o + 1) * in / out)` (exclusive) along each axis.
 *
 * @param x Input, shape `[N, C, H, W]` or `[C, H, W]`, any float dtype.
 * @param outputSize One size for both axes, or `[height, width]`; `null` keeps an axis.
 *
 * @example
 * ```ts
 * import { adaptiveAvgPool2d, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(adaptiveAvgPool2d(ones([2, 3, 7, 5]), [null, 1]).shape, [2, 3, 7, 1]);
 * ```
 */
export function adaptiveAvgPool2d(x: Tensor, outputSize: AdaptiveSize): Tensor {
  return adaptiveAvg("adaptiveAvgPool2d", 2, x, outputSize);
}

/** {@linkcode adaptiveAvgPool2d} over the last three axes. */
export function adaptiveAvgPool3d(x: Tensor, outputSize: AdaptiveSize): Tensor {
  return adaptiveAvg("adaptiveAvgPool3d", 3, x, outputSize);
}

/** Options of adaptive max pooling. */
export interface AdaptiveMaxPoolOptions {
  /** Return the winners' positions, too. Default `false`. */
  returnIndices?: boolean;
}

/** {@linkcode adaptiveMaxPool2d} over the last axis. */
export function adaptiveMaxPool1d<const O extends AdaptiveMaxPoolOptions = AdaptiveMaxPoolOptions>(
  x: Tensor,
  outputSize: AdaptiveSize,
  options?: O,
): Pooled<O> {
  return adaptiveMax("adaptiveMaxPool1d", 1, x, outputSize, options?.returnIndices ?? false) as Pooled<O>;
}

/**
 * Maxima over the windows of {@linkcode adaptiveAvgPool2d}; ties, NaN, indices and derivative as {@linkcode maxPool2d}.
 *
 * @param options.returnIndices Return `[values, indices]`. Default `false`.
 */
export function adaptiveMaxPool2d<const O extends AdaptiveMaxPoolOptions = AdaptiveMaxPoolOptions>(
  x: Tensor,
  outputSize: AdaptiveSize,
  options?: O,
): Pooled<O> {
  return adaptiveMax("adaptiveMaxPool2d", 2, x, outputSize, options?.returnIndices ?? false) as Pooled<O>;
}

/** {@linkcode adaptiveMaxPool2d} over the last three axes. */
export function adaptiveMaxPool3d<const O extends AdaptiveMaxPoolOptions = AdaptiveMaxPoolOptions>(
  x: Tensor,
  outputSize: AdaptiveSize,
  options?: O,
): Pooled<O> {
  return adaptiveMax("adaptiveMaxPool3d", 3, x, outputSize, options?.returnIndices ?? false) as Pooled<O>;
}

function scatterFlat(x: Tensor, indices: Tensor, shape: Shape, name: string, accumulate: boolean): Tensor {
  const y = emptyTensor(shape, x.dtype, x.device, layoutStrides(shape, inChannelsLast(x)));
  native(x.device, (lib, f) => lib.dg_unpool_scatter(f.pointer, f.put(y), f.put(x), f.put(indices), accumulate ? 1 : 0));
  return record(name, [x], y, [indices], (grad, [kept]) => [gatherFlat(grad, kept, name)]);
}

function gatherFlat(x: Tensor, indices: Tensor, name: string): Tensor {
  const y = emptyTensor(indices.shape, x.dtype, x.device, layoutStrides(indices.shape, inChannelsLast(x)));
  native(x.device, (lib, f) => lib.dg_unpool_gather(f.pointer, f.put(y), f.put(x), f.put(indices)));
  const from = x.shape;
  return record(`${name} (derivative)`, [x], y, [indices], (grad, [kept]) => [scatterFlat(grad, kept, from, name, true)]);
}

function maxUnpool(name: string, axes: number, x: Tensor, indices: Tensor, options: MaxUnpoolOptions): Tensor {
  const batched = checkInput(x, axes, name);
  checkTensor(indices, name, "indices", x);
  checkDType(indices, ["int64"], name, "indices");
  if (textOf(indices.shape) !== textOf(x.shape)) {
    throw new ShapeError(`${name}: indices are ${textOf(indices.shape)}, the input is ${textOf(x.shape)}`);
  }
  const kernel = sizes(options.kernelSize, axes, 1, name, "kernelSize"), stride = sizes(options.stride ?? kernel, axes, 1, name, "stride");
  const padding = sizes(options.padding ?? 0, axes, 0, name, "padding");
  const usual = kernel.map((k, i) => (x.shape[x.rank - axes + i] - 1) * stride[i] - 2 * padding[i] + k);
  let spatial = usual;
  if (options.outputSize) {
    spatial = options.outputSize.slice(-axes);
    const fits = [axes, axes + 1, axes + 2].includes(options.outputSize.length) &&
      spatial.every((size, i) => Number.isInteger(size) && size > usual[i] - stride[i] && size < usual[i] + stride[i]);
    if (!fits) {
      throw new RangeError(
        `${name}: outputSize must end in sizes less than ${textOf(stride)} away from ${textOf(usual)}, got ${textOf(options.outputSize)}`,
      );
    }
  }
  if (spatial.some((size) => size < 1)) throw new ShapeError(`${name}: the result would have spatial sizes ${textOf(spatial)}`);
  const positions = batched ? indices : unsqueeze(indices, 0);
  const [y] = batchwise(x, batched, (input) => [scatterFlat(input, positions, [...input.shape.slice(0, 2), ...spatial], name, false)]);
  if (positions !== indices) positions.dispose();
  return y;
}

/** {@linkcode maxUnpool2d} over the last axis. */
export function maxUnpool1d(x: Tensor, indices: Tensor, options: MaxUnpoolOptions): Tensor {
  return maxUnpool("maxUnpool1d", 1, x, indices, options);
}

/**
 * The partial inverse of {@linkcode maxPool2d}: maxima go back to their positions, everything else is 0. Of equal indices the last wins.
 *
 * @param x Maxima, shape `[N, C, H, W]` or `[C, H, W]`.
 * @param indices Their positions as `returnIndices` gives them, int64, same shape.
 * @param options Window, stride and padding of the pooling; `outputSize` where several inputs would pool to this size.
 * @throws {RangeError} If an index is outside the result, or `outputSize` is too far off.
 *
 * @example
 * ```ts
 * import { maxPool1d, maxUnpool1d, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const [y, indices] = maxPool1d(tensor([[[1, 5, 3, 2]]]), 2, { returnIndices: true });
 * assertEquals(maxUnpool1d(y, indices, { kernelSize: 2 }).tolist(), [[[0, 5, 3, 0]]]);
 * ```
 */
export function maxUnpool2d(x: Tensor, indices: Tensor, options: MaxUnpoolOptions): Tensor {
  return maxUnpool("maxUnpool2d", 2, x, indices, options);
}

/** {@linkcode maxUnpool2d} over the last three axes. */
export function maxUnpool3d(x: Tensor, indices: Tensor, options: MaxUnpoolOptions): Tensor {
  return maxUnpool("maxUnpool3d", 3, x, indices, options);
}
