/**
 * Calling a function in several processes.
 *
 * @module
 */
import { deserialize, serialize } from "node:v8";
import { DistributedError } from "../ffi/errors.ts";
import { Sink } from "./launcher/output.ts";
import { ending, randomSecret, rankEnvironment, Ranks } from "./launcher/ranks.ts";
import { checkTimeout } from "./store.ts";
import type { SpawnReply, SpawnTask } from "./launcher/spawned.ts";
import { StoreServer } from "./store/server.ts";
import { TcpStore } from "./store/tcp.ts";

/** What {@linkcode spawn} takes. */
export interface SpawnOptions {
  /** Number of processes. Default 1. */
  nprocs?: number;
  /** What the function gets after the rank: whatever `structuredClone` copies. Default: nothing. */
  args?: readonly unknown[];
  /** The exported function. Default: the module's default export. */
  name?: string;
  /** Variables of the environment, on top of this process's and the ranks' own. */
  env?: Record<string, string>;
  /** Milliseconds until processes that are not done are ended. Default: no limit. */
  timeout?: number;
  /** Milliseconds between `SIGTERM` and `SIGKILL` when processes are ended. Default 5000. */
  grace?: number;
  /** Drop what the processes write, instead of showing it with the rank before each line. Default `false`. */
  quiet?: boolean;
  /** Options for Deno. Default: `-A`. */
  denoArgs?: readonly string[];
}

/**
 * Calls `module`'s function in `nprocs` new processes as `fn(rank, ...args)`, and returns the results by rank. Each process is a rank of a job: in it
 * `rendezvous("env://")` finds the others. (`torch.multiprocessing.spawn`; functions cannot travel to another process, so a module is named.)
 *
 * The first rank that fails ends the others. All end with this process, however it ends. The result must be something that `structuredClone` copies: for
 * tensors `tolist()` or typed arrays.
 *
 * @param module URL of the module, as in `new URL("./worker.ts", import.meta.url)`. Its part under `if (import.meta.main)` is not run.
 * @throws {DistributedError} With the error of the first rank that failed, or the names of those that were not done in time.
 * @throws {TypeError} If `args` hold what cannot be copied, such as a function.
 * @throws {RangeError} If `nprocs` or `timeout` is no number that makes sense.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const module = "data:text/javascript,export default (rank, base) => base + rank";
 * assertEquals(await distributed.spawn(module, { nprocs: 2, args: [10] }), [10, 11]);
 * ```
 */
export async function spawn<T = unknown>(module: URL | string, options: SpawnOptions = {}): Promise<T[]> {
  const { nprocs = 1, args = [], name = "default", env = {}, timeout = Infinity, grace = 5000, quiet = false, denoArgs = ["-A"] } = options;
  if (!Number.isSafeInteger(nprocs) || nprocs < 1 || nprocs > 4096) {
    throw new RangeError(`spawn: nprocs must be a whole number from 1 to 4096, got ${nprocs}`);
  }
  checkTimeout(timeout, "spawn");
  if (!(grace >= 0)) throw new RangeError(`spawn: grace must be a number of milliseconds, got ${grace}`);
  const task: SpawnTask = { module: new URL(module).href, name, args }, sent = encode(task);
  const secret = randomSecret(), server = await StoreServer.start({ secret, limits: { valueBytes: 2 ** 28, totalBytes: 2 ** 30 } });
  let store: TcpStore | undefined, ranks: Ranks | undefined;
  try {
    store = await TcpStore.open("127.0.0.1", server.port, { secret });
    await store.set("task", sent);
    const common = { worldSize: nprocs, localWorldSize: nprocs, nodeRank: 0, host: "127.0.0.1", port: server.port, secret, restarts: 0 };
    const runner = new URL("./launcher/spawned.ts", import.meta.url).href;
    ranks = new Ranks(
      Array.from({ length: nprocs }, (_, rank) => ({
        rank,
        // As the main module, it decides which configuration file and import map hold.
        args: ["run", ...denoArgs, "--preload", runner, task.module],
        env: {
          ...rankEnvironment({ ...common, rank, localRank: rank }),
          DINOGRAD_SPAWN_PORT: `${server.port}`,
          DINOGRAD_SPAWN_SECRET: secret,
          ...env,
        },
      })),
      quiet ? { stdout: null, stderr: null } : { stdout: new Sink(Deno.stdout), stderr: new Sink(Deno.stderr) },
    );
    await finish(ranks, timeout, grace, store);
    return await Promise.all(Array.from({ length: nprocs }, (_, rank) => result<T>(store!, rank)));
  } finally {
    await ranks?.end(0);
    await store?.close();
    server.close();
  }
}

function encode(task: SpawnTask): Uint8Array {
  try {
    return serialize(task);
  } catch (error) {
    throw new TypeError(`spawn: args cannot be sent to another process: ${error instanceof Error ? error.message : error}`);
  }
}

/** What a rank sent; `null` if it ended without. */
async function reply(store: TcpStore, rank: number): Promise<SpawnReply | null> {
  const key = `reply ${rank}`;
  return await store.check([key]) ? deserialize(await store.get(key)) as SpawnReply : null;
}

async function result<T>(store: TcpStore, rank: number): Promise<T> {
  const sent = await reply(store, rank);
  if (sent === null || !("value" in sent)) throw new DistributedError(`spawn: rank ${rank} ended without a result: it called Deno.exit(0)`);
  return sent.value as T;
}

/** Waits until all ranks have ended well. */
async function finish(ranks: Ranks, timeout: number, grace: number, store: TcpStore): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((done) => {
    if (timeout !== Infinity) timer = setTimeout(() => done("late"), Math.min(timeout, 2 ** 31 - 1));
  });
  const end = await Promise.race([ranks.failure(), late]).finally(() => clearTimeout(timer));
  if (end === null) return;
  const running = ranks.running.sort((a, b) => a - b);
  await ranks.end(grace);
  if (end === "late") throw new DistributedError(`spawn: not done after ${timeout} ms: rank ${running.join(", ")}`);
  const sent = await reply(store, end.rank);
  if (sent === null || "value" in sent) {
    const tail = end.tail.length > 0 ? `; its error output ends with\n  ${end.tail.join("\n  ")}` : "";
    throw new DistributedError(`spawn: rank ${end.rank} failed: ${ending(end)}${tail}`);
  }
  const { name, message, stack } = sent.error, error = new DistributedError(`spawn: rank ${end.rank}: ${name}: ${message}`);
  error.stack = `${error.name}: ${error.message}\n    in rank ${end.rank}: ${(stack || message).split("\n").join("\n    ")}`;
  throw error;
}
