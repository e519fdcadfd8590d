/**
 * Helpers for the parameters of a module.
 *
 * @module
 */
import { noGrad } from "../autograd/functional.ts";
import { ShapeError } from "../ffi/errors.ts";
import { cat, narrow, reshape } from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Parameters one after the other as one vector; differentiable.
 *
 * @example
 * ```ts
 * import { nn } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using layer = new nn.Linear(3, 2);
 * assertEquals(nn.utils.parametersToVector(layer.parameters()).shape, [8]);
 * ```
 */
export function parametersToVector(parameters: Iterable<Tensor>): Tensor {
  const flat = [...parameters].map((parameter) => reshape(parameter, [-1]));
  const vector = cat(flat);
  for (const part of flat) part.dispose();
  return vector;
}

/**
 * Writes a vector's elements into parameters, in their order.
 *
 * @throws {ShapeError} If the vector does not have as many elements as the parameters.
 */
export function vectorToParameters(vector: Tensor, parameters: Iterable<Tensor>): void {
  const all = [...parameters], total = all.reduce((sum, parameter) => sum + parameter.numel(), 0);
  if (vector.rank !== 1 || vector.numel() !== total) {
    throw new ShapeError(`vectorToParameters: expected a vector of ${total} elements, got shape [${vector.shape.join(", ")}]`);
  }
  noGrad(() => {
    let at = 0;
    for (const parameter of all) {
      using part = narrow(vector, 0, at, parameter.numel());
      using shaped = reshape(part, parameter.shape);
      parameter.copy_(shaped);
      at += parameter.numel();
    }
  });
}
