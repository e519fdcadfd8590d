import { assert, assertEquals } from "@std/assert";
import {
  channelsLast,
  conv1d,
  conv2d,
  conv3d,
  type ConvOptions,
  convTranspose2d,
  getThreads,
  grad,
  scope,
  setThreads,
  type Tensor,
} from "../mod.ts";
import { textOf } from "../tensor/shape.ts";
import { numbers, relativeError } from "./convolution_data.ts";
import "./device.ts";

/** Input, kernel and settings of convolutions with one filter a channel. */
interface Depthwise {
  x: number[];
  kernel: number[];
  stride?: number[];
  padding?: number[];
  dilation?: number[];
}

const shapes: Depthwise[] = [
  { x: [2, 16, 9, 19], kernel: [3, 3], padding: [1, 1] }, // whole vectors, tiles of 8 and an overlapping one
  { x: [2, 17, 5, 8], kernel: [3, 3], padding: [1, 1] }, // vectors that overlap in all but one channel
  { x: [1, 58, 8, 8], kernel: [3, 3], padding: [1, 1], stride: [2, 2] }, // tiles of 4
  { x: [1, 31, 7, 15], kernel: [3, 3], padding: [1, 1], stride: [2, 2] }, // phases of different lengths
  { x: [3, 24, 3, 3], kernel: [3, 3], padding: [1, 1] }, // one result at a time
  { x: [2, 20, 6, 5], kernel: [3, 3], padding: [1, 1] },
  { x: [2, 20, 1, 1], kernel: [3, 3], padding: [1, 1], stride: [2, 2] },
  { x: [1, 18, 20, 23], kernel: [5, 5], padding: [2, 2] },
  { x: [1, 18, 17, 18], kernel: [5, 5], padding: [2, 2], stride: [2, 2] },
  { x: [1, 33, 16, 17], kernel: [7, 7], padding: [3, 3] },
  { x: [1, 19, 9, 22], kernel: [7, 7], padding: [3, 3], stride: [2, 3] },
  { x: [2, 21, 8, 9], kernel: [1, 1] },
  { x: [2, 21, 8, 9], kernel: [1, 1], stride: [2, 2] }, // phases that meet no tap
  { x: [1, 16, 6, 13], kernel: [2, 2], stride: [1, 1] },
  { x: [1, 16, 6, 13], kernel: [2, 4], padding: [1, 2], stride: [2, 2] },
  { x: [1, 22, 12, 19], kernel: [3, 3], padding: [2, 3], dilation: [2, 3] },
  { x: [1, 22, 12, 29], kernel: [3, 5], padding: [2, 4], stride: [2, 4], dilation: [2, 6] },
  { x: [2, 23, 4, 3], kernel: [3, 3], padding: [6, 5] }, // results that no tap reaches
  { x: [1, 16, 3, 2], kernel: [3, 3], padding: [1, 1], stride: [1, 5] }, // a stride beyond the picture
  { x: [1, 40, 47, 45], kernel: [3, 3], padding: [1, 1] }, // large enough to be fetched ahead
  { x: [2, 40, 47, 45], kernel: [3, 3], padding: [1, 1], stride: [2, 2] },
  { x: [2, 37, 40], kernel: [5], padding: [2], stride: [2] },
  { x: [1, 18, 4, 5, 11], kernel: [3, 2, 3], padding: [1, 0, 1], stride: [2, 1, 1] },
];

const settings = ({ x, stride, padding, dilation }: Depthwise) => {
  const all = (value: number): number[] => Array(x.length - 2).fill(value);
  return { stride: stride ?? all(1), padding: padding ?? all(0), dilation: dilation ?? all(1) };
};

/** y, dx and dw by their definitions, in float64. */
function definition(given: Depthwise, output: number[], x: Float64Array, w: Float64Array, dy: Float64Array): Float64Array[] {
  const axes = given.x.length - 2, { stride, padding, dilation } = settings(given);
  const input = given.x.slice(2), planes = given.x[0] * given.x[1], size = (s: number[]) => s.reduce((a, b) => a * b, 1);
  const place = (at: number, s: number[]): number[] => {
    const result = Array(axes);
    for (let i = axes - 1; i >= 0; i--) result[i] = at % s[i], at = Math.floor(at / s[i]);
    return result;
  };
  const [pixels, taps, positions] = [input, given.kernel, output].map(size);
  const y = new Float64Array(planes * positions), dx = new Float64Array(x.length), dw = new Float64Array(w.length);
  for (let p = 0; p < positions; p++) {
    for (let t = 0; t < taps; t++) {
      const k = place(t, given.kernel), from = place(p, output).map((v, i) => v * stride[i] - padding[i] + k[i] * dilation[i]);
      if (from.some((v, i) => v < 0 || v >= input[i])) continue;
      const pixel = from.reduce((at, v, i) => at * input[i] + v, 0);
      for (let plane = 0; plane < planes; plane++) {
        const result = plane * positions + p, source = plane * pixels + pixel, weight = plane % given.x[1] * taps + t;
        y[result] += x[source] * w[weight];
        dx[source] += dy[result] * w[weight];
        dw[weight] += dy[result] * x[source];
      }
    }
  }
  return [y, dx, dw];
}

/** y, dx, dw and db. */
function results(given: Depthwise, x: Tensor, w: Tensor, b: Tensor): Tensor[] {
  const run = [conv1d, conv2d, conv3d][given.x.length - 3] as (x: Tensor, w: Tensor, b: Tensor, o: ConvOptions) => Tensor;
  const y = run(x, w, b, { ...settings(given), groups: given.x[1] } as ConvOptions);
  return [y.detach(), ...grad([y], [x, w, b], { gradOutputs: [numbers(y.shape, 4).to(x.dtype)] })];
}

Deno.test("conv1d() conv2d() conv3d() of single channels agree with their definition in float64", () => {
  for (const given of shapes) {
    for (const dtype of ["float32", "float64", "bfloat16"] as const) {
      scope(() => {
        const C = given.x[1];
        const [x, w, b] = [given.x, [C, 1, ...given.kernel], [C]].map((shape, i) => numbers(shape, i + 1).to(dtype).requiresGrad_());
        const actual = results(given, x, w, b), dy = numbers(actual[0].shape, 4).to(dtype);
        const [xs, ws, bs, dys] = [x, w, b, dy].map((v) => v.detach().double().contiguous().data() as Float64Array);
        const [y, dx, dw] = definition(given, actual[0].shape.slice(2), xs, ws, dys), area = y.length / given.x[0] / C;
        const db = new Float64Array(C);
        dys.forEach((v, i) => db[Math.floor(i / area) % C] += v);
        const taps = ws.length / C, positions = area * given.x[0], terms = [taps, taps, positions, positions];
        [y.map((v, i) => v + bs[Math.floor(i / area) % C]), dx, dw, db].forEach((expected, i) => {
          // Rounding of sums is a random walk: with the root of their terms. bfloat16 rounds the result, which outweighs it.
          const limit = { float32: 2 ** -24 * (2 + Math.sqrt(terms[i])), float64: 1e-14, bfloat16: 4e-3 }[dtype];
          const error = relativeError(actual[i].double().contiguous(), expected);
          assert(
            error < limit,
            `${"y dx dw db".split(" ")[i]} of ${textOf(given.x)}, kernel ${textOf(given.kernel)} in ${dtype}: ${error}`,
          );
        });
      });
    }
  }
});

Deno.test("conv2d() of single channels gives the same bits for every number of threads, memory order and slice", () => {
  const threads = getThreads();
  try {
    for (const given of shapes) {
      if (given.x.length !== 4) continue;
      scope(() => {
        const C = given.x[1],
          wide = channelsLast(numbers([given.x[0], C + 9, ...given.x.slice(2)], 1, "float32")),
          slice = wide.narrow(1, 3, C);
        const [w, b] = [[C, 1, ...given.kernel], [C]].map((shape, i) => numbers(shape, i + 2, "float32").requiresGrad_());
        const x = channelsLast(slice.contiguous()).requiresGrad_(), data = (list: Tensor[]) => list.map((v) => v.contiguous().data());
        setThreads(1);
        const expected = data(results(given, x, w, b));
        setThreads(threads);
        assertEquals(data(results(given, x, w, b)), expected);
        assertEquals(data(results(given, slice.contiguous().requiresGrad_(), w, b)), expected);
        assertEquals(data(results(given, x, channelsLast(w.detach()).requiresGrad_(), b)), expected);
        assertEquals(data(results(given, slice.requiresGrad_(), w, b)), expected);
      });
    }
  } finally {
    setThreads(threads);
  }
});

Deno.test("convTranspose2d() of single channels is the gradient of conv2d(), with a bias", () => {
  for (const stride of [1, 2, 3]) {
    scope(() => {
      const x = numbers([2, 21, 6, 7], 1).requiresGrad_(), w = numbers([21, 1, 3, 3], 2), b = numbers([21], 3);
      const options = { stride, padding: 1, groups: 21 }, y = convTranspose2d(x.detach(), w, b, { ...options, outputPadding: stride - 1 });
      const source = numbers([2, 21, y.shape[2], y.shape[3]], 5).requiresGrad_();
      const [expected] = grad([conv2d(source, w, null, options)], [source], { gradOutputs: [x.detach()] });
      assert(relativeError(y.detach(), expected.add(b.reshape([1, 21, 1, 1])).contiguous().data() as Float64Array) < 1e-14);
    });
  }
});
