/**
 * Finding, opening and checking the native libraries, each when it is first needed.
 *
 * @module
 */
import { type Device } from "./device.ts";
import { DeviceError, DisposedError, DTypeError, LibraryNotFoundError, NativeError, OutOfMemoryError, ShapeError } from "./errors.ts";
import { buildCommand, libraryCandidates } from "./locate.ts";
import { type KernelLibrary, symbols } from "./symbols.ts";

/** Version of the C ABI that this code speaks: `DG_ABI_VERSION` of `kernels/abi.h`. */
const ABI_VERSION = 2;

let cpuLibrary: KernelLibrary | null = null;

/** The kernel library that serves `device`, opened at the first call. */
export function libraryOf(device: Device): KernelLibrary {
  if (device.code === 0) return cpuLibrary ??= open("cpu");
  throw new DeviceError(`${device}: this version has no CUDA library, use "cpu"`);
}

function open(name: "cpu"): KernelLibrary {
  const candidates = libraryCandidates(name);
  const reasons: string[] = [];
  for (const path of candidates) {
    if (!exists(path)) continue;
    try {
      const library = Deno.dlopen(path, symbols).symbols;
      const version = library.dg_abi_version();
      if (version === ABI_VERSION) return library;
      reasons.push(`${path} speaks ABI ${version}, this version of dinograd needs ${ABI_VERSION}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
      reasons.push(`${path}: ${error instanceof Error ? error.message : error}`);
    }
  }
  const found = reasons.length > 0 ? `does not fit (${reasons.join("; ")})` : `is not built (looked for ${candidates.join(", ")})`;
  throw new LibraryNotFoundError(`the native ${name} library ${found}. Build it with: ${buildCommand()}`);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return false;
  }
}

/** Text of the last native failure on this thread. */
export function lastError(library: KernelLibrary): string {
  const bytes = new Uint8Array(512);
  const length = library.dg_last_error(bytes, bytes.length);
  return new TextDecoder().decode(bytes.subarray(0, Math.min(length, bytes.length - 1)));
}

/** Raises the error of a native call that failed. */
export function check(status: number, library: KernelLibrary): void {
  if (status !== 0) throw errorOf(status, lastError(library));
}

/** Errors by `dg_status` of `kernels/abi.h`; `RangeError` for an index or argument outside its range. */
const byStatus: readonly (new (message: string) => Error)[] = [
  NativeError,
  ShapeError,
  DTypeError,
  DeviceError,
  OutOfMemoryError,
  DisposedError,
  RangeError,
  NativeError,
];

/** The error that a native status and text stand for. */
export function errorOf(status: number, text: string): Error {
  return new (byStatus[status] ?? NativeError)(text);
}
