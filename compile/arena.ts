/**
 * Planned memory: where in one block each temporary storage of a program lies.
 *
 * @module
 */
import type { Device } from "../ffi/device.ts";
import { allocate, type Storage } from "../ffi/storage.ts";

/** A storage that is needed from one call to another. */
export interface Lifetime {
  readonly slot: number;
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

/** Places of storages in a block, and its size. */
export interface Placement {
  readonly offsets: ReadonlyMap<number, number>;
  readonly bytes: number;
}

const ALIGNMENT = 64; // what the kernels' widest loads like, and a multiple of every element

/**
 * Places the largest first, each at the lowest address that is free while it lives (Pisarchyk and Lee 2020, greedy by size).
 */
export function place(storages: readonly Lifetime[]): Placement {
  const sorted = storages.filter((it) => it.bytes > 0).sort((a, b) => b.bytes - a.bytes || a.first - b.first);
  const placed: { start: number; end: number; first: number; last: number }[] = []; // by start
  const offsets = new Map<number, number>();
  let total = 0;
  for (const { slot } of storages) offsets.set(slot, 0);
  for (const { slot, bytes, first, last } of sorted) {
    const size = Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    let start = 0, position = 0;
    for (let i = 0; i < placed.length; i++) {
      const other = placed[i];
      if (other.last < first || last < other.first) continue;
      if (other.start - start >= size) break;
      start = Math.max(start, other.end);
    }
    while (position < placed.length && placed[position].start < start) position++;
    placed.splice(position, 0, { start, end: start + size, first, last });
    offsets.set(slot, start);
    total = Math.max(total, start + size);
  }
  return { offsets, bytes: total };
}

/** The block that all recordings of a function use, one after the other. */
export class Arena implements Disposable {
  #storage: Storage | null = null;

  /** The block, at least so large. */
  at(bytes: number, device: Device): Storage {
    const had = this.#storage;
    if (had !== null && had.id !== 0 && had.bytes >= bytes && had.device === device) return had;
    had?.release();
    this.#storage = null;
    const storage = allocate(bytes, device, [bytes]);
    storage.retain();
    return this.#storage = storage;
  }

  /** Frees the block. */
  [Symbol.dispose](): void {
    this.#storage?.release();
    this.#storage = null;
  }
}
