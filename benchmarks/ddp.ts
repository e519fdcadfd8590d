/**
 * `deno run -A benchmarks/ddp.ts [--rounds=9] [--size=32] [--batch=16] [--python=python3] [--link=1gbit]`: what DistributedDataParallel costs and hides, with
 * ResNet-18 (the form for small pictures) on two ranks of one thread, and PyTorch's with the same model if `--python` has it. All ways take turns in one run;
 * medians of their step times, and ratios. `--link` puts the ranks on hosts of their own (`hosts.ts`) that send at this rate.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { distributed, nn, noGrad, optim, randn, scope, setThreads, type Tensor, tensor, zeros } from "../mod.ts";
import { resnet18 } from "../vision/mod.ts";
import { Hosts } from "./hosts.ts";
import { median } from "./measure.ts";
import { PyTorch } from "./pytorch.ts";

/** Step times of a rank in milliseconds. */
interface Times {
  [way: string]: number[];
}

/** What the ranks run. */
interface Work {
  rounds: number;
  size: number;
  batch: number;
  python: string | null;
  port: number;
}

/** Runs in each rank. */
export async function measure(rank: number, { rounds, size, batch, python, port }: Work): Promise<Times> {
  await distributed.initProcessGroup();
  const make = () => {
    const model = resnet18({ numClasses: 10, cifar: true });
    return { model, optimizer: new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9 }) };
  };
  const step = (model: nn.Module, optimizer: optim.AnyOptimizer, x: Tensor) =>
    scope(() => {
      optimizer.zeroGrad();
      const loss = (model as nn.Layer).call(x).square().mean();
      loss.backward();
      optimizer.step();
    });
  const plain = make(), alone = make(), both = make(), synced = make();
  const solo = (await distributed.newGroup([0]))!, options = { broadcastBuffers: false };
  const wrapped = rank === 0 ? new distributed.DistributedDataParallel(alone.model, { ...options, processGroup: solo }) : null;
  const ddp = new distributed.DistributedDataParallel(both.model, options), times: Times = {};
  nn.SyncBatchNorm.convertSyncBatchNorm(synced.model);
  const synchronised = new distributed.DistributedDataParallel(synced.model, options);
  let exposed = 0;
  ddp.registerCommHook(null, (_, bucket) => {
    const work = distributed.allReduce(bucket.buffer, { op: "average", asyncOp: true });
    return {
      wait: () => {
        const start = performance.now();
        work.wait();
        exposed += performance.now() - start;
      },
    };
  });
  const x = randn([batch, 3, size, size]), double = randn([2 * batch, 3, size, size]);
  const bytes = [...both.model.parameters()].reduce((sum, p) => sum + p.numel(), 0), flat = zeros([bytes]);
  // Until the slower of the two ranks has ended: so long takes a step of DDP, whose ranks wait for each other.
  const time = (way: string, run: () => void) => {
    distributed.barrier();
    const start = performance.now();
    run();
    const ms = tensor([performance.now() - start]);
    noGrad(() => distributed.allReduce(ms, { op: "max" }));
    (times[way] ??= []).push(ms.item());
  };
  const torch = python === null ? null : new PyTorch(python, "pytorch_ddp.py", [rank, port, batch, size].map(String), 1);
  await torch?.line();
  for (let round = -2; round < rounds; round++) {
    if (round === 0) { for (const way of Object.keys(times)) times[way] = []; }
    time("plain, both ranks", () => step(plain.model, plain.optimizer, x));
    exposed = 0;
    time("DDP on 2 ranks", () => step(ddp, both.optimizer, x));
    (times["all-reduce waited for"] ??= []).push(exposed);
    if (torch !== null) (times["PyTorch's DDP on 2 ranks"] ??= []).push(Number((await torch.ask({})).ms));
    time("DDP and SyncBatchNorm", () => step(synchronised, synced.optimizer, x));
    time("all-reduce alone", () => noGrad(() => distributed.allReduce(flat)));
    time("plain, one rank", () => rank === 0 && step(plain.model, plain.optimizer, x));
    time("DDP on 1 rank", () => wrapped !== null && step(wrapped, alone.optimizer, x));
    time("one rank, 2 threads, both batches", () => {
      if (rank > 0) return;
      setThreads(2);
      step(plain.model, plain.optimizer, double);
      setThreads(1);
    });
  }
  await torch?.close();
  await distributed.destroyProcessGroup();
  return times;
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, {
    string: ["rounds", "size", "batch", "python", "link"],
    default: { rounds: "9", size: "32", batch: "16" },
  });
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 }), { port } = listener.addr as Deno.NetAddr;
  listener.close();
  const python = typeof options.python === "string" ? options.python : null;
  if (python !== null && options.link) throw new Error("ddp: --python and --link exclude each other");
  const work: Work = { rounds: Number(options.rounds), size: Number(options.size), batch: Number(options.batch), python, port };
  let times: Times;
  if (typeof options.link === "string") {
    await using hosts = await Hosts.create(2, options.link);
    times = await hosts.run<Times>(import.meta.url, "measure", [work]);
  } else {[times] = await distributed.spawn<Times>(import.meta.url, {
      nprocs: 2,
      name: "measure",
      args: [work],
      env: { OMP_NUM_THREADS: "1" },
    });}
  const middle = Object.fromEntries(Object.entries(times).map(([way, all]) => [way, median(all)]));
  for (const [way, ms] of Object.entries(middle)) console.log(`${way.padEnd(36)} ${ms.toFixed(1).padStart(8)} ms`);
  const ratio = (a: string, b: string) => median(times[a].map((it, i) => it / times[b][i])).toFixed(3);
  console.log(`DDP on 1 rank / plain:                      ${ratio("DDP on 1 rank", "plain, one rank")}`);
  console.log(`DDP on 2 ranks / two that share nothing:    ${ratio("DDP on 2 ranks", "plain, both ranks")}`);
  console.log(`with SyncBatchNorm / without:               ${ratio("DDP and SyncBatchNorm", "DDP on 2 ranks")}`);
  console.log(`2 ranks of 1 thread / 1 rank of 2 threads:  ${ratio("DDP on 2 ranks", "one rank, 2 threads, both batches")}`);
  if (python !== null) console.log(`DDP on 2 ranks / PyTorch's:                 ${ratio("DDP on 2 ranks", "PyTorch's DDP on 2 ranks")}`);
  const hidden = median(times["all-reduce alone"].map((it, i) => 1 - times["all-reduce waited for"][i] / it));
  console.log(`part of the all-reduce that backward hides: ${(100 * hidden).toFixed(0)} %`);
}
