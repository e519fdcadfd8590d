/**
 * Generators of random numbers: Philox4x32-10 streams, the same on any number of threads and any device.
 *
 * @module
 */
import { RandomOp } from "../ffi/op_codes.ts";
import { counted, refuseInCapture } from "../tensor/capture.ts";
import type { DType } from "../tensor/dtype.ts";
import { recorder, unrepeatable } from "../tensor/recorder.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { copyInto } from "./copy.ts";
import { emptyTensor, native } from "./native.ts";

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

/** Parameters of a distribution. */
export type Parameters = readonly [a?: number, b?: number, c?: number, d?: number];

/** Elements that one counter makes. */
function perCounter(op: keyof typeof RandomOp, dtype: DType): number {
  return op === "bits" || ((op === "uniform" || op === "normal") && dtype !== "float64") ? 4 : 2;
}

/** Fills `x`, whatever its strides, with numbers by row-major position. */
export function fillKernel(
  x: Tensor,
  op: keyof typeof RandomOp,
  [a = 0, b = 0, c = 0, d = 0]: Parameters,
  generator = defaultGenerator,
): Tensor {
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

/** Refuses what is no probability. */
export function checkProbability(name: string, p: number): void {
  if (!(typeof p === "number" && p >= 0 && p <= 1)) throw new RangeError(`${name}: a probability must be in [0, 1], got ${p}`);
}
