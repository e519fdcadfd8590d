/**
 * Who watches native memory while a step is recorded: nobody at other times.
 *
 * @module
 */
import type { Storage } from "./storage.ts";

/** Is told of what a recording depends on, as it happens. */
export interface Observer {
  /** A call is about to name `storage`. */
  named(storage: Storage): void;
  /** `storage` was allocated, filled with zero bytes or not. */
  allocated(storage: Storage, zeroed: boolean): void;
  /** `storage` got elements from memory of the program, or lies over it. */
  filled(storage: Storage): void;
}

/** The observer of this thread. */
export let observer: Observer | null = null;

/** Sets or, with `null`, dismisses the observer. */
export function observe(next: Observer | null): void {
  observer = next;
}
