/**
 * RMSprop and Adagrad.
 *
 * @module
 */
import { refuseInCapture } from "../tensor/capture.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkOption, type GroupOptions, Optimizer, type ParamGroup, type Params, type ParamState } from "./optimizer.ts";

/** Options of {@linkcode RMSprop}. */
export interface RMSpropOptions extends GroupOptions {
  /** Decay of the running means. */
  alpha: number;
  /** Added to the denominator. */
  eps: number;
  /** Factor of the previous change. */
  momentum: number;
  /** Subtract the squared mean: scale by the deviation. */
  centered: boolean;
}

/**
 * RMSprop (Hinton 2012): `v = alpha * v + (1 - alpha) * g^2`, `p -= lr * g / (sqrt(v) + eps)`, the change going through a momentum buffer if one is set; with
 * `centered` the variance `v - m^2` takes the place of `v`.
 *
 * Defaults: `lr` 0.01, `alpha` 0.99, `eps` 1e-8, `weightDecay` 0, `momentum` 0, `centered` false, `maximize` false. State: `step`, `square_avg`,
 * `grad_avg`, `momentum_buffer`.
 */
export class RMSprop extends Optimizer<RMSpropOptions> {
  /**
   * Takes parameters and options.
   *
   * @param params Parameters, or groups of them.
   * @param options Options of groups that do not set their own.
   * @throws {RangeError} For an option out of range.
   */
  constructor(params: Params<RMSpropOptions>, options?: Partial<RMSpropOptions>) {
    super(params, { lr: 1e-2, alpha: 0.99, eps: 1e-8, weightDecay: 0, momentum: 0, centered: false, maximize: false, ...options });
  }

  /** Refuses options out of range. */
  protected override checkOptions(group: ParamGroup<RMSpropOptions>): void {
    for (const name of ["lr", "alpha", "eps", "weightDecay", "momentum"] as const) checkOption("RMSprop", name, group[name]);
  }

  /** Updates the parameters of a group that have a gradient. */
  protected override update(group: ParamGroup<RMSpropOptions>): void {
    const { centered, momentum } = group, each = 3 + (centered ? 1 : 0) + (momentum > 0 ? 1 : 0);
    const flush = () =>
      this.flush(each, (lib, t, first, count) =>
        lib.dg_rmsprop(
          t,
          first,
          count,
          centered ? 1 : 0,
          group.lr,
          group.alpha,
          group.eps,
          group.weightDecay,
          group.momentum,
          group.maximize ? 1 : 0,
        ));
    for (const p of group.params) {
      if (p.grad === null) continue;
      if (this.apart(p)) flush();
      let state = this.state.get(p);
      if (state === undefined) this.state.set(p, state = { step: 0, square_avg: this.stateTensor(p) } as ParamState);
      const states = [state.square_avg];
      if (centered) states.push(state.grad_avg ??= this.stateTensor(p));
      if (momentum > 0) states.push(state.momentum_buffer ??= this.stateTensor(p));
      this.push(p, ...states as Tensor[]);
      this.countStep(state as { step: number });
    }
    flush();
  }
}

/** Options of {@linkcode Adagrad}. */
export interface AdagradOptions extends GroupOptions {
  /** Decay of the learning rate. */
  lrDecay: number;
  /** First value of the sums. */
  initialAccumulatorValue: number;
  /** Added to the denominator. */
  eps: number;
}

/**
 * Adagrad (Duchi et al. 2011): `s += g^2`, `p -= lr / (1 + (t - 1) * lrDecay) * g / (sqrt(s) + eps)`.
 *
 * Defaults: `lr` 0.01, `lrDecay` 0, `weightDecay` 0, `initialAccumulatorValue` 0, `eps` 1e-10, `maximize` false. State: `step`, `sum`.
 */
export class Adagrad extends Optimizer<AdagradOptions> {
  /**
   * Takes parameters and options.
   *
   * @param params Parameters, or groups of them.
   * @param options Options of groups that do not set their own.
   * @throws {RangeError} For an option out of range.
   */
  constructor(params: Params<AdagradOptions>, options?: Partial<AdagradOptions>) {
    super(params, { lr: 1e-2, lrDecay: 0, weightDecay: 0, initialAccumulatorValue: 0, eps: 1e-10, maximize: false, ...options });
  }

  /** Refuses options out of range. */
  protected override checkOptions(group: ParamGroup<AdagradOptions>): void {
    for (const name of ["lr", "lrDecay", "weightDecay", "initialAccumulatorValue", "eps"] as const) {
      checkOption("Adagrad", name, group[name]);
    }
  }

  /** Updates the parameters of a group that have a gradient. */
  protected override update(group: ParamGroup<AdagradOptions>): void {
    let step = 0, together: { step: number }[] = [];
    const flush = () => {
      const states = together;
      together = [];
      // Read again by a recorded step: counts that have come apart are another one.
      this.flush(3, (lib, t, first, count) => {
        if (states.some((it) => it.step !== states[0].step)) return 0;
        const rate = group.lr / (1 + (states[0].step - 1) * group.lrDecay);
        return lib.dg_adagrad(t, first, count, rate, group.eps, group.weightDecay, group.maximize ? 1 : 0);
      });
    };
    for (const p of group.params) {
      if (p.grad === null) continue;
      let state = this.state.get(p);
      if (state === undefined) {
        this.state.set(p, state = { step: 0, sum: this.stateTensor(p, group.initialAccumulatorValue) } as ParamState);
      }
      if (group.lrDecay !== 0) refuseInCapture("Adagrad with lrDecay takes another rate in each step");
      const next = Number(state.step) + 1;
      if (next !== step || this.apart(p)) {
        flush();
        step = next;
      }
      this.push(p, state.sum as Tensor);
      this.countStep(state as { step: number });
      together.push(state as { step: number });
    }
    flush();
  }
}
