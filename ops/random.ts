/**
 * Random tensors.
 *
 * @module
 */
import { device as deviceOf } from "../ffi/device.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { RandomOp } from "../ffi/op_codes.ts";
import { type DType, getDefaultDType, isFloat } from "../tensor/dtype.ts";
import { recorder } from "../tensor/recorder.ts";
import { scope } from "../tensor/scope.ts";
import { checkShape, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { copyInto, to } from "./copy.ts";
import { defaultDevice, emptyLike as requestedLike, type TensorOptions } from "./creation.ts";
import { checkProbability, defaultGenerator, fillKernel, Generator, type Parameters } from "./generator.ts";
import { overwrite } from "./inplace.ts";
import { checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { item } from "./read.ts";
import { any } from "./reduction.ts";
import { reshape } from "./view.ts";

/** What the random creation functions take besides a shape. */
export interface RandomOptions extends TensorOptions {
  /** Source of the numbers. Default {@linkcode defaultGenerator}. */
  generator?: Generator;
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
