/** Accuracy of the elementary functions of `kernels/common/math.h` against float64, in units in the last place of float32. */
import { assert, assertEquals } from "@std/assert";
import * as dg from "../mod.ts";
import { scope, type Tensor, tensor } from "../mod.ts";
import "./device.ts";

/** Distance in units in the last place of the float32 nearest to `exact`. */
function ulps(actual: number, exact: number): number {
  if (Object.is(actual, exact) || (Number.isNaN(actual) && Number.isNaN(exact))) return 0;
  const rounded = Math.fround(exact);
  if (!Number.isFinite(rounded)) return actual === rounded ? 0 : Infinity;
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.max(Math.abs(rounded), 2 ** -126))));
  return Math.abs(actual - exact) / 2 ** (exponent - 23);
}

/** `count` float32 numbers of both signs, or only positive ones, with exponents spread evenly over `[low, high]`. */
function spread(low: number, high: number, count: number, positive = false): Float32Array<ArrayBuffer> {
  const out = new Float32Array(count);
  let state = 12345;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  for (let i = 0; i < count; i++) {
    const magnitude = 2 ** (low + next() * (high - low));
    out[i] = positive || next() < 0.5 ? magnitude : -magnitude;
  }
  return out;
}

function worst(fn: (x: Tensor) => Tensor, exact: (x: number) => number, values: Float32Array<ArrayBuffer>): [number, number] {
  return scope(() => {
    const y = fn(tensor(values)).data();
    let most = 0, where = 0;
    for (let i = 0; i < values.length; i++) {
      const off = ulps(Number(y[i]), exact(values[i]));
      if (off > most) [most, where] = [off, values[i]];
    }
    return [most, where];
  });
}

const N = 200000;
const cases: [string, (x: Tensor) => Tensor, (x: number) => number, Float32Array<ArrayBuffer>, number][] = [
  ["exp", dg.exp, Math.exp, spread(-30, 6.4, N), 1.5],
  ["exp2", dg.exp2, (x) => 2 ** x, spread(-30, 6.9, N), 2],
  ["expm1", dg.expm1, Math.expm1, spread(-100, 6.4, N), 2],
  ["log", dg.log, Math.log, spread(-149, 127.9, N, true), 2],
  ["log near 1", dg.log, Math.log, spread(-0.5, 0.5, N, true), 2],
  ["log2", dg.log2, Math.log2, spread(-0.7, 0.7, N, true), 3],
  ["log10", dg.log10, Math.log10, spread(-149, 127.9, N, true), 3],
  ["log1p", dg.log1p, Math.log1p, spread(-100, 127.9, N, true), 2],
  ["log1p of negative numbers", dg.log1p, Math.log1p, spread(-100, 0, N, true).map((v) => -v), 2],
  ["sin", dg.sin, Math.sin, spread(-100, 46, N), 2],
  ["cos", dg.cos, Math.cos, spread(-100, 46, N), 2],
  ["tan", dg.tan, Math.tan, spread(-100, 46, N), 3.5],
  ["sin of huge arguments", dg.sin, Math.sin, spread(46, 127.9, 1000), 1],
  ["tanh", dg.tanh, Math.tanh, spread(-149, 5, N), 1.5],
  ["tanh between 2^-4 and 16", dg.tanh, Math.tanh, spread(-4, 4, 5 * N), 1.5],
  ["asin", dg.asin, Math.asin, spread(-100, 0, N), 2.5],
  ["asin near 1/2", dg.asin, Math.asin, spread(-1.5, 0, N), 2.5],
  ["acos", dg.acos, Math.acos, spread(-30, 0, N), 2],
  ["acos near 1", dg.acos, Math.acos, spread(-0.1, 0, N), 2],
  ["atan", dg.atan, Math.atan, spread(-149, 127.9, N), 3],
  ["atan between 1/16 and 16", dg.atan, Math.atan, spread(-4, 4, N), 3],
  ["sinh", dg.sinh, Math.sinh, spread(-149, 6.6, N), 2],
  ["cosh", dg.cosh, Math.cosh, spread(-30, 6.6, N), 2],
  ["asinh", dg.asinh, Math.asinh, spread(-149, 127.9, N), 2],
  ["acosh", dg.acosh, Math.acosh, spread(0, 127.9, N, true), 2],
  ["acosh near 1", dg.acosh, Math.acosh, spread(0, 0.01, N, true), 2.5],
  ["atanh", dg.atanh, Math.atanh, spread(-149, 0, N), 2],
  ["softplus", dg.nn.functional.softplus, (x) => x > 20 ? x : Math.log1p(Math.exp(x)), spread(-20, 6, N), 2],
  ["logSigmoid", dg.nn.functional.logSigmoid, (x) => x < -40 ? x : -Math.log1p(Math.exp(-x)), spread(-20, 6, N), 2],
  ["sqrt", dg.sqrt, Math.sqrt, spread(-149, 127.9, N, true), 0.5],
  ["sigmoid", dg.sigmoid, (x) => 1 / (1 + Math.exp(-x)), spread(-20, 6.3, N), 2.5],
];

for (const [name, fn, exact, values, limit] of cases) {
  Deno.test(`${name}() of float32 is within ${limit} ulp`, () => {
    const [most, where] = worst(fn, exact, values);
    assert(most <= limit, `${most} ulp at ${where}`);
  });
}

Deno.test("pow() of float32 is within 0.6 ulp", () => {
  scope(() => {
    const x = spread(-40, 40, N), y = spread(-6, 3, N), z = dg.pow(tensor(x), tensor(y)).data();
    let most = 0, where = "";
    for (let i = 0; i < N; i++) {
      const off = ulps(Number(z[i]), Math.pow(x[i], y[i]));
      if (off > most) [most, where] = [off, `${x[i]} ** ${y[i]}`];
    }
    assert(most <= 0.6, `${most} ulp at ${where}`);
  });
});

Deno.test("pow() of float32 at its special arguments", () => {
  scope(() => {
    const ends = [0, -0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 1e-40, Infinity, -Infinity, NaN, 16777217, -7.5];
    for (const a of ends) {
      for (const b of ends) {
        const x = Math.fround(a), y = Math.fround(b);
        // C's pow, unlike JavaScript's, gives 1 for a base of 1 (or -1 and an infinite exponent).
        const exact = x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : Math.pow(x, y);
        const got = dg.pow(tensor([x]), tensor([y])).item();
        assert(ulps(got, exact) <= 1, `${x} ** ${y} is ${got}, expected ${exact}`);
      }
    }
  });
});

Deno.test("zeros keep their sign, saturation is exact and denormal numbers stay as they are", () => {
  scope(() => {
    const tiny = [1e-40, -1e-40, 2 ** -149, -(2 ** -149), 2 ** -126].map(Math.fround);
    for (const fn of [dg.tanh, dg.asin, dg.atan, dg.sinh, dg.asinh, dg.atanh, dg.expm1, dg.log1p, dg.sin, dg.tan]) {
      const zeros = fn(tensor([0, -0])).data();
      assert(Object.is(zeros[0], 0) && Object.is(zeros[1], -0), `${zeros}`);
      assertEquals(fn(tensor(tiny)).tolist(), tiny);
    }
    const y = tensor([9.02, 20, 88, 1e30, -9.02, -1e30]).tanh().tolist();
    assertEquals(y, [1, 1, 1, 1, -1, -1]);
    const x = tensor([0, 0.5, -2, 30, Infinity, NaN], { requiresGrad: true });
    x.tanh().sum().backward();
    const slopes = x.grad!.tolist() as number[];
    assertEquals([slopes[0], slopes[3], slopes[4], slopes[5]], [1, 0, 0, NaN]);
    for (const i of [1, 2]) assert(Math.abs(slopes[i] - (1 - Math.tanh([0, 0.5, -2][i]) ** 2)) < 1e-7, `${slopes[i]}`);
  });
});

/** `erfc` to 1e-15 relative: the series of `erf` up to 2, the continued fraction beyond. */
function erfcExact(x: number): number {
  if (x < 0) return 2 - erfcExact(-x);
  if (x < 2) {
    let sum = 0, term = x;
    for (let n = 0; n < 100; n++) {
      sum += term / (2 * n + 1);
      term *= -x * x / (n + 1);
    }
    return 1 - 2 / Math.sqrt(Math.PI) * sum;
  }
  let fraction = x;
  for (let k = 120; k > 0; k--) fraction = x + k / 2 / fraction;
  return Math.exp(-x * x) / fraction / Math.sqrt(Math.PI);
}

Deno.test("erfc() of float32 is within 5.5 ulp", () => {
  const [most, where] = worst(dg.erfc, erfcExact, spread(-30, 3.5, N));
  assert(most <= 5.5, `${most} ulp at ${where}`);
});

Deno.test("mish() of float32 and its derivative are within 4 ulp of their largest term", () => {
  scope(() => {
    const values = spread(-20, 6.3, N), x = tensor(values, { requiresGrad: true }), y = dg.nn.functional.mish(x);
    y.sum().backward();
    const got = y.data(), slopes = x.grad!.data();
    for (let i = 0; i < N; i++) {
      const v = values[i], t = Math.tanh(v > 40 ? v : Math.log1p(Math.exp(v))), right = v / (1 + Math.exp(-v)) * (1 - t * t);
      assert(ulps(Number(got[i]), v * t) <= 4, `mish(${v}) = ${got[i]}`);
      const off = Math.abs(Number(slopes[i]) - (t + right));
      assert(off <= 4 * 2 ** -23 * (t + Math.abs(right)) + 2 ** -148, `mish'(${v}) = ${slopes[i]}, not ${t + right}`);
    }
    assertEquals(dg.nn.functional.mish(tensor([0, -0, Infinity, NaN])).tolist(), [0, -0, Infinity, NaN]);
  });
});

Deno.test("elementary functions at the ends of their range", () => {
  scope(() => {
    const x = [0, -0, Infinity, -Infinity, NaN];
    const at = (fn: (x: Tensor) => Tensor) => fn(tensor(x)).tolist();
    assertEquals(at(dg.exp), [1, 1, Infinity, 0, NaN]);
    assertEquals(at(dg.exp2), [1, 1, Infinity, 0, NaN]);
    assertEquals(at(dg.expm1), [0, -0, Infinity, -1, NaN]);
    assertEquals(at(dg.log), [-Infinity, -Infinity, Infinity, NaN, NaN]);
    assertEquals(at(dg.log2), [-Infinity, -Infinity, Infinity, NaN, NaN]);
    assertEquals(at(dg.log10), [-Infinity, -Infinity, Infinity, NaN, NaN]);
    assertEquals(at(dg.log1p), [0, -0, Infinity, NaN, NaN]);
    assertEquals(at(dg.sin), [0, -0, NaN, NaN, NaN]);
    assertEquals(at(dg.cos), [1, 1, NaN, NaN, NaN]);
    assertEquals(at(dg.tanh), [0, -0, 1, -1, NaN]);
    assertEquals(at(dg.asin), [0, -0, NaN, NaN, NaN]);
    assertEquals(at(dg.acos), [Math.fround(Math.PI / 2), Math.fround(Math.PI / 2), NaN, NaN, NaN]);
    assertEquals(at(dg.atan), [0, -0, Math.fround(Math.PI / 2), -Math.fround(Math.PI / 2), NaN]);
    assertEquals(at(dg.sinh), [0, -0, Infinity, -Infinity, NaN]);
    assertEquals(at(dg.cosh), [1, 1, Infinity, Infinity, NaN]);
    assertEquals(at(dg.asinh), [0, -0, Infinity, -Infinity, NaN]);
    assertEquals(at(dg.acosh), [NaN, NaN, Infinity, NaN, NaN]);
    assertEquals(at(dg.atanh), [0, -0, NaN, NaN, NaN]);
    assertEquals(at(dg.erf), [0, -0, 1, -1, NaN]);
    assertEquals(at(dg.erfc), [1, 1, 0, 2, NaN]);
    assertEquals(at(dg.nn.functional.softplus), [Math.fround(Math.LN2), Math.fround(Math.LN2), Infinity, 0, NaN]);
    assertEquals(dg.asin(tensor([1, -1, 1.001])).tolist(), [Math.fround(Math.PI / 2), -Math.fround(Math.PI / 2), NaN]);
    assertEquals(dg.acos(tensor([1, -1, -1.001])).tolist(), [0, Math.fround(Math.PI), NaN]);
    assertEquals(dg.atanh(tensor([1, -1, 1.001])).tolist(), [Infinity, -Infinity, NaN]);
    assertEquals(dg.acosh(tensor([1, 0.999, -3])).tolist(), [0, NaN, NaN]);
    assertEquals(dg.sinh(tensor([89.5, -89.5])).tolist(), [Infinity, -Infinity]);
    assertEquals(dg.log1p(tensor([-1, -2])).tolist(), [-Infinity, NaN]);
    assertEquals(dg.exp(tensor([-103, 88.8])).tolist(), [Math.fround(1.401298464324817e-45), Infinity]);
    assertEquals(dg.log2(tensor([8, 1024, 0.125])).tolist(), [3, 10, -3]);
    assertEquals(dg.exp2(tensor([-149, 127, 128, 10])).tolist(), [2 ** -149, 2 ** 127, Infinity, 1024]);
  });
});
