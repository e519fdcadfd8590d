/**
 * `deno run -A benchmarks/memory.ts [row ...] [--steps=5] [--loop=0] [--python=python3]`: memory of a training step of rows of the benchmark (default: those of
 * ResNet-18, U-Net, ShuffleNet and pix2pix), in dinograd and in PyTorch, a process each: the highest resident memory, what of it the process had before there was
 * a model, the part of allocations after the second step that the allocator served from memory that it had, and the largest groups of tensors at the peak.
 *
 * `--loop=2000`: a ResNet-18 loop over a `DataLoader` of so many steps besides, written plainly and with `scope()`: does memory grow? Last, the time from process
 * start to a first result.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { DataLoader, getThreads, memory, nn, optim, OutOfMemoryError, saveSafetensors, scope, tensor, TensorDataset } from "../mod.ts";
import { resnet18 } from "../vision/mod.ts";
import { start } from "./measure.ts";
import { PyTorch } from "./pytorch.ts";
import { type Row, rows } from "./rows.ts";

function fail(text: string): never {
  console.error(`memory: ${text}`);
  Deno.exit(2);
}

const options = parseArgs(Deno.args, {
  string: ["steps", "loop", "python", "as", "save"],
  default: { steps: "5", loop: "0", python: "python3" },
  unknown: (name: string, key?: string) => key === undefined ? true : fail(`no option ${name}; see the head of benchmarks/memory.ts`),
});
const steps = Number(options.steps), loop = Number(options.loop);
if (!Number.isInteger(steps) || steps < 3) fail(`--steps takes a whole number of at least 3, got ${options.steps}`);
if (!Number.isInteger(loop) || loop < 0) fail(`--loop takes a whole number, got ${options.loop}`);

function rowOf(name: string): Row {
  return rows.find((it) => it.name === name) ?? fail(`no row ${name}. Rows: ${rows.map((row) => row.name).join(", ")}`);
}

const MB = 2 ** 20;

/** Highest resident memory of this process in MB, from the system's own account. */
function peakResident(): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))![1]) / 1024;
}

/** What a step of a row needs, as a process of its own finds it. */
interface Need {
  base: number;
  resident: number;
  /** Bytes of tensors and work space at the peak of a step, in MB, and what the allocator held. */
  native: number;
  reserved: number;
  hitRate: number;
  groups: string;
}

/** Steps of a row in this process; the values that the steps start from are left at `path`. */
async function needOf(row: Row, path: string): Promise<Need> {
  tensor([1]).add(1).dispose();
  const base = peakResident(), inputs = row.inputs();
  for (const it of Object.values(inputs)) it.kept = true;
  await saveSafetensors(path, inputs);
  const ready = row.setup(inputs);
  for (let i = 0; i < 2; i++) ready.step().dispose();
  const before = memory.stats();
  memory.resetPeak();
  for (let i = 2; i < steps; i++) ready.step().dispose();
  const after = memory.stats(), resident = peakResident();
  // The error of a step that has a little less than it needs names the largest groups.
  let groups = "";
  memory.setLimit(Math.ceil(after.peakBytes * 0.995));
  try {
    ready.step().dispose();
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    groups = /Largest live groups: (.*?)\. /.exec(error.message)?.[1] ?? `in a kernel's work space: ${error.message}`;
  }
  const hitRate = (after.cacheHits - before.cacheHits) / (after.allocations - before.allocations);
  return { base, resident, native: after.peakBytes / MB, reserved: after.peakReservedBytes / MB, hitRate, groups };
}

/** The loop itself: nothing but PyTorch's lines, unless `wrap` puts the body into a scope. */
async function train(wrap: (body: () => void) => void): Promise<void> {
  const batch = 32, batches = 20;
  const x = tensor(Float32Array.from({ length: batch * batches * 3 * 32 * 32 }, (_, i) => ((i * 7919) % 2003) / 1001 - 1));
  const y = tensor(BigInt64Array.from({ length: batch * batches }, (_, i) => BigInt(i % 10)));
  const dataset = new TensorDataset(x.reshape([batch * batches, 3, 32, 32]), y);
  const model = resnet18({ cifar: true, numClasses: 10 });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9 });
  const half: number[] = [];
  for (let step = 0; step < loop;) {
    for await (const [images, labels] of new DataLoader(dataset, { batchSize: batch, shuffle: true, seed: 1 })) {
      wrap(() => {
        optimizer.zeroGrad();
        const loss = nn.functional.crossEntropy(model.call(images), labels);
        loss.backward();
        optimizer.step();
      });
      step++;
      if (step === Math.ceil(loop / 2)) half.push(peakResident());
      if (step >= loop) break;
    }
  }
  const { tensors, peakBytes } = memory.stats();
  console.log(JSON.stringify({ peakMB: peakResident(), halfwayMB: half[0], nativePeakMB: peakBytes / MB, liveTensors: tensors }));
}

/** This script in a process of its own, or another one. */
async function child(args: readonly string[]): Promise<string> {
  const output = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", ...args], stderr: "inherit" }).output();
  if (!output.success) throw new Error(`a process ended with code ${output.code}`);
  return new TextDecoder().decode(output.stdout).trim();
}

async function compare(row: Row, path: string): Promise<void> {
  const need: Need = JSON.parse(await child([import.meta.url, row.name, "--as=row", `--steps=${steps}`, `--save=${path}`]));
  console.log(
    `${row.name}: ${need.resident.toFixed(0)} MB, ${(need.resident - need.base).toFixed(0)} above the process without a model` +
      ` (tensors and work space ${need.native.toFixed(0)} MB, held ${need.reserved.toFixed(0)} MB); ` +
      `${(need.hitRate * 100).toFixed(2)} % of allocations after the second step from the cache`,
  );
  console.log(`  at the peak: ${need.groups}`);
  const torch = await start(() => new PyTorch(String(options.python), "pytorch.py", [], getThreads()));
  if (torch === null) return console.log(`  no PyTorch: ${options.python} does not import it`);
  const before = (await torch.peer.ask({ do: "peak" })).mb as number;
  await torch.peer.ask({ do: "load", name: row.name, path, checks: steps });
  const peak = (await torch.peer.ask({ do: "peak" })).mb as number;
  await torch.peer.close();
  console.log(`  PyTorch ${torch.version}: ${peak.toFixed(0)} MB, ${(peak - before).toFixed(0)} above the process without a model`);
}

async function main(): Promise<void> {
  const names = options._.length > 0 ? options._.map(String) : ["resnet18_step", "unet_step", "shufflenet_step", "pix2pix_step"];
  const chosen = names.map(rowOf), folder = await Deno.makeTempDir({ prefix: "dinograd_memory_" });
  try {
    for (const row of chosen) await compare(row, `${folder}/${row.name}.safetensors`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  if (loop > 0) {
    for (const kind of ["plain", "scoped"]) console.log(kind.padEnd(8), await child([import.meta.url, `--loop=${loop}`, `--as=${kind}`]));
  }
  const first = `import { tensor } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)}; tensor([1, 2]).add(1);`;
  const times: number[] = [];
  for (let i = 0; i < 7; i++) {
    const begin = performance.now();
    await child([`data:application/typescript,${encodeURIComponent(first)}`]);
    times.push(performance.now() - begin);
  }
  console.log("start to first result:", times.sort((a, b) => a - b)[3].toFixed(0), "ms (median of 7)");
}

if (options.as === "plain") await train((body) => body());
else if (options.as === "scoped") await train((body) => scope(body));
else if (options.as === "row") console.log(JSON.stringify(await needOf(rowOf(String(options._[0])), String(options.save))));
else await main();
