/** Worlds of processes for tests: each rank runs a scenario of `rank.ts` and writes lines of JSON, which the test reads. */
import { assert } from "@std/assert";

/** A line that a rank wrote: `{ event, ... }`. */
export type Line = { event: string } & Record<string, unknown>;

/** A process of a world. */
export class Rank {
  readonly #child: Deno.ChildProcess;
  readonly #lines: Line[] = [];
  #errors = "";
  readonly #waiting: (() => void)[] = [];
  readonly #reading: Promise<unknown>;

  /** `through`: the command that runs the rank's own, if any. */
  constructor(
    rank: number,
    size: number,
    scenario: string,
    store: string,
    backend: string,
    through: readonly string[] = [],
    env: Record<string, string> = {},
  ) {
    const script = new URL("rank.ts", import.meta.url).href;
    const [command, ...args] = [
      ...through,
      Deno.execPath(),
      "run",
      "-A",
      "--no-check",
      script,
      scenario,
      `${rank}`,
      `${size}`,
      store,
      backend,
    ];
    this.#child = new Deno.Command(command, {
      args,
      env: {
        NO_COLOR: "1",
        OMP_NUM_THREADS: "1",
        ...backend === "nccl" ? { DINOGRAD_EMULATED_CUDA: "1", DINOGRAD_EMULATED_DEVICES: String(size) } : {},
        ...env,
      },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#reading = Promise.all([this.#read(), this.#readErrors()]);
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop()!;
      this.#lines.push(...parts.filter((it) => it.startsWith("{")).map((it) => JSON.parse(it)));
      this.#wake();
    }
    this.#wake();
  }

  async #readErrors(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.#errors += text;
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** The first line with this event. */
  async line(event: string): Promise<Line> {
    for (;;) {
      const found = this.#lines.find((it) => it.event === event);
      if (found !== undefined) return found;
      const ended = await Promise.race([
        new Promise<false>((wake) => this.#waiting.push(() => wake(false))),
        this.#reading.then(() => true),
      ]);
      if (ended && !this.#lines.some((it) => it.event === event)) throw new Error(`a rank ended without "${event}": ${this.#errors}`);
    }
  }

  /** What it has written so far. */
  get lines(): readonly Line[] {
    return this.#lines;
  }

  /** Sends a signal. */
  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** How it ended, and what it wrote to standard error. */
  async end(): Promise<{ code: number; signal: string | null; errors: string }> {
    const { code, signal } = await this.#child.status;
    await this.#reading;
    return { code, signal, errors: this.#errors };
  }
}

/** Runs `body` with the ranks of a world, each through a command of its own if that is given; none is left behind. */
export async function withWorld(
  size: number,
  scenario: string,
  body: (ranks: Rank[]) => Promise<void>,
  backend = "gloo",
  through: readonly (readonly string[])[] = [],
  env: Record<string, string> = {},
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "dinograd_world_" });
  const ranks = Array.from({ length: size }, (_, rank) => new Rank(rank, size, scenario, `${folder}/store`, backend, through[rank], env));
  try {
    await body(ranks);
  } finally {
    for (const rank of ranks) {
      try {
        rank.kill("SIGKILL");
      } catch {
        continue; // it has ended
      }
    }
    for (const rank of ranks) await rank.end();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs a world whose ranks check everything themselves. */
export async function runWorld(size: number, scenario: string, backend = "gloo", env: Record<string, string> = {}): Promise<void> {
  await withWorld(
    size,
    scenario,
    async (ranks) => {
      const ends = await Promise.all(ranks.map((it) => it.end()));
      ends.forEach(({ code, errors }, rank) => assert(code === 0, `rank ${rank} of ${size} failed in ${scenario}: ${errors}`));
    },
    backend,
    [],
    env,
  );
}
