// The networks of pix2pix: values recorded from PyTorch, initial values, a step of both, bad input.
import { cat, manualSeed, nn, noGrad, optim, randn, scope, ShapeError, tensor, zeros } from "@dinograd/dinograd";
import { PatchGan, Pix2PixGenerator } from "@dinograd/dinograd/vision";
import { assert, assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";
import { checkRecorded } from "./recorded_network.ts";

test("Pix2PixGenerator has PyTorch's keys, values and gradients", () => {
  using model = new Pix2PixGenerator({ inChannels: 2, outChannels: 3, depth: 6, baseChannels: 4, dropout: false });
  checkRecorded("Pix2PixGenerator", model);
});

test("Pix2PixGenerator trains on one picture down to one pixel", () => {
  using model = new Pix2PixGenerator({ depth: 5, baseChannels: 4, dropout: false });
  checkRecorded("Pix2PixGenerator 1x1", model);
});

test("PatchGan has PyTorch's keys, values and gradients", () => {
  using three = new PatchGan({ baseChannels: 4 });
  checkRecorded("PatchGan", three);
  using two = new PatchGan({ inChannels: 4, baseChannels: 6, layers: 2 });
  checkRecorded("PatchGan of 2 layers", two);
});

test("the networks of pix2pix have the paper's sizes and initial values", () => {
  manualSeed(5);
  using generator = new Pix2PixGenerator(), discriminator = new PatchGan();
  const count = (model: nn.Module) => [...model.parameters()].reduce((sum, it) => sum + it.numel(), 0);
  assertEquals(count(generator), 54413955);
  assertEquals(count(discriminator), 2768705);
  const deviation = (key: string, model: nn.Module) => model.getParameter(key).detach().std().item();
  assert(Math.abs(deviation("model.model.1.model.1.weight", generator) - 0.02) < 5e-4);
  assert(Math.abs(deviation("model.5.weight", discriminator) - 0.02) < 5e-4);
  const factors = discriminator.getParameter("model.9.weight").detach();
  assert(Math.abs(factors.mean().item() - 1) < 5e-3 && Math.abs(factors.std().item() - 0.02) < 3e-3);
  assertEquals(discriminator.getParameter("model.9.bias").abs().max().item(), 0);
  assertEquals(generator.getParameter("model.model.3.bias").abs().max().item(), 0);
});

test("Pix2PixGenerator drops values in training mode only, in its inner blocks", () => {
  using model = new Pix2PixGenerator({ depth: 7, baseChannels: 2 });
  assertEquals([...model.modules()].filter((it) => it instanceof nn.Dropout).length, 2);
  const x = randn([1, 3, 128, 128]);
  noGrad(() => {
    const [a, b] = [model.call(x), model.call(x)];
    assert(a.sub(b).abs().max().item() > 0);
    model.eval();
    assertEquals(model.call(x).sub(model.call(x)).abs().max().item(), 0);
    assert(a.abs().max().item() <= 1);
  });
});

test("generator and discriminator learn against each other", () => {
  manualSeed(2);
  using generator = new Pix2PixGenerator({ depth: 5, baseChannels: 4, dropout: false }), judge = new PatchGan({ baseChannels: 4 });
  const options = { lr: 1e-2, betas: [0.5, 0.999] as const };
  using forG = new optim.Adam(generator.parameters(), options), forD = new optim.Adam(judge.parameters(), options);
  const x = randn([2, 3, 32, 32]), y = x.neg().tanh();
  const bce = (scores: ReturnType<typeof judge.call>, real: number) =>
    nn.functional.binaryCrossEntropyWithLogits(scores, tensor(real).expand(scores.shape));
  const distances: number[] = [];
  for (let i = 0; i < 25; i++) {
    scope(() => {
      const made = generator.call(x);
      forD.zeroGrad();
      const real = judge.call(cat([y, x], 1)), fake = judge.call(cat([made.detach(), x], 1));
      bce(real, 1).add(bce(fake, 0)).mul(0.5).backward();
      forD.step();
      forG.zeroGrad();
      const distance = nn.functional.l1Loss(made, y);
      bce(judge.call(cat([made, x], 1)), 1).add(distance.mul(100)).backward();
      forG.step();
      distances.push(distance.item());
    });
  }
  assert(distances.at(-1)! < distances[0] * 0.7, `L1 distance ${distances[0]} became ${distances.at(-1)}`);
  generator.zeroGrad();
  judge.zeroGrad();
});

test("the networks of pix2pix refuse what does not fit", () => {
  assertThrows(() => new Pix2PixGenerator({ depth: 4 }), RangeError, "depth");
  assertThrows(() => new Pix2PixGenerator({ baseChannels: 0 }), RangeError, "baseChannels");
  assertThrows(() => new Pix2PixGenerator({ inChannels: 1.5 }), RangeError, "inChannels");
  assertThrows(() => new PatchGan({ layers: 0 }), RangeError, "layers");
  assertThrows(() => new PatchGan({ inChannels: -6 }), RangeError, "inChannels");
  using generator = new Pix2PixGenerator({ depth: 5, baseChannels: 2 });
  const sizes = "Pix2PixGenerator: takes [N, C, H, W] with H and W multiples of 32, got [1, 3, 48, 64]";
  assertThrows(() => generator.call(randn([1, 3, 48, 64])), ShapeError, sizes);
  assertThrows(() => generator.call(zeros([1, 3, 0, 64])), ShapeError, "multiples of 32, got [1, 3, 0, 64]");
  assertThrows(() => generator.call(randn([3, 64, 64])), ShapeError, "got [3, 64, 64]");
  assertThrows(() => generator.call(randn([1, 4, 32, 32])), ShapeError, "4");
  using judge = new PatchGan({ baseChannels: 2 });
  assertEquals(judge.call(randn([1, 6, 24, 25])).shape, [1, 1, 1, 1]);
  assertThrows(
    () => judge.call(randn([1, 6, 23, 32])),
    ShapeError,
    "PatchGan: takes [N, C, H, W] with H and W of at least 24, got [1, 6, 23, 32]",
  );
});
