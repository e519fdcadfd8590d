/**
 * Datasets: samples by position, or one after the other.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";

import { indexSelect, select, tensor } from "../ops/mod.ts";
import { checkTensor } from "../ops/native.ts";
import { textOf } from "../tensor/shape.ts";
import { withContext } from "../tensor/context.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { scope } from "../tensor/scope.ts";
import type { Collated } from "./collate.ts";
import { checkSeed, freshSeed, Random } from "./random.ts";

/** Samples by position. Anything with these two members is one, arrays aside (see `DataLoader`). */
export interface Dataset<T> {
  /** Number of samples. */
  readonly length: number;
  /** The sample at a position from 0 to `length - 1`. */
  get(index: number): T | Promise<T>;
  /**
   * A whole batch at once: what collating the samples at these positions gives. Optional; a `DataLoader` without a `collate` of its own
   * prefers it to {@linkcode Dataset.get}.
   */
  batch?(indices: readonly number[]): Collated<T> | Promise<Collated<T>>;
}

/** Samples that come one after the other: a stream, a file too large for memory, a simulator. */
export abstract class IterableDataset<T> implements AsyncIterable<T> {
  /** The samples of an epoch. */
  abstract [Symbol.asyncIterator](): AsyncIterator<T>;
}

/** Refuses a position outside a dataset. */
export function checkPosition(index: number, length: number, op: string): void {
  if (!Number.isInteger(index) || index < 0 || index >= length) {
    throw new RangeError(`${op}: position ${index} is outside the ${length} samples`);
  }
}

/** Rows `indices` of axis 0, copied, each in its order in memory. */
function gather(x: Tensor, indices: Tensor): Tensor {
  return withContext({ grad: false }, () => {
    if (x.isContiguous() || !x.isDense) return indexSelect(x, 0, indices);
    const order = x.shape.map((_, i) => i).sort((a, b) => a === 0 ? -1 : b === 0 ? 1 : x.strides[b] - x.strides[a] || a - b);
    const back = order.map((_, i) => order.indexOf(i));
    return scope(() => indexSelect(x.permute(order), 0, indices).permute(back));
  });
}

/**
 * The rows of tensors: sample `i` is `[a[i], b[i], ...]`. A loader gathers its batches natively.
 *
 * @example
 * ```ts
 * import { arange, TensorDataset } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const data = new TensorDataset(arange(6).reshape([3, 2]), arange(3));
 * assertEquals(data.length, 3);
 * assertEquals(data.get(1).map((x) => x.tolist()), [[2, 3], 1]);
 * ```
 */
export class TensorDataset<T extends readonly Tensor[]> implements Dataset<T> {
  /** The tensors whose rows are the samples; kept from scopes. */
  readonly tensors: T;
  /** Number of samples: the size of axis 0. */
  readonly length: number;

  /**
   * Takes the rows of `tensors` together.
   *
   * @param tensors At least one, all with the same size of axis 0.
   * @throws {ShapeError} If one has no axes or another size of axis 0.
   */
  constructor(...tensors: T) {
    if (tensors.length === 0) throw new ShapeError("TensorDataset: expected at least one tensor");
    tensors.forEach((x, i) => {
      checkTensor(x, "TensorDataset", `tensor ${i}`);
      if (x.rank === 0 || x.shape[0] !== tensors[0].shape[0]) {
        throw new ShapeError(`TensorDataset: axis 0 of tensor ${i} of ${textOf(x.shape)} differs from that of ${textOf(tensors[0].shape)}`);
      }
      x.kept = true;
    });
    this.tensors = tensors;
    this.length = tensors[0].shape[0];
  }

  /** Row `index` of each tensor, as views. */
  get(index: number): T {
    checkPosition(index, this.length, "TensorDataset");
    return this.tensors.map((x) => select(x, 0, index)) as readonly Tensor[] as T;
  }

  /** Rows of each tensor, copied together. */
  batch(indices: readonly number[]): Collated<T> {
    for (const index of indices) checkPosition(index, this.length, "TensorDataset");
    const rows = tensor(BigInt64Array.from(indices, BigInt), { device: this.tensors[0].device });
    const batch = this.tensors.map((x) => gather(x, rows));
    rows.dispose();
    return batch as Collated<T>;
  }
}

/** An array as a dataset. */
export class ArrayDataset<T> implements Dataset<T> {
  /** The samples. */
  readonly samples: readonly T[];

  /**
   * Takes the entries of an array.
   *
   * @param samples The samples.
   */
  constructor(samples: readonly T[]) {
    this.samples = samples;
  }
  /** Number of samples. */
  get length(): number {
    return this.samples.length;
  }
  /** The sample at a position. */
  get(index: number): T {
    checkPosition(index, this.length, "ArrayDataset");
    return this.samples[index];
  }
}

/** Datasets one after the other. */
export class ConcatDataset<T> implements Dataset<T> {
  /** The datasets. */
  readonly datasets: readonly Dataset<T>[];
  readonly #ends: readonly number[];

  /**
   * Joins datasets.
   *
   * @param datasets At least one.
   */
  constructor(datasets: readonly Dataset<T>[]) {
    if (datasets.length === 0) throw new RangeError("ConcatDataset: expected at least one dataset");
    this.datasets = [...datasets];
    let end = 0;
    this.#ends = datasets.map((it) => end += it.length);
  }
  /** Sum of the lengths. */
  get length(): number {
    return this.#ends[this.#ends.length - 1];
  }
  /** The sample at a position, counted through. */
  get(index: number): T | Promise<T> {
    checkPosition(index, this.length, "ConcatDataset");
    const which = this.#ends.findIndex((end) => index < end);
    return this.datasets[which].get(index - (which > 0 ? this.#ends[which - 1] : 0));
  }
}

/** Some positions of a dataset, in the order given. */
export class Subset<T> implements Dataset<T> {
  /** The dataset. */
  readonly dataset: Dataset<T>;
  /** The positions. */
  readonly indices: readonly number[];
  /** Whole batches, where the dataset has them. */
  readonly batch?: (indices: readonly number[]) => Collated<T> | Promise<Collated<T>>;

  /**
   * Takes the samples at `indices`.
   *
   * @throws {RangeError} If a position is outside the dataset.
   */
  constructor(dataset: Dataset<T>, indices: Iterable<number>) {
    this.dataset = dataset;
    this.indices = [...indices];
    for (const index of this.indices) checkPosition(index, dataset.length, "Subset");
    if (dataset.batch) this.batch = (indices) => dataset.batch!(indices.map((i) => this.resolve(i)));
  }
  /** Number of positions. */
  get length(): number {
    return this.indices.length;
  }
  /** The sample at a position of the subset. */
  get(index: number): T | Promise<T> {
    return this.dataset.get(this.resolve(index));
  }
  /** The position in the dataset of a position of the subset. */
  resolve(index: number): number {
    checkPosition(index, this.length, "Subset");
    return this.indices[index];
  }
}

/** A dataset whose samples pass through a function when they are asked for. */
export class MapDataset<T, U> implements Dataset<U> {
  /** The dataset. */
  readonly dataset: Dataset<T>;
  readonly #fn: (sample: T, index: number) => U | Promise<U>;

  /**
   * Puts `fn` between `dataset` and whoever asks.
   *
   * @param dataset The samples.
   * @param fn What becomes of one.
   */
  constructor(dataset: Dataset<T>, fn: (sample: T, index: number) => U | Promise<U>) {
    this.dataset = dataset;
    this.#fn = fn;
  }
  /** Number of samples. */
  get length(): number {
    return this.dataset.length;
  }
  /** The changed sample at a position. */
  get(index: number): U | Promise<U> {
    const sample = this.dataset.get(index);
    return sample instanceof Promise ? sample.then((it) => this.#fn(it, index)) : this.#fn(sample, index);
  }
}

/**
 * A dataset divided at random into parts that do not overlap.
 *
 * @param dataset What to divide.
 * @param lengths Sizes that add up to the length, or fractions that add up to 1 (what rounding leaves goes to the first parts in turn).
 * @param options.seed Equal seeds give equal parts. Default: the next of `manualSeed`'s generator.
 * @throws {RangeError} If the sizes do not add up.
 *
 * @example
 * ```ts
 * import { randomSplit, arange, TensorDataset } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const [train, test] = randomSplit(new TensorDataset(arange(10)), [0.8, 0.2], { seed: 1 });
 * assertEquals([train.length, test.length], [8, 2]);
 * ```
 */
export function randomSplit<T>(dataset: Dataset<T>, lengths: readonly number[], options: { seed?: number } = {}): Subset<T>[] {
  if (options.seed !== undefined) checkSeed(options.seed, "randomSplit");
  const sum = lengths.reduce((a, b) => a + b, 0), total = dataset.length;
  const fractions = lengths.some((it) => it > 0 && it < 1) || (lengths.length === 1 && lengths[0] === 1);
  if (lengths.some((it) => !(it >= 0)) || (fractions ? Math.abs(sum - 1) > 1e-6 : sum !== total || !lengths.every(Number.isInteger))) {
    throw new RangeError(`randomSplit: [${lengths.join(", ")}] add up to ${sum}, expected ${total} or fractions that add up to 1`);
  }
  const sizes = lengths.map((it) => fractions ? Math.floor(it * total + 1e-9) : it);
  let rest = total - sizes.reduce((a, b) => a + b, 0);
  for (let i = 0; rest > 0; i = (i + 1) % sizes.length, rest--) sizes[i]++;
  const order = new Random(options.seed ?? freshSeed()).permutation(total);
  let at = 0;
  return sizes.map((size) => new Subset(dataset, order.subarray(at, at += size)));
}
