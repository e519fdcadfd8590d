/**
 * One connection to a store's server.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";
import * as wire from "./protocol.ts";

/** Milliseconds beyond a call's own timeout after which the server is given up. */
const GRACE = 10_000;
/** Milliseconds that a server has for its part of the greeting. */
const GREETING = 10_000;
/** The longest time that `setTimeout` can measure. */
const LONGEST = 2 ** 31 - 1;

const decoder = new TextDecoder();
const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

interface Pending {
  resolve(fields: Uint8Array[]): void;
  reject(error: Error): void;
  timer?: ReturnType<typeof setTimeout>;
}

/** Who a client connects to. */
export interface ClientOptions {
  host: string;
  port: number;
  secret: string;
  /** Milliseconds until a server that is not there is given up. */
  timeout: number;
}

/** Sends requests and pairs the answers with them. The process may end while none is under way. */
export class StoreClient {
  /** Host and port, for messages. */
  readonly place: string;
  /** Bytes of the largest value that the server takes. */
  readonly valueBytes: number;
  readonly #conn: Deno.TcpConn;
  readonly #pending = new Map<number, Pending>();
  #next = 1;
  #sending: Promise<void> = Promise.resolve();
  #failure: string | null = null;

  private constructor(conn: Deno.TcpConn, place: string, valueBytes: number) {
    this.#conn = conn;
    this.place = place;
    this.valueBytes = valueBytes;
    this.#receive();
    conn.unref();
  }

  /**
   * Connects, as soon as there is a server.
   *
   * @throws {DistributedError} If there is none in time, what is there is no store or one with another secret, or it is full.
   */
  static async connect(options: ClientOptions): Promise<StoreClient> {
    const { host, port, timeout } = options, place = wire.endpoint(host, port), start = performance.now();
    const key = await wire.proofKey(options.secret);
    for (let delay = 20;; delay = Math.min(delay * 2, 1000)) {
      const left = timeout - (performance.now() - start);
      const attempt = await tryConnect(wire.hostAddress(host), port, Math.max(left, 1));
      if (attempt instanceof Error) {
        if (timeout - (performance.now() - start) <= delay) {
          throw new DistributedError(
            `TcpStore: no store answers at ${place} after ${
              Math.round(timeout)
            } ms (${attempt.message}): is rank 0 or the launcher up, and is the ` +
              `address right?`,
          );
        }
        await pause(delay);
        continue;
      }
      const greeted = await greet(attempt, key, place);
      if (greeted !== null) return new StoreClient(attempt, place, greeted);
      // The server closed in mid-greeting: it is ending, or there are many of us.
      if (performance.now() - start > timeout) throw new DistributedError(`TcpStore: the store at ${place} closes each connection`);
      await pause(delay);
    }
  }

  async #receive(): Promise<void> {
    let reason = `the store at ${this.place} closed the connection: rank 0 or the launcher has ended`;
    try {
      for (;;) {
        const header = await wire.readExactly(this.#conn, wire.HEADER_BYTES);
        if (header === null) break;
        const view = new DataView(header.buffer), length = view.getUint32(0, true);
        const body = await wire.readExactly(this.#conn, length + 4 - wire.HEADER_BYTES);
        const fields = body && wire.decodeFields(body);
        if (fields === null) break;
        const pending = this.#settle(view.getUint32(4, true));
        if (header[8] === wire.Status.ok) pending?.resolve(fields);
        else pending?.reject(new DistributedError(decoder.decode(fields[0])));
      }
    } catch (error) {
      reason = `lost the connection to the store at ${this.place}: ${error instanceof Error ? error.message : error}`;
    }
    this.#fail(reason);
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    clearTimeout(pending?.timer);
    this.#pending.delete(id);
    if (this.#pending.size === 0 && this.#failure === null) this.#conn.unref();
    return pending;
  }

  #fail(reason: string): void {
    this.#failure ??= reason;
    wire.closeQuietly(this.#conn);
    for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(new DistributedError(`Store: ${this.#failure}`));
  }

  /** The answer to a request; `what` names it in the error after `timeout` milliseconds and some more. */
  request(op: number, fields: readonly Uint8Array[], timeout: number, what: string): Promise<Uint8Array[]> {
    if (this.#failure !== null) return Promise.reject(new DistributedError(`Store: ${this.#failure}`));
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array[]>();
    const id = this.#next, pending: Pending = { resolve, reject };
    this.#next = this.#next % 0xffff_fff0 + 1;
    if (this.#pending.size === 0) this.#conn.ref();
    this.#pending.set(id, pending);
    const limit = Math.min(timeout + GRACE, LONGEST);
    // Late timers come before late answers when the thread was busy: the answers get one more turn.
    const expire = () => pending.timer = setTimeout(() => this.#settle(id)?.reject(silent()), 100);
    const silent = () => new DistributedError(`Store: ${what}: the store at ${this.place} has not answered for ${Math.round(limit)} ms`);
    if (timeout !== Infinity) pending.timer = setTimeout(expire, limit);
    const frame = wire.encodeFrame(id, op, fields);
    this.#sending = this.#sending.then(() => wire.writeAll(this.#conn, frame)).catch((error) =>
      this.#fail(`lost the connection to the store at ${this.place}: ${error instanceof Error ? error.message : error}`)
    );
    return promise;
  }

  /** Rejects what is under way and disconnects. */
  async close(): Promise<void> {
    if (this.#pending.size === 0) await this.#sending;
    this.#fail("it is closed");
  }
}

async function tryConnect(hostname: string, port: number, left: number): Promise<Deno.TcpConn | Error> {
  const signal = AbortSignal.timeout(Math.min(left, LONGEST));
  try {
    const conn = await Deno.connect({ hostname, port, signal });
    if (conn.localAddr.port === port && conn.localAddr.hostname === conn.remoteAddr.hostname) {
      conn.close(); // where nobody listens, TCP can connect a port to itself
      return new Error("Connection refused");
    }
    conn.setNoDelay(true);
    conn.setKeepAlive(true);
    return conn;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return error instanceof Error ? error : new Error(`${error}`);
  }
}

/** Both sides show that they know the secret; the largest value that the server takes, or `null` if it closed. */
async function greet(conn: Deno.TcpConn, key: CryptoKey, place: string): Promise<number | null> {
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    wire.closeQuietly(conn);
  }, GREETING);
  const refuse = (text: string): never => {
    throw new DistributedError(`TcpStore: ${text}`);
  };
  let done = false;
  try {
    const greeting = await wire.readExactly(conn, wire.GREETING_BYTES), name = wire.MAGIC.length - 1;
    if (greeting === null) return null;
    if (!wire.sameBytes(greeting.subarray(0, name), wire.MAGIC.subarray(0, name))) {
      refuse(`what answers at ${place} is not a dinograd store`);
    }
    if (greeting[name] !== wire.MAGIC[name]) {
      refuse(
        `the store at ${place} speaks version ${greeting[name]}, this process version ${wire.MAGIC[name]}: use one release of dinograd`,
      );
    }
    const theirs = greeting.subarray(wire.MAGIC.length), ours = crypto.getRandomValues(new Uint8Array(wire.PROOF_BYTES));
    await wire.writeAll(conn, wire.join([wire.MAGIC, ours, await wire.prove(key, "client", theirs, ours)]));
    const verdict = await wire.readExactly(conn, wire.VERDICT_BYTES);
    if (verdict === null) return null;
    const wrong = `the secret of this process is not that of the store at ${place}: compare DINOGRAD_SECRET (or the option secret)`;
    if (verdict[0] === wire.Verdict.stranger) refuse(wrong);
    if (!await wire.verify(key, "server", theirs, ours, verdict.subarray(1, 1 + wire.PROOF_BYTES))) refuse(wrong);
    if (verdict[0] === wire.Verdict.full) refuse(`the store at ${place} has no more room for connections: raise its limit connections`);
    done = true;
    return new DataView(verdict.buffer).getUint32(1 + wire.PROOF_BYTES, true);
  } catch (error) {
    if (error instanceof DistributedError) throw error;
    if (late) refuse(`what listens at ${place} stays silent: it is not a dinograd store, or it hangs`);
    return null;
  } finally {
    clearTimeout(timer);
    if (!done) wire.closeQuietly(conn);
  }
}
