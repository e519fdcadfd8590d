/**
 * The launcher: starts the ranks of this machine, ends them together, starts them again.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";
import { type Failure, Nodes } from "./nodes.ts";
import { type LaunchOptions, parseOptions, USAGE, UsageError } from "./options.ts";
import { Sink } from "./output.ts";
import { ending, type RankCommand, rankEnvironment, Ranks } from "./ranks.ts";

const SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;
type Caught = keyof typeof SIGNALS;

/** Signals that this process gets. */
class Signals {
  readonly first: Promise<Caught>;
  readonly #caught: Caught[] = [];
  readonly #handlers = new Map<Caught, () => void>();
  /** Called at the second signal. */
  again: () => void = () => {};

  constructor() {
    const { promise, resolve } = Promise.withResolvers<Caught>();
    this.first = promise;
    for (const signal of Object.keys(SIGNALS) as Caught[]) {
      const handler = () => {
        this.#caught.push(signal);
        resolve(signal);
        if (this.#caught.length > 1) this.again();
      };
      this.#handlers.set(signal, handler);
      Deno.addSignalListener(signal, handler);
    }
  }
  close(): void {
    for (const [signal, handler] of this.#handlers) Deno.removeSignalListener(signal, handler);
  }
}

/** Runs the launcher with a command line; returns the exit code. */
export async function launch(args: readonly string[]): Promise<number> {
  const stdout = new Sink(Deno.stdout), stderr = new Sink(Deno.stderr), signals = new Signals();
  try {
    const options = parseOptions(args);
    if (options === null) {
      await stdout.line(USAGE);
      return 0;
    }
    return await runJob(options, signals, stdout, stderr);
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof DistributedError)) throw error;
    await stderr.line(`launch: ${error.message}`);
    return error instanceof UsageError ? 2 : 1;
  } finally {
    signals.close();
  }
}

async function runJob(options: LaunchOptions, signals: Signals, stdout: Sink, stderr: Sink): Promise<number> {
  const joined = await Promise.race([Nodes.join(options), signals.first]);
  if (typeof joined === "string") {
    await stderr.line(`launch: ${joined} while waiting for the other machines`);
    return 128 + SIGNALS[joined];
  }
  try {
    for (let start = 0;; start++) {
      const failure = await runOnce(options, joined, start, signals, stdout, stderr);
      if (failure === null) return 0;
      await stderr.line(describe(failure));
      const restarts = failure.kind === "rank" && start < joined.maxRestarts;
      if (!restarts) {
        return failure.kind === "rank" ? failure.end.code : failure.kind === "interrupted" ? 128 + SIGNALS[failure.signal as Caught] : 1;
      }
      await joined.stopped(start);
      await stderr.line(`launch: starting all ranks again (restart ${start + 1} of ${joined.maxRestarts})`);
    }
  } finally {
    await joined.leave();
  }
}

/** Runs the ranks once: `null` if all end well, on all machines. */
async function runOnce(
  options: LaunchOptions,
  nodes: Nodes,
  start: number,
  signals: Signals,
  stdout: Sink,
  stderr: Sink,
): Promise<Failure | null> {
  const ranks = new Ranks(commands(options, nodes, start), { stdout, stderr });
  signals.again = () => ranks.signal("SIGKILL");
  const here = ranks.failure().then(async (end) => {
    if (end === null) await nodes.succeeded(start);
    return end;
  });
  const elsewhere = nodes.failure(start);
  const event = await Promise.race([here, elsewhere, signals.first]);
  if (event === null) return null;
  if (typeof event === "string") {
    await ranks.end(options.grace, event);
    return await nodes.report(start, nodes.interruption(event));
  }
  if ("kind" in event) {
    const failure = event.kind === "lost" ? await nodes.report(start, event) : event;
    await ranks.end(options.grace);
    return failure;
  }
  const failure = await nodes.report(start, nodes.rankFailure(event));
  await stderr.line(`launch: rank ${event.rank} failed (${ending(event)}): ending the other ranks`);
  await ranks.end(options.grace);
  return failure;
}

function commands(options: LaunchOptions, nodes: Nodes, start: number): RankCommand[] {
  const { procs, nodeRank, denoArgs, script, scriptArgs, logDir } = options;
  const logs = logDir === undefined ? undefined : `${logDir}/start_${start}`;
  if (logs !== undefined) makeFolder(logs);
  const watchdog = new URL("./watchdog.ts", import.meta.url).href;
  return Array.from({ length: procs }, (_, localRank) => ({
    rank: nodes.firstRank + localRank,
    args: ["run", ...denoArgs, "--preload", watchdog, script, ...scriptArgs],
    env: rankEnvironment({
      rank: nodes.firstRank + localRank,
      worldSize: nodes.worldSize,
      localRank,
      localWorldSize: procs,
      nodeRank,
      host: nodes.host,
      port: nodes.port,
      secret: nodes.secret,
      restarts: start,
    }),
    logs,
  }));
}

function makeFolder(path: string): void {
  try {
    Deno.mkdirSync(path, { recursive: true });
  } catch (error) {
    throw new UsageError(`--log-dir: cannot make ${path}: ${error instanceof Error ? error.message : error}`);
  }
}

/** A failure in words. */
function describe(failure: Failure): string {
  if (failure.kind === "lost") return `launch: ${failure.text}: the ranks of this machine were ended`;
  if (failure.kind === "interrupted") return `launch: ${failure.signal} on machine ${failure.node} (${failure.host}) ended all ranks`;
  const { end, host, node, localRank } = failure;
  const lines = [
    `launch: rank ${end.rank} failed first: ${ending(end)} after ${end.seconds.toFixed(1)} s ` +
    `(process ${end.pid}, local rank ${localRank} of machine ${node}, ${host})`,
  ];
  if (end.tail.length === 0) lines.push("launch: it wrote no error output");
  else lines.push("launch: its error output ends with", ...end.tail.map((line) => `  ${line}`));
  return lines.join("\n");
}
