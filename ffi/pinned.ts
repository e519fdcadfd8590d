/**
 * Page-locked host memory, from which a GPU copies by itself while the program goes on.
 *
 * Locking takes much longer than a copy, so blocks whose storage was freed are kept for the next one of their size.
 *
 * @module
 */
import { cpu, type Device, device as deviceOf } from "./device.ts";
import { check, cudaIfPresent, errorOf, lastError, libraryOf } from "./library.ts";
import { type Keeper, lend, type Storage } from "./storage.ts";

/** Alignment and smallest size: locking goes by pages, which two blocks must not share. */
const PAGE = 4096;
/** Bytes of unused blocks that stay locked. */
const IDLE_LIMIT = 256 * 2 ** 20;

const blocks = new Set<PinnedBlock>(); // every locked one
const idle = new Map<number, PinnedBlock[]>(); // those without a storage, by size
let idleBytes = 0;

/** A block of page-locked memory. */
export class PinnedBlock implements Keeper {
  /** The memory: whole pages. */
  readonly memory: Uint8Array<ArrayBuffer>;
  #device: Device | null = null;
  #event = 0;

  constructor(size: number) {
    const buffer = new ArrayBuffer(size + PAGE);
    const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(buffer)));
    this.memory = new Uint8Array(buffer, (PAGE - Number(BigInt(address) % BigInt(PAGE))) % PAGE, size);
    const library = libraryOf(deviceOf("cuda"));
    check(library.dg_pin(this.memory, size), library);
    blocks.add(this);
  }

  /** Notes that a copy from this memory has been given to the current stream of `device`. */
  used(device: Device): void {
    const library = libraryOf(device);
    if (this.#device !== device) {
      this.wait();
      this.#forget();
      this.#event = library.dg_event_create(device.index);
      if (this.#event === 0) throw errorOf(3, lastError(library));
      this.#device = device;
    }
    check(library.dg_event_record(this.#event), library);
  }

  /** True while a copy may be under way. */
  get busy(): boolean {
    if (this.#device === null) return false;
    const done = new Uint32Array(1);
    return libraryOf(this.#device).dg_event_query(this.#event, done) === 0 && done[0] === 0;
  }

  /** Waits for the last copy. */
  wait(): void {
    if (this.#device === null) return;
    const library = libraryOf(this.#device);
    check(library.dg_event_synchronize(this.#event), library);
  }

  #forget(): void {
    if (this.#device !== null) libraryOf(this.#device).dg_event_free(this.#event);
    this.#device = null;
  }

  /** The storage has gone: keeps the block for another, or unlocks it. */
  free(id: number): void {
    libraryOf(cpu).dg_free(id);
    const size = this.memory.length;
    if (idleBytes + size > IDLE_LIMIT) {
      this.unpin();
      return;
    }
    const list = idle.get(size);
    if (list === undefined) idle.set(size, [this]);
    else list.push(this);
    idleBytes += size;
  }

  /** Unlocks the memory when the last copy is done. */
  unpin(): void {
    if (!blocks.delete(this)) return;
    try {
      this.wait();
    } finally {
      this.#forget();
      libraryOf(deviceOf("cuda")).dg_unpin(this.memory);
    }
  }
}

/** A CPU storage over page-locked memory; needs a CUDA device. */
export function pinned(bytes: number, shape: readonly number[]): Storage {
  const size = Math.max(PAGE, 2 ** Math.ceil(Math.log2(bytes)));
  const list = idle.get(size) ?? [], at = list.findIndex((block) => !block.busy);
  let block: PinnedBlock;
  if (at >= 0) {
    block = list.splice(at, 1)[0];
    idleBytes -= size;
  } else {
    block = new PinnedBlock(size);
  }
  return lend(block.memory.subarray(0, bytes), cpu, shape, block);
}

/** Unlocks the blocks that no storage uses. */
export function releasePinned(): void {
  for (const list of idle.values()) for (const block of list) block.unpin();
  idle.clear();
  idleBytes = 0;
}

/** Unlocks all memory of this thread, for a worker that ends. */
export function unpinAll(): void {
  if (blocks.size === 0 || cudaIfPresent() === null) return;
  for (const block of blocks) block.unpin();
  idle.clear();
  idleBytes = 0;
}
