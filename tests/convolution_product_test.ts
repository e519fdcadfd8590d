/** Convolutions as matrix products: tails of vectors and panels, weights in both orders, the gradient of few channels; against their definition. */
import { assert, assertEquals } from "@std/assert";
import { conv2d, convTranspose2d, getThreads, grad, scope, setThreads, type Tensor } from "../mod.ts";
import { textOf } from "../tensor/shape.ts";
import { numbers, relativeError } from "./convolution_data.ts";
import "./device.ts";

interface Settings {
  stride: [number, number];
  padding: [number, number];
  dilation: [number, number];
}
type Shape = [N: number, C: number, O: number, H: number, W: number, kernel: [number, number]];

/** Output and the gradients of input and weight by their sums. */
function definition(
  [N, C, O, H, W, [R, S]]: Shape,
  { stride, padding, dilation }: Settings,
  x: Tensor,
  w: Tensor,
  g: Tensor,
): Float64Array[] {
  const [xs, ws, gs] = [x, w, g].map((it) => it.data() as Float64Array), [, , P, Q] = g.shape;
  const y = new Float64Array(gs.length), dx = new Float64Array(xs.length), dw = new Float64Array(ws.length);
  let at = 0;
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < O; o++) {
      for (let i = 0; i < P * Q; i++, at++) {
        for (let k = 0; k < R * S; k++) {
          const row = Math.floor(i / Q) * stride[0] - padding[0] + Math.floor(k / S) * dilation[0];
          const column = i % Q * stride[1] - padding[1] + k % S * dilation[1];
          if (row < 0 || row >= H || column < 0 || column >= W) continue;
          for (let c = 0; c < C; c++) {
            const a = ((n * C + c) * H + row) * W + column, b = (o * C + c) * R * S + k;
            y[at] += xs[a] * ws[b];
            dx[a] += gs[at] * ws[b];
            dw[b] += gs[at] * xs[a];
          }
        }
      }
    }
  }
  return [y, dx, dw];
}

const plain: Settings = { stride: [1, 1], padding: [0, 0], dilation: [1, 1] };
const list: [Shape, Partial<Settings>][] = [
  [[3, 58, 58, 5, 7, [1, 1]], {}],
  [[2, 300, 20, 5, 4, [1, 1]], {}], // more depth than a pass takes, and a part of a vector
  [[2, 20, 299, 5, 4, [1, 1]], {}],
  [[4, 21, 37, 20, 17, [1, 1]], {}], // several slices of positions
  [[1, 40, 3, 6, 5, [1, 1]], {}],
  [[1, 3, 40, 6, 5, [1, 1]], {}],
  [[2, 41, 23, 7, 6, [1, 1]], { stride: [2, 1] }],
  [[5, 20, 70, 31, 29, [1, 1]], { stride: [2, 2] }], // several slices of positions, every fourth pixel
  [[3, 41, 37, 15, 13, [1, 1]], { stride: [3, 4] }],
  [[1, 35, 18, 6, 7, [3, 2]], { padding: [1, 0], dilation: [1, 2] }],
  // few channels
  [[2, 3, 20, 19, 23, [7, 7]], { stride: [2, 2], padding: [3, 3] }],
  [[1, 3, 40, 41, 35, [2, 6]], {}], // two blocks of rows, two chunks of columns
  [[1, 4, 70, 7, 9, [3, 3]], { padding: [1, 1] }],
  [[2, 2, 16, 9, 11, [3, 4]], { stride: [5, 4], padding: [1, 2] }],
  [[1, 1, 17, 9, 12, [5, 5]], { padding: [7, 9], stride: [1, 3] }], // windows beside the picture
  [[2, 3, 18, 11, 8, [3, 3]], { dilation: [4, 1], padding: [2, 1] }],
  // taps read where they lie: many positions, rows of more than a tile
  [[3, 3, 64, 35, 35, [7, 7]], { stride: [2, 2], padding: [3, 3] }],
  [[2, 3, 32, 19, 30, [3, 3]], { padding: [1, 1] }],
  [[2, 3, 37, 19, 31, [3, 3]], { padding: [1, 1], dilation: [3, 1] }], // a part of a vector, four padded rows of which three are read
  [[3, 1, 18, 14, 50, [5, 3]], { stride: [1, 3], padding: [7, 4] }], // windows beside the picture
  [[2, 4, 65, 33, 16, [2, 8]], { stride: [2, 1], padding: [0, 6] }],
  [[3, 2, 8, 41, 75, [1, 4]], { stride: [3, 4] }], // pixels that no window reads
  [[6, 3, 33, 40, 20, [4, 3]], { stride: [13, 1], padding: [2, 1] }],
  [[5, 3, 33, 40, 60, [4, 3]], { stride: [23, 1], padding: [2, 1] }], // rows too far apart to be padded together
];

Deno.test("conv2d() as a product equals the sums of its definition, forward and both gradients", () => {
  for (const [shape, given] of list) {
    const [N, C, O, H, W, kernel] = shape, settings = { ...plain, ...given };
    scope(() => {
      const x = numbers([N, C, H, W], 1), w = numbers([O, C, ...kernel], 2), g = numbers(conv2d(x, w, null, settings).shape, 4);
      const expected = definition(shape, settings, x, w, g);
      for (const dtype of ["float32", "float64"] as const) {
        for (const last of [false, true]) {
          const a = x.to(dtype).channelsLast().requiresGrad_(),
            b = (last ? w.to(dtype).channelsLast() : w.to(dtype)).detach().requiresGrad_();
          const y = conv2d(a, b, null, settings), gradients = grad([y], [a, b], { gradOutputs: [g.to(dtype)] });
          [y, ...gradients].forEach((v, i) => {
            const error = relativeError(v, expected[i]);
            assert(
              error < (dtype === "float32" ? 5e-6 : 1e-13),
              `${"y dx dw".split(" ")[i]} of ${textOf(shape.flat())} in ${dtype}: ${error}`,
            );
          });
        }
      }
    });
  }
});

Deno.test("conv2d() as a product gives the same bits for every number of threads and memory order", () => {
  const threads = getThreads();
  try {
    for (const [[N, C, O, H, W, kernel], given] of list) {
      scope(() => {
        const settings = { ...plain, ...given }, x = numbers([N, C, H, W], 1, "float32"), w = numbers([O, C, ...kernel], 2, "float32");
        const run = (last: boolean) => {
          const [a, b] = [x, w].map((it) => (last ? it.channelsLast() : it).detach().requiresGrad_()), y = conv2d(a, b, null, settings);
          return [y, ...grad([y], [a, b], { gradOutputs: [numbers(y.shape, 4, "float32")] })].map((it) => it.contiguous().data());
        };
        setThreads(1);
        const expected = run(false);
        setThreads(threads);
        assertEquals(run(false), expected);
        assertEquals(run(true), expected);
      });
    }
  } finally {
    setThreads(threads);
  }
});

Deno.test("convTranspose2d() to few channels adds its bias once", () => {
  scope(() => {
    const x = numbers([2, 24, 6, 5], 1), w = numbers([24, 3, 4, 4], 2), b = numbers([3], 3);
    for (const settings of [{ stride: 2, padding: 1 }, { stride: 6, outputPadding: 3 }, { stride: 1 }]) {
      for (const dtype of ["float32", "float64"] as const) {
        const [narrow, bias] = [w, b].map((it) => it.to(dtype)), y = convTranspose2d(x.to(dtype), narrow, bias, settings);
        const without = convTranspose2d(x, w, null, settings), [, , H, W] = without.shape;
        const expected = (without.data() as Float64Array).map((v, i) => v + Number(b.data()[Math.floor(i / (H * W)) % 3]));
        assertEquals([...y.shape], [2, 3, H, W]);
        const error = relativeError(y, expected);
        assert(error < (dtype === "float32" ? 5e-6 : 1e-13), `${JSON.stringify(settings)} in ${dtype}: ${error}`);
      }
    }
  });
});
