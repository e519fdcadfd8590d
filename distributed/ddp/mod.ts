/**
 * DistributedDataParallel: one module in several processes, each with its part of the batch.
 *
 * @module
 */
import { recordMany } from "../../autograd/tape.ts";
import { DistributedError } from "../../ffi/errors.ts";
import { Module } from "../../nn/module.ts";
import { SyncBatchNorm } from "../../nn/sync_batch_norm.ts";
import type { LoadResult, StateDict } from "../../nn/state_dict.ts";
import { context } from "../../tensor/context.ts";
import { collectTensors } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { defaultGroup } from "../world.ts";
import { placed } from "../placed.ts";
import type { ProcessGroup } from "../process_group.ts";
import { broadcastAll, broadcastState, checkAgreement, describe, type Item } from "./agreement.ts";
import { unowned } from "./buckets.ts";
import type { CommHook } from "./comm_hooks.ts";
import { Reducer } from "./reducer.ts";

/** Options of {@linkcode DistributedDataParallel}. */
export interface DistributedDataParallelOptions {
  /** Who trains together. Default: all ranks. */
  processGroup?: ProcessGroup;
  /** Largest bucket of gradients, in MiB; the first and the last have at most 1. Default 25. */
  bucketCapMb?: number;
  /** Give all ranks the buffers of rank 0 before each forward in training mode. Default `true`. */
  broadcastBuffers?: boolean;
  /** Allow that a loss depends on some of the parameters only, on each rank on others. Costs one more collective a step. Default `false`. */
  findUnusedParameters?: boolean;
  /** Let `grad` of the parameters be views of the buckets, instead of memory of their own. Default `true`. */
  gradientAsBucketView?: boolean;
  /** The same parameters get gradients in each step: unused ones are looked for in the first step only. Default `false`. */
  staticGraph?: boolean;
  /** Check that all ranks have the same parameters, and give them those of rank 0. Default `true`. */
  initSync?: boolean;
}

/** Options of {@linkcode DistributedDataParallel.join}. */
export interface JoinOptions {
  /** Divide gradients by the number of all ranks, not of those that still have batches. Default `true`. */
  divideByInitialWorldSize?: boolean;
  /** Do all this; with `false` the function is only called. Default `true`. */
  enable?: boolean;
  /** End on all ranks, by an error, as soon as one has no more batches. Default `false`. */
  throwOnEarlyTermination?: boolean;
}

/** Who still has batches. */
interface Turn {
  /** Ranks in the group that have. */
  readonly active: readonly number[];
  /** Their backward reduces gradients. */
  readonly reduces: boolean;
  /** They exchange buffers. */
  readonly buffers: boolean;
}

const OP = "DistributedDataParallel";

/**
 * Trains one module in several processes (`torch.nn.parallel.DistributedDataParallel`): every rank runs the module on its part of the batch, and backward
 * leaves the average of all ranks' gradients in the parameters, so that equal optimisers keep the ranks equal.
 *
 * When it is made, all ranks check that they have the same parameters and get the values of rank 0. Gradients are put into buckets, from the last
 * parameter to the first; a bucket is reduced as soon as it is full, while backward computes the next one, and `backward()` returns when all are. A rank
 * that fails, or a collective that does not end in time, is a `DistributedError` from there.
 *
 * Backward reduces when it comes through an output of this module; one that starts from `module` itself adds to this rank's gradients only.
 *
 * - A loss that is a mean over the batch is averaged over the ranks: equal batches give the gradients of the joined batch.
 * - `grad` of each parameter is a view of its bucket after backward (`gradientAsBucketView`); `zeroGrad()` lets go of the view or fills it with zeros.
 * - The mode, parameters, buffers and hooks are those of `module`; `stateDict()` has its names, without PyTorch's `module.`, and `loadStateDict()` takes both.
 * - Names in `namedParameters()` begin with `module.`, as in PyTorch.
 *
 * @example A group of one; the launcher starts as many as there are
 * ```ts
 * import { distributed, nn, optim, randn } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
 * const model = new distributed.DistributedDataParallel(new nn.Linear(3, 2));
 * const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
 * model.call(randn([8, 3])).square().mean().backward();
 * optimizer.step();
 * assertEquals(Object.keys(model.stateDict()), ["weight", "bias"]);
 * model.dispose();
 * await distributed.destroyProcessGroup();
 * ```
 */
export class DistributedDataParallel<M extends Module = Module> extends Module {
  /** The module that is trained. */
  readonly module: M;
  /** Who trains together. */
  readonly processGroup: ProcessGroup;
  readonly #reducer: Reducer;
  readonly #broadcastBuffers: boolean;
  /** Calls of `noSync` under way. */
  #quiet = 0;
  #joining: Required<JoinOptions> | null = null;
  #lastActive: readonly number[] = [];

  /**
   * Wraps a module. All ranks must do so at the same time, with modules and options that are alike.
   *
   * @throws {DistributedError} If there is no process group, or the ranks differ: the message names the first difference and the rank.
   * @throws {RangeError} If no parameter requires a gradient, or `bucketCapMb` is not above 0.
   */
  constructor(module: M, options: DistributedDataParallelOptions = {}) {
    super();
    if (!(module instanceof Module)) throw new TypeError(`${OP}: takes a Module, got ${module === null ? "null" : typeof module}`);
    const { bucketCapMb = 25, broadcastBuffers = true, findUnusedParameters = false, gradientAsBucketView = true, staticGraph = false } =
      options;
    if (typeof bucketCapMb !== "number" || !(bucketCapMb > 0)) {
      throw new RangeError(`${OP}: bucketCapMb must be above 0, got ${bucketCapMb}`);
    }
    const trained = [...module.namedParameters()].filter(([, p]) => p.requiresGrad);
    if (trained.length === 0) {
      throw new RangeError(`${OP}: no parameter of ${module.constructor.name} requires a gradient: nothing to reduce`);
    }
    this.module = module;
    this.training = module.training;
    const group = this.processGroup = options.processGroup ?? defaultGroup();
    this.#broadcastBuffers = broadcastBuffers;
    if (options.initSync ?? true) {
      const settings = { bucketCapMb, broadcastBuffers, findUnusedParameters, gradientAsBucketView, staticGraph };
      const items = [...describe(module), ...Object.entries(settings).map(([name, value]): Item => [`option ${name}`, String(value)])];
      checkAgreement(group, items, OP);
      broadcastState(group, [...module.parameters(), ...module.buffers()], 0);
    }
    const reducer = { group, bucketBytes: bucketCapMb * 2 ** 20, gradientAsBucketView, findUnusedParameters, staticGraph };
    this.#reducer = new Reducer(trained, reducer);
  }

  /** What the module computes of this rank's part of the batch. */
  override forward(...inputs: Parameters<M["forward"]>): ReturnType<M["forward"]> {
    const { grad } = context(), reduces = this.#quiet === 0;
    const buffers = this.#broadcastBuffers && this.training && reduces ? [...this.module.buffers()] : [];
    const turn = this.#joining !== null && grad ? this.#turn({ reduces, buffers: buffers.length > 0 }) : null;
    broadcastAll(this.processGroup, buffers, turn?.active[0] ?? 0);
    const output = (this.module as Module).call(...inputs as never[]) as ReturnType<M["forward"]>;
    if (grad && reduces) this.#watch(output);
    return output;
  }

  /** Makes a backward pass that comes through `output` reduce gradients, whatever else it passes. */
  #watch(output: unknown): void {
    const found = new Set<Tensor>();
    collectTensors(output, found);
    const results = [...found].filter((it) => it.node !== null);
    // A node between each result and what made it.
    recordMany(OP, results, results, [], (grads) => {
      this.#reducer.expect();
      return grads;
    });
  }

  /**
   * Calls `fn`, in which backward adds to this rank's gradients only; the first backward after it reduces what has been added up. The forward of a
   * backward that shall not reduce must be inside, too.
   *
   * @returns What `fn` returns; for an asynchronous one the gradients stay apart until its promise settles.
   *
   * @example Gradients of two batches, reduced once
   * ```ts
   * import { distributed, nn, ones } from "@dinograd/dinograd";
   * import { assertEquals } from "@std/assert";
   * await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
   * const model = new distributed.DistributedDataParallel(new nn.Linear(1, 1));
   * model.noSync(() => model.call(ones([1, 1])).sum().backward());
   * model.call(ones([1, 1])).sum().backward();
   * assertEquals(model.module.bias!.grad!.tolist(), [2]);
   * model.dispose();
   * await distributed.destroyProcessGroup();
   * ```
   */
  noSync<T>(fn: () => T): T {
    this.#quiet++;
    let result: T;
    try {
      result = fn();
    } catch (error) {
      this.#quiet--;
      throw error;
    }
    if (result instanceof Promise) return result.finally(() => this.#quiet--) as T;
    this.#quiet--;
    return result;
  }

  /**
   * Calls `hook` to reduce each bucket, in the place of an average in the gradients' own dtype: see {@linkcode CommHook}. Once, before the first backward.
   *
   * @param state Passed to the hook. For the hooks of this package the group, or `null` for that of all ranks.
   * @param hook The same on every rank.
   */
  registerCommHook<S>(state: S, hook: CommHook<S>): void {
    if (typeof hook !== "function") throw new TypeError(`registerCommHook: the hook must be a function, got ${typeof hook}`);
    if (this.#reducer.hasHook) throw new TypeError("registerCommHook: there is a hook already, there can be one");
    this.#reducer.hook = (_, bucket) => hook(state, bucket);
  }

  /**
   * Calls `fn`, a loop over batches of which ranks may have different numbers (`with model.join()` of PyTorch). A rank whose loop has ended takes part in
   * the reductions of the others, with zeros. When all have ended, every rank gets the parameters of one that ended last.
   *
   * All ranks must call it, with the same options, and each backward in `fn` must follow one forward of this module.
   *
   * @param fn The loop; may be asynchronous.
   * @param options.divideByInitialWorldSize Default `true`.
   * @param options.enable Default `true`.
   * @param options.throwOnEarlyTermination Default `false`.
   * @returns What `fn` returns.
   * @throws {DistributedError} With `throwOnEarlyTermination`, on all ranks, when one has ended before the others.
   */
  async join<T>(fn: () => T | Promise<T>, options: JoinOptions = {}): Promise<T> {
    const { divideByInitialWorldSize = true, enable = true, throwOnEarlyTermination = false } = options;
    if (!enable) return await fn();
    if (this.#joining !== null) throw new TypeError("join: is not finished, and cannot be called inside itself");
    if (!throwOnEarlyTermination && [...this.module.modules()].some((it) => it instanceof SyncBatchNorm)) {
      throw new TypeError("join: a rank without batches cannot take part in SyncBatchNorm: pass { throwOnEarlyTermination: true }");
    }
    this.#joining = { divideByInitialWorldSize, enable, throwOnEarlyTermination };
    this.#lastActive = [];
    try {
      const result = await fn();
      this.#follow();
      return result;
    } finally {
      this.#joining = null;
      this.#reducer.divisor = null;
    }
  }

  /** Tells the ranks of a join what this one is about to do, and learns what the others are. */
  #turn(mine: { reduces: boolean; buffers: boolean } | null): Turn {
    const { size, rank, ranks } = this.processGroup, numbers = new Int32Array(size + 2);
    if (mine !== null) numbers.set([1], rank);
    numbers.set([mine?.reduces ? 1 : 0, mine?.buffers ? 1 : 0], size);
    const sums = unowned(() => {
      using x = placed(numbers, this.processGroup);
      this.processGroup.allReduce(x).wait();
      return x.data() as Int32Array;
    });
    const active = [...sums.subarray(0, size).keys()].filter((it) => sums[it] > 0);
    const { throwOnEarlyTermination, divideByInitialWorldSize } = this.#joining!;
    if (active.length > 0) this.#lastActive = active;
    if (throwOnEarlyTermination && active.length > 0 && active.length < size) {
      const gone = ranks.filter((_, i) => !active.includes(i));
      throw new DistributedError(`join: ${gone.length === 1 ? "rank" : "ranks"} ${gone.join(", ")} had fewer batches than the others`, {
        rank: gone[0],
      });
    }
    this.#reducer.divisor = divideByInitialWorldSize || active.length === size ? null : active.length;
    return { active, reduces: sums[size] > 0, buffers: sums[size + 1] > 0 };
  }

  /** Takes part in what the others do until they have ended, too. */
  #follow(): void {
    for (;;) {
      const { active, reduces, buffers } = this.#turn(null);
      if (active.length === 0) break;
      if (buffers) broadcastAll(this.processGroup, [...this.module.buffers()], active[0]);
      if (reduces) this.#reducer.shadow();
    }
    if (this.#lastActive.length === 0) return;
    broadcastState(this.processGroup, [...this.module.parameters(), ...this.module.buffers()], this.#lastActive[0]);
  }

  /** Parameters and persistent buffers of the module, by its own names. */
  override stateDict(options?: { prefix?: string }): StateDict {
    return this.module.stateDict(options);
  }

  /** Copies a state dict into the module; names may begin with `module.`, as PyTorch writes them. See {@linkcode Module.loadStateDict}. */
  override loadStateDict(state: Readonly<StateDict> | ReadonlyMap<string, Tensor>, options?: { strict?: boolean }): LoadResult {
    return this.module.loadStateDict(state, options);
  }

  /** Frees the module, its gradients and the buckets. */
  override dispose(): void {
    this.#reducer.dispose();
    super.dispose();
  }
}
