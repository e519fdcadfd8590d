/**
 * Modules that only change the shape.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/** Returns its input. Arguments are taken and ignored, so that it can stand for any layer. */
export class Identity extends Module {
  /** Takes anything. */
  constructor(..._ignored: readonly unknown[]) {
    super();
  }
  /** The input itself. */
  override forward(x: Tensor): Tensor {
    return x;
  }
}

/**
 * Axes `startDim` to `endDim` merged into one; by default all but the batch.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(new nn.Flatten().call(ones([2, 3, 4])).shape, [2, 12]);
 * ```
 */
export class Flatten extends Module {
  /** First axis merged. */
  readonly startDim: number;
  /** Last axis merged. */
  readonly endDim: number;

  /**
   * Makes the module.
   *
   * @param startDim First axis merged. Default `1`.
   * @param endDim Last axis merged. Default `-1`, the last.
   */
  constructor(startDim = 1, endDim = -1) {
    super();
    this.startDim = startDim;
    this.endDim = endDim;
  }
  /** The input in its new shape. */
  override forward(x: Tensor): Tensor {
    return ops.flatten(x, this.startDim, this.endDim);
  }
  /** The settings. */
  override extraRepr(): string {
    return `startDim=${this.startDim}, endDim=${this.endDim}`;
  }
}

/** Axis `dim` split into axes of `sizes`; one size may be -1. */
export class Unflatten extends Module {
  /** The axis to split. */
  readonly dim: number;
  /** Sizes of the new axes. */
  readonly sizes: Shape;

  /**
   * Makes the module.
   *
   * @param dim The axis to split.
   * @param sizes Sizes of the new axes.
   */
  constructor(dim: number, sizes: Shape) {
    super();
    this.dim = dim;
    this.sizes = [...sizes];
  }
  /** The input in its new shape. */
  override forward(x: Tensor): Tensor {
    return ops.unflatten(x, this.dim, this.sizes);
  }
  /** The settings. */
  override extraRepr(): string {
    return `dim=${this.dim}, sizes=[${this.sizes.join(", ")}]`;
  }
}

markTransient(Identity, Flatten, Unflatten);
