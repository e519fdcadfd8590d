/**
 * Activations that a product or a convolution applies to its own result: no pass over fresh memory, no step of the graph.
 *
 * They are those whose derivative needs nothing but the result, so that what lies before the activation is never kept. Backward writes the
 * gradient before the activation over the one behind it, where nothing else sees that.
 *
 * @module
 */
import { ActivationOp } from "../ffi/op_codes.ts";
import { context } from "../tensor/context.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { activationKernel, leakyRelu, relu, sigmoid } from "./activation.ts";
import { binaryKernel, rsub, where } from "./binary.ts";
import { native, overGradient } from "./native.ts";
import { tanh, unaryKernel } from "./unary.ts";

/** What is applied to a result. */
export interface ActivationOptions {
  /** Applied to the result. Default: none. */
  activation?: "relu" | "leakyRelu" | "sigmoid" | "tanh" | null;
  /** Slope of `"leakyRelu"` below 0. Default `0.01`. */
  negativeSlope?: number;
}

/** An activation whose derivative follows from its result. */
export interface Finish {
  /** Which. */
  readonly op: "relu" | "leaky_relu" | "sigmoid" | "tanh";
  /** That of a leaky one below 0. */
  readonly slope: number;
}

/**
 * The activation to be applied in place; `null` for none.
 *
 * @throws {RangeError} If there is none of that name.
 */
export function finishOf(op: string, options: ActivationOptions | undefined): Finish | null {
  const activation = options?.activation ?? null;
  if (activation === null) return null;
  if (activation === "relu") return { op: "relu", slope: 0 };
  if (activation === "leakyRelu") return { op: "leaky_relu", slope: options!.negativeSlope ?? 0.01 };
  if (activation === "sigmoid" || activation === "tanh") return { op: activation, slope: 0 };
  throw new RangeError(`${op}: activation must be "relu", "leakyRelu", "sigmoid", "tanh" or null, got ${JSON.stringify(activation)}`);
}

/** False where the sign of the result does not tell that of what it was made from. */
export function inPlace({ slope }: Finish): boolean {
  return slope >= 0;
}

/** The activation as an operation of its own. */
function separate(x: Tensor, { op, slope }: Finish): Tensor {
  return op === "leaky_relu" ? leakyRelu(x, slope) : op === "relu" ? relu(x) : op === "tanh" ? tanh(x) : sigmoid(x);
}

/** The same of a result that nothing else needs. */
export function finished(x: Tensor, activation: Finish): Tensor {
  const y = separate(x, activation);
  x.dispose();
  return y;
}

/** Applies it to a result that nothing else has seen. */
export function finish(y: Tensor, { op, slope }: Finish): void {
  if (op === "tanh") unaryKernel(y, op, y);
  else activationKernel(y, op, slope, 0, y);
}

/** The derivative of operations that can be recorded. */
function composed(grad: Tensor, y: Tensor, { op, slope }: Finish): Tensor {
  switch (op) {
    case "relu":
      return where(y.le(0), 0, grad);
    case "leaky_relu":
      return where(y.gt(0), grad, grad.mul(slope));
    case "tanh":
      return grad.mul(rsub(y.mul(y), 1));
    case "sigmoid":
      return grad.mul(y.mul(rsub(y, 1)));
  }
  op satisfies never;
}

/** The gradient before the activation, from the result `y`: what a leaky or a plain relu was made from is positive exactly where `y` is. */
export function gradientBefore(grad: Tensor, y: Tensor, activation: Finish): Tensor {
  const { op, slope } = activation;
  if (context().grad) return composed(grad, y, activation);
  const dz = overGradient(grad, y);
  if (op === "tanh" || op === "sigmoid") return binaryKernel(grad, y, `${op}_backward`, 1, dz);
  native(y.device, (lib, f) => lib.dg_activation_backward(f.pointer, f.put(dz), f.put(grad), f.put(y), ActivationOp[op], slope, 0));
  return dz;
}

/** The activation that the options name, as an operation of its own; `x` for none. @throws {RangeError} If there is none of that name. */
export function activate(x: Tensor, options: ActivationOptions): Tensor {
  const activation = finishOf("activate", options);
  return activation === null ? x : separate(x, activation);
}
