/**
 * Activation functions.
 *
 * Each derivative is one fused kernel; when backward itself is recorded (`createGraph`), the same derivative is composed of
 * differentiable operations, which is also the kernel's oracle in the tests.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ActivationOp } from "../ffi/op_codes.ts";
import { context } from "../tensor/context.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { binaryKernel, rdiv, rsub, where } from "./binary.ts";
import { checkFloat, checkTensor, emptyLike, native, overGradient } from "./native.ts";
import { erf, exp, neg } from "./unary.ts";

type Name = keyof typeof ActivationOp;

/** Runs an activation kernel into a new tensor, or into `out`. */
export function activationKernel(x: Tensor, op: Name, a = 0, b = 0, out: Tensor = emptyLike(x)): Tensor {
  native(x.device, (lib, f) => lib.dg_activation(f.pointer, f.put(out), f.put(x), ActivationOp[op], a, b));
  return out;
}

function activation(name: string, op: Name, x: Tensor, slope: (x: Tensor) => Tensor, a = 0, b = 0): Tensor {
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  return record(name, [x], activationKernel(x, op, a, b), [x], (grad, [input]) => {
    if (context().grad) return [grad.mul(slope(input))];
    const dx = overGradient(grad, input);
    native(input.device, (lib, f) => lib.dg_activation_backward(f.pointer, f.put(dx), f.put(grad), f.put(input), ActivationOp[op], a, b));
    return [dx];
  });
}

function mask(condition: Tensor, like: Tensor): Tensor {
  return condition.to(like.dtype);
}

/** `max(x, 0)`; the derivative at 0 is 0. */
export function relu(x: Tensor): Tensor {
  return activation("relu", "relu", x, (v) => mask(v.gt(0), v));
}

/** `x` for `x > 0`, else `negativeSlope * x`. */
export function leakyRelu(x: Tensor, negativeSlope = 0.01): Tensor {
  return activation("leakyRelu", "leaky_relu", x, (v) => where(v.gt(0), v.mul(0).add(1), negativeSlope), negativeSlope);
}

/** `x` for `x > 0`, else `alpha * (e^x - 1)`. */
export function elu(x: Tensor, alpha = 1): Tensor {
  return activation("elu", "elu", x, (v) => where(v.gt(0), v.mul(0).add(1), exp(v.clamp(null, 0)).mul(alpha)), alpha);
}

const SELU_ALPHA = 1.6732632423543772, SELU_SCALE = 1.0507009873554805;

/** Self-normalising ELU (Klambauer et al. 2017): scale 1.0507, alpha 1.6733. */
export function selu(x: Tensor): Tensor {
  return activation("selu", "selu", x, (v) => where(v.gt(0), v.mul(0).add(SELU_SCALE), exp(v.clamp(null, 0)).mul(SELU_ALPHA * SELU_SCALE)));
}

/** `max(x, 0) + min(0, alpha * (e^(x / alpha) - 1))`. @throws {RangeError} If `alpha` is 0. */
export function celu(x: Tensor, alpha = 1): Tensor {
  if (alpha === 0) throw new RangeError("celu: alpha must not be 0");
  return activation("celu", "celu", x, (v) => where(v.gt(0), v.mul(0).add(1), exp(v.clamp(null, 0).div(alpha))), alpha);
}

/**
 * Gaussian error linear unit (Hendrycks and Gimpel 2016): `x * P(X <= x)` for a standard normal `X`.
 *
 * @param options.approximate `"tanh"` for the approximation `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`. Default `"none"`.
 */
export function gelu(x: Tensor, options?: { approximate?: "none" | "tanh" }): Tensor {
  const approximate = options?.approximate ?? "none";
  if (approximate === "tanh") {
    const a = Math.sqrt(2 / Math.PI), b = 0.044715;
    return activation("gelu", "gelu_tanh", x, (v) => {
      const t = v.mul(v).mul(b).add(1).mul(v).mul(a).tanh();
      const inner = v.mul(v).mul(3 * b).add(1).mul(a);
      return t.add(1).mul(0.5).add(v.mul(0.5).mul(rsub(t.mul(t), 1)).mul(inner));
    });
  }
  if (approximate !== "none") throw new RangeError(`gelu: approximate must be "none" or "tanh", got ${JSON.stringify(approximate)}`);
  return activation("gelu", "gelu", x, (v) => {
    const density = exp(v.mul(v).mul(-0.5)).mul(1 / Math.sqrt(2 * Math.PI));
    return erf(v.mul(Math.SQRT1_2)).add(1).mul(0.5).add(v.mul(density));
  });
}

/** `x * sigmoid(x)`, also called swish. */
export function silu(x: Tensor): Tensor {
  return activation("silu", "silu", x, (v) => {
    const s = sigmoid(v);
    return s.mul(v.mul(rsub(s, 1)).add(1));
  });
}

/** `x * tanh(softplus(x))`. */
export function mish(x: Tensor): Tensor {
  return activation("mish", "mish", x, (v) => {
    const t = softplus(v).tanh();
    return t.add(v.mul(sigmoid(v)).mul(rsub(t.mul(t), 1)));
  });
}

/** `1 / (1 + e^-x)`. */
export function sigmoid(x: Tensor): Tensor {
  checkTensor(x, "sigmoid", "the input");
  checkFloat(x, "sigmoid");
  const y = activationKernel(x, "sigmoid");
  return record("sigmoid", [x], y, [y], (grad, [y]) => [
    context().grad ? grad.mul(y.mul(rsub(y, 1))) : binaryKernel(grad, y, "sigmoid_backward", 1, overGradient(grad, y)),
  ]);
}

/** `log(sigmoid(x))` without underflow. */
export function logSigmoid(x: Tensor): Tensor {
  return activation("logSigmoid", "log_sigmoid", x, (v) => sigmoid(neg(v)));
}

/** `log(1 + e^(beta x)) / beta`; the identity where `beta * x > threshold`. */
export function softplus(x: Tensor, beta = 1, threshold = 20): Tensor {
  return activation(
    "softplus",
    "softplus",
    x,
    (v) => where(v.mul(beta).gt(threshold), v.mul(0).add(1), sigmoid(v.mul(beta))),
    beta,
    threshold,
  );
}

/** `x / (1 + |x|)`. */
export function softsign(x: Tensor): Tensor {
  return activation("softsign", "softsign", x, (v) => {
    const d = v.abs().add(1);
    return rdiv(d.mul(d), 1);
  });
}

/** `x` limited to `[min, max]`; the derivative at the bounds is 0. @throws {RangeError} If `min >= max`. */
export function hardtanh(x: Tensor, min = -1, max = 1): Tensor {
  if (!(min < max)) throw new RangeError(`hardtanh: min must be less than max, got ${min} and ${max}`);
  return activation("hardtanh", "hardtanh", x, (v) => mask(v.gt(min).logicalAnd(v.lt(max)), v), min, max);
}

/** `x` limited to `[0, 6]`. */
export function relu6(x: Tensor): Tensor {
  return hardtanh(x, 0, 6);
}

/** `x / 6 + 1/2` limited to `[0, 1]`. */
export function hardsigmoid(x: Tensor): Tensor {
  return activation("hardsigmoid", "hardsigmoid", x, (v) => mask(v.gt(-3).logicalAnd(v.lt(3)), v).div(6));
}

/** `x * hardsigmoid(x)`. */
export function hardswish(x: Tensor): Tensor {
  return activation("hardswish", "hardswish", x, (v) => where(v.le(-3), 0, where(v.lt(3), v.div(3).add(0.5), 1)));
}

/** `x - tanh(x)`. */
export function tanhshrink(x: Tensor): Tensor {
  return activation("tanhshrink", "tanhshrink", x, (v) => {
    const t = v.tanh();
    return t.mul(t);
  });
}

/** `x` moved towards 0 by `lambda`, 0 within it. @throws {RangeError} If `lambda` is negative. */
export function softshrink(x: Tensor, lambda = 0.5): Tensor {
  if (!(lambda >= 0)) throw new RangeError(`softshrink: lambda must be >= 0, got ${lambda}`);
  return activation("softshrink", "softshrink", x, (v) => mask(v.abs().gt(lambda), v), lambda);
}

/** `x` where `|x| > lambda`, else 0. */
export function hardshrink(x: Tensor, lambda = 0.5): Tensor {
  return activation("hardshrink", "hardshrink", x, (v) => mask(v.abs().gt(lambda), v), lambda);
}

/** `x` where `x > threshold`, else `value`. */
export function threshold(x: Tensor, threshold: number, value: number): Tensor {
  return activation("threshold", "threshold", x, (v) => mask(v.gt(threshold), v), threshold, value);
}
