/**
 * Rearranging elements between channels and space, padding, and sliding windows.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { BinaryOp, PadMode } from "../ffi/op_codes.ts";
import { channelsLastStrides, contiguousStrides, isChannelsLast, numelOf, type Shape, textOf, viewStrides } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { channelsLast, contiguous, copyInto } from "./copy.ts";
import { fullLike, zeros } from "./creation.ts";
import { checkTensor, emptyTensor, native } from "./native.ts";
import { reshape, squeeze, unsqueeze } from "./view.ts";

const inChannelsLast = (x: Tensor): boolean => !x.isContiguous() && isChannelsLast(x.shape, x.strides);

function alias(x: Tensor, shape: Shape, strides: Shape, offset = 0): Tensor {
  return new Tensor(x.storage, shape, strides, x.offset + offset, x.dtype, false);
}

/** `body` of `x` as a batch of one. */
function unbatched(x: Tensor, body: (batch: Tensor) => Tensor): Tensor {
  const batch = unsqueeze(x, 0), result = body(batch), y = squeeze(result, 0);
  batch.dispose();
  result.dispose();
  return y;
}

/** A dense tensor of `shape`, channels-last if `last`. */
function arranged(shape: Shape, like: Tensor, last: boolean): Tensor {
  return emptyTensor(shape, like.dtype, like.device, last ? channelsLastStrides(shape) : contiguousStrides(shape));
}

/**
 * `x` seen as `split`, its axes taken in `order`, seen as `shape`: one copy that keeps a channels-last layout. Its derivative is `back`.
 */
function rearrange(name: string, x: Tensor, split: Shape, order: readonly number[], shape: Shape, back: (grad: Tensor) => Tensor): Tensor {
  const y = arranged(shape, x, inChannelsLast(x));
  const permuted = order.map((axis) => split[axis]);
  let source = x, strides = viewStrides(x.shape, x.strides, split);
  if (strides === null) {
    source = copyInto(emptyTensor(x.shape, x.dtype, x.device), x);
    strides = contiguousStrides(split);
  }
  const own = strides;
  copyInto(alias(y, permuted, viewStrides(y.shape, y.strides, permuted)!), alias(source, permuted, order.map((axis) => own[axis])));
  if (source !== x) source.dispose();
  return record(name, [x], y, [], (grad) => [back(grad)]);
}

function checkFactor(value: number, op: string, what: string): void {
  if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${op}: ${what} must be a whole number >= 1, got ${value}`);
}

/**
 * Channels to space: `[*, C * r * r, H, W]` becomes `[*, C, H * r, W * r]` (Shi et al. 2016, sub-pixel convolution).
 *
 * `y[c, h * r + i, w * r + j] = x[(c * r + i) * r + j, h, w]`
 *
 * @param x At least 3 axes, any dtype; a channels-last layout is kept.
 * @param upscaleFactor `r`.
 * @throws {ShapeError} If the channels are not a multiple of `r * r`.
 *
 * @example
 * ```ts
 * import { pixelShuffle, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(pixelShuffle(tensor([[[1]], [[2]], [[3]], [[4]]]), 2).tolist(), [[[1, 2], [3, 4]]]);
 * ```
 */
export function pixelShuffle(x: Tensor, upscaleFactor: number): Tensor {
  checkTensor(x, "pixelShuffle", "the input");
  checkFactor(upscaleFactor, "pixelShuffle", "upscaleFactor");
  const r = upscaleFactor, lead = x.rank - 3;
  if (lead < 0) throw new ShapeError(`pixelShuffle: takes at least 3 axes, got ${textOf(x.shape)}`);
  const [channels, height, width] = x.shape.slice(-3), outer = x.shape.slice(0, lead);
  if (channels % (r * r) !== 0) {
    throw new ShapeError(`pixelShuffle: ${channels} channels are not a multiple of upscaleFactor squared, ${r * r}, in ${textOf(x.shape)}`);
  }
  const merged = [numelOf(outer), channels / (r * r)];
  const split = [...merged, r, r, height, width], shape = [...outer, merged[1], height * r, width * r];
  return shuffled("pixelShuffle", x, lead, split, [0, 1, 4, 2, 5, 3], shape, (grad) => pixelUnshuffle(grad, r));
}

/** Rearranges with the leading axes merged into one for the time. */
function shuffled(
  name: string,
  x: Tensor,
  lead: number,
  split: Shape,
  order: readonly number[],
  shape: Shape,
  back: (grad: Tensor) => Tensor,
): Tensor {
  if (lead === 1) return rearrange(name, x, split, order, shape, back);
  const folded = [split[0], ...x.shape.slice(lead)], batch = reshape(x, folded);
  const y = rearrange(name, batch, split, order, [split[0], ...shape.slice(lead)], (grad) => reshape(back(reshape(grad, shape)), folded));
  const result = reshape(y, shape);
  batch.dispose();
  y.dispose();
  return result;
}

/**
 * Space to channels, the inverse of {@linkcode pixelShuffle}: `[*, C, H * r, W * r]` becomes `[*, C * r * r, H, W]`.
 *
 * @param x At least 3 axes, any dtype; a channels-last layout is kept.
 * @param downscaleFactor `r`.
 * @throws {ShapeError} If the last two sizes are not multiples of `r`.
 */
export function pixelUnshuffle(x: Tensor, downscaleFactor: number): Tensor {
  checkTensor(x, "pixelUnshuffle", "the input");
  checkFactor(downscaleFactor, "pixelUnshuffle", "downscaleFactor");
  const r = downscaleFactor, lead = x.rank - 3;
  if (lead < 0) throw new ShapeError(`pixelUnshuffle: takes at least 3 axes, got ${textOf(x.shape)}`);
  const [channels, height, width] = x.shape.slice(-3), outer = x.shape.slice(0, lead);
  if (height % r !== 0 || width % r !== 0) {
    throw new ShapeError(`pixelUnshuffle: sizes ${height} and ${width} are not multiples of downscaleFactor ${r} in ${textOf(x.shape)}`);
  }
  const [h, w] = [height / r, width / r];
  const split = [numelOf(outer), channels, h, r, w, r], shape = [...outer, channels * r * r, h, w];
  return shuffled("pixelUnshuffle", x, lead, split, [0, 1, 3, 5, 2, 4], shape, (grad) => pixelShuffle(grad, r));
}

/**
 * Mixes the channels of grouped convolutions (Zhang et al. 2018, ShuffleNet): channels seen as `[groups, C / groups]`, transposed, flattened.
 *
 * `y[:, j * groups + i] = x[:, i * C / groups + j]`
 *
 * @param x Shape `[N, C, ...]` with at least 3 axes, any dtype; a channels-last layout is kept.
 * @param groups Must divide `C`.
 * @throws {ShapeError} If it does not.
 *
 * @example
 * ```ts
 * import { arange, channelShuffle } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = arange(0, 6, 1, { dtype: "float32" }).reshape([1, 6, 1, 1]);
 * assertEquals(channelShuffle(x, 2).flatten().tolist(), [0, 3, 1, 4, 2, 5]);
 * ```
 */
export function channelShuffle(x: Tensor, groups: number): Tensor {
  checkTensor(x, "channelShuffle", "the input");
  checkFactor(groups, "channelShuffle", "groups");
  if (x.rank < 3) throw new ShapeError(`channelShuffle: takes at least 3 axes, got ${textOf(x.shape)}`);
  const [n, channels, ...rest] = x.shape;
  if (channels % groups !== 0) {
    throw new ShapeError(`channelShuffle: ${groups} groups do not divide ${channels} channels of ${textOf(x.shape)}`);
  }
  const inner = numelOf(rest), split = [n, groups, channels / groups, inner];
  // The spatial axes as one: always possible for a dense layout.
  return rearrange("channelShuffle", x, split, [0, 2, 1, 3], x.shape, (grad) => channelShuffle(grad, channels / groups));
}

/** How {@linkcode pad} fills. */
export type PadModeName = "constant" | "reflect" | "replicate" | "circular";

/** Options of {@linkcode pad}. */
export interface PadOptions {
  /** Default `"constant"`. */
  mode?: PadModeName;
  /** What `"constant"` fills with. Default `0`. */
  value?: number;
}

/**
 * Adds positions around the last axes.
 *
 * `pads` holds two counts an axis, in front and behind, the last axis first: `[left, right, top, bottom]` for the last two.
 *
 * | mode | new positions | axes |
 * |---|---|---|
 * | `"constant"` | `value`; negative counts remove positions | any |
 * | `"reflect"` | mirrored at the border element, which is not repeated; less than the axis | last 1 to 3, all the spatial ones |
 * | `"replicate"` | the border element | the same |
 * | `"circular"` | from the other end; at most the axis | the same |
 *
 * @param x Any dtype. Modes other than constant: `[N, C, spatial...]` or `[C, spatial...]`, a pair of counts per spatial axis.
 * @throws {ShapeError} If the counts do not fit the shape.
 * @throws {RangeError} If counts are not whole numbers, or negative where they may not be.
 *
 * Derivative: each element gathers what its copies receive.
 *
 * @example
 * ```ts
 * import { pad, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[[1, 2, 3]]]);
 * assertEquals(pad(x, [1, 2]).tolist(), [[[0, 1, 2, 3, 0, 0]]]);
 * assertEquals(pad(x, [2, 1], { mode: "reflect" }).tolist(), [[[3, 2, 1, 2, 3, 2]]]);
 * ```
 */
export function pad(x: Tensor, pads: readonly number[], options?: PadOptions): Tensor {
  checkTensor(x, "pad", "the input");
  const mode = options?.mode ?? "constant", axes = pads.length / 2;
  if (!Number.isInteger(axes) || !pads.every(Number.isSafeInteger)) {
    throw new RangeError(`pad: pads are whole numbers, two an axis, the last axis first, got ${textOf(pads)}`);
  }
  if (axes > x.rank) throw new ShapeError(`pad: ${pads.length} pads are more than two an axis of ${textOf(x.shape)}`);
  if (mode === "constant") return padConstant(x, pads, options?.value ?? 0);
  if (!Object.hasOwn(PadMode, mode)) throw new RangeError(`pad: mode must be constant, reflect, replicate or circular, got "${mode}"`);
  if (options?.value !== undefined && options.value !== 0) throw new RangeError(`pad: value goes with mode "constant", not with "${mode}"`);
  if (axes < 1 || axes > 3 || (x.rank !== axes + 1 && x.rank !== axes + 2)) {
    throw new ShapeError(`pad: mode "${mode}" with ${pads.length} pads takes ${axes + 1} or ${axes + 2} axes, got ${textOf(x.shape)}`);
  }
  if (pads.some((p) => p < 0)) throw new RangeError(`pad: mode "${mode}" takes counts >= 0, got ${textOf(pads)}`);
  for (let i = 0; i < pads.length; i++) {
    const size = x.shape[x.rank - 1 - Math.floor(i / 2)], most = mode === "reflect" ? size - 1 : mode === "circular" ? size : Infinity;
    if (pads[i] > most || size === 0) {
      throw new ShapeError(
        `pad: mode "${mode}" adds at most ${size === 0 ? 0 : most} positions to an axis of ${size}, got ${textOf(pads)}`,
      );
    }
  }
  if (x.rank === axes + 1) return unbatched(x, (batch) => padMapped(batch, pads, mode, false));
  return padMapped(x, pads, mode, false);
}

function padMapped(
  x: Tensor,
  pads: readonly number[],
  mode: Exclude<PadModeName, "constant">,
  adjoint: boolean,
  last = inChannelsLast(x),
): Tensor {
  const axes = pads.length / 2, sign = adjoint ? -1 : 1;
  const shape = x.shape.map((size, i) =>
    i < x.rank - axes ? size : size + sign * (pads[2 * (x.rank - 1 - i)] + pads[2 * (x.rank - 1 - i) + 1])
  );
  const input = last ? channelsLast(x) : contiguous(x), y = arranged(shape, x, last);
  const [before0, before1, before2] = [2, 1, 0].map((i) => pads[2 * i] ?? 0), code = PadMode[mode];
  native(
    x.device,
    (lib, f) =>
      adjoint
        ? lib.dg_pad_backward(f.pointer, f.put(y), f.put(input), code, before0, before1, before2)
        : lib.dg_pad(f.pointer, f.put(y), f.put(input), code, before0, before1, before2),
  );
  record(adjoint ? "pad (derivative)" : "pad", [input], y, [], (grad) => [padMapped(grad, pads, mode, !adjoint, last)]);
  if (input !== x) input.dispose();
  return y;
}

function padConstant(x: Tensor, pads: readonly number[], value: number): Tensor {
  const before = x.shape.map((_, i) => pads[2 * (x.rank - 1 - i)] ?? 0),
    behind = x.shape.map((_, i) => pads[2 * (x.rank - 1 - i) + 1] ?? 0);
  const shape = x.shape.map((size, i) => size + before[i] + behind[i]);
  if (shape.some((size) => size < 0)) throw new ShapeError(`pad: ${textOf(pads)} would make ${textOf(shape)} of ${textOf(x.shape)}`);
  const plain = arranged(shape, x, inChannelsLast(x)), y = fullLike(plain, value);
  plain.dispose();
  const from = before.map((count) => Math.max(count, 0)), skip = before.map((count) => Math.max(-count, 0));
  const common = shape.map((size, i) => Math.min(size - from[i], x.shape[i] - skip[i]));
  if (common.every((size) => size > 0)) {
    const at = (strides: Shape, start: Shape) => start.reduce((sum, index, i) => sum + index * strides[i], 0);
    copyInto(alias(y, common, y.strides, at(y.strides, from)), alias(x, common, x.strides, at(x.strides, skip)));
  }
  return record("pad", [x], y, [], (grad) => [padConstant(grad, pads.map((count) => -count), 0)]);
}

/** Options of {@linkcode unfold} and {@linkcode fold}. */
export interface UnfoldOptions {
  /** Steps between the positions of a window. Default `1`. */
  dilation?: number | readonly number[];
  /** Zeros on both sides. Default `0`. */
  padding?: number | readonly number[];
  /** Steps between windows. Default `1`. */
  stride?: number | readonly number[];
}

/** Options of {@linkcode fold}. */
export interface FoldOptions extends UnfoldOptions {
  /** Sizes of the result's last two axes. */
  outputSize: number | readonly number[];
  /** Window. */
  kernelSize: number | readonly number[];
}

interface Sliding {
  readonly kernel: Shape;
  readonly stride: Shape;
  readonly padding: Shape;
  readonly dilation: Shape;
  /** Sizes of the image. */
  readonly image: Shape;
  /** Windows along each axis. */
  readonly windows: Shape;
}

function two(value: number | readonly number[], least: number, op: string, what: string): number[] {
  const list = typeof value === "number" ? [value, value] : [...value];
  if (list.length !== 2 || !list.every((v) => Number.isSafeInteger(v) && v >= least)) {
    throw new RangeError(`${op}: ${what} must be a whole number >= ${least} or two of them, got ${textOf(list)}`);
  }
  return list;
}

function slidingOf(op: string, image: Shape, kernelSize: number | readonly number[], options: UnfoldOptions | undefined): Sliding {
  const kernel = two(kernelSize, 1, op, "kernelSize"), stride = two(options?.stride ?? 1, 1, op, "stride");
  const padding = two(options?.padding ?? 0, 0, op, "padding"), dilation = two(options?.dilation ?? 1, 1, op, "dilation");
  const windows = image.map((size, i) => Math.floor((size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) / stride[i]) + 1);
  if (windows.some((count) => count < 1)) {
    throw new ShapeError(`${op}: a window of ${textOf(kernel)} does not fit ${textOf(image)} with padding ${textOf(padding)}`);
  }
  return { kernel, stride, padding, dilation, image, windows };
}

/** The windows of a padded image as a view `[N, C, kh, kw, oh, ow]`. */
function windowsOf(padded: Tensor, { kernel, stride, dilation, windows }: Sliding): Tensor {
  const [n, c] = padded.shape, [sn, sc, sh, sw] = padded.strides;
  const strides = [sn, sc, sh * dilation[0], sw * dilation[1], sh * stride[0], sw * stride[1]];
  return alias(padded, [n, c, ...kernel, ...windows], strides);
}

function unfoldBatch(x: Tensor, sliding: Sliding): Tensor {
  const [top, left] = sliding.padding, { kernel, windows } = sliding;
  const padded = top + left === 0 ? x : padConstant(alias(x, x.shape, x.strides), [left, left, top, top], 0);
  const shape = [x.shape[0], x.shape[1], ...kernel, ...windows];
  const full = copyInto(emptyTensor(shape, x.dtype, x.device), windowsOf(padded, sliding));
  if (padded !== x) padded.dispose();
  const merged = [x.shape[0], x.shape[1] * numelOf(kernel), numelOf(windows)];
  const y = new Tensor(full.storage, merged, contiguousStrides(merged), 0, x.dtype);
  full.dispose();
  return record("unfold", [x], y, [], (grad) => [foldBatch(grad, sliding)]);
}

function foldBatch(x: Tensor, sliding: Sliding): Tensor {
  const { kernel, windows, image, padding, stride, dilation } = sliding;
  const channels = x.shape[1] / numelOf(kernel), half = x.dtype === "float16" || x.dtype === "bfloat16";
  const dtype = half ? "float32" : x.dtype; // sums of half types accumulate in float
  const input = !half && x.isContiguous() ? x : copyInto(emptyTensor(x.shape, dtype, x.device), x);
  const columns = alias(
    input,
    [x.shape[0], channels, ...kernel, ...windows],
    contiguousStrides([x.shape[0], channels, ...kernel, ...windows]),
  );
  const padded = zeros([x.shape[0], channels, image[0] + 2 * padding[0], image[1] + 2 * padding[1]], { dtype, device: x.device });
  const [sn, sc, sh, sw] = padded.strides, [cn, cc, ch, cw] = columns.strides;
  for (let i = 0; i < kernel[0]; i++) {
    for (let j = 0; j < kernel[1]; j++) {
      const shape = [x.shape[0], channels, ...windows];
      const target = alias(padded, shape, [sn, sc, sh * stride[0], sw * stride[1]], i * dilation[0] * sh + j * dilation[1] * sw);
      const part = alias(columns, shape, [cn, cc, ...columns.strides.slice(4)], i * ch + j * cw);
      native(x.device, (lib, f) => lib.dg_binary(f.pointer, f.put(target), f.put(target), f.put(part), BinaryOp.add, 1));
    }
  }
  const [top, left] = padding;
  if (input !== x) input.dispose();
  const cropped = top + left === 0 ? padded : padConstant(padded, [-left, -left, -top, -top], 0);
  if (cropped !== padded) padded.dispose();
  const y = half ? copyInto(emptyTensor(cropped.shape, x.dtype, x.device), cropped) : cropped;
  if (y !== cropped) cropped.dispose();
  return record("fold", [x], y, [], (grad) => [unfoldBatch(grad, sliding)]);
}

/**
 * Sliding windows of an image as columns (im2col).
 *
 * `y[n, (c * kh + i) * kw + j, l] = x[n, c, oh * stride + i * dilation - padding, …]` with `l = oh * OW + ow`.
 *
 * @param x Shape `[N, C, H, W]` or `[C, H, W]`.
 * @param kernelSize Window, one number or `[kh, kw]`.
 * @param options Dilation, padding (zeros), stride.
 * @returns Shape `[N, C * kh * kw, OH * OW]`.
 * @throws {ShapeError} If the rank does not fit or no window does.
 *
 * @example
 * ```ts
 * import { tensor, unfold } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(unfold(tensor([[[1, 2, 3], [4, 5, 6]]]), 2).tolist(), [[1, 2], [2, 3], [4, 5], [5, 6]]);
 * ```
 */
export function unfold(x: Tensor, kernelSize: number | readonly number[], options?: UnfoldOptions): Tensor {
  checkTensor(x, "unfold", "the input");
  if (x.rank !== 4 && x.rank !== 3) throw new ShapeError(`unfold: takes [N, C, H, W] or [C, H, W], got ${textOf(x.shape)}`);
  const sliding = slidingOf("unfold", x.shape.slice(-2), kernelSize, options);
  return x.rank === 4 ? unfoldBatch(x, sliding) : unbatched(x, (batch) => unfoldBatch(batch, sliding));
}

/**
 * Sums columns back into an image (col2im), the adjoint of {@linkcode unfold}: positions that several windows cover get the sum.
 *
 * @param x Shape `[N, C * kh * kw, L]` or `[C * kh * kw, L]`, `L` the number of windows.
 * @param options Sizes of the image, window, dilation, padding, stride.
 * @returns Shape `[N, C, ...outputSize]`.
 * @throws {ShapeError} If the columns or windows do not fit.
 */
export function fold(x: Tensor, options: FoldOptions): Tensor {
  checkTensor(x, "fold", "the input");
  if (x.rank !== 3 && x.rank !== 2) throw new ShapeError(`fold: takes [N, C * kh * kw, L] or [C * kh * kw, L], got ${textOf(x.shape)}`);
  const sliding = slidingOf("fold", two(options.outputSize, 1, "fold", "outputSize"), options.kernelSize, options);
  const [rows, columns] = x.shape.slice(-2), window = numelOf(sliding.kernel), expected = numelOf(sliding.windows);
  if (rows % window !== 0) {
    throw new ShapeError(`fold: ${rows} rows are not a multiple of the window's ${window} positions in ${textOf(x.shape)}`);
  }
  if (columns !== expected) {
    throw new ShapeError(`fold: ${columns} columns, expected ${expected} (${sliding.windows.join(" x ")} windows) in ${textOf(x.shape)}`);
  }
  return x.rank === 3 ? foldBatch(x, sliding) : unbatched(x, (batch) => foldBatch(batch, sliding));
}
