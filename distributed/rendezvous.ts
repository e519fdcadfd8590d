/**
 * How the processes of a job find each other.
 *
 * @module
 */
import { DistributedError } from "../ffi/errors.ts";
import { type Environment, masterOf, type Place, placeOf, processEnvironment, starterOf } from "./environment.ts";
import { checkTimeout, DEFAULT_STORE_TIMEOUT, PrefixStore, type Store } from "./store.ts";
import { FileStore } from "./store/file.ts";
import { TcpStore } from "./store/tcp.ts";

/** What {@linkcode rendezvous} takes. */
export interface RendezvousOptions {
  /** Number of this process, from 0. Default: from the URL, else from the environment. */
  rank?: number;
  /** Number of processes. Default: from the URL, else from the environment. */
  worldSize?: number;
  /** What all processes have to know to use a store over TCP. May be left out on loopback only. Default: `DINOGRAD_SECRET`. */
  secret?: string;
  /** Milliseconds that the store waits for others. Default 300 000. */
  timeout?: number;
  /** Reads a variable of the environment. Default: this process's. */
  env?: Environment;
}

/** What processes that have met know. */
export interface Rendezvous {
  /** What all of them see. */
  store: Store;
  /** Number of this process, from 0. */
  rank: number;
  /** Number of processes. */
  worldSize: number;
  /** Number of this process on its machine, from 0. */
  localRank: number;
}

/** How many meetings of this process came before, by URL: each gets keys of its own in a store that outlives it. */
const meetings = new Map<string, number>();

/**
 * Finds the other processes of the job. What `url` is:
 *
 * - `env://`: `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, as the launcher and torchrun set them, or the variables of Slurm or Open MPI. Rank 0
 *   serves the store, unless the launcher does.
 * - `tcp://host:port`: rank 0 serves the store there.
 * - `file:///path`: a new file that all processes can open. The last that closes the store removes it.
 *
 * The latter two take rank and number of processes from the options, the URL (`?rank=0&world_size=2`) or the environment. A store over TCP binds the address
 * that is named, or the one in `DINOGRAD_STORE_BIND`.
 *
 * @throws {DistributedError} If something is missing or makes no sense, two processes have the same rank, they differ about their number, or the store cannot
 * be reached.
 *
 * @example
 * ```ts
 * import { distributed } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const url = `file://${await Deno.makeTempDir()}/store`;
 * const [a, b] = await Promise.all([0, 1].map((rank) => distributed.rendezvous(url, { rank, worldSize: 2 })));
 * await a.store.set("greeting", `from rank ${a.rank} of ${a.worldSize}`);
 * assertEquals(new TextDecoder().decode(await b.store.get("greeting")), "from rank 0 of 2");
 * await Promise.all([a.store.close(), b.store.close()]);
 * ```
 */
export async function rendezvous(url: string | URL = "env://", options: RendezvousOptions = {}): Promise<Rendezvous> {
  const env = options.env ?? processEnvironment, timeout = checkTimeout(options.timeout ?? DEFAULT_STORE_TIMEOUT, "rendezvous");
  const where = parse(url);
  const place = where.protocol === "env:" ? fromEnvironment(options, env) : fromUrl(where, options, env);
  const { rank, worldSize } = place, secret = options.secret ?? (env("DINOGRAD_SECRET") || undefined);
  const prefix = env("DINOGRAD_STORE_PREFIX");
  let whole: Store;
  if (where.protocol === "file:") {
    if (where.pathname === "/" || where.hostname !== "") throw new DistributedError(`rendezvous: expected file:///path, got "${url}"`);
    whole = await FileStore.open(decodeURIComponent(where.pathname), { worldSize, timeout });
  } else {
    const served = where.protocol === "env:" && env("DINOGRAD_AGENT_STORE") === "1";
    const { host, port } = where.protocol === "env:" ? masterOf(place, env) : hostOf(where, url);
    const bind = env("DINOGRAD_STORE_BIND") || undefined;
    whole = await TcpStore.open(host, port, { isMaster: rank === 0 && !served, secret, timeout, bind, linger: 5000 });
  }
  const key = `${where.protocol}${where.host}${where.pathname} ${rank} ${prefix ?? ""}`, meeting = meetings.get(key) ?? 0;
  try {
    const store = new Part(`${prefix && where.protocol === "env:" ? `${prefix}/` : ""}meeting ${meeting}`, whole);
    await checkOthers(store, rank, worldSize);
    meetings.set(key, meeting + 1);
    return { store, rank, worldSize, localRank: place.localRank };
  } catch (error) {
    await whole.close();
    throw error;
  }
}

/** A part that is closed with the whole. */
class Part extends PrefixStore {
  readonly #whole: Store;

  constructor(prefix: string, whole: Store) {
    super(prefix, whole);
    this.#whole = whole;
  }
  override async close(): Promise<void> {
    await this.#whole.close();
  }
}

async function checkOthers(store: Store, rank: number, worldSize: number): Promise<void> {
  const agreed = Number(new TextDecoder().decode(await store.compareSet("world size", null, `${worldSize}`)));
  if (agreed !== worldSize) {
    throw new DistributedError(
      `rendezvous: rank ${rank} was told that there are ${worldSize} processes, another rank that there are ${agreed}`,
    );
  }
  if (await store.add(`rank ${rank}`, 1) > 1) {
    throw new DistributedError(
      `rendezvous: rank ${rank} is here already: two processes have the same rank, or the store is that of an earlier job`,
    );
  }
}

function parse(url: string | URL): URL {
  const expected = `rendezvous: expected env://, tcp://host:port or file:///path, got "${url}"`;
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new DistributedError(expected);
  }
  if (!["env:", "tcp:", "file:"].includes(parsed.protocol)) throw new DistributedError(expected);
  return parsed;
}

function hostOf(where: URL, url: string | URL): { host: string; port: number } {
  const host = where.hostname.replace(/^\[(.*)\]$/, "$1");
  if (host === "" || where.port === "" || where.port === "0") {
    throw new DistributedError(`rendezvous: expected a host and a port, as in tcp://127.0.0.1:29500, got "${url}"`);
  }
  return { host, port: Number(where.port) };
}

function checkPlace(rank: number, worldSize: number): void {
  if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
    throw new DistributedError(`rendezvous: worldSize must be a whole number >= 1, got ${worldSize}`);
  }
  if (!Number.isSafeInteger(rank) || rank < 0 || rank >= worldSize) {
    throw new DistributedError(`rendezvous: rank must be a whole number from 0 to ${worldSize - 1}, got ${rank}`);
  }
}

function fromEnvironment(options: RendezvousOptions, env: Environment): Place {
  const { rank, worldSize } = options;
  // What options say takes the place of variables, so that these need not be there.
  const given: Environment = (name) =>
    name === "RANK" && rank !== undefined ? `${rank}` : name === "WORLD_SIZE" && worldSize !== undefined ? `${worldSize}` : env(name);
  const place = placeOf(given);
  checkPlace(place.rank, place.worldSize);
  return place;
}

function fromUrl(where: URL, options: RendezvousOptions, env: Environment): Place {
  const number = (name: string): number | undefined => {
    const text = where.searchParams.get(name);
    if (text === null) return undefined;
    if (!/^\d+$/.test(text)) throw new DistributedError(`rendezvous: ${name} must be a whole number, got "${text}"`);
    return Number(text);
  };
  for (const name of where.searchParams.keys()) {
    if (name !== "rank" && name !== "world_size") {
      throw new DistributedError(`rendezvous: the URL takes rank and world_size, not "${name}"`);
    }
  }
  const known = starterOf(env) === undefined ? undefined : placeOf(env);
  const rank = options.rank ?? number("rank") ?? known?.rank, worldSize = options.worldSize ?? number("world_size") ?? known?.worldSize;
  if (rank === undefined || worldSize === undefined) {
    throw new DistributedError(
      `rendezvous: ${rank === undefined ? "rank" : "worldSize"} is not known: give it as an option, or in the URL as ` +
        `${where.protocol}//...?rank=0&world_size=2`,
    );
  }
  checkPlace(rank, worldSize);
  const localRank = known?.rank === rank ? known.localRank : rank;
  return { starter: "environment", rank, worldSize, localRank, localWorldSize: undefined };
}
