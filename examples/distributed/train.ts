/**
 * The smallest whole training on several ranks: data, model, loop, checkpoints, result. Learns to tell two spirals apart.
 *
 * One rank or many, one machine or several: README.md beside this file has the commands.
 */
import { DataLoader, distributed, manualSeed, nn, optim, Random, scope, type Tensor, tensor, TensorDataset } from "@dinograd/dinograd";

const EPOCHS = Number(Deno.args[0] ?? 40), FOLDER = Deno.args[1] ?? "out/distributed";

/** `count` points of two spirals, `[count, 2]`, and which one each is on. */
function spirals(count: number, seed: number): TensorDataset<[Tensor, Tensor]> {
  const random = new Random(seed), points: number[][] = [], labels: number[] = [];
  for (let i = 0; i < count; i++) {
    const label = i % 2, t = Math.sqrt(random.uniform()) * 3 * Math.PI, angle = t + label * Math.PI;
    points.push([Math.cos(angle) * t / 9 + 0.02 * random.normal(), Math.sin(angle) * t / 9 + 0.02 * random.normal()]);
    labels.push(label);
  }
  return new TensorDataset(tensor(points), tensor(labels, { dtype: "int64" }));
}

await distributed.initProcessGroup();
const rank = distributed.getRank(), say = (text: string) => rank === 0 && console.log(text);
manualSeed(rank); // the model is rank 0's; other random numbers differ between ranks

const block = (
  inputs: number,
  outputs: number,
) => [new nn.Linear(inputs, outputs, { bias: false }), new nn.BatchNorm1d(outputs), new nn.ReLU()];
const network = new nn.Sequential(...block(2, 64), ...block(64, 64), new nn.Linear(64, 2));
const model = new distributed.DistributedDataParallel(nn.SyncBatchNorm.convertSyncBatchNorm(network));
const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 });

const data = spirals(2000, 1), test = spirals(500, 2);
const loader = new DataLoader(data, {
  batchSize: Math.ceil(200 / distributed.getWorldSize()),
  sampler: new distributed.DistributedSampler(data),
});

// A rank that was killed: the launcher starts all of them again (--max-restarts), and they go on from here.
const found = await distributed.loadCheckpoint<{ epoch: number }>(FOLDER, { model, optimizer, loader });
let step = found?.step ?? 0;
say(found === null ? `training on ${distributed.getWorldSize()} ranks` : `going on after epoch ${found.epoch}`);

for (let epoch = (found?.epoch ?? 0) + 1; epoch <= EPOCHS; epoch++) {
  let loss = 0;
  for await (const [x, label] of loader) {
    loss = scope(() => {
      optimizer.zeroGrad();
      const value = nn.functional.crossEntropy(model.call(x), label);
      value.backward(); // gradients are the mean over all ranks afterwards
      optimizer.step();
      return value.item();
    });
    step++;
  }
  await distributed.saveCheckpoint(FOLDER, { model, optimizer, loader, epoch, step });
  if (epoch % 10 === 0) say(`epoch ${epoch}: loss ${loss.toFixed(4)}`);
}

// Each rank tests its part; no sample counts twice.
model.eval();
const right = tensor([0, 0], { dtype: "float64" });
for await (const [x, label] of new DataLoader(test, { batchSize: 100, sampler: new distributed.DistributedEvaluationSampler(test) })) {
  const hits = model.call(x).argmax(1).eq(label).sum().item();
  right.add_(tensor([hits, label.numel()], { dtype: "float64" }));
}
distributed.allReduce(right);
const [hits, count] = right.tolist() as number[];
say(`test accuracy ${(hits / count).toFixed(3)} of ${count} points`);
await distributed.destroyProcessGroup();
