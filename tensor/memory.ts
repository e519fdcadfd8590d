/**
 * Native memory: statistics, limit, and collecting what is unreachable.
 *
 * @module
 */
import { cpu } from "../ffi/device.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { type MemoryStats, memoryStats } from "../ffi/storage.ts";

export { collect, pressed } from "../ffi/storage.ts";
export type { MemoryStats };

/** Memory in use. */
export function stats(): MemoryStats {
  return memoryStats(cpu);
}

/**
 * Sets a limit on the bytes in use; 0 for none. Exceeding it is an `OutOfMemoryError`.
 *
 * @throws {RangeError} If it is negative or not whole.
 */
export function setLimit(bytes: number): void {
  const library = libraryOf(cpu);
  check(library.dg_memory_limit(bytes), library);
}

/** Starts the peaks of {@linkcode stats} anew. */
export function resetPeak(): void {
  const library = libraryOf(cpu);
  check(library.dg_memory_reset_peak(), library);
}

/** Gives cached memory back to the system. */
export function releaseCache(): void {
  const library = libraryOf(cpu);
  check(library.dg_memory_release_cache(), library);
}
