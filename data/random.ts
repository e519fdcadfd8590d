/**
 * Seeded random numbers for orders and augmentations.
 *
 * @module
 */
import { defaultGenerator } from "../ops/generator.ts";

function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Checks a seed. */
export function checkSeed(seed: number, op: string): void {
  if (!Number.isSafeInteger(seed)) throw new RangeError(`${op}: seed must be a whole number, got ${seed}`);
}

/** A seed when none is given: the next of the default generator, so that `manualSeed` makes it repeat. */
export function freshSeed(): number {
  return new Random(...defaultGenerator.take(1)).bits();
}

/** The generator sfc32 (Chris Doty-Humphrey's small fast counter), seeded by any number of whole numbers. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** Equal seeds give equal numbers. */
  constructor(...seeds: readonly number[]) {
    let h = 0x9e3779b9;
    const absorb = (word: number): number => h = mix(h ^ mix(word + 0x9e3779b9 | 0)) + 0x6d2b79f5 | 0;
    for (const seed of seeds) {
      absorb(seed | 0);
      absorb(Math.floor(seed / 2 ** 32) | 0);
    }
    [this.#a, this.#b, this.#c] = [absorb(1), absorb(2), absorb(3)];
    for (let i = 0; i < 12; i++) this.bits();
  }

  /** Where the generator stands, four whole numbers. */
  getState(): number[] {
    return [this.#a, this.#b, this.#c, this.#counter];
  }

  /** Goes on where {@linkcode Random.getState} was called. @throws {RangeError} If these are not four whole numbers of 32 bits. */
  setState(state: readonly number[]): this {
    if (!Array.isArray(state) || state.length !== 4 || state.some((it) => it !== (it | 0))) {
      throw new RangeError(`Random: the state must be four whole numbers of 32 bits, got ${JSON.stringify(state)}`);
    }
    [this.#a, this.#b, this.#c, this.#counter] = state;
    return this;
  }

  /** 32 random bits. */
  bits(): number {
    const t = (this.#a + this.#b | 0) + this.#counter | 0;
    this.#counter = this.#counter + 1 | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = this.#c + (this.#c << 3) | 0;
    this.#c = (this.#c << 21 | this.#c >>> 11) + t | 0;
    return t >>> 0;
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    return ((this.bits() >>> 5) * 2 ** 26 + (this.bits() >>> 6)) / 2 ** 53;
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + (high - low) * this.uniform();
  }

  /** A whole number in [0, bound), each equally likely. */
  below(bound: number): number {
    if (bound > 2 ** 32) return Math.floor(this.uniform() * bound);
    const limit = 2 ** 32 - 2 ** 32 % bound;
    for (;;) {
      const value = this.bits();
      if (value < limit) return value % bound;
    }
  }

  /** Normal with mean 0 and variance 1 (Box and Muller's method). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** The numbers 0 to `count - 1` in random order (Fisher and Yates's method). */
  permutation(count: number): Uint32Array<ArrayBuffer> {
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[i] = i;
    for (let i = count - 1; i > 0; i--) {
      const j = this.below(i + 1), kept = order[i];
      order[i] = order[j];
      order[j] = kept;
    }
    return order;
  }
}
