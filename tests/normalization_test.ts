// Layer, group and instance normalisation: fused against composed, running statistics, half types, threads, second derivatives.
import { assertAlmostEquals, assertEquals } from "@std/assert";
import {
  type DType,
  getThreads,
  grad,
  gradcheck,
  groupNorm,
  instanceNorm,
  layerNorm,
  manualSeed,
  ones,
  rand,
  randn,
  rmsNorm,
  setThreads,
  ShapeError,
  type Tensor,
  zeros,
} from "../mod.ts";
import { composedGroupNorm, composedLayerNorm } from "../ops/mod.ts";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

function close(a: Tensor | null, b: Tensor | null, tolerance: number, what: string): void {
  const x = a!.data(), y = b!.data();
  assertEquals(x.length, y.length, what);
  x.forEach((v: number | bigint, i: number) =>
    assertAlmostEquals(Number(v), Number(y[i]), tolerance * Math.max(1, Math.abs(Number(y[i]))), `${what}[${i}]`)
  );
}

const parameters = (shape: number[], dtype: DType) => ({
  weight: rand(shape, { dtype }).add(0.5).requiresGrad_(),
  bias: randn(shape, { dtype }).requiresGrad_(),
});

function compare(fused: (x: Tensor) => Tensor, composed: (x: Tensor) => Tensor, x: Tensor, rest: Tensor[], what: string): void {
  const inputs = [x, ...rest], weights = randn(x.shape, { dtype: x.dtype });
  const y = fused(x), expected = composed(x);
  close(y, expected, 1e-10, `${what} y`);
  const want = grad(expected.mul(weights).sum(), inputs);
  grad(y.mul(weights).sum(), inputs).forEach((g, i) => close(g, want[i], 1e-9, `${what} gradient ${i}`));
}

test("layerNorm() equals the composed form around block widths, on views, with many rows", () => {
  manualSeed(1);
  for (const [rows, columns] of [[3, 1], [2, 31], [2, 32], [5, 33], [1, 9001], [4100, 5], [700, 64]]) {
    const affine = parameters([columns], "float64");
    const x = randn([rows, columns], { dtype: "float64" }).mul(3).add(5).requiresGrad_();
    compare(
      (x) => layerNorm(x, columns, affine),
      (x) => composedLayerNorm(x, columns, affine),
      x,
      [affine.weight, affine.bias],
      `[${rows}, ${columns}]`,
    );
  }
  const affine = parameters([4, 3], "float64");
  const view = randn([3, 4, 5], { dtype: "float64" }).permute([2, 1, 0]).requiresGrad_();
  compare((x) => layerNorm(x, [4, 3], affine), (x) => composedLayerNorm(x, [4, 3], affine), view, [affine.weight, affine.bias], "a view");
});

test("groupNorm() equals the composed form in row-major and channels-last order", () => {
  manualSeed(2);
  for (const [shape, groups] of [[[3, 6], 2], [[2, 4, 33], 4], [[2, 6, 5, 7], 3], [[1, 2, 3, 50, 31], 1]] as [number[], number][]) {
    for (const channelsLast of [false, true]) {
      const affine = parameters([shape[1]], "float64"), raw = randn(shape, { dtype: "float64" });
      const x = (channelsLast ? raw.channelsLast() : raw).requiresGrad_();
      compare(
        (x) => groupNorm(x, groups, affine),
        (x) => composedGroupNorm(x, groups, affine),
        x,
        [affine.weight, affine.bias],
        `${shape} in ${groups}`,
      );
    }
  }
});

test("layerNorm(), rmsNorm() and groupNorm() pass gradcheck twice", () => {
  manualSeed(3);
  const x = randn([2, 4, 3], { dtype: "float64", requiresGrad: true });
  const last = parameters([3], "float64"), channels = parameters([4], "float64");
  const second = (f: (...inputs: Tensor[]) => Tensor, inputs: Tensor[]) =>
    gradcheck((...inputs) => {
      const y = f(...inputs);
      return grad(y.mul(y).mul(y).sum(), inputs, { createGraph: true }) as Tensor[];
    }, inputs);
  second((x, weight, bias) => layerNorm(x, 3, { weight, bias }), [x, last.weight, last.bias]);
  second((x, weight) => rmsNorm(x, 3, { weight, eps: 1e-3 }), [x, last.weight]);
  second((x, weight, bias) => groupNorm(x, 2, { weight, bias }), [x, channels.weight, channels.bias]);
});

test("instanceNorm() updates running statistics with the mean over samples, and uses them", () => {
  manualSeed(4);
  const x = randn([3, 2, 5], { dtype: "float64" }).mul(2).add(1).requiresGrad_(), affine = parameters([2], "float64");
  const runningMean = zeros([2], { dtype: "float64" }), runningVar = ones([2], { dtype: "float64" });
  const y = instanceNorm(x, { ...affine, runningMean, runningVar, momentum: 0.3 });
  close(y, instanceNorm(x, affine), 1e-12, "y");
  close(runningMean, x.mean([0, 2]).mul(0.3), 1e-12, "running mean");
  close(runningVar, x.var([2]).mean(0).mul(0.3).add(0.7), 1e-12, "running var");
  const inputs = [x, affine.weight, affine.bias], weights = randn(x.shape, { dtype: "float64" });
  const want = grad(instanceNorm(x, affine).mul(weights).sum(), inputs);
  grad(y.mul(weights).sum(), inputs).forEach((g, i) => close(g, want[i], 1e-10, `gradient ${i}`));
  const still = instanceNorm(x, { runningMean, runningVar, useInputStats: false });
  const spread = (v: Tensor) => v.reshape([1, 2, 1]);
  close(still, x.sub(spread(runningMean)).mul(spread(runningVar).add(1e-5).rsqrt()), 1e-12, "with running statistics");
  assertThrows(() => instanceNorm(x, { useInputStats: false }), TypeError, "runningMean and runningVar must be given");
});

test("normalisations accumulate halves in float and are exact for data far from 0", () => {
  manualSeed(5);
  for (const dtype of ["float16", "bfloat16"] as const) {
    const x = randn([4, 4096]).to(dtype), wide = x.float();
    close(layerNorm(x, 4096).float(), layerNorm(wide, 4096), 1e-2, dtype);
    close(groupNorm(x.reshape([4, 16, 256]), 4).float(), groupNorm(wide.reshape([4, 16, 256]), 4), 1e-2, dtype);
    assertEquals(layerNorm(x, 4096).dtype, dtype);
  }
  const far = randn([8, 3000], { dtype: "float64" }).add(10000).float();
  close(layerNorm(far, 3000).double(), layerNorm(far.double(), 3000), 6e-4, "layerNorm far from 0");
});

test("normalisations do not depend on the number of threads", () => {
  manualSeed(6);
  const threads = getThreads(), x = randn([300, 64, 33], { requiresGrad: true });
  const last = parameters([33], "float32"), channels = parameters([64], "float32");
  const all = (count: number) => {
    setThreads(count);
    const y = layerNorm(x, 33, last), z = groupNorm(x, 8, channels), r = rmsNorm(x, [64, 33]);
    const grads = grad(y.mul(y).mul(z).mul(r).sum(), [x, last.weight, last.bias, channels.weight, channels.bias]);
    return [y, z, r, ...grads].map((v) => v!.data());
  };
  try {
    assertEquals(all(2), all(1));
  } finally {
    setThreads(threads);
  }
});

test("layerNorm() of constant rows and of nothing", () => {
  assertEquals(layerNorm(ones([2, 3]), 3).tolist(), zeros([2, 3]).tolist());
  const weight = ones([3], { requiresGrad: true }), x = zeros([0, 3], { requiresGrad: true });
  layerNorm(x, 3, { weight }).sum().backward();
  assertEquals(weight.grad!.tolist(), [0, 0, 0]);
  weight.grad!.dispose();
  x.grad!.dispose();
  assertThrows(() => layerNorm(ones([2, 3]), 3, { weight: ones([2]) }), ShapeError, "weight must have the normalised shape [3], got [2]");
  assertThrows(() => layerNorm(ones([2, 3]), 3, { eps: -1 }), RangeError, "eps must be >= 0");
});
