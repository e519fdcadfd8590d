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
import { Recording } from "./recording.ts";

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

class Function<A extends unknown[], R> {
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
        this.replays++;
        return recording.replay(tensors, this.#arena) as R;
      }
      mismatch ??= found;
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

export function compile<A extends unknown[], R>(fn: (...args: A) => R, options?: CompileOptions): Compiled<A, R> {
  if (typeof fn !== "function") throw new TypeError(`compile: takes a function, got ${fn === null ? "null" : typeof fn}`);
  const limit = options?.limit ?? 8;
  if (!Number.isSafeInteger(limit) || limit < 1) throw new RangeError(`compile: limit must be a whole number >= 1, got ${limit}`);
  const state = new Function(fn, limit, options?.fullGraph ?? false);
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
