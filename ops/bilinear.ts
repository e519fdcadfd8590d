/**
 * The bilinear map of two inputs.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import { sameShape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { add } from "./binary.ts";
import { matmul } from "./matmul.ts";
import { checkTensor } from "./native.ts";
import { permute, reshape, unsqueeze } from "./view.ts";

/**
 * `y[..., k] = sum over i, j of x1[..., i] W[k, i, j] x2[..., j] + b[k]`.
 *
 * @param x1 `[..., I]`.
 * @param x2 `[..., J]`, the same leading sizes.
 * @param weight `[K, I, J]`.
 * @param bias `[K]`, or `null` for none. Default `null`.
 * @returns `[..., K]`.
 * @throws {ShapeError} If the sizes do not fit.
 */
export function bilinear(x1: Tensor, x2: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  checkTensor(x1, "bilinear", "the first input");
  checkTensor(x2, "bilinear", "the second input", x1);
  checkTensor(weight, "bilinear", "the weight", x1);
  if (bias !== null) checkTensor(bias, "bilinear", "the bias", x1);
  const lead = x1.shape.slice(0, -1), first = x1.shape.at(-1), second = x2.shape.at(-1);
  if (weight.rank !== 3 || weight.shape[1] !== first || weight.shape[2] !== second || !sameShape(lead, x2.shape.slice(0, -1))) {
    throw new ShapeError(
      `bilinear: inputs ${textOf(x1.shape)} and ${textOf(x2.shape)} with a weight ${textOf(weight.shape)}, ` +
        `expected [..., I], [..., J] and [K, I, J]`,
    );
  }
  const [K, I, J] = weight.shape;
  if (bias !== null && !sameShape(bias.shape, [K])) {
    throw new ShapeError(`bilinear: the bias has shape ${textOf(bias.shape)}, expected [${K}]`);
  }
  const rows = lead.reduce((n, size) => n * size, 1);
  using left = reshape(x1, [rows, I]);
  using right = reshape(x2, [rows, J]);
  using ordered = permute(weight, [1, 0, 2]);
  using flat = reshape(ordered, [I, K * J]);
  using partial = matmul(left, flat);
  using matrices = reshape(partial, [rows, K, J]);
  using column = unsqueeze(right, -1);
  using product = matmul(matrices, column);
  const y = reshape(product, [...lead, K]);
  if (bias === null) return y;
  using summand = y;
  return add(summand, bias);
}
