/**
 * Layers that drop values at random while training.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/** What all dropout layers have in common. */
export abstract class DropoutBase extends Module {
  /** Probability that a value (or channel) is dropped. */
  readonly p: number;
  /** Overwrite the input. */
  readonly inplace: boolean;

  /**
   * Makes the module.
   *
   * @param p Probability that a value (or channel) is dropped. Default `0.5`.
   * @param options.inplace Overwrite the input. Default `false`.
   * @throws {RangeError} If `p` is outside `[0, 1]`.
   */
  constructor(p = 0.5, options?: { inplace?: boolean }) {
    super();
    if (!(p >= 0 && p <= 1)) throw new RangeError(`${new.target.name}: p must be in [0, 1], got ${p}`);
    this.p = p;
    this.inplace = options?.inplace ?? false;
  }
  /** Drops in training mode; the input itself in evaluation mode. */
  override forward(x: Tensor): Tensor {
    if (!this.training) return x;
    const y = this.drop(x);
    if (!this.inplace || y === x) return y;
    using dropped = y;
    return x.copy_(dropped);
  }
  /** The function of the layer, in training mode. */
  protected abstract drop(x: Tensor): Tensor;
  /** The settings. */
  override extraRepr(): string {
    return `p=${this.p}, inplace=${this.inplace}`;
  }
}

/**
 * In training mode sets each value to 0 with probability `p` and multiplies the others by `1 / (1 - p)`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * const dropout = new nn.Dropout(0.5);
 * assert(dropout.call(ones([100])).data().every((v) => v === 0 || v === 2));
 * assertEquals(dropout.eval().call(ones([3])).tolist(), [1, 1, 1]);
 * ```
 */
export class Dropout extends DropoutBase {
  /** The function of the layer, in training mode. */
  protected override drop(x: Tensor): Tensor {
    return ops.dropout(x, this.p);
  }
}

/** {@linkcode Dropout} of whole channels of `[N, C, L]` or `[C, L]`. */
export class Dropout1d extends DropoutBase {
  /** The function of the layer, in training mode. */
  protected override drop(x: Tensor): Tensor {
    return ops.dropout1d(x, this.p);
  }
}

/** {@linkcode Dropout} of whole channels of `[N, C, H, W]` or `[C, H, W]`. */
export class Dropout2d extends DropoutBase {
  /** The function of the layer, in training mode. */
  protected override drop(x: Tensor): Tensor {
    return ops.dropout2d(x, this.p);
  }
}

/** {@linkcode Dropout} of whole channels of `[N, C, D, H, W]` or `[C, D, H, W]`. */
export class Dropout3d extends DropoutBase {
  /** The function of the layer, in training mode. */
  protected override drop(x: Tensor): Tensor {
    return ops.dropout3d(x, this.p);
  }
}

/** Dropout for networks of {@linkcode SELU}: keeps mean 0 and variance 1 (Klambauer et al. 2017). */
export class AlphaDropout extends DropoutBase {
  /** The function of the layer, in training mode. */
  protected override drop(x: Tensor): Tensor {
    return ops.alphaDropout(x, this.p);
  }
}

/** {@linkcode AlphaDropout} of whole channels. */
export class FeatureAlphaDropout extends DropoutBase {
  /** The function of the layer, in training mode. */
  protected override drop(x: Tensor): Tensor {
    return ops.featureAlphaDropout(x, this.p);
  }
}

markTransient(Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout);
