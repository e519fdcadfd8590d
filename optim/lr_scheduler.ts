/**
 * Learning-rate schedules, with PyTorch's values. A scheduler sets the rates of its optimiser's groups when it is made and at each `step()`, which
 * comes after the optimiser's own step, once an epoch or once a batch.
 *
 * @module
 */
import { FormatError } from "../ffi/errors.ts";
import { hosted } from "../tensor/recorder.ts";
import { type AnyOptimizer, Optimizer, type ParamGroup } from "./optimizer.ts";

/** State of a scheduler: its fields, in PyTorch's spelling. */
export type SchedulerState = Record<string, unknown>;

/** A factor as a function of the epoch, or one for each group. */
export type Factors = ((epoch: number) => number) | readonly ((epoch: number) => number)[];

const skipped = new Set(["optimizer", "lr_lambdas", "_schedulers", "_is_initial"]);

/** Base class of the schedulers. */
export abstract class LRScheduler {
  /** The optimiser whose rates are set. */
  readonly optimizer: AnyOptimizer;
  /** Steps taken, 0 at first. */
  protected last_epoch: number;
  /** Rates that the schedule starts from. */
  protected base_lrs: number[] = [];
  /** Calls of `step`, the one at construction included. */
  protected _step_count = 0;
  /** Rates now in force. */
  protected _last_lr: number[] = [];
  /** True during the step at construction. */
  protected _is_initial = false;

  /**
   * Sets the fields and takes the first step.
   *
   * @param optimizer The optimiser whose rates are set.
   * @param lastEpoch Where to go on; -1 starts anew. Default -1.
   */
  constructor(optimizer: AnyOptimizer, lastEpoch = -1) {
    if (!(optimizer instanceof Optimizer)) throw new TypeError(`${this.constructor.name}: takes an optimiser, got ${typeof optimizer}`);
    this.optimizer = optimizer;
    this.last_epoch = lastEpoch;
  }

  /** Sets the first rates; each class calls it when its fields are set. */
  protected start(): void {
    this.optimizer.paramGroups.forEach((group, i) => {
      if (this.last_epoch === -1) group.initialLr ??= group.lr;
      else if (group.initialLr === undefined) {
        throw new RangeError(`${this.constructor.name}: group ${i} has no initialLr, which going on from epoch ${this.last_epoch} needs`);
      }
    });
    this.base_lrs = this.optimizer.paramGroups.map((group) => group.initialLr!);
    this.initialStep();
  }

  /** The step at construction. */
  initialStep(): void {
    this._step_count = 0;
    this._is_initial = true;
    this.step();
    this._is_initial = false;
  }

  /** Takes back the count of the step at construction, for a schedule that begins later. */
  undo(): void {
    this.last_epoch--;
  }

  /** The groups whose rates are set. */
  protected get groups(): ParamGroup[] {
    return this.optimizer.paramGroups;
  }

  /** Steps taken so far. */
  get lastEpoch(): number {
    return this.last_epoch;
  }

  /** The rates in force, one for each group. */
  getLastLr(): number[] {
    return [...this._last_lr];
  }

  /** Rates for the epoch `last_epoch`, from those in force. */
  protected abstract nextRates(): number[];

  /** Rates for the epoch `last_epoch` from the first ones, where there is a formula. */
  protected closedForm(): number[] | null {
    return null;
  }

  /** Goes to the next epoch and sets its rates. */
  step(): void {
    hosted(() => {
      this._step_count++;
      this.last_epoch++;
      this.setRates(this.nextRates());
    });
  }

  /** Goes to an epoch and sets its rates. */
  jump(epoch: number): void {
    this.last_epoch = epoch;
    this.setRates(this.closedForm() ?? this.nextRates());
  }

  /** Sets the groups' rates. */
  protected setRates(rates: readonly number[]): void {
    this.groups.forEach((group, i) => group.lr = rates[i]);
    this._last_lr = this.groups.map((group) => group.lr);
  }

  /** The rates in force, each times `factor`. */
  protected scaled(factor: number): number[] {
    return this.groups.map((group) => group.lr * factor);
  }

  /** The first rates, each times `factor`. */
  protected scaledBase(factor: number): number[] {
    return this.base_lrs.map((lr) => lr * factor);
  }

  /** All fields but the optimiser and functions, in PyTorch's spelling. */
  stateDict(): SchedulerState {
    return structuredClone(Object.fromEntries(Object.entries(this).filter(([key]) => !skipped.has(key))));
  }

  /** Takes over the fields that {@linkcode LRScheduler.stateDict} gave. @throws {FormatError} For an unknown field or one of another type. */
  loadStateDict(state: SchedulerState): void {
    const own = this as unknown as SchedulerState;
    const known = Object.entries(state).filter(([key]) => key in own && !skipped.has(key));
    if (!known.some(([key]) => key === "last_epoch")) throw new FormatError(`${this.constructor.name}.loadStateDict: no last_epoch`);
    for (const [key, value] of known) {
      if (own[key] !== null && value !== null && typeof own[key] !== typeof value) {
        throw new FormatError(`${this.constructor.name}.loadStateDict: ${key} must be a ${typeof own[key]}, got ${typeof value}`);
      }
    }
    for (const [key, value] of known) own[key] = structuredClone(value);
  }
}

function factorsOf(name: string, optimizer: AnyOptimizer, given: Factors): readonly ((epoch: number) => number)[] {
  const list = typeof given === "function" ? optimizer.paramGroups.map(() => given) : given;
  if (!Array.isArray(list) || list.length !== optimizer.paramGroups.length || !list.every((it) => typeof it === "function")) {
    throw new TypeError(`${name}: takes a function, or one for each of the ${optimizer.paramGroups.length} groups`);
  }
  return list;
}

/** Refuses an argument that is not a whole number of at least 1. */
function checkCount(name: string, what: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${name}: ${what} must be a whole number >= 1, got ${value}`);
}

function checkFactor(name: string, what: string, value: number, zero = true): void {
  if (!(value <= 1 && (zero ? value >= 0 : value > 0))) {
    throw new RangeError(`${name}: ${what} must be between 0${zero ? "" : " (excluded)"} and 1, got ${value}`);
  }
}

/** First rate times a function of the epoch: `lr = base * f(epoch)`. */
export class LambdaLR extends LRScheduler {
  /** The functions, one for each group. */
  protected lr_lambdas: readonly ((epoch: number) => number)[];

  /**
   * Sets the fields and takes the first step.
   *
   * @param factor `f`, or one for each group.
   */
  constructor(optimizer: AnyOptimizer, factor: Factors, options?: { lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.lr_lambdas = factorsOf("LambdaLR", optimizer, factor);
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    return this.base_lrs.map((lr, i) => lr * this.lr_lambdas[i](this.last_epoch));
  }
}

/** Rate of the epoch before times a function of the epoch: `lr *= f(epoch)`. */
export class MultiplicativeLR extends LRScheduler {
  /** The functions, one for each group. */
  protected lr_lambdas: readonly ((epoch: number) => number)[];

  /**
   * Sets the fields and takes the first step.
   *
   * @param factor `f`, or one for each group.
   */
  constructor(optimizer: AnyOptimizer, factor: Factors, options?: { lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.lr_lambdas = factorsOf("MultiplicativeLR", optimizer, factor);
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    return this.groups.map((group, i) => this._is_initial ? group.lr : group.lr * this.lr_lambdas[i](this.last_epoch));
  }
}

/** Times `gamma` every `stepSize` epochs. */
export class StepLR extends LRScheduler {
  /** Epochs between changes. */
  protected step_size: number;
  /** Factor. */
  protected gamma: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param options.gamma Factor. Default 0.1.
   */
  constructor(optimizer: AnyOptimizer, stepSize: number, options?: { gamma?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    checkCount("StepLR", "stepSize", stepSize);
    this.step_size = stepSize;
    this.gamma = options?.gamma ?? 0.1;
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    return this.scaled(this.last_epoch === 0 || this.last_epoch % this.step_size !== 0 ? 1 : this.gamma);
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    return this.scaledBase(this.gamma ** Math.floor(this.last_epoch / this.step_size));
  }
}

/** Times `gamma` at each of some epochs. */
export class MultiStepLR extends LRScheduler {
  /** The epochs, ascending; one named twice counts twice. */
  protected milestones: number[];
  /** Factor. */
  protected gamma: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param options.gamma Factor. Default 0.1.
   */
  constructor(optimizer: AnyOptimizer, milestones: readonly number[], options?: { gamma?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.milestones = [...milestones].sort((a, b) => a - b);
    this.gamma = options?.gamma ?? 0.1;
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    return this.scaled(this.gamma ** this.milestones.filter((epoch) => epoch === this.last_epoch).length);
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    return this.scaledBase(this.gamma ** this.milestones.filter((epoch) => epoch <= this.last_epoch).length);
  }
}

/** Times `factor` for the first `totalIters` epochs. */
export class ConstantLR extends LRScheduler {
  /** Factor. */
  protected factor: number;
  /** Epochs. */
  protected total_iters: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param options.factor Between 0 and 1. Default 1/3.
   * @param options.totalIters Epochs. Default 5.
   */
  constructor(optimizer: AnyOptimizer, options?: { factor?: number; totalIters?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.factor = options?.factor ?? 1 / 3;
    this.total_iters = options?.totalIters ?? 5;
    checkFactor("ConstantLR", "factor", this.factor);
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    if (this.last_epoch === 0) return this.scaled(this.factor);
    return this.scaled(this.last_epoch === this.total_iters ? 1 / this.factor : 1);
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    return this.scaledBase(this.last_epoch >= this.total_iters ? 1 : this.factor);
  }
}

/** Factor that goes in a straight line from `startFactor` to `endFactor` over `totalIters` epochs. */
export class LinearLR extends LRScheduler {
  /** First factor. */
  protected start_factor: number;
  /** Last factor. */
  protected end_factor: number;
  /** Epochs. */
  protected total_iters: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param options.startFactor Above 0, at most 1. Default 1/3.
   * @param options.endFactor Between 0 and 1. Default 1.
   * @param options.totalIters Epochs. Default 5.
   */
  constructor(optimizer: AnyOptimizer, options?: { startFactor?: number; endFactor?: number; totalIters?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.start_factor = options?.startFactor ?? 1 / 3;
    this.end_factor = options?.endFactor ?? 1;
    this.total_iters = options?.totalIters ?? 5;
    checkFactor("LinearLR", "startFactor", this.start_factor, false);
    checkFactor("LinearLR", "endFactor", this.end_factor);
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    if (this.last_epoch === 0) return this.scaled(this.start_factor);
    if (this._is_initial || this.last_epoch > this.total_iters) return this.scaled(1);
    const slope = this.end_factor - this.start_factor;
    return this.scaled(1 + slope / (this.total_iters * this.start_factor + (this.last_epoch - 1) * slope));
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    const part = Math.min(this.total_iters, this.last_epoch) / this.total_iters;
    return this.scaledBase(this.start_factor + (this.end_factor - this.start_factor) * part);
  }
}

/** Times `gamma` every epoch. */
export class ExponentialLR extends LRScheduler {
  /** Factor. */
  protected gamma: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param gamma Factor.
   */
  constructor(optimizer: AnyOptimizer, gamma: number, options?: { lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.gamma = gamma;
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    return this.scaled(this._is_initial ? 1 : this.gamma);
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    return this.scaledBase(this.gamma ** this.last_epoch);
  }
}

/** Down to 0 as `(1 - epoch / totalIters)^power`. */
export class PolynomialLR extends LRScheduler {
  /** Epochs. */
  protected total_iters: number;
  /** Exponent. */
  protected power: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param options.totalIters Epochs. Default 5.
   * @param options.power Exponent. Default 1.
   */
  constructor(optimizer: AnyOptimizer, options?: { totalIters?: number; power?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    this.total_iters = options?.totalIters ?? 5;
    this.power = options?.power ?? 1;
    checkCount("PolynomialLR", "totalIters", this.total_iters);
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    if (this._is_initial || this.last_epoch > this.total_iters) return this.scaled(1);
    const now = 1 - this.last_epoch / this.total_iters, before = 1 - (this.last_epoch - 1) / this.total_iters;
    return this.scaled((now / before) ** this.power);
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    return this.scaledBase((1 - Math.min(this.total_iters, this.last_epoch) / this.total_iters) ** this.power);
  }
}

/** Half a cosine from the first rate to `etaMin` over `tMax` epochs (Loshchilov and Hutter 2017, without restarts). */
export class CosineAnnealingLR extends LRScheduler {
  /** Epochs of half a cosine. */
  protected T_max: number;
  /** Lowest rate. */
  protected eta_min: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param tMax Epochs of half a cosine.
   * @param options.etaMin Lowest rate. Default 0.
   */
  constructor(optimizer: AnyOptimizer, tMax: number, options?: { etaMin?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    checkCount("CosineAnnealingLR", "tMax", tMax);
    this.T_max = tMax;
    this.eta_min = options?.etaMin ?? 0;
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    const { T_max, eta_min, last_epoch } = this;
    if (this._is_initial) return this.scaled(1);
    if (this._step_count === 1 && last_epoch > 0) return this.closedForm();
    if ((last_epoch - 1 - T_max) % (2 * T_max) === 0) {
      return this.groups.map((group, i) => group.lr + (this.base_lrs[i] - eta_min) * (1 - Math.cos(Math.PI / T_max)) / 2);
    }
    const factor = (1 + Math.cos(Math.PI * last_epoch / T_max)) / (1 + Math.cos(Math.PI * (last_epoch - 1) / T_max));
    return this.groups.map((group) => factor * (group.lr - eta_min) + eta_min);
  }
  /** Rates for the epoch from the first ones. */
  protected override closedForm(): number[] {
    const { T_max, eta_min, last_epoch } = this;
    return this.base_lrs.map((lr) => eta_min + (lr - eta_min) * (1 + Math.cos(Math.PI * last_epoch / T_max)) / 2);
  }
}

/** Half cosines from the first rate to `etaMin`, each followed by a restart and `tMult` times as long as the one before. */
export class CosineAnnealingWarmRestarts extends LRScheduler {
  /** Epochs of the first cosine. */
  protected T_0: number;
  /** Epochs of this cosine. */
  protected T_i: number;
  /** How much longer each is. */
  protected T_mult: number;
  /** Lowest rate. */
  protected eta_min: number;
  /** Epochs since the last restart. */
  protected T_cur: number;

  /**
   * Sets the fields and takes the first step.
   *
   * @param t0 Epochs of the first cosine.
   * @param options.tMult How much longer each is, a whole number. Default 1.
   * @param options.etaMin Lowest rate. Default 0.
   */
  constructor(optimizer: AnyOptimizer, t0: number, options?: { tMult?: number; etaMin?: number; lastEpoch?: number }) {
    super(optimizer, options?.lastEpoch);
    checkCount("CosineAnnealingWarmRestarts", "t0", t0);
    this.T_0 = this.T_i = t0;
    this.T_mult = options?.tMult ?? 1;
    checkCount("CosineAnnealingWarmRestarts", "tMult", this.T_mult);
    this.eta_min = options?.etaMin ?? 0;
    this.T_cur = this.last_epoch;
    this.start();
  }
  /** Rates for the epoch. */
  protected override nextRates(): number[] {
    const swing = 1 + Math.cos(Math.PI * this.T_cur / this.T_i);
    return this.base_lrs.map((lr) => this.eta_min + (lr - this.eta_min) * swing / 2);
  }
  /**
   * Goes to the next epoch, or to any, also between two (`epoch + batch / batches`).
   *
   * @param epoch Where to go; 0 or more. Default: the next.
   */
  override step(epoch?: number): void {
    const target = epoch ?? (this.last_epoch < 0 ? 0 : undefined);
    if (target === undefined) {
      this.last_epoch++;
      if (++this.T_cur >= this.T_i) {
        this.T_cur %= this.T_i;
        this.T_i *= this.T_mult;
      }
    } else {
      if (!(target >= 0)) throw new RangeError(`CosineAnnealingWarmRestarts: epoch must be 0 or more, got ${target}`);
      this.T_i = this.T_0;
      this.T_cur = target;
      if (target >= this.T_0 && this.T_mult === 1) {
        this.T_cur = target % this.T_0;
      } else if (target >= this.T_0) {
        const n = Math.trunc(Math.log(target / this.T_0 * (this.T_mult - 1) + 1) / Math.log(this.T_mult));
        this.T_cur = target - this.T_0 * (this.T_mult ** n - 1) / (this.T_mult - 1);
        this.T_i = this.T_0 * this.T_mult ** n;
      }
      this.last_epoch = Math.floor(target);
    }
    this.setRates(this.nextRates());
  }
}
