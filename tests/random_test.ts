// Random numbers: known answers, moments, range, independence of threads, reproducibility; dropout and its derivative.
import { assert, assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import {
  alphaDropout,
  bernoulli,
  defaultGenerator,
  dropout,
  dropout1d,
  dropout2d,
  dropout3d,
  type DType,
  DTypeError,
  empty,
  featureAlphaDropout,
  full,
  Generator,
  getThreads,
  grad,
  gradcheck,
  manualSeed,
  multinomial,
  normal,
  ones,
  rand,
  randint,
  randLike,
  randn,
  randnLike,
  randperm,
  scope,
  setThreads,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { philoxWords, truncNormal_ } from "../ops/mod.ts";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

const numbers = (x: Tensor) => Array.from(x.data(), Number);
const floats: readonly DType[] = ["float32", "float64", "float16", "bfloat16"];

function moments(values: readonly number[]): { mean: number; variance: number; skew: number; kurtosis: number } {
  const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
  const central = (k: number) => values.reduce((sum, v) => sum + (v - mean) ** k, 0) / n;
  const variance = central(2);
  return { mean, variance, skew: central(3) / variance ** 1.5, kurtosis: central(4) / variance ** 2 };
}

test("philoxWords() gives the published answers of Random123", () => {
  const words = (seed: bigint, counter: [number, number, number, number]) =>
    numbers(philoxWords(4, seed, counter)).map((v) => v.toString(16));
  assertEquals(words(0n, [0, 0, 0, 0]), ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]);
  const full = 0xffffffff;
  assertEquals(words(0xffffffffffffffffn, [full, full, full, full]), ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]);
  assertEquals(words(0x299f31d0a4093822n, [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]), [
    "d16cfe09",
    "94fdcceb",
    "5001e420",
    "24126ea1",
  ]);
  // Consecutive counters follow each other, across the 32-bit boundary, too.
  const run = numbers(philoxWords(12, 5n, [0xffffffff, 7, 0, 0]));
  assertEquals(run.slice(4, 8), numbers(philoxWords(4, 5n, [0, 8, 0, 0])));
});

test("rand() makes its floats of the words of the stream", () => {
  const generator = new Generator(123n);
  assertEquals(numbers(rand([9], { generator })), numbers(philoxWords(9, 123n, [0, 0, 0, 0])).map((w) => Math.floor(w / 256) / 2 ** 24));
  assertEquals(generator.getState(), { seed: "123", offset: 3 });
});

test("rand() and randn() have the moments of their distributions in every dtype", () => {
  const n = 200000;
  for (const dtype of floats) {
    manualSeed(11);
    const u = numbers(rand([n], { dtype })), uniform = moments(u);
    const bias = { float16: 2 ** -12, bfloat16: 2 ** -9 }[dtype as string] ?? 0;
    assert(u.every((v) => v >= 0 && v < 1), dtype);
    assertAlmostEquals(uniform.mean, 0.5 - bias, 0.003);
    assertAlmostEquals(uniform.variance, 1 / 12, 0.001);
    const normal = moments(numbers(randn([n], { dtype })));
    assertAlmostEquals(normal.mean, 0, 0.01);
    assertAlmostEquals(normal.variance, 1, 0.015);
    assertAlmostEquals(normal.skew, 0, 0.025);
    assertAlmostEquals(normal.kurtosis, 3, 0.05);
  }
});

test("randn() has no correlation between neighbours and fills its quantiles", () => {
  manualSeed(12);
  const z = numbers(randn([200000]));
  for (const lag of [1, 2, 3, 4, 64]) {
    let sum = 0;
    for (let i = lag; i < z.length; i++) sum += z[i] * z[i - lag];
    assertAlmostEquals(sum / z.length, 0, 0.01, `lag ${lag}`);
  }
  for (const [limit, below] of [[-1.959964, 0.025], [-0.6744898, 0.25], [0, 0.5], [1.2815516, 0.9], [2.5758293, 0.995]]) {
    assertAlmostEquals(z.filter((v) => v < limit).length / z.length, below, 0.004, `below ${limit}`);
  }
  assert(z.every((v) => Math.abs(v) < 6.8));
});

test("random numbers are the same for any number of threads, seed by seed", () => {
  const threads = getThreads();
  const all = () => {
    manualSeed(99);
    const drawn = [
      rand([100003]),
      randn([70001]),
      rand([50001], { dtype: "float64" }),
      randn([50001], { dtype: "float64" }),
      randn([40000], { dtype: "bfloat16" }),
      randint(-5, 1000, [60001]),
      dropout(ones([65537]), 0.3),
      empty([50001]).exponential_(2),
      empty([50001]).bernoulli_(0.2),
    ];
    return drawn.map(numbers);
  };
  try {
    setThreads(1);
    const one = all();
    assertEquals(all(), one);
    setThreads(2);
    assertEquals(all(), one);
  } finally {
    setThreads(threads);
  }
});

test("Generator state: each draw advances it, a saved state repeats, seeds differ", () => {
  const generator = new Generator(7);
  const first = numbers(randn([10], { generator })), state = generator.getState(), second = numbers(randn([10], { generator }));
  assertNotEquals(first, second);
  assertEquals(numbers(randn([10], { generator: new Generator().setState(JSON.parse(JSON.stringify(state))) })), second);
  assertEquals(numbers(randn([10], { generator: new Generator(7) })), first);
  assertNotEquals(numbers(randn([10], { generator: new Generator(8) })), first);
  assertNotEquals(new Generator().initialSeed(), new Generator().initialSeed());
  assertEquals(new Generator(-1).initialSeed(), 2n ** 64n - 1n);
  manualSeed(3);
  assertEquals(defaultGenerator.initialSeed(), 3n);
  assertThrows(() => manualSeed(1.5), RangeError, "whole number, got 1.5");
  assertThrows(() => generator.setState({ seed: "x", offset: 0 }), RangeError, "getState()");
  assertThrows(() => rand([1], { generator: {} as Generator }), TypeError, "must be a Generator");
});

test("randint() covers its range evenly, randperm() is a permutation", () => {
  manualSeed(13);
  const draws = numbers(randint(-3, 4, [70000]));
  for (let v = -3; v < 4; v++) assertAlmostEquals(draws.filter((d) => d === v).length / 10000, 1, 0.05);
  assert(draws.every((d) => d >= -3 && d < 4));
  const wide = numbers(randint(-(2 ** 53) + 1, 2 ** 53 - 1, [1000]));
  assert(wide.some((v) => v > 2 ** 51) && wide.some((v) => v < -(2 ** 51)));
  assertEquals(randint(0, 9, [4], { dtype: "uint8" }).dtype, "uint8");
  assertThrows(() => randint(3, 3, [1]), RangeError, "low < high, got 3 and 3");
  for (const n of [0, 1, 2, 129, 1000]) {
    const order = numbers(randperm(n));
    assertEquals(order.toSorted((a, b) => a - b), Array.from({ length: n }, (_, i) => i));
  }
  // Each place is as likely.
  const first = Array.from({ length: 3000 }, () => scope(() => numbers(randperm(3))[0]));
  for (const v of [0, 1, 2]) assertAlmostEquals(first.filter((f) => f === v).length / 1000, 1, 0.12);
  assertThrows(() => randperm(-1), RangeError, "n must be a whole number >= 0, got -1");
});

test("multinomial() draws in proportion to weights", () => {
  manualSeed(14);
  const weights = tensor([[1, 0, 3, 6], [0, 5, 0, 0]]);
  const draws = multinomial(weights, 20000, { replacement: true });
  assertEquals(draws.shape, [2, 20000]);
  const [first, second] = draws.unbind(0).map(numbers);
  [0.1, 0, 0.3, 0.6].forEach((p, k) => assertAlmostEquals(first.filter((d) => d === k).length / 20000, p, 0.012));
  assert(second.every((d) => d === 1));
  for (let i = 0; i < 50; i++) assertEquals(numbers(multinomial(tensor([0.2, 0, 0.5, 0.3]), 3)).toSorted(), [0, 2, 3]);
  const one = Array.from({ length: 4000 }, () => scope(() => multinomial(tensor([1, 0, 3, 6]), 2).select(0, 0).item()));
  assertAlmostEquals(one.filter((d) => d === 3).length / 4000, 0.6, 0.03);
  assertThrows(() => multinomial(tensor([0.5, 0.5]), 3), RangeError, "cannot draw 3 of 2 categories without replacement");
  assertThrows(() => multinomial(tensor([1, 0]), 2), RangeError, "categories of weight > 0");
  assertThrows(() => multinomial(tensor([0, 0]), 2, { replacement: true }), RangeError, "categories of weight > 0");
  assertThrows(() => multinomial(tensor([1, -1]), 1), RangeError, "finite and >= 0, got -1");
  assertThrows(() => multinomial(zeros([2, 2, 2]), 1), ShapeError, "[K] or [N, K]");
});

test("in-place draws: ranges, moments, any strides, leaves under a graph refused", () => {
  manualSeed(15);
  const x = empty([300, 400]);
  assert(numbers(x.uniform_(-3, 5)).every((v) => v >= -3 && v < 5));
  assertAlmostEquals(moments(numbers(x)).mean, 1, 0.05);
  assertAlmostEquals(moments(numbers(x.normal_(2, 3))).variance, 9, 0.2);
  assertAlmostEquals(moments(numbers(x.exponential_(4))).mean, 0.25, 0.01);
  assertAlmostEquals(moments(numbers(x.bernoulli_(0.3))).mean, 0.3, 0.01);
  assert(numbers(x.random_(2, 5)).every((v) => v === 2 || v === 3 || v === 4));
  const cut = numbers(truncNormal_(x, 1, 2, 0, 2.5));
  assert(cut.every((v) => v >= 0 && v <= 2.5));
  assertAlmostEquals(moments(cut).mean, 1.218, 0.02); // mean of N(1, 2) between 0 and 2.5
  // A view is filled by its own order, so that the memory layout does not matter.
  manualSeed(16);
  const straight = numbers(empty([4, 6]).normal_());
  manualSeed(16);
  assertEquals(numbers(empty([6, 4]).transpose(0, 1).normal_()), straight);
  assertThrows(() => x.uniform_(2, 1), RangeError, "low must not exceed high");
  assertThrows(() => x.normal_(0, -1), RangeError, "standard deviation must be >= 0");
  assertThrows(() => x.bernoulli_(2), RangeError, "[0, 1], got 2");
  assertThrows(() => ones([2], { requiresGrad: true }).uniform_(), Error, "leaf");
});

test("normal() and bernoulli() take tensors of parameters", () => {
  manualSeed(17);
  const z = normal(tensor([0, 100]).expand([20000, 2]), tensor([1, 10]));
  const [a, b] = z.unbind(1).map((column) => moments(numbers(column)));
  assertAlmostEquals(a.variance, 1, 0.05);
  assertAlmostEquals(b.mean, 100, 0.3);
  assertAlmostEquals(b.variance, 100, 5);
  assertEquals(normal(3, 0, [2]).tolist(), [3, 3]);
  assertThrows(() => normal(0, -1, [2]), RangeError, "standard deviation");
  assertThrows(() => normal(zeros([2]), tensor([1, -1])), RangeError, "standard deviation");
  assertAlmostEquals(moments(numbers(bernoulli(full([20000], 0.7)))).mean, 0.7, 0.02);
  assertEquals(bernoulli(tensor([0, 1, 0, 1])).tolist(), [0, 1, 0, 1]);
  assertThrows(() => bernoulli(tensor([0.5, 1.5])), RangeError, "[0, 1]");
  assertThrows(() => bernoulli(tensor([NaN])), RangeError, "[0, 1]");
  assertThrows(() => rand([2], { dtype: "int64" }), DTypeError, "floating point");
  assertEquals(randLike(ones([2, 3, 4]).channelsLast()).strides, ones([2, 3, 4]).channelsLast().strides);
  assertEquals(randnLike(ones([2], { dtype: "float16" })).dtype, "float16");
});

test("dropout() keeps the mean, is exact at 0 and 1, and backward has the same mask", () => {
  manualSeed(18);
  for (const dtype of floats) {
    const x = ones([50000], { dtype }).requiresGrad_(), y = dropout(x, 0.25);
    const values = numbers(y);
    assertAlmostEquals(values.filter((v) => v === 0).length / 50000, 0.25, 0.01);
    assert(values.every((v) => v === 0 || Math.abs(v - 4 / 3) < 0.01));
    y.backward(ones([50000], { dtype }));
    assertEquals(numbers(x.grad!), values);
    x.grad!.dispose();
  }
  const x = randn([100]);
  assertEquals(dropout(x, 0), x);
  assertEquals(dropout(x, 0.9, { training: false }), x);
  assert(numbers(dropout(tensor([1, Infinity, -2]), 1)).every((v) => v === 0));
  assertThrows(() => dropout(x, 1.1), RangeError, "[0, 1], got 1.1");
  assertThrows(() => dropout(x, NaN), RangeError, "[0, 1]");
  // The mask goes by memory order, for the gradient in any order, too.
  const wide = randn([2, 3, 5], { dtype: "float64" }).channelsLast().requiresGrad_();
  const generator = new Generator(4), state = generator.getState();
  const again = (x: Tensor) => dropout(x, 0.5, { generator: generator.setState(state) });
  gradcheck(again, [wide]);
  gradcheck((x) => grad(again(x).mul(x).sum(), [x], { createGraph: true }) as Tensor[], [wide]);
  const gaps = randn([6, 8], { dtype: "float64" }).slice(1, 0, 8, 2).requiresGrad_();
  gradcheck(again, [gaps]);
});

test("dropout1d(), dropout2d() and dropout3d() drop whole channels", () => {
  manualSeed(19);
  const cases: [(x: Tensor, p?: number) => Tensor, number[]][] = [[dropout1d, [20, 30, 4]], [dropout2d, [20, 30, 2, 2]], [dropout3d, [
    20,
    30,
    1,
    2,
    2,
  ]]];
  for (const [fn, shape] of cases) {
    const channels = fn(ones(shape), 0.4).reshape([600, 4]);
    const sums = numbers(channels.sum(1));
    assert(sums.every((s) => s === 0 || Math.abs(s - 4 / 0.6) < 1e-4));
    assertAlmostEquals(sums.filter((s) => s === 0).length / 600, 0.4, 0.08);
    assert(numbers(fn(ones(shape), 1)).every((v) => v === 0));
    assertThrows(() => fn(ones([3])), ShapeError, "takes");
  }
  assertEquals(dropout2d(ones([3, 4, 4]), 0.5).shape, [3, 4, 4]);
});

test("alphaDropout() keeps mean 0 and variance 1", () => {
  manualSeed(20);
  const x = randn([100000]);
  const { mean, variance } = moments(numbers(alphaDropout(x, 0.3)));
  assertAlmostEquals(mean, 0, 0.02);
  assertAlmostEquals(variance, 1, 0.03);
  assertEquals(alphaDropout(x, 0.3, { training: false }), x);
  assert(numbers(alphaDropout(x, 1)).every((v) => v === 0));
  const channels = numbers(featureAlphaDropout(ones([10, 20, 5]), 0.5).reshape([200, 5]).mul(1));
  for (let i = 0; i < 1000; i += 5) assert(channels.slice(i, i + 5).every((v) => v === channels[i]));
});

test("random tensors without elements, whatever their other sizes", () => {
  for (const shape of [[0], [2, 0], [0, 2], [1, 3, 0, 64]]) {
    assertEquals(rand(shape).shape, shape);
    assertEquals(randn(shape).shape, shape);
    assertEquals(randint(0, 5, shape).shape, shape);
    assertEquals(bernoulli(rand(shape)).shape, shape);
  }
});
