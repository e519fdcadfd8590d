import { assertEquals } from "@std/assert";
import { getThreads, scope, setThreads, type Tensor, tensor } from "../mod.ts";
import "./device.ts";

function noise(count: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(count);
  let state = 7;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = Math.round(state / 2 ** 20) / 8 - 256; // many equal elements
  }
  return out;
}

/** Positions in ascending (or descending) order by JavaScript's stable sort. */
function order(values: ArrayLike<number | bigint>, descending: boolean): number[] {
  const sign = descending ? -1 : 1;
  return Array.from(values, (_, i) => i).sort((a, b) => sign * (Number(values[a]) - Number(values[b])));
}

Deno.test("sort() is stable for long rows in every dtype", () => {
  for (const dtype of ["float32", "float64", "float16", "int32", "int64", "uint8"] as const) {
    for (const descending of [false, true]) {
      scope(() => {
        const x = tensor(noise(10007)).to(dtype), { values, indices } = x.sort(0, { descending });
        const want = order(x.data(), descending);
        assertEquals(Array.from(indices.data(), Number), want);
        assertEquals(Array.from(values.data(), Number), want.map((i) => Number(x.data()[i])));
      });
    }
  }
});

Deno.test("sort(), topk() and median() of many rows do not depend on threads or layout", () => {
  scope(() => {
    const x = tensor(noise(64 * 3000)).reshape([64, 3000]);
    const results = (y: Tensor, dim: number) => {
      const all = [y.sort(dim).indices, y.topk(5, dim).indices, y.kthvalue(9, dim).values, y.median(dim).indices];
      return all.map((r) => Array.from((dim === 0 ? r.transpose(0, -1) : r).contiguous().data(), Number));
    };
    const want = results(x, 1), threads = getThreads();
    setThreads(1);
    assertEquals(results(x, 1), want);
    setThreads(threads);
    assertEquals(results(x.T.contiguous(), 0), want);
  });
});

Deno.test("topk() gives the first of equal elements and sort() of NaN puts them last", () => {
  scope(() => {
    assertEquals(tensor([1, 5, 5, 5, 0]).topk(2).indices.tolist(), [1, 2]);
    assertEquals(tensor([1, NaN, 0]).topk(1).indices.tolist(), [1]);
    assertEquals(tensor([NaN, 1, -Infinity, Infinity]).sort(0).indices.tolist(), [2, 1, 3, 0]);
    assertEquals(tensor([0, -0, 0, -0]).sort(0, { descending: true }).indices.tolist(), [0, 1, 2, 3]);
    assertEquals(tensor([NaN, NaN, 1]).unique().counts.tolist(), [1, 1, 1]);
    assertEquals(tensor([]).unique().values.shape, [0]);
    const huge = tensor([2 ** 53, 1], { dtype: "int64" }).add(1).sort(0).values;
    assertEquals(huge.data(), new BigInt64Array([2n, 2n ** 53n + 1n]));
  });
});
