/**
 * Samplers that share a dataset among the processes of a job.
 *
 * @module
 */
import { checkCount, Sampler, type SamplerState, SeededSampler, type Sized } from "../data/sampler.ts";
import { placeOf } from "./environment.ts";
import { defaultGroup, isInitialized } from "./world.ts";

/** Which part of the samples a process gets. */
export interface ShareOptions {
  /** Number of processes. Default: that of the process group; before `initProcessGroup` what the environment says (`WORLD_SIZE`, or what Slurm or Open MPI set). */
  numReplicas?: number;
  /** Number of this process, from 0. Default: as for `numReplicas`. */
  rank?: number;
}

/** What a {@linkcode DistributedSampler} takes. */
export interface DistributedSamplerOptions extends ShareOptions {
  /** A random order, another in each epoch. Default `true`. */
  shuffle?: boolean;
  /** The order's seed, the same in all processes. Default 0. */
  seed?: number;
  /** Leave samples out, instead of repeating some, where they do not divide evenly. Default `false`. */
  dropLast?: boolean;
}

function share(source: Sized | number, options: ShareOptions, op: string): { source: Sized; replicas: number; rank: number } {
  const sized = typeof source === "number" ? { length: source } : source;
  checkCount(sized?.length, `${op}: the number of samples`, 0);
  const place = () => isInitialized() ? { rank: defaultGroup().rank, worldSize: defaultGroup().size } : placeOf();
  const replicas = options.numReplicas ?? place().worldSize, rank = options.rank ?? place().rank;
  checkCount(replicas, `${op}: numReplicas`, 1);
  if (!Number.isInteger(rank) || rank < 0 || rank >= replicas) {
    throw new RangeError(`${op}: rank must be a whole number from 0 to ${replicas - 1}, got ${rank}`);
  }
  return { source: sized, replicas, rank };
}

/**
 * Every process gets the same number of samples: those at `rank`, `rank + numReplicas`, ... of an order that all agree on. Where the samples do not divide
 * evenly, the order goes on from its start; with `dropLast` its end is left out. (`torch.utils.data.DistributedSampler`.)
 *
 * As with all samplers, each iteration is one epoch further; `setEpoch` chooses another. The order is that of `RandomSampler` with the same seed and epoch.
 *
 * `stateDict()` knows how many samples of the epoch were drawn. In a `DataLoader` save the loader's state instead, which knows how many were handed out.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const options = { numReplicas: 2, shuffle: false };
 * assertEquals([...new distributed.DistributedSampler(5, { ...options, rank: 0 })], [0, 2, 4]);
 * assertEquals([...new distributed.DistributedSampler(5, { ...options, rank: 1 })], [1, 3, 0]);
 * ```
 */
export class DistributedSampler extends SeededSampler {
  /** Number of processes. */
  readonly numReplicas: number;
  /** Number of this process. */
  readonly rank: number;
  readonly #source: Sized;
  readonly #shuffle: boolean;
  readonly #dropLast: boolean;
  #skip = 0;
  /** The epoch that is being drawn, or was left before its end. */
  #progress: { start: SamplerState; position: number } | null = null;

  /**
   * Draws from the positions of `source`.
   *
   * @param source What is visited, or its number of samples.
   * @throws {RangeError} If a number is not whole, or `rank` is not below `numReplicas`.
   * @throws {DistributedError} If rank or number of processes are neither given nor in the environment.
   */
  constructor(source: Sized | number, options: DistributedSamplerOptions = {}) {
    super(options.seed ?? 0, "DistributedSampler");
    const { source: sized, replicas, rank } = share(source, options, "DistributedSampler");
    this.#source = sized;
    this.numReplicas = replicas;
    this.rank = rank;
    this.#shuffle = options.shuffle ?? true;
    this.#dropLast = options.dropLast ?? false;
  }
  /** Number of samples of each process. */
  get length(): number {
    const count = this.#source.length / this.numReplicas;
    return this.#dropLast ? Math.floor(count) : Math.ceil(count);
  }
  /** Chooses the epoch that the next iteration draws. If it is not the one of a loaded state, that one's position is dropped. */
  override setEpoch(epoch: number): void {
    const before = super.stateDict().epoch;
    super.setEpoch(epoch);
    if (epoch !== before) this.#skip = 0;
    this.#progress = null;
  }
  /** Seed, epoch and number of samples drawn from it. */
  override stateDict(): SamplerState {
    const { start, position } = this.#progress ?? { start: super.stateDict(), position: this.#skip };
    return { ...start, position, numReplicas: this.numReplicas, samples: this.#source.length };
  }
  /**
   * Goes on where {@linkcode stateDict} was called: the next iteration draws the rest of that epoch.
   *
   * @throws {RangeError} If the state is not one of this class, or in mid-epoch and of another number of processes or samples.
   */
  override loadStateDict(state: SamplerState): void {
    const { position, numReplicas, samples } = state;
    checkCount(position, "DistributedSampler: position of the state", 0);
    if (position > 0 && (numReplicas !== this.numReplicas || samples !== this.#source.length)) {
      throw new RangeError(
        `DistributedSampler: the state in mid-epoch is that of ${samples} samples for ${numReplicas} processes, ` +
          `here are ${this.#source.length} for ${this.numReplicas}`,
      );
    }
    super.loadStateDict(state);
    this.#skip = position;
    this.#progress = null;
  }
  /** The positions of the next epoch that are this process's. */
  [Symbol.iterator](): Iterator<number> {
    const progress = this.#progress = { start: super.stateDict(), position: this.#skip };
    this.#skip = 0;
    return this.#draw(progress);
  }

  *#draw(progress: { start: SamplerState; position: number }): Iterator<number> {
    const random = this.next(), size = this.#source.length, length = this.length;
    const order = this.#shuffle ? random.permutation(size) : null;
    while (progress.position < length) {
      const at = (this.rank + progress.position++ * this.numReplicas) % size;
      yield order ? order[at] : at;
    }
    if (this.#progress === progress) this.#progress = null;
  }
}

/**
 * Every sample goes to exactly one process, in order: no process sees what another sees, and some get one more than others. For evaluation, where repeated
 * samples would count twice.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const parts = [0, 1].map((rank) => [...new distributed.DistributedEvaluationSampler(5, { numReplicas: 2, rank })]);
 * assertEquals(parts, [[0, 2, 4], [1, 3]]);
 * ```
 */
export class DistributedEvaluationSampler extends Sampler {
  /** Number of processes. */
  readonly numReplicas: number;
  /** Number of this process. */
  readonly rank: number;
  readonly #source: Sized;

  /**
   * Visits the positions `rank`, `rank + numReplicas`, ... of `source`.
   *
   * @param source What is visited, or its number of samples.
   * @throws {RangeError} If a number is not whole, or `rank` is not below `numReplicas`.
   * @throws {DistributedError} If rank or number of processes are neither given nor in the environment.
   */
  constructor(source: Sized | number, options: ShareOptions = {}) {
    super();
    const { source: sized, replicas, rank } = share(source, options, "DistributedEvaluationSampler");
    this.#source = sized;
    this.numReplicas = replicas;
    this.rank = rank;
  }
  /** Number of samples of this process. */
  get length(): number {
    return Math.ceil(Math.max(0, this.#source.length - this.rank) / this.numReplicas);
  }
  /** The positions that are this process's. */
  *[Symbol.iterator](): Iterator<number> {
    for (let at = this.rank; at < this.#source.length; at += this.numReplicas) yield at;
  }
}
