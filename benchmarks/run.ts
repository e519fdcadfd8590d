/**
 * `deno task bench [row ...] [--json] [--rounds=7] [--threads=2] [--python=python3]`: the same work here and in PyTorch, alternating in one run. Results are
 * compared first; a row whose results differ is an error. Prints the median of each side and their ratio (below 1: dinograd is faster).
 *
 * PyTorch: Debian's `python3-torch` or any that `--python` finds. Without one, only dinograd's column is filled.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { memory, saveSafetensors, setThreads, type Tensor } from "../mod.ts";

import { PyTorch } from "./pytorch.ts";
import { type Row, rows } from "./rows.ts";

const options = parseArgs(Deno.args, {
  boolean: ["json"],
  string: ["python", "rounds", "threads"],
  default: { python: "python3", rounds: "7", threads: "2" },
});
const rounds = Number(options.rounds), threads = Number(options.threads);

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

async function start(python: string): Promise<{ torch: PyTorch; version: string } | null> {
  try {
    const torch = new PyTorch(python, "pytorch.py", [], threads);
    return { torch, version: String((await torch.line()).version) };
  } catch {
    return null;
  }
}

/** Largest difference, relative to the larger of the two and 1. */
function difference(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Infinity;
  return Math.max(...a.map((v, i) => Math.abs(v - b[i]) / Math.max(1, Math.abs(v), Math.abs(b[i]))));
}

interface Result {
  name: string;
  dinograd_ms: number;
  pytorch_ms: number | null;
  ratio: number | null;
}

async function measure(row: Row, folder: string): Promise<Result> {
  const inputs: Record<string, Tensor> = row.inputs();
  for (const tensor of Object.values(inputs)) tensor.kept = true;
  const ready = row.setup(inputs);
  const path = `${folder}/${row.name}.safetensors`;
  await saveSafetensors(path, inputs);
  const peer = await start(String(options.python));
  let theirs: number[] | null = null;
  if (peer !== null) {
    theirs = (await peer.torch.ask({ do: "load", name: row.name, path, checks: row.checks })).values as number[];
  }
  await Deno.remove(path);
  const ours: number[] = [];
  for (let i = 0; i < row.checks; i++) {
    using result = ready.step();
    ours.push(...ready.check(result));
  }
  if (theirs !== null) {
    const off = difference(ours, theirs);
    if (!(off <= row.tolerance)) throw new Error(`${row.name}: results differ by ${off.toExponential(1)} (allowed ${row.tolerance})`);
  }
  // Small work is compiled by V8 as it runs: let both sides warm up.
  const warmup = row.steps > 1 ? row.steps * 40 : 1;
  for (let i = 0; i < warmup; i++) ready.step().dispose();
  if (peer !== null) await peer.torch.ask({ do: "time", steps: warmup });
  const mine: number[] = [], other: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    for (let i = 0; i < row.steps; i++) ready.step().dispose();
    mine.push((performance.now() - begin) / row.steps);
    if (peer !== null) other.push((await peer.torch.ask({ do: "time", steps: row.steps })).ms as number);
  }
  await peer?.torch.close();
  for (const tensor of Object.values(inputs)) {
    tensor.grad?.dispose();
    tensor.dispose();
  }
  await memory.collect();
  memory.releaseCache();
  const dinograd = median(mine), pytorch = peer === null ? null : median(other);
  return { name: row.name, dinograd_ms: dinograd, pytorch_ms: pytorch, ratio: pytorch === null ? null : dinograd / pytorch };
}

function rate(row: Row, ms: number): string {
  if (row.flops) return `${(row.flops / ms / 1e6).toFixed(0)} GFLOP/s`;
  return row.bytes ? `${(row.bytes / ms / 1e6).toFixed(1)} GB/s` : "";
}

const wanted = options._.map(String);
const unknown = wanted.filter((name) => !rows.some((row) => row.name === name));
if (unknown.length > 0 || !(rounds >= 1) || !(threads >= 1)) {
  console.error(
    `bench: ${unknown.length > 0 ? `no row ${unknown.join(", ")}` : "rounds and threads must be at least 1"}. Rows: ${
      rows.map((row) => row.name).join(", ")
    }`,
  );
  Deno.exit(2);
}
setThreads(threads);
if (!options.json) {
  const peer = await start(String(options.python));
  console.log(
    peer === null
      ? "PyTorch not found: only dinograd is measured"
      : `PyTorch ${peer.version}, ${threads} threads each, medians of ${rounds} alternating rounds`,
  );
  await peer?.torch.close();
  console.log(`\n${"row".padEnd(30)} ${"dinograd".padStart(12)} ${"PyTorch".padStart(12)} ${"ratio".padStart(7)}`);
}
const folder = await Deno.makeTempDir({ prefix: "dinograd_bench_" });
try {
  for (const row of rows) {
    if (wanted.length > 0 && !wanted.includes(row.name)) continue;
    const result = await measure(row, folder);
    if (options.json) {
      console.log(JSON.stringify(result));
      continue;
    }
    const theirs = result.pytorch_ms === null ? "" : `${result.pytorch_ms.toFixed(3)} ms`;
    console.log(
      `${row.name.padEnd(30)} ${`${result.dinograd_ms.toFixed(3)} ms`.padStart(12)} ${theirs.padStart(12)} ${
        (result.ratio?.toFixed(2) ?? "").padStart(7)
      }  ${rate(row, result.dinograd_ms)}`,
    );
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
