/** What the op table does not reach in indexing: in-place forms, large inputs shared among threads, half types, nothing written on bad input. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  arange,
  AutogradError,
  type DType,
  DTypeError,
  embedding,
  getThreads,
  grad,
  gradcheck,
  index,
  noGrad,
  ones,
  setThreads,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

const long = (values: number | number[] | number[][]) => tensor(values, { dtype: "int64" });
const numbers = (x: Tensor) => [...x.data()].map(Number);
const noise = (i: number) => Math.sin(i * 12.9898) * 43758.5453 % 1;

/** The same results with one thread and with all. */
function onAnyThreads(fn: () => Tensor): number[] {
  const threads = getThreads();
  const all = numbers(fn());
  setThreads(1);
  const one = numbers(fn());
  setThreads(threads);
  assertEquals(all, one);
  return all;
}

test("in-place forms change the tensor, count its version and differentiate", () => {
  const x = () => tensor([[1, 2, 3], [4, 5, 6]], { dtype: "float64", requiresGrad: true });
  const source = tensor([[10, 20], [30, 40]], { dtype: "float64", requiresGrad: true });
  const value = tensor(0.5, { dtype: "float64", requiresGrad: true });
  const mask = tensor([true, false, true]), at = long([[0, 2], [2, 1]]), one = long([2, 0]);
  const forms: [string, (x: Tensor) => Tensor, number[]][] = [
    ["scatter_", (x) => x.scatter_(1, at, source), [10, 2, 20, 4, 40, 30]],
    ["scatter_ value", (x) => x.scatter_(1, at, 7), [7, 2, 7, 4, 7, 7]],
    ["scatterAdd_", (x) => x.scatterAdd_(1, at, source), [11, 2, 23, 4, 45, 36]],
    ["maskedFill_", (x) => x.maskedFill_(mask, -1), [-1, 2, -1, -1, 5, -1]],
    ["maskedFill_ tensor", (x) => x.maskedFill_(mask, value), [0.5, 2, 0.5, 0.5, 5, 0.5]],
    ["indexAdd_", (x) => x.indexAdd_(1, one, source, { alpha: 2 }), [41, 2, 23, 84, 5, 66]],
    ["indexCopy_", (x) => x.indexCopy_(1, one, source), [20, 2, 10, 40, 5, 30]],
    ["indexFill_", (x) => x.indexFill_(1, long([-1]), 9), [1, 2, 9, 4, 5, 9]],
    ["indexPut_", (x) => x.indexPut_([null, one], source), [20, 2, 10, 40, 5, 30]],
    ["indexPut_ accumulate", (x) => x.indexPut_([long([1, 1]), long([0, 0])], value, { accumulate: true }), [1, 2, 3, 5, 5, 6]],
    ["indexPut_ of a row", (x) => x.indexPut_([1], 0), [1, 2, 3, 0, 0, 0]],
    ["indexPut_ of a mask", (x) => x.indexPut_([x.detach().gt(4.5)], value), [1, 2, 3, 4, 0.5, 0.5]],
  ];
  for (const [name, fn, want] of forms) {
    const plain = noGrad(() => x().clone()), version = plain.version;
    assertEquals(numbers(noGrad(() => fn(plain))), want, name);
    assert(plain.version > version, name);
    gradcheck((x, ..._) => fn(x.mul(1)), [x(), source, value]);
    assertThrows(() => fn(x()), AutogradError, "a leaf tensor that requires a gradient cannot be changed in place", name);
    assertThrows(() => fn(zeros([2, 1], { dtype: "float64" }).expand([2, 3])), ShapeError, "single memory location", name);
  }
});

test("a bad index leaves the written-to tensor as it was", () => {
  const x = zeros([3, 2]), source = ones([3, 2]), bad = long([0, 1, 3]);
  assertThrows(
    () => x.scatterAdd_(0, bad.unsqueeze(1).expand([3, 2]), source),
    RangeError,
    "scatterAdd_: index 3 is outside axis 0 of size 3",
  );
  assertThrows(() => x.indexAdd_(0, bad, source), RangeError, "indexAdd_: index 3 is outside axis 0 of size 3, allowed are 0 to 2");
  assertThrows(() => x.indexPut_([bad], 1), RangeError, "indexPut_: index 3 is outside axis 0 of size 3, allowed are -3 to 2");
  assertEquals(x.sum().item(), 0);
});

test("the first bad index is named, whichever thread meets it", () => {
  const n = 300_000, at = zeros([n], { dtype: "int64" });
  for (const place of [299_999, 150_000, 77_777]) at.indexPut_([place], 1000 + place);
  for (let i = 0; i < 5; i++) assertThrows(() => ones([2]).gather(0, at), RangeError, "gather: index 78777 is outside axis 0 of size 2");
});

test("scatterAdd() and indexAdd() of many repeats do not depend on the number of threads", () => {
  const n = 200_000, values = tensor(Float32Array.from({ length: n }, (_, i) => noise(i)));
  const at = tensor(BigInt64Array.from({ length: n }, (_, i) => BigInt(Math.floor(Math.abs(noise(i * 7)) * 50))));
  const sums = onAnyThreads(() => zeros([50]).scatterAdd(0, at, values));
  const want = new Float64Array(50);
  const flat = numbers(values);
  numbers(at).forEach((k, i) => want[k] += flat[i]);
  sums.forEach((sum, k) => assertAlmostEquals(sum, want[k], 1e-2));
  assertEquals(onAnyThreads(() => zeros([50]).indexAdd(0, at, values)), sums);
  const rows = values.reshape([5000, 40]), few = at.slice(0, 0, 5000);
  const added = onAnyThreads(() => zeros([50, 40]).indexAdd(0, few, rows));
  assertEquals(onAnyThreads(() => zeros([50, 40]).scatterAdd(0, few.unsqueeze(1).expand([5000, 40]), rows)), added);
  assertEquals(onAnyThreads(() => zeros([40, 50]).scatterAdd(1, few.expand([40, 5000]), rows.T).T.contiguous()), added);
  const wide = values.reshape([20, 10_000]), head = at.slice(0, 0, 20);
  onAnyThreads(() => zeros([50, 10_000]).indexAdd(0, head, wide));
  onAnyThreads(() => zeros([50]).scatterReduce(0, at, values, "prod"));
});

test("reading and counting over many chunks does not depend on the number of threads", () => {
  const n = 100_003, x = tensor(Float32Array.from({ length: n }, (_, i) => noise(i)));
  const mask = x.gt(0), kept = numbers(x).filter((v) => v > 0);
  assertEquals(onAnyThreads(() => x.maskedSelect(mask)), kept);
  assertEquals(onAnyThreads(() => mask.nonzero()).length, kept.length);
  const at = arange(0, n).flip(0);
  assertEquals(onAnyThreads(() => x.gather(0, at)), numbers(x).reverse());
  assertEquals(onAnyThreads(() => x.indexSelect(0, at)), numbers(x).reverse());
  assertEquals(
    onAnyThreads(() => x.slice(0, 0, 100_000).reshape([10, 10_000]).indexSelect(0, long([3]))),
    numbers(x).slice(30_000, 40_000),
  );
});

test("sums of half types are added in float32", () => {
  for (const dtype of ["float16", "bfloat16"] as DType[]) {
    const many = ones([1, 4096], { dtype }).mul(0.25).reshape([4096]).detach(), at = zeros([4096], { dtype: "int64" });
    assertEquals(zeros([1], { dtype }).scatterAdd(0, at, many).item(), 1024);
    assertEquals(zeros([1], { dtype }).indexAdd(0, at, many).item(), 1024);
    assertEquals(zeros([1], { dtype }).scatterAdd_(0, at, many).item(), 1024);
    assertEquals(zeros([1], { dtype }).indexAdd_(0, at, many).item(), 1024);
    const weight = ones([2, 1], { dtype, requiresGrad: true });
    embedding(weight, at).sum(0).mul(0.25).sum().backward();
    assertEquals([weight.grad!.dtype as string, weight.grad!.tolist()], [dtype, [[1024], [0]]]);
    weight.grad!.dispose();
    weight.grad = null;
  }
});

test("integer and bool tensors are indexed without loss", () => {
  const big = tensor(new BigInt64Array([2n ** 62n + 1n, -5n, 7n]));
  assertEquals([...big.gather(0, long([0, 2])).data()], [2n ** 62n + 1n, 7n]);
  assertEquals([...big.scatterReduce(0, long([1, 1]), tensor(new BigInt64Array([2n ** 62n, 3n])), "amax").data()], [
    2n ** 62n + 1n,
    2n ** 62n,
    7n,
  ]);
  const mean = long([7, 0]).scatterReduce(0, long([0, 1, 1]), long([0, -3, 0]), "mean");
  assertEquals(mean.tolist(), [3, -1]);
  const flags = tensor([true, false, true]);
  assertEquals(flags.gather(0, long([1, 2])).tolist(), [false, true]);
  assertEquals(flags.maskedFill(flags, 0).tolist(), [false, false, false]);
  assertThrows(() => flags.scatterAdd(0, long([0]), flags), DTypeError, "scatterAdd: bool tensors are not added");
  assertThrows(() => long([1]).indexPut([0], tensor(0.5)), DTypeError, "the source must have the tensor's dtype int64, got float32");
});

test("an index that lies in the tensor it writes to is read first", () => {
  const x = long([2, 0, 1]);
  x.scatter_(0, x, long([10, 20, 30]));
  assertEquals(x.tolist(), [20, 30, 10]);
  const y = long([2, 0, 1]);
  y.indexPut_([y], 5);
  assertEquals(y.tolist(), [5, 5, 5]);
});

test("index() of numbers and null copies, and takes int32 and masks without axes", () => {
  const x = tensor([[1, 2], [3, 4]]);
  const row = index(x, [1]);
  row.fill_(0);
  assertEquals(x.tolist(), [[1, 2], [3, 4]]);
  assertEquals(index(x, [tensor([-1], { dtype: "int32" })]).tolist(), [[3, 4]]);
  assertEquals(index(x, [tensor(true)]).tolist(), [[[1, 2], [3, 4]]]);
  assertEquals([...index(x, [tensor(false)]).shape], [0, 2, 2]);
  assertEquals(index(x, ["...", long([0])]).tolist(), [[1], [3]]);
  assertThrows(() => index(x, ["...", "..."]), RangeError, '"..." appears more than once');
  assertThrows(() => index(x, [0.5]), RangeError, "positions are whole numbers, got 0.5");
  assertThrows(() => index(x, 3 as unknown as null[]), TypeError, "the index must be an array");
});

test("embedding() scales down the rows it looks up to maxNorm", () => {
  const weight = tensor([[3, 4], [0.3, 0.4], [6, 8]], { requiresGrad: true });
  const y = embedding(weight, long([0, 1, 0]), { maxNorm: 1 });
  numbers(y).forEach((v, i) => assertAlmostEquals(v, [0.6, 0.8, 0.3, 0.4, 0.6, 0.8][i], 1e-6));
  assertEquals(weight.detach().select(0, 2).tolist(), [6, 8]);
  y.sum().backward();
  assertEquals(weight.grad!.tolist(), [[2, 2], [1, 1], [0, 0]]);
  weight.grad!.dispose();
  weight.grad = null;
});

test("second derivatives through gather and index reach the values", () => {
  const x = tensor([1, 2, 3], { dtype: "float64", requiresGrad: true });
  const [first] = grad(x.gather(0, long([0, 0, 2])).pow(3).sum(), [x], { createGraph: true });
  assertEquals(first.tolist(), [6, 0, 27]);
  const [second] = grad(first.sum(), [x]);
  assertEquals(second.tolist(), [12, 0, 18]);
});
