/**
 * Opening the libraries that carry collective operations, and what their failures mean.
 *
 * @module
 */
import { type CommunicatorLibrary, communicatorSymbols, type NcclLibrary, ncclSymbols } from "./communicator_symbols.ts";
import { device } from "./device.ts";
import { errorOf, libraryOf, openedPath, openLibrary } from "./library.ts";
import { ncclPath } from "./locate.ts";

/** Version of the C ABI that this code speaks: `DG_COMM_ABI_VERSION` of `kernels/communicator.h`. */
const ABI_VERSION = 1;

/** What a work has come to: `dg_comm_status` of `kernels/communicator.h`. */
export const WorkStatus = { done: 0, pending: 32, timeout: 33, lost: 34, mismatch: 35, closed: 36, aborted: 37 } as const;

/** The reductions, in the order of their native codes. */
export const reductions = ["sum", "average", "product", "min", "max"] as const;

let glooLibrary: CommunicatorLibrary | null = null, ncclLibrary: NcclLibrary | null = null;

/**
 * The library of process groups over Gloo, opened at the first call.
 *
 * @throws {LibraryNotFoundError} If it is not built.
 */
export function gloo(): CommunicatorLibrary {
  return glooLibrary ??= openLibrary("gloo", communicatorSymbols, (library) => library.dg_comm_abi_version(), ABI_VERSION);
}

/**
 * The library of process groups over NCCL, opened at the first call together with NCCL: the file that `DINOGRAD_NCCL_LIBRARY` names, the stand-in where the CUDA
 * devices are emulated, that of the toolkit which setup has fetched, or the system's.
 *
 * @throws {LibraryNotFoundError} If it is not built.
 * @throws {DeviceError} If NCCL cannot be opened.
 */
export function nccl(): CommunicatorLibrary {
  if (ncclLibrary !== null) return ncclLibrary;
  libraryOf(device("cuda"));
  const library = openLibrary("nccl", ncclSymbols, (it) => it.dg_comm_abi_version(), ABI_VERSION);
  const path = (text: string) => new TextEncoder().encode(`${text}\0`);
  const status = library.dg_nccl_open(path(openedPath("cuda")!), path(ncclPath(openedPath("cuda")!)));
  if (status !== 0) throw refusal(library, status);
  return ncclLibrary = library;
}

/** The error of a call that was refused, on this thread. */
export function refusal(library: CommunicatorLibrary, status: number = library.dg_comm_last_status()): Error {
  const bytes = new Uint8Array(2048);
  const length = library.dg_comm_last_error(bytes, bytes.length);
  return errorOf(status, new TextDecoder().decode(bytes.subarray(0, Math.min(length, bytes.length - 1))));
}
