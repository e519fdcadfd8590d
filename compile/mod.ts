/**
 * `compile`: a function's native work recorded once and made again without running the function.
 *
 * @module
 */
import { DisposedError } from "../ffi/errors.ts";
import { capturing } from "../tensor/capture.ts";
import { recorder } from "../tensor/recorder.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Arena } from "./arena.ts";
import { record, synchronous } from "./record.ts";
import { Differs, Recording } from "./recording.ts";

/** Options of {@linkcode compile}. */
export interface CompileOptions {
  /** Recordings for calls that differ, at most. Default 8. */
  limit?: number;
  /** Throw where the function would run uncompiled. Default `false`. */
  fullGraph?: boolean;
}

/** A function that {@linkcode compile} made: takes and returns what the given one does. */
export interface Compiled<A extends unknown[], R> extends Disposable {
  (...args: A): R;
  /** Why calls run uncompiled; `null` while they do not. */
  readonly reason: string | null;
  /** Recordings so far. */
  readonly recordings: number;
  /** Calls that repeated a recording. */
  readonly replays: number;
  /** Frees the recordings. The function cannot be called afterwards; a second call of this does nothing. */
  dispose(): void;
}

const ATTEMPTS = 8; // calls that may put recording off

/** What is behind a compiled function. */
class State<A extends unknown[], R> {
  readonly #fn: (...args: A) => R;
  readonly #limit: number;
  readonly #fullGraph: boolean;
  readonly #recordings: Recording[] = []; // the last used first
  readonly #arena = new Arena();
  #made = 0;
  #putOff = 0;
  #disposed = false;
  reason: string | null = null;
  replays = 0;

  constructor(fn: (...args: A) => R, limit: number, fullGraph: boolean) {
    this.#fn = fn;
    this.#limit = limit;
    this.#fullGraph = fullGraph;
  }

  get recordings(): number {
    return this.#made;
  }

  get name(): string {
    return this.#fn.name || "(without a name)";
  }

  call(args: A): R {
    if (this.#disposed) throw new DisposedError(`compile: the compiled function ${this.name} has been disposed`);
    if (recorder !== null || capturing()) return this.#plain(args); // part of what is being recorded
    let mismatch: string | null = null;
    for (let i = 0; i < this.#recordings.length; i++) {
      const recording = this.#recordings[i], tensors: Tensor[] = [], found = recording.mismatch(args, tensors);
      if (found === null) {
        if (i > 0) this.#recordings.unshift(...this.#recordings.splice(i, 1));
        try {
          const result = recording.replay(tensors, this.#arena) as R;
          this.replays++;
          return result;
        } catch (error) {
          if (!(error instanceof Differs)) throw error;
        }
      }
      mismatch ??= found ?? "the counts of an optimiser";
    }
    if (this.reason !== null) {
      if (this.#fullGraph) throw new Error(this.#text);
      return this.#plain(args);
    }
    if (this.#made >= this.#limit) {
      this.#refuse(`${this.#limit} recordings were made, and calls still differ in what a recording takes for granted: ${mismatch}`);
      return this.#plain(args);
    }
    const { result, outcome } = record(this.#fn as (...args: unknown[]) => R, args);
    if (outcome instanceof Recording) {
      this.#recordings.unshift(outcome);
      this.#made++;
      this.#putOff = 0;
    } else if ("reason" in outcome) this.#refuse(outcome.reason);
    else if (++this.#putOff >= ATTEMPTS) this.#refuse(`each of ${ATTEMPTS} calls did what happens once: ${outcome.later}`);
    return result;
  }

  #plain(args: A): R {
    return scope(() => synchronous(this.#fn(...args)));
  }

  #refuse(reason: string): void {
    this.reason = reason;
    if (this.#fullGraph) throw new Error(this.#text);
    console.warn(this.#text);
  }

  get #text(): string {
    return `compile: ${this.name} runs uncompiled: ${this.reason}`;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const recording of this.#recordings) recording[Symbol.dispose]();
    this.#recordings.length = 0;
    this.#arena[Symbol.dispose]();
  }
}

/**
 * Makes a function that does what `fn` does, sooner (compare `torch.compile`): a call records the native work of `fn` - kernel calls and what memory they
 * work on - and later calls do that work again without running `fn`. Typically `fn` is a whole training step. It saves the time that JavaScript takes, which
 * is most of the time of small models, and puts all temporary results into one planned block. On the CPU results are those of `fn`, bit for bit.
 *
 * **What a repetition does.** It computes on the arguments of the call, wherever they lie, and on the tensors that `fn` found, as they are then; returns
 * fresh tensors; leaves new gradients; counts optimisers' steps; reads learning rates and other options that are numbers anew; goes on with the generators;
 * sets the modes that `fn` sets; and takes the steps of schedulers that `fn` takes. Other JavaScript in `fn` is not run: numbers that it computes and tensors
 * that it looks up are what they were when it was recorded, and what it does besides is not done again (as with `torch.compile`, keep such code outside).
 *
 * **What is watched.** A call whose arguments have another structure, shape, strides, dtype or device, or hold other numbers, is recorded apart; so is one
 * after a change of gradient mode, default dtype or device, of a module that `fn` called (mode, properties, parameters, the modules inside), of an
 * optimiser's parameters, states or options that are no numbers, of which tensors have gradients, or of `requiresGrad` or `setData` of a tensor that it uses.
 *
 * **What cannot be repeated** is run as it is, now and in later calls; `reason` then says why, and so does one warning: reading elements (`item()`,
 * `data()`, printing, conditions on values), tensors made of arrays, results with a graph, tensors that `fn` keeps elsewhere, copies between devices,
 * hooks, messages to other processes, or more than `limit` recordings. A call that makes the states of an optimiser is run as it is; the next is recorded.
 *
 * `fn` runs as in `scope()`: tensors that it makes and does not return are freed. A compiled function inside another one, or in `cuda.capture`, is part of
 * that one.
 *
 * @param fn Not asynchronous. Its arguments are tensors, other values, and arrays and plain objects of them.
 * @param options.limit Recordings at most. Default 8.
 * @param options.fullGraph Throw an error instead of running `fn` uncompiled. Default `false`.
 * @throws {TypeError} If `fn` is not a function; when called, if it is asynchronous.
 * @throws {RangeError} If `limit` is not a whole number of at least 1.
 *
 * @example A training step
 * ```ts
 * import { compile, nn, optim, rand, type Tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using model = new nn.Linear(4, 1);
 * using optimizer = new optim.Adam(model.parameters());
 * using step = compile((x: Tensor, y: Tensor) => {
 *   optimizer.zeroGrad();
 *   const loss = model.call(x).sub(y).square().mean();
 *   loss.backward();
 *   optimizer.step();
 *   return loss.detach();
 * });
 * for (let i = 0; i < 10; i++) step(rand([8, 4]), rand([8, 1]));
 * assertEquals([step.reason, step.recordings, step.replays], [null, 1, 8]);
 * ```
 *
 * @example Inference
 * ```ts
 * import { compile, nn, noGrad, rand, type Tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using model = new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Linear(8, 2));
 * using infer = compile((x: Tensor) => noGrad(() => model.call(x)));
 * const x = rand([3, 4]), y = infer(x);
 * assertEquals(infer(x).tolist(), y.tolist());
 * ```
 */
export function compile<A extends unknown[], R>(fn: (...args: A) => R, options?: CompileOptions): Compiled<A, R> {
  if (typeof fn !== "function") throw new TypeError(`compile: takes a function, got ${fn === null ? "null" : typeof fn}`);
  const limit = options?.limit ?? 8;
  if (!Number.isSafeInteger(limit) || limit < 1) throw new RangeError(`compile: limit must be a whole number >= 1, got ${limit}`);
  const state = new State(fn, limit, options?.fullGraph ?? false);
  const compiled = (...args: A): R => state.call(args);
  Object.defineProperties(compiled, {
    name: { value: `compiled ${fn.name}` },
    reason: { get: () => state.reason },
    recordings: { get: () => state.recordings },
    replays: { get: () => state.replays },
    dispose: { value: () => state.dispose() },
    [Symbol.dispose]: { value: () => state.dispose() },
  });
  return compiled as Compiled<A, R>;
}
