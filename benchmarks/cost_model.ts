/**
 * `deno run -A benchmarks/cost_model.ts [--rate=200mbit] [--rounds=5]`: a cost model of data-parallel training, checked against measurements with
 * 2, 4 and 8 ranks on hosts of their own (`hosts.ts`), then asked about 64.
 *
 * Two parameters, from the all-reduces of two ranks: a step of the ring costs a latency L, a byte 1 / B. An all-reduce of S bytes over n ranks is 2 (n - 1)
 * steps in which each rank sends 2 (n - 1) / n S bytes (Patarasuk and Yuan 2009), so
 *
 *     T(n, S) = 2 (n - 1) L + 2 (n - 1) / n S / B
 *
 * A training step ends when both backward and the last bucket have: each bucket is reduced when its gradients are ready and the bucket before has ended.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { distributed, nn, noGrad, optim, randn, scope, setThreads, zeros } from "../mod.ts";
import { resnet18 } from "../vision/mod.ts";
import { Hosts } from "./hosts.ts";
import { median } from "./measure.ts";

const sizes = [1, 2, 4, 8, 16].map((it) => it * 2 ** 20);

/** A step of training without communication: when each bucket was ready, and when the step's backward had ended; milliseconds from its start. */
interface Timeline {
  buckets: { bytes: number; ready: number }[];
  backward: number;
  step: number;
}

interface Measured {
  allReduce: number[];
  timeline: Timeline;
  step: number;
}

/** Some 4 MB of parameters, most of them where backward begins. */
function network(): nn.Sequential {
  const block = (from: number, to: number, stride: number) => [
    new nn.Conv2d(from, to, 3, { stride, padding: 1, bias: false }),
    new nn.BatchNorm2d(to),
    new nn.ReLU(),
  ];
  return new nn.Sequential(
    ...block(3, 64, 1),
    ...block(64, 128, 2),
    ...block(128, 256, 2),
    ...block(256, 256, 1),
    new nn.AdaptiveAvgPool2d(1),
    new nn.Flatten(),
    new nn.Linear(256, 10),
  );
}

/** Trains some steps and times them; `talk`: whether the gradients are really reduced. */
function train(
  model: () => nn.Layer,
  batch: number,
  size: number,
  rounds: number,
  talk: boolean,
): Timeline {
  const ddp = new distributed.DistributedDataParallel(model(), { broadcastBuffers: false, bucketCapMb: 1 });
  const optimizer = new optim.SGD(ddp.parameters(), { lr: 0.01, momentum: 0.9 }), x = randn([batch, 3, size, size]), lines: Timeline[] = [];
  let start = 0, buckets: Timeline["buckets"] = [];
  ddp.registerCommHook(null, (_, bucket) => {
    buckets.push({ bytes: bucket.buffer.numel() * 4, ready: performance.now() - start });
    return talk ? distributed.allReduce(bucket.buffer, { op: "average", asyncOp: true }) : { wait: () => {} };
  });
  for (let round = -1; round < rounds; round++) {
    distributed.barrier();
    start = performance.now();
    buckets = [];
    let backward = 0;
    scope(() => {
      optimizer.zeroGrad();
      (ddp.call(x)).square().mean().backward();
      backward = performance.now() - start;
      optimizer.step();
    });
    if (round >= 0) lines.push({ buckets, backward, step: performance.now() - start });
  }
  x.dispose();
  return {
    buckets: lines[0].buckets.map(({ bytes }, i) => ({ bytes, ready: median(lines.map((it) => it.buckets[i].ready)) })),
    backward: median(lines.map((it) => it.backward)),
    step: median(lines.map((it) => it.step)),
  };
}

/** Runs in each rank. */
export async function measure(_rank: number, rounds: number): Promise<Measured> {
  await distributed.initProcessGroup();
  const allReduce = sizes.map((bytes) => {
    const x = zeros([bytes / 4]), times: number[] = [];
    for (let round = -1; round < rounds; round++) {
      distributed.barrier();
      const start = performance.now();
      noGrad(() => distributed.allReduce(x));
      if (round >= 0) times.push(performance.now() - start);
    }
    x.dispose();
    return median(times);
  });
  const timeline = train(network, 8, 32, rounds, false), { step } = train(network, 8, 32, rounds, true);
  await distributed.destroyProcessGroup();
  return { allReduce, timeline, step };
}

/** A network of hosts. */
interface Network {
  /** Milliseconds of a step of the ring. */
  latency: number;
  /** Bytes a millisecond. */
  bandwidth: number;
}

function allReduceTime(ranks: number, bytes: number, { latency, bandwidth }: Network): number {
  return 2 * (ranks - 1) * (latency + bytes / ranks / bandwidth);
}

/** What the model says of a training step. */
function stepTime(ranks: number, { buckets, backward, step }: Timeline, network: Network): number {
  let end = 0;
  for (const { bytes, ready } of buckets) end = Math.max(end, ready) + allReduceTime(ranks, bytes, network);
  return step + Math.max(0, end - backward);
}

/** The latency and the bandwidth that fit the all-reduces of two ranks best, each by its share of the time. */
function fit(times: readonly number[]): Network {
  // Least squares of (2 L + S / B) / T = 1.
  let aa = 0, ab = 0, bb = 0, a1 = 0, b1 = 0;
  times.forEach((t, i) => {
    const a = 2 / t, b = sizes[i] / t;
    aa += a * a, ab += a * b, bb += b * b, a1 += a, b1 += b;
  });
  const det = aa * bb - ab * ab, latency = Math.max(0, (a1 * bb - b1 * ab) / det);
  return { latency, bandwidth: latency === 0 ? bb / b1 : det / (aa * b1 - ab * a1) };
}

const row = (...cells: readonly (string | number)[]) =>
  console.log(`| ${cells.map((it) => typeof it === "number" ? it.toFixed(1) : it).join(" | ")} |`);

if (import.meta.main) {
  const options = parseArgs(Deno.args, { string: ["rate", "rounds"], default: { rate: "200mbit", rounds: "5" } });
  const rounds = Number(options.rounds);
  let network: Network | null = null;
  console.log(`hosts that send at ${options.rate}; milliseconds\n`);
  row("", "measured", "model", "measured / model");
  row("---", "---", "---", "---");
  for (const ranks of [2, 4, 8]) {
    await using hosts = await Hosts.create(ranks, String(options.rate));
    const { allReduce, timeline, step } = await hosts.run<Measured>(import.meta.url, "measure", [rounds]);
    const here = network ??= fit(allReduce);
    const compare = (what: string, measured: number, model: number) => row(what, measured, model, (measured / model).toFixed(2));
    sizes.forEach((bytes, i) =>
      compare(`all-reduce of ${bytes / 2 ** 20} MiB, ${ranks} ranks`, allReduce[i], allReduceTime(ranks, bytes, here))
    );
    compare(`training step, ${ranks} ranks (${timeline.step.toFixed(0)} without communication)`, step, stepTime(ranks, timeline, here));
  }
  console.log(`\nL = ${network!.latency.toFixed(3)} ms, B = ${(network!.bandwidth * 8 / 1e6).toFixed(3)} Gbit/s\n`);
  await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
  setThreads(1);
  const timeline = train(() => resnet18({ numClasses: 10, cifar: true }), 16, 32, rounds, false);
  console.log(
    `ResNet-18, 16x3x32x32 a rank of one thread, 45 MB of gradients in buckets of 1 MiB, ${
      timeline.step.toFixed(0)
    } ms for a step of one rank; the part of that in a step of all:\n`,
  );
  const counts = [2, 4, 8, 16, 32, 64];
  row("network", ...counts.map((it) => `${it} ranks`));
  row("---", ...counts.map(() => "---"));
  for (const gigabits of [1, 10, 25, 100]) {
    const speed = { latency: 0.05, bandwidth: gigabits * 1e6 / 8 };
    row(`${gigabits} Gbit/s, 50 us`, ...counts.map((ranks) => `${(100 * timeline.step / stepTime(ranks, timeline, speed)).toFixed(0)} %`));
  }
  await distributed.destroyProcessGroup();
}
