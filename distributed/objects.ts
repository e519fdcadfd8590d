/**
 * Collectives of values that are not tensors.
 *
 * @module
 */
import { deserialize, serialize } from "node:v8";
import { DistributedError } from "../ffi/errors.ts";
import { zeros } from "../ops/creation.ts";
import { emptyTensor } from "../ops/native.ts";
import { Tensor } from "../tensor/tensor.ts";
import { placed } from "./placed.ts";
import type { CollectiveOptions, ProcessGroup } from "./process_group.ts";
import { defaultGroup, within } from "./world.ts";

/** Largest object, as bytes, that the object collectives carry: 256 MiB. */
export const MAX_OBJECT_BYTES = 2 ** 28;

/** What the collectives of objects may be given. */
export interface ObjectOptions extends CollectiveOptions {
  /** Which ranks take part. Default: all. */
  group?: ProcessGroup;
}

/** Refuses tensors, whose elements a serialised form would not hold. */
function refuseTensors(value: unknown, op: string, seen = new Set<unknown>()): void {
  if (typeof value !== "object" || value === null || seen.has(value) || ArrayBuffer.isView(value)) return;
  seen.add(value);
  if (value instanceof Tensor) throw new TypeError(`${op}: tensors have collectives of their own, send their data() or use those`);
  const parts = value instanceof Map ? [...value.keys(), ...value.values()] : value instanceof Set ? [...value] : Object.values(value);
  for (const part of parts) refuseTensors(part, op, seen);
}

function encode(value: unknown, op: string): Uint8Array<ArrayBuffer> {
  refuseTensors(value, op);
  let bytes: Uint8Array;
  try {
    bytes = serialize(value);
  } catch (error) {
    throw new TypeError(`${op}: the object cannot be serialised: ${error instanceof Error ? error.message : error}`);
  }
  if (bytes.length > MAX_OBJECT_BYTES) {
    throw new RangeError(`${op}: the object has ${bytes.length} bytes, at most ${MAX_OBJECT_BYTES} are carried: use tensors`);
  }
  return new Uint8Array(bytes);
}

function decode(bytes: Uint8Array, op: string): unknown {
  try {
    return deserialize(bytes);
  } catch (error) {
    throw new DistributedError(`${op}: what came cannot be read, do all ranks run the same version of Deno? (${error})`, {
      collective: op,
    });
  }
}

/** The sizes that all ranks give. */
async function allSizes(group: ProcessGroup, size: number, options: ObjectOptions): Promise<number[]> {
  using own = placed(new Float64Array([size]), group), all = emptyTensor([group.size], "float64", group.device);
  await group.allGather(all, own, options).done();
  return Array.from(all.data(), Number);
}

/** `bytes` with zeros behind them, as a tensor. */
function padded(bytes: Uint8Array, length: number, group: ProcessGroup): Tensor {
  const whole = new Uint8Array(new ArrayBuffer(length));
  whole.set(bytes);
  return placed(whole, group);
}

const bytesIn = (x: Tensor) => x.data() as Uint8Array<ArrayBuffer>;

/**
 * Gives every rank the object of rank `src`.
 *
 * Objects of all collectives here are copied as `structuredClone` does: plain objects, arrays, maps, sets, typed arrays, dates, errors and big integers, not
 * functions and not tensors; up to {@linkcode MAX_OBJECT_BYTES}. They must come from ranks that are trusted.
 *
 * @param value The object, on rank `src`; ignored elsewhere.
 * @param src Global rank. Default 0.
 * @returns The object of rank `src`.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
 * assertEquals(await distributed.broadcastObject({ epoch: 3, best: new Map([["loss", 0.5]]) }), { epoch: 3, best: new Map([["loss", 0.5]]) });
 * await distributed.destroyProcessGroup();
 * ```
 */
export async function broadcastObject<T>(value: T, src = 0, options: ObjectOptions = {}): Promise<T> {
  const op = "broadcastObject", group = options.group ?? defaultGroup(), root = within(op, group, src, "src");
  const bytes = group.rank === root ? encode(value, op) : new Uint8Array(0);
  using size = placed(new Float64Array([bytes.length]), group);
  await group.broadcast(size, root, options).done();
  const length = checkedLength(size.item(), op);
  using content = padded(bytes, length, group);
  await group.broadcast(content, root, options).done();
  return decode(bytesIn(content), op) as T;
}

/** Gives every rank the objects of all, by rank. See {@linkcode broadcastObject}. */
export async function allGatherObject<T>(value: T, options: ObjectOptions = {}): Promise<T[]> {
  const op = "allGatherObject", group = options.group ?? defaultGroup(), bytes = encode(value, op);
  const sizes = await allSizes(group, bytes.length, options), longest = Math.max(...sizes.map((it) => checkedLength(it, op)));
  using own = padded(bytes, longest, group), all = zeros([group.size, longest], { dtype: "uint8", device: group.device });
  await group.allGather(all, own, options).done();
  const data = bytesIn(all);
  return sizes.map((size, i) => decode(data.subarray(i * longest, i * longest + size), op) as T);
}

/**
 * Gives rank `dst` the objects of all, by rank. See {@linkcode broadcastObject}.
 *
 * @param dst Global rank. Default 0.
 * @returns The objects on rank `dst`, `null` elsewhere.
 */
export async function gatherObject<T>(value: T, dst = 0, options: ObjectOptions = {}): Promise<T[] | null> {
  const op = "gatherObject", group = options.group ?? defaultGroup(), root = within(op, group, dst, "dst"), bytes = encode(value, op);
  const sizes = await allSizes(group, bytes.length, options), longest = Math.max(...sizes.map((it) => checkedLength(it, op)));
  using own = padded(bytes, longest, group);
  if (group.rank !== root) {
    await group.gather(null, own, root, options).done();
    return null;
  }
  using all = zeros([group.size, longest], { dtype: "uint8", device: group.device });
  await group.gather(all, own, root, options).done();
  const data = bytesIn(all);
  return sizes.map((size, i) => decode(data.subarray(i * longest, i * longest + size), op) as T);
}

/**
 * Gives each rank its object of a list on rank `src`. See {@linkcode broadcastObject}.
 *
 * @param values One object a rank, on rank `src`; ignored elsewhere.
 * @param src Global rank. Default 0.
 */
export async function scatterObject<T>(values: readonly T[] | null, src = 0, options: ObjectOptions = {}): Promise<T> {
  const op = "scatterObject", group = options.group ?? defaultGroup(), root = within(op, group, src, "src");
  let parts: Uint8Array[] = [];
  if (group.rank === root) {
    if (!Array.isArray(values) || values.length !== group.size) {
      throw new TypeError(
        `${op}: rank ${src} must give a list with an object for each of the ${group.size} ranks, got ${values?.length ?? values}`,
      );
    }
    parts = values.map((it) => encode(it, op));
  }
  using sizes = placed(Float64Array.from({ length: group.size }, (_, i) => parts[i]?.length ?? 0), group);
  await group.broadcast(sizes, root, options).done();
  const lengths = Array.from(sizes.data(), Number).map((it) => checkedLength(it, op)), longest = Math.max(...lengths);
  using own = zeros([longest], { dtype: "uint8", device: group.device });
  if (group.rank === root) {
    const rows = new Uint8Array(longest * group.size);
    parts.forEach((it, i) => rows.set(it, i * longest));
    using all = placed(rows, group);
    await group.scatter(own, all, root, options).done();
  } else {
    await group.scatter(own, null, root, options).done();
  }
  return decode(bytesIn(own).subarray(0, lengths[group.rank]), op) as T;
}

function checkedLength(length: number, op: string): number {
  if (!Number.isInteger(length) || length < 1 || length > MAX_OBJECT_BYTES) {
    throw new DistributedError(`${op}: a rank announces an object of ${length} bytes, at most ${MAX_OBJECT_BYTES} are carried`, {
      collective: op,
    });
  }
  return length;
}
