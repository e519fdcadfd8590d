/**
 * Convolution over one to three axes and its transpose.
 *
 * Three native operations, each the derivative of the others: the convolution, its gradient with respect to the input (which is the transposed
 * convolution) and with respect to the weight. All three are recorded, so that derivatives of any order exist. Results are channels-last in memory.
 *
 * @module
 */
import { record, recordMany } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { context } from "../tensor/context.ts";
import { channelsLastStrides, contiguousStrides, isDense, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { channelsLast } from "./copy.ts";
import { type ActivationOptions, type Finish, finish, finished, finishOf, gradientBefore, inPlace } from "./fused_activation.ts";
import { checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { sum } from "./reduction.ts";
import { squeeze, unsqueeze } from "./view.ts";

/**
 * Settings of {@linkcode conv1d}, {@linkcode conv2d} and {@linkcode conv3d}: a number for all spatial axes or one for each. An activation is applied in
 * the memory of the result, which backward then needs: as with any tensor that is kept, changing it in place makes backward throw.
 */
export interface ConvOptions extends ActivationOptions {
  /** Step between output positions. Default 1. */
  stride?: number | Shape;
  /** Zeros around the input; `"valid"` for none, `"same"` for an output of the input's size (stride 1 only). Default 0. */
  padding?: number | Shape | "same" | "valid";
  /** Step between the kernel's elements in the input. Default 1. */
  dilation?: number | Shape;
  /** Parts that the channels are split into, each with filters of its own. Default 1. */
  groups?: number;
}

/** Settings of {@linkcode convTranspose1d}, {@linkcode convTranspose2d} and {@linkcode convTranspose3d}; an activation as in {@linkcode ConvOptions}. */
export interface ConvTransposeOptions extends ActivationOptions {
  /** Step between input positions in the output. Default 1. */
  stride?: number | Shape;
  /** What is cut from each border of the output. Default 0. */
  padding?: number | Shape;
  /** Positions added behind the output, below the stride or the dilation. Default 0. */
  outputPadding?: number | Shape;
  /** Step between the kernel's elements in the output. Default 1. */
  dilation?: number | Shape;
  /** Parts that the channels are split into, each with filters of its own. Default 1. */
  groups?: number;
}

/** Strides, paddings and dilations of three axes, and the groups. */
export type ConvParameters = readonly [number, number, number, number, number, number, number, number, number, number];

/** Fills `y`, channels-last, with the convolution of operands that fit, or with what is made of it. */
export type ConvKernel = (y: Tensor, x: Tensor, w: Tensor, b: Tensor | null, p: ConvParameters) => void;

const plain: ConvKernel = (y, x, w, b, p) =>
  native(x.device, (lib, f) => lib.dg_conv_forward(f.pointer, f.put(y), f.put(x), f.put(w), f.put(b), ...p));

function perAxis(value: number | Shape | undefined, fallback: number, least: number, axes: number, op: string, what: string): number[] {
  const list = value === undefined ? [fallback] : typeof value === "number" ? [value] : value;
  if (!Array.isArray(list) || (list.length !== 1 && list.length !== axes)) {
    throw new ShapeError(`${op}: ${what} must be a number or ${axes} numbers, got ${JSON.stringify(value)}`);
  }
  const all = list.length === 1 ? new Array<number>(axes).fill(list[0]) : [...list];
  for (const n of all) {
    if (!Number.isInteger(n) || n < least || n > 2 ** 30) {
      throw new RangeError(`${op}: ${what} must be whole numbers >= ${least}, got ${textOf(all)}`);
    }
  }
  return all;
}

function pack(stride: Shape, padding: Shape, dilation: Shape, groups: number): ConvParameters {
  const three = (list: Shape, rest: number): [number, number, number] => [list[0], list[1] ?? rest, list[2] ?? rest];
  return [...three(stride, 1), ...three(padding, 0), ...three(dilation, 1), groups];
}

/** Whether `x` is a slice of the channels of a channels-last tensor, which the CPU's kernels take where it lies. */
function isChannelSlice(x: Tensor): boolean {
  if (x.device.type !== "cpu" || (x.shape[1] > 1 && x.strides[1] !== 1)) return false;
  let pixel = 0, pixels = 1;
  for (let i = x.rank - 1; i > 0; i--) {
    const axis = i > 1 ? i : 0; // positions from the last on, then the batch
    if (x.shape[axis] === 1) continue;
    if (pixel === 0) pixel = x.strides[axis];
    if (x.strides[axis] !== pixel * pixels) return false;
    pixels *= x.shape[axis];
  }
  return pixel >= x.shape[1];
}

/** Runs `body` with `x` in channels-last order, or with a slice of channels in that order where `slices` allows it. */
function inOrder<T>(x: Tensor, slices: boolean, body: (x: Tensor) => T): T {
  const ordered = slices && isChannelSlice(x) ? x : channelsLast(x);
  const result = body(ordered);
  if (ordered !== x) ordered.dispose();
  return result;
}

function convForward(
  op: string,
  x: Tensor,
  w: Tensor,
  bias: Tensor | null,
  shape: Shape,
  p: ConvParameters,
  activation: Finish | null,
  compute = plain,
): Tensor {
  const y = emptyTensor(shape, x.dtype, x.device, channelsLastStrides(shape));
  return inOrder(x, true, (x) => {
    compute(y, x, w, bias, p);
    if (activation !== null) finish(y, activation);
    return record(op, [x, w, bias], y, activation === null ? [x, w] : [x, w, y], (given, [x, w, y], needs) => {
      const grad = activation === null ? given : gradientBefore(given, y, activation);
      const dx = needs[0] ? convInput(op, grad, w, null, x.shape, p, null) : null;
      if (!needs[1] && !needs[2]) return [dx, null, null];
      if (!needs[1] || context().grad) {
        return [dx, needs[1] ? convWeight(op, grad, x, w, p, false)[0] : null, needs[2] ? channelSums(grad) : null];
      }
      return [dx, ...convWeight(op, grad, x, w, p, needs[2])];
    });
  });
}

/** Gradient of the input, `shape`, or the transposed convolution of `dy`. */
function convInput(
  op: string,
  dy: Tensor,
  w: Tensor,
  bias: Tensor | null,
  shape: Shape,
  p: ConvParameters,
  activation: Finish | null,
): Tensor {
  const dx = emptyTensor(shape, dy.dtype, dy.device, channelsLastStrides(shape));
  return inOrder(dy, false, (dy) => {
    native(dy.device, (lib, f) => lib.dg_conv_backward_input(f.pointer, f.put(dx), f.put(dy), f.put(w), f.put(bias), ...p));
    if (activation !== null) finish(dx, activation);
    return record(op, [dy, w, bias], dx, activation === null ? [dy, w] : [dy, w, dx], (given, [dy, w, y], needs) => {
      const grad = activation === null ? given : gradientBefore(given, y, activation);
      return [
        needs[0] ? convForward(op, grad, w, null, dy.shape, p, null) : null,
        needs[1] ? convWeight(op, dy, grad, w, p, false)[0] : null,
        needs[2] ? channelSums(grad) : null,
      ];
    });
  });
}

/** Gradient of a weight, in its memory order, and, if asked for, of the bias (the latter only where backward itself is not recorded). */
function convWeight(op: string, dy: Tensor, x: Tensor, w: Tensor, p: ConvParameters, withBias: boolean): [Tensor, Tensor | null] {
  const { shape } = w, strides = isDense(shape, w.strides) ? w.strides : contiguousStrides(shape);
  const dw = emptyTensor(shape, x.dtype, x.device, strides);
  const db = withBias ? emptyTensor([shape[0]], x.dtype, x.device) : null;
  inOrder(dy, false, (dy) =>
    inOrder(x, true, (x) => {
      native(x.device, (lib, f) => lib.dg_conv_backward_weight(f.pointer, f.put(dw), f.put(db), f.put(dy), f.put(x), ...p));
      recordMany(op, [dy, x], [dw], [dy, x], ([grad], [dy, x], needs) => [
        needs[0] ? convForward(op, x, grad!, null, dy.shape, p, null) : null,
        needs[1] ? convInput(op, dy, grad!, null, x.shape, p, null) : null,
      ]);
    }));
  return [dw, db];
}

function channelSums(grad: Tensor): Tensor {
  return sum(grad, grad.shape.map((_, i) => i).filter((i) => i !== 1));
}

/** Checks what both forms share; returns the groups. `inputs` and `outputs` are axes of the weight. */
function checkOperands(op: string, axes: number, x: Tensor, w: Tensor, b: Tensor | null, groups: number, transposed: boolean): void {
  checkTensor(x, op, "the input");
  checkTensor(w, op, "the weight", x);
  checkFloat(x, op);
  if (w.dtype !== x.dtype) throw new DTypeError(`${op}: the weight is ${w.dtype}, the input ${x.dtype}`);
  const form = transposed ? "[I, O / groups, " : "[O, I / groups, ";
  if (w.rank !== axes + 2) {
    throw new ShapeError(`${op}: the weight must be ${form}${axes} kernel sizes], got ${textOf(w.shape)}`);
  }
  if (x.rank !== axes + 1 && x.rank !== axes + 2) {
    throw new ShapeError(`${op}: the input must have ${axes + 2} axes, or ${axes + 1} without a batch, got ${textOf(x.shape)}`);
  }
  if (w.shape.slice(2).some((k) => k === 0)) throw new ShapeError(`${op}: the kernel is empty: ${textOf(w.shape)}`);
  if (!Number.isInteger(groups) || groups < 1) throw new RangeError(`${op}: groups must be a whole number >= 1, got ${groups}`);
  const channels = x.shape[x.rank - axes - 1], filters = transposed ? w.shape[1] * groups : w.shape[0];
  const expected = transposed ? w.shape[0] : w.shape[1] * groups;
  if (channels !== expected) {
    throw new ShapeError(
      `${op}: the input has ${channels} channels, the weight ${textOf(w.shape)} with groups = ${groups} takes ${expected}`,
    );
  }
  if (w.shape[0] % groups !== 0) throw new ShapeError(`${op}: groups = ${groups} does not divide ${w.shape[0]}, axis 0 of the weight`);
  if (b !== null) {
    checkTensor(b, op, "the bias", x);
    if (b.dtype !== x.dtype) throw new DTypeError(`${op}: the bias is ${b.dtype}, the input ${x.dtype}`);
    if (b.rank !== 1 || b.shape[0] !== filters) throw new ShapeError(`${op}: the bias must be [${filters}], got ${textOf(b.shape)}`);
  }
}

/** Runs `body` on `x` with a batch axis, adding and removing one where it has none. */
function batched(x: Tensor, axes: number, body: (x: Tensor) => Tensor): Tensor {
  if (x.rank === axes + 2) return body(x);
  const one = unsqueeze(x, 0), y = body(one), result = squeeze(y, 0);
  one.dispose();
  y.dispose();
  return result;
}

function convolve(
  op: string,
  axes: number,
  x: Tensor,
  w: Tensor,
  b: Tensor | null | undefined,
  options?: ConvOptions,
  compute = plain,
): Tensor {
  const bias = b ?? null, groups = options?.groups ?? 1, activation = finishOf(op, options);
  if (activation !== null && !inPlace(activation)) {
    return finished(convolve(op, axes, x, w, b, { ...options, activation: null }), activation);
  }
  checkOperands(op, axes, x, w, bias, groups, false);
  const stride = perAxis(options?.stride, 1, 1, axes, op, "stride"), dilation = perAxis(options?.dilation, 1, 1, axes, op, "dilation");
  const kernel = w.shape.slice(2), input = x.shape.slice(-axes), reach = kernel.map((k, i) => dilation[i] * (k - 1) + 1);
  const given = options?.padding ?? 0;
  let padding: number[], output: number[];
  if (given === "same") {
    if (stride.some((s) => s !== 1)) throw new RangeError(`${op}: padding "same" needs stride 1, got ${textOf(stride)}`);
    padding = reach.map((r) => Math.floor((r - 1) / 2)); // one more behind than in front where the total is odd
    output = input;
  } else {
    if (typeof given === "string" && given !== "valid") {
      throw new RangeError(`${op}: padding must be numbers, "same" or "valid", got ${JSON.stringify(given)}`);
    }
    padding = given === "valid" ? new Array<number>(axes).fill(0) : perAxis(given, 0, 0, axes, op, "padding");
    output = input.map((size, i) => Math.floor((size + 2 * padding[i] - reach[i]) / stride[i]) + 1);
    if (input.some((size, i) => size + 2 * padding[i] < reach[i])) {
      throw new ShapeError(
        `${op}: the kernel reaches over ${textOf(reach)} (sizes ${textOf(kernel)}, dilation ${textOf(dilation)}), the padded input has ${
          textOf(input.map((size, i) => size + 2 * padding[i]))
        }`,
      );
    }
  }
  const parameters = pack(stride, padding, dilation, groups);
  const shaped = (x: Tensor) => convForward(op, x, w, bias, [x.shape[0], w.shape[0], ...output], parameters, activation, compute);
  return batched(x, axes, shaped);
}

/** A convolution by another kernel, of an input with a batch axis, without an activation. */
export function convolveBy(kernel: ConvKernel, x: Tensor, w: Tensor, b: Tensor | null, options: ConvOptions): Tensor {
  const axes = x.rank - 2;
  return convolve(`conv${axes}d`, axes, x, w, b, options, kernel);
}

function convolveTransposed(
  op: string,
  axes: number,
  x: Tensor,
  w: Tensor,
  b: Tensor | null | undefined,
  options?: ConvTransposeOptions,
): Tensor {
  const bias = b ?? null, groups = options?.groups ?? 1, activation = finishOf(op, options);
  if (activation !== null && !inPlace(activation)) {
    return finished(convolveTransposed(op, axes, x, w, b, { ...options, activation: null }), activation);
  }
  checkOperands(op, axes, x, w, bias, groups, true);
  const stride = perAxis(options?.stride, 1, 1, axes, op, "stride"), dilation = perAxis(options?.dilation, 1, 1, axes, op, "dilation");
  const padding = perAxis(options?.padding, 0, 0, axes, op, "padding"), kernel = w.shape.slice(2);
  const extra = perAxis(options?.outputPadding, 0, 0, axes, op, "outputPadding");
  extra.forEach((n, i) => {
    if (n >= stride[i] && n >= dilation[i]) {
      throw new RangeError(`${op}: outputPadding ${textOf(extra)} must be below stride ${textOf(stride)} or dilation ${textOf(dilation)}`);
    }
  });
  const output = x.shape.slice(-axes).map((size, i) =>
    (size - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + extra[i] + 1
  );
  if (output.some((size) => size < 1)) {
    throw new ShapeError(
      `${op}: the output would be ${textOf(output)}: input ${textOf(x.shape)}, kernel ${textOf(kernel)}, padding ${textOf(padding)}`,
    );
  }
  const parameters = pack(stride, padding, dilation, groups);
  return batched(x, axes, (x) => convInput(op, x, w, bias, [x.shape[0], w.shape[1] * groups, ...output], parameters, activation));
}

/**
 * Convolution (cross-correlation) over one axis.
 *
 * `y[n, o, j] = b[o] + sum over c, k of x[n, c, j * stride - padding + k * dilation] * w[o, c, k]`, zeros outside `x`
 *
 * @param x Input, `[N, C, L]` or `[C, L]`, any float dtype, any strides.
 * @param w Weight, `[O, C / groups, K]`, dtype of `x`.
 * @param b Bias, `[O]`. Default none.
 * @param options See {@linkcode ConvOptions}.
 * @returns `[N, O, floor((L + 2 * padding - dilation * (K - 1) - 1) / stride) + 1]`, channels-last in memory.
 * @throws {ShapeError} If sizes do not belong together or the kernel is larger than the padded input.
 * @throws {RangeError} If a stride, dilation or group count is below 1 or a padding is negative.
 *
 * @example Differences of neighbours
 * ```ts
 * import { conv1d, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(conv1d(tensor([[[1, 4, 9, 16]]]), tensor([[[-1, 1]]])).tolist(), [[[3, 5, 7]]]);
 * ```
 */
export function conv1d(x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvOptions): Tensor {
  return convolve("conv1d", 1, x, w, b, options);
}

/**
 * Convolution over two axes; see {@linkcode conv1d} for the formula.
 *
 * @param x Input, `[N, C, H, W]` or `[C, H, W]`.
 * @param w Weight, `[O, C / groups, KH, KW]`.
 * @param b Bias, `[O]`. Default none.
 * @param options See {@linkcode ConvOptions}.
 * @returns `[N, O, H', W']`, channels-last in memory.
 * @throws {ShapeError} If sizes do not belong together or the kernel is larger than the padded input.
 *
 * @example
 * ```ts
 * import { conv2d, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const y = conv2d(ones([1, 1, 3, 3]), ones([1, 1, 3, 3]), null, { padding: 1 });
 * assertEquals(y.tolist(), [[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]]);
 * ```
 */
export function conv2d(x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvOptions): Tensor {
  return convolve("conv2d", 2, x, w, b, options);
}

/**
 * Convolution over three axes; see {@linkcode conv1d} for the formula.
 *
 * @param x Input, `[N, C, D, H, W]` or `[C, D, H, W]`.
 * @param w Weight, `[O, C / groups, KD, KH, KW]`.
 * @param b Bias, `[O]`. Default none.
 * @param options See {@linkcode ConvOptions}.
 * @returns `[N, O, D', H', W']`, channels-last in memory.
 * @throws {ShapeError} If sizes do not belong together or the kernel is larger than the padded input.
 *
 * @example
 * ```ts
 * import { conv3d, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(conv3d(ones([1, 2, 2, 2, 2]), ones([3, 2, 2, 2, 2])).shape, [1, 3, 1, 1, 1]);
 * ```
 */
export function conv3d(x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvOptions): Tensor {
  return convolve("conv3d", 3, x, w, b, options);
}

/**
 * Transposed convolution over one axis: the gradient of {@linkcode conv1d} with respect to its input.
 *
 * `y[n, o, j * stride - padding + k * dilation] += x[n, c, j] * w[c, o, k]`, plus `b[o]`
 *
 * @param x Input, `[N, C, L]` or `[C, L]`, any float dtype, any strides.
 * @param w Weight, `[C, O / groups, K]`, dtype of `x`.
 * @param b Bias, `[O]`. Default none.
 * @param options See {@linkcode ConvTransposeOptions}.
 * @returns `[N, O, (L - 1) * stride - 2 * padding + dilation * (K - 1) + outputPadding + 1]`, channels-last in memory.
 * @throws {ShapeError} If sizes do not belong together or nothing is left of the output.
 * @throws {RangeError} If `outputPadding` is neither below the stride nor below the dilation.
 *
 * @example
 * ```ts
 * import { convTranspose1d, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const y = convTranspose1d(tensor([[[1, 2]]]), tensor([[[1, 10]]]), null, { stride: 2 });
 * assertEquals(y.tolist(), [[[1, 10, 2, 20]]]);
 * ```
 */
export function convTranspose1d(x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvTransposeOptions): Tensor {
  return convolveTransposed("convTranspose1d", 1, x, w, b, options);
}

/**
 * Transposed convolution over two axes; see {@linkcode convTranspose1d} for the formula.
 *
 * @param x Input, `[N, C, H, W]` or `[C, H, W]`.
 * @param w Weight, `[C, O / groups, KH, KW]`.
 * @param b Bias, `[O]`. Default none.
 * @param options See {@linkcode ConvTransposeOptions}.
 * @returns `[N, O, H', W']`, channels-last in memory.
 * @throws {ShapeError} If sizes do not belong together or nothing is left of the output.
 *
 * @example Doubling the size
 * ```ts
 * import { convTranspose2d, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(convTranspose2d(ones([1, 8, 5, 7]), ones([8, 4, 2, 2]), null, { stride: 2 }).shape, [1, 4, 10, 14]);
 * ```
 */
export function convTranspose2d(x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvTransposeOptions): Tensor {
  return convolveTransposed("convTranspose2d", 2, x, w, b, options);
}

/**
 * Transposed convolution over three axes; see {@linkcode convTranspose1d} for the formula.
 *
 * @param x Input, `[N, C, D, H, W]` or `[C, D, H, W]`.
 * @param w Weight, `[C, O / groups, KD, KH, KW]`.
 * @param b Bias, `[O]`. Default none.
 * @param options See {@linkcode ConvTransposeOptions}.
 * @returns `[N, O, D', H', W']`, channels-last in memory.
 * @throws {ShapeError} If sizes do not belong together or nothing is left of the output.
 *
 * @example
 * ```ts
 * import { convTranspose3d, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(convTranspose3d(ones([2, 1, 1, 1]), ones([2, 3, 2, 2, 2])).shape, [3, 2, 2, 2]);
 * ```
 */
export function convTranspose3d(x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvTransposeOptions): Tensor {
  return convolveTransposed("convTranspose3d", 3, x, w, b, options);
}
