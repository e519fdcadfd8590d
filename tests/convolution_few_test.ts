import { assert, assertEquals } from "@std/assert";
import {
  channelsLast,
  conv1d,
  conv2d,
  conv3d,
  type ConvOptions,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  type ConvTransposeOptions,
  getThreads,
  grad,
  scope,
  setThreads,
  type Tensor,
} from "../mod.ts";
import { textOf } from "../tensor/shape.ts";
import { numbers, relativeError } from "./convolution_data.ts";
import "./device.ts";

/** Input, weight and settings of convolutions whose positions are few beside the weight: they read it where it lies. */
interface Few {
  x: number[];
  w: number[];
  stride?: number;
  padding?: number;
  dilation?: number;
}

const shapes: Few[] = [
  { x: [1, 40, 1, 1], w: [33, 40, 1, 1] }, // one position
  { x: [3, 67, 2, 2], w: [45, 67, 1, 1] }, // each position its own pixel, odd sizes
  { x: [2, 150, 5, 5], w: [35, 150, 1, 1], stride: 2 },
  { x: [1, 1100, 2, 3], w: [37, 1100, 1, 1] }, // sums in several pieces
  { x: [1, 32, 3, 4], w: [32, 32, 3, 3], padding: 1 }, // 12 positions, which do not fill a tile of Winograd's
  { x: [1, 65, 5, 5], w: [50, 65, 3, 3], padding: 1 }, // 25 positions in four tiles
  { x: [5, 33, 3, 3], w: [38, 33, 3, 3], padding: 1, stride: 2 },
  { x: [2, 36, 9, 7], w: [41, 36, 3, 3], padding: 2, stride: 3 },
  { x: [1, 48, 7, 6], w: [39, 48, 3, 3], padding: 1, stride: 2 }, // 12 positions, which do not fill a tile of Winograd's
  { x: [1, 35, 9, 8], w: [34, 35, 3, 3], padding: 2, dilation: 2 }, // 72 positions
  { x: [1, 40, 2, 2], w: [36, 40, 4, 4], padding: 1, stride: 2 }, // one position, a quarter of the taps
  { x: [2, 40, 1, 3], w: [36, 40, 3, 3], padding: 1 }, // middle rows of the kernel alone
  { x: [1, 70, 4, 4], w: [64, 70, 4, 4], padding: 1, stride: 2 },
  { x: [1, 33, 12, 14], w: [32, 33, 4, 4], padding: 1, stride: 2 }, // 42 positions
  { x: [2, 33, 3, 2], w: [32, 33, 2, 2], padding: 4, dilation: 3 }, // every tap is outside at some positions
  { x: [2, 32, 1, 1], w: [32, 32, 1, 1], padding: 1, stride: 3 }, // no tap meets the picture
  { x: [2, 33, 11], w: [35, 33, 5], padding: 2, stride: 2 },
  { x: [1, 34, 2, 3, 4], w: [33, 34, 2, 3, 2], padding: 1, stride: 2 },
];

const settings = ({ stride = 1, padding = 0, dilation = 1 }: Few): ConvOptions => ({ stride, padding, dilation });

/** Output positions of an axis, and what the stride leaves over. */
function positionsOf(size: number, kernel: number, { stride = 1, padding = 0, dilation = 1 }: Few): [number, number] {
  const reach = size + 2 * padding - dilation * (kernel - 1) - 1;
  return [Math.floor(reach / stride) + 1, reach % stride];
}

/** y (without bias), dx and dw by their definitions, in float64. */
function definition(few: Few, x: Float64Array, w: Float64Array, dy: Float64Array): Float64Array[] {
  const { stride = 1, padding = 0, dilation = 1 } = few, axes = few.x.length - 2;
  const three = (list: number[]) => [...new Array(3 - axes).fill(1), ...list], pad = three(new Array(axes).fill(padding));
  for (let i = 0; i < 3 - axes; i++) pad[i] = 0;
  const input = three(few.x.slice(2)), kernel = three(few.w.slice(2));
  const output = input.map((size, i) => i < 3 - axes ? 1 : positionsOf(size, kernel[i], few)[0]);
  const [N, C] = few.x, O = few.w[0], area = (s: number[]) => s[0] * s[1] * s[2];
  const [pixels, taps, positions] = [input, kernel, output].map(area);
  const y = new Float64Array(N * O * positions), dx = new Float64Array(x.length), dw = new Float64Array(w.length);
  for (let n = 0; n < N; n++) {
    for (let p = 0; p < positions; p++) {
      for (let t = 0; t < taps; t++) {
        const place = (at: number, s: number[]) => [Math.floor(at / s[2] / s[1]), Math.floor(at / s[2]) % s[1], at % s[2]];
        const k = place(t, kernel), from = place(p, output).map((v, i) => v * stride - pad[i] + k[i] * dilation);
        if (from.some((v, i) => v < 0 || v >= input[i])) continue;
        const pixel = (from[0] * input[1] + from[1]) * input[2] + from[2];
        for (let o = 0; o < O; o++) {
          const at = (n * O + o) * positions + p;
          for (let c = 0; c < C; c++) {
            const source = (n * C + c) * pixels + pixel, weight = (o * C + c) * taps + t;
            y[at] += x[source] * w[weight];
            dx[source] += dy[at] * w[weight];
            dw[weight] += dy[at] * x[source];
          }
        }
      }
    }
  }
  return [y, dx, dw];
}

const forward = (axes: number) => [conv1d, conv2d, conv3d][axes - 1] as (x: Tensor, w: Tensor, b: Tensor, o: ConvOptions) => Tensor;
const transposed = (axes: number) =>
  [convTranspose1d, convTranspose2d, convTranspose3d][axes - 1] as (x: Tensor, w: Tensor, b: Tensor, o: ConvTransposeOptions) => Tensor;

/** y, dx, dw, db and the transposed convolution of dy with a bias. */
function results(few: Few, x: Tensor, w: Tensor, b: Tensor, bias: Tensor): Tensor[] {
  const axes = few.x.length - 2, y = forward(axes)(x, w, b, settings(few)), dy = numbers(y.shape, 4).to(x.dtype);
  const outputPadding = few.x.slice(2).map((size, i) => positionsOf(size, few.w[2 + i], few)[1]);
  const t = transposed(axes)(dy, w, bias, { ...settings(few), outputPadding } as ConvTransposeOptions);
  return [y.detach(), ...grad([y], [x, w, b], { gradOutputs: [dy] }), t.detach()];
}

Deno.test("conv1d() conv2d() conv3d() of few positions agree with their definition in float64", () => {
  for (const few of shapes) {
    for (const dtype of ["float32", "float64", "bfloat16", "float16"] as const) {
      scope(() => {
        const C = few.x[1], O = few.w[0];
        const [x, w, b, bias] = [few.x, few.w, [O], [C]].map((shape, i) => numbers(shape, i + 1).to(dtype).requiresGrad_());
        const actual = results(few, x, w, b, bias), dy = numbers(actual[0].shape, 4).to(dtype);
        const [xs, ws, bs, biases, dys] = [x, w, b, bias, dy].map((v) => v.detach().double().contiguous().data() as Float64Array);
        const [y, dx, dw] = definition(few, xs, ws, dys), area = y.length / few.x[0] / O, pixels = xs.length / few.x[0] / C;
        const db = new Float64Array(O);
        dys.forEach((v, i) => db[Math.floor(i / area) % O] += v);
        const expected = [
          y.map((v, i) => v + bs[Math.floor(i / area) % O]),
          dx,
          dw,
          db,
          dx.map((v, i) => v + biases[Math.floor(i / pixels) % C]),
        ];
        // Rounding of sums in float32 is a random walk: with the root of their terms. The half types round the result, which outweighs it.
        const taps = few.w.slice(2).reduce((a, b) => a * b, 1), positions = area * few.x[0];
        const terms = [C * taps, O * taps, positions, positions, O * taps];
        actual.forEach((v, i) => {
          const limit = { float32: 2 ** -24 * (2 + Math.sqrt(terms[i])), float64: 1e-14, bfloat16: 4e-3, float16: 5e-4 }[dtype];
          const error = relativeError(v.double().contiguous(), expected[i]);
          assert(
            error < limit,
            `${["y", "dx", "dw", "db", "transposed"][i]} of ${textOf(few.x)} and ${textOf(few.w)} in ${dtype}: ${error}`,
          );
        });
      });
    }
  }
});

Deno.test("conv2d() of few positions gives the same bits for every number of threads, memory order and slice", () => {
  const threads = getThreads();
  try {
    for (const few of shapes) {
      if (few.x.length !== 4) continue;
      scope(() => {
        const [w, b, bias] = [few.w, [few.w[0]], [few.x[1]]].map((shape, i) => numbers(shape, i + 2, "float32").requiresGrad_());
        const wide = channelsLast(numbers([few.x[0], few.x[1] + 9, ...few.x.slice(2)], 1, "float32"));
        const slice = wide.slice(1, 3, 3 + few.x[1]), x = channelsLast(slice.contiguous()).requiresGrad_();
        const data = (list: Tensor[]) => list.map((v) => v.contiguous().data());
        setThreads(1);
        const expected = data(results(few, x, w, b, bias));
        setThreads(threads);
        assertEquals(data(results(few, x, w, b, bias)), expected);
        assertEquals(data(results(few, x, channelsLast(w.detach()).requiresGrad_(), b, bias)), expected);
        assertEquals(data(results(few, slice.requiresGrad_(), w, b, bias)), expected);
      });
    }
  } finally {
    setThreads(threads);
  }
});
