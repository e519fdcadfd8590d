/**
 * Schedulers made of others, the one-cycle policy, and the one that watches a metric.
 *
 * @module
 */
import { FormatError } from "../ffi/errors.ts";
import { hosted, unrepeatable } from "../tensor/recorder.ts";
import { LRScheduler, type SchedulerState } from "./lr_scheduler.ts";
import type { AnyOptimizer, ParamGroup } from "./optimizer.ts";

function checkParts(name: string, optimizer: AnyOptimizer, schedulers: readonly LRScheduler[]): void {
  if (schedulers.length < 1) throw new RangeError(`${name}: takes at least one scheduler`);
  schedulers.forEach((it, i) => {
    if (!(it instanceof LRScheduler)) throw new TypeError(`${name}: entry ${i} must be a scheduler, got ${typeof it}`);
    if (it instanceof ReduceLROnPlateau) throw new TypeError(`${name}: entry ${i} is ReduceLROnPlateau, whose step needs a metric`);
    if (it.optimizer !== optimizer) throw new RangeError(`${name}: scheduler ${i} belongs to another optimiser`);
  });
}

/** Base class of the schedulers made of others. */
export abstract class CompositeScheduler extends LRScheduler {
  /** The parts. */
  protected _schedulers: readonly LRScheduler[];

  /**
   * Sets the fields and takes the first step.
   *
   * @param schedulers All of `optimizer`.
   */
  constructor(optimizer: AnyOptimizer, schedulers: readonly LRScheduler[], lastEpoch = -1) {
    super(optimizer, lastEpoch);
    this._schedulers = [...schedulers];
  }
  /** Takes back the count of the parts' steps at construction. */
  override undo(): void {
    for (const it of this._schedulers) it.undo();
  }
  /** The rates in force. */
  protected override nextRates(): number[] {
    return this.groups.map((group) => group.lr);
  }
  /** The own fields and, as `_schedulers`, the states of the parts. */
  override stateDict(): SchedulerState {
    return { ...super.stateDict(), _schedulers: this._schedulers.map((it) => it.stateDict()) };
  }
  /** Takes over what {@linkcode CompositeScheduler.stateDict} gave. @throws {FormatError} If it has another number of parts. */
  override loadStateDict(state: SchedulerState): void {
    const parts = state._schedulers;
    if (!Array.isArray(parts) || parts.length !== this._schedulers.length) {
      throw new FormatError(`${this.constructor.name}.loadStateDict: expected the states of ${this._schedulers.length} schedulers`);
    }
    super.loadStateDict(state);
    this._schedulers.forEach((it, i) => it.loadStateDict(parts[i]));
  }
}

/**
 * One scheduler after the other: scheduler `i` begins anew at epoch `milestones[i - 1]`.
 *
 * @example Warm up, then a cosine
 * ```ts
 * import { ones, optim } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const optimizer = new optim.SGD([ones([1], { requiresGrad: true })], { lr: 1 });
 * const warmUp = new optim.LinearLR(optimizer, { startFactor: 0.1, totalIters: 3 });
 * const cosine = new optim.CosineAnnealingLR(optimizer, 10);
 * const schedule = new optim.SequentialLR(optimizer, [warmUp, cosine], [3]);
 * assertAlmostEquals(optimizer.paramGroups[0].lr, 0.1);
 * for (let i = 0; i < 3; i++) schedule.step();
 * assertAlmostEquals(optimizer.paramGroups[0].lr, 1);
 * ```
 */
export class SequentialLR extends CompositeScheduler {
  /** Epochs at which the next scheduler takes over. */
  protected _milestones: number[];

  /**
   * Sets the fields and takes the first step.
   *
   * @param schedulers In order.
   * @param milestones Ascending, one fewer than schedulers.
   */
  constructor(
    optimizer: AnyOptimizer,
    schedulers: readonly LRScheduler[],
    milestones: readonly number[],
    options?: { lastEpoch?: number },
  ) {
    super(optimizer, schedulers, options?.lastEpoch);
    checkParts("SequentialLR", optimizer, schedulers);
    if (milestones.length !== schedulers.length - 1) {
      throw new RangeError(
        `SequentialLR: ${schedulers.length} schedulers need ${schedulers.length - 1} milestones, got ${milestones.length}`,
      );
    }
    this._milestones = [...milestones];
    this.last_epoch++;
    for (const group of this.groups) group.lr = group.initialLr!;
    this.undo();
    const first = this._schedulers[this.#position(0)];
    first.initialStep();
    this._last_lr = first.getLastLr();
  }
  #position(epoch: number): number {
    return this._milestones.filter((milestone) => milestone <= epoch).length;
  }
  /** Goes to the next epoch. */
  override step(): void {
    hosted(() => {
      this.last_epoch++;
      const at = this.#position(this.last_epoch), scheduler = this._schedulers[at];
      if (at > 0 && this._milestones[at - 1] === this.last_epoch) scheduler.jump(0);
      else scheduler.step();
      this._last_lr = scheduler.getLastLr();
    });
  }
}

/** Several schedulers at once, each changing what the one before it left. */
export class ChainedScheduler extends CompositeScheduler {
  /**
   * Sets the fields and takes the first step.
   *
   * @param schedulers All of one optimiser.
   */
  constructor(schedulers: readonly LRScheduler[]) {
    if (schedulers.length < 1) throw new RangeError("ChainedScheduler: takes at least one scheduler");
    super(schedulers[0].optimizer, schedulers);
    checkParts("ChainedScheduler", schedulers[0].optimizer, schedulers);
    this._last_lr = this.groups.map((group) => group.lr);
  }
  /** Steps each of them. */
  override step(): void {
    hosted(() => {
      for (const it of this._schedulers) it.step();
      this._last_lr = this.groups.map((group) => group.lr);
    });
  }
}

/** Options of {@linkcode OneCycleLR}. */
export interface OneCycleOptions {
  /** Highest rate, or one for each group. */
  maxLr: number | readonly number[];
  /** Steps of the cycle, or `epochs` and `stepsPerEpoch`. */
  totalSteps?: number;
  /** Epochs of the cycle. */
  epochs?: number;
  /** Steps of an epoch. */
  stepsPerEpoch?: number;
  /** Part of the cycle in which the rate grows. Default 0.3. */
  pctStart?: number;
  /** Shape of the ways between. Default `"cos"`. */
  annealStrategy?: "cos" | "linear";
  /** Let the momentum (or `betas[0]`) go the other way. Default `true`. */
  cycleMomentum?: boolean;
  /** Lowest momentum. Default 0.85. */
  baseMomentum?: number | readonly number[];
  /** Highest momentum. Default 0.95. */
  maxMomentum?: number | readonly number[];
  /** The first rate is `maxLr / divFactor`. Default 25. */
  divFactor?: number;
  /** The last rate is the first `/ finalDivFactor`. Default 10000. */
  finalDivFactor?: number;
  /** Come back to the first rate before going to the last. Default `false`. */
  threePhase?: boolean;
  /** Where to go on. Default -1: anew. */
  lastEpoch?: number;
}

type CycleGroup = ParamGroup & Record<CycleKey, number> & { betas?: readonly [number, number]; momentum?: number };

/** Quantities of a group that a one-cycle policy goes between. */
export type CycleKey = "initialLr" | "maxLr" | "minLr" | "maxMomentum" | "baseMomentum";

/** One way of a one-cycle policy. */
export interface CyclePhase {
  /** Its last step. */
  end: number;
  /** From which rate to which. */
  lr: readonly [CycleKey, CycleKey];
  /** From which momentum to which. */
  momentum: readonly [CycleKey, CycleKey];
}

/** The one-cycle policy (Smith and Topin 2018): up to `maxLr` and down to almost 0 over all steps of the training; stepped after each batch. */
export class OneCycleLR extends LRScheduler {
  /** Steps of the cycle. */
  protected total_steps: number;
  /** Shape of the ways between. */
  protected _anneal_func_type: "cos" | "linear";
  /** The momentum goes the other way. */
  protected cycle_momentum: boolean;
  /** The phases, one after the other. */
  protected _schedule_phases: CyclePhase[];

  /**
   * Sets the fields and takes the first step.
   *
   * @throws {RangeError} If the number of steps is not given, or an option is out of range.
   */
  constructor(optimizer: AnyOptimizer, options: OneCycleOptions) {
    super(optimizer, options.lastEpoch);
    const { pctStart = 0.3, annealStrategy = "cos", divFactor = 25, finalDivFactor = 1e4 } = options;
    const total = options.totalSteps ?? (options.epochs ?? NaN) * (options.stepsPerEpoch ?? NaN);
    if (!Number.isSafeInteger(total) || total < 1) {
      throw new RangeError("OneCycleLR: totalSteps, or epochs and stepsPerEpoch, must be whole numbers >= 1");
    }
    if (!(pctStart >= 0 && pctStart <= 1)) throw new RangeError(`OneCycleLR: pctStart must be between 0 and 1, got ${pctStart}`);
    if (annealStrategy !== "cos" && annealStrategy !== "linear") {
      throw new RangeError(`OneCycleLR: annealStrategy must be "cos" or "linear", got ${JSON.stringify(annealStrategy)}`);
    }
    this.total_steps = total;
    this._anneal_func_type = annealStrategy;
    this.cycle_momentum = options.cycleMomentum ?? true;
    const up: CyclePhase = { end: pctStart * total - 1, lr: ["initialLr", "maxLr"], momentum: ["maxMomentum", "baseMomentum"] };
    this._schedule_phases = options.threePhase
      ? [
        up,
        { end: 2 * pctStart * total - 2, lr: ["maxLr", "initialLr"], momentum: ["baseMomentum", "maxMomentum"] },
        { end: total - 1, lr: ["initialLr", "minLr"], momentum: ["maxMomentum", "maxMomentum"] },
      ]
      : [up, { end: total - 1, lr: ["maxLr", "minLr"], momentum: ["baseMomentum", "maxMomentum"] }];
    if (this.cycle_momentum && !("momentum" in optimizer.defaults) && !("betas" in optimizer.defaults)) {
      throw new RangeError("OneCycleLR: cycleMomentum needs an optimiser with momentum or betas");
    }
    const perGroup = (what: string, value: number | readonly number[]): readonly number[] => {
      const list = typeof value === "number" ? this.groups.map(() => value) : value;
      if (list.length !== this.groups.length) {
        throw new RangeError(`OneCycleLR: ${what} needs ${this.groups.length} values, got ${list.length}`);
      }
      return list;
    };
    const highest = perGroup("maxLr", options.maxLr);
    const low = perGroup("baseMomentum", options.baseMomentum ?? 0.85), high = perGroup("maxMomentum", options.maxMomentum ?? 0.95);
    if (this.last_epoch === -1) {
      (this.groups as CycleGroup[]).forEach((group, i) => {
        group.initialLr = highest[i] / divFactor;
        group.maxLr = highest[i];
        group.minLr = group.initialLr / finalDivFactor;
        if (!this.cycle_momentum) return;
        group.maxMomentum = high[i];
        group.baseMomentum = low[i];
        setMomentum(group, high[i]);
      });
    }
    this.start();
  }

  #between(from: number, to: number, part: number): number {
    if (this._anneal_func_type === "linear") return (to - from) * part + from;
    return to + (from - to) / 2 * (Math.cos(Math.PI * part) + 1);
  }

  /** Rates for the step. @throws {RangeError} Past the last step. */
  protected override nextRates(): number[] {
    if (this.last_epoch > this.total_steps) {
      throw new RangeError(`OneCycleLR: step ${this.last_epoch} comes after the last of ${this.total_steps}`);
    }
    const phases = this._schedule_phases, found = phases.findIndex(({ end }) => this.last_epoch <= end);
    const at = found < 0 ? phases.length - 1 : found, { end, lr, momentum } = phases[at], start = at === 0 ? 0 : phases[at - 1].end;
    const part = (this.last_epoch - start) / (end - start);
    return (this.groups as CycleGroup[]).map((group) => {
      if (this.cycle_momentum) setMomentum(group, this.#between(group[momentum[0]], group[momentum[1]], part));
      return this.#between(group[lr[0]], group[lr[1]], part);
    });
  }
}

function setMomentum(group: CycleGroup, value: number): void {
  if (group.betas !== undefined) group.betas = [value, group.betas[1]];
  else group.momentum = value;
}

/** Options of {@linkcode ReduceLROnPlateau}. */
export interface PlateauOptions {
  /** Whether lower or higher is better. Default `"min"`. */
  mode?: "min" | "max";
  /** Factor of a reduction, below 1. Default 0.1. */
  factor?: number;
  /** Epochs without improvement that are tolerated. Default 10. */
  patience?: number;
  /** What counts as an improvement. Default 1e-4. */
  threshold?: number;
  /** Relative to the best, or absolute. Default `"rel"`. */
  thresholdMode?: "rel" | "abs";
  /** Epochs after a reduction in which nothing is counted. Default 0. */
  cooldown?: number;
  /** Lowest rate, or one for each group. Default 0. */
  minLr?: number | readonly number[];
  /** Smaller changes are not made. Default 1e-8. */
  eps?: number;
}

/** Times `factor` when a metric has not improved for more than `patience` epochs. */
export class ReduceLROnPlateau extends LRScheduler {
  /** Whether lower or higher is better. */
  protected mode: "min" | "max";
  /** Factor of a reduction. */
  protected factor: number;
  /** Epochs without improvement that are tolerated. */
  protected patience: number;
  /** What counts as an improvement. */
  protected threshold: number;
  /** Relative or absolute. */
  protected threshold_mode: "rel" | "abs";
  /** Epochs after a reduction in which nothing is counted. */
  protected cooldown: number;
  /** Those that are left. */
  protected cooldown_counter = 0;
  /** Lowest rates. */
  protected min_lrs: number[];
  /** Smaller changes are not made. */
  protected eps: number;
  /** The best metric so far. */
  protected best: number;
  /** Epochs since. */
  protected num_bad_epochs = 0;

  /**
   * Sets the fields and takes the first step.
   *
   * @throws {RangeError} For an option out of range.
   */
  constructor(optimizer: AnyOptimizer, options: PlateauOptions = {}) {
    super(optimizer, 0);
    const { mode = "min", factor = 0.1, thresholdMode = "rel", minLr = 0 } = options;
    if (!(factor < 1)) throw new RangeError(`ReduceLROnPlateau: factor must be below 1, got ${factor}`);
    if (mode !== "min" && mode !== "max") {
      throw new RangeError(`ReduceLROnPlateau: mode must be "min" or "max", got ${JSON.stringify(mode)}`);
    }
    if (thresholdMode !== "rel" && thresholdMode !== "abs") {
      throw new RangeError(`ReduceLROnPlateau: thresholdMode must be "rel" or "abs", got ${JSON.stringify(thresholdMode)}`);
    }
    this.mode = mode;
    this.factor = factor;
    this.patience = options.patience ?? 10;
    this.threshold = options.threshold ?? 1e-4;
    this.threshold_mode = thresholdMode;
    this.cooldown = options.cooldown ?? 0;
    this.min_lrs = typeof minLr === "number" ? this.groups.map(() => minLr) : [...minLr];
    if (this.min_lrs.length !== this.groups.length) {
      throw new RangeError(`ReduceLROnPlateau: minLr needs ${this.groups.length} values, got ${this.min_lrs.length}`);
    }
    this.eps = options.eps ?? 1e-8;
    this.best = mode === "min" ? Infinity : -Infinity;
    this._last_lr = this.nextRates();
  }

  /** The rates in force. */
  protected override nextRates(): number[] {
    return this.groups.map((group) => group.lr);
  }

  #improves(metric: number): boolean {
    const { best, threshold } = this, relative = this.threshold_mode === "rel";
    if (this.mode === "min") return metric < (relative ? best * (1 - threshold) : best - threshold);
    return metric > (relative ? best * (threshold + 1) : best + threshold);
  }

  /**
   * Notes the metric of an epoch.
   *
   * @param metric Its value; NaN counts as no improvement.
   * @throws {TypeError} If it is missing.
   */
  override step(metric?: number): void {
    unrepeatable("ReduceLROnPlateau decides by a metric");
    if (typeof metric !== "number") throw new TypeError(`ReduceLROnPlateau: step takes the metric, a number, got ${typeof metric}`);
    this.last_epoch++;
    if (this.#improves(metric)) {
      this.best = metric;
      this.num_bad_epochs = 0;
    } else {
      this.num_bad_epochs++;
    }
    if (this.cooldown_counter > 0) {
      this.cooldown_counter--;
      this.num_bad_epochs = 0;
    }
    if (this.num_bad_epochs > this.patience) {
      this.groups.forEach((group, i) => {
        const next = Math.max(group.lr * this.factor, this.min_lrs[i] ?? this.min_lrs[0]);
        if (group.lr - next > this.eps) group.lr = next;
      });
      this.cooldown_counter = this.cooldown;
      this.num_bad_epochs = 0;
    }
    this._last_lr = this.nextRates();
  }
}
