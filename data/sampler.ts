/**
 * Samplers: in which order, and how grouped, a loader visits the samples of a dataset.
 *
 * @module
 */
import { checkSeed, freshSeed, Random } from "./random.ts";

/** What has a length: a dataset, another sampler, an array. */
export interface Sized {
  /** Number of entries. */
  readonly length: number;
}

/** Where a sampler stands: whole numbers by name. */
export type SamplerState = Readonly<Record<string, number>>;

/** The order in which samples are visited. Iterating over it starts an epoch. */
export abstract class Sampler<T = number> implements Iterable<T> {
  /** How many entries an epoch has. */
  abstract readonly length: number;
  /** The entries of an epoch. */
  abstract [Symbol.iterator](): Iterator<T>;
  /** Chooses the epoch that the next iteration draws; without it each iteration is one epoch further. */
  setEpoch(_epoch: number): void {}
  /** What the order of the next epoch depends on, so that a program that goes on later draws the same. */
  stateDict(): SamplerState {
    return {};
  }
  /** Goes on where {@linkcode stateDict} was called. */
  loadStateDict(_state: SamplerState): void {}
}

/** Checks a whole number; `op` names it in the error. */
export function checkCount(count: number, op: string, least: number): void {
  if (!Number.isSafeInteger(count) || count < least) throw new RangeError(`${op}: expected a whole number >= ${least}, got ${count}`);
}

/** 0, 1, 2, ... to the end. */
export class SequentialSampler extends Sampler {
  readonly #source: Sized;

  /**
   * Visits each entry of `source` once.
   *
   * @param source What is visited.
   */
  constructor(source: Sized) {
    super();
    this.#source = source;
  }
  /** Number of samples. */
  get length(): number {
    return this.#source.length;
  }
  /** The positions in order. */
  *[Symbol.iterator](): Iterator<number> {
    for (let i = 0; i < this.length; i++) yield i;
  }
}

/** A sampler that draws: its numbers depend on the seed and the epoch only. */
export abstract class SeededSampler extends Sampler {
  #seed: number;
  #epoch = 0;

  /** `op` is the name in errors. */
  constructor(seed: number | undefined, op: string) {
    super();
    if (seed !== undefined) checkSeed(seed, op);
    this.#seed = seed ?? freshSeed();
  }
  /** Chooses the epoch that the next iteration draws. */
  override setEpoch(epoch: number): void {
    checkCount(epoch, "setEpoch", 0);
    this.#epoch = epoch;
  }
  /** Seed and next epoch. */
  override stateDict(): SamplerState {
    return { seed: this.#seed, epoch: this.#epoch };
  }
  /** Takes seed and next epoch. @throws {RangeError} If they are missing or not whole. */
  override loadStateDict(state: SamplerState): void {
    checkSeed(state.seed, "loadStateDict");
    this.setEpoch(state.epoch);
    this.#seed = state.seed;
  }
  /** The generator of the next epoch. */
  protected next(): Random {
    return new Random(this.#seed, this.#epoch++);
  }
}

/** What {@linkcode RandomSampler} takes. */
export interface RandomSamplerOptions {
  /** Equal seeds give equal orders. Default: the next of `manualSeed`'s generator. */
  seed?: number;
  /** Draw each sample from all of them, so that some come twice. Default `false`: a permutation. */
  replacement?: boolean;
  /** How many to draw. Default: as many as there are; more than that needs `replacement`. */
  numSamples?: number;
}

/** A random order, another in each epoch. */
export class RandomSampler extends SeededSampler {
  readonly #source: Sized;
  readonly #replacement: boolean;
  readonly #count: number | undefined;

  /**
   * Draws from the positions of `source`.
   *
   * @param source What is visited.
   * @throws {RangeError} If the seed or the count is not whole, or the count without replacement exceeds what there is.
   */
  constructor(source: Sized, options: RandomSamplerOptions = {}) {
    super(options.seed, "RandomSampler");
    this.#source = source;
    this.#replacement = options.replacement ?? false;
    this.#count = options.numSamples;
    if (this.#count === undefined) return;
    checkCount(this.#count, "RandomSampler: numSamples", 0);
    if (!this.#replacement && this.#count > source.length) {
      throw new RangeError(`RandomSampler: numSamples ${this.#count} exceeds the ${source.length} samples: set replacement`);
    }
  }
  /** How many are drawn. */
  get length(): number {
    return this.#count ?? this.#source.length;
  }
  /** The positions of the next epoch. */
  *[Symbol.iterator](): Iterator<number> {
    const random = this.next(), size = this.#source.length;
    if (!this.#replacement) return yield* random.permutation(size).subarray(0, this.length);
    if (size === 0) return;
    for (let i = 0; i < this.length; i++) yield random.below(size);
  }
}

/** The given positions in random order, another in each epoch. */
export class SubsetRandomSampler extends SeededSampler {
  readonly #indices: readonly number[];

  /**
   * Draws from `indices`.
   *
   * @param indices The positions to visit.
   */
  constructor(indices: Iterable<number>, options: { seed?: number } = {}) {
    super(options.seed, "SubsetRandomSampler");
    this.#indices = [...indices];
  }
  /** Number of positions. */
  get length(): number {
    return this.#indices.length;
  }
  /** The positions in the order of the next epoch. */
  *[Symbol.iterator](): Iterator<number> {
    for (const i of this.next().permutation(this.length)) yield this.#indices[i];
  }
}

/** Draws position `i` with a probability proportional to `weights[i]`. */
export class WeightedRandomSampler extends SeededSampler {
  readonly #weights: Float64Array;
  readonly #sums: Float64Array;
  readonly #count: number;
  readonly #replacement: boolean;

  /**
   * Draws `numSamples` positions by `weights`.
   *
   * @param weights A weight for each sample, finite and not negative, not all 0.
   * @param numSamples How many to draw.
   * @param options.replacement Default `true`. Without, no sample comes twice.
   * @throws {RangeError} If a weight is negative or not finite, or there are fewer weights above 0 than samples to draw without replacement.
   */
  constructor(weights: ArrayLike<number>, numSamples: number, options: { seed?: number; replacement?: boolean } = {}) {
    super(options.seed, "WeightedRandomSampler");
    checkCount(numSamples, "WeightedRandomSampler: numSamples", 0);
    this.#weights = Float64Array.from(weights);
    this.#sums = new Float64Array(this.#weights.length);
    this.#count = numSamples;
    this.#replacement = options.replacement ?? true;
    let sum = 0, positive = 0;
    this.#weights.forEach((weight, i) => {
      if (!(weight >= 0) || weight === Infinity) throw new RangeError(`WeightedRandomSampler: weight ${i} is ${weight}, expected >= 0`);
      if (weight > 0) positive++;
      this.#sums[i] = sum += weight;
    });
    const needed = this.#replacement ? Math.min(1, numSamples) : numSamples;
    if (positive < needed) throw new RangeError(`WeightedRandomSampler: ${positive} weights are above 0, ${needed} needed`);
  }
  /** How many are drawn. */
  get length(): number {
    return this.#count;
  }
  /** The positions of the next epoch. */
  *[Symbol.iterator](): Iterator<number> {
    const random = this.next(), sums = this.#sums;
    if (!this.#replacement) {
      // The largest u^(1/w), compared as log(u) / w (Efraimidis and Spirakis).
      const keys = Float64Array.from(this.#weights, (weight) => weight > 0 ? Math.log(1 - random.uniform()) / weight : -Infinity);
      const order = Array.from(keys.keys()).sort((a, b) => keys[b] - keys[a] || a - b);
      return yield* order.slice(0, this.#count);
    }
    for (let n = 0; n < this.#count; n++) {
      const target = random.uniform() * sums[sums.length - 1];
      let low = 0, high = sums.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (sums[middle] > target) high = middle;
        else low = middle + 1;
      }
      yield low;
    }
  }
}

/** Groups of `batchSize` positions of another sampler. */
export class BatchSampler extends Sampler<number[]> {
  readonly #sampler: Sampler;
  readonly #size: number;
  readonly #dropLast: boolean;

  /**
   * Groups what `sampler` draws.
   *
   * @param sampler The order of the positions.
   * @param batchSize Positions in a group, at least 1.
   * @param dropLast Leave out a last group that is smaller. Default `false`.
   */
  constructor(sampler: Sampler, batchSize: number, dropLast = false) {
    super();
    checkCount(batchSize, "BatchSampler: batchSize", 1);
    this.#sampler = sampler;
    this.#size = batchSize;
    this.#dropLast = dropLast;
  }
  /** Number of groups. */
  get length(): number {
    const groups = this.#sampler.length / this.#size;
    return this.#dropLast ? Math.floor(groups) : Math.ceil(groups);
  }
  /** Chooses the epoch that the next iteration draws. */
  override setEpoch(epoch: number): void {
    this.#sampler.setEpoch(epoch);
  }
  /** That of the sampler whose positions are grouped. */
  override stateDict(): SamplerState {
    return this.#sampler.stateDict();
  }
  /** Takes that of the sampler whose positions are grouped. */
  override loadStateDict(state: SamplerState): void {
    this.#sampler.loadStateDict(state);
  }
  /** The groups of the next epoch. */
  [Symbol.iterator](): Iterator<number[]> {
    // Now, not at the first group: what the sampler says of its state from here on is about this epoch.
    return this.#groups(this.#sampler[Symbol.iterator]());
  }

  *#groups(order: Iterator<number>): Iterator<number[]> {
    let group: number[] = [];
    for (let next = order.next(); !next.done; next = order.next()) {
      group.push(next.value);
      if (group.length < this.#size) continue;
      yield group;
      group = [];
    }
    if (group.length > 0 && !this.#dropLast) yield group;
  }
}
