/**
 * Normalisation layers other than batch normalisation.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Shape } from "../tensor/shape.ts";
import { textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { ChannelNorm, type NormOptions } from "./batch_norm.ts";
import { markTransient } from "./transient.ts";
import { ones_, zeros_ } from "./init.ts";
import { checkSize, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

function trailing(shape: number | Shape, op: string): Shape {
  const sizes = typeof shape === "number" ? [shape] : [...shape];
  if (sizes.length === 0) throw new RangeError(`${op}: normalizedShape must have at least one size`);
  for (const size of sizes) checkSize(size, "normalizedShape", op);
  return sizes;
}

/**
 * Layer normalisation (Ba et al. 2016): `(x - mean) / sqrt(var + eps) * weight + bias` over the trailing axes of each sample.
 *
 * Parameters, of `normalizedShape`: `weight` of ones and `bias` of zeros.
 *
 * @example
 * ```ts
 * import { nn, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * using norm = new nn.LayerNorm(2);
 * assertAlmostEquals(norm.call(tensor([[1, 3]])).select(1, 0).item(), -1, 1e-4);
 * ```
 */
export class LayerNorm extends Module {
  /** Sizes of the trailing axes that are normalised. */
  readonly normalizedShape: Shape;
  /** Added to the variance. */
  readonly eps: number;
  /** Whether a factor is learnt per element. */
  readonly elementwiseAffine: boolean;
  /** Factors, or `null`. */
  weight: Parameter | null;
  /** Summands, or `null`. */
  bias: Parameter | null;

  /**
   * Makes the module.
   *
   * @param normalizedShape Sizes of the trailing axes.
   * @param options.eps Added to the variance. Default `1e-5`.
   * @param options.elementwiseAffine Learn factors and summands. Default `true`.
   * @param options.bias Learn summands, too. Default `true`.
   */
  constructor(normalizedShape: number | Shape, options?: Placement & { eps?: number; elementwiseAffine?: boolean; bias?: boolean }) {
    super();
    const { eps = 1e-5, elementwiseAffine = true, bias = true, dtype, device } = options ?? {};
    this.normalizedShape = trailing(normalizedShape, "LayerNorm");
    this.eps = eps;
    this.elementwiseAffine = elementwiseAffine;
    this.weight = elementwiseAffine ? Parameter.take(ops.ones(this.normalizedShape, { dtype, device })) : null;
    this.bias = elementwiseAffine && bias ? Parameter.take(ops.zeros(this.normalizedShape, { dtype, device })) : null;
  }
  /** Sets the factors to 1 and the summands to 0. */
  resetParameters(): void {
    if (this.weight !== null) ones_(this.weight);
    if (this.bias !== null) zeros_(this.bias);
  }
  /** The normalised input. */
  override forward(x: Tensor): Tensor {
    const { weight, bias, eps } = this;
    return ops.layerNorm(x, this.normalizedShape, { weight, bias, eps });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${textOf(this.normalizedShape)}, eps=${this.eps}, elementwiseAffine=${this.elementwiseAffine}, bias=${this.bias !== null}`;
  }
}

/**
 * Root mean square normalisation (Zhang and Sennrich 2019): `x / sqrt(mean(x^2) + eps) * weight` over the trailing axes of each sample.
 *
 * Parameter, of `normalizedShape`: `weight` of ones.
 */
export class RMSNorm extends Module {
  /** Sizes of the trailing axes that are normalised. */
  readonly normalizedShape: Shape;
  /** Added to the mean square; `null` for the least difference of the dtype. */
  readonly eps: number | null;
  /** Factors, or `null`. */
  weight: Parameter | null;

  /**
   * Makes the module.
   *
   * @param normalizedShape Sizes of the trailing axes.
   * @param options.eps Added to the mean square. Default `null`: the machine epsilon of the dtype.
   * @param options.elementwiseAffine Learn factors. Default `true`.
   */
  constructor(normalizedShape: number | Shape, options?: Placement & { eps?: number | null; elementwiseAffine?: boolean }) {
    super();
    const { eps = null, elementwiseAffine = true, dtype, device } = options ?? {};
    this.normalizedShape = trailing(normalizedShape, "RMSNorm");
    this.eps = eps;
    this.weight = elementwiseAffine ? Parameter.take(ops.ones(this.normalizedShape, { dtype, device })) : null;
  }
  /** Sets the factors to 1. */
  resetParameters(): void {
    if (this.weight !== null) ones_(this.weight);
  }
  /** The normalised input. */
  override forward(x: Tensor): Tensor {
    return ops.rmsNorm(x, this.normalizedShape, { weight: this.weight, eps: this.eps ?? undefined });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${textOf(this.normalizedShape)}, eps=${this.eps}, elementwiseAffine=${this.weight !== null}`;
  }
}

/**
 * Group normalisation (Wu and He 2018): each sample's channels are normalised in groups, over all positions.
 *
 * Parameters: `weight` `[numChannels]` of ones and `bias` `[numChannels]` of zeros.
 */
export class GroupNorm extends Module {
  /** Number of groups. */
  readonly numGroups: number;
  /** Number of channels. */
  readonly numChannels: number;
  /** Added to the variance. */
  readonly eps: number;
  /** Factors, or `null`. */
  weight: Parameter | null;
  /** Summands, or `null`. */
  bias: Parameter | null;

  /**
   * Makes the module.
   *
   * @param numGroups Number of groups; divides the channels.
   * @param numChannels Number of channels.
   * @param options.eps Added to the variance. Default `1e-5`.
   * @param options.affine Learn factors and summands. Default `true`.
   */
  constructor(numGroups: number, numChannels: number, options?: Placement & { eps?: number; affine?: boolean }) {
    super();
    checkSize(numGroups, "numGroups", "GroupNorm");
    checkSize(numChannels, "numChannels", "GroupNorm");
    if (numChannels % numGroups !== 0) throw new RangeError(`GroupNorm: ${numGroups} groups do not divide ${numChannels} channels`);
    const { eps = 1e-5, affine = true, dtype, device } = options ?? {};
    this.numGroups = numGroups;
    this.numChannels = numChannels;
    this.eps = eps;
    this.weight = affine ? Parameter.take(ops.ones([numChannels], { dtype, device })) : null;
    this.bias = affine ? Parameter.take(ops.zeros([numChannels], { dtype, device })) : null;
  }
  /** Sets the factors to 1 and the summands to 0. */
  resetParameters(): void {
    if (this.weight !== null) ones_(this.weight);
    if (this.bias !== null) zeros_(this.bias);
  }
  /** The normalised input. */
  override forward(x: Tensor): Tensor {
    const { weight, bias, eps } = this;
    return ops.groupNorm(x, this.numGroups, { weight, bias, eps });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${this.numGroups}, ${this.numChannels}, eps=${this.eps}, affine=${this.weight !== null}`;
  }
}

/** What the instance normalisation layers have in common. */
export abstract class InstanceNorm extends ChannelNorm {
  /** Refuses an input of another rank, and with parameters or statistics of another number of channels. */
  protected abstract checkShape(x: Tensor): void;

  /** Statistics of each sample's own channels; the running ones in evaluation mode if they are kept. */
  override forward(x: Tensor): Tensor {
    this.checkShape(x);
    const { weight, bias, eps, training, runningMean, runningVar } = this;
    // The batch is not counted: neither does PyTorch.
    return ops.instanceNorm(x, {
      runningMean,
      runningVar,
      weight,
      bias,
      useInputStats: training || !this.trackRunningStats,
      momentum: this.momentum ?? 0,
      eps,
    });
  }
}

/**
 * Instance normalisation (Ulyanov et al. 2016) of `[N, C, L] or [C, L]`: each channel of each sample is normalised over its positions.
 *
 * With `affine`: `weight` `[numFeatures]` of ones and `bias` of zeros. With `trackRunningStats`, evaluation mode uses running statistics.
 */
export class InstanceNorm1d extends InstanceNorm {
  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine` (default `false`), `trackRunningStats` (default `false`).
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super("InstanceNorm1d", numFeatures, options, false);
  }
  /** Refuses an input of another rank or number of channels. */
  protected override checkShape(x: Tensor): void {
    this.checkInput(x, "InstanceNorm1d", [2, 3], "[N, C, L] or [C, L]", -2);
  }
}

/**
 * Instance normalisation (Ulyanov et al. 2016) of `[N, C, H, W] or [C, H, W]`: each channel of each sample is normalised over its positions.
 *
 * With `affine`: `weight` `[numFeatures]` of ones and `bias` of zeros. With `trackRunningStats`, evaluation mode uses running statistics.
 */
export class InstanceNorm2d extends InstanceNorm {
  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine` (default `false`), `trackRunningStats` (default `false`).
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super("InstanceNorm2d", numFeatures, options, false);
  }
  /** Refuses an input of another rank or number of channels. */
  protected override checkShape(x: Tensor): void {
    this.checkInput(x, "InstanceNorm2d", [3, 4], "[N, C, H, W] or [C, H, W]", -3);
  }
}

/**
 * Instance normalisation (Ulyanov et al. 2016) of `[N, C, D, H, W] or [C, D, H, W]`: each channel of each sample is normalised over its positions.
 *
 * With `affine`: `weight` `[numFeatures]` of ones and `bias` of zeros. With `trackRunningStats`, evaluation mode uses running statistics.
 */
export class InstanceNorm3d extends InstanceNorm {
  /**
   * Makes the module.
   *
   * @param numFeatures Number of channels.
   * @param options `eps`, `momentum`, `affine` (default `false`), `trackRunningStats` (default `false`).
   */
  constructor(numFeatures: number, options?: NormOptions) {
    super("InstanceNorm3d", numFeatures, options, false);
  }
  /** Refuses an input of another rank or number of channels. */
  protected override checkShape(x: Tensor): void {
    this.checkInput(x, "InstanceNorm3d", [4, 5], "[N, C, D, H, W] or [C, D, H, W]", -4);
  }
}

/** Local response normalisation (Krizhevsky et al. 2012): `x / (k + alpha * mean of x^2 over neighbouring channels)^beta`. */
export class LocalResponseNorm extends Module {
  /** Channels in the window. */
  readonly size: number;
  /** Factor of the mean square. */
  readonly alpha: number;
  /** Exponent. */
  readonly beta: number;
  /** Summand. */
  readonly k: number;

  /**
   * Makes the module.
   *
   * @param size Channels in the window.
   * @param options `alpha` (default `1e-4`), `beta` (`0.75`), `k` (`1`).
   */
  constructor(size: number, options?: { alpha?: number; beta?: number; k?: number }) {
    super();
    checkSize(size, "size", "LocalResponseNorm");
    this.size = size;
    this.alpha = options?.alpha ?? 1e-4;
    this.beta = options?.beta ?? 0.75;
    this.k = options?.k ?? 1;
  }
  /** The normalised input `[N, C, ...]`. */
  override forward(x: Tensor): Tensor {
    const { alpha, beta, k } = this;
    return ops.localResponseNorm(x, this.size, { alpha, beta, k });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${this.size}, alpha=${this.alpha}, beta=${this.beta}, k=${this.k}`;
  }
}

markTransient(LayerNorm, LocalResponseNorm, RMSNorm, GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d);
