/**
 * Opening the libraries that carry collective operations, and what their failures mean.
 *
 * @module
 */
import { type CommunicatorLibrary, communicatorSymbols } from "./communicator_symbols.ts";
import { errorOf, openLibrary } from "./library.ts";

/** Version of the C ABI that this code speaks: `DG_COMM_ABI_VERSION` of `kernels/communicator.h`. */
const ABI_VERSION = 1;

/** What a work has come to: `dg_comm_status` of `kernels/communicator.h`. */
export const WorkStatus = { done: 0, pending: 32, timeout: 33, lost: 34, mismatch: 35, closed: 36, aborted: 37 } as const;

/** The reductions, in the order of their native codes. */
export const reductions = ["sum", "average", "product", "min", "max"] as const;

let glooLibrary: CommunicatorLibrary | null = null;

/**
 * The library of process groups over Gloo, opened at the first call.
 *
 * @throws {LibraryNotFoundError} If it is not built.
 */
export function gloo(): CommunicatorLibrary {
  return glooLibrary ??= openLibrary("gloo", communicatorSymbols, (library) => library.dg_comm_abi_version(), ABI_VERSION);
}

/** The error of a call that was refused, on this thread. */
export function refusal(library: CommunicatorLibrary): Error {
  const bytes = new Uint8Array(2048);
  const length = library.dg_comm_last_error(bytes, bytes.length);
  return errorOf(library.dg_comm_last_status(), new TextDecoder().decode(bytes.subarray(0, Math.min(length, bytes.length - 1))));
}
