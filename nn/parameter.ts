/**
 * Parameters: the tensors that a module learns.
 *
 * @module
 */
import type { TensorOptions } from "../ops/mod.ts";
import { Tensor } from "../tensor/tensor.ts";

/** Where a layer's parameters are made, and of which dtype. */
export type Placement = Pick<TensorOptions, "dtype" | "device">;

/**
 * A leaf tensor that a module owns and an optimiser changes. No scope frees it; `Module.dispose()` or its own `dispose()` does.
 *
 * It shares the memory of the tensor it is made from, as in PyTorch.
 *
 * @example
 * ```ts
 * import { nn, zeros } from "@dinograd/dinograd";
 * import { assert } from "@std/assert";
 * const weight = new nn.Parameter(zeros([2, 3]));
 * assert(weight.requiresGrad && weight.isLeaf && weight.kept);
 * ```
 */
export class Parameter extends Tensor {
  /**
   * Makes the parameter.
   *
   * @param data The initial value; a floating-point tensor if it is to be learnt.
   * @param requiresGrad Record operations on it. Default `true`.
   * @throws {AutogradError} If a gradient is asked for and the dtype is not floating-point.
   */
  constructor(data: Tensor, requiresGrad = true) {
    data.checkAlive("Parameter");
    super(data.storage, data.shape, data.strides, data.offset, data.dtype);
    this.kept = true;
    if (requiresGrad) this.requiresGrad_();
  }

  /** A parameter of a fresh tensor, whose own handle is let go. */
  static take(data: Tensor, requiresGrad = true): Parameter {
    const parameter = new Parameter(data, requiresGrad);
    data.dispose();
    return parameter;
  }
}
