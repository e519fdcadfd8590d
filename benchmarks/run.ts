/**
 * `deno task bench [row ...]`: the same work in dinograd, PyTorch (default layout, channels-last, torch.compile) and TensorFlow.js, taking turns of 0.1 s or more in one run. Results
 * are compared first (of models the losses of ten training steps); a row whose results differ is an error. Prints medians, the ratios of dinograd's to the others'
 * (below 1: dinograd is faster), GFLOP/s or GB/s and their part of the machine's measured peak (`peak/peak.cpp`), and where cores were far apart while a row
 * was measured (a virtual machine's may be on two processors for a while, where all that they share takes longer).
 *
 * `--rounds=7`, `--threads=2`, `--python=python3`; `--columns=pytorch,channels_last,compile,tensorflow` (default: all that this machine has); `--scaling`: one thread,
 * too; `--json`: a line on the machine and a line a row, with all that was measured; `--from=FILE`: prints or draws lines of an earlier `--json` instead of measuring;
 * `--chart=FILE`: draws the ratios as SVG.
 *
 * PyTorch: Debian's `python3-torch` or any that `--python` finds; torch.compile needs a C++ compiler, TensorFlow.js access to npm. What there is not is left out.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { setThreads } from "../mod.ts";

import { type Column, columns as allColumns, measure, Mismatch, type Plan, type Result, start } from "./measure.ts";
import { measureApart, measurePeak, type Peak } from "./peak/peak.ts";
import { PyTorch, TensorFlow } from "./pytorch.ts";
import { busy, chart, head, line, type Machine } from "./report.ts";
import { type Row, rows } from "./rows.ts";

function fail(text: string): never {
  console.error(`bench: ${text}`);
  Deno.exit(2);
}

const options = parseArgs(Deno.args, {
  boolean: ["json", "scaling"],
  string: ["python", "rounds", "threads", "columns", "chart", "from"],
  default: { python: "python3", rounds: "7", threads: "2", columns: allColumns.join() },
  unknown: (name: string, key?: string) => key === undefined ? true : fail(`no option ${name}; see the head of benchmarks/run.ts`),
});
const rounds = Number(options.rounds),
  threads = Number(options.threads),
  wanted = options._.map(String),
  scaling = Boolean(options.scaling);
const columns = String(options.columns).split(",").filter(Boolean) as Column[];
if (!Number.isInteger(rounds) || rounds < 1) fail(`--rounds takes a whole number of at least 1, got ${options.rounds}`);
if (scaling && threads === 1) fail("--scaling compares with one thread: --threads must be at least 2");
for (const it of columns) if (!allColumns.includes(it)) fail(`no column ${it}; there are ${allColumns.join(", ")}`);
for (const it of ["chart", "from"] as const) if (options[it] === "") fail(`--${it} takes the path of a file`);
const unknown = wanted.filter((name) => !rows.some((row) => row.name === name));
if (unknown.length > 0) fail(`no row ${unknown.join(", ")}. Rows: ${rows.map((row) => row.name).join(", ")}`);
try {
  setThreads(threads);
} catch (error) {
  fail(`--threads: ${(error as Error).message}`);
}

/** What the columns need, as far as this machine has it. */
async function look(folder: string): Promise<{ machine: Machine; present: Column[] }> {
  const torch = columns.some((it) => it !== "tensorflow")
    ? await start(() => new PyTorch(String(options.python), "pytorch.py", [], threads))
    : null;
  await torch?.peer.close();
  const tensorflow = columns.includes("tensorflow") ? await start(() => new TensorFlow(threads)) : null;
  await tensorflow?.peer.close();
  const model = /model name\s*:\s*(.*)/.exec(await Deno.readTextFile("/proc/cpuinfo").catch(() => ""))?.[1] ?? Deno.build.arch;
  const machine: Machine = {
    date: new Date().toISOString().slice(0, 10),
    processor: model,
    deno: Deno.version.deno,
    pytorch: torch?.version ?? null,
    tensorflow: tensorflow?.version ?? null,
    threads,
    rounds,
    load: Deno.loadavg()[0],
    peak: await measurePeak(threads, folder),
  };
  return { machine, present: columns.filter((it) => it === "tensorflow" ? tensorflow !== null : torch !== null) };
}

function withRates(result: Result, row: Row, peak: Peak | null): Result {
  const { ms } = result.dinograd;
  if (row.flops !== undefined) {
    const gflops = row.flops / ms / 1e6;
    return { ...result, gflops, ...(peak ? { of_peak: gflops / peak.gflops } : {}) };
  }
  if (row.bytes === undefined) return result;
  const gbs = row.bytes / ms / 1e6;
  return { ...result, gbs, ...(peak ? { of_peak: gbs / peak.gbs } : {}) };
}

function introduce({ machine, present }: { machine: Machine; present: readonly Column[] }, scaling: boolean): void {
  const { peak, pytorch, tensorflow, load } = machine;
  if (pytorch !== null) console.log(`PyTorch ${pytorch}`);
  else if (columns.some((it) => it !== "tensorflow")) {
    console.log(`no PyTorch: ${options.python} does not import it, its columns are left out`);
  }
  if (tensorflow !== null) console.log(`TensorFlow.js ${tensorflow} (tfjs-backend-wasm, threads and SIMD)`);
  else if (columns.includes("tensorflow")) console.log("no TensorFlow.js: it cannot be fetched from npm, its column is left out");
  console.log(
    peak === null
      ? "no peak: there is no C++ compiler (c++, or $CXX), the fraction of it is left out"
      : `peak: ${peak.gflops.toFixed(0)} GFLOP/s (multiply-adds in registers), ${peak.gbs.toFixed(1)} GB/s (a = b + 3 c, or a sum)`,
  );
  console.log(
    `${machine.processor}, ${machine.threads} ${
      machine.threads === 1 ? "thread" : "threads"
    } each, medians of ${machine.rounds} rounds in turns`,
  );
  if (busy(machine)) {
    console.log(`other programs are running (load ${load.toFixed(1)}): that slows the sides unequally, take figures of a quiet machine`);
  }
  console.log(`each column: median, dinograd's time / its time\n\n${head(present, scaling)}`);
}

/** Lines of an earlier `--json`; of a row that comes twice the last. */
function earlier(path: string): { machine: Machine; results: Result[] } {
  try {
    const [first, ...rest] = Deno.readTextFileSync(path).trim().split("\n").map((it) => JSON.parse(it));
    const results = new Map((rest as Result[]).filter((it) => it.dinograd !== undefined).map((it) => [it.name, it]));
    if (first.processor === undefined || results.size === 0) {
      throw new Error("it does not start with a line on the machine and a line on a row");
    }
    const order = rows.map((row) => row.name);
    return { machine: first, results: [...results.values()].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name)) };
  } catch (error) {
    fail(`--from: ${path}: ${(error as Error).message}`);
  }
}

async function main(): Promise<void> {
  if (options.from !== undefined) {
    const { machine, results } = earlier(String(options.from));
    const present = columns.filter((it) => results.some(({ sides }) => sides[it] !== undefined));
    const shown = wanted.length === 0 ? results : results.filter((it) => wanted.includes(it.name));
    introduce({ machine, present }, shown.some((it) => it.scaling));
    for (const result of shown) console.log(line(result, present));
    if (options.chart !== undefined) await Deno.writeTextFile(String(options.chart), chart(shown, present, machine));
    return;
  }
  const folder = await Deno.makeTempDir({ prefix: "dinograd_bench_" });
  try {
    const { machine, present } = await look(folder), results: Result[] = [];
    if (options.json) console.log(JSON.stringify(machine));
    else introduce({ machine, present }, scaling);
    const plan: Plan = { rounds, threads, python: String(options.python), columns: present, scaling, folder };
    for (const row of wanted.length === 0 ? rows : rows.filter(({ name }) => wanted.includes(name))) {
      try {
        const before = await measureApart(folder), measured = await measure(row, plan);
        const result = { ...withRates(measured, row, machine.peak), apart: [before, await measureApart(folder)] };
        results.push(result);
        console.log(options.json ? JSON.stringify(result) : line(result, present));
      } catch (error) {
        if (!(error instanceof Mismatch)) throw error;
        console.error(`bench: ${error.message}`);
        Deno.exitCode = 1;
      }
    }
    if (options.chart !== undefined && results.length > 0) {
      await Deno.writeTextFile(String(options.chart), chart(results, present, machine));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

await main();
