/**
 * Gradient clipping, in place.
 *
 * @module
 */
import { noGrad } from "../autograd/functional.ts";
import { clamp_, fill_, mul_, zeros } from "../ops/mod.ts";
import { Tensor } from "../tensor/tensor.ts";
import { fused } from "./optimizer.ts";

const CALL = 4095; // gradients that one native call takes

function gradients(params: Tensor | Iterable<Tensor>): Tensor[] {
  const list = params instanceof Tensor ? [params] : [...params];
  return list.map((p) => p.grad).filter((grad) => grad !== null);
}

/**
 * Scales the gradients of all parameters so that their common norm is at most `maxNorm`: `g *= min(1, maxNorm / (total + 1e-6))`.
 *
 * The norm is taken over all elements together, summed in float64 in fixed blocks: the same on any number of threads.
 *
 * @param params Parameters; those without a gradient are passed over.
 * @param maxNorm Largest norm, 0 or more. `Infinity` only measures.
 * @param options.normType Which norm: a positive number, `Infinity` for the largest magnitude. Default `2`.
 * @param options.errorIfNonfinite Refuse a norm that is infinite or NaN, before anything is scaled. Default `false`.
 * @returns The norm before clipping, a tensor without axes: float64 if the first gradient is, else float32.
 * @throws {RangeError} For a norm or limit out of range.
 *
 * @example
 * ```ts
 * import { optim, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals, assertEquals } from "@std/assert";
 * const w = tensor([1, 1], { requiresGrad: true });
 * w.mul(tensor([3, 4])).sum().backward();
 * assertEquals(optim.clipGradNorm([w], 1).item(), 5);
 * assertAlmostEquals(w.grad!.select(0, 0).item(), 0.6, 1e-6);
 * ```
 */
export function clipGradNorm(
  params: Tensor | Iterable<Tensor>,
  maxNorm: number,
  options?: { normType?: number; errorIfNonfinite?: boolean },
): Tensor {
  const grads = gradients(params), normType = options?.normType ?? 2;
  if (!(maxNorm >= 0)) throw new RangeError(`clipGradNorm: maxNorm must be 0 or more, got ${maxNorm}`);
  if (!(normType > 0)) throw new RangeError(`clipGradNorm: normType must be positive, got ${normType}`);
  const refuse = options?.errorIfNonfinite ?? false;
  const device = (grads[0] ?? (params instanceof Tensor ? params : [...params][0]))?.device;
  const total = zeros([], { dtype: grads[0]?.dtype === "float64" ? "float64" : "float32", device });
  const run = (part: readonly Tensor[], limit: number, strict: boolean) =>
    fused(
      total.device,
      part,
      1,
      total,
      (library, t, lead, first, count) => library.dg_clip_norm(t, lead, first, count, limit, normType, strict ? 1 : 0),
    );
  if (grads.length <= CALL) {
    run(grads, maxNorm, refuse);
  } else {
    clipInParts(grads, total, maxNorm, normType, refuse, (part) => run(part, Infinity, false));
  }
  for (const grad of grads) grad.storage.version++;
  return total;
}

/** More gradients than a call takes: the parts' norms are joined, then all are scaled. */
function clipInParts(
  grads: readonly Tensor[],
  total: Tensor,
  maxNorm: number,
  normType: number,
  refuse: boolean,
  measure: (part: readonly Tensor[]) => void,
): void {
  let joined = 0;
  for (let start = 0; start < grads.length; start += CALL) {
    measure(grads.slice(start, start + CALL));
    const norm = total.item();
    joined = normType === Infinity ? Math.max(joined, norm) : joined + norm ** normType;
  }
  if (normType !== Infinity) joined **= 1 / normType;
  if (refuse && !Number.isFinite(joined)) {
    throw new RangeError(`clipGradNorm: the total norm of the gradients is ${joined}, so they cannot be clipped`);
  }
  const factor = maxNorm / (joined + 1e-6);
  noGrad(() => {
    fill_(total, joined);
    if (!(factor >= 1)) { for (const grad of grads) mul_(grad, factor); }
  });
}

/**
 * Limits each element of the gradients to `[-clipValue, clipValue]`.
 *
 * @throws {RangeError} If `clipValue` is negative or NaN.
 */
export function clipGradValue(params: Tensor | Iterable<Tensor>, clipValue: number): void {
  if (!(clipValue >= 0)) throw new RangeError(`clipGradValue: clipValue must be 0 or more, got ${clipValue}`);
  noGrad(() => gradients(params).forEach((grad) => clamp_(grad, -clipValue, clipValue)));
}
