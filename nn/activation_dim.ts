/**
 * Activation modules that look along an axis or hold parameters.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import { ShapeError } from "../ffi/errors.ts";
import { textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { constant_ } from "./init.ts";
import { checkSize, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

/**
 * `e^x / sum of e^x` along an axis.
 *
 * @example
 * ```ts
 * import { nn, zeros } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(new nn.Softmax(-1).call(zeros([2])).tolist(), [0.5, 0.5]);
 * ```
 */
export class Softmax extends Module {
  /** The axis. */
  readonly dim: number;
  /**
   * Makes the module.
   *
   * @param dim The axis whose values add up to 1.
   */
  constructor(dim: number) {
    super();
    this.dim = dim;
  }
  /** Applies the function. */
  override forward(x: Tensor): Tensor {
    return ops.softmax(x, this.dim);
  }
  /** The settings. */
  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

/** {@linkcode Softmax} over the channels of `[N, C, H, W]` or `[C, H, W]`. */
export class Softmax2d extends Module {
  /** Applies the function. @throws {ShapeError} For other ranks. */
  override forward(x: Tensor): Tensor {
    if (x.rank !== 3 && x.rank !== 4) throw new ShapeError(`Softmax2d: takes [N, C, H, W] or [C, H, W], got ${textOf(x.shape)}`);
    return ops.softmax(x, -3);
  }
}

/** Softmax of `-x` along an axis. */
export class Softmin extends Module {
  /** The axis. */
  readonly dim: number;
  /**
   * Makes the module.
   *
   * @param dim The axis whose values add up to 1.
   */
  constructor(dim: number) {
    super();
    this.dim = dim;
  }
  /** Applies the function. */
  override forward(x: Tensor): Tensor {
    using negative = ops.neg(x);
    return ops.softmax(negative, this.dim);
  }
  /** The settings. */
  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

/** Logarithm of {@linkcode Softmax}, computed without overflow. */
export class LogSoftmax extends Module {
  /** The axis. */
  readonly dim: number;
  /**
   * Makes the module.
   *
   * @param dim The axis.
   */
  constructor(dim: number) {
    super();
    this.dim = dim;
  }
  /** Applies the function. */
  override forward(x: Tensor): Tensor {
    return ops.logSoftmax(x, this.dim);
  }
  /** The settings. */
  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

/** Gated linear unit: the first half of an axis times the sigmoid of the second. */
export class GLU extends Module {
  /** The axis. */
  readonly dim: number;
  /**
   * Makes the module.
   *
   * @param dim The axis that is halved. Default `-1`.
   */
  constructor(dim = -1) {
    super();
    this.dim = dim;
  }
  /** Applies the function. */
  override forward(x: Tensor): Tensor {
    return ops.glu(x, this.dim);
  }
  /** The settings. */
  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

/**
 * `x` for `x > 0`, else `weight * x` with learnt slopes.
 *
 * Parameters: `weight` `[numParameters]`, 0.25 at first.
 */
export class PReLU extends Module {
  /** Number of slopes: 1, or one per channel. */
  readonly numParameters: number;
  /** The slopes below 0. */
  weight: Parameter;

  /**
   * Makes the module.
   *
   * @param numParameters Number of slopes: 1, or that of the channels. Default `1`.
   * @param options.init Initial value. Default `0.25`.
   */
  constructor(numParameters = 1, options?: Placement & { init?: number }) {
    super();
    checkSize(numParameters, "numParameters", "PReLU");
    this.numParameters = numParameters;
    const { init = 0.25, dtype, device } = options ?? {};
    this.weight = Parameter.take(constant_(ops.empty([numParameters], { dtype, device }), init));
  }
  /** Applies the function. */
  override forward(x: Tensor): Tensor {
    return ops.prelu(x, this.weight);
  }
  /** The settings. */
  override extraRepr(): string {
    return `numParameters=${this.numParameters}`;
  }
}

markTransient(Softmax, Softmax2d, Softmin, LogSoftmax, GLU, PReLU);
