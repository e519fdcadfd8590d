/** A training that saves checkpoints and goes on from them. */
import {
  Compose,
  DataLoader,
  distributed,
  Generator,
  manualSeed,
  nn,
  optim,
  randn,
  RandomHorizontalFlip,
  scope,
  tensor,
  TensorDataset,
} from "../../mod.ts";

/** Steps of the whole training. */
export const STEPS = 24;

/** Trains to the end from the latest checkpoint of a folder, and writes each loss with all its bits. */
async function train(rank: number, size: number, folder: string, sharded: boolean): Promise<void> {
  manualSeed(100 + rank);
  const generator = new Generator(1);
  const data = new TensorDataset(randn([36, 1, 4, 4], { generator }), randn([36, 2], { generator }));
  const model = new distributed.DistributedDataParallel(
    nn.SyncBatchNorm.convertSyncBatchNorm(
      new nn.Sequential(
        new nn.Conv2d(1, 4, 3),
        new nn.BatchNorm2d(4),
        new nn.ReLU(),
        new nn.Flatten(),
        new nn.Dropout(0.3),
        new nn.Linear(16, 2),
      ),
    ),
  );
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 }),
    scheduler = new optim.OneCycleLR(optimizer, { maxLr: 0.02, totalSteps: STEPS });
  const sampler = new distributed.DistributedSampler(data, { seed: 3, numReplicas: size, rank });
  const loader = new DataLoader(data, { batchSize: 4, sampler }), transform = new Compose([new RandomHorizontalFlip(0.5, { seed: 5 })]);
  const parts = { model, optimizer, scheduler, loader, transform };
  const found = await distributed.loadCheckpoint<{ epoch: number; best: number }>(folder, parts);
  let step = found?.step ?? 0, epoch = found?.epoch ?? 0, best = found?.best ?? Infinity;
  console.log(JSON.stringify({ event: "started", step }));
  for (; step < STEPS; epoch++) {
    for await (const [x, y] of loader) {
      if (step === STEPS) break;
      const loss = scope(() => {
        const value = nn.functional.mseLoss(model.call(transform.call(x)), y);
        optimizer.zeroGrad();
        value.backward();
        optimizer.step();
        scheduler.step();
        return value.item();
      });
      x.dispose();
      y.dispose();
      step++;
      best = Math.min(best, loss);
      console.log(JSON.stringify({ event: `step ${step}`, loss: tensor([loss], { dtype: "float64" }).item().toString(36) }));
      if (step % 2 === 0) {
        await distributed.saveCheckpoint(folder, { ...parts, step, epoch, best }, { keep: 2, sharded });
        console.log(JSON.stringify({ event: `saved ${step}` }));
      }
    }
  }
  console.log(JSON.stringify({ event: "done", best: best.toString(36) }));
}

const folder = () => Deno.env.get("RESUME_FOLDER")!;

export const resume = (rank: number, size: number) => train(rank, size, folder(), false);
export const resumeSharded = (rank: number, size: number) => train(rank, size, folder(), true);
