/**
 * Losses as modules. Each is the function of `nn.functional` with its settings.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { BinaryCrossEntropyOptions, CrossEntropyOptions, LossReduction, NllLossOptions, Reducing } from "../ops/mod.ts";
export type { LossReduction };
import type { Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** What all losses have in common. */
export abstract class Loss<R extends string = LossReduction> extends Module {
  /** How the losses of the elements become one. */
  readonly reduction: R;

  /** Refuses a reduction that is not one. */
  protected constructor(op: string, reduction: R, allowed: readonly string[] = ["mean", "sum", "none"]) {
    super();
    if (!allowed.includes(reduction)) {
      const names = allowed.map((name) => `"${name}"`).join(", ");
      throw new RangeError(`${op}: reduction must be one of ${names}, got ${JSON.stringify(reduction)}`);
    }
    this.reduction = reduction;
  }
  /** The settings. */
  override extraRepr(): string {
    return `reduction="${this.reduction}"`;
  }
}

/**
 * Cross entropy of scores and classes: the mean of `-log(softmax(x)[target])`.
 *
 * Shapes: `[N, C]` or `[N, C, ...]` scores; targets are class numbers `[N, ...]` (int64) or probabilities of the shape of the scores.
 *
 * Buffer: `weight` `[C]`, if given.
 *
 * @example
 * ```ts
 * import { nn, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const loss = new nn.CrossEntropyLoss({ ignoreIndex: -1 });
 * const scores = tensor([[0, 0], [5, 1]]), target = tensor([1, -1], { dtype: "int64" });
 * assertAlmostEquals(loss.call(scores, target).item(), Math.log(2), 1e-6);
 * ```
 */
export class CrossEntropyLoss extends Loss {
  /** Weight of each class, or `null`. */
  weight: Tensor | null;
  /** Class whose positions count for nothing. */
  readonly ignoreIndex: number;
  /** Share of the target that is spread evenly over all classes. */
  readonly labelSmoothing: number;

  /**
   * Makes the module.
   *
   * @param options `weight` of each class, `ignoreIndex` (default -100), `reduction` (`"mean"`), `labelSmoothing` (0).
   */
  constructor(options?: CrossEntropyOptions) {
    super("CrossEntropyLoss", options?.reduction ?? "mean");
    this.weight = this.registerBuffer("weight", options?.weight ?? null);
    this.ignoreIndex = options?.ignoreIndex ?? -100;
    this.labelSmoothing = options?.labelSmoothing ?? 0;
    if (!(this.labelSmoothing >= 0 && this.labelSmoothing <= 1)) {
      throw new RangeError(`CrossEntropyLoss: labelSmoothing must be in [0, 1], got ${this.labelSmoothing}`);
    }
  }
  /** The loss of scores against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, reduction, labelSmoothing } = this;
    return ops.crossEntropy(x, target, { weight, ignoreIndex, reduction, labelSmoothing });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${super.extraRepr()}, ignoreIndex=${this.ignoreIndex}, labelSmoothing=${this.labelSmoothing}`;
  }
}

/**
 * Negative log-likelihood: the mean of `-x[target]` for log-probabilities `x`.
 *
 * Shapes: `[N, C, ...]` log-probabilities and `[N, ...]` class numbers. Buffer: `weight` `[C]`, if given.
 */
export class NLLLoss extends Loss {
  /** Weight of each class, or `null`. */
  weight: Tensor | null;
  /** Class whose positions count for nothing. */
  readonly ignoreIndex: number;

  /**
   * Makes the module.
   *
   * @param options `weight` of each class, `ignoreIndex` (default -100), `reduction` (`"mean"`).
   */
  constructor(options?: NllLossOptions) {
    super("NLLLoss", options?.reduction ?? "mean");
    this.weight = this.registerBuffer("weight", options?.weight ?? null);
    this.ignoreIndex = options?.ignoreIndex ?? -100;
  }
  /** The loss of log-probabilities against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, reduction } = this;
    return ops.nllLoss(x, target, { weight, ignoreIndex, reduction });
  }
}

/** Binary cross entropy of probabilities: the mean of `-(t log x + (1 - t) log(1 - x))`. Buffer: `weight`, if given. */
export class BCELoss extends Loss {
  /** Factor of each loss, or `null`. */
  weight: Tensor | null;

  /**
   * Makes the module.
   *
   * @param options `weight` of each loss (broadcasts), `reduction` (`"mean"`).
   */
  constructor(options?: BinaryCrossEntropyOptions) {
    super("BCELoss", options?.reduction ?? "mean");
    this.weight = this.registerBuffer("weight", options?.weight ?? null);
  }
  /** The loss of probabilities against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    return ops.binaryCrossEntropy(x, target, { weight: this.weight, reduction: this.reduction });
  }
}

/**
 * Binary cross entropy of scores, through the sigmoid and without overflow. Buffers: `weight` and `posWeight`, if given.
 *
 * @example
 * ```ts
 * import { nn, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const loss = new nn.BCEWithLogitsLoss();
 * assertAlmostEquals(loss.call(tensor([0, 1000]), tensor([1, 1])).item(), Math.log(2) / 2, 1e-6);
 * ```
 */
export class BCEWithLogitsLoss extends Loss {
  /** Factor of each loss, or `null`. */
  weight: Tensor | null;
  /** Factor of the positive part, or `null`. */
  posWeight: Tensor | null;

  /**
   * Makes the module.
   *
   * @param options `weight` of each loss (broadcasts), `posWeight` of the positive part, `reduction` (`"mean"`).
   */
  constructor(options?: BinaryCrossEntropyOptions & { posWeight?: Tensor | null }) {
    super("BCEWithLogitsLoss", options?.reduction ?? "mean");
    this.weight = this.registerBuffer("weight", options?.weight ?? null);
    this.posWeight = this.registerBuffer("posWeight", options?.posWeight ?? null);
  }
  /** The loss of scores against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    const { weight, posWeight, reduction } = this;
    return ops.binaryCrossEntropyWithLogits(x, target, { weight, posWeight, reduction });
  }
}

/** Mean of `(x - t)^2`. */
export class MSELoss extends Loss {
  /**
   * Makes the module.
   *
   * @param options `reduction`, default `"mean"`.
   */
  constructor(options?: Reducing) {
    super("MSELoss", options?.reduction ?? "mean");
  }
  /** The loss of predictions against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    return ops.mseLoss(x, target, { reduction: this.reduction });
  }
}

/** Mean of `|x - t|`; the derivative at 0 is 0. */
export class L1Loss extends Loss {
  /**
   * Makes the module.
   *
   * @param options `reduction`, default `"mean"`.
   */
  constructor(options?: Reducing) {
    super("L1Loss", options?.reduction ?? "mean");
  }
  /** The loss of predictions against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    return ops.l1Loss(x, target, { reduction: this.reduction });
  }
}

/** `(x - t)^2 / (2 beta)` where `|x - t| < beta`, else `|x - t| - beta / 2`. */
export class SmoothL1Loss extends Loss {
  /** Where it changes; 0 gives {@linkcode L1Loss}. */
  readonly beta: number;

  /**
   * Makes the module.
   *
   * @param options `beta` (default 1), `reduction` (`"mean"`).
   */
  constructor(options?: Reducing & { beta?: number }) {
    super("SmoothL1Loss", options?.reduction ?? "mean");
    this.beta = options?.beta ?? 1;
    if (!(this.beta >= 0)) throw new RangeError(`SmoothL1Loss: beta must be >= 0, got ${this.beta}`);
  }
  /** The loss of predictions against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    return ops.smoothL1Loss(x, target, { reduction: this.reduction, beta: this.beta });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${super.extraRepr()}, beta=${this.beta}`;
  }
}

/** `(x - t)^2 / 2` where `|x - t| <= delta`, else `delta (|x - t| - delta / 2)`. */
export class HuberLoss extends Loss {
  /** Where it changes. */
  readonly delta: number;

  /**
   * Makes the module.
   *
   * @param options `delta` (default 1), `reduction` (`"mean"`).
   */
  constructor(options?: Reducing & { delta?: number }) {
    super("HuberLoss", options?.reduction ?? "mean");
    this.delta = options?.delta ?? 1;
    if (!(this.delta > 0)) throw new RangeError(`HuberLoss: delta must be > 0, got ${this.delta}`);
  }
  /** The loss of predictions against targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    return ops.huberLoss(x, target, { reduction: this.reduction, delta: this.delta });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${super.extraRepr()}, delta=${this.delta}`;
  }
}

/** Kullback-Leibler divergence `t (log t - x)` for log-probabilities `x`; `"batchmean"` is its mathematical value per sample. */
export class KLDivLoss extends Loss<LossReduction | "batchmean"> {
  /** The target holds logarithms. */
  readonly logTarget: boolean;

  /**
   * Makes the module.
   *
   * @param options `reduction` (default `"mean"`, over elements), `logTarget` (`false`).
   */
  constructor(options?: { reduction?: LossReduction | "batchmean"; logTarget?: boolean }) {
    super("KLDivLoss", options?.reduction ?? "mean", ["mean", "batchmean", "sum", "none"]);
    this.logTarget = options?.logTarget ?? false;
  }
  /** The divergence of log-probabilities from targets. */
  override forward(x: Tensor, target: Tensor): Tensor {
    return ops.klDiv(x, target, { reduction: this.reduction, logTarget: this.logTarget });
  }
}
