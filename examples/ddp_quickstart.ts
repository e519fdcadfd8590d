/**
 * The smallest whole DistributedDataParallel script: a line is fitted to points, of which each rank has its own.
 *
 * `deno run -A distributed/launch.ts --nproc-per-node 2 examples/ddp_quickstart.ts`; without the launcher it is a job of one rank.
 */
import { distributed, manualSeed, nn, optim, randn, scope } from "@dinograd/dinograd";

const launched = Deno.env.get("WORLD_SIZE") !== undefined;
await distributed.initProcessGroup(launched ? {} : { store: new distributed.HashStore(), rank: 0, worldSize: 1 });
const rank = distributed.getRank(), ranks = distributed.getWorldSize();
manualSeed(rank);

const model = new distributed.DistributedDataParallel(new nn.Linear(3, 1));
const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });

for (let step = 1; step <= 100; step++) {
  const loss = scope(() => {
    const x = randn([32, 3]), y = x.sum(1, { keepdim: true }).add(0.5); // this rank's part of the batch
    optimizer.zeroGrad();
    const value = nn.functional.mseLoss(model.call(x), y);
    value.backward(); // gradients are averaged over the ranks while it runs
    optimizer.step(); // so every rank takes the same step
    return value.item();
  });
  if (rank === 0 && step % 50 === 0) console.log(`step ${step} on ${ranks} ranks: loss ${loss.toExponential(1)}`);
}

const [weight, bias] = [...model.parameters()].map((it) => it.flatten().tolist() as number[]);
console.log(`rank ${rank}: weight ${weight.map((it) => it.toFixed(3)).join(" ")}, bias ${bias[0].toFixed(3)}`);
await distributed.destroyProcessGroup();
