/**
 * Stochastic gradient descent.
 *
 * @module
 */
import type { Tensor } from "../tensor/tensor.ts";
import { checkOption, type GroupOptions, Optimizer, type ParamGroup, type Params } from "./optimizer.ts";

/** Options of {@linkcode SGD}. */
export interface SGDOptions extends GroupOptions {
  /** Factor of the previous change. */
  momentum: number;
  /** Part of the gradient kept out of the momentum. */
  dampening: number;
  /** Look ahead along the momentum. */
  nesterov: boolean;
}

/**
 * Stochastic gradient descent with momentum.
 *
 * With `g` the gradient (negated to maximise) plus `weightDecay * p`, `mu` the momentum and `d` the dampening: `b = mu * b + (1 - d) * g` (at first
 * `b = g`), then `p -= lr * b`, or with `nesterov` `p -= lr * (g + mu * b)`.
 *
 * Defaults: `lr` 0.001, `momentum` 0, `dampening` 0, `weightDecay` 0, `nesterov` false, `maximize` false. State: `momentum_buffer`.
 *
 * @example
 * ```ts
 * import { optim, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const w = tensor([1, 2], { requiresGrad: true });
 * const optimizer = new optim.SGD([w], { lr: 0.5 });
 * w.mul(w).sum().backward();
 * optimizer.step();
 * optimizer.zeroGrad();
 * assertEquals(w.tolist(), [0, 0]);
 * ```
 */
export class SGD extends Optimizer<SGDOptions> {
  /**
   * Takes parameters and options.
   *
   * @param params Parameters, or groups of them.
   * @param options Options of groups that do not set their own.
   * @throws {RangeError} For an option out of range; `nesterov` needs a momentum and no dampening.
   */
  constructor(params: Params<SGDOptions>, options?: Partial<SGDOptions>) {
    super(params, { lr: 1e-3, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false, ...options });
  }

  /** Refuses options out of range. */
  protected override checkOptions(group: ParamGroup<SGDOptions>): void {
    checkOption("SGD", "lr", group.lr);
    checkOption("SGD", "momentum", group.momentum);
    checkOption("SGD", "weightDecay", group.weightDecay);
    if (group.nesterov && (group.momentum <= 0 || group.dampening !== 0)) {
      throw new RangeError(`SGD: nesterov needs momentum > 0 and dampening 0, got ${group.momentum} and ${group.dampening}`);
    }
  }

  /** Updates the parameters of a group that have a gradient. */
  protected override update(group: ParamGroup<SGDOptions>): void {
    const buffered = group.momentum !== 0;
    let fresh = false;
    const flush = () => {
      const isFirst = fresh;
      this.flush(buffered ? 3 : 2, (lib, t, first, count) =>
        lib.dg_sgd(
          t,
          first,
          count,
          buffered ? 1 : 0,
          group.lr,
          group.momentum,
          group.dampening,
          group.weightDecay,
          group.nesterov ? 1 : 0,
          group.maximize ? 1 : 0,
          isFirst ? 1 : 0,
        ));
    };
    for (const p of group.params) {
      if (p.grad === null) continue;
      if (!buffered) {
        if (this.apart(p)) flush();
        this.push(p);
        continue;
      }
      const known = this.state.get(p)?.momentum_buffer as Tensor | undefined;
      if (fresh !== (known === undefined) || this.apart(p)) {
        flush();
        fresh = known === undefined;
      }
      const buffer = known ?? this.stateTensor(p);
      if (known === undefined) this.state.set(p, { momentum_buffer: buffer });
      this.push(p, buffer);
    }
    flush();
  }
}
