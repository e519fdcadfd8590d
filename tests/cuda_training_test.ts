/**
 * Whole training steps on a CUDA device: the MNIST network beside the CPU's, kernel launches, waits. On the emulated library these run wherever it is built.
 */
import { assert, assertEquals } from "@std/assert";
import { cuda, manualSeed, mnist, nn, optim, randn, scope, type Tensor, tensor } from "../mod.ts";
import { mnistFolder, prepare } from "../examples/mnist/data.ts";
import { DigitNet } from "../examples/mnist/model.ts";
import { resnet18 } from "../vision/mod.ts";
import { device } from "./device.ts";

const ignore = device.type !== "cuda";
const STEPS = 200, BATCH = 8;

/** Losses of the first steps on MNIST. */
function train(pictures: Tensor, labels: Tensor, place: typeof device | "cpu"): number[] {
  manualSeed(5);
  const model = new DigitNet(4).to("cpu");
  manualSeed(6);
  for (const p of model.parameters()) if (p.ndim > 1) nn.init.kaimingNormal_(p);
  model.to(place);
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 }), criterion = new nn.CrossEntropyLoss();
  const losses: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    losses.push(scope(() => {
      const x = prepare.call(pictures.narrow(0, step * BATCH, BATCH)).to(place), y = labels.narrow(0, step * BATCH, BATCH).to(place);
      const loss = criterion.call(model.call(x), y);
      optimizer.zeroGrad();
      loss.backward();
      optimizer.step();
      return loss.item();
    }));
  }
  model.dispose();
  return losses;
}

Deno.test({
  name: `MNIST: ${STEPS} steps have the CPU's loss curve`,
  ignore,
  fn: async () => {
    const { tensors: [all, digits] } = await mnist(await mnistFolder());
    const [pictures, labels] = [all.narrow(0, 0, STEPS * BATCH).to("cpu"), digits.narrow(0, 0, STEPS * BATCH).to("cpu")];
    const expected = train(pictures, labels, "cpu"), losses = train(pictures, labels, device);
    const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
    for (let i = 0; i < 30; i++) {
      assert(Math.abs(losses[i] - expected[i]) < 1e-3 * expected[i], `step ${i}: ${losses[i]}, the CPU ${expected[i]}`);
    }
    // Rounding grows as training goes on; the curve stays.
    for (let i = 0; i < STEPS; i += 50) {
      const [a, b] = [losses, expected].map((it) => mean(it.slice(i, i + 50)));
      assert(Math.abs(a - b) < 0.03 * b, `steps ${i} to ${i + 50}: mean loss ${a}, the CPU ${b}`);
    }
    assert(mean(losses.slice(-50)) < 0.6 * mean(losses.slice(0, 50)), "it learns");
  },
});

Deno.test({
  name: "a ResNet-18 training step waits for nothing and launches 162 kernels",
  ignore,
  fn: () => {
    manualSeed(1);
    const model = resnet18({ numClasses: 10, cifar: true }).to(device);
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9, weightDecay: 5e-4 });
    const criterion = new nn.CrossEntropyLoss();
    let before = cuda.runtimeStats(device);
    for (let step = 0; step < 2; step++) {
      before = cuda.runtimeStats(device);
      scope(() => {
        const x = randn([2, 3, 8, 8]), y = tensor([3, 7], { dtype: "int64" });
        optimizer.zeroGrad();
        criterion.call(model.call(x), y).backward();
        optimizer.step();
      });
    }
    const after = cuda.runtimeStats(device), launches = after.launches - before.launches + after.libraryCalls - before.libraryCalls;
    assertEquals(after.synchronisations - before.synchronisations, 0);
    assertEquals(launches, 162, "kernels/cuda/README.md counts them");
    model.dispose();
  },
});
