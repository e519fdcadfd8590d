/**
 * A collective operation under way.
 *
 * @module
 */
import { refusal, WorkStatus } from "../ffi/communicator.ts";
import type { CommunicatorLibrary } from "../ffi/communicator_symbols.ts";
import { DistributedError } from "../ffi/errors.ts";
import type { Storage } from "../ffi/storage.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How a reduction combines the values of the ranks. */
export type ReduceOp = "sum" | "average" | "product" | "min" | "max";

/** What a work belongs to. */
export interface WorkOwner {
  /** The library that runs it. */
  readonly library: CommunicatorLibrary;
  /** The error of a work that failed. */
  errorOf(text: string, rank: number, collective: string): DistributedError;
  /** Global rank of a rank of the group. */
  globalRank(rank: number): number;
  /** Runs `wait` after those that were given before: the works of a group end in order, and one thread that waits is enough. */
  inOrder(wait: () => Promise<void>): Promise<void>;
}

/** What a work needs besides its native id. */
export interface WorkParts {
  /** Native id, 0 for a work that has ended already. */
  id: number;
  /** The collective, as `"allReduce"`. */
  collective: string;
  /** Tensors that are read or written: held until the end. */
  tensors: readonly Tensor[];
  /** True for messages between two ranks, which wait for nothing else. */
  message?: boolean;
  /** Copies results to where they belong. */
  finish?: () => void;
}

const WAIT_FOREVER = 1e9;

/**
 * A collective operation or a message under way. The tensors in it must not be read or written until it has ended.
 *
 * @example Work goes on while the ranks talk
 * ```ts
 * import { distributed, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
 * const gradient = ones([3]);
 * const work = distributed.allReduce(gradient, { asyncOp: true });
 * // ... something else ...
 * work.wait(); // or, where other asynchronous code should run meanwhile: await work.done()
 * assertEquals(gradient.tolist(), [1, 1, 1]);
 * await distributed.destroyProcessGroup();
 * ```
 */
export interface Work {
  /** The collective, as `"allReduce"`. */
  readonly collective: string;
  /**
   * Makes what follows wait for the work. Over Gloo, and for barriers, this thread is blocked until it has ended; over NCCL the device waits in its place, and only
   * reading a value blocks. Should the work fail after that, the next call that waits for the device, such as that read, raises its error.
   *
   * @param timeout Milliseconds: block this thread until the work has ended, for so long at most; the work itself goes on, up to its own time.
   * @throws {DistributedError} If the work failed, or has not ended after `timeout`.
   */
  wait(timeout?: number): void;
  /** Settles when the work has ended, while other code of this thread runs; rejects with a `DistributedError` if it failed. */
  done(): Promise<void>;
  /** True once the work has ended, well or not. */
  isCompleted(): boolean;
  /** The global rank that a `recv` took its tensor from; `null` before it has ended, and for other works. */
  sourceRank(): number | null;
}

/** A work of a communicator library. */
export class NativeWork implements Work {
  readonly collective: string;
  readonly #owner: WorkOwner;
  readonly #message: boolean;
  #id: number;
  #tensors: readonly Tensor[];
  #storages: Storage[];
  #finish: (() => void) | undefined;
  #error: DistributedError | null = null;
  #source: number | null = null;
  #promise: Promise<void> | null = null;
  #joined = false;

  /** The functions that start collectives make works. */
  constructor(owner: WorkOwner, parts: WorkParts) {
    this.collective = parts.collective;
    this.#owner = owner;
    this.#id = parts.id;
    this.#tensors = parts.tensors;
    this.#message = parts.message ?? false;
    this.#finish = parts.finish;
    this.#storages = parts.tensors.map((it) => it.storage);
    for (const storage of this.#storages) storage.retain();
    if (parts.id === 0) this.#end();
  }

  wait(timeout?: number): void {
    if (timeout === undefined) return this.#join();
    if (typeof timeout !== "number" || !(timeout >= 0)) {
      throw new RangeError(`wait: timeout must be a number of milliseconds >= 0, got ${timeout}`);
    }
    if (this.#id !== 0) this.#settle(this.#owner.library.dg_work_wait(this.#id, Math.min(timeout, WAIT_FOREVER)));
    if (this.#id !== 0) {
      throw new DistributedError(`wait: ${this.collective} has not ended after ${timeout} ms, it goes on`, { collective: this.collective });
    }
    if (this.#error !== null) throw this.#error;
  }

  /** True once results may be relied upon, though the device may have to wait for them. */
  get joined(): boolean {
    return this.#joined;
  }

  /** How it failed, if it has. */
  get error(): DistributedError | null {
    return this.#error;
  }

  #join(): void {
    if (this.#id !== 0 && !this.#joined) {
      const status = this.#owner.library.dg_work_join(this.#id);
      if (status === WorkStatus.done) {
        this.#joined = true;
        if (!this.isCompleted()) this.#end();
      } else if (!this.isCompleted()) { // refused, and it goes on
        throw refusal(this.#owner.library, status);
      }
    }
    if (this.#error !== null) throw this.#error;
  }

  done(): Promise<void> {
    return this.#promise ??= this.#settled();
  }

  async #settled(): Promise<void> {
    const elsewhere = async () => {
      while (this.#id !== 0) this.#settle(await this.#owner.library.dg_work_wait_elsewhere(this.#id, WAIT_FOREVER));
    };
    if (!this.isCompleted()) await (this.#message ? elsewhere() : this.#owner.inOrder(elsewhere));
    if (this.#error !== null) throw this.#error;
  }

  isCompleted(): boolean {
    if (this.#id !== 0) this.#settle(this.#owner.library.dg_work_test(this.#id));
    return this.#id === 0;
  }

  sourceRank(): number | null {
    return this.isCompleted() ? this.#source : null;
  }

  #settle(status: number): void {
    if (status === WorkStatus.pending || this.#id === 0) return;
    const library = this.#owner.library, numbers = new Int32Array(3), bytes = new Uint8Array(2048);
    const length = library.dg_work_info(this.#id, numbers, bytes, bytes.length);
    const text = new TextDecoder().decode(bytes.subarray(0, Math.min(length, bytes.length - 1)));
    library.dg_work_free(this.#id);
    this.#id = 0;
    if (numbers[2] >= 0) this.#source = this.#owner.globalRank(numbers[2]);
    if (numbers[0] !== WorkStatus.done) this.#error = this.#owner.errorOf(text, numbers[1], this.collective);
    this.#end();
  }

  #end(): void {
    try {
      if (this.#error === null) this.#finish?.();
    } finally {
      for (const storage of this.#storages) storage.release();
      this.#storages = [];
      this.#tensors = [];
      this.#finish = undefined;
    }
  }
}
