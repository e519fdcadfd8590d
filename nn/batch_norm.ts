/**
 * Batch normalisation layers.
 *
 * @module
 */
import { noGrad } from "../autograd/functional.ts";
import { recording } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { checkArguments } from "../ops/batch_norm.ts";
import { convolutionAndNorm, normalisedConvolution } from "../ops/conv_norm.ts";
import * as ops from "../ops/mod.ts";
import { textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { letGo, markTransient } from "./transient.ts";
import { PaddedConvolution } from "./convolution.ts";
import { ones_, zeros_ } from "./init.ts";
import { checkSize, type Layer, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

/** Settings of a batch or instance normalisation layer. */
export interface NormOptions extends Placement {
  /** Added to the variance. Default `1e-5`. */
  eps?: number;
  /** Share of the batch in the new running statistics; `null` for the average of all batches. Default `0.1`. */
  momentum?: number | null;
  /** Learn a factor and a summand per channel. Default `true` (instance normalisation: `false`). */
  affine?: boolean;
  /** Keep running statistics and use them in evaluation mode. Default `true` (instance normalisation: `false`). */
  trackRunningStats?: boolean;
}

/** What batch and instance normalisation have in common: parameters and running statistics. */
export abstract class ChannelNorm extends Module {
  /** Number of channels. */
  readonly numFeatures: number;
  /** Added to the variance. */
  readonly eps: number;
  /** Share of the batch in the new running statistics; `null` for the average of all batches. */
  momentum: number | null;
  /** Whether a factor and a summand per channel are learnt. */
  readonly affine: boolean;
  /** Whether running statistics are kept. */
  readonly trackRunningStats: boolean;
  /** Factor of each channel, `[numFeatures]`, or `null`. */
  weight: Parameter | null;
  /** Summand of each channel, `[numFeatures]`, or `null`. */
  bias: Parameter | null;
  /** Running mean, `[numFeatures]`, or `null`. */
  runningMean: Tensor | null;
  /** Running variance, `[numFeatures]`, or `null`. */
  runningVar: Tensor | null;
  /** Batches seen in training mode, an int64 scalar, or `null`. */
  numBatchesTracked: Tensor | null;

  /** Name of the class and what the input looks like, and the settings with their defaults. */
  protected constructor(op: string, numFeatures: number, options: NormOptions | undefined, fallback: boolean) {
    super();
    checkSize(numFeatures, "numFeatures", op);
    const { eps = 1e-5, momentum = 0.1, affine = fallback, trackRunningStats = fallback, dtype, device } = options ?? {};
    if (!(eps >= 0)) throw new RangeError(`${op}: eps must be >= 0, got ${eps}`);
    if (momentum !== null && !(momentum >= 0 && momentum <= 1)) {
      throw new RangeError(`${op}: momentum must be null or in [0, 1], got ${momentum}`);
    }
    this.numFeatures = numFeatures;
    this.eps = eps;
    this.momentum = momentum;
    this.affine = affine;
    this.trackRunningStats = trackRunningStats;
    const placement = { dtype, device }, shape = [numFeatures];
    this.weight = affine ? Parameter.take(ops.ones(shape, placement)) : null;
    this.bias = affine ? Parameter.take(ops.zeros(shape, placement)) : null;
    this.runningMean = this.registerBuffer("runningMean", trackRunningStats ? ops.zeros(shape, placement) : null);
    this.runningVar = this.registerBuffer("runningVar", trackRunningStats ? ops.ones(shape, placement) : null);
    this.numBatchesTracked = this.registerBuffer("numBatchesTracked", trackRunningStats ? ops.zeros([], { dtype: "int64", device }) : null);
  }
  /** Forgets the running statistics. */
  resetRunningStats(): void {
    if (this.runningMean !== null) zeros_(this.runningMean);
    if (this.runningVar !== null) ones_(this.runningVar);
    if (this.numBatchesTracked !== null) zeros_(this.numBatchesTracked);
  }
  /** Forgets the running statistics, and sets the factors to 1 and the summands to 0. */
  resetParameters(): void {
    this.resetRunningStats();
    if (this.weight !== null) ones_(this.weight);
    if (this.bias !== null) zeros_(this.bias);
  }
  /** Refuses an input whose rank or channels do not fit. */
  protected checkInput(x: Tensor, op: string, ranks: readonly number[], shapes: string, axis: number): void {
    x.checkAlive(op);
    if (!ranks.includes(x.rank)) throw new ShapeError(`${op}: takes ${shapes}, got ${textOf(x.shape)}`);
    if (x.shape.at(axis) !== this.numFeatures) {
      throw new ShapeError(`${op}: takes ${shapes} with C = ${this.numFeatures}, got ${textOf(x.shape)}`);
    }
  }
  /** The settings. */
  override extraRepr(): string {
    const { numFeatures, eps, momentum, affine, trackRunningStats } = this;
    return `${numFeatures}, eps=${eps}, momentum=${momentum}, affine=${affine}, trackRunningStats=${trackRunningStats}`;
  }
}

/** What {@linkcode BatchNorm.fused} adds to the layer. */
export interface FusedOptions {
  /** Applied to the result. Default: none. */
  activation?: "relu" | null;
  /** Added before the activation; shape of the input. Default: none. */
  residual?: Tensor | null;
}

/** What the batch normalisation layers have in common. */
export abstract class BatchNorm extends ChannelNorm {
  /** Refuses an input of another rank or number of channels. */
  protected abstract checkShape(x: Tensor): void;

  /** Refuses a batch that has no variance. */
  protected checkBatch(x: Tensor): void {
    if (!this.training || x.numel() !== this.numFeatures) return;
    throw new ShapeError(
      `${this.constructor.name}: expected more than 1 value per channel when training, got input size ${textOf(x.shape)}`,
    );
  }
  /** What the layer computes. */
  protected normalise(x: Tensor, runningMean: Tensor | null, runningVar: Tensor | null, options: ops.BatchNormOptions): Tensor {
    return ops.batchNorm(x, runningMean, runningVar, options);
  }

  /** Statistics of the batch in training mode (or without running ones), else the running ones. */
  override forward(x: Tensor): Tensor {
    return this.#run(x);
  }
  /**
   * The layer, then `+ residual` and the activation, in one pass over memory. Used inside `Sequential` and the models by itself; with hooks on this
   * layer, or a subclass's own `forward`, the steps are done one after the other.
   */
  fused(x: Tensor, options: FusedOptions): Tensor {
    if (!this.hasHooks && this.forward === BatchNorm.prototype.forward) return this.#run(x, options);
    const { residual = null, activation = null } = options;
    const y = (this as BatchNorm).call(x);
    const sum = residual === null ? y : y.add(residual);
    return activation === "relu" ? sum.relu() : sum;
  }
  /**
   * `layer` and this one, then `+ residual` and the activation. A convolution makes the statistics of the batch while it has its results at hand. In evaluation
   * mode, where nothing is to be recorded, it normalises them as it writes them: there is no pass over them and no memory for what lies between. Used
   * inside `Sequential` and the models by itself; with hooks on one of the two, or a subclass's own ways, the steps are done one after the other.
   *
   * @param layer Whose result is normalised.
   * @param x Its input.
   */
  after(layer: Layer, x: Tensor, options: FusedOptions = {}): Tensor {
    const y = this.#within(layer, x, options);
    if (y !== null) return y;
    const inner = layer.call(x), outer = this.fused(inner, options);
    letGo(inner, layer, this);
    return outer;
  }
  /** Both in one step, or `null`. */
  #within(layer: Layer, x: Tensor, options: FusedOptions): Tensor | null {
    if (this.hasHooks || this.forward !== BatchNorm.prototype.forward || this.normalise !== BatchNorm.prototype.normalise) return null;
    if (!(layer instanceof PaddedConvolution) || !(x instanceof Tensor)) return null;
    const { weight, bias } = layer,
      checks = (y: Tensor) => checkArguments("batchNorm", y, this.runningMean, this.runningVar, this.#arguments(y, options));
    if (!this.training && this.runningMean !== null) {
      if (recording(x, weight, bias, this.weight, this.bias, options.residual ?? null)) return null;
      return layer.plainly(x, (x, settings) => normalisedConvolution(x, weight, bias, settings, checks));
    }
    const both = layer.plainly(x, (x, settings) => x.numel() > 0 ? convolutionAndNorm(x, weight, bias, settings, checks) : null);
    if (both === null) return null;
    letGo(both[0], layer, this);
    return both[1];
  }
  #run(x: Tensor, fused?: FusedOptions): Tensor {
    return this.normalise(x, this.runningMean, this.runningVar, this.#arguments(x, fused));
  }
  /** Checks the input, counts the batch and says what `ops.batchNorm` is given. */
  #arguments(x: Tensor, fused?: FusedOptions): ops.BatchNormOptions {
    this.checkShape(x);
    const { training, runningMean, weight, bias, eps } = this;
    this.checkBatch(x); // before the batch is counted: a refused batch leaves no trace
    // A share that depends on the number of batches is computed from it; else the kernel of the statistics counts on its way.
    const count = training ? this.numBatchesTracked : null;
    const momentum = this.momentum ?? (count === null ? 0 : 1 / noGrad(() => count.add_(1)).item());
    const numBatchesTracked = this.momentum === null ? null : count;
    return { weight, bias, training: training || runningMean === null, momentum, eps, numBatchesTracked, ...fused };
  }
}

/**
 * Batch normalisation (Ioffe and Szegedy 2015) of `[N, C] or [N, C, L]`.
 *
 * `y = (x - mean) / sqrt(var + eps) * weight + bias`, for each channel over the batch and all positions.
 *
 * In training mode mean and (biased) variance are those of the batch, and each forward, under `noGrad`, too, updates
 * `runningMean = (1 - momentum) * runningMean + momentum * mean` and `runningVar` likewise with the unbiased variance. In evaluation mode they are the running
 * ones, so that a result does not depend on the rest of its batch. With `momentum: null` the running statistics are averages over all batches; with
 * `trackRunningStats: false` there are none and every mode uses the batch's.
 *
 * Parameters: `weight` `[numFeatures]` of ones, `bias` `[numFeatures]` of zeros. Buffers: `runningMean` zeros, `runningVar` ones, `numBatchesTracked` 0.
 *
 * @example
 * ```ts
 * import { nn, randn } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * using norm = new nn.BatchNorm1d(3);
 * const y = norm.call(randn([4, 3, 5]).mul(5).add(2));
 * assert(Math.abs(y.mean().item()) < 1e-5);
 * assertEquals(norm.numBatchesTracked!.item(), 1);
 * ```
 */
export class BatchNorm1d extends BatchNorm {
  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine`, `trackRunningStats`.
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super("BatchNorm1d", numFeatures, options, true);
  }
  /** Refuses an input of another rank or number of channels. */
  protected override checkShape(x: Tensor): void {
    this.checkInput(x, "BatchNorm1d", [2, 3], "[N, C] or [N, C, L]", 1);
  }
}

/**
 * Batch normalisation (Ioffe and Szegedy 2015) of `[N, C, H, W]`.
 *
 * `y = (x - mean) / sqrt(var + eps) * weight + bias`, for each channel over the batch and all positions.
 *
 * In training mode mean and (biased) variance are those of the batch, and each forward, under `noGrad`, too, updates
 * `runningMean = (1 - momentum) * runningMean + momentum * mean` and `runningVar` likewise with the unbiased variance. In evaluation mode they are the running
 * ones, so that a result does not depend on the rest of its batch. With `momentum: null` the running statistics are averages over all batches; with
 * `trackRunningStats: false` there are none and every mode uses the batch's.
 *
 * Parameters: `weight` `[numFeatures]` of ones, `bias` `[numFeatures]` of zeros. Buffers: `runningMean` zeros, `runningVar` ones, `numBatchesTracked` 0.
 *
 * @example
 * ```ts
 * import { nn, randn } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * using norm = new nn.BatchNorm2d(3);
 * const y = norm.call(randn([4, 3, 5, 5]).mul(5).add(2));
 * assert(Math.abs(y.mean().item()) < 1e-5);
 * assertEquals(norm.numBatchesTracked!.item(), 1);
 * ```
 */
export class BatchNorm2d extends BatchNorm {
  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine`, `trackRunningStats`.
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super("BatchNorm2d", numFeatures, options, true);
  }
  /** Refuses an input of another rank or number of channels. */
  protected override checkShape(x: Tensor): void {
    this.checkInput(x, "BatchNorm2d", [4], "[N, C, H, W]", 1);
  }
}

/**
 * Batch normalisation (Ioffe and Szegedy 2015) of `[N, C, D, H, W]`.
 *
 * `y = (x - mean) / sqrt(var + eps) * weight + bias`, for each channel over the batch and all positions.
 *
 * In training mode mean and (biased) variance are those of the batch, and each forward, under `noGrad`, too, updates
 * `runningMean = (1 - momentum) * runningMean + momentum * mean` and `runningVar` likewise with the unbiased variance. In evaluation mode they are the running
 * ones, so that a result does not depend on the rest of its batch. With `momentum: null` the running statistics are averages over all batches; with
 * `trackRunningStats: false` there are none and every mode uses the batch's.
 *
 * Parameters: `weight` `[numFeatures]` of ones, `bias` `[numFeatures]` of zeros. Buffers: `runningMean` zeros, `runningVar` ones, `numBatchesTracked` 0.
 *
 * @example
 * ```ts
 * import { nn, randn } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * using norm = new nn.BatchNorm3d(3);
 * const y = norm.call(randn([2, 3, 2, 4, 4]).mul(5).add(2));
 * assert(Math.abs(y.mean().item()) < 1e-5);
 * assertEquals(norm.numBatchesTracked!.item(), 1);
 * ```
 */
export class BatchNorm3d extends BatchNorm {
  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine`, `trackRunningStats`.
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super("BatchNorm3d", numFeatures, options, true);
  }
  /** Refuses an input of another rank or number of channels. */
  protected override checkShape(x: Tensor): void {
    this.checkInput(x, "BatchNorm3d", [5], "[N, C, D, H, W]", 1);
  }
}

markTransient(BatchNorm1d, BatchNorm2d, BatchNorm3d);
