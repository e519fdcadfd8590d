/**
 * Activation functions as modules. Each is the function of `nn.functional` with its settings.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/** `max(x, 0)`; the derivative at 0 is 0. */
export class ReLU extends Module {
  /** Overwrite the input. */
  readonly inplace: boolean;

  /**
   * Makes the module.
   *
   * @param inplace Overwrite the input. Default `false`.
   */
  constructor(inplace = false) {
    super();
    this.inplace = inplace;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return this.inplace ? ops.relu_(x) : ops.relu(x);
  }
  /** The settings. */
  override extraRepr(): string {
    return `inplace=${this.inplace}`;
  }
}

/** `x` limited to `[0, 6]`. */
export class ReLU6 extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.relu6(x);
  }
}

/** `x` for `x > 0`, else `negativeSlope * x`. */
export class LeakyReLU extends Module {
  /** Slope below 0. */
  readonly negativeSlope: number;

  /**
   * Makes the module.
   *
   * @param negativeSlope Slope below 0. Default `0.01`.
   */
  constructor(negativeSlope = 0.01) {
    super();
    this.negativeSlope = negativeSlope;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.leakyRelu(x, this.negativeSlope);
  }
  /** The settings. */
  override extraRepr(): string {
    return `negativeSlope=${this.negativeSlope}`;
  }
}

/** `x` for `x > 0`, else `alpha * (e^x - 1)`. */
export class ELU extends Module {
  /** Limit far below 0, with its sign changed. */
  readonly alpha: number;

  /**
   * Makes the module.
   *
   * @param alpha Limit far below 0, with its sign changed. Default `1`.
   */
  constructor(alpha = 1) {
    super();
    this.alpha = alpha;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.elu(x, this.alpha);
  }
  /** The settings. */
  override extraRepr(): string {
    return `alpha=${this.alpha}`;
  }
}

/** Self-normalising ELU (Klambauer et al. 2017). */
export class SELU extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.selu(x);
  }
}

/** `max(x, 0) + min(0, alpha * (e^(x / alpha) - 1))`. */
export class CELU extends Module {
  /** Limit far below 0, with its sign changed. */
  readonly alpha: number;

  /**
   * Makes the module.
   *
   * @param alpha Limit far below 0, with its sign changed. Default `1`.
   */
  constructor(alpha = 1) {
    super();
    this.alpha = alpha;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.celu(x, this.alpha);
  }
  /** The settings. */
  override extraRepr(): string {
    return `alpha=${this.alpha}`;
  }
}

/** `x * sigmoid(x)`, also called swish. */
export class SiLU extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.silu(x);
  }
}

/** `x * tanh(softplus(x))`. */
export class Mish extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.mish(x);
  }
}

/** `1 / (1 + e^-x)`. */
export class Sigmoid extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.sigmoid(x);
  }
}

/** Hyperbolic tangent. */
export class Tanh extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.tanh(x);
  }
}

/** `log(sigmoid(x))` without underflow. */
export class LogSigmoid extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.logSigmoid(x);
  }
}

/** `log(1 + e^(beta x)) / beta`; the identity where `beta * x > threshold`. */
export class Softplus extends Module {
  /** Sharpness. */
  readonly beta: number;
  /** Where the identity begins. */
  readonly threshold: number;

  /**
   * Makes the module.
   *
   * @param beta Sharpness. Default `1`.
   * @param threshold Where the identity begins. Default `20`.
   */
  constructor(beta = 1, threshold = 20) {
    super();
    this.beta = beta;
    this.threshold = threshold;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.softplus(x, this.beta, this.threshold);
  }
  /** The settings. */
  override extraRepr(): string {
    return `beta=${this.beta}, threshold=${this.threshold}`;
  }
}

/** `x / (1 + |x|)`. */
export class Softsign extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.softsign(x);
  }
}

/** `x` limited to `[min, max]`; the derivative at the bounds is 0. */
export class Hardtanh extends Module {
  /** Lower bound. */
  readonly min: number;
  /** Upper bound. */
  readonly max: number;

  /**
   * Makes the module.
   *
   * @param min Lower bound. Default `-1`.
   * @param max Upper bound. Default `1`.
   */
  constructor(min = -1, max = 1) {
    super();
    this.min = min;
    this.max = max;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.hardtanh(x, this.min, this.max);
  }
  /** The settings. */
  override extraRepr(): string {
    return `min=${this.min}, max=${this.max}`;
  }
}

/** `x / 6 + 1/2` limited to `[0, 1]`. */
export class Hardsigmoid extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.hardsigmoid(x);
  }
}

/** `x * hardsigmoid(x)`. */
export class Hardswish extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.hardswish(x);
  }
}

/** `x - tanh(x)`. */
export class Tanhshrink extends Module {
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.tanhshrink(x);
  }
}

/** `x` moved towards 0 by `lambda`, 0 within it. */
export class Softshrink extends Module {
  /** How far. */
  readonly lambda: number;

  /**
   * Makes the module.
   *
   * @param lambda How far. Default `0.5`.
   */
  constructor(lambda = 0.5) {
    super();
    this.lambda = lambda;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.softshrink(x, this.lambda);
  }
  /** The settings. */
  override extraRepr(): string {
    return `lambda=${this.lambda}`;
  }
}

/** `x` where `|x| > lambda`, else 0. */
export class Hardshrink extends Module {
  /** What is cut off. */
  readonly lambda: number;

  /**
   * Makes the module.
   *
   * @param lambda What is cut off. Default `0.5`.
   */
  constructor(lambda = 0.5) {
    super();
    this.lambda = lambda;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.hardshrink(x, this.lambda);
  }
  /** The settings. */
  override extraRepr(): string {
    return `lambda=${this.lambda}`;
  }
}

/** Gaussian error linear unit (Hendrycks and Gimpel 2016): `x * P(X <= x)` for a standard normal `X`. */
export class GELU extends Module {
  /** `"tanh"` for the approximation. */
  readonly approximate: "none" | "tanh";

  /**
   * Makes the module.
   *
   * @param options.approximate `"tanh"` for `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`. Default `"none"`.
   */
  constructor(options?: { approximate?: "none" | "tanh" }) {
    super();
    this.approximate = options?.approximate ?? "none";
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.gelu(x, { approximate: this.approximate });
  }
  /** The settings. */
  override extraRepr(): string {
    return `approximate="${this.approximate}"`;
  }
}

/** `x` where `x > threshold`, else `value`. */
export class Threshold extends Module {
  /** What `x` must exceed. */
  readonly threshold: number;
  /** What stands for the others. */
  readonly value: number;

  /**
   * Makes the module.
   *
   * @param threshold What `x` must exceed.
   * @param value What stands for the others.
   */
  constructor(threshold: number, value: number) {
    super();
    this.threshold = threshold;
    this.value = value;
  }
  /** Applies the function, element by element. */
  override forward(x: Tensor): Tensor {
    return ops.threshold(x, this.threshold, this.value);
  }
  /** The settings. */
  override extraRepr(): string {
    return `threshold=${this.threshold}, value=${this.value}`;
  }
}

markTransient(
  ReLU,
  ReLU6,
  LeakyReLU,
  ELU,
  SELU,
  CELU,
  SiLU,
  Mish,
  Sigmoid,
  Tanh,
  LogSigmoid,
  Softplus,
  Softsign,
  Hardtanh,
  Hardsigmoid,
  Hardswish,
  Tanhshrink,
  Softshrink,
  Hardshrink,
  GELU,
  Threshold,
);
