/**
 * What loaders and their workers say to each other.
 *
 * @module
 */
import { fromBytes, toBytes } from "../ops/bytes.ts";
import { Tensor } from "../tensor/tensor.ts";

/** Where a worker finds its dataset. */
export interface WorkerSource {
  /** URL of the module. */
  readonly module: string;
  /** Name of the exported function that makes the dataset. */
  readonly name: string;
  /** Its arguments. */
  readonly args: readonly unknown[];
}

/** The worker's place among its siblings. */
export interface WorkerInfo {
  /** 0 for the first worker. */
  readonly id: number;
  /** Number of workers. */
  readonly count: number;
  /** Seed of the loader. */
  readonly seed: number;
  /** Epoch of the loader. */
  readonly epoch: number;
}

/** Loader to worker. */
export type Request =
  | { readonly kind: "start"; readonly source: WorkerSource; readonly info: WorkerInfo; readonly stopped: Int32Array }
  | { readonly kind: "batch"; readonly indices: readonly number[] | number; readonly dropLast: boolean }
  | { readonly kind: "end" };

/** An error that crossed threads. */
export interface SentError {
  /** Name of its class. */
  readonly name: string;
  /** Its message. */
  readonly message: string;
  /** Where it was raised. */
  readonly stack: string;
}

/** Worker to loader; replies come in the order of the requests. */
export type Reply =
  | { readonly kind: "batch"; readonly value: unknown }
  | { readonly kind: "done" }
  | { readonly kind: "error"; readonly error: SentError }
  | { readonly kind: "ended" };

const MARK = "dinograd tensor";

/** `value` with each tensor replaced by its bytes; their buffers are added to `transfer`. */
export function encode(value: unknown, transfer: ArrayBuffer[]): unknown {
  if (value instanceof Tensor) {
    const sent = toBytes(value);
    transfer.push(sent.bytes.buffer);
    return { [MARK]: sent };
  }
  if (Array.isArray(value)) return value.map((item) => encode(item, transfer));
  if (isPlain(value)) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, encode(item, transfer)]));
  return value;
}

/** The opposite of {@linkcode encode}: tensors over the transferred memory. */
export function decode(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(decode);
  if (!isPlain(value)) return value;
  if (Object.hasOwn(value, MARK)) return fromBytes(value[MARK] as Parameters<typeof fromBytes>[0]);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item)]));
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
