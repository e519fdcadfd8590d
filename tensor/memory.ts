/**
 * Native memory: statistics, limit, and collecting what is unreachable.
 *
 * @module
 */
import { cpu, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { releasePinned } from "../ffi/pinned.ts";
import { type MemoryStats, memoryStats } from "../ffi/storage.ts";

export { collect, pressed } from "../ffi/storage.ts";
export type { MemoryStats };

/** Memory in use on a device (default: the CPU); `tensors` counts those of all devices. */
export function stats(device: DeviceLike = cpu): MemoryStats {
  return memoryStats(deviceOf(device));
}

/**
 * Sets a limit on the bytes in use on a device (default: the CPU); 0 for none. Exceeding it is an `OutOfMemoryError`.
 *
 * @throws {RangeError} If it is negative or not whole.
 */
export function setLimit(bytes: number, device: DeviceLike = cpu): void {
  const place = deviceOf(device), library = libraryOf(place);
  check(library.dg_memory_limit(place.index, bytes), library);
}

/** Starts the peaks of {@linkcode stats} anew. */
export function resetPeak(device: DeviceLike = cpu): void {
  const place = deviceOf(device), library = libraryOf(place);
  check(library.dg_memory_reset_peak(place.index), library);
}

/** Gives cached memory back to the system; for the CPU also page-locked memory that no tensor uses. */
export function releaseCache(device: DeviceLike = cpu): void {
  if (deviceOf(device) === cpu) releasePinned();
  const place = deviceOf(device), library = libraryOf(place);
  check(library.dg_memory_release_cache(place.index), library);
}
