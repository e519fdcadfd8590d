/**
 * The rank processes of one machine: started, followed, ended together.
 *
 * @module
 */
import { follow, Sink, Tail } from "./output.ts";

/** One process to start. */
export interface RankCommand {
  /** Its number in the job. */
  rank: number;
  /** Arguments for Deno. */
  args: string[];
  /** Variables on top of this process's. */
  env: Record<string, string>;
  /** Folder for `rank_N.stdout.log` and `rank_N.stderr.log`. */
  logs?: string;
}

/** How a rank ended. */
export interface RankEnd {
  /** Its number in the job. */
  rank: number;
  /** Its process. */
  pid: number;
  /** Exit code; 128 and the signal's number if a signal ended it. */
  code: number;
  /** The signal that ended it. */
  signal: string | null;
  /** It ended after this side had asked for it. */
  asked: boolean;
  /** Seconds since it was started. */
  seconds: number;
  /** The last lines of its error output. */
  tail: string[];
}

/** Where the output of ranks goes; `null` drops it. */
export interface RankOutput {
  stdout: Sink | null;
  stderr: Sink | null;
}

/** Milliseconds in which others that fail, too, may turn out to be the cause. */
const WINDOW = 200;
/** Milliseconds for the rest of the output of a process that has ended. */
const OUTPUT = 1000;

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** Waits for `work`, at most `ms` milliseconds. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  await Promise.race([work, new Promise((done) => timer = setTimeout(done, ms))]);
  clearTimeout(timer);
}

/** The rank processes of this machine. */
export class Ranks {
  readonly #running = new Map<number, Deno.ChildProcess>();
  readonly #ends: RankEnd[] = [];
  readonly #all: Promise<RankEnd[]>;
  readonly #failed = Promise.withResolvers<void>();
  readonly #start = performance.now();
  #asked = false;

  /** Starts the processes; if one cannot be started, ends those that could and throws. */
  constructor(commands: readonly RankCommand[], output: RankOutput) {
    const ends: Promise<void>[] = [];
    try {
      for (const command of commands) ends.push(this.#launch(command, output));
    } catch (error) {
      this.signal("SIGKILL");
      throw error;
    }
    this.#all = Promise.all(ends).then(() => this.#ends);
  }

  #launch({ rank, args, env, logs }: RankCommand, output: RankOutput): Promise<void> {
    const open = (kind: string) =>
      logs === undefined ? null : Deno.openSync(`${logs}/rank_${rank}.${kind}.log`, { write: true, create: true, truncate: true });
    const files = [open("stdout"), open("stderr")], [out, err] = files.map((file) => file && new Sink(file)), tail = new Tail();
    // A process group of its own: signals of the terminal come through this process alone, and reach all that the rank started.
    const child = new Deno.Command(Deno.execPath(), { args, env, stdin: "null", stdout: "piped", stderr: "piped", detached: true }).spawn();
    this.#running.set(rank, child);
    const prefix = `[rank ${rank}] `;
    const followed = Promise.all([
      follow(child.stdout, { prefix, sink: output.stdout, log: out, tail: null }),
      follow(child.stderr, { prefix, sink: output.stderr, log: err, tail }),
    ]);
    return (async () => {
      const { code, signal } = await child.status, asked = this.#asked;
      this.#running.delete(rank);
      const seconds = (performance.now() - this.#start) / 1000;
      await within(OUTPUT, followed);
      killGroup(child.pid, "SIGKILL"); // what it left behind, which may hold its output open
      await within(OUTPUT, followed);
      for (const file of files) file?.close();
      this.#ends.push({ rank, pid: child.pid, code, signal, asked, seconds, tail: tail.lines });
      if (code !== 0) this.#failed.resolve();
    })();
  }

  /** Numbers of the ranks that run. */
  get running(): number[] {
    return [...this.#running.keys()];
  }

  /** How the ranks ended that have ended. */
  get ends(): readonly RankEnd[] {
    return this.#ends;
  }

  /** The rank whose failure came first, as soon as one fails; `null` when all have ended well. */
  async failure(): Promise<RankEnd | null> {
    await Promise.race([this.#all, this.#failed.promise]);
    if (this.#ends.every(({ code }) => code === 0)) return null;
    // Ranks that lose a peer fail within milliseconds of it, and may be noticed before it.
    await Promise.race([this.#all, pause(WINDOW)]);
    const weight = (end: RankEnd) =>
      (end.asked ? 4 : 0) + (end.signal ? 0 : 2) + (end.tail.some((line) => line.includes("DistributedError")) ? 1 : 0);
    return this.#ends.filter(({ code }) => code !== 0).sort((a, b) => weight(a) - weight(b) || a.seconds - b.seconds)[0];
  }

  /** Sends a signal to all that run, and the processes that they started. */
  signal(signal: Deno.Signal): void {
    for (const { pid } of this.#running.values()) killGroup(pid, signal);
  }

  /** Ends all: `SIGTERM` (or another signal), after `grace` milliseconds `SIGKILL`. */
  async end(grace: number, signal: Deno.Signal = "SIGTERM"): Promise<RankEnd[]> {
    this.#asked = true;
    this.signal(signal);
    const timer = setTimeout(() => this.signal("SIGKILL"), grace);
    try {
      return await this.#all;
    } finally {
      clearTimeout(timer);
    }
  }
}

function killGroup(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(-pid, signal);
  } catch {
    // Nothing of it is left.
  }
}

/** How a process ended, in words. */
export function ending({ code, signal }: { code: number; signal: string | null }): string {
  return signal ? `ended by ${signal}` : `exit code ${code}`;
}

/** Threads that each of `count` processes on this machine gets. */
export function threadsPerRank(count: number): number {
  return Math.max(1, Math.floor(navigator.hardwareConcurrency / count));
}

/** What a rank's environment says of its place. */
export interface RankPlace {
  rank: number;
  worldSize: number;
  localRank: number;
  localWorldSize: number;
  nodeRank: number;
  host: string;
  port: number;
  secret: string;
  /** How many times the job was started again. */
  restarts: number;
}

/** The variables of a rank. */
export function rankEnvironment(place: RankPlace): Record<string, string> {
  const env: Record<string, string> = {
    RANK: `${place.rank}`,
    WORLD_SIZE: `${place.worldSize}`,
    LOCAL_RANK: `${place.localRank}`,
    LOCAL_WORLD_SIZE: `${place.localWorldSize}`,
    NODE_RANK: `${place.nodeRank}`,
    GROUP_RANK: `${place.nodeRank}`,
    MASTER_ADDR: place.host,
    MASTER_PORT: `${place.port}`,
    DINOGRAD_SECRET: place.secret,
    RESTART_COUNT: `${place.restarts}`,
    DINOGRAD_RESTART_COUNT: `${place.restarts}`,
    DINOGRAD_AGENT_STORE: "1",
    DINOGRAD_STORE_PREFIX: `start ${place.restarts}`,
    DINOGRAD_LAUNCHER_PID: `${Deno.pid}`,
  };
  if (!Deno.env.get("OMP_NUM_THREADS")) env.OMP_NUM_THREADS = `${threadsPerRank(place.localWorldSize)}`;
  return env;
}

/** A secret that nobody else has. */
export function randomSecret(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
