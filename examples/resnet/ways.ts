/** The same training in several ways: in one process, with DataParallel, on several ranks. */
import {
  DataLoader,
  device as deviceOf,
  type DeviceLike,
  distributed,
  manualSeed,
  mnist,
  nn,
  optim,
  Sampler,
  scope,
  Subset,
  tensor,
} from "@dinograd/dinograd";
import { prepare } from "../mnist/data.ts";
import { evaluate } from "../mnist/evaluate.ts";
import { SmallResNet } from "./model.ts";

/** How one training shares its batches. */
export interface Way {
  /** Name in the table and the picture. */
  name: string;
  /** Processes; more than one are ranks with `DistributedDataParallel`. */
  ranks: number;
  /** Threads of each process. */
  threads: number;
  /** Devices of each process; several share its batches by `DataParallel`. */
  devices: string[];
  /** Replace the BatchNorm layers by `SyncBatchNorm`. */
  sync: boolean;
  /** Pictures of a step, on all ranks together. */
  batch: number;
}

/** What is the same in all ways. */
export interface Training {
  /** Folder of the IDX files. */
  data: string;
  /** Passes through the pictures. */
  epochs: number;
  /** Training pictures. */
  limit: number;
  /** Channels of the first block. */
  width: number;
  /** Highest learning rate for a batch of 64; others get one in proportion. */
  lr: number;
  /** Parts that a batch is cut into, however many processes there are. */
  parts: number;
  /** Seed of weights and order. */
  seed: number;
}

/** What a training came to. */
export interface Run {
  /** Mean over the batch at each step. */
  losses: number[];
  /** On the test pictures at the end. */
  accuracy: number;
  /** Of each epoch. */
  seconds: number[];
  /** Milliseconds of each step, with making its batch. */
  steps: number[];
}

/** Batches that are the parts of all ranks one after the other, so that a process that trains alone steps as the ranks do together. */
class JoinedSampler extends Sampler {
  readonly #parts: readonly Sampler[];
  readonly #share: number;

  constructor(parts: readonly Sampler[], share: number) {
    super();
    this.#parts = parts;
    this.#share = share;
  }
  get length(): number {
    return this.#parts.reduce((sum, it) => sum + it.length, 0);
  }
  override setEpoch(epoch: number): void {
    for (const part of this.#parts) part.setEpoch(epoch);
  }
  *[Symbol.iterator](): Iterator<number> {
    const orders = this.#parts.map((it) => it[Symbol.iterator]());
    for (;;) {
      for (const order of orders) {
        for (let i = 0; i < this.#share; i++) {
          const next = order.next();
          if (next.done) return;
          yield next.value;
        }
      }
    }
  }
}

/** Trains in one way: runs in each of its processes. */
export async function train(rank: number, way: Way, training: Training): Promise<Run> {
  const { epochs, limit, lr, parts, seed } = training, parallel = way.ranks > 1;
  if (parallel) await distributed.initProcessGroup();
  const all = await mnist(training.data), test = await mnist(training.data, { train: false });
  const data = new Subset(all, Array(Math.min(limit, all.length)).keys());
  manualSeed(seed);
  const [device] = way.devices.map((it) => deviceOf(it as DeviceLike));
  const net = new SmallResNet(training.width).to(device);
  if (way.sync) nn.SyncBatchNorm.convertSyncBatchNorm(net);
  const model = parallel
    ? new distributed.DistributedDataParallel(net, { broadcastBuffers: false })
    : way.devices.length > 1
    ? new distributed.DataParallel(net, { devices: way.devices as DeviceLike[] })
    : net;

  const mine = parallel ? [rank] : [...Array(parts).keys()], share = way.batch / parts;
  const samplers = mine.map((part) => new distributed.DistributedSampler(data, { numReplicas: parts, rank: part, seed, dropLast: true }));
  const loader = new DataLoader(data, { batchSize: share * mine.length, sampler: new JoinedSampler(samplers, share), dropLast: true });
  const maxLr = lr * way.batch / 64;
  const optimizer = new optim.SGD(model.parameters(), { lr: maxLr, momentum: 0.9, weightDecay: 5e-4 });
  const schedule = new optim.OneCycleLR(optimizer, { maxLr, totalSteps: epochs * loader.length });
  const criterion = new nn.CrossEntropyLoss();

  let losses: number[] = [];
  const seconds: number[] = [], steps: number[] = [];
  for (let epoch = 0; epoch < epochs; epoch++) {
    model.train();
    if (parallel) distributed.barrier();
    const start = performance.now();
    let last = start;
    for await (const [pictures, labels] of loader) {
      losses.push(scope(() => {
        optimizer.zeroGrad();
        const logits = (model as nn.Layer).call(prepare.call(pictures.to(device)));
        const loss = criterion.call(logits, labels.to(device));
        loss.backward();
        optimizer.step();
        schedule.step();
        return loss.item();
      }));
      pictures.dispose();
      labels.dispose();
      const now = performance.now();
      steps.push(now - last);
      last = now;
    }
    seconds.push((performance.now() - start) / 1000);
  }
  // Running statistics of ranks differ without SyncBatchNorm: those of the first are the model's, as in PyTorch.
  if (parallel) { for (const buffer of net.buffers()) distributed.broadcast(buffer, 0); }
  const { accuracy } = await evaluate(net, test);
  if (parallel) {
    const mean = tensor(losses, { dtype: "float64" });
    distributed.allReduce(mean, { op: "average" });
    losses = mean.tolist() as number[];
    await distributed.destroyProcessGroup();
  }
  return { losses, accuracy, seconds, steps };
}
