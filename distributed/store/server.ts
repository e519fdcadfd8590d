/**
 * Serves a store over TCP.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";
import * as wire from "./protocol.ts";
import { type StoreLimits, storeLimits, StoreTable } from "./table.ts";

/** What a {@linkcode StoreServer} takes. */
export interface StoreServerOptions {
  /** Address to bind. Default `127.0.0.1`: this machine only. */
  hostname?: string;
  /** Default 0: a free one. */
  port?: number;
  /** What clients have to know. May be left out on loopback only. */
  secret?: string;
  /** How much the store takes. */
  limits?: Partial<StoreLimits>;
  /** Milliseconds that a client has to show the secret, and to send or take a message that has begun. Default 10 000. */
  patience?: number;
}

/** Connections that have not shown the secret yet; beyond that the oldest is cut off. */
const STRANGERS = 256;
/** Requests of a connection that wait for an answer. */
const REQUESTS = 4096;
/** Bytes of answers that a connection has not taken yet, on top of one value. */
const UNSENT = 16 * 2 ** 20;

const decoder = new TextDecoder("utf-8", { fatal: true });

/** A store that others reach over TCP. It answers as long as the event loop of its thread runs. */
export class StoreServer {
  readonly #listener: Deno.TcpListener;
  readonly #table: StoreTable;
  readonly #limits: StoreLimits;
  readonly #patience: number;
  readonly #key: CryptoKey;
  readonly #strangers = new Set<Deno.TcpConn>();
  readonly #members = new Set<Member>();
  #closed = false;

  private constructor(listener: Deno.TcpListener, key: CryptoKey, limits: StoreLimits, patience: number) {
    this.#listener = listener;
    this.#key = key;
    this.#limits = limits;
    this.#patience = patience;
    this.#table = new StoreTable(limits);
    this.#accept();
  }

  /**
   * Starts to serve.
   *
   * @throws {DistributedError} If the port is in use, the address is not of this machine, or others could reach it and there is no secret.
   */
  static async start(options: StoreServerOptions = {}): Promise<StoreServer> {
    const { hostname = "127.0.0.1", port = 0, patience = 10_000 } = options;
    wire.checkPort(port, "StoreServer", 0);
    const limits = storeLimits(options.limits);
    const key = await wire.proofKey(wire.checkSecret(options.secret, hostname, "StoreServer"));
    let listener: Deno.TcpListener;
    try {
      listener = Deno.listen({ hostname: wire.hostAddress(hostname), port });
    } catch (error) {
      const place = wire.endpoint(hostname, port);
      if (error instanceof Deno.errors.AddrInUse) {
        throw new DistributedError(
          `StoreServer: ${place} is in use: by another program, or a second rank 0? Choose another port, or 0 for a free one`,
        );
      }
      throw new DistributedError(`StoreServer: cannot serve at ${place}: ${error instanceof Error ? error.message : error}`);
    }
    return new StoreServer(listener, key, limits, patience);
  }

  /** The port that it listens on. */
  get port(): number {
    return this.#listener.addr.port;
  }

  async #accept(): Promise<void> {
    while (!this.#closed) {
      try {
        const conn = await this.#listener.accept();
        this.#greet(conn);
      } catch {
        // Out of file descriptors, or a client that was gone before it was accepted.
        if (!this.#closed) await new Promise((done) => setTimeout(done, 20));
      }
    }
  }

  async #greet(conn: Deno.TcpConn): Promise<void> {
    this.#strangers.add(conn);
    if (this.#strangers.size > STRANGERS) {
      const [oldest] = this.#strangers;
      this.#strangers.delete(oldest);
      wire.closeQuietly(oldest);
    }
    const timer = setTimeout(() => wire.closeQuietly(conn), this.#patience);
    try {
      if (await this.#admit(conn) && !this.#closed) {
        conn.setNoDelay(true);
        conn.setKeepAlive(true);
        const member = new Member(conn, this.#table, this.#limits, this.#patience, () => this.#members.delete(member));
        this.#members.add(member);
      } else {
        wire.closeQuietly(conn);
      }
    } catch {
      wire.closeQuietly(conn); // cut off, by either side
    } finally {
      clearTimeout(timer);
      this.#strangers.delete(conn);
    }
  }

  async #admit(conn: Deno.TcpConn): Promise<boolean> {
    const nonce = crypto.getRandomValues(new Uint8Array(wire.PROOF_BYTES));
    await wire.writeAll(conn, wire.join([wire.MAGIC, nonce]));
    const answer = await wire.readExactly(conn, wire.ANSWER_BYTES);
    if (answer === null || !wire.sameBytes(answer.subarray(0, wire.MAGIC.length), wire.MAGIC)) return false;
    const theirs = answer.subarray(wire.MAGIC.length, wire.MAGIC.length + wire.PROOF_BYTES);
    const known = await wire.verify(this.#key, "client", nonce, theirs, answer.subarray(wire.MAGIC.length + wire.PROOF_BYTES));
    const verdict = new Uint8Array(wire.VERDICT_BYTES);
    verdict[0] = !known ? wire.Verdict.stranger : this.#members.size >= this.#limits.connections ? wire.Verdict.full : wire.Verdict.welcome;
    if (known) {
      verdict.set(await wire.prove(this.#key, "server", nonce, theirs), 1);
      new DataView(verdict.buffer).setUint32(1 + wire.PROOF_BYTES, this.#limits.valueBytes, true);
    }
    await wire.writeAll(conn, verdict);
    return verdict[0] === wire.Verdict.welcome;
  }

  /** Waits until all clients have disconnected, at most `timeout` milliseconds. */
  async drained(timeout: number): Promise<void> {
    const start = performance.now();
    while (this.#members.size > 0 && performance.now() - start < timeout) await new Promise((done) => setTimeout(done, 5));
  }

  /** Cuts off all clients. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    wire.closeQuietly(this.#listener);
    for (const conn of this.#strangers) wire.closeQuietly(conn);
    for (const member of this.#members) member.close();
    this.#table.close();
  }
}

/** A client that has shown the secret. */
class Member {
  readonly #conn: Deno.TcpConn;
  readonly #table: StoreTable;
  readonly #longest: number;
  readonly #patience: number;
  readonly #gone: () => void;
  readonly #waiting = new Set<() => void>();
  readonly #unsent: Uint8Array[] = [];
  #unsentBytes = 0;
  #sending = false;

  constructor(conn: Deno.TcpConn, table: StoreTable, limits: StoreLimits, patience: number, gone: () => void) {
    this.#conn = conn;
    this.#table = table;
    this.#longest = 2 * limits.valueBytes + limits.keyBytes + 1024;
    this.#patience = patience;
    this.#gone = gone;
    this.#serve();
  }

  async #serve(): Promise<void> {
    try {
      for (;;) {
        const header = await this.#header();
        if (header === null) break;
        const view = new DataView(header.buffer), length = view.getUint32(0, true), id = view.getUint32(4, true);
        if (length < wire.HEADER_BYTES - 4 || length > this.#longest) break;
        const timer = setTimeout(() => this.close(), this.#patience);
        const body = await wire.readExactly(this.#conn, length + 4 - wire.HEADER_BYTES).finally(() => clearTimeout(timer));
        const fields = body && wire.decodeFields(body);
        if (fields === null) break;
        this.#request(id, header[8], fields);
      }
    } catch {
      // Cut off, by either side.
    }
    this.close();
  }

  /** The head of the next frame: its first byte may be long in coming, the others not. */
  async #header(): Promise<Uint8Array<ArrayBuffer> | null> {
    const first = await wire.readExactly(this.#conn, 1);
    if (first === null) return null;
    const timer = setTimeout(() => this.close(), this.#patience);
    const rest = await wire.readExactly(this.#conn, wire.HEADER_BYTES - 1).finally(() => clearTimeout(timer));
    return rest && wire.join([first, rest]);
  }

  async #request(id: number, op: number, fields: Uint8Array[]): Promise<void> {
    try {
      this.#send(wire.encodeFrame(id, wire.Status.ok, await this.#answer(op, fields)));
    } catch (error) {
      const text = new TextEncoder().encode(error instanceof Error ? error.message : `${error}`);
      this.#send(wire.encodeFrame(id, wire.Status.error, [text]));
    }
  }

  async #answer(op: number, fields: Uint8Array[]): Promise<Uint8Array[]> {
    const table = this.#table, [first, second] = fields;
    const need = (count: number) => {
      if (fields.length !== count) throw new DistributedError(`Store: malformed request: ${fields.length} fields, expected ${count}`);
    };
    const bit = (value: boolean) => [Uint8Array.of(value ? 1 : 0)];
    const key = (field: Uint8Array) => keyOf(field);
    switch (op) {
      case wire.Op.set:
        need(2);
        table.set(key(first), second);
        return [];
      case wire.Op.get:
      case wire.Op.wait: {
        if (op === wire.Op.get) need(2);
        if (!first || first.length !== 8) throw new DistributedError("Store: malformed request: no timeout");
        const timeout = wire.fieldNumber(first);
        if (!(timeout > 0)) throw new DistributedError(`Store: timeout must be above 0, got ${timeout}`);
        const values = await this.#wait(fields.slice(1).map(key), timeout);
        return op === wire.Op.get ? values : [];
      }
      case wire.Op.add:
        need(2);
        if (second.length !== 8) throw new DistributedError("Store: malformed request: no amount");
        return [wire.numberField(table.add(key(first), wire.fieldNumber(second)))];
      case wire.Op.compareSet:
        if (fields.length !== 2) need(3);
        return [table.compareSet(key(first), fields[2] ?? null, second)];
      case wire.Op.check:
        return bit(table.check(fields.map(key)));
      case wire.Op.delete:
        need(1);
        return bit(table.delete(key(first)));
      default:
        throw new DistributedError(`Store: malformed request: operation ${op}`);
    }
  }

  async #wait(keys: string[], timeout: number): Promise<Uint8Array[]> {
    if (this.#waiting.size >= REQUESTS) throw new DistributedError(`Store: more than ${REQUESTS} calls of one process wait`);
    const { done, cancel } = this.#table.wait(keys, timeout);
    this.#waiting.add(cancel);
    try {
      return await done;
    } finally {
      this.#waiting.delete(cancel);
    }
  }

  #send(frame: Uint8Array): void {
    this.#unsent.push(frame);
    this.#unsentBytes += frame.length;
    if (this.#unsentBytes > UNSENT + this.#longest) return this.close();
    if (!this.#sending) this.#drain();
  }

  async #drain(): Promise<void> {
    this.#sending = true;
    try {
      for (let frame = this.#unsent.shift(); frame !== undefined; frame = this.#unsent.shift()) {
        const timer = setTimeout(() => this.close(), this.#patience);
        await wire.writeAll(this.#conn, frame).finally(() => clearTimeout(timer));
        this.#unsentBytes -= frame.length;
      }
    } catch {
      this.close();
    }
    this.#sending = false;
  }

  close(): void {
    wire.closeQuietly(this.#conn);
    for (const cancel of this.#waiting) cancel();
    this.#waiting.clear();
    this.#unsent.length = 0;
    this.#gone();
  }
}

function keyOf(field: Uint8Array): string {
  try {
    return decoder.decode(field);
  } catch {
    throw new DistributedError("Store: a key is not UTF-8");
  }
}
