import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  arange,
  argwhere,
  defaultDevice,
  device,
  DeviceError,
  type DType,
  DTypeError,
  emptyLike,
  eye,
  fullLike,
  getDefaultDType,
  inferenceMode,
  isFloatingPoint,
  linspace,
  ones,
  onesLike,
  promoteTypes,
  resultType,
  setDefaultDevice,
  setDefaultDType,
  ShapeError,
  tensor,
  zeros,
  zerosLike,
} from "../mod.ts";
import { test } from "./leaks.ts";

const all: DType[] = ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"];

test("tensor() reads nested and typed arrays of every dtype and gives them back", () => {
  for (const dtype of all) {
    const x = tensor([[1, 0], [1, 1]], { dtype });
    assertEquals(x.dtype, dtype);
    assertEquals(x.tolist(), dtype === "bool" ? [[true, false], [true, true]] : [[1, 0], [1, 1]]);
  }
  assertEquals(tensor(new BigInt64Array([2n ** 60n])).data()[0], 2n ** 60n);
  assertEquals(tensor([]).shape, [0]);
  assertEquals(tensor(5).shape, []);
  assertEquals(tensor([1n, 2n]).dtype, "int64");
});

test("tensor() refuses ragged arrays and elements that are not numbers", () => {
  assertThrows(() => tensor([[1, 2], [3]]), ShapeError, "expected 2 at depth 1, got 1");
  assertThrows(() => tensor([[1], 2]), ShapeError, "depth 1");
  // deno-lint-ignore no-explicit-any
  assertThrows(() => tensor(["a"] as any), ShapeError, "expected a number");
  // deno-lint-ignore no-explicit-any
  assertThrows(() => tensor(new Float16Array([1]) as any), DTypeError, "Float16Array");
  // deno-lint-ignore no-explicit-any
  assertThrows(() => ones([2], { dtype: "float8" as any }), DTypeError, "expected one of");
});

test("sizes that are negative, fractional or too many are refused", () => {
  for (const shape of [[-1], [1.5], [NaN], [2 ** 40, 2 ** 40]]) assertThrows(() => zeros(shape), ShapeError);
  assertThrows(() => zeros([1, 1, 1, 1, 1, 1, 1, 1, 1]), ShapeError, "rank 9 exceeds 8");
});

test("device names are checked", () => {
  // deno-lint-ignore no-explicit-any
  assertThrows(() => ones([1], { device: "tpu" as any }), DeviceError, 'unknown device "tpu"');
  assertThrows(() => device("cuda:" as "cuda"), DeviceError, 'unknown device "cuda:"');
});

// torch.result_type of two tensors with axes, row and column in the order of `all`; from PyTorch's promotion table.
const promotion: DType[][] = [
  ["float32", "float64", "float32", "float32", "float32", "float32", "float32", "float32"],
  ["float64", "float64", "float64", "float64", "float64", "float64", "float64", "float64"],
  ["float32", "float64", "float16", "float32", "float16", "float16", "float16", "float16"],
  ["float32", "float64", "float32", "bfloat16", "bfloat16", "bfloat16", "bfloat16", "bfloat16"],
  ["float32", "float64", "float16", "bfloat16", "int32", "int64", "int32", "int32"],
  ["float32", "float64", "float16", "bfloat16", "int64", "int64", "int64", "int64"],
  ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "uint8"],
  ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"],
];

test("add() promotes dtypes as PyTorch does", () => {
  all.forEach((a, i) =>
    all.forEach((b, k) => {
      const sum = tensor([1, 0], { dtype: a }).add(tensor([1, 1], { dtype: b }));
      assertEquals(sum.dtype, promotion[i][k], `${a} + ${b}`);
    })
  );
  assertEquals(resultType(ones([2], { dtype: "float16" }), tensor(1, { dtype: "float64" })), "float16");
  assertEquals(tensor([1], { dtype: "int32" }).add(tensor(1.5, { dtype: "float64" })).dtype, "float64");
  assertEquals(tensor([1], { dtype: "int32" }).mul(2).dtype, "int32");
  assertEquals(tensor([1], { dtype: "int32" }).mul(0.5).dtype, "float32");
  assertEquals(tensor([3], { dtype: "int32" }).div(2).tolist(), [1.5]);
  assertEquals(tensor([true]).add(1).dtype, "int64");
});

test("arange(), linspace() and eye() follow PyTorch's end rules", () => {
  assertEquals(arange(5).tolist(), [0, 1, 2, 3, 4]);
  assertEquals(arange(5, 0, -2).tolist(), [5, 3, 1]);
  assertEquals(arange(0).shape, [0]);
  assertEquals(linspace(0, 1, 5).tolist(), [0, 0.25, 0.5, 0.75, 1]);
  assertEquals(linspace(3, 9, 1).tolist(), [3]);
  assertEquals(eye(2, 3).tolist(), [[1, 0, 0], [0, 1, 0]]);
  assertThrows(() => arange(0, 5, -1), RangeError, "does not lead");
  assertThrows(() => arange(0, Infinity), RangeError, "finite");
  assertThrows(() => linspace(0, 1, -1), RangeError);
});

test("views share memory; reshape() of what cannot be a view copies", () => {
  const x = arange(6).reshape([2, 3]), t = x.T;
  assert(x.view([3, 2]).storage === x.storage);
  assertThrows(() => t.view([6]), ShapeError, "use reshape()");
  const copied = t.reshape([6]);
  assert(copied.storage !== x.storage);
  x.fill_(7);
  assertEquals(t.tolist(), [[7, 7], [7, 7], [7, 7]]);
  assertEquals(copied.tolist(), [0, 3, 1, 4, 2, 5]);
});

test("channelsLast() changes the memory order and nothing else", () => {
  const x = arange(24).reshape([1, 2, 3, 4]), y = x.channelsLast();
  assertEquals(y.strides, [24, 1, 8, 2]);
  assert(y.equal(x));
  assertEquals(y.add(1).strides, y.strides);
  assert(y.contiguous().isContiguous());
});

test("item() takes one element, iteration goes over axis 0", () => {
  assertThrows(() => ones([2]).item(), ShapeError, "item: takes a tensor with one element, got [2]");
  assertEquals([...arange(4).reshape([2, 2])].map((row) => row.tolist()), [[0, 1], [2, 3]]);
  assertThrows(() => [...tensor(1)], ShapeError);
});

test("toString() aligns, abbreviates and names what is not the default", () => {
  assertEquals(`${tensor([[1, 2.5], [-3, 4]])}`, "tensor([[ 1.0000,  2.5000],\n        [-3.0000,  4.0000]])");
  assertEquals(`${tensor([1, 2])}`, "tensor([1., 2.])");
  assertEquals(`${tensor([true, false])}`, "tensor([ true, false])");
  assertEquals(`${tensor([1], { dtype: "float64", requiresGrad: true })}`, "tensor([1.], dtype=float64, requiresGrad=true)");
  assertEquals(`${arange(2000)}`, "tensor([   0,    1,    2, ..., 1997, 1998, 1999])");
  assertEquals(`${tensor([1e-7, 1])}`, "tensor([1.0000e-07, 1.0000e+00])");
  assertEquals(`${tensor([NaN, Infinity, -Infinity])}`, "tensor([ nan,  inf, -inf])");
  assertEquals(`${tensor(3)}`, "tensor(3.)");
});

test("conversions saturate nothing silently: NaN to an integer is 0, fractions are cut", () => {
  assertEquals(tensor([1.9, -1.9, NaN]).to("int32").tolist(), [1, -1, 0]);
  assertEquals(tensor([65504, 1e6]).half().tolist(), [65504, Infinity]);
  assertEquals(tensor([0, 2]).bool().tolist(), [false, true]);
});

test("the functions that take another tensor's shape take its dtype and memory order", () => {
  const x = ones([1, 2, 3, 4], { dtype: "float64" }).channelsLast();
  for (const y of [emptyLike(x), zerosLike(x), onesLike(x), fullLike(x, 7)]) {
    assertEquals([y.shape, y.dtype, y.strides], [x.shape, "float64", x.strides]);
  }
  assertEquals([zerosLike(x), onesLike(x), fullLike(x, 7)].map((y) => y.sum().item()), [0, 24, 168]);
  assertEquals(onesLike(x, { dtype: "int32" }).dtype, "int32");
});

test("defaults of dtype and device hold for new tensors", () => {
  assertEquals(getDefaultDType(), "float32");
  try {
    setDefaultDType("float64");
    assertEquals(ones([1]).dtype, "float64");
    assertEquals(tensor([1], { dtype: "int32" }).mul(0.5).dtype, "float64");
  } finally {
    setDefaultDType("float32");
  }
  assertThrows(() => setDefaultDType("int32"), DTypeError, "takes a floating point dtype");
  assertEquals(`${defaultDevice()}`, "cpu");
  try {
    setDefaultDevice("cuda:1");
    assertEquals(`${defaultDevice()}`, "cuda:1");
  } finally {
    setDefaultDevice("cpu");
  }
  assert(device("cuda") === device("cuda:0"));
});

test("promoteTypes(), isFloatingPoint() and inferenceMode()", () => {
  assertEquals(promoteTypes("uint8", "int32"), "int32");
  assertEquals([isFloatingPoint("bool"), isFloatingPoint(ones([1]))], [false, true]);
  const x = ones([1]).requiresGrad_();
  assert(!inferenceMode(() => x.mul(2)).requiresGrad);
});

test("argwhere() lists the positions of what is not 0, row-major", () => {
  assertEquals(argwhere(tensor([[0, 2], [3, 0]])).tolist(), [[0, 1], [1, 0]]);
  assertEquals(argwhere(zeros([2, 2])).shape, [0, 2]);
});
