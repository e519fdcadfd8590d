/**
 * Measures a row: every side does the same work, results are compared first, then the sides take turns.
 *
 * @module
 */
import { manualSeed, memory, saveSafetensors, setThreads, type Tensor } from "../mod.ts";
import { PyTorch, type Side as Peer, TensorFlow } from "./pytorch.ts";
import type { Row } from "./rows.ts";

/** A column beside dinograd. */
export type Column = "pytorch" | "channels_last" | "compile" | "tensorflow";
/** The columns, in their order. */
export const columns: readonly Column[] = ["pytorch", "channels_last", "compile", "tensorflow"];

/** Times of one side. */
export interface Times {
  /** Median, milliseconds a step. */
  ms: number;
  /** All rounds. */
  times: number[];
}

/** A side beside dinograd, or why it is left out. */
export type Side =
  | (Times & {
    /** dinograd's median by this one's: below 1 dinograd is faster. */
    ratio: number;
    /** Lowest and highest ratio of a round. */
    range: [number, number];
    /** Largest difference of the results, relative to the larger of the two and 1. */
    difference: number;
  })
  | { why: string };

/** What came out of a row. */
export interface Result {
  name: string;
  what: string;
  threads: number;
  dinograd: Times;
  sides: Partial<Record<Column, Side>>;
  /** Operations a second, 10^9, counted as the direct algorithm needs them. */
  gflops?: number;
  /** Memory, 10^9 bytes a second. */
  gbs?: number;
  /** Part of the measured peak. */
  of_peak?: number;
  /** Nanoseconds from one core to another and back, before and after the row. */
  apart?: (number | null)[];
  /** With `--scaling`: on one thread, and how much faster all are. */
  scaling?: Record<string, Times & { speedup: number }>;
}

/** How to measure. */
export interface Plan {
  readonly rounds: number;
  readonly threads: number;
  readonly python: string;
  readonly columns: readonly Column[];
  readonly scaling: boolean;
  /** A folder for the inputs. */
  readonly folder: string;
}

/** The middle value. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** Largest difference, relative to the larger of the two and 1. */
function difference(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Infinity;
  return Math.max(...a.map((v, i) => Math.abs(v - b[i]) / Math.max(1, Math.abs(v), Math.abs(b[i]))));
}

/** The process of a column, started and asked for its version; `null` if there is none on this machine. */
export async function start<T extends Peer>(make: () => T): Promise<{ peer: T; version: string } | null> {
  try {
    const peer = make();
    return { peer, version: String((await peer.line()).version) };
  } catch {
    return null;
  }
}

/** A side that takes turns. */
interface Contender {
  readonly times: number[];
  /** Milliseconds a step, of so many steps. */
  time(steps: number): Promise<number>;
}

function contender(peer: Peer, as: string, threads: number): Contender {
  return { times: [], time: async (steps) => (await peer.ask({ do: "time", as, steps, threads })).ms as number };
}

/** Milliseconds that a turn of the fastest side takes at least: what a turn begins with (threads awake, data in caches) is a small part of it. */
const TURN = 100;

function stepsOf(ms: number): number {
  return Math.max(1, Math.ceil(TURN / ms));
}

/** Half a second of work, in which V8 compiles what is small. Returns what a step then takes. */
async function warmUp(side: Contender): Promise<number> {
  const until = performance.now() + 500;
  let ms = await side.time(1);
  while (performance.now() < until) ms = await side.time(stepsOf(ms));
  return ms;
}

/** OpenMP's threads look for more work for some milliseconds before they sleep, on a core that the next side would miss. */
const settle = () => new Promise((done) => setTimeout(done, 20));

/** Two sides do not compute the same. */
export class Mismatch extends Error {}

/** Measures `row`. @throws {Mismatch} If a side's results differ by more than the row allows. */
export async function measure(row: Row, plan: Plan): Promise<Result> {
  setThreads(plan.threads);
  manualSeed(1);
  const inputs: Record<string, Tensor> = row.inputs();
  for (const tensor of Object.values(inputs)) tensor.kept = true;
  const ready = row.setup(inputs), path = `${plan.folder}/${row.name}.safetensors`;
  await saveSafetensors(path, inputs);
  const ours: number[] = [];
  for (let i = 0; i < row.checks; i++) {
    using result = ready.step();
    ours.push(...ready.check(result));
  }
  const peers: Peer[] = [],
    sides: Partial<Record<Column, Side>> = {},
    beside = new Map<Column, Contender>(),
    off = new Map<Column, number>();
  let torch: Peer | null = null;
  const load = async (peer: Peer, column: Column) => {
    const as = column === "pytorch" ? "default" : column;
    const { values, why } = await peer.ask({ do: "load", name: row.name, path, checks: row.checks, as });
    if (values === undefined) {
      if (why !== null) sides[column] = { why: String(why) };
      return;
    }
    off.set(column, difference(ours, values as number[]));
    if (!(off.get(column)! <= row.tolerance)) {
      throw new Mismatch(`${row.name}: results of ${column} differ by ${off.get(column)!.toExponential(1)} (allowed ${row.tolerance})`);
    }
    beside.set(column, contender(peer, as, plan.threads));
  };
  try {
    for (const column of plan.columns) {
      if (column === "tensorflow") {
        const tensorflow = await start(() => new TensorFlow(plan.threads));
        if (tensorflow === null) continue;
        peers.push(tensorflow.peer);
        await load(tensorflow.peer, column);
        continue;
      }
      if (torch === null) {
        const started = await start(() => new PyTorch(plan.python, "pytorch.py", [], plan.threads));
        if (started === null) break;
        peers.push(torch = started.peer);
      }
      await load(torch, column);
    }
    const here = (threads: number): Contender => ({
      times: [],
      time(steps) {
        if (plan.scaling) setThreads(threads);
        const begin = performance.now();
        for (let i = 0; i < steps; i++) ready.step().dispose();
        return Promise.resolve((performance.now() - begin) / steps);
      },
    });
    const mine = here(plan.threads), alone = new Map<string, Contender>();
    if (plan.scaling) {
      alone.set("dinograd", here(1));
      if (torch !== null && beside.has("pytorch")) alone.set("pytorch", contender(torch, "default", 1));
    }
    const turns = [mine, ...beside.values(), ...alone.values()];
    let fastest = Infinity;
    for (const it of turns) fastest = Math.min(fastest, await warmUp(it));
    const steps = stepsOf(fastest);
    for (let round = 0; round < plan.rounds; round++) {
      for (const it of turns) {
        await settle();
        it.times.push(await it.time(steps));
      }
    }

    const dinograd = { ms: median(mine.times), times: mine.times };
    for (const [column, { times }] of beside) {
      const ratios = times.map((ms, i) => mine.times[i] / ms), ms = median(times);
      const range: [number, number] = [Math.min(...ratios), Math.max(...ratios)];
      sides[column] = { ms, ratio: dinograd.ms / ms, range, difference: off.get(column)!, times };
    }
    const scaling: Record<string, Times & { speedup: number }> = {};
    for (const [name, { times }] of alone) {
      const ms = median(times), all = name === "dinograd" ? dinograd.ms : (sides.pytorch as Times).ms;
      scaling[name] = { ms, times, speedup: ms / all };
    }
    return { name: row.name, what: row.what, threads: plan.threads, dinograd, sides, ...(plan.scaling ? { scaling } : {}) };
  } finally {
    for (const peer of peers) await peer.close();
    await Deno.remove(path);
    setThreads(plan.threads);
    for (const tensor of Object.values(inputs)) {
      tensor.grad?.dispose();
      tensor.dispose();
    }
    await memory.collect();
    memory.releaseCache();
  }
}
