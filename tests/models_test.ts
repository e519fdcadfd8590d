// Whole networks: shapes, state-dict names, and that they learn.
import { manualSeed, memory, nn, noGrad, rand, randn, scope, ShapeError, type Tensor, tensor } from "@dinograd/dinograd";
import { ConvAutoencoder, resnet18, resnet34, resnet50, UNet } from "@dinograd/dinograd/vision";
import { assert, assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";
import { test as leavesNothing } from "./leaks.ts";

const test = (name: string, fn: () => void) =>
  leavesNothing(name, () => {
    manualSeed(3);
    fn();
  });

/** A test that ends with the live tensors it began with. */
/** Steps of plain gradient descent; the first and the last loss. */
function descend(model: nn.Module, steps: number, rate: number, loss: () => Tensor): [number, number] {
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) {
    scope(() => {
      model.zeroGrad();
      const value = loss();
      value.backward();
      noGrad(() => {
        for (const parameter of model.parameters()) parameter.add_(parameter.grad!, { alpha: -rate });
      });
      losses.push(value.item());
    });
  }
  return [losses[0], losses.at(-1)!];
}

test("a small convolutional network with BatchNorm learns", () => {
  using model = new nn.Sequential(
    new nn.Conv2d(1, 4, 3, { padding: 1 }),
    new nn.BatchNorm2d(4),
    new nn.ReLU(),
    new nn.Flatten(),
    new nn.Linear(64, 2),
  );
  const x = randn([8, 1, 4, 4]), labels = tensor([0, 1, 0, 1, 0, 1, 0, 1], { dtype: "int64" });
  const loss = new nn.CrossEntropyLoss();
  const before = memory.stats().tensors;
  const [first, last] = descend(model, 30, 0.1, () => loss.call(model.call(x), labels));
  assert(last < first * 0.3, `loss ${first} became ${last}`);
  model.zeroGrad();
  assertEquals(memory.stats().tensors, before);
});

const block = (prefix: string, downsample: boolean): string[] => {
  const norm = (name: string) =>
    ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"].map((key) => `${prefix}.${name}.${key}`);
  return [
    `${prefix}.conv1.weight`,
    ...norm("bn1"),
    `${prefix}.conv2.weight`,
    ...norm("bn2"),
    ...(downsample ? [`${prefix}.downsample.0.weight`, ...norm("downsample.1")] : []),
  ];
};

test("resnet18 and 34 have torchvision's state-dict names and sizes", () => {
  for (const [make, counts, parameters] of [[resnet18, [2, 2, 2, 2], 11689512], [resnet34, [3, 4, 6, 3], 21797672]] as const) {
    using model = make();
    const expected = [
      "conv1.weight",
      ...["weight", "bias", "running_mean", "running_var", "num_batches_tracked"].map((key) => `bn1.${key}`),
    ];
    counts.forEach((count, i) => {
      for (let j = 0; j < count; j++) expected.push(...block(`layer${i + 1}.${j}`, i > 0 && j === 0));
    });
    expected.push("fc.weight", "fc.bias");
    assertEquals(Object.keys(model.stateDict()), expected);
    assertEquals([...model.parameters()].reduce((sum, parameter) => sum + parameter.numel(), 0), parameters);
    assertEquals(model.getParameter("layer2.0.downsample.0.weight").shape, [128, 64, 1, 1]);
  }
});

test("resnet18 maps images to scores, with the ImageNet and the CIFAR stem", () => {
  using imagenet = resnet18({ numClasses: 7 });
  imagenet.eval();
  const before = memory.stats().tensors;
  scope(() => assertEquals(noGrad(() => imagenet.call(randn([1, 3, 64, 64]))).shape, [1, 7]));
  assertEquals(memory.stats().tensors, before);
  using cifar = resnet18({ numClasses: 10, cifar: true, zeroInitResidual: true });
  const y = cifar.call(randn([2, 3, 8, 8]));
  assertEquals(y.shape, [2, 10]);
  y.sum().backward();
  for (const [name, parameter] of cifar.namedParameters()) assert(parameter.grad !== null, name);
  assertEquals(cifar.getBuffer("layer4.1.bn2.num_batches_tracked").item(), 1);
});

test("resnet fuses its steps with the same result as one after the other", () => {
  using model = resnet18({ numClasses: 3, cifar: true });
  const x = randn([2, 3, 8, 8]);
  model.eval();
  const fused = noGrad(() => model.call(x));
  let calls = 0;
  model.apply((module) => void module.registerForwardHook(() => void calls++));
  const plain = noGrad(() => model.call(x));
  assert(fused.sub(plain).abs().max().item() < 1e-4);
  assert(calls > 40, `${calls} hooks ran`);
});

test("resnet50 has 25.6 million parameters", () => {
  using model = resnet50();
  assertEquals([...model.parameters()].reduce((sum, parameter) => sum + parameter.numel(), 0), 25557032);
});

test("UNet keeps the size of its input, odd ones too, and learns", () => {
  for (const bilinear of [false, true]) {
    using model = new UNet({ inChannels: 2, outChannels: 3, depth: 2, baseChannels: 4, bilinear });
    assertEquals(model.call(randn([2, 2, 8, 8])).shape, [2, 3, 8, 8]);
    assertEquals(model.call(randn([1, 2, 11, 9])).shape, [1, 3, 11, 9]);
    assertThrows(
      () => model.call(randn([1, 2, 3, 9])),
      ShapeError,
      "UNet: takes [N, C, H, W] with H and W of at least 4, got [1, 2, 3, 9]",
    );
    const keys = Object.keys(model.stateDict());
    assert(keys.includes("encoders.0.0.weight") && keys.includes("ups.1.bias") && keys.includes("head.bias"));
    const x = randn([2, 2, 8, 8]), target = x.mul(0.5).narrow(1, 0, 1).expand([2, 3, 8, 8]).contiguous();
    const loss = new nn.MSELoss();
    const [first, last] = descend(model, 15, 0.1, () => loss.call(model.call(x), target));
    assert(last < first, `loss ${first} became ${last}`);
    model.zeroGrad();
  }
});

test("ConvAutoencoder returns images of the size it was given, and learns", () => {
  using model = new ConvAutoencoder({ channels: [4, 8], codeChannels: 2 });
  const x = rand([4, 1, 8, 8]);
  assertEquals(model.encode(x).shape, [4, 2, 2, 2]);
  assertThrows(() => model.call(rand([1, 1, 6, 8])), ShapeError, "multiples of 4, got [1, 1, 6, 8]");
  const loss = new nn.MSELoss();
  const [first, last] = descend(model, 20, 0.5, () => loss.call(model.call(x), x));
  assert(last < first, `loss ${first} became ${last}`);
  model.zeroGrad();
});
