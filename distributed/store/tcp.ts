/**
 * A store that one process serves over TCP.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import { DistributedError } from "../../ffi/errors.ts";
import { checkKeys, checkTimeout, DEFAULT_STORE_TIMEOUT, type Store, type WaitOptions } from "../store.ts";
import { StoreClient } from "./client.ts";
import * as wire from "./protocol.ts";
import type { StoreServerOptions } from "./server.ts";
import { checkAmount, checkKey, type StoreLimits, storeLimits, toBytes } from "./table.ts";

/** How a {@linkcode TcpStore} is opened. */
export interface TcpStoreOptions {
  /** Serve the store, from a thread of its own. Exactly one process does. Default `false`. */
  isMaster?: boolean;
  /** What all processes have to know. May be left out on loopback only. Default: the environment's `DINOGRAD_SECRET`. */
  secret?: string;
  /** Milliseconds that connecting, `get` and `wait` take at most. Default 300 000. */
  timeout?: number;
  /** How much the store takes. The server's count. */
  limits?: Partial<StoreLimits>;
  /** The address that the server binds. Default: `host`. */
  bind?: string;
  /** Milliseconds that `close` of the master waits for the others to disconnect first. Default 0. */
  linger?: number;
}

/** The secret that the environment names. */
export function environmentSecret(): string | undefined {
  try {
    return Deno.env.get("DINOGRAD_SECRET") || undefined;
  } catch {
    return undefined; // no permission to read it: as if it were not set
  }
}

/**
 * A store that one process serves to the others over TCP. The server runs on a thread of its own: it answers while the main thread waits in native code.
 *
 * Server and client show each other that they know the secret before anything else is answered. Nothing is encrypted: on a network where others can read or
 * alter the traffic, run the job inside a private one.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const store = await distributed.TcpStore.open("127.0.0.1", 0, { isMaster: true, secret: "open sesame" });
 * const other = await distributed.TcpStore.open("127.0.0.1", store.port, { secret: "open sesame" });
 * const waiting = other.get("answer");
 * await store.set("answer", Uint8Array.of(42));
 * assertEquals(await waiting, Uint8Array.of(42));
 * await other.close();
 * await store.close();
 * ```
 */
export class TcpStore implements Store {
  /** Where the store is. */
  readonly host: string;
  /** Where the store is. */
  readonly port: number;
  readonly #client: StoreClient;
  readonly #server: Hosted | null;
  readonly #limits: StoreLimits;
  readonly #timeout: number;

  private constructor(host: string, port: number, client: StoreClient, server: Hosted | null, limits: StoreLimits, timeout: number) {
    this.host = host;
    this.port = port;
    this.#client = client;
    this.#server = server;
    this.#limits = limits;
    this.#timeout = timeout;
  }

  /**
   * Connects to the store at `host:port`, waiting until it is there; as the master starts it first.
   *
   * @param host Name or address of the machine whose process is the master.
   * @param port 0 lets the master choose a free one, which is then in `port`.
   * @throws {DistributedError} If there is no store in time, it has another secret, its port is in use, or there is no secret and `host` is not loopback.
   */
  static async open(host: string, port: number, options: TcpStoreOptions = {}): Promise<TcpStore> {
    if (typeof host !== "string" || host === "") throw new TypeError("TcpStore: host must be a name or an address");
    const { isMaster = false, secret = environmentSecret(), bind } = options;
    const timeout = checkTimeout(options.timeout ?? DEFAULT_STORE_TIMEOUT, "TcpStore");
    wire.checkPort(port, "TcpStore", isMaster ? 0 : 1);
    const shared = wire.checkSecret(secret, host, "TcpStore");
    const limits = storeLimits(options.limits);
    const server = isMaster ? await Hosted.start({ hostname: bind ?? host, port, secret, limits }, options.linger ?? 0) : null;
    try {
      const at = server?.port ?? port, through = server && bind !== undefined && !/^(0\.0\.0\.0|\[?::\]?)$/.test(bind) ? bind : host;
      const client = await StoreClient.connect({ host: through, port: at, secret: shared, timeout });
      return new TcpStore(host, at, client, server, { ...limits, valueBytes: client.valueBytes }, timeout);
    } catch (error) {
      await server?.close();
      throw error;
    }
  }

  #key(key: string): Uint8Array {
    checkKey(key, this.#limits);
    return toBytes(key);
  }

  #value(key: string, value: Uint8Array | string): Uint8Array {
    const bytes = toBytes(value);
    if (bytes.length <= this.#limits.valueBytes) return bytes;
    throw new DistributedError(`Store: the value of "${key}" has ${bytes.length} bytes and the limit is ${this.#limits.valueBytes}`);
  }

  #ask(op: number, fields: Uint8Array[], what: string, timeout = this.#timeout): Promise<Uint8Array[]> {
    return this.#client.request(op, fields, timeout, what);
  }

  async set(key: string, value: Uint8Array | string): Promise<void> {
    await this.#ask(wire.Op.set, [this.#key(key), this.#value(key, value)], `set "${key}"`);
  }
  async get(key: string, options: WaitOptions = {}): Promise<Uint8Array> {
    const timeout = checkTimeout(options.timeout ?? this.#timeout, "get");
    const [value] = await this.#ask(wire.Op.get, [wire.numberField(timeout), this.#key(key)], `get "${key}"`, timeout);
    return value.slice();
  }
  async add(key: string, amount: number): Promise<number> {
    checkAmount(amount);
    const [sum] = await this.#ask(wire.Op.add, [this.#key(key), wire.numberField(amount)], `add "${key}"`);
    return wire.fieldNumber(sum);
  }
  async compareSet(key: string, expected: Uint8Array | string | null, desired: Uint8Array | string): Promise<Uint8Array> {
    const fields = [this.#key(key), this.#value(key, desired)];
    if (expected !== null) fields.push(this.#value(key, expected));
    return (await this.#ask(wire.Op.compareSet, fields, `compareSet "${key}"`))[0];
  }
  async wait(keys: string[], options: WaitOptions = {}): Promise<void> {
    checkKeys(keys, this.#limits);
    const timeout = checkTimeout(options.timeout ?? this.#timeout, "wait");
    await this.#ask(wire.Op.wait, [wire.numberField(timeout), ...keys.map((key) => this.#key(key))], "wait", timeout);
  }
  async check(keys: string[]): Promise<boolean> {
    checkKeys(keys, this.#limits);
    return (await this.#ask(wire.Op.check, keys.map((key) => this.#key(key)), "check"))[0][0] === 1;
  }
  async delete(key: string): Promise<boolean> {
    return (await this.#ask(wire.Op.delete, [this.#key(key)], `delete "${key}"`))[0][0] === 1;
  }
  /** Disconnects; the master's store ends with it, for all. */
  async close(): Promise<void> {
    await this.#client.close();
    await this.#server?.close();
  }
}

/** A server on a thread of its own, which does not keep the process alive. */
class Hosted {
  readonly port: number;
  readonly #worker: Worker;
  readonly #linger: number;

  private constructor(worker: Worker, port: number, linger: number) {
    this.#worker = worker;
    this.port = port;
    this.#linger = linger;
  }

  static async start(options: StoreServerOptions, linger: number): Promise<Hosted> {
    const module = new URL("./server_worker.ts", import.meta.url);
    // node:worker_threads, whose threads can be left behind at the end of the process, starts no remote modules; they can be imported.
    const worker = new Worker(
      module.protocol === "file:" ? module : new URL(`data:text/javascript,import ${JSON.stringify(module.href)};`),
    );
    try {
      const reply = await new Promise<{ port?: number; error?: string }>((resolve, reject) => {
        worker.once("message", resolve);
        worker.once("error", reject);
        worker.postMessage(options);
      });
      if (reply.port === undefined) throw new DistributedError(reply.error ?? "TcpStore: the server did not start");
      worker.unref();
      return new Hosted(worker, reply.port, linger);
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#linger > 0) {
      const ended = new Promise((done) => this.#worker.once("message", done));
      this.#worker.ref();
      this.#worker.postMessage(this.#linger);
      await ended;
    }
    await this.#worker.terminate();
  }
}
