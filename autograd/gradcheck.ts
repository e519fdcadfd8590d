/**
 * Checking derivatives against central differences.
 *
 * @module
 */
import { AutogradError, DTypeError } from "../ffi/errors.ts";
import { scope } from "../tensor/scope.ts";
import { textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { grad } from "./functional.ts";

/** How strict {@linkcode gradcheck} is. */
export interface GradcheckOptions {
  /** Step of the differences. Default `1e-6`. */
  eps?: number;
  /** Absolute tolerance. Default `1e-5`. */
  atol?: number;
  /** Relative tolerance. Default `1e-3`. */
  rtol?: number;
}

/**
 * Compares the derivatives of `fn` with central differences, element by element, each output weighted by fixed pseudo-random numbers (never only summed).
 *
 * @param fn From the inputs to a tensor or several.
 * @param inputs float64 leaves; those that require a gradient are checked.
 * @throws {AutogradError} Naming the first element that differs.
 *
 * @example
 * ```ts
 * import { gradcheck, tensor } from "@dinograd/dinograd";
 * const x = tensor([0.5, -2], { dtype: "float64", requiresGrad: true });
 * gradcheck((x) => x.sin().mul(x), [x]);
 * ```
 */
export function gradcheck(
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options?: GradcheckOptions,
): void {
  const { eps = 1e-6, atol = 1e-5, rtol = 1e-3 } = options ?? {};
  const checked = inputs.filter((x) => x.requiresGrad);
  for (const x of checked) if (x.dtype !== "float64") throw new DTypeError(`gradcheck: inputs must be float64, got ${x.dtype}`);
  scope(() => {
    const weighted = (): Tensor => {
      const result = fn(...inputs);
      const outputs = (result instanceof Tensor ? [result] : result).filter((y) => y.isFloat);
      if (outputs.length === 0) throw new AutogradError("gradcheck: the function returned no floating point tensor");
      return outputs.map((y, k) => y.to("float64").mul(weights(y, k)).sum()).reduce((a, b) => a.add(b));
    };
    const analytic = grad(weighted(), checked, { allowUnused: true });
    checked.forEach((x, which) => {
      const expected = analytic[which]?.contiguous().data() ?? new Float64Array(x.numel());
      for (let i = 0; i < x.numel(); i++) {
        const numeric = scope(() => (at(x, i, eps, weighted) - at(x, i, -eps, weighted)) / (2 * eps));
        const difference = Math.abs(Number(expected[i]) - numeric);
        if (!(difference <= atol + rtol * Math.abs(numeric))) {
          throw new AutogradError(
            `gradcheck: element ${i} of input ${inputs.indexOf(x)} ${textOf(x.shape)}: backward gives ${
              expected[i]
            }, differences give ${numeric}`,
          );
        }
      }
    });
  });
}

/** The weighted output with element `i` of `x` moved by `step`. */
function at(x: Tensor, i: number, step: number, weighted: () => Tensor): number {
  const element = elementOf(x, i);
  const before = element.item();
  element.fill_(before + step);
  const value = weighted().item();
  element.fill_(before);
  x.storage.version -= 2; // as it was: graphs over x stay valid
  return value;
}

function elementOf(x: Tensor, i: number): Tensor {
  let rest = i, offset = x.offset;
  for (let axis = x.rank - 1; axis >= 0; axis--) {
    offset += (rest % x.shape[axis]) * x.strides[axis];
    rest = Math.floor(rest / x.shape[axis]);
  }
  return new Tensor(x.storage, [], [], offset, x.dtype);
}

/** Fixed weights between 0.25 and 1.25 without pattern. */
function weights(like: Tensor, salt: number): Tensor {
  const out = like.detach().to("float64").mul(0).contiguous();
  const flat = out.reshape([-1]);
  for (let i = 0; i < flat.shape[0]; i++) {
    elementOf(flat, i).fill_(0.25 + (((i + 1) * 7919 + salt * 104729) % 1009) / 1009);
  }
  return out;
}
