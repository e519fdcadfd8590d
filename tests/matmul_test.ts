import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  bmm,
  type DType,
  getThreads,
  grad,
  linear,
  matmul,
  memory,
  mm,
  ones,
  randn,
  scope,
  setThreads,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { device } from "./device.ts";
import { test } from "./leaks.ts";

/** The product summed in float64 by plain loops. */
function reference(a: Tensor, b: Tensor): Float64Array {
  const [m, k] = a.shape, n = b.shape[1], p = a.double().data(), q = b.double().data(), out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let l = 0; l < k; l++) {
      for (let j = 0; j < n; j++) out[i * n + j] += Number(p[i * k + l]) * Number(q[l * n + j]);
    }
  }
  return out;
}

/** Rows, columns and terms around the kernel's tiles, panels and blocks; long sums; vectors. */
const sizes = [[1, 1, 1], [14, 32, 7], [15, 33, 300], [29, 64, 64], [61, 130, 600], [300, 20, 260], [5, 7, 5000], [1, 1, 9000], [
  1,
  100,
  777,
], [
  100,
  1,
  777,
], [2, 1100, 40]];

for (const dtype of ["float32", "float64", "float16", "bfloat16"] as DType[]) {
  test(`mm() equals plain loops for every layout of operands and result in ${dtype}`, () => {
    const tolerance = { float32: 1e-6, float64: 4e-15, float16: 1e-3, bfloat16: 8e-3 }[dtype as "float32"];
    for (const [m, n, k] of sizes) {
      const a = randn([m, k], { dtype }), b = randn([k, n], { dtype }), want = reference(a, b);
      const scale = tolerance * Math.sqrt(k) * 4;
      for (const p of [a, a.T.contiguous().T, a.unsqueeze(-1).expand([m, k, 2]).contiguous().select(2, 1)]) {
        for (const q of [b, b.T.contiguous().T]) {
          for (const y of [mm(p, q), mm(q.T, p.T).T]) {
            const got = y.data();
            for (let i = 0; i < want.length; i++) {
              const error = Math.abs(Number(got[i]) - want[i]);
              assert(error <= scale + tolerance * Math.abs(want[i]), `[${m}, ${k}] @ [${k}, ${n}], element ${i}: off by ${error}`);
            }
          }
        }
      }
    }
  });
}

test("matmul() does not depend on the number of threads", () => {
  const threads = getThreads();
  const cases: (() => Tensor)[] = [];
  for (const dtype of ["float32", "float64", "bfloat16"] as DType[]) {
    for (const [a, b] of [[[200, 300], [300, 520]], [[8, 9000], [9000, 9]], [[1, 2000], [2000, 900]], [[40, 33, 17], [40, 17, 40]]]) {
      const x = randn(a, { dtype }), y = randn(b, { dtype });
      cases.push(() => matmul(x, y));
    }
  }
  const all = cases.map((run) => run().data());
  setThreads(1);
  const one = cases.map((run) => run().data());
  setThreads(threads);
  assertEquals(one, all);
});

test("matmul() is exact in integers and wraps around", () => {
  assertEquals(mm(tensor([[2 ** 40, 3]], { dtype: "int64" }), tensor([[5], [7]], { dtype: "int64" })).item(), 5 * 2 ** 40 + 21);
  assertEquals(mm(ones([1, 300], { dtype: "uint8" }), ones([300, 1], { dtype: "uint8" })).item(), 300 % 256);
  assertEquals(mm(tensor([[65536]], { dtype: "int32" }), tensor([[65536]], { dtype: "int32" })).item(), 0);
  assertEquals(bmm(ones([2, 70, 3], { dtype: "int32" }), ones([2, 3, 70], { dtype: "int32" })).eq(3).logicalNot().any().item(), 0);
});

test("matmul() sums half precision in float32", () => {
  assertEquals(matmul(ones([4096], { dtype: "float16" }), ones([4096], { dtype: "float16" })).item(), 4096); // float16 stops at 2048
  assertEquals(mm(ones([3, 700], { dtype: "bfloat16" }), ones([700, 2], { dtype: "bfloat16" })).tolist(), [[700, 700], [700, 700], [
    700,
    700,
  ]]);
});

test("matmul() keeps infinities in their rows and columns", () => {
  const a = ones([15, 5]);
  a.select(0, 3).fill_(Infinity);
  const y = mm(a, ones([5, 33]));
  assertEquals(y.isinf().sum().item(), 33);
  assertEquals(y.isnan().any().item(), 0);
  assertEquals(mm(tensor([[Infinity]]), tensor([[0]])).isnan().item(), 1);
});

test("matmul() takes a shared matrix without copying it and sums its gradient over the batch", () => {
  const x = randn([6, 3, 4], { dtype: "float64" }), w = randn([4, 2], { dtype: "float64" }).requiresGrad_();
  const shared = bmm(x, w.unsqueeze(0).expand([6, 4, 2]));
  assertEquals(shared.tolist(), matmul(x, w).tolist());
  const [dw] = grad(shared.sum(), [w]);
  const want = x.sum([0, 1]);
  for (let i = 0; i < 4; i++) assertAlmostEquals(dw!.select(0, i).select(0, 1).item(), want.select(0, i).item(), 1e-12);
});

test("matmul() holds only the operands that backward needs", () => {
  const x = randn([256, 256]), w = randn([256, 256]).requiresGrad_();
  const before = memory.stats(device).bytes;
  const y = scope(() => mm(x.mul(2), w)); // x * 2 is needed for the gradient of w
  assert(memory.stats(device).bytes - before >= 2 * 256 * 256 * 4);
  y.dispose();
  const frozen = w.detach(), input = randn([256, 256]).requiresGrad_();
  const start = memory.stats(device).bytes;
  const z = scope(() => mm(input.mul(2), frozen)); // here only the frozen operand is
  assert(memory.stats(device).bytes - start < 2 * 256 * 256 * 4);
  z.dispose();
});

test("linear() adds the bias before rounding and accepts column slices", () => {
  const x = randn([37, 65], { dtype: "bfloat16" }), w = randn([19, 65], { dtype: "bfloat16" }), b = randn([19], { dtype: "bfloat16" });
  const want = linear(x.float(), w.float(), b.float()).to("bfloat16");
  const off = linear(x, w, b).float().sub(want.float()).abs().sub(want.float().abs().mul(2 ** -7));
  assertEquals(off.gt(1e-6).any().item(), 0);
  const wide = randn([4, 10]), part = wide.narrow(1, 2, 5);
  assertEquals(linear(part, ones([3, 5]), zeros([3])).tolist(), linear(part.contiguous(), ones([3, 5]), zeros([3])).tolist());
});
