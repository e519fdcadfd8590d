/**
 * Splitting nested inputs over devices and joining nested outputs.
 *
 * @module
 */
import { type Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { cat, chunk, stack, to, unsqueeze } from "../ops/mod.ts";
import { textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** A plain object, as opposed to an instance of a class. */
function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null &&
    (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null);
}

/**
 * Splits the tensors of a nested structure into one piece a device along `dim` (as `torch.nn.parallel.scatter`). Arrays, plain objects and maps are
 * entered; everything else goes to every device as it is. There are as many results as the longest split has pieces: fewer than devices when the
 * batch is smaller.
 *
 * @param value Tensors, and structures of them.
 * @param devices Where the pieces go.
 * @param dim The axis to split. Default 0.
 *
 * @example
 * ```ts
 * import { arange, distributed, type Tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const pieces = distributed.parallel.scatter([arange(5), "same"], ["cpu", "cpu"]) as [Tensor, string][];
 * assertEquals(pieces.map(([x]) => x.tolist()), [[0, 1, 2], [3, 4]]);
 * assertEquals(pieces[1][1], "same");
 * ```
 */
export function scatter(value: unknown, devices: readonly DeviceLike[], dim = 0): unknown[] {
  if (devices.length === 0) throw new RangeError("scatter: no devices");
  const places = devices.map((it) => deviceOf(it));
  const pieces = split(value, places, dim);
  return pieces ?? [value];
}

/** Pieces by device; `null` for what has no tensors. */
function split(value: unknown, devices: readonly Device[], dim: number): unknown[] | null {
  if (value instanceof Tensor) {
    if (value.ndim === 0) throw new RangeError("scatter: a tensor without axes cannot be split: give it a batch axis, or pass a number");
    return chunk(value, devices.length, dim).map((piece, i) => to(piece, devices[i]));
  }
  if (Array.isArray(value)) return combine(value.map((it) => split(it, devices, dim)), value, (items) => items);
  if (value instanceof Map) {
    const keys = [...value.keys()], values = [...value.values()];
    return combine(values.map((it) => split(it, devices, dim)), values, (items) => new Map(items.map((it, i) => [keys[i], it])));
  }
  if (isRecord(value)) {
    const keys = Object.keys(value), values = Object.values(value);
    return combine(values.map((it) => split(it, devices, dim)), values, (items) => Object.fromEntries(items.map((it, i) => [keys[i], it])));
  }
  return null;
}

function combine(parts: readonly (unknown[] | null)[], whole: readonly unknown[], build: (items: unknown[]) => unknown): unknown[] | null {
  let count = 0;
  for (const part of parts) if (part !== null) count = count === 0 ? part.length : Math.min(count, part.length);
  if (count === 0) return null;
  return Array.from({ length: count }, (_, i) => build(parts.map((part, at) => part === null ? whole[at] : part[i])));
}

/** How {@linkcode gather} joins tensors: along an existing axis, or along a new one. */
export type Join = "cat" | "stack";

/**
 * Joins the outputs of several devices on one, structure by structure (as `torch.nn.parallel.gather`, which can only concatenate). Tensors without
 * axes become a vector. What is not a tensor must be equal everywhere and is taken from the first.
 *
 * @param outputs One structure a device.
 * @param target Where the result goes.
 * @param options.dim The axis to join along, or the new axis. Default 0.
 * @param options.join `"cat"` (default) or `"stack"`.
 * @throws {TypeError} If the structures differ.
 *
 * @example
 * ```ts
 * import { distributed, ones, type Tensor, zeros } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const joined = distributed.parallel.gather([{ y: zeros([1, 2]) }, { y: ones([1, 2]) }], "cpu") as { y: Tensor };
 * assertEquals(joined.y.tolist(), [[0, 0], [1, 1]]);
 * ```
 */
export function gather(outputs: readonly unknown[], target: DeviceLike, options?: { dim?: number; join?: Join }): unknown {
  if (outputs.length === 0) throw new RangeError("gather: no outputs");
  const join = options?.join ?? "cat";
  if (join !== "cat" && join !== "stack") throw new TypeError(`gather: join must be "cat" or "stack", got ${JSON.stringify(join)}`);
  return merge(outputs, deviceOf(target), options?.dim ?? 0, join, "the output");
}

function merge(outputs: readonly unknown[], target: Device, dim: number, join: Join, what: string): unknown {
  const first = outputs[0];
  const differ = () => {
    throw new TypeError(
      `gather: ${what} differs between devices: ${outputs.map((it) => it instanceof Tensor ? textOf(it.shape) : typeof it).join(", ")}`,
    );
  };
  if (first instanceof Tensor) {
    const moved = outputs.map((it) => it instanceof Tensor ? to(it, target) : differ()!);
    if (join === "stack") return stack(moved, dim);
    return cat(first.ndim === 0 ? moved.map((it) => unsqueeze(it, 0)) : moved, first.ndim === 0 ? 0 : dim);
  }
  if (Array.isArray(first)) {
    if (!outputs.every((it) => Array.isArray(it) && it.length === first.length)) differ();
    return first.map((_, i) => merge(outputs.map((it) => (it as unknown[])[i]), target, dim, join, `${what}[${i}]`));
  }
  if (first instanceof Map) {
    if (!outputs.every((it) => it instanceof Map && it.size === first.size)) differ();
    const keys = [...first.keys()];
    return new Map(
      keys.map((key) => [key, merge(outputs.map((it) => (it as Map<unknown, unknown>).get(key)), target, dim, join, `${what}.${key}`)]),
    );
  }
  if (isRecord(first)) {
    const keys = Object.keys(first);
    if (!outputs.every((it) => isRecord(it) && keys.every((key) => key in it))) differ();
    return Object.fromEntries(
      keys.map((key) => [key, merge(outputs.map((it) => (it as Record<string, unknown>)[key]), target, dim, join, `${what}.${key}`)]),
    );
  }
  if (!outputs.every((it) => Object.is(it, first))) differ();
  return first;
}
