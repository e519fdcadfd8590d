/**
 * The state of a training as JSON and tensors.
 *
 * @module
 */
import { FormatError } from "../../ffi/errors.ts";
import { Tensor } from "../../tensor/tensor.ts";

/** What can say what it needs to go on, and go on from that: modules, optimisers, schedulers, loaders, samplers, transforms. */
export interface Stateful {
  /** What is to be saved: values that {@linkcode encode} takes. */
  stateDict(): unknown;
  /** Goes on from there. */
  loadStateDict(state: never): unknown;
}

/** True for what has both methods. */
export function isStateful(value: unknown): value is Stateful {
  const it = value as Partial<Stateful> | null;
  return typeof value === "object" && value !== null && typeof it!.stateDict === "function" && typeof it!.loadStateDict === "function";
}

/** What JSON does not have is `{ [MARK]: kind, ... }`. */
const MARK = "$";

function isPlain(value: object): value is Record<string, unknown> {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * `value` as JSON. Its tensors are put into `tensors`, by their path.
 *
 * @param path Name of the value, for tensors and errors.
 * @throws {TypeError} For what neither JSON nor a tensor holds, as functions and instances of classes.
 */
export function encode(value: unknown, path: string, tensors: Map<string, Tensor>): unknown {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") return Number.isFinite(value) && !Object.is(value, -0) ? value : { [MARK]: "number", text: text(value) };
  if (typeof value === "bigint") return { [MARK]: "bigint", text: String(value) };
  if (value === undefined) return { [MARK]: "undefined" };
  if (value instanceof Tensor) {
    value.checkAlive(`saveCheckpoint: ${path}`);
    tensors.set(path, value);
    return { [MARK]: "tensor", name: path };
  }
  if (Array.isArray(value)) return value.map((it, i) => encode(it, `${path}/${i}`, tensors));
  if (typeof value === "object" && isPlain(value)) {
    const entries = Object.entries(value).map(([key, it]) => [key, encode(it, `${path}/${key}`, tensors)]);
    const object = Object.fromEntries(entries);
    return MARK in value ? { [MARK]: "object", object } : object;
  }
  const what = typeof value === "object" ? value.constructor?.name ?? "an object" : typeof value;
  throw new TypeError(
    `saveCheckpoint: ${path} is of type ${what}: takes numbers, strings, booleans, null, arrays, plain objects, tensors and what has ` +
      `stateDict() and loadStateDict()`,
  );
}

const text = (value: number) => Object.is(value, -0) ? "-0" : String(value);

/** The value that {@linkcode encode} was given, with the tensors that `tensor` returns. */
export function decode(value: unknown, tensor: (name: string) => Tensor): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((it) => decode(it, tensor));
  const marked = value as Record<string, unknown>;
  switch (marked[MARK]) {
    case undefined:
      return Object.fromEntries(Object.entries(value).map(([key, it]) => [key, decode(it, tensor)]));
    case "object":
      return Object.fromEntries(Object.entries(marked.object as object).map(([key, it]) => [key, decode(it, tensor)]));
    case "number":
      return Number(marked.text);
    case "bigint":
      return BigInt(marked.text as string);
    case "undefined":
      return undefined;
    case "tensor":
      return tensor(marked.name as string);
    default:
      throw new FormatError(`a value of kind ${JSON.stringify(marked[MARK])}, which this version does not know`);
  }
}
