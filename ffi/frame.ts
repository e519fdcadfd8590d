/**
 * The frame: the array of tensor headers through which a native call receives its tensors.
 *
 * A tensor's header is written into the next slot when a call names it (about 10 ns) and means nothing afterwards, so that views
 * need no native memory of their own and nothing has to be freed but storages.
 *
 * @module
 */
import { DisposedError, ShapeError } from "./errors.ts";
import { observer } from "./observer.ts";
import type { Storage } from "./storage.ts";

/** What a header says of a tensor. */
export interface Operand {
  /** Memory that the elements live in. */
  readonly storage: Storage;
  /** Sizes of the axes. */
  readonly shape: readonly number[];
  /** Elements to step for each axis. */
  readonly strides: readonly number[];
  /** First element, counted from the start of the storage. */
  readonly offset: number;
  /** `dg_dtype` of `kernels/abi.h`. */
  readonly dtypeCode: number;
  /** True once the tensor was disposed. */
  readonly disposed: boolean;
}

/** Longest shape that a header holds. */
export const MAX_RANK = 8;
/** Slot number that stands for an absent tensor. */
export const NONE = 0xffffffff;

const MAX_SLOTS = 4096; // DG_MAX_SLOTS
const DOUBLES = 18; // sizeof(dg_tensor) / 8

/** A frame of headers; the module has one for ordinary calls, `frame`. */
export class Frame {
  /** Address of the first header, the first argument of most native functions. */
  readonly pointer: Deno.PointerObject;
  readonly #doubles: Float64Array;
  readonly #words: Uint32Array;
  readonly #slots: number;
  #next = 0;

  constructor(slots: number) {
    this.#slots = Math.min(slots, MAX_SLOTS);
    const buffer = new ArrayBuffer(this.#slots * DOUBLES * 8);
    this.#doubles = new Float64Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.pointer = Deno.UnsafePointer.of(this.#words)!;
  }

  /** Forgets the headers of the last call and returns the address of the first. */
  begin(): Deno.PointerObject {
    this.#next = 0;
    return this.pointer;
  }

  /** Writes the header of `x` (or none) into the next slot and returns the slot number. */
  put(x: Operand | null): number {
    if (x === null) return NONE;
    const storage = x.storage;
    if (x.disposed || storage.id === 0) throw disposed(x);
    if (storage.detached) throw transferred();
    if (observer !== null) observer.named(storage);
    const slot = this.#next;
    if (slot >= this.#slots) throw new RangeError(`a call takes at most ${this.#slots} tensors`);
    this.#next = slot + 1;
    const at = slot * DOUBLES, doubles = this.#doubles, { shape, strides } = x, rank = shape.length;
    if (rank > MAX_RANK) throw new ShapeError(`rank ${rank} exceeds ${MAX_RANK}: [${shape.join(", ")}]`);
    this.#words[at * 2] = storage.id;
    this.#words[at * 2 + 1] = x.dtypeCode | rank << 8 | storage.device.code << 16;
    doubles[at + 1] = x.offset;
    for (let i = 0; i < rank; i++) {
      doubles[at + 2 + i] = shape[i];
      doubles[at + 10 + i] = strides[i];
    }
    return slot;
  }
}

function disposed(x: Operand): DisposedError {
  return new DisposedError(
    `a tensor of shape [${
      x.shape.join(", ")
    }] was used after it was disposed: keep() or return it from the scope() that made it, or dispose() it later`,
  );
}

/** The error of a tensor whose JavaScript memory is gone. */
export function transferred(): DisposedError {
  return new DisposedError("the array that this tensor was made over without a copy has been transferred elsewhere");
}

/** The frame of ordinary calls: up to 64 tensors. */
export const frame: Frame = new Frame(64);
