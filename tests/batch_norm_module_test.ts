// The BatchNorm modules in every combination of affine, trackRunningStats, momentum and mode, against values recorded from PyTorch
// (tests/fixtures/record_batch_norm.py).
import { nn, noGrad, ones, randn, scope, ShapeError, type Tensor, tensor } from "@dinograd/dinograd";
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

type Flat = number[] | null;
interface Case {
  input: number;
  affine: boolean;
  track: boolean;
  momentum: number | null;
  mode: "train" | "eval" | "train-no-grad";
  y: number[];
  dx: Flat;
  dweight: Flat;
  dbias: Flat;
  running_mean: Flat;
  running_var: Flat;
  num_batches_tracked: number | null;
}
interface Fixture {
  inputs: { name: string; shape: number[]; batches: number[][]; dy: number[]; weight: number[]; bias: number[] }[];
  cases: Case[];
}
const fixture: Fixture = JSON.parse(Deno.readTextFileSync(new URL("fixtures/batch_norm.json", import.meta.url)));
const classes: Record<string, new (channels: number, options?: nn.NormOptions) => nn.BatchNorm> = {
  BatchNorm1d: nn.BatchNorm1d,
  BatchNorm2d: nn.BatchNorm2d,
  BatchNorm3d: nn.BatchNorm3d,
};

function close(actual: Tensor | null, expected: Flat, what: string): void {
  assertEquals(actual === null, expected === null, what);
  if (actual === null || expected === null) return;
  const values = actual.data();
  assertEquals(values.length, expected.length, what);
  expected.forEach((v, i) => assertAlmostEquals(Number(values[i]), v, 1e-10 * Math.max(1, Math.abs(v)), `${what}[${i}]`));
}

/** A test that ends with the live tensors it began with. */
test("BatchNorm modules agree with PyTorch in every combination", () => {
  assertEquals(fixture.cases.length, 96);
  fixture.cases.forEach((it, index) =>
    scope(() => {
      const { name, shape, batches, dy, weight, bias } = fixture.inputs[it.input];
      const make = (values: number[], size: number[]) => tensor(values, { dtype: "float64" }).reshape(size);
      const { affine, track, momentum, mode } = it;
      using norm = new classes[name](shape[1], { affine, trackRunningStats: track, momentum, dtype: "float64" });
      const keys = [...(affine ? ["weight", "bias"] : []), ...(track ? ["running_mean", "running_var", "num_batches_tracked"] : [])];
      assertEquals(Object.keys(norm.stateDict()), keys);
      if (affine) norm.loadStateDict({ weight: make(weight, [shape[1]]), bias: make(bias, [shape[1]]) }, { strict: false });
      noGrad(() => batches.slice(0, -1).forEach((batch) => norm.call(make(batch, shape))));
      norm.train(mode !== "eval");
      const x = make(batches.at(-1)!, shape).detach(), label = `case ${index}`;
      if (mode === "train-no-grad") close(noGrad(() => norm.call(x)), it.y, `${label} y`);
      else {
        const y = norm.call(x.requiresGrad_());
        close(y, it.y, `${label} y`);
        y.backward(make(dy, shape));
      }
      close(x.grad, it.dx, `${label} dx`);
      close(norm.weight?.grad ?? null, it.dweight, `${label} dweight`);
      close(norm.bias?.grad ?? null, it.dbias, `${label} dbias`);
      close(norm.runningMean, it.running_mean, `${label} running mean`);
      close(norm.runningVar, it.running_var, `${label} running var`);
      assertEquals(norm.numBatchesTracked?.item() ?? null, it.num_batches_tracked);
      x.grad?.dispose();
    })
  );
});

test("BatchNorm in evaluation mode does not depend on the rest of the batch", () => {
  using norm = new nn.BatchNorm2d(3);
  norm.call(randn([8, 3, 4, 4]));
  norm.eval();
  const x = randn([4, 3, 4, 4]);
  assertEquals(norm.call(x).select(0, 2).tolist(), norm.call(x.narrow(0, 2, 1)).select(0, 0).tolist());
});

test("BatchNorm refuses wrong ranks, channels and one value per channel, without counting the batch", () => {
  using norm = new nn.BatchNorm2d(3);
  assertThrows(() => norm.call(ones([4, 3])), ShapeError, "BatchNorm2d: takes [N, C, H, W], got [4, 3]");
  assertThrows(() => norm.call(ones([4, 2, 3, 3])), ShapeError, "with C = 3, got [4, 2, 3, 3]");
  assertThrows(
    () => norm.call(ones([1, 3, 1, 1])),
    ShapeError,
    "expected more than 1 value per channel when training, got input size [1, 3, 1, 1]",
  );
  assertEquals(norm.numBatchesTracked!.item(), 0);
  assertEquals(norm.eval().call(ones([1, 3, 1, 1])).shape, [1, 3, 1, 1]);
  using flat = new nn.BatchNorm1d(2);
  assertThrows(() => flat.call(ones([2, 2, 2, 2])), ShapeError, "BatchNorm1d: takes [N, C] or [N, C, L]");
  using volume = new nn.BatchNorm3d(2);
  assertThrows(() => volume.call(ones([2, 2, 2, 2])), ShapeError, "BatchNorm3d: takes [N, C, D, H, W]");
  assertThrows(() => new nn.BatchNorm2d(0), RangeError, "numFeatures must be a whole number >= 1");
  assertThrows(() => new nn.BatchNorm2d(2, { momentum: 2 }), RangeError, "momentum must be null or in [0, 1], got 2");
});

test("BatchNorm.fused() gives what the steps one after the other give, with hooks too", () => {
  const shape = [3, 4, 5, 5], x = randn(shape), residual = randn(shape);
  using plain = new nn.BatchNorm2d(4);
  const expected = plain.call(x).add(residual).relu();
  using fused = new nn.BatchNorm2d(4);
  const gap = (y: Tensor) => y.sub(expected).abs().max().item();
  assert(gap(fused.fused(x, { activation: "relu", residual })) < 1e-5);
  fused.resetParameters();
  let calls = 0;
  fused.registerForwardHook(() => void calls++);
  assert(gap(fused.fused(x, { activation: "relu", residual })) < 1e-5);
  assertEquals(calls, 1);
  assertEquals(fused.numBatchesTracked!.item(), 1);
});

test("Sequential runs BatchNorm and ReLU as one pass, with the same result", () => {
  const x = randn([4, 3, 5, 5]), grads: number[][] = [], outputs: number[][] = [];
  for (const hooked of [false, true]) {
    using model = new nn.Sequential(new nn.BatchNorm2d(3), new nn.ReLU());
    let calls = 0;
    if (hooked) model.at(1).registerForwardHook(() => void calls++);
    const y = model.call(x);
    y.mul(x).sum().backward();
    outputs.push(Array.from(y.data(), Number));
    grads.push(Array.from(model.getParameter("0.weight").grad!.data(), Number));
    assertEquals(calls, hooked ? 1 : 0);
    assertEquals(y.node!.name, hooked ? "relu" : "batchNorm");
  }
  outputs[0].forEach((v, i) => assertAlmostEquals(v, outputs[1][i], 1e-5));
  grads[0].forEach((v, i) => assertAlmostEquals(v, grads[1][i], 1e-4));
});
