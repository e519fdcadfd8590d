/**
 * Adam and AdamW.
 *
 * @module
 */
import type { Tensor } from "../tensor/tensor.ts";
import { checkOption, type GroupOptions, Optimizer, type ParamGroup, type Params } from "./optimizer.ts";

/** Options of {@linkcode Adam} and {@linkcode AdamW}. */
export interface AdamOptions extends GroupOptions {
  /** Decay of the running means of the gradient and of its square. */
  betas: readonly [number, number];
  /** Added to the denominator. */
  eps: number;
  /** Use the largest mean square so far. */
  amsgrad: boolean;
}

interface Moments {
  step: number;
  exp_avg: Tensor;
  exp_avg_sq: Tensor;
  max_exp_avg_sq?: Tensor;
}

/**
 * Adam (Kingma and Ba 2015), with the weight decay in the gradient and so in both moments.
 *
 * With `g` the gradient (negated to maximise) plus `weightDecay * p`: `m = b1 * m + (1 - b1) * g`, `v = b2 * v + (1 - b2) * g^2`,
 * `p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`; with `amsgrad` the largest `v` so far takes the place of `v`.
 *
 * Defaults: `lr` 0.001, `betas` [0.9, 0.999], `eps` 1e-8, `weightDecay` 0, `amsgrad` false, `maximize` false. State: `step`, `exp_avg`, `exp_avg_sq`
 * and with `amsgrad` `max_exp_avg_sq`.
 *
 * @example
 * ```ts
 * import { optim, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const w = tensor([1], { requiresGrad: true });
 * using optimizer = new optim.Adam([w], { lr: 0.1 });
 * w.mul(w).sum().backward();
 * optimizer.step();
 * assertAlmostEquals(w.item(), 0.9, 1e-6);
 * ```
 */
export class Adam extends Optimizer<AdamOptions> {
  /**
   * Takes parameters and options.
   *
   * @param params Parameters, or groups of them.
   * @param options Options of groups that do not set their own.
   * @throws {RangeError} For an option out of range.
   */
  constructor(params: Params<AdamOptions>, options?: Partial<AdamOptions>) {
    super(params, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, amsgrad: false, maximize: false, ...options });
  }

  /** True when the decay is applied to the weight, apart from the moments. */
  protected get decoupled(): boolean {
    return false;
  }

  /** Refuses options out of range. */
  protected override checkOptions(group: ParamGroup<AdamOptions>): void {
    checkOption(this.name, "lr", group.lr);
    checkOption(this.name, "eps", group.eps);
    checkOption(this.name, "weightDecay", group.weightDecay);
    if (!Array.isArray(group.betas) || group.betas.length !== 2) {
      throw new RangeError(`${this.name}: betas must be two numbers, got ${JSON.stringify(group.betas)}`);
    }
    group.betas.forEach((beta, i) => checkOption(this.name, `betas[${i}]`, beta, 0, 1));
  }

  #momentsOf(p: Tensor, amsgrad: boolean): Moments {
    let state = this.state.get(p) as unknown as Moments | undefined;
    if (state === undefined) {
      state = { step: 0, exp_avg: this.stateTensor(p), exp_avg_sq: this.stateTensor(p) };
      this.state.set(p, state as unknown as Record<string, Tensor | number>);
    }
    if (amsgrad) state.max_exp_avg_sq ??= this.stateTensor(p);
    return state;
  }

  /** Updates the parameters of a group that have a gradient. */
  protected override update(group: ParamGroup<AdamOptions>): void {
    const { amsgrad } = group;
    let step = 0, together: Moments[] = [];
    const flush = () => {
      const states = together;
      together = [];
      // Read again by a recorded step: counts that have come apart are another one.
      this.flush(amsgrad ? 5 : 4, (lib, t, first, count) =>
        states.some((it) => it.step !== states[0].step) ? 0 : lib.dg_adam(
          t,
          first,
          count,
          group.amsgrad ? 1 : 0,
          group.lr,
          group.betas[0],
          group.betas[1],
          group.eps,
          group.weightDecay,
          this.decoupled ? 1 : 0,
          group.maximize ? 1 : 0,
          states[0].step,
        ), 10);
    };
    for (const p of group.params) {
      if (p.grad === null) continue;
      const moments = this.#momentsOf(p, amsgrad), next = moments.step + 1;
      if (next !== step || this.apart(p)) {
        flush();
        step = next;
      }
      if (amsgrad) this.push(p, moments.exp_avg, moments.exp_avg_sq, moments.max_exp_avg_sq!);
      else this.push(p, moments.exp_avg, moments.exp_avg_sq);
      this.countStep(moments);
      together.push(moments);
    }
    flush();
  }
}

/**
 * Adam with decoupled weight decay (Loshchilov and Hutter 2019): `p *= 1 - lr * weightDecay` before Adam's step, the moments see the
 * gradient alone.
 *
 * Defaults: those of {@linkcode Adam} but `weightDecay` 0.01.
 *
 * @example
 * ```ts
 * import { optim, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const w = tensor([1], { requiresGrad: true });
 * using optimizer = new optim.AdamW([w], { lr: 0.1, weightDecay: 0.5 });
 * w.mul(w).sum().backward();
 * optimizer.step();
 * assertAlmostEquals(w.item(), 0.95 - 0.1, 1e-6);
 * ```
 */
export class AdamW extends Adam {
  /**
   * Takes parameters and options.
   *
   * @param params Parameters, or groups of them.
   * @param options Options of groups that do not set their own.
   * @throws {RangeError} For an option out of range.
   */
  constructor(params: Params<AdamOptions>, options?: Partial<AdamOptions>) {
    super(params, { weightDecay: 1e-2, ...options });
  }

  /** The decay is applied to the weight, apart from the moments. */
  protected override get decoupled(): boolean {
    return true;
  }
}
