/**
 * The data loader: batches from a dataset, in order or shuffled, on this thread or from workers.
 *
 * @module
 */
import { cudaDeviceCount } from "../ffi/library.ts";
import { collect, pressed } from "../ffi/storage.ts";
import { withContext } from "../tensor/context.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Collated } from "./collate.ts";
import { ArrayDataset, type Dataset, type IterableDataset, Subset } from "./dataset.ts";
import { fetchBatch, fetchNext, isIterable } from "./fetch.ts";
import { Pool } from "./pool.ts";
import { checkSeed, freshSeed } from "./random.ts";
import { BatchSampler, RandomSampler, type Sampler, type SamplerState, SequentialSampler } from "./sampler.ts";
import type { WorkerSource } from "./worker_protocol.ts";

/** How a {@linkcode DataLoader} makes its batches. */
export interface DataLoaderOptions<T, B> {
  /** Samples in a batch. Default 1. */
  batchSize?: number;
  /** Another random order in each epoch. Default `false`. */
  shuffle?: boolean;
  /** Seed of the order: equal seeds give equal orders in equal epochs. Default: the next of `manualSeed`'s generator. */
  seed?: number;
  /** The order of the samples, instead of `shuffle`. */
  sampler?: Sampler;
  /** The groups of samples, instead of `batchSize`, `shuffle`, `sampler` and `dropLast`. */
  batchSampler?: Sampler<readonly number[]>;
  /** Leave out a last batch that is smaller. Default `false`. */
  dropLast?: boolean;
  /** Makes a batch from samples. Default: `defaultCollate`. Cannot be used with workers: give the dataset a `batch` method instead. */
  collate?: (samples: T[]) => B | Promise<B>;
  /** Threads that make batches ahead; their dataset comes from `workerDataset`. Default 0: batches are made when asked for. */
  numWorkers?: number;
  /** Batches that each worker makes ahead. Default 2. */
  prefetch?: number;
  /**
   * Put the tensors of a batch into page-locked memory, from which `to(device, { nonBlocking: true })` copies while the program goes on. Without a CUDA
   * device batches stay as they are. Default `false`.
   */
  pinMemory?: boolean;
}

/** Where a `DataLoader` stands, in numbers that JSON keeps. */
export interface DataLoaderState {
  /** The epoch that is under way or comes next. */
  epoch: number;
  /** How many of its batches were handed out. */
  batch: number;
  /** Number of batches of an epoch; `null` for an iterable dataset. */
  batches: number | null;
  /** The loader's seed. */
  seed: number;
  /** The state of its sampler at the start of the epoch. */
  sampler: SamplerState;
}

const sources = new WeakMap<object, WorkerSource>();

/**
 * A dataset that the workers of a `DataLoader` can make, too: the function `name` that a module exports is called here and in each worker.
 *
 * The samples that workers send are tensors, typed arrays, numbers, strings and arrays and plain objects of them. What is costly to load is best loaded at
 * the first `get`, which then happens in the workers only.
 *
 * @param module URL of the module, as in `new URL("./dataset.ts", import.meta.url)`.
 * @param name Name of the exported function that returns the dataset or a promise of it.
 * @param args Its arguments; they are sent to workers, so functions cannot be among them.
 * @throws {TypeError} If the module exports no function of that name or it returns no dataset.
 *
 * @example
 * ```ts ignore
 * const dataset = await workerDataset<Dataset<[Tensor, number]>>(new URL("./dataset.ts", import.meta.url), "makeDataset", "train");
 * for await (const [x, y] of new DataLoader(dataset, { batchSize: 64, shuffle: true, numWorkers: 2 })) {
 *   // ...
 * }
 * ```
 */
export async function workerDataset<D extends object>(module: URL | string, name: string, ...args: readonly unknown[]): Promise<D> {
  const href = new URL(module).href;
  const made = await import(href);
  if (typeof made[name] !== "function") throw new TypeError(`workerDataset: ${href} exports no function "${name}"`);
  const dataset = await made[name](...args);
  if (typeof dataset !== "object" || dataset === null || !(typeof dataset.get === "function" || isIterable(dataset))) {
    throw new TypeError(
      `workerDataset: "${name}" returned no dataset: expected an object with length and get(index), or an IterableDataset`,
    );
  }
  sources.set(dataset, { module: href, name, args });
  return dataset;
}

function whole(value: number, name: string, least: number): number {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(`DataLoader: ${name} must be a whole number >= ${least}, got ${value}`);
  }
  return value;
}

/**
 * Batches from a dataset: `for await (const [x, y] of loader)`. Each loop is an epoch.
 *
 * Between batches it frees the memory of tensors that nothing refers to any more, when enough has gathered: a plain training loop needs no `scope`.
 * Batches are made in the context of the loop, so that a `scope` around it owns them.
 *
 * With `numWorkers` batches are made ahead on other threads. Their order stays that of the sampler; an error in a worker is raised in the loop as a
 * `WorkerError`; the workers end with the loop, however it ends.
 *
 * @example
 * ```ts
 * import { arange, DataLoader, TensorDataset } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const loader = new DataLoader(new TensorDataset(arange(5), arange(5).mul(2)), { batchSize: 2 });
 * const sums: number[] = [];
 * for await (const [x, y] of loader) sums.push(x.add(y).sum().item());
 * assertEquals(sums, [3, 15, 12]);
 * assertEquals(loader.length, 3);
 * ```
 */
export class DataLoader<T, B = Collated<T>> implements AsyncIterable<B> {
  /** The samples. */
  readonly dataset: Dataset<T> | IterableDataset<T>;
  readonly #options: DataLoaderOptions<T, B>;
  readonly #batches: Sampler<readonly number[]> | null;
  #seed: number;
  #epoch = 0;
  #skip = 0;
  /** The epoch that is under way, or was left before its end. */
  #progress: DataLoaderState | null = null;

  /**
   * Makes batches of `dataset`.
   *
   * @param dataset Samples by position, an array of them, or an iterable dataset.
   * @param options See {@linkcode DataLoaderOptions}.
   * @throws {RangeError} For a batch size, seed or number of workers that is not whole or too small.
   * @throws {TypeError} For options that exclude each other, or workers with a dataset that is not from `workerDataset`.
   */
  constructor(dataset: Dataset<T> | IterableDataset<T> | readonly T[], options: DataLoaderOptions<T, B> = {}) {
    const { batchSize = 1, shuffle = false, sampler, batchSampler, dropLast = false, collate, numWorkers = 0, prefetch, seed } = options;
    this.dataset = Array.isArray(dataset) ? new ArrayDataset<T>(dataset) : dataset as Dataset<T> | IterableDataset<T>;
    this.#options = options;
    whole(batchSize, "batchSize", 1);
    whole(numWorkers, "numWorkers", 0);
    if (seed !== undefined) checkSeed(seed, "DataLoader");
    this.#seed = seed ?? freshSeed();
    if (prefetch !== undefined && whole(prefetch, "prefetch", 1) && numWorkers === 0) {
      throw new TypeError("DataLoader: prefetch needs numWorkers of at least 1");
    }
    if (sampler && shuffle) throw new TypeError("DataLoader: sampler and shuffle exclude each other");
    if (batchSampler && (options.batchSize !== undefined || shuffle || sampler || dropLast)) {
      throw new TypeError("DataLoader: batchSampler excludes batchSize, shuffle, sampler and dropLast");
    }
    if (numWorkers > 0) this.#checkWorkers(numWorkers, collate);
    const source = this.dataset;
    if (isIterable(source)) {
      if (shuffle || sampler || batchSampler) {
        throw new TypeError("DataLoader: the order of an iterable dataset is its own: no shuffle or sampler");
      }
      this.#batches = null;
    } else {
      const order = sampler ?? (shuffle ? new RandomSampler(source, { seed: this.#seed }) : new SequentialSampler(source));
      this.#batches = batchSampler ?? new BatchSampler(order, batchSize, dropLast);
    }
  }

  #checkWorkers(count: number, collate: unknown): void {
    if (collate) {
      throw new TypeError("DataLoader: collate is a function and cannot cross to a worker: give the dataset a batch(indices) method");
    }
    if (this.#root().source === undefined) {
      throw new TypeError("DataLoader: numWorkers needs a dataset made by workerDataset(module, name), or a Subset of one");
    }
    if (isIterable(this.dataset) && count > 1) {
      throw new RangeError(`DataLoader: an iterable dataset takes one worker, got numWorkers ${count}: each would go through all samples`);
    }
  }

  /** The dataset that workers make, and the way to its positions. */
  #root(): { source: WorkerSource | undefined; resolve: (index: number) => number } {
    const subsets: Subset<unknown>[] = [];
    let dataset: object = this.dataset;
    for (; !sources.has(dataset) && dataset instanceof Subset; dataset = dataset.dataset) subsets.push(dataset);
    return { source: sources.get(dataset), resolve: (index) => subsets.reduce((i, subset) => subset.resolve(i), index) };
  }

  /** Number of batches in an epoch. @throws {TypeError} For an iterable dataset, whose end only shows when it is reached. */
  get length(): number {
    if (this.#batches === null) throw new TypeError("DataLoader: an iterable dataset has no length");
    return this.#batches.length;
  }

  /** Chooses the epoch that the next loop draws its order for; without it each loop is one epoch further. */
  setEpoch(epoch: number): void {
    whole(epoch, "epoch", 0);
    if (epoch !== this.#epoch) this.#skip = 0;
    this.#progress = null;
    this.#epoch = epoch;
    this.#batches?.setEpoch(epoch);
  }

  /**
   * Where the loader stands: after how many batches of which epoch. Batches that workers made ahead do not count, and a loop that was left early is still under
   * way until the next begins.
   *
   * The order of samples goes on exactly. What a dataset in a worker draws at random does not: the batches are dealt to the workers anew.
   */
  stateDict(): DataLoaderState {
    return this.#progress ? { ...this.#progress } : this.#standing();
  }

  #standing(): DataLoaderState {
    const batches = this.#batches?.length ?? null, sampler = this.#batches?.stateDict() ?? {};
    return { epoch: this.#epoch, batch: this.#skip, batches, seed: this.#seed, sampler };
  }

  /**
   * Goes on where {@linkcode stateDict} was called on an equal loader: the next loop yields the rest of that epoch. `setEpoch` of that epoch changes nothing,
   * of another one drops what is left.
   *
   * @throws {RangeError} If the state is not one of a loader, or in the middle of an epoch of another length.
   *
   * @example
   * ```ts
   * import { DataLoader } from "@dinograd/dinograd";
   * import { assertEquals } from "@std/assert";
   * const make = () => new DataLoader([10, 11, 12, 13, 14], { shuffle: true, seed: 3 });
   * const whole: number[] = [], rest: number[] = [], loader = make(), resumed = make();
   * for await (const batch of loader) {
   *   whole.push(batch.item());
   *   if (whole.length === 2) resumed.loadStateDict(JSON.parse(JSON.stringify(loader.stateDict())));
   * }
   * for await (const batch of resumed) rest.push(batch.item());
   * assertEquals(rest, whole.slice(2));
   * ```
   */
  loadStateDict(state: DataLoaderState): void {
    const { epoch, batch, seed, sampler } = state;
    whole(epoch, "epoch of the state", 0);
    whole(batch, "batch of the state", 0);
    checkSeed(seed, "DataLoader: the state");
    if (typeof sampler !== "object" || sampler === null) {
      throw new RangeError(`DataLoader: sampler of the state must be an object, got ${sampler}`);
    }
    const batches = this.#batches?.length ?? null;
    if (batch > 0 && state.batches !== batches) {
      throw new RangeError(`DataLoader: the state is in the middle of an epoch of ${state.batches} batches, here an epoch has ${batches}`);
    }
    this.#batches?.loadStateDict(sampler);
    this.#epoch = epoch;
    this.#skip = batch;
    this.#seed = seed;
    this.#progress = null;
  }

  /** Starts an epoch. */
  [Symbol.asyncIterator](): AsyncIterableIterator<B> {
    const options = this.#options, skip = this.#skip, order = this.#batches?.[Symbol.iterator]() ?? null;
    const progress = this.#progress = this.#standing();
    this.#epoch++;
    this.#skip = 0;
    const pin = options.pinMemory && cudaDeviceCount() > 0;
    const finish = (batch: unknown) => {
      progress.batch++;
      return pin ? pinTensors(batch) : batch;
    };
    const { fetch, end } = this.#epochOf(progress.epoch, order, skip);
    const counted = async () => {
      const batch = await fetch();
      if (batch === null && this.#progress === progress) this.#progress = null;
      return batch;
    };
    return new Iteration<B>(counted, end, finish);
  }

  /** Makes the batches of an epoch one after the other, without the first `skip`. */
  #epochOf(
    epoch: number,
    order: Iterator<readonly number[]> | null,
    skip: number,
  ): { fetch: () => Promise<{ value: unknown } | null>; end: () => Promise<void> } {
    const options = this.#options, { batchSize = 1, dropLast = false, numWorkers = 0, prefetch = 2 } = options;
    let left = skip;
    const groups = (): readonly number[] | null => {
      for (; left > 0; left--) if (order!.next().done) return null;
      const next = order!.next();
      return next.done ? null : next.value;
    };
    if (numWorkers > 0) {
      const { source, resolve } = this.#root();
      const pool = new Pool(source!, numWorkers, prefetch, this.#seed, epoch);
      const more = order === null ? () => batchSize : () => groups()?.map(resolve) ?? null;
      const fetch = () => {
        pool.fill(more, dropLast);
        return pool.take();
      };
      return { fetch: order === null ? skipping(fetch, skip) : fetch, end: () => pool.end() };
    }
    const collate = options.collate as ((samples: unknown[]) => unknown) | undefined;
    if (isIterable(this.dataset)) {
      const samples = this.dataset[Symbol.asyncIterator]();
      const fetch = () => fetchNext(samples, batchSize, dropLast, collate);
      return { fetch: skipping(fetch, skip), end: async () => void await samples.return?.() };
    }
    const dataset = this.dataset;
    const fetch = async () => {
      const indices = groups();
      return indices === null ? null : { value: await fetchBatch(dataset, indices, collate) };
    };
    return { fetch, end: () => Promise.resolve() };
  }
}

/** `fetch` without its first batches: samples that come one after the other have to be made to get past them. */
function skipping(fetch: () => Promise<{ value: unknown } | null>, count: number): () => Promise<{ value: unknown } | null> {
  let left = count;
  return async () => {
    for (; left > 0; left--) if (await fetch() === null) return null;
    return await fetch();
  };
}

/** A batch with its CPU tensors in page-locked memory. */
function pinTensors(batch: unknown): unknown {
  if (batch instanceof Tensor) return batch.device.type === "cpu" ? withContext({ grad: false }, () => batch.pinMemory()) : batch;
  if (Array.isArray(batch)) return batch.map(pinTensors);
  if (batch instanceof Map) return new Map([...batch].map(([key, value]) => [key, pinTensors(value)]));
  if (typeof batch !== "object" || batch === null || Object.getPrototypeOf(batch) !== Object.prototype) return batch;
  return Object.fromEntries(Object.entries(batch).map(([key, value]) => [key, pinTensors(value)]));
}

/** One epoch. Not a generator, whose body would keep the context of its first call. */
class Iteration<B> implements AsyncIterableIterator<B> {
  readonly #fetch: () => Promise<{ value: unknown } | null>;
  readonly #end: () => Promise<void>;
  readonly #finish: (batch: unknown) => unknown;
  #over = false;

  constructor(fetch: () => Promise<{ value: unknown } | null>, end: () => Promise<void>, finish: (batch: unknown) => unknown) {
    this.#fetch = fetch;
    this.#end = end;
    this.#finish = finish;
  }

  async next(): Promise<IteratorResult<B>> {
    if (this.#over) return { done: true, value: undefined };
    if (pressed()) await collect();
    try {
      const batch = await this.#fetch();
      if (batch !== null) return { done: false, value: this.#finish(batch.value) as B };
    } catch (error) {
      await this.return();
      throw error;
    }
    return await this.return();
  }

  async return(): Promise<IteratorResult<B>> {
    if (!this.#over) {
      this.#over = true;
      await this.#end();
    }
    return { done: true, value: undefined };
  }

  async throw(error: unknown): Promise<IteratorResult<B>> {
    await this.return();
    throw error;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<B> {
    return this;
  }
}
