/**
 * Initial values: each function overwrites a tensor and returns it, without recording.
 *
 * @module
 */
import { noGrad } from "../autograd/functional.ts";
import { ShapeError } from "../ffi/errors.ts";
import * as ops from "../ops/mod.ts";
import { numelOf, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** Which of the two fans keeps its variance: that of the forward pass, or that of backward. */
export type FanMode = "fanIn" | "fanOut";

/** Non-linear functions whose gain is known. */
export type Nonlinearity = "linear" | "conv" | "sigmoid" | "tanh" | "relu" | "leakyRelu" | "selu";

function check(x: Tensor, name: string, rank = 0): void {
  if (!(x instanceof Tensor)) throw new TypeError(`${name}: takes a tensor, got ${x === null ? "null" : typeof x}`);
  x.checkAlive(name);
  if (x.rank < rank) throw new ShapeError(`${name}: takes a tensor with at least ${rank} axes, got ${textOf(x.shape)}`);
}

/**
 * Inputs and outputs of one unit of a weight `[out, in, ...kernel]`.
 *
 * @throws {ShapeError} For fewer than 2 axes.
 */
export function calculateFan(x: { readonly shape: Shape }): { fanIn: number; fanOut: number } {
  const { shape } = x;
  if (shape.length < 2) throw new ShapeError(`calculateFan: a weight has at least 2 axes, got ${textOf(shape)}`);
  const field = numelOf(shape.slice(2));
  return { fanIn: shape[1] * field, fanOut: shape[0] * field };
}

/**
 * The factor that makes up for what a function does to the variance: 1 for `linear`, `conv` and `sigmoid`, 5/3 for `tanh`, `sqrt(2)` for `relu`,
 * `sqrt(2 / (1 + slope^2))` for `leakyRelu`, 3/4 for `selu`.
 *
 * @param slope Slope of `leakyRelu` below 0. Default `0.01`.
 * @throws {RangeError} For another name.
 */
export function calculateGain(nonlinearity: Nonlinearity, slope = 0.01): number {
  switch (nonlinearity) {
    case "linear":
    case "conv":
    case "sigmoid":
      return 1;
    case "tanh":
      return 5 / 3;
    case "relu":
      return Math.SQRT2;
    case "leakyRelu":
      return Math.sqrt(2 / (1 + slope * slope));
    case "selu":
      return 0.75;
    default:
      throw new RangeError(
        `calculateGain: unknown function ${
          JSON.stringify(nonlinearity satisfies never)
        }, expected linear, conv, sigmoid, tanh, relu, leakyRelu or selu`,
      );
  }
}

/** Uniform in `[low, high)`. */
export function uniform_<T extends Tensor>(x: T, low = 0, high = 1): T {
  check(x, "uniform_");
  return noGrad(() => ops.uniform_(x, low, high));
}

/** Normal. */
export function normal_<T extends Tensor>(x: T, mean = 0, std = 1): T {
  check(x, "normal_");
  return noGrad(() => ops.normal_(x, mean, std));
}

/** The number everywhere. */
export function constant_<T extends Tensor>(x: T, value: number): T {
  check(x, "constant_");
  return noGrad(() => ops.fill_(x, value));
}

/** Ones. */
export function ones_<T extends Tensor>(x: T): T {
  return constant_(x, 1);
}

/** Zeros. */
export function zeros_<T extends Tensor>(x: T): T {
  return constant_(x, 0);
}

/** The identity matrix. @throws {ShapeError} For a tensor that is not a matrix. */
export function eye_<T extends Tensor>(x: T): T {
  check(x, "eye_");
  if (x.rank !== 2) throw new ShapeError(`eye_: takes a matrix, got ${textOf(x.shape)}`);
  return fillFrom(x, (at) => at[0] === at[1] ? 1 : 0);
}

/**
 * The Dirac delta: a convolution with these weights passes its input channels through, in each group.
 *
 * @param groups Groups of the convolution. Default `1`.
 * @throws {ShapeError} For other than 3 to 5 axes, or if the groups do not divide the output channels.
 */
export function dirac_<T extends Tensor>(x: T, groups = 1): T {
  check(x, "dirac_");
  if (x.rank < 3 || x.rank > 5) throw new ShapeError(`dirac_: takes a weight with 3, 4 or 5 axes, got ${textOf(x.shape)}`);
  if (!Number.isInteger(groups) || groups < 1 || x.shape[0] % groups !== 0) {
    throw new ShapeError(`dirac_: ${groups} groups do not divide ${x.shape[0]} output channels`);
  }
  const perGroup = x.shape[0] / groups, centre = x.shape.slice(2).map((size) => Math.floor(size / 2));
  return fillFrom(x, ([out, into, ...place]) => out % perGroup === into && place.every((p, i) => p === centre[i]) ? 1 : 0);
}

/** Writes a function of the position. */
function fillFrom<T extends Tensor>(x: T, value: (at: readonly number[]) => number): T {
  const values = new Float64Array(x.numel()), at = new Array<number>(x.rank).fill(0);
  for (let i = 0; i < values.length; i++) {
    values[i] = value(at);
    for (let axis = x.rank - 1; axis >= 0 && ++at[axis] === x.shape[axis]; axis--) at[axis] = 0;
  }
  return write(x, values);
}

function write<T extends Tensor>(x: T, values: Float64Array<ArrayBuffer>): T {
  noGrad(() => {
    const flat = ops.tensor(values, { device: x.device }), shaped = ops.reshape(flat, x.shape);
    ops.copy_(x, shaped);
    flat.dispose();
    shaped.dispose();
  });
  return x;
}

/**
 * Uniform in `±gain * sqrt(6 / (fanIn + fanOut))` (Glorot and Bengio 2010).
 *
 * @param options.gain See {@linkcode calculateGain}. Default `1`.
 */
export function xavierUniform_<T extends Tensor>(x: T, options?: { gain?: number }): T {
  check(x, "xavierUniform_", 2);
  const { fanIn, fanOut } = calculateFan(x), bound = (options?.gain ?? 1) * Math.sqrt(6 / (fanIn + fanOut));
  return uniform_(x, -bound, bound);
}

/** Normal with the standard deviation `gain * sqrt(2 / (fanIn + fanOut))` (Glorot and Bengio 2010). */
export function xavierNormal_<T extends Tensor>(x: T, options?: { gain?: number }): T {
  check(x, "xavierNormal_", 2);
  const { fanIn, fanOut } = calculateFan(x);
  return normal_(x, 0, (options?.gain ?? 1) * Math.sqrt(2 / (fanIn + fanOut)));
}

/** Settings of the Kaiming initialisations. */
export interface KaimingOptions {
  /** Slope below 0 of the `leakyRelu` that follows. Default `0`. */
  a?: number;
  /** The fan whose variance is kept. Default `"fanIn"`. */
  mode?: FanMode;
  /** The function that follows. Default `"leakyRelu"`. */
  nonlinearity?: Nonlinearity;
}

function kaimingDeviation(x: Tensor, options: KaimingOptions | undefined, name: string): number {
  check(x, name, 2);
  const mode = options?.mode ?? "fanIn";
  if (mode !== "fanIn" && mode !== "fanOut") throw new RangeError(`${name}: mode must be "fanIn" or "fanOut", got ${JSON.stringify(mode)}`);
  return calculateGain(options?.nonlinearity ?? "leakyRelu", options?.a ?? 0) / Math.sqrt(calculateFan(x)[mode]);
}

/**
 * Uniform in `±gain * sqrt(3 / fan)` (He et al. 2015).
 *
 * @example
 * ```ts
 * import { empty, nn } from "@dinograd/dinograd";
 * import { assert } from "@std/assert";
 * const weight = nn.init.kaimingUniform_(empty([8, 3, 3, 3]), { nonlinearity: "relu" });
 * assert(weight.abs().max().item() <= Math.sqrt(6 / 27));
 * ```
 */
export function kaimingUniform_<T extends Tensor>(x: T, options?: KaimingOptions): T {
  const bound = Math.sqrt(3) * kaimingDeviation(x, options, "kaimingUniform_");
  return uniform_(x, -bound, bound);
}

/** Normal with the standard deviation `gain / sqrt(fan)` (He et al. 2015). */
export function kaimingNormal_<T extends Tensor>(x: T, options?: KaimingOptions): T {
  return normal_(x, 0, kaimingDeviation(x, options, "kaimingNormal_"));
}

/**
 * Normal, with values outside `[a, b]` drawn again.
 *
 * @param options.mean Default `0`.
 * @param options.std Default `1`.
 * @param options.a Least value. Default `-2`.
 * @param options.b Greatest value. Default `2`.
 * @throws {RangeError} If `a >= b` or `std <= 0`.
 */
export function truncNormal_<T extends Tensor>(x: T, options?: { mean?: number; std?: number; a?: number; b?: number }): T {
  check(x, "truncNormal_");
  const { mean = 0, std = 1, a = -2, b = 2 } = options ?? {};
  return noGrad(() => ops.truncNormal_(x, mean, std, a, b));
}

/**
 * A matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2013); further axes are counted with the columns.
 *
 * @param options.gain Factor. Default `1`.
 * @throws {ShapeError} For fewer than 2 axes.
 */
export function orthogonal_<T extends Tensor>(x: T, options?: { gain?: number }): T {
  check(x, "orthogonal_", 2);
  if (x.numel() === 0) return x;
  const rows = x.shape[0], columns = x.numel() / rows, count = Math.min(rows, columns), length = Math.max(rows, columns);
  // `count` vectors one after the other.
  const vectors = noGrad(() => {
    using draws = ops.normal_(ops.empty([count * length], { dtype: "float64", device: x.device }));
    return draws.data() as Float64Array<ArrayBuffer>;
  });
  for (let i = 0; i < count; i++) {
    const v = vectors.subarray(i * length, (i + 1) * length);
    // Gram-Schmidt, twice: once leaves a rounding error that grows with the number of vectors.
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const u = vectors.subarray(j * length, (j + 1) * length);
        let dot = 0;
        for (let k = 0; k < length; k++) dot += u[k] * v[k];
        for (let k = 0; k < length; k++) v[k] -= dot * u[k];
      }
    }
    let norm = 0;
    for (let k = 0; k < length; k++) norm += v[k] * v[k];
    for (let k = 0, scale = 1 / Math.sqrt(norm); k < length; k++) v[k] *= scale;
  }
  const gain = options?.gain ?? 1, values = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      values[r * columns + c] = gain * (rows <= columns ? vectors[r * length + c] : vectors[c * length + r]);
    }
  }
  return write(x, values);
}
