import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import * as dg from "../mod.ts";
import { gradcheck, scope, setThreads, ShapeError, Tensor, tensor } from "../mod.ts";
import { assertThrows } from "./device.ts";

/** Numbers without pattern in (-1, 1). */
function noise(count: number, seed = 1): Float64Array<ArrayBuffer> {
  const out = new Float64Array(count);
  let state = seed * 2654435761 >>> 0;
  for (let i = 0; i < count; i++) {
    state ^= state << 13, state ^= state >>> 17, state ^= state << 5; // low bits without a period, for roundings not to lean one way
    out[i] = (state >>> 0) / 2 ** 31 - 1;
  }
  return out;
}

const permutations = [[0, 1, 2, 3], [0, 2, 3, 1], [3, 1, 0, 2], [1, 0, 3, 2]];
const axisSets = [[0], [1], [3], [0, 2], [0, 2, 3], [1, 2, 3], [0, 1, 2, 3], [1, 3]];

/** Every reduction of `x` (any layout) by plain loops in float64. */
function reference(x: Tensor, axes: number[], start: number, step: (total: number, value: number) => number): number[] {
  const values = x.data(), shape = x.shape, out = shape.map((size, i) => axes.includes(i) ? 1 : size);
  const totals = new Array<number>(out.reduce((a, b) => a * b, 1)).fill(start);
  for (let i = 0; i < values.length; i++) {
    let rest = i, at = 0, scale = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const index = rest % shape[axis];
      rest = Math.floor(rest / shape[axis]);
      if (!axes.includes(axis)) {
        at += index * scale;
        scale *= shape[axis];
      }
    }
    totals[at] = step(totals[at], Number(values[i]));
  }
  return totals;
}

Deno.test("sum(), amax() and countNonzero() agree with plain loops for every layout, axes and dtype", () => {
  const sizes = [5, 67, 3, 9];
  for (const dtype of ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"] as const) {
    scope(() => {
      const base = tensor(noise(5 * 67 * 3 * 9)).mul(3).add(dtype === "uint8" ? 4 : 0).round().to(dtype);
      for (const order of permutations) {
        const inverse = order.map((_, i) => order.indexOf(i));
        const x = base.reshape(order.map((axis) => sizes[axis])).permute(inverse);
        assertEquals(x.shape, sizes);
        for (const axes of axisSets) {
          const exact = dtype !== "bfloat16" && dtype !== "float16";
          const total = x.sum(axes, { keepdim: true }), expected = reference(x, axes, 0, (a, b) => a + b);
          if (exact) assertEquals(Array.from(total.data(), Number), expected, `${dtype} ${order} ${axes}`);
          const largest = Array.from(x.amax(axes).data(), Number);
          assertEquals(largest, reference(x, axes, -Infinity, Math.max));
          assertEquals(Array.from(x.countNonzero(axes).data(), Number), reference(x, axes, 0, (a, b) => a + (b !== 0 ? 1 : 0)));
        }
      }
    });
  }
});

Deno.test("sum() of strided and expanded views", () => {
  scope(() => {
    const x = tensor(noise(24 * 30)).reshape([24, 30]);
    const view = x.slice(0, 1, null, 3).slice(1, 0, null, 2);
    for (const axes of [[0], [1], [0, 1]]) {
      Array.from(view.sum(axes).data(), Number).forEach((v, i) =>
        assertAlmostEquals(v, reference(view, axes, 0, (a, b) => a + b)[i], 1e-12)
      );
    }
    assertEquals(tensor([1, 2, 3]).unsqueeze(0).expand([4, 3]).sum(0).tolist(), [4, 8, 12]);
    assertEquals(tensor([1, 2, 3]).unsqueeze(1).expand([3, 4]).sum(1).tolist(), [4, 8, 12]);
  });
});

Deno.test("sum() of float32 stays accurate over 16 million elements", () => {
  scope(() => {
    const x = dg.full([1 << 24], 0.1);
    const expected = Math.fround(0.1) * 2 ** 24;
    assertAlmostEquals(x.sum().item(), expected, expected * 1e-6);
    assertAlmostEquals(x.reshape([1 << 20, 16]).sum(0).select(0, 0).item(), expected / 16, expected / 16 * 1e-6);
    assertAlmostEquals(x.reshape([1 << 22, 4]).sum(0).select(0, 0).item(), expected / 4, expected / 4 * 1e-6);
  });
});

Deno.test("reductions over the rows of a matrix agree with plain loops for every number of columns", () => {
  const check = (rows: number, columns: number, dtype: "float32" | "float64", values: Float64Array<ArrayBuffer>) =>
    scope(() => {
      const x = tensor(values.subarray(0, rows * columns)).reshape([rows, columns]).to(dtype),
        exact = x.to("float64").data() as Float64Array;
      const sum = new Float64Array(columns), squares = new Float64Array(columns), top = new Float64Array(columns).fill(-Infinity);
      for (let i = 0; i < exact.length; i++) sum[i % columns] += exact[i], top[i % columns] = Math.max(top[i % columns], exact[i]);
      for (let i = 0; i < exact.length; i++) squares[i % columns] += (exact[i] - sum[i % columns] / rows) ** 2;
      const [sums, tops, variances, norms] = [x.sum(0), x.amax(0), x.var(0, { correction: 0 }), x.norm(2, 0)].map((it) => it.data());
      const near = dtype === "float32" ? 1e-6 : 1e-14;
      for (let c = 0; c < columns; c++) {
        const at = `column ${c} of ${rows} x ${columns} in ${dtype}`;
        assert(Math.abs(Number(sums[c]) - sum[c]) <= near * 4 * Math.sqrt(rows) + near * Math.abs(sum[c]), `sum: ${at}`);
        assertEquals(Number(tops[c]), top[c], at);
        assertAlmostEquals(Number(variances[c]), squares[c] / rows, near * 4, `var: ${at}`);
        const norm = Math.sqrt(squares[c] + sum[c] ** 2 / rows);
        assertAlmostEquals(Number(norms[c]), norm, near * 4 * norm, `norm: ${at}`);
      }
    });
  const few = noise(3100 * 300);
  for (const columns of [2, 3, 5, 7, 10, 13, 16, 24, 33, 48, 64, 80, 112, 128, 144, 256, 300]) {
    for (const rows of [2, 33, 1023, 3100]) {
      check(rows, columns, "float32", few);
      check(rows, columns, "float64", few);
    }
  }
  const many = noise((1 << 22) + 5000); // more than the caches hold
  for (const columns of [10, 32, 200]) check(Math.floor(many.length / columns), columns, "float32", many);
});

Deno.test("reductions give the same bits with 1 and 2 threads", () => {
  scope(() => {
    const x = tensor(noise(1 << 22)).to("float32");
    const results = (): Uint8Array =>
      scope(() => {
        const shapes = [[1 << 20], [1 << 14, 64], [1 << 17, 8], [64, 1 << 14], [3, 4096, 85], [1 << 17, 32]];
        const parts = shapes.flatMap((shape) => {
          const y = x.narrow(0, 0, shape.reduce((a, b) => a * b)).reshape(shape);
          return shape.flatMap((_, axis) => [y.sum(axis), y.var(axis), y.norm(2, axis), y.prod(axis), y.max(axis).values, y.cumsum(axis)])
            .map((r) => r.reshape([-1]));
        });
        return new Uint8Array(dg.cat(parts).data().buffer);
      });
    const threads = dg.getThreads();
    const all = results();
    setThreads(1);
    const one = results();
    setThreads(threads);
    assertEquals(one, all);
  });
});

Deno.test("reductions of nothing", () => {
  scope(() => {
    const x = dg.zeros([0, 3]);
    assertEquals(x.sum().item(), 0);
    assertEquals(x.sum(0).tolist(), [0, 0, 0]);
    assertEquals(x.prod(0).tolist(), [1, 1, 1]);
    assertEquals(x.mean(0).tolist(), [NaN, NaN, NaN]);
    assertEquals(x.var(0).tolist(), [NaN, NaN, NaN]);
    assertEquals(x.norm(2, 0).tolist(), [0, 0, 0]);
    assertEquals([x.any().item(), x.all().item()], [0, 1]);
    assertEquals(x.sum(1).shape, [0]);
    assertEquals(x.amax(1).shape, [0]);
    assertEquals(x.max(1).values.shape, [0]);
    assertEquals(x.cumsum(0).shape, [0, 3]);
    assertThrows(() => x.max(), ShapeError, "no elements");
    assertThrows(() => x.amin(0), ShapeError, "no elements");
    assertThrows(() => x.max(0), ShapeError, "no elements");
    assertThrows(() => x.argmax(), ShapeError, "no elements");
    assertThrows(() => x.argmin(0), ShapeError, "no elements");
  });
});

Deno.test("max(), min(), argmax() and amax() pass NaN on and find the first of equal elements", () => {
  scope(() => {
    const x = tensor([[1, NaN, 3, NaN], [2, 7, 7, 0], [-1, -1, -5, -5]]);
    assertEquals(x.amax(1).tolist(), [NaN, 7, -1]);
    assertEquals(x.amin(1).tolist(), [NaN, 0, -5]);
    assertEquals(x.max(1).indices.tolist(), [1, 1, 0]);
    assertEquals(x.min(1).indices.tolist(), [1, 3, 2]);
    assertEquals(x.argmax(0).tolist(), [1, 0, 1, 0]);
    assertEquals(x.argmax().item(), 1);
    assertEquals(x.T.argmin(0, { keepdim: true }).tolist(), [[1, 3, 2]]);
    assertEquals(tensor(3).argmax().item(), 0);
    const long = tensor(noise(200000)).to("float32");
    const values = Array.from(long.data(), Number);
    assertEquals(long.argmax().item(), values.indexOf(values.reduce((a, b) => Math.max(a, b))));
    // Columns side by side, wide and NaN among them.
    const wide = tensor(noise(40 * 300)).reshape([40, 300]);
    wide.select(1, 7).narrow(0, 5, 2).fill_(NaN);
    const flat = wide.data(), { values: best, indices } = wide.max(0);
    for (let c = 0; c < 300; c++) {
      let at = 0;
      for (let r = 1; r < 40; r++) {
        const v = Number(flat[r * 300 + c]), b = Number(flat[at * 300 + c]);
        if (v > b || (Number.isNaN(v) && !Number.isNaN(b))) at = r;
      }
      assertEquals(indices.select(0, c).item(), at);
      assertEquals(best.select(0, c).item(), Number(flat[at * 300 + c]));
    }
  });
});

Deno.test("amax() shares the gradient among equal elements, max(dim) sends it to the one it names", () => {
  scope(() => {
    const x = tensor([[3, 1, 3], [0, 0, 0]], { requiresGrad: true });
    x.amax(1).sum().backward();
    assertEquals(x.grad!.tolist(), [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3].map(Math.fround)]);
    x.grad = null;
    x.max(1).values.mul(tensor([2, 5])).sum().backward();
    assertEquals(x.grad!.tolist(), [[2, 0, 0], [5, 0, 0]]);
    x.grad = null;
    x.min().backward();
    assertEquals(x.grad!.tolist(), [[0, 0, 0], [1 / 3, 1 / 3, 1 / 3].map(Math.fround)]);
    x.grad = null;
    x.norm(2, 1).sum().backward();
    assertEquals((x.grad!.tolist() as number[][])[1], [0, 0, 0]);
    x.grad = null;
  });
});

Deno.test("prod() and cumprod() differentiate through zeros", () => {
  scope(() => {
    for (const zeros of [[], [2], [1, 3]]) {
      const values = Array.from(noise(10, 3), (v, i) => zeros.includes(i) ? 0 : v);
      const x = tensor(values, { dtype: "float64", requiresGrad: true });
      gradcheck((x) => x.prod(), [x]);
      gradcheck((x) => x.reshape([2, 5]).prod(1, { keepdim: true }), [x]);
      gradcheck((x) => x.cumprod(0), [x]);
      gradcheck((x) => x.reshape([5, 2]).cumprod(0), [x]);
    }
  });
});

Deno.test("derivatives of reductions", () => {
  scope(() => {
    const x = tensor(noise(24, 5), { requiresGrad: true });
    for (const dim of [null, 0, [0, 2]]) {
      const y = (x: Tensor) => x.reshape([2, 3, 4]);
      gradcheck((x) => y(x).mean(dim), [x]);
      gradcheck((x) => y(x).var(dim, { correction: 1 }), [x]);
      gradcheck((x) => y(x).std(dim, { correction: 0, keepdim: true }), [x]);
      gradcheck((x) => {
        const { var: v, mean } = dg.varMean(y(x), dim);
        return [v, mean];
      }, [x]);
      for (const p of [1, 2, 3, 1.5, Infinity, -Infinity]) gradcheck((x) => y(x).norm(p, dim), [x]);
      gradcheck((x) => y(x).nansum(dim), [x]);
      gradcheck((x) => y(x).amax(dim), [x]);
    }
    gradcheck((x) => x.reshape([2, 3, 4]).max(1).values, [x]);
    gradcheck((x) => x.reshape([2, 3, 4]).cumsum(1), [x]);
    const slope = (f: () => Tensor, x: Tensor) => dg.enableGrad(() => dg.grad(f(), [x], { createGraph: true })[0]!);
    gradcheck((x) => slope(() => x.reshape([4, 6]).var(1).sum(), x), [x]);
    gradcheck((x) => slope(() => x.norm().pow(3), x), [x]);
    gradcheck((x) => slope(() => x.reshape([4, 6]).prod(1).sum(), x), [x]);
  });
});

Deno.test("var() keeps its accuracy far from 0 and norm() its orders", () => {
  scope(() => {
    const x = tensor(noise(100000)).to("float32").add(10000);
    const values = Array.from(x.data(), Number), mean = values.reduce((a, b) => a + b) / values.length;
    const exact = values.reduce((a, b) => a + (b - mean) ** 2, 0) / (values.length - 1);
    assertAlmostEquals(x.var().item(), exact, exact * 1e-5);
    assertAlmostEquals(x.reshape([1000, 100]).var(0, { correction: 0 }).mean().item(), exact, exact * 0.05);
    assertEquals(tensor([3, -4, 0]).norm(0).item(), 2);
    assertEquals(tensor([3, -4, 0]).norm(-Infinity).item(), 0);
    assertEquals(tensor([1]).var().item(), NaN);
  });
});

Deno.test("integers and half types accumulate wider", () => {
  scope(() => {
    const many = dg.full([100000], 200, { dtype: "uint8" });
    assertEquals([many.sum().item(), many.sum().dtype], [20000000, "int64"]);
    assertEquals(dg.full([20], 10, { dtype: "int32" }).prod().dtype, "int64");
    assertEquals(dg.ones([4096], { dtype: "bfloat16" }).sum().item(), 4096);
    assertEquals(dg.full([40000], 2, { dtype: "float16" }).mean().item(), 2);
    assertEquals(tensor([3, 1, 2], { dtype: "uint8" }).max().dtype, "uint8");
    assertEquals(tensor([true, true]).cumsum(0).tolist(), [1, 2]);
    assertEquals(tensor([2 ** 53, 1, 1], { dtype: "int64" }).sum().data()[0], 2n ** 53n + 2n);
    assertThrows(() => tensor([1], { dtype: "int32" }).mean(), dg.DTypeError, "floating point");
    assertThrows(() => tensor([1]).sum(1), RangeError, "dim 1");
    assert(tensor([0, NaN]).any().item() === 1 && tensor([0, 1]).all().item() === 0);
  });
});

Deno.test("reductions refuse broadcast inputs that they could not finish reading", () => {
  scope(() => {
    const endless = dg.ones([1]).expand([2 ** 40]);
    for (
      const reduce of [
        () => endless.sum(),
        () => endless.argmax(0),
        () => endless.topk(1),
        () => endless.var(),
        () => dg.histc(endless, 3, 0, 1),
      ]
    ) {
      assertThrows(reduce, ShapeError, "too large to read one by one");
    }
  });
});
