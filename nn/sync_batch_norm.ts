/**
 * Batch normalisation over the processes that train together.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import * as ops from "../ops/mod.ts";
import { type StatisticsGroup, syncBatchNorm } from "../ops/sync_batch_norm.ts";
import { textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { BatchNorm, type NormOptions } from "./batch_norm.ts";
import { ModuleDict, ModuleList, Sequential } from "./container.ts";
import { Module } from "./module.ts";
import { markTransient } from "./transient.ts";

/** Settings of {@linkcode SyncBatchNorm}. */
export interface SyncBatchNormOptions extends NormOptions {
  /** Who has parts of the batch. Default: all ranks. */
  processGroup?: StatisticsGroup | null;
}

let everybody: () => StatisticsGroup | null = () => null;

/** Tells `SyncBatchNorm` which processes there are; `distributed/` calls it once. */
export function provideGroup(group: () => StatisticsGroup | null): void {
  everybody = group;
}

/**
 * Batch normalisation over the parts of a batch that all ranks of a process group have (`torch.nn.SyncBatchNorm`): outputs, gradients and running statistics
 * are those of one process with the joined batch. Parts may differ in size and be empty, as long as every rank takes part in forward and backward.
 *
 * Input `[N, C, ...]` with at least 2 axes. In evaluation mode, without a process group and with a group of one it is `BatchNorm1d`, `2d` or `3d`. Otherwise
 * each forward in training mode is one collective, and each backward another. They queue behind others on the same group: a group of its own
 * (`await newGroup()`) lets them pass the gradients of `DistributedDataParallel` by.
 *
 * Parameters and buffers: as `BatchNorm2d`.
 *
 * @example A network with BatchNorm layers, for several ranks
 * ```ts
 * import { nn, randn, type Tensor } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * using model = new nn.Sequential(new nn.Conv2d(1, 4, 3), new nn.BatchNorm2d(4), new nn.ReLU());
 * const names = Object.keys(model.stateDict());
 * const synchronised = nn.SyncBatchNorm.convertSyncBatchNorm(model);
 * assert(synchronised.at(1) instanceof nn.SyncBatchNorm);
 * assertEquals(Object.keys(synchronised.stateDict()), names);
 * assertEquals(synchronised.call(randn([2, 1, 5, 5])).shape, [2, 4, 3, 3]);
 * ```
 */
export class SyncBatchNorm extends BatchNorm {
  /** Who has parts of the batch; `null` for all ranks. */
  processGroup: StatisticsGroup | null;

  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine`, `trackRunningStats`, `processGroup`.
   */
  constructor(numFeatures: number, options?: SyncBatchNormOptions) {
    super("SyncBatchNorm", numFeatures, options, true);
    this.processGroup = options?.processGroup ?? null;
  }
  /** The group to share with; `null` where there is nobody to share with now. */
  #sharing(): StatisticsGroup | null {
    if (!this.training) return null;
    const group = this.processGroup ?? everybody();
    return group === null || group.size === 1 ? null : group;
  }
  /** Refuses an input of too few axes or another number of channels. */
  protected override checkShape(x: Tensor): void {
    x.checkAlive("SyncBatchNorm");
    if (x.rank < 2) throw new ShapeError(`SyncBatchNorm: takes [N, C, ...], got ${textOf(x.shape)}`);
    this.checkInput(x, "SyncBatchNorm", [x.rank], "[N, C, ...]", 1);
  }
  /** Refuses a batch that has no variance, unless others have the rest of it. */
  protected override checkBatch(x: Tensor): void {
    if (this.#sharing() === null) super.checkBatch(x);
  }
  /** What the layer computes. */
  protected override normalise(x: Tensor, runningMean: Tensor | null, runningVar: Tensor | null, options: ops.BatchNormOptions): Tensor {
    const group = this.#sharing();
    return group === null
      ? super.normalise(x, runningMean, runningVar, options)
      : syncBatchNorm(x, runningMean, runningVar, group, options);
  }

  /**
   * Puts a `SyncBatchNorm` in the place of each `BatchNorm1d`, `2d` and `3d` in `module`, with the same parameters, buffers and settings. Hooks of the
   * replaced layers are lost. Layers must be properties of their module or entries of `Sequential`, `ModuleList` or `ModuleDict`.
   *
   * @param module Changed in place.
   * @param group Who has parts of the batch. Default: all ranks.
   * @returns `module`, or the new layer if it is itself a batch normalisation.
   */
  static convertSyncBatchNorm<M extends Module>(module: M, group: StatisticsGroup | null = null): M {
    if (!(module instanceof Module)) {
      throw new TypeError(`convertSyncBatchNorm: takes a Module, got ${module === null ? "null" : typeof module}`);
    }
    const made = new Map<Module, SyncBatchNorm>();
    const converted = (layer: BatchNorm): SyncBatchNorm => {
      let sync = made.get(layer);
      if (sync === undefined) made.set(layer, sync = SyncBatchNorm.#of(layer, group));
      return sync;
    };
    const meant = (it: Module): it is BatchNorm => it instanceof BatchNorm && !(it instanceof SyncBatchNorm);
    if (meant(module)) return converted(module) as unknown as M;
    for (const parent of [...module.modules()]) {
      for (const [name, child] of [...parent.namedChildren()]) if (meant(child)) replace(parent, name, child, converted(child));
    }
    return module;
  }

  static #of(layer: BatchNorm, group: StatisticsGroup | null): SyncBatchNorm {
    const { numFeatures, eps, momentum, affine, trackRunningStats, training } = layer;
    const sync = new SyncBatchNorm(numFeatures, { eps, momentum, affine, trackRunningStats, processGroup: group });
    for (const name of ["weight", "bias", "runningMean", "runningVar", "numBatchesTracked"] as const) {
      sync[name]?.dispose();
      (sync as unknown as Record<string, unknown>)[name] = layer[name];
    }
    return sync.train(training);
  }
}

function replace(parent: Module, name: string, child: Module, by: SyncBatchNorm): void {
  const self = parent as unknown as Record<string, unknown>;
  const properties = Object.keys(self).filter((key) => self[key] === child);
  for (const key of properties) self[key] = by;
  if (parent instanceof Sequential) {
    // A layer that is there twice is named once at a time.
    for (let entry; (entry = [...parent.namedChildren()].find(([, it]) => it === child)) !== undefined;) parent.addModule(entry[0], by);
  } else if (parent instanceof ModuleList) {
    for (let i = 0; i < parent.length; i++) if (parent.at(i) === child) parent.set(i, by);
  } else if (parent instanceof ModuleDict) {
    for (const key of [...parent.keys()]) if (parent.get(key) === child) parent.set(key, by);
  } else if (properties.length === 0) {
    throw new TypeError(`convertSyncBatchNorm: ${parent.constructor.name} holds its layer "${name}" where it cannot be replaced`);
  }
}

markTransient(SyncBatchNorm);
