/**
 * Finding, opening and checking the native libraries, each when it is first needed.
 *
 * @module
 */
import { type Device, device as deviceOf } from "./device.ts";
import {
  DeviceError,
  DisposedError,
  DistributedError,
  DTypeError,
  LibraryNotFoundError,
  NativeError,
  OutOfMemoryError,
  ShapeError,
} from "./errors.ts";
import { buildCommand, libraryCandidates, type LibraryName } from "./locate.ts";
import { type KernelLibrary, symbols } from "./symbols.ts";

/** Version of the C ABI that this code speaks: `DG_ABI_VERSION` of `kernels/abi.h`. */
const ABI_VERSION = 3;

let cpuLibrary: KernelLibrary | null = null, cudaLibrary: KernelLibrary | null = null;
let cudaDevices = 0;

/**
 * The kernel library that serves `device`, opened at the first call.
 *
 * @throws {LibraryNotFoundError} If it is not built.
 * @throws {DeviceError} If there is no such device.
 */
export function libraryOf(device: Device): KernelLibrary {
  if (device.code === 0) return cpuLibrary ??= open("cpu");
  if (cudaLibrary === null) openCuda();
  if (device.index >= cudaDevices) {
    throw new DeviceError(
      `${device} does not exist: there ${cudaDevices === 1 ? "is one CUDA device" : `are ${cudaDevices} CUDA devices`}`,
    );
  }
  return cudaLibrary!;
}

function openCuda(): void {
  const library = open("cuda"), count = new Uint32Array(1);
  const status = library.dg_device_count(count);
  if (status !== 0) {
    const text = lastError(library);
    throw new DeviceError(driverIsMissing() ? "cuda: NVIDIA's driver is not installed (libcuda.so.1 cannot be opened)" : text);
  }
  if (count[0] === 0) throw new DeviceError("cuda: the driver sees no GPU (CUDA_VISIBLE_DEVICES may hide it)");
  cudaDevices = count[0];
  cudaLibrary = library;
}

/** The run time itself calls a missing driver one that is too old. */
function driverIsMissing(): boolean {
  if (libraryCandidates("cuda").some((path) => path.endsWith("_emulated.so"))) return false;
  try {
    Deno.dlopen("libcuda.so.1", {}).close();
    return false;
  } catch (error) {
    return !(error instanceof Deno.errors.NotCapable);
  }
}

/** The kernel library of the CUDA devices if there is one and a device for it, else `null`. */
export function cudaIfPresent(): KernelLibrary | null {
  try {
    return libraryOf(deviceOf("cuda"));
  } catch (error) {
    if (error instanceof DeviceError || error instanceof LibraryNotFoundError) return null;
    throw error;
  }
}

/** The kernel libraries that are open, the CPU's among them. */
export function openLibraries(): KernelLibrary[] {
  return [cpuLibrary ??= open("cpu"), ...cudaLibrary === null ? [] : [cudaLibrary]];
}

/** Number of CUDA devices, 0 without a library or a driver. */
export function cudaDeviceCount(): number {
  return cudaIfPresent() === null ? 0 : cudaDevices;
}

function open(name: "cpu" | "cuda"): KernelLibrary {
  return openLibrary(name, symbols, (library) => library.dg_abi_version(), ABI_VERSION);
}

/**
 * Opens a native library.
 *
 * @param versionOf The version of the interface that an open library has.
 * @param wanted The version that this code speaks.
 * @throws {LibraryNotFoundError} If it is not built, or of another version.
 */
export function openLibrary<S extends Deno.ForeignLibraryInterface>(
  name: LibraryName,
  table: S,
  versionOf: (library: Deno.DynamicLibrary<S>["symbols"]) => number,
  wanted: number,
): Deno.DynamicLibrary<S>["symbols"] {
  const candidates = libraryCandidates(name);
  const reasons: string[] = [];
  for (const path of candidates) {
    if (!exists(path)) continue;
    try {
      const library = Deno.dlopen(path, table).symbols;
      const version = versionOf(library);
      if (version === wanted) {
        opened.set(name, path);
        return library;
      }
      reasons.push(`${path} speaks ABI ${version}, this version of dinograd needs ${wanted}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
      const text = error instanceof Error ? error.message : String(error);
      const lacking = /(\S+): cannot open shared object file/.exec(text)?.[1];
      if (name === "cuda" && lacking !== undefined) {
        const driver = lacking.startsWith("libcuda.so") ? ", which comes with NVIDIA's driver" : "";
        throw new DeviceError(`cuda: ${path} needs ${lacking}${driver}: this machine lacks it`);
      }
      reasons.push(`${path}: ${text}`);
    }
  }
  const found = reasons.length > 0 ? `does not fit (${reasons.join("; ")})` : `is not built (looked for ${candidates.join(", ")})`;
  throw new LibraryNotFoundError(`the native ${name} library ${found}. Build it with: ${buildCommand(name)}`);
}

/** The file of a library that has been opened. */
export function openedPath(name: LibraryName): string | undefined {
  return opened.get(name);
}

const opened = new Map<LibraryName, string>();

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

let failureOf: ((text: string) => Error | null) | null = null;

/** Sets who knows the errors of failed collectives, which a call that waits for the device reports by their text. */
export function findFailures(find: (text: string) => Error | null): void {
  failureOf = find;
}

/** The statuses from here on are those of collectives: `dg_comm_status` of `kernels/communicator.h`. */
const COLLECTIVES = 32;

/** The error that a native status and text stand for. */
export function errorOf(status: number, text: string): Error {
  if (status >= COLLECTIVES) return failureOf?.(text) ?? new DistributedError(text);
  return new (byStatus[status] ?? NativeError)(text);
}
