/** Comparisons of tensors and modules. */
import { assert } from "@std/assert";
import { type nn, noGrad, scope, type Tensor } from "../../mod.ts";

/** No element may differ by more than `tolerance`. */
export function close(a: Tensor | null, b: Tensor | null, tolerance: number, what: string): void {
  assert(a !== null && b !== null, what);
  const difference = scope(() => noGrad(() => a.sub(b).abs().max().item()));
  assert(difference <= tolerance, `${what}: differs by ${difference}`);
}

/** No parameter may differ by more than `tolerance`. */
export function same(model: nn.Module, other: nn.Module, tolerance: number, what: string): void {
  const others = [...other.parameters()];
  [...model.namedParameters()].forEach(([name, p], i) => close(p, others[i], tolerance, `${what}: ${name}`));
}
