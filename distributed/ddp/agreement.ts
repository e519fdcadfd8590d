/**
 * Ranks that must have the same module: finding out whether they do, and giving all of them the values of one.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { DistributedError } from "../../ffi/errors.ts";
import { allocate } from "../../ffi/storage.ts";
import type { Module } from "../../nn/module.ts";
import { copyInto } from "../../ops/copy.ts";
import { zeros } from "../../ops/creation.ts";
import { bytesOf } from "../../tensor/dtype.ts";
import { contiguousStrides, textOf } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { placed } from "../placed.ts";
import type { ProcessGroup } from "../process_group.ts";
import { unowned } from "./buckets.ts";

/** One thing that ranks must agree on: what it is, and how it is here. */
export type Item = readonly [what: string, value: string];

function look(x: Tensor): string {
  const order = x.isContiguous() ? "" : `, strides ${textOf(x.strides)}`;
  return `${textOf(x.shape)} of ${x.dtype}${x.requiresGrad ? "" : " without gradient"}${order}`;
}

/** Parameters and buffers, in order. */
export function describe(module: Module): Item[] {
  return [
    ...[...module.namedParameters()].map(([name, x]): Item => [`parameter ${name}`, look(x)]),
    ...[...module.namedBuffers()].map(([name, x]): Item => [`buffer ${name}`, look(x)]),
  ];
}

/** The uint8 tensors of all ranks, which have one length. */
function gatherBytes(group: ProcessGroup, bytes: Uint8Array<ArrayBuffer>): Uint8Array[] {
  return unowned(() => {
    using own = placed(bytes, group), all = zeros([group.size, bytes.length], { dtype: "uint8", device: group.device });
    group.allGather(all, own).wait();
    const data = all.data() as Uint8Array;
    return Array.from({ length: group.size }, (_, i) => data.subarray(i * bytes.length, (i + 1) * bytes.length));
  });
}

/** The first difference between two descriptions. */
function difference(first: readonly Item[], other: readonly Item[]): [there: string, here: string] {
  const text = (item: Item | undefined) => item === undefined ? "nothing more" : `${item[0]} ${item[1]}`;
  for (let i = 0;; i++) {
    if (first[i]?.[0] !== other[i]?.[0] || first[i]?.[1] !== other[i]?.[1]) return [text(other[i]), text(first[i])];
  }
}

/**
 * Refuses, on all ranks, items that differ between them. Collective.
 *
 * @throws {DistributedError} With the first rank that differs from rank 0, and its first difference.
 */
export function checkAgreement(group: ProcessGroup, items: readonly Item[], op: string): void {
  if (group.size === 1) return;
  const text = new TextEncoder().encode(JSON.stringify(items));
  const mark = new Uint8Array(40);
  mark.set(createHash("sha256").update(text).digest());
  new DataView(mark.buffer).setFloat64(32, text.length);
  const marks = gatherBytes(group, mark), same = (a: Uint8Array, b: Uint8Array) => a.every((it, i) => it === b[i]);
  if (marks.every((it) => same(it, marks[0]))) return;
  const lengths = marks.map((it) => new DataView(it.buffer, it.byteOffset).getFloat64(32));
  const padded = new Uint8Array(Math.max(...lengths));
  padded.set(text);
  const lists = gatherBytes(group, padded).map((it, i): Item[] => JSON.parse(new TextDecoder().decode(it.subarray(0, lengths[i]))));
  const rank = marks.findIndex((it) => !same(it, marks[0])), [there, here] = difference(lists[0], lists[rank]);
  const global = group.ranks[rank];
  throw new DistributedError(`${op}: the ranks differ: rank ${global} has ${there} where rank ${group.ranks[0]} has ${here}`, {
    rank: global,
  });
}

/**
 * Gives all ranks the elements of rank `root`, in one collective. Tensors must have the same shapes, dtypes and order on every rank.
 *
 * @param root Number within the group.
 */
export function broadcastAll(group: ProcessGroup, tensors: readonly Tensor[], root: number): void {
  if (group.size === 1 || tensors.length === 0) return;
  const places: number[] = [];
  let bytes = 0;
  for (const x of tensors) {
    places.push(bytes);
    bytes += Math.ceil(x.numel() * bytesOf(x.dtype) / 16) * 16;
  }
  unowned(() => {
    const storage = allocate(bytes, tensors[0].device, [bytes], true);
    using whole = new Tensor(storage, [bytes], [1], 0, "uint8");
    const parts = tensors.map((x, i) =>
      new Tensor(storage, x.shape, contiguousStrides(x.shape), places[i] / bytesOf(x.dtype), x.dtype, false)
    );
    if (group.rank === root) tensors.forEach((x, i) => copyInto(parts[i], x));
    group.broadcast(whole, root).wait();
    if (group.rank === root) return;
    tensors.forEach((x, i) => {
      copyInto(x, parts[i]);
      x.storage.version++;
    });
  });
}

/** Broadcasts of at most this size: parameters of large models go in several. */
const CHUNK_BYTES = 2 ** 26;

/** {@linkcode broadcastAll} of any number of bytes, also on several devices. */
export function broadcastState(group: ProcessGroup, tensors: readonly Tensor[], root: number): void {
  let chunk: Tensor[] = [], bytes = 0;
  for (const x of tensors) {
    const size = x.numel() * bytesOf(x.dtype);
    if (chunk.length > 0 && (bytes + size > CHUNK_BYTES || x.device !== chunk[0].device)) {
      broadcastAll(group, chunk, root);
      chunk = [];
      bytes = 0;
    }
    chunk.push(x);
    bytes += size;
  }
  broadcastAll(group, chunk, root);
}
