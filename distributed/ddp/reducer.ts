/**
 * Reduces gradients while backward computes the next ones.
 *
 * @module
 */
import { type BackwardPass, backwardPass } from "../../autograd/engine.ts";
import { AutogradError, DTypeError } from "../../ffi/errors.ts";
import { copyInto } from "../../ops/copy.ts";
import { fill_, mul_ } from "../../ops/mod.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { placed } from "../placed.ts";
import type { ProcessGroup } from "../process_group.ts";
import type { Work } from "../work.ts";
import { assignBuckets, type Bucket, type Named, type Slot, unowned } from "./buckets.ts";
import type { BucketReduction, CommHook } from "./comm_hooks.ts";

/** What a {@linkcode Reducer} does. */
export interface ReducerOptions {
  /** Who takes part. */
  group: ProcessGroup;
  /** Largest bucket, in bytes. */
  bucketBytes: number;
  /** Gradients stay in the buckets. */
  gradientAsBucketView: boolean;
  /** Some parameters may get no gradient, others in each pass. */
  findUnusedParameters: boolean;
  /** Some parameters may get no gradient, the same ones in each pass. */
  staticGraph: boolean;
}

/** One backward pass whose gradients are reduced. */
interface Reduction {
  /** Gradients that each bucket waits for. */
  readonly pending: Int32Array;
  /** Parameters whose gradient is in the bucket. */
  readonly ready: Uint8Array;
  /** Parameters that a gradient may come to. */
  readonly reached: Uint8Array;
  /** What reduces the buckets that are complete, in order. */
  readonly started: BucketReduction[];
}

/** Hangs on the parameters, and reduces what backward adds to them. */
export class Reducer {
  /** What is reduced, in order. */
  readonly buckets: readonly Bucket[];
  /** Divides the sum of the gradients; null: the number of ranks. */
  divisor: number | null = null;
  readonly #options: ReducerOptions;
  readonly #slots: Slot[] = [];
  readonly #handles: { remove(): void }[];
  #hook: CommHook | null = null;
  #current: Reduction | null = null;
  /** Parameters whose gradient was complete before the pass came to the module's outputs. */
  readonly #early: Set<Slot> = new Set();
  /** Parameters that got gradients since the last reduction. */
  #used: Uint8Array;
  /** With a static graph, after the first reduction: the parameters that it reached, if one ran here, and those that some rank used. */
  #known: { reached: Uint8Array | null; anywhere: Uint8Array } | null = null;

  /** Puts the parameters in buckets. */
  constructor(parameters: readonly Named[], options: ReducerOptions) {
    this.#options = options;
    this.buckets = assignBuckets(parameters, options.bucketBytes);
    for (const slot of this.buckets.flatMap((it) => it.slots)) this.#slots[slot.index] = slot;
    this.#used = new Uint8Array(this.#slots.length);
    this.#handles = this.#slots.map((slot) => slot.parameter.registerPostAccumulateGradHook(() => this.#arrived(slot)));
  }

  /** Reduces buckets by `hook` from now on. */
  set hook(hook: CommHook) {
    this.#hook = hook;
  }

  /** True once there is a hook. */
  get hasHook(): boolean {
    return this.#hook !== null;
  }

  /** Refuses parameters that were converted since the buckets were made. */
  check(): void {
    for (const slot of this.#slots) {
      if (slot.fits) continue;
      throw new DTypeError(
        `DistributedDataParallel: parameter ${slot.name} was ${slot.bucket.buffer.dtype} on ${slot.bucket.buffer.device} and is ` +
          `${slot.parameter.dtype} on ${slot.parameter.device} now, or lies otherwise in memory: convert the module before it is wrapped`,
      );
    }
  }

  /** The gradient of a parameter is complete. */
  #arrived(slot: Slot): void {
    this.#used[slot.index] = 1;
    if (this.#current !== null) return this.#take(slot, this.#current);
    // It may turn out later in this pass that it comes through the module, too.
    if (this.#early.size === 0) backwardPass().onEnd(() => this.#early.clear());
    this.#early.add(slot);
  }

  /** Reduces the gradients of the backward pass under way. Called before the first of them is complete. */
  expect(): void {
    const pass = backwardPass(), { findUnusedParameters, staticGraph } = this.#options;
    if (this.#current !== null || !pass.accumulates) return;
    if (staticGraph) this.#checkStatic(pass);
    else if (!findUnusedParameters) this.#checkAll(this.#slots.filter((it) => !pass.reaches(it.parameter)));
    this.check();
    const current: Reduction = {
      pending: Int32Array.from(this.buckets, (it) => it.slots.length),
      ready: new Uint8Array(this.#slots.length),
      reached: Uint8Array.from(this.#slots, (it) => pass.reaches(it.parameter) ? 1 : 0),
      started: [],
    };
    this.#current = current;
    pass.onEnd((failed) => {
      try {
        if (!failed) this.#finish(current);
      } finally {
        this.#current = null;
      }
    });
    for (const slot of this.#slots) if (current.reached[slot.index] === 0 || this.#early.has(slot)) this.#take(slot, current);
  }

  #checkAll(missing: readonly Slot[]): void {
    if (missing.length === 0) return;
    const names = missing.slice(0, 8).map((it) => it.name).join(", ");
    throw new AutogradError(
      `DistributedDataParallel: backward() gives no gradient to ${missing.length} of ${this.#slots.length} parameters: ${names}${
        missing.length > 8 ? ", ..." : ""
      }. Pass { findUnusedParameters: true } if the loss need not depend on them, or requiresGrad_(false) before the module is wrapped`,
    );
  }

  #checkStatic(pass: BackwardPass): void {
    const known = this.#known;
    if (known === null || known.reached === null) return;
    const { reached } = known, changed = this.#slots.find((it) => pass.reaches(it.parameter) !== (reached[it.index] === 1));
    if (changed === undefined) return;
    throw new AutogradError(
      `DistributedDataParallel: with staticGraph every backward() must reach the same parameters, ` +
        `${changed.name} was ${reached[changed.index] ? "reached in the first one only" : "not reached in the first one"}`,
    );
  }

  /** Puts a gradient, or zeros, in the bucket, and starts the buckets that are complete. */
  #take(slot: Slot, current: Reduction): void {
    if (current.ready[slot.index] === 1) return;
    const { parameter, bucket } = slot, { grad } = parameter;
    if (grad !== null && grad.requiresGrad) {
      throw new AutogradError(
        "DistributedDataParallel: gradients of backward(..., { createGraph: true }) cannot be reduced: use grad(), or noSync()",
      );
    }
    if (grad === null || !slot.inPlace) {
      const view = slot.view();
      if (grad === null) {
        fill_(view, 0);
        view.dispose();
      } else {
        unowned(() => copyInto(view, grad));
        view.storage.version++;
        if (this.#options.gradientAsBucketView) {
          grad.dispose();
          parameter.grad = view;
        } else view.dispose();
      }
    }
    current.ready[slot.index] = 1;
    current.pending[bucket.index]--;
    for (let next = current.started.length; next < this.buckets.length && current.pending[next] === 0; next++) {
      current.started.push(this.#start(this.buckets[next]));
    }
  }

  #start(bucket: Bucket, buffer: Tensor = bucket.buffer): BucketReduction {
    const { group } = this.#options, { divisor } = this;
    if (this.#hook !== null) {
      const hook = this.#hook, reduction = unowned(() => hook(null, bucket.face(bucket.index === this.buckets.length - 1, buffer)));
      if (typeof reduction?.wait === "function") return reduction;
      throw new TypeError("DistributedDataParallel: a communication hook must return an object with wait(), as a Work");
    }
    if (group.size === 1) return { wait: () => {} };
    if (divisor === null) return group.allReduce(buffer, { op: "average" });
    const work = group.allReduce(buffer);
    return {
      wait: () => {
        work.wait();
        mul_(buffer, 1 / divisor);
      },
    };
  }

  /** Backward has ended: waits for the other ranks. */
  #finish(current: Reduction): void {
    const { findUnusedParameters, staticGraph, gradientAsBucketView } = this.#options, partial = findUnusedParameters || staticGraph;
    const missing = this.#slots.filter((it) => current.ready[it.index] === 0);
    if (!partial) this.#checkAll(missing);
    for (const slot of missing) this.#take(slot, current);
    const anywhere = partial ? this.#exchangeUsed(this.#used, current.reached) : null;
    this.buckets.forEach((bucket, i) => this.#end(bucket, current.started[i]));
    const used = anywhere === null ? null : anywhere();
    for (const slot of this.#slots) {
      const { parameter } = slot;
      if (gradientAsBucketView && slot.inPlace) continue;
      if (used !== null && used[slot.index] === 0) continue; // no rank used it: its gradient stays as it was
      const view = slot.view();
      if (parameter.grad === null && gradientAsBucketView) {
        parameter.grad = view;
        continue;
      }
      if (parameter.grad === null) {
        const grad = unowned(() => view.clone());
        grad.kept = true;
        parameter.grad = grad;
      } else {
        copyInto(parameter.grad, view);
        parameter.grad.storage.version++;
      }
      view.dispose();
    }
    this.#used.fill(0);
  }

  #end(bucket: Bucket, reduction: BucketReduction, buffer: Tensor = bucket.buffer): void {
    const result = unowned(() => reduction.wait());
    if (!(result instanceof Tensor) || result === buffer) return;
    if (result.numel() !== buffer.numel()) {
      throw new RangeError(
        `DistributedDataParallel: a communication hook ended with ${result.numel()} elements for a bucket of ${buffer.numel()}`,
      );
    }
    unowned(() => copyInto(buffer, result.reshape([buffer.numel()])));
    result.dispose();
  }

  /** Which parameters some rank has used: the exchange starts now, and ends when the result is asked for. */
  #exchangeUsed(used: Uint8Array, reached: Uint8Array | null): () => Uint8Array {
    if (this.#options.staticGraph && this.#known !== null) return () => this.#known!.anywhere;
    const flags = unowned(() => placed(new Uint8Array(used), this.#options.group));
    let work: Work;
    try {
      work = this.#options.group.allReduce(flags, { op: "max" });
    } catch (error) {
      flags.dispose();
      throw error;
    }
    return () => {
      try {
        work.wait();
        const anywhere = flags.data() as Uint8Array;
        if (this.#options.staticGraph) this.#known = { reached, anywhere };
        return anywhere;
      } finally {
        flags.dispose();
      }
    };
  }

  /** Takes part in the reduction of a backward pass of other ranks, with zeros. */
  shadow(): void {
    const buffers = this.buckets.map((it) => it.zeros());
    try {
      const started = this.buckets.map((it, i) => this.#start(it, buffers[i]));
      const { findUnusedParameters, staticGraph } = this.#options;
      const exchange = findUnusedParameters || staticGraph ? this.#exchangeUsed(new Uint8Array(this.#slots.length), null) : null;
      this.buckets.forEach((it, i) => this.#end(it, started[i], buffers[i]));
      exchange?.();
    } finally {
      for (const buffer of buffers) buffer.dispose();
    }
  }

  /** Lets go of the parameters and the buckets; gradients that lie in them stay valid. */
  dispose(): void {
    for (const handle of this.#handles) handle.remove();
    for (const bucket of this.buckets) bucket.buffer.dispose();
  }
}
