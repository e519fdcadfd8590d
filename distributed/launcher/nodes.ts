/**
 * How the launchers of a job's machines agree on what happens, over the store that machine 0's launcher serves.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";
import { environmentSecret, TcpStore } from "../store/tcp.ts";
import { isLoopback } from "../store/protocol.ts";
import { StoreServer } from "../store/server.ts";
import { processEnvironment } from "../environment.ts";
import type { LaunchOptions } from "./options.ts";
import { randomSecret, type RankEnd } from "./ranks.ts";

/** Why the ranks were ended. */
export type Failure =
  | { kind: "rank"; node: number; host: string; end: RankEnd; localRank: number }
  | { kind: "interrupted"; node: number; host: string; signal: Deno.Signal }
  | { kind: "lost"; node: number; text: string };

/** Milliseconds between looks at what others did while this side ends. */
const LEAVING = 5000;

const decoder = new TextDecoder();
const parse = <T>(bytes: Uint8Array): T => JSON.parse(decoder.decode(bytes)) as T;

/** This machine's part in the job. */
export class Nodes {
  /** The store's address, for ranks. */
  readonly host: string;
  readonly port: number;
  /** What members have to know; empty on loopback if nobody chose one. */
  readonly secret: string;
  /** Ranks on all machines. */
  worldSize = 0;
  /** The first rank on this machine. */
  firstRank = 0;
  /** How many times the job may be started again. */
  maxRestarts = 0;
  readonly #options: LaunchOptions;
  readonly #store: TcpStore;
  readonly #server: StoreServer | null;
  readonly #name: string = Deno.hostname();
  readonly #lost = Promise.withResolvers<Failure>();
  #beating: ReturnType<typeof setInterval> | undefined;
  #left = false;
  readonly #gone = new Set<number>();

  private constructor(options: LaunchOptions, store: TcpStore, server: StoreServer | null, secret: string) {
    this.#options = options;
    this.#store = store;
    this.#server = server;
    this.host = store.host;
    this.port = store.port;
    this.secret = secret;
  }

  /**
   * Serves the store or connects to it, and waits for the launchers of all machines.
   *
   * @throws {DistributedError} If they do not come in time, do not fit, or the store cannot be reached.
   */
  static async join(options: LaunchOptions): Promise<Nodes> {
    const { host, port, nodes, nodeRank, joinTimeout } = options;
    const named = environmentSecret(), alone = nodes === 1;
    if (!named && !alone && !isLoopback(host)) {
      throw new DistributedError(
        "several machines need a secret of their own: set DINOGRAD_SECRET to the same random text on all of them, " +
          "such as that of openssl rand -hex 32",
      );
    }
    const secret = named ?? (alone ? randomSecret() : "");
    const hostname = processEnvironment("DINOGRAD_STORE_BIND") || host;
    const server = nodeRank === 0 ? await StoreServer.start({ hostname, port, secret }) : null;
    try {
      const store = await TcpStore.open(host, server?.port ?? port, { secret, timeout: joinTimeout });
      const job = new Nodes(options, store, server, secret);
      await job.#meet().catch(async (error) => {
        await store.close();
        throw error;
      });
      return job;
    } catch (error) {
      server?.close();
      throw error;
    }
  }

  async #meet(): Promise<void> {
    const { nodes, nodeRank, procs, joinTimeout, maxRestarts } = this.#options, store = this.#store;
    const agreed = Number(decoder.decode(await store.compareSet("launch/nodes", null, `${nodes}`)));
    if (agreed !== nodes) throw new DistributedError(`--nnodes is ${nodes} here and ${agreed} on another machine`);
    const own = JSON.stringify({ procs, host: this.#name, id: crypto.randomUUID() });
    if (decoder.decode(await store.compareSet(`launch/node ${nodeRank}`, null, own)) !== own) {
      throw new DistributedError(
        `--node-rank ${nodeRank} is there already: another machine has the same number, or an earlier job still runs`,
      );
    }
    if (nodeRank === 0) await store.set("launch/restarts", `${maxRestarts}`);
    const keys = Array.from({ length: nodes }, (_, i) => `launch/node ${i}`);
    await store.wait(keys, { timeout: joinTimeout }).catch(async (error) => {
      const there = await Promise.all(keys.map((key) => store.check([key]))).catch(() => []);
      const missing = there.flatMap((it, i) => it ? [] : [i]).join(", ");
      throw missing ? new DistributedError(`the launchers of machines ${missing} did not join in ${joinTimeout / 1000} s`) : error;
    });
    const counts = await Promise.all(keys.map(async (key) => parse<{ procs: number }>(await store.get(key)).procs));
    this.worldSize = counts.reduce((sum, count) => sum + count, 0);
    this.firstRank = counts.slice(0, nodeRank).reduce((sum, count) => sum + count, 0);
    this.maxRestarts = Number(decoder.decode(await store.get("launch/restarts")));
    if (nodes > 1) this.#beat();
  }

  /** Shows that this launcher is alive, and watches the others: machine 0 all, the others machine 0. */
  #beat(): void {
    const { nodes, nodeRank, nodeTimeout } = this.#options, last = new Map<number, { beat: number; since: number }>();
    const lose = (node: number, text: string) => {
      this.#gone.add(node);
      if (!this.#left) this.#lost.resolve({ kind: "lost", node, text });
    };
    let busy = false;
    let answered = performance.now();
    this.#beating = setInterval(async () => {
      if (performance.now() - answered > nodeTimeout) lose(0, `machine 0 has not answered for ${nodeTimeout / 1000} s`);
      if (busy) return;
      busy = true;
      try {
        await this.#store.add(`launch/beat ${nodeRank}`, 1);
        for (let node = 1; nodeRank === 0 && node < nodes; node++) {
          const beat = await this.#store.add(`launch/beat ${node}`, 0), now = performance.now(), before = last.get(node);
          if (before === undefined || before.beat !== beat) last.set(node, { beat, since: now });
          else if (now - before.since > nodeTimeout && !await this.#store.check([`launch/left ${node}`])) {
            lose(node, `machine ${node} has shown no sign of life for ${nodeTimeout / 1000} s`);
          }
        }
        answered = performance.now();
      } catch (error) {
        lose(0, `the launcher of machine 0 is gone: ${error instanceof Error ? error.message : error}`);
      }
      busy = false;
    }, nodeTimeout / 5);
  }

  /** What to tell the others: this machine failed. Returns what counts, which is the first failure of all machines. */
  async report(start: number, failure: Failure): Promise<Failure> {
    if (failure.kind === "lost" && failure.node === 0) return failure; // nobody to tell
    try {
      return parse<Failure>(await this.#store.compareSet(`launch/${start}/failure`, null, JSON.stringify(failure)));
    } catch {
      return failure;
    }
  }

  /** The first failure of any machine; never resolves if there is none. */
  async failure(start: number): Promise<Failure> {
    const told = this.#store.get(`launch/${start}/failure`, { timeout: Infinity }).then((it) => parse<Failure>(it));
    const unreachable = told.catch((error): Failure | Promise<never> =>
      this.#left ? new Promise<never>(() => {}) : { kind: "lost", node: 0, text: `the launcher of machine 0 is gone: ${error.message}` }
    );
    return await Promise.race([unreachable, this.#lost.promise]);
  }

  /** This machine's ranks have ended well; resolves when all machines' have. Never rejects: who is lost shows as a failure. */
  async succeeded(start: number): Promise<void> {
    const { nodes, nodeRank } = this.#options;
    try {
      await this.#store.set(`launch/${start}/done ${nodeRank}`, "");
      await this.#store.wait(Array.from({ length: nodes }, (_, i) => `launch/${start}/done ${i}`), { timeout: Infinity });
    } catch {
      await new Promise<never>(() => {});
    }
  }

  /** This machine's ranks have been ended; waits until all machines' have, before they are started again. */
  async stopped(start: number): Promise<void> {
    const { nodes, nodeRank, grace } = this.#options;
    await this.#store.set(`launch/${start}/stopped ${nodeRank}`, "");
    const timeout = grace + 30_000;
    await this.#store.wait(Array.from({ length: nodes }, (_, i) => `launch/${start}/stopped ${i}`), { timeout });
  }

  /** Leaves the job; machine 0 waits for the others to leave first. */
  async leave(): Promise<void> {
    const { nodes, nodeRank } = this.#options;
    this.#left = true;
    clearInterval(this.#beating);
    try {
      await this.#store.set(`launch/left ${nodeRank}`, "");
      const others = Array.from({ length: nodes }, (_, i) => i).filter((i) => !this.#gone.has(i));
      if (this.#server) await this.#store.wait(others.map((i) => `launch/left ${i}`), { timeout: LEAVING });
    } catch {
      // Machine 0 is gone, or others do not come.
    }
    await this.#store.close();
    this.#server?.close();
  }

  /** The failure of a rank of this machine, as the others are told. */
  rankFailure(end: RankEnd): Failure {
    return { kind: "rank", node: this.#options.nodeRank, host: this.#name, end, localRank: end.rank - this.firstRank };
  }

  /** A signal that this launcher got, as the others are told. */
  interruption(signal: Deno.Signal): Failure {
    return { kind: "interrupted", node: this.#options.nodeRank, host: this.#name, signal };
  }
}
