/**
 * Random numbers: Philox4x32-10 streams, the same on any number of threads and any device.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { device as deviceOf } from "../ffi/device.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { BinaryOp, RandomOp } from "../ffi/op_codes.ts";
import { type DType, getDefaultDType, isFloat } from "../tensor/dtype.ts";
import { counted, refuseInCapture } from "../tensor/capture.ts";
import { recorder, unrepeatable } from "../tensor/recorder.ts";
import { checkShape, type Shape, textOf } from "../tensor/shape.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { copyInto, to } from "./copy.ts";
import { defaultDevice, emptyLike as requestedLike, type TensorOptions } from "./creation.ts";
import { overwrite } from "./inplace.ts";
import { checkFloat, checkTensor, emptyLike, emptyTensor, native } from "./native.ts";
import { item } from "./read.ts";
import { any } from "./reduction.ts";
import { reshape } from "./view.ts";

/** Where a {@linkcode Generator} stands; plain data, for checkpoints. */
export interface GeneratorState {
  /** The seed, as a decimal number of up to 64 bits. */
  seed: string;
  /** Counters used so far. */
  offset: number;
}

const MASK64 = (1n << 64n) - 1n;

/**
 * A stream of random numbers: a seed and how many of its counters are used up.
 *
 * Each call that draws takes the next counters, one for four 32-bit words. Two generators with the same state give the same numbers.
 *
 * @example Repeating a draw
 * ```ts
 * import { Generator, rand } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const generator = new Generator(42);
 * const state = generator.getState();
 * const first = rand([3], { generator }).tolist();
 * generator.setState(state);
 * assertEquals(rand([3], { generator }).tolist(), first);
 * ```
 */
export class Generator {
  #seed = 0n;
  #offset = 0;

  /**
   * A stream at its beginning.
   *
   * @param seed Whole number, 0 to 2^64 - 1 (negative ones count back from 2^64). Default: one that nobody can foresee.
   * @throws {RangeError} If it is not a whole number.
   */
  constructor(seed?: number | bigint) {
    if (seed === undefined) this.seed();
    else this.manualSeed(seed);
  }

  /** Starts the stream of `seed` from its beginning. @throws {RangeError} If it is not a whole number. */
  manualSeed(seed: number | bigint): this {
    refuseInCapture("a generator cannot be seeded inside");
    unrepeatable("it seeds a generator");
    if (typeof seed !== "bigint" && !Number.isSafeInteger(seed)) throw new RangeError(`manualSeed: takes a whole number, got ${seed}`);
    this.#seed = BigInt(seed) & MASK64;
    this.#offset = 0;
    return this;
  }

  /** Starts a stream that nobody can foresee, and returns its seed. */
  seed(): bigint {
    this.manualSeed(crypto.getRandomValues(new BigUint64Array(1))[0]);
    return this.#seed;
  }

  /** The seed of the stream. */
  initialSeed(): bigint {
    return this.#seed;
  }

  /** Where the stream stands. */
  getState(): GeneratorState {
    unrepeatable("it reads the state of a generator");
    return { seed: String(this.#seed), offset: this.#offset };
  }

  /** Goes to where `state` was taken. @throws {RangeError} If it is not a state. */
  setState(state: GeneratorState): this {
    if (!/^\d{1,20}$/.test(state?.seed) || !Number.isSafeInteger(state.offset) || state.offset < 0) {
      throw new RangeError(`setState: takes { seed, offset } from getState(), got ${JSON.stringify(state)}`);
    }
    refuseInCapture("a generator's state cannot be set inside");
    unrepeatable("it sets the state of a generator");
    this.#seed = BigInt(state.seed) & MASK64;
    this.#offset = state.offset;
    return this;
  }

  #part(offset: number): StreamPart {
    return [Number(this.#seed & 0xffffffffn), Number(this.#seed >> 32n), offset % 4294967296, Math.floor(offset / 4294967296)];
  }

  /** Takes `counters` counters of the stream for a native call. */
  take(counters: number): StreamPart {
    const offset = this.#offset;
    this.#offset += counters;
    counted(this, counters, true, (by) => this.#offset += by);
    const part = this.#part(offset);
    recorder?.random(this, counters, part, () => {
      const again = this.#part(this.#offset);
      this.#offset += counters;
      return again;
    }, () => this.#offset -= counters);
    return part;
  }
}

/** Seed and first counter as the low and high words that native calls take. */
export type StreamPart = readonly [seedLow: number, seedHigh: number, offsetLow: number, offsetHigh: number];

/** The generator of every call that names none. */
export const defaultGenerator: Generator = new Generator();

/** Seeds {@linkcode defaultGenerator}, so that what follows repeats. @throws {RangeError} If the seed is not a whole number. */
export function manualSeed(seed: number | bigint): Generator {
  return defaultGenerator.manualSeed(seed);
}

/** What the random creation functions take besides a shape. */
export interface RandomOptions extends TensorOptions {
  /** Source of the numbers. Default {@linkcode defaultGenerator}. */
  generator?: Generator;
}

type Parameters = readonly [a?: number, b?: number, c?: number, d?: number];

/** Elements that one counter makes. */
function perCounter(op: keyof typeof RandomOp, dtype: DType): number {
  return op === "bits" || ((op === "uniform" || op === "normal") && dtype !== "float64") ? 4 : 2;
}

/** Fills `x`, whatever its strides, with numbers by row-major position. */
function fillKernel(x: Tensor, op: keyof typeof RandomOp, [a = 0, b = 0, c = 0, d = 0]: Parameters, generator = defaultGenerator): Tensor {
  if (!(generator instanceof Generator)) throw new TypeError(`${op}: generator must be a Generator, got ${typeof generator}`);
  const part = generator.take(Math.ceil(x.numel() / perCounter(op, x.dtype)));
  const row = x.isContiguous() ? x : emptyTensor(x.shape, x.dtype, x.device);
  recorder?.draws(part, 2);
  native(x.device, (lib, f) => lib.dg_random(f.pointer, f.put(row), RandomOp[op], ...part, a, b, c, d));
  if (row !== x) {
    copyInto(x, row);
    row.dispose();
  }
  return x;
}

function create(name: string, shape: Shape, op: keyof typeof RandomOp, values: Parameters, options?: RandomOptions, dtype?: DType): Tensor {
  checkShape(shape, name);
  const out = emptyTensor([...shape], options?.dtype ?? dtype ?? getDefaultDType(), deviceOf(options?.device ?? defaultDevice()));
  if (dtype === undefined && !out.isFloat) throw new DTypeError(`${name}: makes floating point numbers, got dtype ${out.dtype}`);
  fillKernel(out, op, values, options?.generator);
  return options?.requiresGrad ? out.requiresGrad_() : out;
}

function fillInPlace<T extends Tensor>(name: string, x: T, op: keyof typeof RandomOp, values: Parameters, generator?: Generator): T {
  checkTensor(x, name, "the tensor to write to");
  return overwrite(name, x, [], () => fillKernel(x, op, values, generator), [], () => [null]);
}

function checkFinite(name: string, values: Record<string, number>): void {
  for (const [what, value] of Object.entries(values)) {
    if (typeof value !== "number" || !Number.isFinite(value)) {
      throw new RangeError(`${name}: ${what} must be a finite number, got ${value}`);
    }
  }
}

function checkProbability(name: string, p: number): void {
  if (!(typeof p === "number" && p >= 0 && p <= 1)) throw new RangeError(`${name}: a probability must be in [0, 1], got ${p}`);
}

function checkDeviation(name: string, std: number): void {
  if (!(std >= 0)) throw new RangeError(`${name}: the standard deviation must be >= 0, got ${std}`);
}

/**
 * Numbers uniform in `[0, 1)`.
 *
 * @param options.dtype A floating-point dtype. Default: the default one.
 * @param options.generator Default: the default one.
 *
 * @example Seeded numbers repeat
 * ```ts
 * import { manualSeed, rand } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * manualSeed(7);
 * const first = rand([2, 3]);
 * manualSeed(7);
 * assertEquals(rand([2, 3]).tolist(), first.tolist());
 * assert(first.data().every((v) => Number(v) >= 0 && Number(v) < 1));
 * ```
 */
export function rand(shape: Shape, options?: RandomOptions): Tensor {
  return create("rand", shape, "uniform", [0, 1], options);
}

/** Standard normal numbers (Box-Muller). */
export function randn(shape: Shape, options?: RandomOptions): Tensor {
  return create("randn", shape, "normal", [0, 1], options);
}

/**
 * Whole numbers from `low` (included) to `high` (excluded), all as likely.
 *
 * @param options.dtype Default int64.
 * @throws {RangeError} If `low >= high` or either is not a whole number.
 */
export function randint(low: number, high: number, shape: Shape, options?: RandomOptions): Tensor {
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || low >= high) {
    throw new RangeError(`randint: takes whole numbers low < high, got ${low} and ${high}`);
  }
  return create("randint", shape, "integers", [low, high], options, "int64");
}

/** The numbers `0 .. n - 1` in random order, int64. @throws {RangeError} If `n` is negative or not whole. */
export function randperm(n: number, options?: RandomOptions): Tensor {
  if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(`randperm: n must be a whole number >= 0, got ${n}`);
  const order = create("randperm", [n], "permutation", [], { device: options?.device, generator: options?.generator }, "int64");
  if (options?.dtype === undefined || options.dtype === "int64") return order;
  const converted = to(order, options.dtype);
  order.dispose();
  return converted;
}

/**
 * Normal numbers of a mean and a standard deviation, each a number or a tensor (broadcast).
 *
 * @param shape Needed when both are numbers.
 * @throws {RangeError} If the standard deviation is negative.
 */
export function normal(mean: Tensor | number, std: Tensor | number, shape?: Shape | null, options?: RandomOptions): Tensor {
  if (!(mean instanceof Tensor) && !(std instanceof Tensor)) {
    checkFinite("normal", { mean, std });
    checkDeviation("normal", std);
    if (!shape) throw new ShapeError("normal: a shape must be given when mean and std are numbers");
    return create("normal", shape, "normal", [mean, std], options);
  }
  return scope(() => {
    const first = mean instanceof Tensor ? mean.detach() : mean, second = std instanceof Tensor ? std.detach() : std;
    for (const tensor of [first, second]) {
      if (!(tensor instanceof Tensor)) continue;
      checkTensor(tensor, "normal", "mean and std");
      checkFloat(tensor, "normal");
    }
    if (second instanceof Tensor) {
      if (item(any(second.ge(0).logicalNot())) !== 0) throw new RangeError("normal: every standard deviation must be >= 0");
    } else checkDeviation("normal", second);
    // z * std + mean, z of the common shape.
    const like = first instanceof Tensor ? first.add(second instanceof Tensor ? second.mul(0) : 0) : (second as Tensor);
    return randnLike(like, { generator: options?.generator, dtype: like.dtype }).mul(second).add(first);
  });
}

/** 1 with the probability that each element of `p` says, else 0; the dtype of `p`. @throws {RangeError} If one is outside `[0, 1]`. */
export function bernoulli(p: Tensor, options?: { generator?: Generator }): Tensor {
  checkTensor(p, "bernoulli", "the probabilities");
  checkFloat(p, "bernoulli");
  return scope(() => {
    const source = p.detach();
    const wrong = source.ge(0).logicalAnd(source.le(1)).logicalNot();
    if (item(any(wrong)) !== 0) throw new RangeError("bernoulli: every probability must be in [0, 1]");
    const draws = emptyTensor(p.shape, "float64", p.device);
    return fillKernel(draws, "uniform", [0, 1], options?.generator).lt(source.to("float64")).to(p.dtype);
  });
}

/** {@linkcode rand} with the shape, dtype and device of `x`. */
export function randLike(x: Tensor, options?: RandomOptions): Tensor {
  return like("randLike", x, "uniform", [0, 1], options);
}

/** {@linkcode randn} with the shape, dtype and device of `x`. */
export function randnLike(x: Tensor, options?: RandomOptions): Tensor {
  return like("randnLike", x, "normal", [0, 1], options);
}

function like(name: string, x: Tensor, op: keyof typeof RandomOp, values: Parameters, options?: RandomOptions): Tensor {
  checkTensor(x, name, "the input");
  const dtype = options?.dtype ?? x.dtype;
  if (!isFloat(dtype)) throw new DTypeError(`${name}: makes floating point numbers, got dtype ${dtype}`);
  const out = fillKernel(requestedLike(x, { dtype, device: options?.device }), op, values, options?.generator);
  return options?.requiresGrad ? out.requiresGrad_() : out;
}

/**
 * Draws category numbers in proportion to weights (they need not add up to 1).
 *
 * @param weights Shape `[K]` or `[N, K]`, finite and `>= 0`.
 * @param draws How many to draw from each row.
 * @param options.replacement A category may be drawn again. Default `false`.
 * @returns int64, shape `[draws]` or `[N, draws]`.
 * @throws {RangeError} If a weight is negative or not finite, or a row has too few categories of weight > 0.
 */
export function multinomial(weights: Tensor, draws: number, options?: { replacement?: boolean; generator?: Generator }): Tensor {
  checkTensor(weights, "multinomial", "the weights");
  checkFloat(weights, "multinomial");
  if (weights.rank !== 1 && weights.rank !== 2) {
    throw new ShapeError(`multinomial: weights must be [K] or [N, K], got ${textOf(weights.shape)}`);
  }
  if (!Number.isSafeInteger(draws) || draws < 1) throw new RangeError(`multinomial: draws must be a whole number >= 1, got ${draws}`);
  const replacement = options?.replacement ?? false, categories = weights.shape[weights.rank - 1];
  const rows = weights.rank === 2 ? weights.shape[0] : 1;
  if (!replacement && draws > categories) {
    throw new RangeError(`multinomial: cannot draw ${draws} of ${categories} categories without replacement`);
  }
  return scope(() => {
    const wide = emptyTensor(weights.shape, "float64", weights.device);
    copyInto(wide, weights);
    const out = emptyTensor([rows, draws], "int64", weights.device);
    const part = (options?.generator ?? defaultGenerator).take(rows * Math.ceil((replacement ? draws : categories) / 2));
    const table = reshape(wide, [rows, categories]);
    recorder?.draws(part, 3);
    native(weights.device, (lib, f) => lib.dg_multinomial(f.pointer, f.put(out), f.put(table), replacement ? 1 : 0, ...part));
    return weights.rank === 1 ? reshape(out, [draws]) : out;
  });
}

/** Overwrites with numbers uniform in `[low, high)`. @throws {RangeError} If `low > high`. */
export function uniform_<T extends Tensor>(x: T, low = 0, high = 1, options?: { generator?: Generator }): T {
  checkFinite("uniform_", { low, high });
  if (low > high) throw new RangeError(`uniform_: low must not exceed high, got ${low} and ${high}`);
  return fillInPlace("uniform_", x, "uniform", [low, high], options?.generator);
}

/** Overwrites with normal numbers. @throws {RangeError} If `std < 0`. */
export function normal_<T extends Tensor>(x: T, mean = 0, std = 1, options?: { generator?: Generator }): T {
  checkFinite("normal_", { mean, std });
  checkDeviation("normal_", std);
  return fillInPlace("normal_", x, "normal", [mean, std], options?.generator);
}

/**
 * Overwrites with normal numbers drawn again until they lie in `[low, high]` (by inverting the distribution function).
 *
 * @throws {RangeError} If `std <= 0` or `low >= high`.
 */
export function truncNormal_<T extends Tensor>(x: T, mean = 0, std = 1, low = -2, high = 2, options?: { generator?: Generator }): T {
  checkFinite("truncNormal_", { mean, std, low, high });
  if (!(std > 0 && low < high)) throw new RangeError(`truncNormal_: needs std > 0 and low < high, got ${std}, ${low} and ${high}`);
  return fillInPlace("truncNormal_", x, "truncated_normal", [mean, std, low, high], options?.generator);
}

/** Overwrites with 1 with probability `p`, else 0; any dtype. @throws {RangeError} If `p` is outside `[0, 1]`. */
export function bernoulli_<T extends Tensor>(x: T, p = 0.5, options?: { generator?: Generator }): T {
  checkProbability("bernoulli_", p);
  return fillInPlace("bernoulli_", x, "bernoulli", [p], options?.generator);
}

/** Overwrites with exponential numbers of a rate (mean `1 / rate`). @throws {RangeError} If `rate <= 0`. */
export function exponential_<T extends Tensor>(x: T, rate = 1, options?: { generator?: Generator }): T {
  checkFinite("exponential_", { rate });
  if (!(rate > 0)) throw new RangeError(`exponential_: the rate must be > 0, got ${rate}`);
  return fillInPlace("exponential_", x, "exponential", [rate], options?.generator);
}

/** Overwrites with whole numbers from `low` to `high` (excluded); any dtype. @throws {RangeError} If `low >= high`. */
export function random_<T extends Tensor>(x: T, low: number, high: number, options?: { generator?: Generator }): T {
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high) || low >= high) {
    throw new RangeError(`random_: takes whole numbers low < high, got ${low} and ${high}`);
  }
  return fillInPlace("random_", x, "integers", [low, high], options?.generator);
}

/** The 32-bit words of Philox counters from `offset` on, four a counter, for comparison with published answers. */
export function philoxWords(count: number, seed: bigint, counter: readonly [number, number, number, number]): Tensor {
  const out = emptyTensor([count], "int64", deviceOf(defaultDevice()));
  const [low, high, a, b] = counter, key = [Number(seed & 0xffffffffn), Number(seed >> 32n)] as const;
  native(out.device, (lib, f) => lib.dg_random(f.pointer, f.put(out), RandomOp.bits, ...key, low, high, a, b, 0, 0));
  return out;
}

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
