// Batch normalisation against values recorded from PyTorch (tests/fixtures/record_batch_norm.py), and the fused kernels against
// the composed form.
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  batchNorm,
  type DType,
  DTypeError,
  getThreads,
  grad,
  gradcheck,
  manualSeed,
  noGrad,
  ones,
  rand,
  randn,
  scope,
  setThreads,
  ShapeError,
  Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { composedBatchNorm } from "../ops/mod.ts";
import { assertThrows } from "./device.ts";

type Flat = number[] | null;
interface Fixture {
  inputs: { name: string; shape: number[]; batches: number[][]; dy: number[]; weight: number[]; bias: number[] }[];
  cases: {
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
  }[];
}
const fixture: Fixture = JSON.parse(Deno.readTextFileSync(new URL("fixtures/batch_norm.json", import.meta.url)));

function close(actual: Tensor | null, expected: Flat, tolerance: number, what: string): void {
  assertEquals(actual === null, expected === null, what);
  if (actual === null || expected === null) return;
  const values = actual.data();
  assertEquals(values.length, expected.length, what);
  expected.forEach((v, i) => assertAlmostEquals(Number(values[i]), v, tolerance * Math.max(1, Math.abs(v)), `${what}[${i}]`));
}

function closeTensors(a: Tensor | null, b: Tensor | null, tolerance: number, what: string): void {
  close(a, b === null ? null : Array.from(b.data(), Number), tolerance, what);
}

/** What nn.BatchNorm does around the function. */
function run(index: number, dtype: DType, tolerance: number, channelsLast: boolean): void {
  const it = fixture.cases[index], { shape, batches, dy, weight, bias } = fixture.inputs[it.input];
  const make = (values: number[], size: number[]) => tensor(values, { dtype }).reshape(size);
  const arrange = (x: Tensor) => channelsLast ? x.channelsLast() : x;
  const channels = shape[1];
  const w = it.affine ? make(weight, [channels]).requiresGrad_() : null, b = it.affine ? make(bias, [channels]).requiresGrad_() : null;
  const mean = it.track ? zeros([channels], { dtype }) : null, variance = it.track ? ones([channels], { dtype }) : null;
  let seen = 0;
  const step = (x: Tensor, training: boolean) => {
    if (training && it.track) seen++;
    const momentum = it.momentum ?? (seen > 0 ? 1 / seen : 0);
    return batchNorm(x, mean, variance, { weight: w, bias: b, training: training || !it.track, momentum });
  };
  noGrad(() => batches.slice(0, -1).forEach((batch) => step(arrange(make(batch, shape)), true)));
  const label = `case ${index} ${JSON.stringify({ ...it, y: 0, dx: 0 })}`, last = batches[batches.length - 1];
  if (it.mode === "train-no-grad") {
    close(noGrad(() => step(arrange(make(last, shape)), true)), it.y, tolerance, `${label} y`);
  } else {
    const x = arrange(make(last, shape)).requiresGrad_();
    const y = step(x, it.mode === "train");
    close(y, it.y, tolerance, `${label} y`);
    y.backward(make(dy, shape));
    close(x.grad, it.dx, tolerance, `${label} dx`);
    assertEquals(x.grad!.strides, x.strides);
  }
  close(w?.grad ?? null, it.dweight, tolerance, `${label} dweight`);
  close(b?.grad ?? null, it.dbias, tolerance, `${label} dbias`);
  close(mean, it.running_mean, tolerance, `${label} running mean`);
  close(variance, it.running_var, tolerance, `${label} running var`);
  if (it.track) assertEquals(seen, it.num_batches_tracked);
}

for (const [dtype, tolerance] of [["float64", 1e-10], ["float32", 2e-5]] as const) {
  for (const channelsLast of [false, true]) {
    Deno.test(`batchNorm() agrees with PyTorch in every mode, ${dtype}, ${channelsLast ? "channels-last" : "row-major"}`, () => {
      assertEquals(fixture.cases.length, 96);
      fixture.cases.forEach((_, index) => scope(() => run(index, dtype, tolerance, channelsLast)));
    });
  }
}

interface Leaves {
  x: Tensor;
  weight: Tensor;
  bias: Tensor;
  residual: Tensor;
}

function leaves(shape: number[], dtype: DType, channelsLast: boolean): Leaves {
  const arrange = (x: Tensor) => (channelsLast ? x.channelsLast() : x).requiresGrad_();
  return {
    x: arrange(randn(shape, { dtype }).mul(2).add(3)),
    weight: rand([shape[1]], { dtype }).sub(0.3).requiresGrad_(),
    bias: randn([shape[1]], { dtype }).requiresGrad_(),
    residual: arrange(randn(shape, { dtype })),
  };
}

Deno.test("batchNorm() fused with relu and residual equals the composed form", () => {
  manualSeed(1);
  const shapes = [[5, 3], [7, 64], [3, 65, 4], [2, 31, 5, 7], [2, 33, 4, 4], [2, 1, 3, 5], [2, 2, 3, 4, 5], [4, 1030, 2], [2, 3, 150, 130]];
  for (const shape of shapes) {
    for (const channelsLast of [false, true]) {
      for (const activation of ["relu", null] as const) {
        for (const withResidual of [true, false]) {
          for (const training of [true, false]) {
            if (shape.length === 4 && shape[2] > 100 && (training || channelsLast !== withResidual)) continue;
            scope(() => {
              const { x, weight, bias, residual } = leaves(shape, "float64", channelsLast);
              const mean = randn([shape[1]], { dtype: "float64" }), variance = rand([shape[1]], { dtype: "float64" }).add(0.5);
              const options = { weight, bias, training, activation, residual: withResidual ? residual : null };
              const inputs = withResidual ? [x, weight, bias, residual] : [x, weight, bias];
              const expected = composedBatchNorm(x, mean, variance, options);
              const weights = randn(shape, { dtype: "float64" });
              const reference = grad(expected.mul(weights).sum(), inputs);
              const y = batchNorm(x, mean, variance, options);
              const label = JSON.stringify({ shape, channelsLast, activation, withResidual, training });
              closeTensors(y, expected, 1e-9, `${label} y`);
              grad(y.mul(weights).sum(), inputs).forEach((g, i) => closeTensors(g, reference[i], 1e-8, `${label} gradient ${i}`));
            });
          }
        }
      }
    }
  }
});

Deno.test("batchNorm() passes gradcheck, once and twice", () => {
  manualSeed(2);
  for (const training of [true, false]) {
    for (const activation of ["relu", null] as const) {
      const { x, weight, bias, residual } = leaves([3, 2, 3], "float64", true);
      const mean = zeros([2], { dtype: "float64" }).add(2.5), variance = ones([2], { dtype: "float64" });
      const f = (x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) =>
        batchNorm(x, mean, variance, { weight, bias, residual, activation, training, momentum: 0 });
      gradcheck(f as (...inputs: Tensor[]) => Tensor, [x, weight, bias, residual]);
      gradcheck(
        (x, weight, bias) => {
          const y = batchNorm(x, mean, variance, { weight, bias, activation, training, momentum: 0 });
          return grad(y.mul(y).mul(y).sum(), [x, weight, bias], { createGraph: true }) as Tensor[];
        },
        [x, weight, bias],
      );
    }
  }
});

Deno.test("batchNorm() takes views with gaps, an expanded gradient, and half types with float32 parameters", () => {
  manualSeed(3);
  const base = randn([4, 6, 5], { dtype: "float64" });
  const x = base.slice(2, 0, 5, 2).requiresGrad_(), same = x.detach().clone().contiguous().requiresGrad_();
  const y = batchNorm(x, null, null), z = batchNorm(same, null, null);
  closeTensors(y, z, 1e-12, "y");
  y.mul(y).sum().backward();
  z.mul(z).sum().backward();
  closeTensors(x.grad, same.grad, 1e-12, "dx");
  const plain = batchNorm(same, null, null);
  plain.sum().backward(); // the gradient is an expanded 1: dx does not change
  closeTensors(same.grad, x.grad, 1e-9, "dx of a sum is 0");
  for (const dtype of ["float16", "bfloat16"] as const) {
    const half = randn([8, 4, 3, 3]).to(dtype).requiresGrad_(), weight = rand([4]).requiresGrad_();
    const mean = zeros([4]), variance = ones([4]);
    const out = batchNorm(half, mean, variance, { weight, training: true, activation: "relu" });
    assertEquals(out.dtype, dtype);
    const wide = half.detach().float();
    closeTensors(out, composedBatchNorm(wide, null, null, { weight, activation: "relu" }), 2e-2, dtype);
    out.sum().backward();
    assertEquals([half.grad!.dtype, weight.grad!.dtype, mean.dtype], [dtype, "float32", "float32"]);
    const narrow = zeros([4], { dtype }), narrowVar = ones([4], { dtype });
    batchNorm(half.detach(), narrow, narrowVar, { training: true });
    closeTensors(narrow, mean, 1e-2, "running mean in half");
  }
});

Deno.test("batchNorm() is as exact as a float32 mean allows for data far from 0", () => {
  manualSeed(4);
  const noise = randn([64, 8, 16, 16], { dtype: "float64" }), far = noise.add(10000).float();
  const reference = batchNorm(far.double(), null, null);
  for (const x of [far, far.channelsLast()]) closeTensors(batchNorm(x, null, null).double(), reference, 6e-4, "y");
});

Deno.test("batchNorm() does not depend on the number of threads", () => {
  manualSeed(5);
  const threads = getThreads();
  try {
    for (const shape of [[64, 16, 33, 31], [8, 3, 200, 100], [40, 3000]]) {
      for (const channelsLast of [true, false]) {
        const { x, weight, bias, residual } = leaves(shape, "float32", channelsLast);
        const once = (count: number) => {
          setThreads(count);
          const y = batchNorm(x, null, null, { weight, bias, residual, activation: "relu" });
          return [y, ...grad(y.mul(y).sum(), [x, weight, bias, residual])].map((v) => v.data());
        };
        assertEquals(once(2), once(1));
      }
    }
  } finally {
    setThreads(threads);
  }
});

Deno.test("batchNorm() edge cases: constant channels, empty batch, fan-out, one value per channel", () => {
  const constant = ones([4, 2], { requiresGrad: true });
  const y = batchNorm(constant, null, null);
  assertEquals(y.tolist(), zeros([4, 2]).tolist());
  y.mul(tensor([[1, 2], [3, 4], [5, 6], [7, 8]])).sum().backward();
  assert(constant.grad!.data().every((v) => Number.isFinite(Number(v))));

  const mean = zeros([3]), variance = ones([3]);
  assertEquals(batchNorm(zeros([0, 3, 2]), mean, variance, { training: true }).shape, [0, 3, 2]);
  assertEquals(mean.tolist(), [0, 0, 0]);

  const x = randn([4, 2], { dtype: "float64", requiresGrad: true });
  const both = () => batchNorm(x, null, null, { residual: x });
  gradcheck(both, [x]);
  const one = grad(both().mul(x).sum(), [x])[0]!;
  both().mul(x).sum().backward();
  both().mul(x).sum().backward();
  closeTensors(x.grad, one.mul(2), 1e-12, "two steps");

  assertThrows(
    () => batchNorm(ones([1, 3]), mean, variance, { training: true }),
    ShapeError,
    "more than 1 value per channel when training",
  );
  assertThrows(() => batchNorm(ones([1, 3, 1, 1]), null, null), ShapeError, "[1, 3, 1, 1]");
  assertEquals(batchNorm(ones([1, 3]), mean, variance, { eps: 0 }).tolist(), [[1, 1, 1]]);
});

Deno.test("batchNorm() counts the batches of training", () => {
  scope(() => {
    const [mean, variance, numBatchesTracked] = [zeros([3]), ones([3]), zeros([], { dtype: "int64" })];
    const x = randn([4, 3, 2]);
    for (let i = 0; i < 3; i++) batchNorm(x, mean, variance, { training: true, numBatchesTracked });
    batchNorm(x, mean, variance, { numBatchesTracked });
    assertEquals(numBatchesTracked.item(), 3);
    batchNorm(zeros([0, 3, 2]), mean, variance, { training: true, numBatchesTracked });
    assertEquals(numBatchesTracked.item(), 4);
    assertThrows(
      () => batchNorm(x, mean, variance, { training: true, numBatchesTracked: zeros([]) }),
      DTypeError,
      "numBatchesTracked must be one int64, got float32 of shape []",
    );
  });
});

Deno.test("batchNorm() refuses what does not fit", () => {
  const x = ones([2, 3, 4]), mean = zeros([3]), variance = ones([3]);
  assertThrows(() => batchNorm(ones([3]), null, null), ShapeError, "at least 2 axes");
  assertThrows(() => batchNorm(x, zeros([4]), ones([4])), ShapeError, "runningMean must have shape [3]");
  assertThrows(() => batchNorm(x, mean, variance, { weight: ones([2]) }), ShapeError, "weight must have shape [3]");
  assertThrows(() => batchNorm(x, mean, null), TypeError, "together");
  assertThrows(() => batchNorm(x, null, null, { eps: -1 }), RangeError, "eps");
  assertThrows(() => batchNorm(x, null, null, { residual: ones([2, 3]) }), ShapeError, "residual must have the input's shape");
  assertThrows(() => batchNorm(ones([2, 3], { dtype: "int32" }), null, null), Error, "floating point");
  assertThrows(() => batchNorm(x, null, null, { activation: "gelu" as "relu" }), RangeError, "activation");
});

Deno.test("batchNorm() may train again before backward of an evaluation", () => {
  const x = randn([4, 2], { requiresGrad: true }), mean = zeros([2]), variance = ones([2]);
  const y = batchNorm(x, mean, variance);
  batchNorm(x, mean, variance, { training: true });
  y.sum().backward();
  closeTensors(x.grad, ones([4, 2]).mul(1 / Math.sqrt(1 + 1e-5)), 1e-6, "dx");
});
