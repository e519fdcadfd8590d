/**
 * Fully connected layers.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { kaimingUniform_, uniform_ } from "./init.ts";
import { checkSize, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

/**
 * `y = x W^T + b`.
 *
 * Parameters: `weight` `[outFeatures, inFeatures]` and `bias` `[outFeatures]`, both uniform in `±1 / sqrt(inFeatures)`.
 *
 * Shapes: `[..., inFeatures]` to `[..., outFeatures]`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using layer = new nn.Linear(20, 30);
 * assertEquals(layer.call(ones([128, 20])).shape, [128, 30]);
 * ```
 */
export class Linear extends Module {
  /** Size of the last axis of the input. */
  readonly inFeatures: number;
  /** Size of the last axis of the output. */
  readonly outFeatures: number;
  /** `[outFeatures, inFeatures]`. */
  weight: Parameter;
  /** `[outFeatures]`, or `null`. */
  bias: Parameter | null;

  /**
   * Makes the module.
   *
   * @param inFeatures Size of the last axis of the input.
   * @param outFeatures Size of the last axis of the output.
   * @param options.bias Add a learnt bias. Default `true`.
   */
  constructor(inFeatures: number, outFeatures: number, options?: Placement & { bias?: boolean }) {
    super();
    checkSize(inFeatures, "inFeatures", "Linear");
    checkSize(outFeatures, "outFeatures", "Linear");
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
    const { bias = true, dtype, device } = options ?? {};
    this.weight = Parameter.take(ops.empty([outFeatures, inFeatures], { dtype, device }));
    this.bias = bias ? Parameter.take(ops.empty([outFeatures], { dtype, device })) : null;
    this.resetParameters();
  }
  /** Draws new initial values. */
  resetParameters(): void {
    kaimingUniform_(this.weight, { a: Math.sqrt(5) });
    const bound = 1 / Math.sqrt(this.inFeatures);
    if (this.bias !== null) uniform_(this.bias, -bound, bound);
  }
  /** `x W^T + b`. */
  override forward(x: Tensor): Tensor {
    return ops.linear(x, this.weight, this.bias);
  }
  /**
   * The layer, then the activation in the memory of its result, as one step of the graph. Used inside `Sequential` by itself; with hooks on this layer, or a
   * subclass's own `forward`, the steps are done one after the other.
   */
  fused(x: Tensor, options: ops.ActivationOptions): Tensor {
    if (!this.hasHooks && this.forward === Linear.prototype.forward) return ops.linear(x, this.weight, this.bias, options);
    return ops.activate((this as Linear).call(x), options);
  }
  /** The settings. */
  override extraRepr(): string {
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}`;
  }
}

/**
 * `y[k] = x1^T W[k] x2 + b[k]`.
 *
 * Parameters: `weight` `[outFeatures, in1Features, in2Features]` and `bias` `[outFeatures]`, both uniform in `±1 / sqrt(in1Features)`.
 *
 * Shapes: `[..., in1Features]` and `[..., in2Features]` to `[..., outFeatures]`.
 */
export class Bilinear extends Module {
  /** Size of the last axis of the first input. */
  readonly in1Features: number;
  /** Size of the last axis of the second input. */
  readonly in2Features: number;
  /** Size of the last axis of the output. */
  readonly outFeatures: number;
  /** `[outFeatures, in1Features, in2Features]`. */
  weight: Parameter;
  /** `[outFeatures]`, or `null`. */
  bias: Parameter | null;

  /**
   * Makes the module.
   *
   * @param in1Features Size of the last axis of the first input.
   * @param in2Features Size of the last axis of the second input.
   * @param outFeatures Size of the last axis of the output.
   * @param options.bias Add a learnt bias. Default `true`.
   */
  constructor(in1Features: number, in2Features: number, outFeatures: number, options?: Placement & { bias?: boolean }) {
    super();
    checkSize(in1Features, "in1Features", "Bilinear");
    checkSize(in2Features, "in2Features", "Bilinear");
    checkSize(outFeatures, "outFeatures", "Bilinear");
    this.in1Features = in1Features;
    this.in2Features = in2Features;
    this.outFeatures = outFeatures;
    const { bias = true, dtype, device } = options ?? {};
    this.weight = Parameter.take(ops.empty([outFeatures, in1Features, in2Features], { dtype, device }));
    this.bias = bias ? Parameter.take(ops.empty([outFeatures], { dtype, device })) : null;
    this.resetParameters();
  }
  /** Draws new initial values. */
  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.in1Features);
    uniform_(this.weight, -bound, bound);
    if (this.bias !== null) uniform_(this.bias, -bound, bound);
  }
  /** `x1^T W x2 + b`. */
  override forward(x1: Tensor, x2: Tensor): Tensor {
    return ops.bilinear(x1, x2, this.weight, this.bias);
  }
  /** The settings. */
  override extraRepr(): string {
    const { in1Features, in2Features, outFeatures } = this;
    return `in1Features=${in1Features}, in2Features=${in2Features}, outFeatures=${outFeatures}, bias=${this.bias !== null}`;
  }
}

markTransient(Linear);
