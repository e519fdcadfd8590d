/**
 * The symbols of a communicator library, which carries collective operations: `kernels/communicator.h` row by row, as `symbols.ts` is `abi.h`.
 *
 * @module
 */

/** Symbols of a communicator library, as `Deno.dlopen` takes them. */
export const communicatorSymbols = {
  // ---- library
  dg_comm_abi_version: { parameters: [], result: "i32" },
  dg_comm_last_error: {
    parameters: [
      "buffer", // text
      "u32", // capacity
    ],
    result: "u32",
  },
  dg_comm_last_status: { parameters: [], result: "i32" },

  // ---- life
  dg_comm_open: {
    parameters: [
      "u32", // rank
      "u32", // size
      "buffer", // address
      "u32", // device
    ],
    result: "u32",
  },
  dg_comm_blob: {
    parameters: [
      "u32", // comm
      "buffer", // blob
      "u32", // capacity
    ],
    result: "u32",
  },
  dg_comm_connect: {
    parameters: [
      "u32", // comm
      "buffer", // blobs
      "u32", // bytes
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_abort: {
    parameters: [
      "u32", // comm
      "buffer", // text
    ],
    result: "i32",
  },
  dg_comm_close: {
    parameters: [
      "u32", // comm
    ],
    result: "i32",
  },

  // ---- collectives
  dg_comm_all_reduce: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // x
      "u32", // op
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_reduce: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // x
      "u32", // op
      "u32", // root
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_broadcast: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // x
      "u32", // root
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_all_gather: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // out
      "u32", // x
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_reduce_scatter: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // op
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_gather: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // root
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_scatter: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // out
      "u32", // x
      "u32", // root
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_all_to_all: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // out
      "u32", // x
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_barrier: {
    parameters: [
      "u32", // comm
      "f64", // timeout
    ],
    result: "u32",
  },

  // ---- messages
  dg_comm_send: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // x
      "u32", // target
      "u32", // tag
      "f64", // timeout
    ],
    result: "u32",
  },
  dg_comm_recv: {
    parameters: [
      "u32", // comm
      "pointer", // t
      "u32", // out
      "u32", // source
      "u32", // tag
      "f64", // timeout
    ],
    result: "u32",
  },

  // ---- works
  dg_work_wait: {
    parameters: [
      "u32", // work
      "f64", // timeout
    ],
    result: "i32",
  },
  dg_work_test: {
    parameters: [
      "u32", // work
    ],
    result: "i32",
  },
  dg_work_join: {
    parameters: [
      "u32", // work
    ],
    result: "i32",
  },
  dg_work_info: {
    parameters: [
      "u32", // work
      "buffer", // out3
      "buffer", // text
      "u32", // capacity
    ],
    result: "u32",
  },
  dg_work_free: {
    parameters: [
      "u32", // work
    ],
    result: "i32",
  },
  /** `dg_work_wait` on another thread, so that this one goes on. */
  dg_work_wait_elsewhere: {
    name: "dg_work_wait",
    parameters: [
      "u32", // work
      "f64", // timeout
    ],
    result: "i32",
    nonblocking: true,
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** Symbols of the library over NCCL: `kernels/nccl/open.h` besides those of all. */
export const ncclSymbols = {
  ...communicatorSymbols,
  dg_nccl_open: {
    parameters: [
      "buffer", // cuda_path
      "buffer", // nccl_path
    ],
    result: "i32",
  },
  dg_nccl_version: { parameters: [], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of the open library over NCCL. */
export type NcclLibrary = Deno.DynamicLibrary<typeof ncclSymbols>["symbols"];

/** The functions of an open communicator library. */
export type CommunicatorLibrary = Deno.DynamicLibrary<typeof communicatorSymbols>["symbols"];
