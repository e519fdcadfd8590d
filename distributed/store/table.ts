/**
 * What a store holds, in the memory of the process that serves it.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";

/** How much a store takes. */
export interface StoreLimits {
  /** Bytes of a key. Default 1024. */
  keyBytes: number;
  /** Bytes of a value. Default 16 MiB. */
  valueBytes: number;
  /** Number of keys. Default 100 000. */
  keys: number;
  /** Bytes of all keys and values. Default 256 MiB. */
  totalBytes: number;
  /** Connections of members of the job; a server keeps as many places again for those that have not shown the secret yet, 256 at most. Default 4096. */
  connections: number;
}

const DEFAULTS: StoreLimits = {
  keyBytes: 1024,
  valueBytes: 16 * 2 ** 20,
  keys: 100_000,
  totalBytes: 256 * 2 ** 20,
  connections: 4096,
};

/** The limits with their defaults, checked. */
export function storeLimits(given: Partial<StoreLimits> = {}): StoreLimits {
  const limits = { ...DEFAULTS };
  for (const [name, value] of Object.entries(given)) {
    if (!(name in DEFAULTS)) {
      throw new TypeError(`Store: there is no limit "${name}": expected one of ${Object.keys(DEFAULTS).join(", ")}`);
    }
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || value < 1 || value > 2 ** 30) {
      throw new RangeError(`Store: limit ${name} must be a whole number from 1 to 2^30, got ${value}`);
    }
    limits[name as keyof StoreLimits] = value;
  }
  return limits;
}

const encoder = new TextEncoder(), decoder = new TextDecoder();

/** A value as bytes of its own. */
export function toBytes(value: Uint8Array | string): Uint8Array<ArrayBuffer> {
  if (typeof value === "string") return encoder.encode(value);
  if (value instanceof Uint8Array) return new Uint8Array(value);
  throw new TypeError(`Store: a value must be a text or a Uint8Array, got ${value === null ? "null" : typeof value}`);
}

/** Checks a key and returns its number of bytes. */
export function checkKey(key: string, limits: StoreLimits): number {
  if (typeof key !== "string" || key === "") throw new DistributedError("Store: a key must be a text that is not empty");
  const bytes = key.length > limits.keyBytes ? key.length : encoder.encode(key).length;
  if (bytes > limits.keyBytes) {
    throw new DistributedError(`Store: a key has ${bytes} bytes and the limit is ${limits.keyBytes}: "${key.slice(0, 40)}..."`);
  }
  return bytes;
}

/** Checks what is added to a counter. */
export function checkAmount(amount: number): void {
  if (!Number.isSafeInteger(amount)) throw new RangeError(`add: amount must be a whole number, got ${amount}`);
}

/** Keys for messages: the first few. */
export function nameKeys(keys: readonly string[]): string {
  const named = keys.slice(0, 5).map((key) => `"${key}"`).join(", ");
  return keys.length > 5 ? `${named} and ${keys.length - 5} more` : named;
}

interface Waiter {
  readonly keys: readonly string[];
  readonly resolve: (values: Uint8Array[]) => void;
  readonly reject: (error: Error) => void;
  timer?: ReturnType<typeof setTimeout>;
}

/** The longest time that `setTimeout` can measure. */
const LONGEST = 2 ** 31 - 1;

/** Keys and values, and who waits for them. */
export class StoreTable {
  /** How much it takes. */
  readonly limits: StoreLimits;
  readonly #values = new Map<string, Uint8Array>();
  readonly #waiters = new Map<string, Set<Waiter>>();
  #bytes = 0;
  #closed = false;

  constructor(limits: StoreLimits) {
    this.limits = limits;
  }

  #open(): void {
    if (this.#closed) throw new DistributedError("Store: it is closed");
  }

  set(key: string, value: Uint8Array): void {
    this.#open();
    const limits = this.limits, keyBytes = checkKey(key, limits), old = this.#values.get(key);
    if (value.length > limits.valueBytes) {
      throw new DistributedError(`Store: the value of "${key}" has ${value.length} bytes and the limit is ${limits.valueBytes}`);
    }
    if (old === undefined && this.#values.size >= limits.keys) {
      throw new DistributedError(`Store: it is full: "${key}" would exceed ${limits.keys} keys`);
    }
    const bytes = this.#bytes + value.length - (old === undefined ? -keyBytes : old.length);
    if (bytes > limits.totalBytes) {
      throw new DistributedError(`Store: it is full: "${key}" would exceed ${limits.totalBytes} bytes in all`);
    }
    this.#bytes = bytes;
    this.#values.set(key, value);
    for (const waiter of [...this.#waiters.get(key) ?? []]) this.#serve(waiter);
  }

  /** The value of a key that is there. */
  peek(key: string): Uint8Array | undefined {
    this.#open();
    return this.#values.get(key);
  }

  add(key: string, amount: number): number {
    checkAmount(amount);
    const old = this.peek(key), text = old === undefined ? "0" : decoder.decode(old.subarray(0, 32));
    if (!/^-?\d{1,16}$/.test(text)) throw new DistributedError(`add: the value of "${key}" is not a whole number`);
    const sum = Number(text) + amount;
    if (!Number.isSafeInteger(sum)) throw new DistributedError(`add: "${key}" would leave the whole numbers below 2^53`);
    this.set(key, encoder.encode(`${sum}`));
    return sum;
  }

  compareSet(key: string, expected: Uint8Array | null, desired: Uint8Array): Uint8Array {
    const old = this.peek(key);
    const equal = old === undefined || expected === null
      ? old === undefined && expected === null
      : old.length === expected.length && old.every((byte, i) => byte === expected[i]);
    if (!equal) return old ?? expected!;
    this.set(key, desired);
    return desired;
  }

  check(keys: readonly string[]): boolean {
    this.#open();
    return keys.every((key) => this.#values.has(key));
  }

  delete(key: string): boolean {
    const old = this.peek(key);
    if (old === undefined) return false;
    this.#bytes -= old.length + checkKey(key, this.limits);
    return this.#values.delete(key);
  }

  /** The values of `keys` as soon as all are there. `cancel` ends the waiting without an answer. */
  wait(keys: readonly string[], timeout: number): { done: Promise<Uint8Array[]>; cancel: () => void } {
    this.#open();
    for (const key of keys) checkKey(key, this.limits);
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array[]>();
    const waiter: Waiter = { keys, resolve, reject };
    if (this.#serve(waiter)) return { done: promise, cancel: () => {} };
    for (const key of keys) {
      const waiters = this.#waiters.get(key);
      if (waiters) waiters.add(waiter);
      else this.#waiters.set(key, new Set([waiter]));
    }
    const start = performance.now();
    const expire = () => {
      const left = timeout - (performance.now() - start);
      if (left > 1) return void (waiter.timer = setTimeout(expire, Math.min(left, LONGEST)));
      this.#forget(waiter);
      const missing = keys.filter((key) => !this.#values.has(key));
      reject(new DistributedError(`Store: waited ${Math.round(timeout)} ms for ${nameKeys(missing)}, which nobody has set`));
    };
    if (timeout !== Infinity) waiter.timer = setTimeout(expire, Math.min(timeout, LONGEST));
    return { done: promise, cancel: () => this.#forget(waiter) };
  }

  #serve(waiter: Waiter): boolean {
    const values: Uint8Array[] = [];
    for (const key of waiter.keys) {
      const value = this.#values.get(key);
      if (value === undefined) return false;
      values.push(value);
    }
    this.#forget(waiter);
    waiter.resolve(values);
    return true;
  }

  #forget(waiter: Waiter): void {
    clearTimeout(waiter.timer);
    for (const key of waiter.keys) {
      const waiters = this.#waiters.get(key);
      if (waiters?.delete(waiter) && waiters.size === 0) this.#waiters.delete(key);
    }
  }

  /** Rejects all who wait. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const waiting = new Set([...this.#waiters.values()].flatMap((it) => [...it]));
    for (const waiter of waiting) {
      this.#forget(waiter);
      waiter.reject(new DistributedError(`Store: closed while waiting for ${nameKeys(waiter.keys)}`));
    }
    this.#values.clear();
  }
}
