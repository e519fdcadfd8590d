// Every layer against values recorded from PyTorch: forward, gradients of inputs and parameters, buffers afterwards.
import { type DType, memory, nn, scope, type Tensor, tensor } from "@dinograd/dinograd";
import { assert, assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";

interface Recorded {
  readonly shape: readonly number[];
  readonly dtype: "float64" | "int64";
  readonly values: readonly number[];
}
interface Case {
  readonly state: Record<string, Recorded>;
  readonly inputs: readonly Recorded[];
  readonly output: Recorded;
  readonly weight: Recorded;
  readonly inputGrads: readonly (Recorded | null)[];
  readonly grads: Record<string, Recorded | null>;
  readonly after: Record<string, Recorded>;
}

const recorded: Record<string, Case> = JSON.parse(Deno.readTextFileSync(new URL("./fixtures/layers.json", import.meta.url)));
const classWeight = () => tensor([0.5, 1, 2]);

const layers: Record<string, () => nn.Module> = {
  "Linear": () => new nn.Linear(4, 3),
  "Linear without bias": () => new nn.Linear(4, 3, { bias: false }),
  "Bilinear": () => new nn.Bilinear(3, 4, 2),
  "Flatten": () => new nn.Flatten(),
  "Unflatten": () => new nn.Unflatten(1, [2, -1]),
  "Conv1d": () => new nn.Conv1d(3, 4, 3, { stride: 2, padding: 1 }),
  "Conv1d circular": () => new nn.Conv1d(2, 2, 3, { padding: 1, paddingMode: "circular" }),
  "Conv2d": () => new nn.Conv2d(3, 4, 3, { padding: 1 }),
  "Conv2d options": () => new nn.Conv2d(4, 6, [3, 2], { stride: [2, 1], padding: [2, 1], dilation: [1, 2], groups: 2, bias: false }),
  "Conv2d same": () => new nn.Conv2d(2, 3, [3, 4], { padding: "same", dilation: 2 }),
  "Conv2d reflect": () => new nn.Conv2d(2, 3, 3, { padding: 2, paddingMode: "reflect" }),
  "Conv2d replicate": () => new nn.Conv2d(2, 3, 3, { padding: [1, 2], paddingMode: "replicate" }),
  "Conv2d circular same": () => new nn.Conv2d(2, 2, [2, 3], { padding: "same", paddingMode: "circular" }),
  "Conv2d unbatched": () => new nn.Conv2d(2, 3, 3),
  "Conv3d": () => new nn.Conv3d(2, 3, 2, { stride: 2, padding: 1 }),
  "ConvTranspose1d": () => new nn.ConvTranspose1d(3, 2, 3, { stride: 2, padding: 1, outputPadding: 1 }),
  "ConvTranspose2d": () => new nn.ConvTranspose2d(4, 6, [3, 2], { stride: [2, 3], padding: [1, 0], outputPadding: [1, 2], groups: 2 }),
  "ConvTranspose2d dilation": () => new nn.ConvTranspose2d(2, 3, 2, { dilation: 2, bias: false }),
  "ConvTranspose3d": () => new nn.ConvTranspose3d(2, 2, 2, { stride: 2 }),
  "LayerNorm": () => new nn.LayerNorm(5),
  "LayerNorm two axes": () => new nn.LayerNorm([4, 5], { eps: 1e-3, bias: false }),
  "LayerNorm plain": () => new nn.LayerNorm(5, { elementwiseAffine: false }),
  "GroupNorm": () => new nn.GroupNorm(2, 6),
  "GroupNorm plain": () => new nn.GroupNorm(3, 6, { eps: 1e-3, affine: false }),
  "InstanceNorm1d": () => new nn.InstanceNorm1d(3),
  "InstanceNorm2d": () => new nn.InstanceNorm2d(3, { affine: true }),
  "InstanceNorm2d tracking": () => new nn.InstanceNorm2d(3, { affine: true, trackRunningStats: true, momentum: 0.3 }),
  "InstanceNorm2d tracking eval": () => new nn.InstanceNorm2d(3, { trackRunningStats: true }).eval(),
  "InstanceNorm3d": () => new nn.InstanceNorm3d(2),
  "LocalResponseNorm": () => new nn.LocalResponseNorm(3, { alpha: 0.5, beta: 0.6, k: 2 }),
  "RMSNorm": () => new nn.RMSNorm(5),
  "RMSNorm eps": () => new nn.RMSNorm([2, 5], { eps: 1e-2 }),
  "Embedding": () => new nn.Embedding(7, 3, { paddingIdx: 2 }),
  "Embedding scaled": () => new nn.Embedding(7, 3, { scaleGradByFreq: true }),
  "EmbeddingBag": () => new nn.EmbeddingBag(7, 3),
  "EmbeddingBag sum": () => new nn.EmbeddingBag(7, 3, { mode: "sum", paddingIdx: 1 }),
  "EmbeddingBag max": () => new nn.EmbeddingBag(7, 3, { mode: "max" }),
  "ReLU": () => new nn.ReLU(),
  "ReLU6": () => new nn.ReLU6(),
  "LeakyReLU": () => new nn.LeakyReLU(0.2),
  "ELU": () => new nn.ELU(0.7),
  "SELU": () => new nn.SELU(),
  "CELU": () => new nn.CELU(0.7),
  "GELU": () => new nn.GELU(),
  "GELU tanh": () => new nn.GELU({ approximate: "tanh" }),
  "SiLU": () => new nn.SiLU(),
  "Mish": () => new nn.Mish(),
  "Sigmoid": () => new nn.Sigmoid(),
  "Tanh": () => new nn.Tanh(),
  "LogSigmoid": () => new nn.LogSigmoid(),
  "Softplus": () => new nn.Softplus(2, 3),
  "Softsign": () => new nn.Softsign(),
  "Hardtanh": () => new nn.Hardtanh(-0.5, 0.7),
  "Hardsigmoid": () => new nn.Hardsigmoid(),
  "Hardswish": () => new nn.Hardswish(),
  "Tanhshrink": () => new nn.Tanhshrink(),
  "Softshrink": () => new nn.Softshrink(0.3),
  "Hardshrink": () => new nn.Hardshrink(0.3),
  "Threshold": () => new nn.Threshold(0.1, 20),
  "Softmax": () => new nn.Softmax(1),
  "Softmax2d": () => new nn.Softmax2d(),
  "Softmin": () => new nn.Softmin(-1),
  "LogSoftmax": () => new nn.LogSoftmax(0),
  "GLU": () => new nn.GLU(1),
  "PReLU": () => new nn.PReLU(),
  "PReLU channels": () => new nn.PReLU(3),
  "CrossEntropyLoss": () => new nn.CrossEntropyLoss(),
  "CrossEntropyLoss options": () => new nn.CrossEntropyLoss({ weight: classWeight(), ignoreIndex: 1, labelSmoothing: 0.1 }),
  "CrossEntropyLoss sum": () => new nn.CrossEntropyLoss({ reduction: "sum" }),
  "CrossEntropyLoss none": () => new nn.CrossEntropyLoss({ reduction: "none", ignoreIndex: -1 }),
  "CrossEntropyLoss probabilities": () => new nn.CrossEntropyLoss({ labelSmoothing: 0.2 }),
  "NLLLoss": () => new nn.NLLLoss({ weight: classWeight() }),
  "BCELoss": () => new nn.BCELoss(),
  "BCEWithLogitsLoss": () => new nn.BCEWithLogitsLoss(),
  "BCEWithLogitsLoss options": () => new nn.BCEWithLogitsLoss({ weight: classWeight(), posWeight: tensor([3, 1, 0.5]), reduction: "sum" }),
  "MSELoss": () => new nn.MSELoss(),
  "MSELoss none": () => new nn.MSELoss({ reduction: "none" }),
  "L1Loss": () => new nn.L1Loss({ reduction: "sum" }),
  "SmoothL1Loss": () => new nn.SmoothL1Loss({ beta: 0.5 }),
  "HuberLoss": () => new nn.HuberLoss({ delta: 0.5 }),
  "KLDivLoss": () => new nn.KLDivLoss({ reduction: "batchmean" }),
  "KLDivLoss log target": () => new nn.KLDivLoss({ reduction: "sum", logTarget: true }),
  "Sequential": () =>
    new nn.Sequential(new nn.Conv2d(2, 4, 3, { padding: 1 }), new nn.BatchNorm2d(4), new nn.ReLU(), new nn.Flatten(), new nn.Linear(48, 3)),
};

function load(record: Recorded, dtype: DType, requiresGrad = false): Tensor {
  const values = record.dtype === "int64" ? new BigInt64Array(record.values.map(BigInt)) : new Float64Array(record.values);
  const x = tensor(values).reshape(record.shape).to(record.dtype === "int64" ? "int64" : dtype).detach();
  return requiresGrad ? x.requiresGrad_() : x;
}

function assertClose(actual: Tensor | null, expected: Recorded | null, tolerance: number, what: string): void {
  if (expected === null) return assertEquals(actual, null, what);
  assert(actual !== null, `${what}: no value`);
  assertEquals(actual.shape, expected.shape, what);
  const values = actual.data();
  expected.values.forEach((wanted, i) => {
    const difference = Math.abs(Number(values[i]) - wanted);
    assert(difference <= tolerance * Math.max(1, Math.abs(wanted)), `${what}[${i}]: ${values[i]}, expected ${wanted}`);
  });
}

for (const dtype of ["float64", "float32"] as const) {
  const tolerance = dtype === "float64" ? 1e-8 : 2e-5;
  for (const [name, make] of Object.entries(layers)) {
    Deno.test(`nn.${name} agrees with PyTorch [${dtype}]`, () => {
      const before = memory.stats().tensors;
      scope(() => {
        const it = recorded[name];
        using layer = make().to(dtype);
        const keys = Object.keys(it.state);
        assertEquals(Object.keys(layer.stateDict()), keys);
        layer.loadStateDict(Object.fromEntries(keys.map((key) => [key, load(it.state[key], dtype)])));
        const inputs = it.inputs.map((input, i) => load(input, dtype, it.inputGrads[i] !== null));
        const y = (layer.call as (...inputs: Tensor[]) => Tensor).apply(layer, inputs);
        assertEquals(y.dtype, dtype);
        assertClose(y, it.output, tolerance, "output");
        y.mul(load(it.weight, dtype)).sum().backward();
        inputs.forEach((input, i) => assertClose(input.grad, it.inputGrads[i], tolerance * 4, `gradient of input ${i}`));
        for (const [key, parameter] of layer.namedParameters()) {
          assertClose(parameter.grad, it.grads[key], tolerance * 4, `gradient of ${key}`);
        }
        for (const [key, buffer] of layer.namedBuffers()) assertClose(buffer, it.after[key] ?? null, tolerance, key);
        for (const input of inputs) input.grad?.dispose();
      });
      assertEquals(memory.stats().tensors, before, "live tensors");
    });
  }
}

Deno.test("every recorded layer is tested", () => assertEquals(Object.keys(layers), Object.keys(recorded)));

Deno.test("layers refuse sizes that make no sense", () => {
  assertThrows(() => new nn.Linear(0, 3), RangeError, "Linear: inFeatures must be a whole number >= 1, got 0");
  assertThrows(() => new nn.Conv2d(3, 4, [3]), RangeError, "Conv2d: kernelSize must be a number or 2 of them, got [3]");
  assertThrows(() => new nn.Conv2d(3, 4, 3, { groups: 2 }), RangeError, "2 groups do not divide 3 input and 4 output channels");
  assertThrows(() => new nn.Conv2d(3, 4, 3, { padding: "same", stride: 2 }), RangeError, 'padding "same" takes stride 1');
  assertThrows(() => new nn.Dropout(1.5), RangeError, "Dropout: p must be in [0, 1], got 1.5");
  assertThrows(() => new nn.Embedding(3, 2, { paddingIdx: 3 }), RangeError, "paddingIdx 3 is outside 3 rows");
  assertThrows(() => new nn.GroupNorm(4, 6), RangeError, "4 groups do not divide 6 channels");
  scope(() => {
    using up = new nn.ConvTranspose2d(1, 1, 3, { stride: 2 });
    assertThrows(() => up.call(tensor([[[[1]]]]), [9, 3]), RangeError, "axis 0 takes 3 to 4");
    assertEquals(up.call(tensor([[[[1]]]]), [4, 3]).shape, [1, 1, 4, 3]);
  });
});

Deno.test("layers print their settings", () => {
  scope(() => {
    using conv = new nn.Conv2d(3, 64, 7, { stride: 2, padding: 3, bias: false });
    assertEquals(`${conv}`, "Conv2d(3, 64, kernelSize=[7, 7], stride=[2, 2], padding=[3, 3], bias=false)");
    using linear = new nn.Linear(512, 10);
    assertEquals(`${linear}`, "Linear(inFeatures=512, outFeatures=10, bias=true)");
    using norm = new nn.BatchNorm2d(64);
    assertEquals(`${norm}`, "BatchNorm2d(64, eps=0.00001, momentum=0.1, affine=true, trackRunningStats=true)");
  });
});

Deno.test("dropout layers drop in training mode only, in the proportion asked for", () => {
  scope(() => {
    const x = tensor(new Float32Array(4000).fill(1)).reshape([20, 50, 2, 2]);
    for (const layer of [new nn.Dropout(0.25), new nn.Dropout2d(0.25)]) {
      const values = [...layer.call(x).data() as Float32Array];
      const kept = values.filter((v) => v !== 0);
      assert(kept.every((v) => Math.abs(v - 4 / 3) < 1e-6));
      assert(kept.length / values.length > 0.65 && kept.length / values.length < 0.85, `${kept.length} kept`);
      assert(layer.eval().call(x) === x);
    }
    const inplace = new nn.Dropout(1, { inplace: true });
    assert(inplace.call(x) === x);
    assertEquals(x.sum().item(), 0);
  });
});

Deno.test("nn.functional holds the function of every layer", () => {
  scope(() => {
    const x = tensor([[1, -2], [3, 4]]), names = Object.keys(nn.functional);
    assertEquals(nn.functional.relu(x).tolist(), new nn.ReLU().call(x).tolist());
    for (
      const name of ["linear", "conv2d", "convTranspose2d", "batchNorm", "layerNorm", "maxPool2d", "interpolate", "crossEntropy", "dropout"]
    ) {
      assert(names.includes(name), name);
    }
  });
});
