/**
 * A store in a file that all processes can open.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";
import { checkKeys, checkTimeout, DEFAULT_STORE_TIMEOUT, type Store, type WaitOptions } from "../store.ts";
import { decodeFields, encodeFrame, HEADER_BYTES, sameBytes } from "./protocol.ts";
import { type StoreLimits, storeLimits, StoreTable, toBytes } from "./table.ts";

/** How a {@linkcode FileStore} is opened. */
export interface FileStoreOptions {
  /** Milliseconds that `get`, `wait` and getting hold of the file take at most. Default 300 000. */
  timeout?: number;
  /** How many processes open the store: the last that closes it removes the file. Default: the file stays. */
  worldSize?: number;
  /** How much the store takes; `totalBytes` is the size of the file, which every change makes longer. */
  limits?: Partial<StoreLimits>;
}

const MAGIC = new TextEncoder().encode("dgfiles\x01");
const Entry = { set: 1, delete: 2, closed: 3 } as const;
const decoder = new TextDecoder();
const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/**
 * A store in a file, for processes that share a file system. The file is a log of changes; a lock that the system takes back when a process dies keeps them
 * in order, and what a dying process wrote by half is dropped. The file must be new: the store of an earlier job is no good to the next.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const path = await Deno.makeTempDir() + "/store";
 * const a = await distributed.FileStore.open(path, { worldSize: 2 });
 * const b = await distributed.FileStore.open(path, { worldSize: 2 });
 * await a.set("key", "value");
 * assertEquals(new TextDecoder().decode(await b.get("key")), "value");
 * await a.close();
 * await b.close();
 * ```
 */
export class FileStore implements Store {
  /** Path of the file. */
  readonly path: string;
  readonly #file: Deno.FsFile;
  readonly #table: StoreTable;
  readonly #timeout: number;
  readonly #worldSize: number;
  #offset = 0;
  #ended = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #polling = false;
  #closed = false;

  private constructor(path: string, file: Deno.FsFile, timeout: number, worldSize: number, limits: StoreLimits) {
    this.path = path;
    this.#file = file;
    this.#timeout = timeout;
    this.#worldSize = worldSize;
    this.#table = new StoreTable(limits);
  }

  /**
   * Opens the store, making the file if there is none.
   *
   * @throws {DistributedError} If the file cannot be opened or holds something else.
   */
  static async open(path: string | URL, options: FileStoreOptions = {}): Promise<FileStore> {
    const { worldSize = 0 } = options, timeout = checkTimeout(options.timeout ?? DEFAULT_STORE_TIMEOUT, "FileStore");
    if (!Number.isSafeInteger(worldSize) || worldSize < 0) {
      throw new RangeError(`FileStore: worldSize must be a whole number, got ${worldSize}`);
    }
    const limits = storeLimits(options.limits), name = path instanceof URL ? decodeURIComponent(path.pathname) : path;
    let file: Deno.FsFile;
    try {
      file = await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
    } catch (error) {
      throw new DistributedError(`FileStore: cannot open ${name}: ${error instanceof Error ? error.message : error}`);
    }
    const store = new FileStore(name, file, timeout, worldSize, limits);
    try {
      await store.#locked(() => {});
      return store;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Runs `fn` while no other process, and no other call, changes the file, with all changes before that in the table. */
  #locked<T>(fn: () => T | Promise<T>, timeout = this.#timeout): Promise<T> {
    const run = async () => {
      if (this.#closed) throw new DistributedError("Store: it is closed");
      const start = performance.now();
      for (let delay = 1; !await this.#file.tryLock(true); delay = Math.min(2 * delay, 20)) {
        if (performance.now() - start > timeout) {
          throw new DistributedError(
            `FileStore: another process holds ${this.path} for more than ${Math.round(timeout)} ms: is it stopped?`,
          );
        }
        await pause(delay);
      }
      try {
        await this.#replay();
        return await fn();
      } finally {
        await this.#file.unlock();
      }
    };
    const turn = this.#turn.then(run, run);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #replay(): Promise<void> {
    const size = (await this.#file.stat()).size;
    if (size === this.#offset && size > 0) return;
    if (size === 0) return await this.#write(MAGIC);
    await this.#file.seek(this.#offset, Deno.SeekMode.Start);
    const news = new Uint8Array(size - this.#offset);
    for (let at = 0; at < news.length;) {
      const read = await this.#file.read(news.subarray(at));
      if (read === null) throw new DistributedError(`FileStore: ${this.path} was shortened by another program`);
      at += read;
    }
    let at = 0;
    if (this.#offset === 0) {
      if (!sameBytes(news.subarray(0, MAGIC.length), MAGIC)) throw new DistributedError(`FileStore: ${this.path} is not a dinograd store`);
      at = MAGIC.length;
    }
    const view = new DataView(news.buffer);
    while (at + HEADER_BYTES <= news.length) {
      const end = at + 4 + view.getUint32(at, true);
      if (end > news.length) break; // a process died while it wrote this; the next change takes its place
      this.#apply(news[at + HEADER_BYTES - 1], decodeFields(news.subarray(at + HEADER_BYTES, end)) ?? []);
      at = end;
    }
    this.#offset += at;
  }

  #apply(entry: number, fields: Uint8Array[]): void {
    if (entry === Entry.closed) this.#ended++;
    else if (entry === Entry.set && fields.length === 2) this.#table.set(decoder.decode(fields[0]), fields[1]);
    else if (entry === Entry.delete && fields.length === 1) this.#table.delete(decoder.decode(fields[0]));
    else throw new DistributedError(`FileStore: ${this.path} is damaged: remove it and start the job again`);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#offset + bytes.length > this.#table.limits.totalBytes) {
      throw new DistributedError(`FileStore: ${this.path} is full: the limit is ${this.#table.limits.totalBytes} bytes`);
    }
    await this.#file.truncate(this.#offset);
    await this.#file.seek(this.#offset, Deno.SeekMode.Start);
    for (let at = 0; at < bytes.length;) at += await this.#file.write(bytes.subarray(at));
    this.#offset += bytes.length;
  }

  /** Makes a change here, where limits are checked, and then in the file. */
  async #set(key: string, value: Uint8Array): Promise<void> {
    this.#table.set(key, value);
    await this.#write(encodeFrame(0, Entry.set, [toBytes(key), value]));
  }

  async #wait(keys: string[], timeout: number): Promise<Uint8Array[]> {
    await this.#locked(() => {}, timeout);
    const { done } = this.#table.wait(keys, timeout);
    this.#waiting++;
    if (!this.#polling) this.#poll();
    try {
      return await done;
    } finally {
      this.#waiting--;
    }
  }

  /** Looks for changes of others as long as somebody waits. */
  async #poll(): Promise<void> {
    this.#polling = true;
    for (let delay = 2; this.#waiting > 0 && !this.#closed; delay = Math.min(delay * 1.5, 50)) {
      await pause(delay);
      try {
        if (this.#waiting > 0 && (await this.#file.stat()).size > this.#offset) await this.#locked(() => {});
      } catch {
        // The next call of a method tells; those who wait run into their timeouts.
      }
    }
    this.#polling = false;
  }

  async set(key: string, value: Uint8Array | string): Promise<void> {
    const bytes = toBytes(value);
    await this.#locked(() => this.#set(key, bytes));
  }
  async get(key: string, options: WaitOptions = {}): Promise<Uint8Array> {
    return (await this.#wait([key], checkTimeout(options.timeout ?? this.#timeout, "get")))[0].slice();
  }
  async add(key: string, amount: number): Promise<number> {
    return await this.#locked(async () => {
      const sum = this.#table.add(key, amount);
      await this.#set(key, toBytes(`${sum}`));
      return sum;
    });
  }
  async compareSet(key: string, expected: Uint8Array | string | null, desired: Uint8Array | string): Promise<Uint8Array> {
    const wanted = toBytes(desired), known = expected === null ? null : toBytes(expected);
    return await this.#locked(async () => {
      const value = this.#table.compareSet(key, known, wanted);
      if (value === wanted) await this.#set(key, wanted);
      return value.slice();
    });
  }
  async wait(keys: string[], options: WaitOptions = {}): Promise<void> {
    checkKeys(keys, this.#table.limits);
    await this.#wait(keys, checkTimeout(options.timeout ?? this.#timeout, "wait"));
  }
  async check(keys: string[]): Promise<boolean> {
    checkKeys(keys, this.#table.limits);
    return await this.#locked(() => this.#table.check(keys));
  }
  async delete(key: string): Promise<boolean> {
    return await this.#locked(async () => {
      const was = this.#table.delete(key);
      if (was) await this.#write(encodeFrame(0, Entry.delete, [toBytes(key)]));
      return was;
    });
  }
  /** Closes the file; the last of `worldSize` processes removes it. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.#locked(async () => {
        await this.#write(encodeFrame(0, Entry.closed, []));
        if (++this.#ended === this.#worldSize) await Deno.remove(this.path);
      });
    } finally {
      this.#closed = true;
      this.#table.close();
      this.#file.close();
    }
  }
}
