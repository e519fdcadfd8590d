/**
 * The key-value store over which the processes of a job find each other.
 *
 * @module
 */
import { DistributedError } from "../ffi/errors.ts";
import { checkKey, type StoreLimits, storeLimits, StoreTable, toBytes } from "./store/table.ts";

/** Milliseconds that a store waits for a key unless told otherwise: five minutes. */
export const DEFAULT_STORE_TIMEOUT = 300_000;

/** How long a call of a {@linkcode Store} may wait. */
export interface WaitOptions {
  /** Milliseconds, `Infinity` for no limit. Default: the store's own timeout. */
  timeout?: number;
}

/**
 * Keys and values that all processes of a job see. A key is text, a value bytes; text is stored as UTF-8. (`torch.distributed.Store`.)
 *
 * Calls reject with a `DistributedError` if the store cannot be reached, or would exceed one of its limits.
 */
export interface Store {
  /** Stores a value, in place of the one that was there. */
  set(key: string, value: Uint8Array | string): Promise<void>;
  /** Waits until the key is there. @throws {DistributedError} After `timeout` milliseconds, naming the key. */
  get(key: string, options?: WaitOptions): Promise<Uint8Array>;
  /**
   * Adds a whole number to a counter, which starts at 0 and is kept as decimal digits, and returns the sum. Of any number of processes that add at the same
   * time each gets a different sum.
   */
  add(key: string, amount: number): Promise<number>;
  /**
   * Stores `desired` if the value is `expected`, where `null` means that the key is not there. Returns the value after that; `expected` if the key is not
   * there but should be.
   */
  compareSet(key: string, expected: Uint8Array | string | null, desired: Uint8Array | string): Promise<Uint8Array>;
  /** Waits until all keys are there. @throws {DistributedError} After `timeout` milliseconds, naming the keys that are missing. */
  wait(keys: string[], options?: WaitOptions): Promise<void>;
  /** True if all keys are there. */
  check(keys: string[]): Promise<boolean>;
  /** Removes a key; true if it was there. */
  delete(key: string): Promise<boolean>;
  /** Ends the use of the store. Calls that still wait reject. */
  close(): Promise<void>;
}

/** Checks a time in milliseconds. */
export function checkTimeout(timeout: number, op: string): number {
  if (typeof timeout !== "number" || !(timeout > 0)) {
    throw new RangeError(`${op}: timeout must be a number of milliseconds above 0, got ${timeout}`);
  }
  return timeout;
}

/** Checks keys that are waited for or asked about. */
export function checkKeys(keys: readonly string[], limits: StoreLimits): void {
  if (!Array.isArray(keys)) throw new TypeError(`Store: keys must be an array of texts, got ${typeof keys}`);
  for (const key of keys) checkKey(key, limits);
}

/**
 * A store inside one process: for tests, and for groups of one.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const store = new distributed.HashStore();
 * assertEquals(await store.add("arrived", 1), 1);
 * assertEquals(await store.add("arrived", 2), 3);
 * await store.set("name", "value");
 * assertEquals(new TextDecoder().decode(await store.get("name")), "value");
 * assertEquals(await store.check(["name", "other"]), false);
 * await store.close();
 * ```
 */
export class HashStore implements Store {
  readonly #table: StoreTable;
  readonly #timeout: number;

  /**
   * An empty store.
   *
   * @param options.timeout Milliseconds that `get` and `wait` wait by default. Default 300 000.
   * @param options.limits How much it may hold.
   */
  constructor(options: { timeout?: number; limits?: Partial<StoreLimits> } = {}) {
    this.#timeout = checkTimeout(options.timeout ?? DEFAULT_STORE_TIMEOUT, "HashStore");
    this.#table = new StoreTable(storeLimits(options.limits));
  }

  // Each call is asynchronous, so that what is wrong with its arguments rejects, as it does where the table is in another process.
  // deno-lint-ignore require-await
  async set(key: string, value: Uint8Array | string): Promise<void> {
    this.#table.set(key, toBytes(value));
  }
  async get(key: string, options: WaitOptions = {}): Promise<Uint8Array> {
    const timeout = checkTimeout(options.timeout ?? this.#timeout, "get");
    return (await this.#table.wait([key], timeout).done)[0].slice();
  }
  // deno-lint-ignore require-await
  async add(key: string, amount: number): Promise<number> {
    return this.#table.add(key, amount);
  }
  // deno-lint-ignore require-await
  async compareSet(key: string, expected: Uint8Array | string | null, desired: Uint8Array | string): Promise<Uint8Array> {
    return this.#table.compareSet(key, expected === null ? null : toBytes(expected), toBytes(desired)).slice();
  }
  async wait(keys: string[], options: WaitOptions = {}): Promise<void> {
    checkKeys(keys, this.#table.limits);
    await this.#table.wait(keys, checkTimeout(options.timeout ?? this.#timeout, "wait")).done;
  }
  // deno-lint-ignore require-await
  async check(keys: string[]): Promise<boolean> {
    checkKeys(keys, this.#table.limits);
    return this.#table.check(keys);
  }
  // deno-lint-ignore require-await
  async delete(key: string): Promise<boolean> {
    return this.#table.delete(key);
  }
  close(): Promise<void> {
    this.#table.close();
    return Promise.resolve();
  }
}

/**
 * Part of another store: its keys begin with a prefix there, so that several users of one store do not meet.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const whole = new distributed.HashStore(), part = new distributed.PrefixStore("part", whole);
 * await part.set("key", "value");
 * assertEquals(await whole.check(["part/key"]), true);
 * ```
 */
export class PrefixStore implements Store {
  /** What the keys begin with, without the slash that follows. */
  readonly prefix: string;
  readonly #store: Store;

  /**
   * The keys of `store` below `prefix/`.
   *
   * @param prefix Not empty.
   * @param store The whole store. `close()` of the part leaves it open.
   */
  constructor(prefix: string, store: Store) {
    if (typeof prefix !== "string" || prefix === "") throw new TypeError("PrefixStore: prefix must be a text that is not empty");
    this.prefix = prefix;
    this.#store = store;
  }
  #full(key: string): string {
    if (typeof key !== "string" || key === "") throw new DistributedError("Store: a key must be a text that is not empty");
    return `${this.prefix}/${key}`;
  }
  async set(key: string, value: Uint8Array | string): Promise<void> {
    await this.#store.set(this.#full(key), value);
  }
  async get(key: string, options?: WaitOptions): Promise<Uint8Array> {
    return await this.#store.get(this.#full(key), options);
  }
  async add(key: string, amount: number): Promise<number> {
    return await this.#store.add(this.#full(key), amount);
  }
  async compareSet(key: string, expected: Uint8Array | string | null, desired: Uint8Array | string): Promise<Uint8Array> {
    return await this.#store.compareSet(this.#full(key), expected, desired);
  }
  async wait(keys: string[], options?: WaitOptions): Promise<void> {
    await this.#store.wait(keys.map((key) => this.#full(key)), options);
  }
  async check(keys: string[]): Promise<boolean> {
    return await this.#store.check(keys.map((key) => this.#full(key)));
  }
  async delete(key: string): Promise<boolean> {
    return await this.#store.delete(this.#full(key));
  }
  /** Leaves the whole store open. */
  close(): Promise<void> {
    return Promise.resolve();
  }
}
