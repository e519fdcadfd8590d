/**
 * Native memory as JavaScript sees it: reference-counted storages, with the garbage collector as the second way out.
 *
 * A storage is freed when its count reaches zero (dispose, end of scope, the autograd engine) or when nothing refers to its
 * JavaScript object any more. The second way costs a finaliser (0.3 us), which is registered only for storages that outlive the
 * synchronous stretch of code that made them: most do not.
 *
 * @module
 */
import { cpu, type Device, device as deviceOf } from "./device.ts";
import { OutOfMemoryError } from "./errors.ts";
import { check, errorOf, lastError, libraryOf } from "./library.ts";
import { observer } from "./observer.ts";

/** What sees to the end of a storage, instead of the library alone. */
export interface Keeper {
  /** Nothing refers to the storage any more: free it, now or later. */
  free(id: number): void;
}

/** The live storages of a kind of device, by table entry: ids of two libraries are alike. */
class Ledger {
  /** Shape of the tensor that a storage was made for, which names the groups in out-of-memory errors. */
  readonly shapes: (readonly number[] | undefined)[] = [];
  readonly sizes: number[] = [];
  readonly ids: number[] = [];

  add(id: number, bytes: number, shape: readonly number[]): void {
    const entry = id & 0xffffff;
    this.shapes[entry] = shape;
    this.sizes[entry] = bytes;
    this.ids[entry] = id;
  }

  remove(id: number): void {
    const entry = id & 0xffffff;
    this.shapes[entry] = undefined;
    this.ids[entry] = 0;
  }
}

const cpuLedger = new Ledger(), cudaLedger = new Ledger();
const ledgerOf = (device: Device) => device.code === 0 ? cpuLedger : cudaLedger;

/** A block of native memory, shared by a tensor and its views. */
export class Storage {
  /** Id in the native table; 0 once freed. */
  id: number;
  /** Size in bytes. */
  readonly bytes: number;
  /** Where the memory is. */
  readonly device: Device;
  /** The JavaScript memory that this storage lies over, when it was lent and not allocated. */
  readonly lent: Uint8Array<ArrayBuffer> | null;
  /** What sees to its end, if not the library alone. */
  readonly keeper: Keeper | null;
  /** Tensors, saved tensors and others that hold it. */
  references = 0;
  /** Counts in-place writes. */
  version = 0;
  /** Counts in-place writes that were recorded: a handle whose own count is behind has lost its place in the graph. */
  graphVersion = 0;
  /** Counts changes of what tensors over it stand for: other elements (`setData`), `requiresGrad`. Recorded steps ask for it. */
  changes = 0;
  /** A finaliser is registered. */
  registered = false;

  /** Use {@linkcode allocate} or {@linkcode lend}. */
  constructor(
    id: number,
    bytes: number,
    device: Device,
    lent: Uint8Array<ArrayBuffer> | null,
    label: readonly number[],
    keeper: Keeper | null = null,
  ) {
    this.id = id;
    this.bytes = bytes;
    this.device = device;
    this.lent = lent;
    this.keeper = keeper;
    liveCount++;
    liveBytes += bytes;
    ledgerOf(device).add(id, bytes, label);
    if (nursery.push(this) === 1) queueMicrotask(leaveNursery);
    else if (nursery.length > nurseryLimit) compactNursery();
  }

  /** True when it lies over JavaScript memory that was transferred elsewhere. */
  get detached(): boolean {
    return this.lent !== null && this.lent.buffer.detached;
  }

  /** Takes a reference. */
  retain(): void {
    this.references++;
  }

  /** Gives a reference back; the last one frees the memory. */
  release(): void {
    if (--this.references === 0) this.free();
  }

  /** Frees the memory at once. */
  free(): void {
    if (this.id === 0) return;
    if (this.registered) finalizers.unregister(this);
    forget(this.id, this.bytes, this.device, this.keeper);
    this.id = 0;
  }
}

function forget(id: number, bytes: number, device: Device, keeper: Keeper | null): void {
  liveCount--;
  liveBytes -= bytes;
  ledgerOf(device).remove(id);
  if (keeper === null) libraryOf(device).dg_free(id);
  else keeper.free(id);
}

let liveCount = 0, liveBytes = 0;

/** Frees all storages of this thread, for a worker that ends: its finalisers will not run. Its tensors cannot be used any more. */
export function freeAll(): void {
  for (const id of cpuLedger.ids) if (id > 0) libraryOf(cpu).dg_free(id);
  for (const id of cudaLedger.ids) if (id > 0) libraryOf(deviceOf("cuda")).dg_free(id);
  cpuLedger.ids.length = cudaLedger.ids.length = 0;
}

// ---- the garbage collector's way

interface Remains {
  readonly id: number;
  readonly bytes: number;
  readonly device: Device;
  readonly keeper: Keeper | null;
}
const finalizers = new FinalizationRegistry<Remains>((it) => forget(it.id, it.bytes, it.device, it.keeper));

/** Storages made since the last return to the microtask queue. */
let nursery: Storage[] = [];
let nurseryLimit = 4096;

function compactNursery(): void {
  nursery = nursery.filter((storage) => storage.id !== 0);
  nurseryLimit = Math.max(4096, nursery.length * 2);
}

function leaveNursery(): void {
  for (const storage of nursery) {
    if (storage.id === 0 || storage.registered) continue;
    storage.registered = true;
    const { id, bytes, device, keeper } = storage;
    finalizers.register(storage, { id, bytes, device, keeper }, storage);
  }
  nursery = [];
}

let collector: (() => void) | null | undefined;

/** V8's own collector where the runtime lets us reach it. */
async function findCollector(): Promise<(() => void) | null> {
  try {
    const [v8, vm] = await Promise.all([import("node:v8"), import("node:vm")]);
    v8.setFlagsFromString("--expose-gc");
    const found = vm.runInNewContext("gc");
    return typeof found === "function" ? found : null;
  } catch {
    return null;
  }
}

let bytesAfterCollection = 0;

/** Garbage worth a collection (10 ms): a quarter of what is in use, and at least this. */
const COLLECTION_FLOOR = 32 * 2 ** 20;

/**
 * Frees the memory of unreachable tensors: collects garbage and lets the finalisers run. What V8's compiler looks at just then, on a thread of its own,
 * stays until a later collection.
 *
 * A `DataLoader` does this by itself between batches when {@linkcode pressed} says so.
 */
export async function collect(): Promise<void> {
  const turn = () => new Promise<void>((done) => setTimeout(done, 0));
  collector = collector === undefined ? await findCollector() : collector;
  await turn(); // frames of the caller's may still point at what it is done with
  leaveNursery();
  collector?.();
  await turn(); // finalisers run as tasks of their own
  bytesAfterCollection = liveBytes;
}

/** True when so much was allocated since the last collection that another is worth its time. */
export function pressed(): boolean {
  if (liveBytes < bytesAfterCollection) bytesAfterCollection = liveBytes;
  return liveBytes - bytesAfterCollection > Math.max(COLLECTION_FLOOR, bytesAfterCollection / 4);
}

// ---- allocation

/**
 * Allocates native memory.
 *
 * @param bytes Size in bytes.
 * @param device Where.
 * @param shape Shape of the tensor it is for, named when memory runs out.
 * @param zeroed Fill with zero bytes. Default `false`.
 * @throws {OutOfMemoryError} Naming the largest live groups.
 */
export function allocate(bytes: number, device: Device, shape: readonly number[], zeroed = false): Storage {
  const library = libraryOf(device);
  const id = library.dg_alloc(bytes, zeroed ? 1 : 0, device.index);
  if (id === 0) throw outOfMemory(lastError(library), ledgerOf(device));
  const storage = new Storage(id, bytes, device, null, shape);
  if (observer !== null) observer.allocated(storage, zeroed);
  return storage;
}

/**
 * A storage over JavaScript memory, which it keeps alive; on a device with memory of its own, a copy. `array` must not be backed by shared or resizable
 * memory.
 *
 * @param keeper Sees to the end of the storage. Default: the library alone.
 */
export function lend(array: ArrayBufferView<ArrayBuffer>, device: Device, shape: readonly number[], keeper: Keeper | null = null): Storage {
  const library = libraryOf(device);
  if (device.type !== "cpu") {
    const copy = allocate(array.byteLength, device, shape);
    const status = library.dg_write(copy.id, 0, array as BufferSource, array.byteLength);
    if (status !== 0) {
      copy.free();
      check(status, library);
    }
    observer?.filled(copy);
    return copy;
  }
  const id = library.dg_wrap(array as BufferSource, array.byteLength);
  if (id === 0) throw errorOf(6, lastError(library));
  const memory = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  const storage = new Storage(id, array.byteLength, device, memory, shape, keeper);
  observer?.filled(storage);
  return storage;
}

/** The same memory under another id, with counts of its own. */
export function aliasOf(storage: Storage, shape: readonly number[]): Storage {
  const library = libraryOf(storage.device), id = library.dg_storage_alias(storage.id);
  if (id === 0) throw errorOf(5, lastError(library));
  const alias = new Storage(id, storage.bytes, storage.device, storage.lent, shape);
  alias.version = storage.version;
  alias.graphVersion = storage.graphVersion;
  return alias;
}

function outOfMemory(text: string, { shapes, sizes }: Ledger): Error {
  const groups = new Map<string, { count: number; bytes: number }>();
  shapes.forEach((shape, entry) => {
    if (shape === undefined) return;
    const label = `[${shape.join(", ")}] of ${sizes[entry]} bytes`;
    const group = groups.get(label) ?? { count: 0, bytes: 0 };
    group.count++;
    group.bytes += sizes[entry];
    groups.set(label, group);
  });
  const largest = [...groups].sort((a, b) => b[1].bytes - a[1].bytes).slice(0, 3);
  const named = largest.map(([label, { count, bytes }]) => `${count} x ${label} = ${(bytes / 1e6).toFixed(1)} MB`);
  return new OutOfMemoryError(
    `${text}${named.length > 0 ? `. Largest live groups: ${named.join("; ")}` : ""}. ` +
      `A loop that never awaits must free its tensors itself: put its body into scope(() => { ... })`,
  );
}

// ---- statistics

/** Memory in use, see {@linkcode memoryStats}. */
export interface MemoryStats {
  /** Live storages of this thread; a tensor and its views count once. */
  readonly tensors: number;
  /** Native bytes in use, by all threads of the process and the library's own work. */
  readonly bytes: number;
  /** Bytes that the native allocator holds, cached ones included. */
  readonly reservedBytes: number;
  /** Highest native bytes in use since the start or `memory.resetPeak()`. */
  readonly peakBytes: number;
  /** Highest `reservedBytes`. */
  readonly peakReservedBytes: number;
  /** Native limit in bytes, 0 for none. */
  readonly limit: number;
  /** Native allocations so far. */
  readonly allocations: number;
  /** Those that reused cached memory. */
  readonly cacheHits: number;
}

/** Memory in use on a device. */
export function memoryStats(device: Device): MemoryStats {
  const out = new Float64Array(8), library = libraryOf(device);
  check(library.dg_memory_stats(device.index, out), library);
  const [, bytes, reservedBytes, peakBytes, peakReservedBytes, limit, allocations, cacheHits] = out;
  return { tensors: liveCount, bytes, reservedBytes, peakBytes, peakReservedBytes, limit, allocations, cacheHits };
}
