// Attention: fused against composed, masks, rows without keys, half types, threads, second derivatives, memory.
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  type AttentionOptions,
  type DType,
  getThreads,
  grad,
  gradcheck,
  manualSeed,
  memory,
  ones,
  rand,
  randn,
  scaledDotProductAttention,
  setThreads,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { composedAttention, packedAttention } from "../ops/mod.ts";
import { device } from "./device.ts";
import { test as leavesNothing } from "./leaks.ts";

const test = (name: string, fn: () => void) =>
  leavesNothing(`${name} [${device}]`, () => {
    manualSeed(7);
    fn();
  });

function close(a: Tensor, b: Tensor, tolerance: number, what: string): void {
  assertEquals(a.shape, b.shape, what);
  const x = a.data(), y = b.data();
  x.forEach((v: number | bigint, i: number) =>
    assertAlmostEquals(Number(v), Number(y[i]), tolerance * Math.max(1, Math.abs(Number(y[i]))), `${what}[${i}]`)
  );
}

const draw = (shape: number[], dtype: DType = "float64") => randn(shape, { dtype }).requiresGrad_();

/** Fused and composed form with all their gradients. */
function compare(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions, what: string, tolerance = 1e-12): void {
  const y = scaledDotProductAttention(q, k, v, options), want = composedAttention(q, k, v, options).output;
  close(y, want, tolerance, what);
  const weights = randn(y.shape, { dtype: y.dtype }), inputs = [q, k, v];
  const expected = grad(want.mul(weights).sum(), inputs);
  grad(y.mul(weights).sum(), inputs).forEach((g, i) => close(g!, expected[i]!, 10 * tolerance, `${what}: gradient ${i}`));
}

// [samples, heads, heads of keys, L, S, E, Ev]: around the sizes of blocks and tiles, long, narrow, few heads (whose keys are shared out).
const sizes: number[][] = [
  [1, 1, 1, 1, 1, 1, 1],
  [2, 3, 3, 5, 7, 4, 6],
  [1, 2, 2, 57, 127, 15, 33],
  [1, 2, 1, 56, 129, 64, 16],
  [1, 1, 1, 3, 300, 5, 65],
  [2, 2, 1, 70, 2, 33, 31],
];
if (device.type === "cpu") sizes.push([1, 1, 1, 600, 700, 32, 48], [1, 40, 40, 12, 130, 8, 8]);

test("scaledDotProductAttention() equals the composed form around the sizes of blocks, with every kind of mask", () => {
  for (const [n, heads, groups, l, s, e, ev] of sizes) {
    const q = draw([n, heads, l, e]), k = draw([n, groups, s, e]), v = draw([n, groups, s, ev]);
    const options: Record<string, AttentionOptions> = {
      plain: {},
      causal: { isCausal: true, scale: 0.7 },
      bool: { attnMask: rand([l, s], { dtype: "float64" }).gt(0.4) },
      padding: { attnMask: rand([n, 1, 1, s], { dtype: "float64" }).gt(0.4) },
      bias: { attnMask: randn([heads, l, s], { dtype: "float64" }) },
      "bias of each key": { attnMask: randn([s], { dtype: "float32" }) },
    };
    for (const [kind, it] of Object.entries(options)) {
      compare(q, k, v, { ...it, enableGqa: true }, `${[n, heads, groups, l, s, e, ev]} ${kind}`);
    }
  }
});

test("scaledDotProductAttention() takes any strides and broadcasts leading axes", () => {
  const packed = randn([2, 6, 3, 2, 5], { dtype: "float64" }); // [N, L, 3, H, E] as one product makes it
  const [q, k, v] = [0, 1, 2].map((i) => packed.select(2, i).transpose(1, 2).requiresGrad_());
  compare(q, k, v, {}, "slices of one tensor");
  assert(scaledDotProductAttention(q, k, v).transpose(1, 2).isContiguous(), "the output lies in memory as the query");
  const every = (x: Tensor) => x.detach().unsqueeze(-1).expand([...x.shape, 2]).contiguous().select(-1, 0).requiresGrad_();
  compare(every(q), every(k), every(v), { isCausal: true }, "every second element");
  compare(draw([4, 2]), draw([3, 1, 5, 2]), draw([2, 5, 3]), {}, "leading axes of different number");
  compare(draw([2, 2, 2, 2, 3, 2]), draw([2, 1, 2, 4, 2]), draw([1, 4, 3]), {}, "six axes");
  const one = draw([1, 1, 4]);
  compare(one.expand([2, 3, 4]), one.expand([2, 5, 4]), draw([5, 2]), {}, "expanded inputs");
});

test("scaledDotProductAttention() gives 0, and no gradient, where a query sees no key", () => {
  for (const length of [2, 200]) {
    const q = draw([3, 4]), k = draw([length, 4]), v = draw([length, 2]);
    const mask = ones([3, length], { dtype: "bool" });
    mask.select(0, 1).fill_(0);
    for (const attnMask of [mask, zeros([3, length], { dtype: "float64" }).maskedFill(mask.logicalNot(), -Infinity)]) {
      const y = scaledDotProductAttention(q, k, v, { attnMask });
      assertEquals(y.select(0, 1).tolist(), [0, 0]);
      const [dq, dk] = grad(y.sum(), [q, k]);
      assertEquals(dq!.select(0, 1).tolist(), [0, 0, 0, 0]);
      assert([...dk!.data()].every((x) => Number.isFinite(x)), "finite gradients of the keys");
      compare(q, k, v, { attnMask }, "a row without keys");
    }
  }
});

test("scaledDotProductAttention() passes infinities and NaN on to their rows alone", () => {
  const q = tensor([[1, 0], [NaN, 0], [0, 1]]), k = tensor([[1, 0], [0, 1]]), v = tensor([[1], [3]]);
  const y = scaledDotProductAttention(q, k, v);
  assertEquals([...y.isnan().data()].map(Number), [0, 1, 0]);
  const far = scaledDotProductAttention(tensor([[1e4]]), tensor([[1e4], [-1e4]]), tensor([[2], [5]]));
  assertEquals(far.tolist(), [[2]]); // no overflow
});

test("scaledDotProductAttention() of half types sums in float32", () => {
  for (const dtype of ["float16", "bfloat16"] as const) {
    const [q, k, v] = [draw([2, 33, 16], "float32"), draw([2, 150, 16], "float32"), draw([2, 150, 8], "float32")].map((x) =>
      x.detach().to(dtype).requiresGrad_()
    );
    const wide = [q, k, v].map((x) => x.detach().float().requiresGrad_());
    const y = scaledDotProductAttention(q, k, v), want = scaledDotProductAttention(wide[0], wide[1], wide[2]);
    assertEquals(y.dtype, dtype);
    const tolerance = dtype === "float16" ? 1e-3 : 8e-3;
    close(y.float(), want, tolerance, dtype);
    const expected = grad(want.sum(), wide);
    grad(y.float().sum(), [q, k, v]).forEach((g, i) => close(g!.float(), expected[i]!, 2 * tolerance, `${dtype}: gradient ${i}`));
    compare(q, k, v, { attnMask: randn([33, 150], { dtype }) }, `${dtype} with a mask`, dtype === "float16" ? 1e-2 : 5e-2);
  }
});

test("scaledDotProductAttention() passes gradcheck twice", () => {
  const inputs = [draw([2, 2, 3, 2]), draw([2, 1, 4, 2]), draw([2, 1, 4, 3])];
  const mask = tensor([[true, true, false, true], [false, false, false, false], [true, false, true, true]]);
  for (const options of [{}, { isCausal: true }, { attnMask: mask }]) {
    const f = (q: Tensor, k: Tensor, v: Tensor) => scaledDotProductAttention(q, k, v, { ...options, enableGqa: true });
    const second = (...all: Tensor[]) => {
      const y = f(all[0], all[1], all[2]);
      return grad(y.mul(y).mul(y).sum(), all, { createGraph: true }) as Tensor[];
    };
    gradcheck((...all) => f(all[0], all[1], all[2]), inputs);
    gradcheck(second, inputs);
  }
});

test("scaledDotProductAttention() makes only the gradients that are wanted", () => {
  const all = [draw([2, 5, 4]), draw([2, 140, 4]), draw([2, 140, 3])];
  const expected = grad(scaledDotProductAttention(all[0], all[1], all[2]).sum(), all);
  all.forEach((_, i) => {
    const inputs = all.map((x, j) => i === j ? x : x.detach());
    close(grad(scaledDotProductAttention(inputs[0], inputs[1], inputs[2]).sum(), [inputs[i]])[0]!, expected[i]!, 1e-13, `input ${i} alone`);
  });
});

test("scaledDotProductAttention() drops weights and scales the others", () => {
  const wide = { dtype: "float64" } as const;
  const q = zeros([1, 2000], wide).transpose(0, 1), k = zeros([4, 1], wide), v = ones([4, 1], wide).requiresGrad_();
  const y = scaledDotProductAttention(q, k, v, { dropoutP: 0.25 });
  const values = new Set([...y.data()].map((x) => Math.round(Number(x) * 1e4)));
  assert([...values].every((x) => [0, 3333, 6667, 10000, 13333].includes(x)), `${[...values]}`);
  assertAlmostEquals(y.mean().item(), 1, 0.05);
  y.sum().backward();
  assertAlmostEquals(v.grad!.sum().item(), y.detach().sum().item(), 1e-9);
  v.grad!.dispose();
  assertEquals(scaledDotProductAttention(q, k, v, { dropoutP: 1 }).sum().item(), 0);
});

test("packedAttention() equals attention of its parts, batch first or not, twice differentiable", () => {
  for (const batchFirst of [true, false]) {
    const packed = draw([2, 4, 3 * 2 * 3]), mask = tensor([[true, false, true, true], [true, true, true, true]]);
    const length = batchFirst ? 4 : 2, attnMask = batchFirst ? mask.view([2, 1, 1, 4]) : mask.transpose(0, 1).view([4, 1, 1, 2]);
    const parts = (x: Tensor) => {
      const [q, k, v] = [0, 1, 2].map((i) => {
        const part = x.view([2, 4, 3, 2, 3]).select(2, i);
        return batchFirst ? part.transpose(1, 2) : part.permute([1, 2, 0, 3]);
      });
      const y = composedAttention(q, k, v, { attnMask }).output;
      return (batchFirst ? y.transpose(1, 2) : y.permute([2, 0, 1, 3])).reshape([2, 4, 6]);
    };
    const fused = (x: Tensor) => packedAttention(x, 2, { batchFirst, attnMask });
    const y = fused(packed), want = parts(packed), weights = randn(y.shape, { dtype: "float64" });
    close(y, want, 1e-12, `length ${length}`);
    close(grad(y.mul(weights).sum(), [packed])[0]!, grad(want.mul(weights).sum(), [packed])[0]!, 1e-12, "gradient");
    gradcheck((x) => {
      const y = fused(x);
      return grad(y.mul(y).sum(), [x], { createGraph: true })[0]!;
    }, [packed]);
  }
});

if (device.type === "cpu") {
  test("scaledDotProductAttention() does not depend on the number of threads", () => {
    const threads = getThreads();
    for (const shape of [[2, 8, 100, 16], [1, 1, 700, 24]]) {
      const inputs = [0, 1, 2].map(() => draw(shape, "float32"));
      const all = (count: number) => {
        setThreads(count);
        const y = scaledDotProductAttention(inputs[0], inputs[1], inputs[2], { isCausal: true });
        return [y, ...grad(y.mul(y).sum(), inputs)].map((x) => x!.data());
      };
      try {
        assertEquals(all(2), all(1));
      } finally {
        setThreads(threads);
      }
    }
  });

  test("scaledDotProductAttention() keeps no matrix of all scores", () => {
    const inputs = [0, 1, 2].map(() => draw([1, 3000, 8], "float32"));
    memory.releaseCache();
    memory.resetPeak();
    const before = memory.stats().bytes;
    const y = scaledDotProductAttention(inputs[0], inputs[1], inputs[2]);
    grad(y.sum(), inputs);
    const peak = memory.stats().peakBytes - before;
    assert(peak < 3000 * 3000 * 4 / 2, `${peak} bytes more at the peak`);
  });
}
