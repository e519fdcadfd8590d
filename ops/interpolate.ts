/**
 * Interpolation: resizing the spatial axes.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { InterpolateMode as Code } from "../ffi/op_codes.ts";
import { channelsLastStrides, contiguousStrides, isChannelsLast, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { channelsLast, contiguous } from "./copy.ts";
import { checkTensor, emptyTensor, native } from "./native.ts";
import { adaptiveAvgPool1d, adaptiveAvgPool2d, adaptiveAvgPool3d } from "./pooling.ts";

/** How positions between elements get their value. */
export type InterpolationMode = "nearest" | "nearest-exact" | "linear" | "bilinear" | "bicubic" | "trilinear" | "area";

/** Options of {@linkcode interpolate}: exactly one of `size` and `scaleFactor`. */
export interface InterpolateOptions {
  /** Spatial sizes of the result, one number for all axes or one per axis. */
  size?: number | Shape | null;
  /** Factor on the sizes, one number for all axes or one per axis; sizes are rounded down. */
  scaleFactor?: number | readonly number[] | null;
  /** Default `"nearest"`. */
  mode?: InterpolationMode;
  /** Linear and cubic modes: map the corner elements' centres onto each other instead of the corners' edges. Default `false`. */
  alignCorners?: boolean | null;
  /** Map positions by the ratio of the rounded sizes instead of `scaleFactor` itself. Default `false`. */
  recomputeScaleFactor?: boolean | null;
  /** Bilinear and bicubic: widen the filter when making smaller, as image libraries do. Default `false`. */
  antialias?: boolean;
}

interface Map3 {
  readonly mode: number;
  readonly align: number;
  readonly factors: [number, number, number];
}

const ranks: Readonly<Record<InterpolationMode, readonly number[]>> = {
  "nearest": [3, 4, 5],
  "nearest-exact": [3, 4, 5],
  "area": [3, 4, 5],
  "linear": [3],
  "bilinear": [4],
  "bicubic": [4],
  "trilinear": [5],
};

const codes = {
  "nearest": Code.nearest,
  "nearest-exact": Code.nearest_exact,
  "linear": Code.linear,
  "bilinear": Code.linear,
  "trilinear": Code.linear,
  "bicubic": Code.cubic,
} as const satisfies Record<Exclude<InterpolationMode, "area">, number>;

const inChannelsLast = (x: Tensor): boolean => !x.isContiguous() && isChannelsLast(x.shape, x.strides);

/** The map applied to `x`, or its adjoint; each is the other's derivative. */
function resize(name: string, x: Tensor, shape: Shape, map: Map3, adjoint: boolean, last = inChannelsLast(x)): Tensor {
  const input = last ? channelsLast(x) : contiguous(x);
  const y = emptyTensor(shape, x.dtype, x.device, last ? channelsLastStrides(shape) : contiguousStrides(shape));
  const { mode, align, factors } = map;
  native(
    x.device,
    (lib, f) =>
      adjoint
        ? lib.dg_interpolate_backward(f.pointer, f.put(y), f.put(input), mode, align, ...factors)
        : lib.dg_interpolate(f.pointer, f.put(y), f.put(input), mode, align, ...factors),
  );
  const title = adjoint ? `${name} (derivative)` : name;
  const from = x.shape;
  record(title, [input], y, [], (grad) => [resize(name, grad, from, map, !adjoint, last)]);
  if (input !== x) input.dispose();
  return y;
}

function perAxis(value: number | readonly number[], axes: number, what: string): number[] {
  const list = typeof value === "number" ? new Array<number>(axes).fill(value) : [...value];
  if (list.length !== axes) {
    throw new ShapeError(`interpolate: ${what} must be a number or one per spatial axis (${axes}), got ${textOf(list)}`);
  }
  return list;
}

/**
 * Resizes the spatial axes of a batch.
 *
 * Output position `o` of an axis reads the input at `(o + 0.5) * s - 0.5` (half-pixel centres; `s = 1 / scaleFactor`, or the input's size over the
 * output's), at `o * (in - 1) / (out - 1)` with `alignCorners`, and at `floor(o * s)` in mode `"nearest"` (`"nearest-exact"` rounds the half-pixel
 * position). Linear modes weigh the two neighbours of each axis, `"bicubic"` four with the cubic convolution of `a = -0.75` (Keys 1981), positions
 * outside taking the border's value. `"area"` is adaptive average pooling.
 *
 * | mode | axes of `x` |
 * |---|---|
 * | `"nearest"`, `"nearest-exact"`, `"area"` | `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]` |
 * | `"linear"` / `"bilinear"`, `"bicubic"` / `"trilinear"` | `[N, C, L]` / `[N, C, H, W]` / `[N, C, D, H, W]` |
 *
 * The memory order (channels-last or row-major) of `x` is kept.
 *
 * @param x Input, any float dtype; the nearest modes take uint8, too.
 * @param options `size` or `scaleFactor`; `mode` (default `"nearest"`), `alignCorners`, `recomputeScaleFactor`, `antialias`.
 * @returns Shape `[N, C, ...size]`, dtype of `x`.
 * @throws {ShapeError} If the rank does not fit the mode, or a size would be less than 1.
 * @throws {RangeError} If both or neither of `size` and `scaleFactor` are given, or an option does not go with the mode.
 *
 * Derivative: the exact adjoint, each input position gathering what it gave; of any order.
 *
 * @example
 * ```ts
 * import { interpolate, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[[[1, 2], [3, 4]]]]);
 * assertEquals(interpolate(x, { scaleFactor: 2 }).tolist(), [[[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]]]);
 * assertEquals(interpolate(x, { size: [1, 3], mode: "bilinear", alignCorners: true }).tolist(), [[[[1, 1.5, 2]]]]);
 * ```
 */
export function interpolate(x: Tensor, options: InterpolateOptions): Tensor {
  checkTensor(x, "interpolate", "the input");
  const mode = options?.mode ?? "nearest", allowed = ranks[mode];
  if (!Object.hasOwn(ranks, mode)) {
    throw new RangeError(`interpolate: mode must be one of ${Object.keys(ranks).join(", ")}, got ${JSON.stringify(mode)}`);
  }
  if (!allowed.includes(x.rank)) {
    throw new ShapeError(
      `interpolate: mode "${mode}" takes ${allowed.join(", ")} axes (batch and channels first), got ${textOf(x.shape)}`,
    );
  }
  const nearest = mode === "nearest" || mode === "nearest-exact", axes = x.rank - 2;
  if (!x.isFloat && !(nearest && x.dtype === "uint8")) {
    throw new DTypeError(`interpolate: mode "${mode}" takes a floating point tensor${nearest ? " or uint8" : ""}, got ${x.dtype}`);
  }
  const align = options.alignCorners ?? null, antialias = options.antialias ?? false;
  if ((nearest || mode === "area") && align !== null) {
    throw new RangeError(`interpolate: alignCorners goes with linear and cubic modes, not with "${mode}": leave it out`);
  }
  if (antialias && mode !== "bilinear" && mode !== "bicubic") {
    throw new RangeError(`interpolate: antialias goes with "bilinear" and "bicubic", not with "${mode}"`);
  }
  const { sizes, factors } = outputOf(x.shape.slice(2), axes, options);
  if (x.shape.slice(1).includes(0)) throw new ShapeError(`interpolate: only the batch may be empty, got ${textOf(x.shape)}`);
  if (mode === "area") return [adaptiveAvgPool1d, adaptiveAvgPool2d, adaptiveAvgPool3d][axes - 1](x, sizes);
  const code = antialias ? (mode === "bilinear" ? Code.linear_antialias : Code.cubic_antialias) : codes[mode];
  const map: Map3 = {
    mode: code,
    align: align ? 1 : 0,
    factors: [...new Array<number>(3 - axes).fill(0), ...factors] as [number, number, number],
  };
  return resize("interpolate", x, [x.shape[0], x.shape[1], ...sizes], map, false);
}

/** Spatial sizes of the result, and the factors that positions are mapped by (0: the ratio of the sizes). */
function outputOf(spatial: Shape, axes: number, options: InterpolateOptions): { sizes: number[]; factors: number[] } {
  const size = options.size ?? null, scale = options.scaleFactor ?? null, recompute = options.recomputeScaleFactor ?? false;
  if ((size === null) === (scale === null)) {
    throw new RangeError(`interpolate: expected exactly one of size and scaleFactor, got ${size === null ? "neither" : "both"}`);
  }
  let sizes: number[], factors = new Array<number>(axes).fill(0);
  if (size !== null) {
    if (recompute) throw new RangeError("interpolate: recomputeScaleFactor goes with scaleFactor, not with size");
    sizes = perAxis(size, axes, "size");
  } else {
    const given = perAxis(scale!, axes, "scaleFactor");
    if (!given.every((factor) => Number.isFinite(factor) && factor > 0)) {
      throw new RangeError(`interpolate: scaleFactor must be a number > 0, got ${textOf(given)}`);
    }
    sizes = spatial.map((length, i) => Math.floor(length * given[i]));
    if (!recompute) factors = given;
  }
  if (!sizes.every((length) => Number.isSafeInteger(length) && length >= 1 && length < 2 ** 31)) {
    throw new ShapeError(
      `interpolate: the result's spatial sizes must be whole numbers >= 1, got ${textOf(sizes)} from ${textOf(spatial)}`,
    );
  }
  return { sizes, factors };
}

/** Another name of {@linkcode interpolate}, as in PyTorch. */
export function upsample(x: Tensor, options: InterpolateOptions): Tensor {
  return interpolate(x, options);
}
