/**
 * The number of threads that native CPU work uses.
 *
 * @module
 */
import { cpu } from "./device.ts";
import { check, libraryOf } from "./library.ts";

/** Threads that native work uses; all of the machine's by default (or `OMP_NUM_THREADS`). */
export function getThreads(): number {
  return libraryOf(cpu).dg_get_threads();
}

/**
 * Sets the number of threads. Results do not depend on it.
 *
 * @throws {RangeError} If it is below 1 or above the number of processors.
 */
export function setThreads(count: number): void {
  if (!Number.isSafeInteger(count) || Math.abs(count) > 2 ** 20) throw new RangeError(`setThreads: takes a whole number, got ${count}`);
  const library = libraryOf(cpu);
  check(library.dg_set_threads(count), library);
}
