/**
 * Activations of more than one operand.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import { axisOf, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { sigmoid } from "./activation.ts";
import { mul, where } from "./binary.ts";
import { checkFloat, checkTensor } from "./native.ts";
import { narrow, reshape } from "./view.ts";

/**
 * `x` for `x > 0`, else `weight * x`; the derivative at 0 is `weight`.
 *
 * @param weight One slope, or one per channel (axis 1): shape `[1]` or `[C]`.
 * @throws {ShapeError} If there are neither one nor as many slopes as channels.
 */
export function prelu(x: Tensor, weight: Tensor): Tensor {
  checkTensor(x, "prelu", "the input");
  checkFloat(x, "prelu");
  checkTensor(weight, "prelu", "the weight", x);
  const channels = x.rank > 1 ? x.shape[1] : 1;
  if (weight.numel() !== 1 && (weight.rank !== 1 || weight.numel() !== channels)) {
    throw new ShapeError(
      `prelu: the weight has shape ${textOf(weight.shape)}, expected [1] or [${channels}] for an input ${textOf(x.shape)}`,
    );
  }
  const shape = weight.numel() === 1 ? new Array<number>(x.rank).fill(1) : x.shape.map((_, axis) => axis === 1 ? channels : 1);
  using slopes = reshape(weight, shape);
  using scaled = mul(x, slopes);
  using positive = x.gt(0);
  return where(positive, x, scaled);
}

/** Gated linear unit (Dauphin et al. 2016): the first half of axis `dim` times the sigmoid of the second. @throws {ShapeError} If its size is odd. */
export function glu(x: Tensor, dim = -1): Tensor {
  checkTensor(x, "glu", "the input");
  checkFloat(x, "glu");
  const axis = axisOf(dim, x.rank, "glu"), size = x.shape[axis] ?? 1;
  if (size % 2 !== 0) throw new ShapeError(`glu: axis ${dim} of ${textOf(x.shape)} must have an even size`);
  using value = narrow(x, axis, 0, size / 2);
  using control = narrow(x, axis, size / 2, size / 2);
  using gate = sigmoid(control);
  return mul(value, gate);
}
