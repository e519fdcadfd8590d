/**
 * Buckets: the gradients of several parameters in one piece of memory, which is reduced at once.
 *
 * @module
 */
import { allocate } from "../../ffi/storage.ts";
import { context, withContextSync } from "../../tensor/context.ts";
import { bytesOf } from "../../tensor/dtype.ts";
import { contiguousStrides, sameShape, type Shape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";

/** A parameter and its name. */
export type Named = readonly [name: string, parameter: Tensor];

/** Bytes of the first and the last bucket at most: the gradients that are ready first shall be under way soon, and those that are ready last soon be there. */
export const OUTER_BUCKET_BYTES = 2 ** 20;

/** The gradients of one bucket, as communication hooks see them. */
export interface GradBucket {
  /** Position of the bucket; buckets are reduced in this order. */
  readonly index: number;
  /** All gradients of the bucket, one after the other; shape `[n]`. */
  readonly buffer: Tensor;
  /** The parameters. */
  readonly parameters: readonly Tensor[];
  /** True for the last bucket of a backward pass. */
  readonly isLast: boolean;
  /** The gradient of each parameter: views of `buffer`. */
  gradients(): Tensor[];
}

/** Runs `make` so that no scope owns what it makes. */
export function unowned<T>(make: () => T): T {
  return withContextSync({ ...context(), grad: false, scope: null }, make);
}

/** Elements that stay until they are disposed of, zeros. */
function flat(count: number, like: Tensor): Tensor {
  return unowned(() => {
    const storage = allocate(count * bytesOf(like.dtype), like.device, [count], true);
    const x = new Tensor(storage, [count], [1], 0, like.dtype);
    x.kept = true;
    return x;
  });
}

/** A parameter's place in a bucket. */
export class Slot {
  /** Position of the parameter among those that require gradients. */
  readonly index: number;
  /** Name of the parameter. */
  readonly name: string;
  /** The parameter. */
  readonly parameter: Tensor;
  /** The bucket. */
  readonly bucket: Bucket;
  /** First element in the bucket. */
  readonly start: number;
  readonly #strides: Shape;
  readonly #shape: Shape;

  /** Buckets make their slots. */
  constructor(index: number, [name, parameter]: Named, bucket: Bucket, start: number) {
    this.index = index;
    this.name = name;
    this.parameter = parameter;
    this.bucket = bucket;
    this.start = start;
    this.#shape = parameter.shape;
    this.#strides = parameter.isDense ? parameter.strides : contiguousStrides(parameter.shape);
  }

  /** The gradient in `buffer`, in the parameter's memory order. */
  view(buffer: Tensor = this.bucket.buffer): Tensor {
    return unowned(() => {
      const x = new Tensor(buffer.storage, this.#shape, this.#strides, this.start, buffer.dtype);
      x.kept = true;
      return x;
    });
  }

  /** True if the parameter's gradient lies in the bucket. */
  get inPlace(): boolean {
    const { grad } = this.parameter, { buffer } = this.bucket;
    return grad !== null && grad.storage === buffer.storage && grad.offset === this.start && grad.dtype === buffer.dtype &&
      sameShape(grad.strides, this.#strides);
  }

  /** True if the parameter is what it was when the bucket was made. */
  get fits(): boolean {
    const { parameter, bucket: { buffer } } = this;
    return parameter.dtype === buffer.dtype && parameter.device === buffer.device && sameShape(parameter.shape, this.#shape) &&
      (!parameter.isDense || sameShape(parameter.strides, this.#strides));
  }
}

/** Gradients of several parameters of one dtype and device. */
export class Bucket {
  /** Position of the bucket. */
  readonly index: number;
  /** Its memory, shape `[n]`. */
  readonly buffer: Tensor;
  /** Its parameters, those whose gradients come first in front. */
  readonly slots: readonly Slot[];

  /** @param members Parameters and their positions. */
  constructor(index: number, members: readonly (readonly [position: number, parameter: Named])[]) {
    this.index = index;
    this.buffer = flat(members.reduce((sum, [, [, p]]) => sum + p.numel(), 0), members[0][1][1]);
    let start = 0;
    this.slots = members.map(([position, named]) => {
      const slot = new Slot(position, named, this, start);
      start += named[1].numel();
      return slot;
    });
  }

  /** What a communication hook sees, in the bucket's own memory or another. */
  face(isLast: boolean, buffer: Tensor = this.buffer): GradBucket {
    const { index, slots } = this;
    return { index, buffer, isLast, parameters: slots.map((it) => it.parameter), gradients: () => slots.map((it) => it.view(buffer)) };
  }

  /** Memory like the bucket's, zeros. */
  zeros(): Tensor {
    return flat(this.buffer.numel(), this.buffer);
  }
}

type Members = [position: number, parameter: Named][];

/** Parts off from the last bucket what comes last, if that is less than the rest. */
function withoutTail(members: Members, sizeOf: (p: Tensor) => number): Members[] {
  const sizes = members.map(([, [, p]]) => sizeOf(p)), all = sizes.reduce((a, b) => a + b, 0);
  let start = members.length, tail = 0;
  while (start > 0 && tail + sizes[start - 1] <= OUTER_BUCKET_BYTES) tail += sizes[--start];
  return 2 * tail < all ? [members.slice(0, start), members.slice(start)] : [members];
}

/**
 * Puts parameters into buckets: from the last to the first, as backward reaches them, those of one dtype and device together.
 *
 * @param bytes Largest size of a bucket; one parameter may be larger by itself. The first and the last bucket of each kind have at most
 *     {@linkcode OUTER_BUCKET_BYTES}.
 * @returns The buckets, in the order in which they will be complete.
 */
export function assignBuckets(parameters: readonly Named[], bytes: number): Bucket[] {
  interface Open {
    members: Members;
    bytes: number;
    limit: number;
  }
  const sizeOf = (p: Tensor) => p.numel() * bytesOf(p.dtype);
  const open = new Map<string, Open>(), closed: Members[] = [];
  for (let position = parameters.length - 1; position >= 0; position--) {
    const [, p] = parameters[position], key = `${p.dtype} ${p.device}`;
    let bucket = open.get(key);
    if (bucket === undefined) open.set(key, bucket = { members: [], bytes: 0, limit: Math.min(bytes, OUTER_BUCKET_BYTES) });
    bucket.members.push([position, parameters[position]]);
    bucket.bytes += sizeOf(p);
    if (bucket.bytes < bucket.limit) continue;
    closed.push(bucket.members);
    open.set(key, { members: [], bytes: 0, limit: bytes });
  }
  for (const { members } of open.values()) closed.push(...withoutTail(members, sizeOf));
  const last = (members: Members) => members.at(-1)?.[0] ?? Infinity;
  return closed.filter((it) => it.length > 0).sort((a, b) => last(b) - last(a)).map((members, i) => new Bucket(i, members));
}
