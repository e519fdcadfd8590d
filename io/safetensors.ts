/**
 * The safetensors format: tensors by name in one file that can be read piece by piece.
 *
 * A file is the length of its header (8 bytes, little-endian), the header (JSON: `__metadata__` of strings, and for each tensor `dtype`, `shape` and
 * `data_offsets`) and the elements, row-major, without gaps.
 *
 * @module
 */
import { device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { FormatError } from "../ffi/errors.ts";
import { MAX_RANK } from "../ffi/frame.ts";
import { defaultDevice } from "../ops/mod.ts";
import { readChunks, writeBytes } from "../ops/bytes.ts";
import { checkTensor, emptyTensor } from "../ops/native.ts";
import { bytesOf } from "../tensor/dtype.ts";

import type { Tensor } from "../tensor/tensor.ts";
import { pathOf, writeAll, writeFileAtomic } from "./files.ts";
import { formatHeader, type Header, headerLength, parseHeader, type Planned, type SafetensorsInfo } from "./safetensors_header.ts";

export type { SafetensorsInfo };

/** Tensors by name. */
export type NamedTensors = Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>;

/** What {@linkcode saveSafetensors} takes besides the tensors. */
export interface SafetensorsSaveOptions {
  /** Text entries for the header. Default: none. */
  metadata?: Record<string, string>;
}

function plan(tensors: NamedTensors, metadata: Record<string, string>): { head: Uint8Array<ArrayBuffer>; sorted: Tensor[]; bytes: number } {
  const op = "saveSafetensors";
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== "string") throw new TypeError(`${op}: metadata[${JSON.stringify(key)}] must be a string, got ${typeof value}`);
    if (!key.isWellFormed() || !value.isWellFormed()) throw new TypeError(`${op}: metadata[${JSON.stringify(key)}] is not valid Unicode`);
  }
  const named = new Map(tensors instanceof Map ? tensors : Object.entries(tensors)) as Map<string, Tensor>;
  const planned: Planned[] = [];
  for (const [name, x] of named) {
    if (name === "__metadata__") throw new TypeError(`${op}: no tensor can have the name "__metadata__"`);
    if (!name.isWellFormed()) throw new TypeError(`${op}: the name ${JSON.stringify(name)} is not valid Unicode`);
    checkTensor(x, op, JSON.stringify(name));
    planned.push({ name, dtype: x.dtype, shape: x.shape, bytes: x.numel() * bytesOf(x.dtype) });
  }
  const { head, sorted } = formatHeader(planned, metadata);
  return { head, sorted: sorted.map((it) => named.get(it.name)!), bytes: sorted.reduce((sum, it) => sum + it.bytes, head.length) };
}

/**
 * Writes tensors to a safetensors file. The file appears whole or not at all: an earlier one at `path` stays as it was when anything fails.
 *
 * @param path Where to.
 * @param tensors Tensors by name, of any dtype and memory order; they are written row-major. What a module's `stateDict()` returns fits.
 * @param options.metadata Text entries for the header. Default: none.
 * @throws {TypeError} If a value is not a tensor, or a name is `__metadata__` or not valid Unicode.
 * @throws {Deno.errors} If the file cannot be written.
 *
 * @example There and back
 * ```ts
 * import { loadSafetensors, saveSafetensors, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const path = await Deno.makeTempFile();
 * await saveSafetensors(path, { weight: tensor([[1, 2], [3, 4]]) }, { metadata: { epoch: "3" } });
 * const { weight } = await loadSafetensors(path);
 * assertEquals(weight.tolist(), [[1, 2], [3, 4]]);
 * await Deno.remove(path);
 * ```
 */
// deno-lint-ignore require-await
export async function saveSafetensors(path: string | URL, tensors: NamedTensors, options: SafetensorsSaveOptions = {}): Promise<void> {
  // The writes are synchronous so that the file holds the values of one moment.
  const { head, sorted } = plan(tensors, options.metadata ?? {});
  writeFileAtomic(path, (file) => {
    writeAll(file, head);
    for (const x of sorted) readChunks(x, (chunk) => writeAll(file, chunk));
  });
}

/** The bytes that {@linkcode saveSafetensors} would write. */
export function serializeSafetensors(tensors: NamedTensors, options: SafetensorsSaveOptions = {}): Uint8Array<ArrayBuffer> {
  const { head, sorted, bytes } = plan(tensors, options.metadata ?? {});
  const out = new Uint8Array(bytes);
  out.set(head);
  let at = head.length;
  for (const x of sorted) {
    readChunks(x, (chunk) => {
      out.set(chunk, at);
      at += chunk.length;
    });
  }
  return out;
}

/** Where bytes come from: a file or memory. */
interface Source {
  readonly name: string;
  readonly size: number;
  /** Calls `use` with the bytes from `start`, piece by piece, and where each piece begins relative to `start`. */
  read(start: number, bytes: number, use: (chunk: Uint8Array<ArrayBuffer>, at: number) => void): void;
  close(): void;
}

const CHUNK = 4 * 2 ** 20;

function fileSource(path: string | URL): Source {
  const name = pathOf(path);
  const file = Deno.openSync(name, { read: true });
  let chunk = new Uint8Array(0);
  const { size, isFile } = file.statSync();
  if (!isFile) {
    file.close();
    throw new FormatError(`${name}: not a file`);
  }
  return {
    name,
    size,
    read(start, bytes, use) {
      if (chunk.length < Math.min(bytes, CHUNK)) chunk = new Uint8Array(Math.min(bytes, CHUNK));
      file.seekSync(start, Deno.SeekMode.Start);
      for (let at = 0; at < bytes;) {
        const count = file.readSync(chunk.subarray(0, Math.min(CHUNK, bytes - at)));
        if (count === null) {
          throw new FormatError(`${name}: the file ends at byte ${start + at}, ${start + bytes} expected: was it truncated?`);
        }
        use(chunk.subarray(0, count), at);
        at += count;
      }
    },
    close: () => file.close(),
  };
}

function memorySource(bytes: Uint8Array): Source {
  return {
    name: "safetensors data",
    size: bytes.length,
    read(start, count, use) {
      for (let at = 0; at < count; at += CHUNK) use(bytes.slice(start + at, start + Math.min(count, at + CHUNK)), at);
    },
    close() {},
  };
}

/** How {@linkcode loadSafetensors} places tensors. */
export interface SafetensorsLoadOptions {
  /** Device of the tensors. Default: `defaultDevice()`. */
  device?: DeviceLike;
}

/**
 * An open safetensors file: its header is read, each tensor when it is asked for. Made by {@linkcode openSafetensors}; close it with `close()` or
 * `using`.
 */
export class Safetensors implements Disposable {
  /** Text entries of the header. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Dtype, shape and place of each tensor, in the order of the file. */
  readonly tensors: ReadonlyMap<string, SafetensorsInfo>;
  readonly #source: Source;
  #closed = false;

  /** Use {@linkcode openSafetensors}. */
  constructor(source: Source) {
    this.#source = source;
    const { name, size } = source;
    const head = this.#collect(0, Math.min(8, size));
    const length = headerLength(head, size, name);
    const header: Header = parseHeader(this.#collect(8, length), size, name);
    this.metadata = header.metadata;
    this.tensors = header.tensors;
  }

  /** Names of the tensors, in the order of the file. */
  names(): string[] {
    return [...this.tensors.keys()];
  }

  /** True if there is a tensor of this name. */
  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /**
   * Reads a tensor.
   *
   * @throws {RangeError} If there is none of this name.
   * @throws {FormatError} If no dtype of ours holds its elements, or the file has become shorter.
   */
  get(name: string, options: SafetensorsLoadOptions = {}): Tensor {
    const info = this.#info(name, "get");
    const { type, dtype, shape, start, bytes } = info;
    const label = `${this.#source.name}: tensor ${JSON.stringify(name)}`;
    if (dtype === null) throw new FormatError(`${label} has dtype ${type}, which no tensor holds: read it with bytes()`);
    if (shape.length > MAX_RANK) throw new FormatError(`${label} has ${shape.length} axes, at most ${MAX_RANK} are possible`);
    const x = emptyTensor([...shape], dtype, deviceOf(options.device ?? defaultDevice()));
    try {
      this.#source.read(start, bytes, (chunk, at) => {
        // Native code takes a bool to be 0 or 1.
        if (dtype === "bool") { for (let i = 0; i < chunk.length; i++) chunk[i] = chunk[i] === 0 ? 0 : 1; }
        writeBytes(x, at, chunk);
      });
    } catch (error) {
      x.dispose();
      throw error;
    }
    return x;
  }

  /** The bytes of a tensor of any dtype, as they are in the file. @throws {RangeError} If there is none of this name. */
  bytes(name: string): Uint8Array<ArrayBuffer> {
    const { start, bytes } = this.#info(name, "bytes");
    return this.#collect(start, bytes);
  }

  /** Closes the file. A second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#source.close();
  }

  /** The same as {@linkcode Safetensors.close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #info(name: string, op: string): SafetensorsInfo {
    if (this.#closed) throw new TypeError(`${op}: ${this.#source.name} is closed`);
    const info = this.tensors.get(name);
    if (info !== undefined) return info;
    const names = this.names(), some = names.slice(0, 8).map((it) => JSON.stringify(it)).join(", ");
    throw new RangeError(
      `${op}: ${this.#source.name} has no tensor ${JSON.stringify(name)}, it has ${some || "none"}${
        names.length > 8 ? `, ... (${names.length})` : ""
      }`,
    );
  }

  #collect(start: number, bytes: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(bytes);
    this.#source.read(start, bytes, (chunk, at) => out.set(chunk, at));
    return out;
  }
}

/**
 * Opens a safetensors file and reads its header only.
 *
 * @param file A path, or the content of a file.
 * @throws {FormatError} If the header breaks a rule of the format; the message says which.
 *
 * @example Looking before reading
 * ```ts
 * import { openSafetensors, serializeSafetensors, zeros } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using file = openSafetensors(serializeSafetensors({ bias: zeros([4]), weight: zeros([4, 2]) }));
 * assertEquals(file.names(), ["bias", "weight"]);
 * assertEquals(file.tensors.get("weight")!.shape, [4, 2]);
 * assertEquals(file.get("bias").tolist(), [0, 0, 0, 0]);
 * ```
 */
export function openSafetensors(file: string | URL | Uint8Array): Safetensors {
  const source = file instanceof Uint8Array ? memorySource(file) : fileSource(file);
  try {
    return new Safetensors(source);
  } catch (error) {
    source.close();
    throw error;
  }
}

/**
 * Reads all tensors of a safetensors file, streamed into native memory.
 *
 * @param file A path, or the content of a file.
 * @param options.device Device of the tensors. Default: `defaultDevice()`.
 * @returns The tensors by name, in the order of the file. `module.loadStateDict` takes it.
 * @throws {FormatError} If the file breaks a rule of the format or holds a dtype that no tensor holds.
 */
// deno-lint-ignore require-await
export async function loadSafetensors(
  file: string | URL | Uint8Array,
  options: SafetensorsLoadOptions = {},
): Promise<Record<string, Tensor>> {
  using opened = openSafetensors(file);
  const loaded: [string, Tensor][] = [];
  try {
    for (const name of opened.names()) loaded.push([name, opened.get(name, options)]);
  } catch (error) {
    for (const [, x] of loaded) x.dispose();
    throw error;
  }
  return Object.fromEntries(loaded);
}
