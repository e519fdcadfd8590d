/**
 * `deno run -A benchmarks/winograd_choice.ts [--threads=2] [--rounds=5] [--part=1] [--seed=1] [--json]`: is the algorithm that the CPU library chooses for a
 * 3x3 or 4x4 convolution the faster one?
 *
 * For a grid of shapes and each of the three passes, the direct products (those of few positions among them) and Winograd's take turns, both asked for by number (`dg_conv_set_winograd`). The
 * choice is what a call with the usual setting computes: its result has the bits of one of the two. On one thread a time is CPU time, which other processes
 * disturb less. The shapes take about 0.05 to 20 ms by the direct products on one thread.
 *
 * Printed for each pass: how often the choice was the faster one, and the regret, which is the time of what was done by that of the better: for the choice, for
 * Winograd wherever there is any and for the direct products. `--json`: a line for each shape and pass instead. `--part` takes a share of the grid, picked
 * by `--seed`.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import process from "node:process";
import { cpu } from "../ffi/device.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { getThreads, manualSeed, memory, randn, setThreads, type Tensor } from "../mod.ts";
import { channelsLast } from "../ops/copy.ts";
import { emptyTensor, native } from "../ops/native.ts";
import { channelsLastStrides, type Shape } from "../tensor/shape.ts";
import { median } from "./measure.ts";

function fail(text: string): never {
  console.error(`winograd_choice: ${text}`);
  Deno.exit(2);
}

const options = parseArgs(Deno.args, {
  string: ["threads", "rounds", "part", "seed"],
  boolean: ["json"],
  default: { threads: "2", rounds: "5", part: "1", seed: "1" },
  unknown: (name: string, key?: string) =>
    key === undefined ? true : fail(`no option ${name}; see the head of benchmarks/winograd_choice.ts`),
});
const whole = (name: "threads" | "rounds" | "seed"): number => {
  const value = Number(options[name]);
  return Number.isInteger(value) && value > 0 ? value : fail(`--${name} takes a whole number above 0, got ${options[name]}`);
};
const threads = whole("threads"), rounds = whole("rounds"), seed = whole("seed"), part = Number(options.part);
if (!(part > 0 && part <= 1)) fail(`--part takes a number above 0 and up to 1, got ${options.part}`);

const passes = ["forward", "input gradient", "weight gradient"] as const;
/** What `dg_conv_set_winograd` takes. */
const modes = { never: 0, chosen: 1, always: 2 };

interface Case {
  batch: number;
  channels: number;
  filters: number;
  size: number;
  kernel: number;
  stride: number;
}

/** The shapes: channels and filters of real networks; pictures that 4x4 tiles cover and such that they do not. */
function grid(): Case[] {
  const widths = [[16, 16], [16, 64], [64, 16], [32, 32], [24, 48], [64, 64], [32, 256], [256, 32], [64, 128], [128, 128], [128, 256], [
    256,
    256,
  ], [256, 512]];
  widths.push([512, 64], [64, 512], [512, 512]);
  const cases: Case[] = [];
  for (const [kernel, stride] of [[3, 1], [3, 2], [4, 1], [4, 2]]) {
    for (const [channels, filters] of widths) {
      for (const size of [4, 5, 6, 7, 8, 10, 13, 14, 16, 28, 32, 56, 64, 128]) {
        for (const batch of [1, 8, 32]) {
          const ms = batch * outputs({ size, kernel, stride }) ** 2 * channels * filters * kernel ** 2 / 4e7;
          if (ms >= 0.05 && ms <= 20) cases.push({ batch, channels, filters, size, kernel, stride });
        }
      }
    }
  }
  let state = seed;
  return cases.filter(() => (state = (state * 48271) % 2147483647) / 2147483647 <= part);
}

const padding = 1;
function outputs({ size, kernel, stride }: { size: number; kernel: number; stride: number }): number {
  return Math.floor((size + 2 * padding - kernel) / stride) + 1;
}

function setMode(mode: number): void {
  const library = libraryOf(cpu);
  check(library.dg_conv_set_winograd(mode), library);
}

/** Milliseconds since some moment. */
const now = threads === 1
  ? () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }
  : () => performance.now();

interface Line extends Case {
  pass: typeof passes[number];
  choice: "winograd" | "direct";
  /** Median milliseconds. */
  winograd: number;
  direct: number;
}

/** Times both ways of each pass. */
function measure(c: Case): Line[] {
  const { batch, channels, filters, size, kernel, stride } = c, out = outputs(c);
  const random = (shape: Shape) => {
    using plain = randn(shape);
    return channelsLast(plain) as Tensor;
  };
  const empty = (shape: Shape) => emptyTensor(shape, "float32", cpu, channelsLastStrides(shape));
  const shapes = { x: [batch, channels, size, size], w: [filters, channels, kernel, kernel], y: [batch, filters, out, out] };
  using x = random(shapes.x);
  using w = random(shapes.w);
  using dy = random(shapes.y);
  using y = empty(shapes.y);
  using dx = empty(shapes.x);
  using dw = empty(shapes.w);
  const p = [stride, stride, 1, padding, padding, 0, 1, 1, 1, 1] as const;
  const work = [
    {
      pass: passes[0],
      result: y,
      run: () => native(cpu, (lib, f) => lib.dg_conv_forward(f.pointer, f.put(y), f.put(x), f.put(w), f.put(null), ...p)),
    },
    {
      pass: passes[1],
      result: dx,
      run: () => native(cpu, (lib, f) => lib.dg_conv_backward_input(f.pointer, f.put(dx), f.put(dy), f.put(w), f.put(null), ...p)),
    },
    {
      pass: passes[2],
      result: dw,
      run: () => native(cpu, (lib, f) => lib.dg_conv_backward_weight(f.pointer, f.put(dw), f.put(null), f.put(dy), f.put(x), ...p)),
    },
  ];
  return work.map(({ pass, result, run }) => {
    const bits = (mode: number) => {
      setMode(mode);
      run();
      return result.data().slice() as Float32Array;
    };
    const [direct, fast, chosen] = [bits(modes.never), bits(modes.always), bits(modes.chosen)];
    const same = (a: Float32Array, b: Float32Array) => a.every((v, i) => v === b[i]);
    if (same(direct, fast)) fail(`both ways of the ${pass} of ${JSON.stringify(c)} computed the same`);
    const choice = same(chosen, fast) ? "winograd" : "direct";
    if (choice === "direct" && !same(chosen, direct)) fail(`the ${pass} of ${JSON.stringify(c)} was computed in a third way`);
    const time = (mode: number, repeats: number) => {
      setMode(mode);
      const begin = now();
      for (let i = 0; i < repeats; i++) run();
      return (now() - begin) / repeats;
    };
    const repeats = Math.max(1, Math.ceil(1 / Math.max(0.01, time(modes.never, 1)))), times: [number[], number[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      times[0].push(time(modes.always, repeats));
      times[1].push(time(modes.never, repeats));
    }
    setMode(modes.chosen);
    return { pass, ...c, choice, winograd: median(times[0]), direct: median(times[1]) };
  });
}

/** Geometric mean and worst of the regrets. */
function regret(lines: Line[], took: (line: Line) => number): string {
  const all = lines.map((line) => took(line) / Math.min(line.winograd, line.direct));
  const mean = Math.exp(all.reduce((sum, r) => sum + Math.log(r), 0) / all.length);
  return `${mean.toFixed(3)} / ${Math.max(...all).toFixed(2)}`;
}

setThreads(threads);
manualSeed(seed);
const lines: Line[] = [];
for (const c of grid()) {
  for (const line of measure(c)) {
    lines.push(line);
    if (options.json) console.log(JSON.stringify(line));
  }
  memory.releaseCache();
}
if (!options.json) {
  console.log(`${getThreads()} threads, medians of ${rounds} rounds; regret: geometric mean / worst\n`);
  console.log("| pass | shapes | choice was faster | regret of the choice | of Winograd always | of direct always |");
  console.log("| --- | --- | --- | --- | --- | --- |");
  for (const pass of passes) {
    const its = lines.filter((line) => line.pass === pass);
    if (its.length === 0) continue;
    const right = its.filter((line) => (line.choice === "winograd") === (line.winograd <= line.direct)).length;
    const columns = [
      regret(its, (line) => line[line.choice]),
      regret(its, (line) => line.winograd),
      regret(its, (line) => line.direct),
    ];
    console.log(`| ${pass} | ${its.length} | ${(100 * right / its.length).toFixed(0)} % | ${columns.join(" | ")} |`);
  }
}
