/** What the tests of convolutions with the batch normalisation behind them share. */
import { assertEquals } from "@std/assert";
import { type DType, nn, noGrad, rand, randn, type Tensor } from "../mod.ts";
import { libraryOf } from "../ffi/library.ts";
import { device } from "./device.ts";

/** The elements in row-major order. */
export const numbers = (x: Tensor): number[] => Array.from(x.contiguous().data(), Number);

/** A convolution: input, filters and kernel, settings. */
export interface Case {
  name: string;
  x: number[];
  w: number[];
  stride?: number;
  padding?: number;
  groups?: number;
  dilation?: number;
}

/** Every algorithm; odd sizes have tails of vectors, panels and tiles. */
const all: Case[] = [
  { name: "Winograd by tiles", x: [2, 32, 18, 22], w: [40, 32, 3, 3], padding: 1 },
  { name: "Winograd by tiles, odd", x: [1, 35, 21, 19], w: [37, 35, 3, 3], padding: 2 },
  { name: "Winograd by filters", x: [1, 130, 15, 14], w: [133, 130, 3, 3], padding: 1 },
  { name: "Winograd of few tiles", x: [1, 130, 9, 7], w: [133, 130, 3, 3], padding: 1 },
  { name: "Winograd of few tiles, stride 2", x: [1, 64, 15, 14], w: [66, 64, 3, 3], padding: 1, stride: 2 },
  { name: "Winograd 4x4", x: [1, 40, 16, 17], w: [42, 40, 4, 4], padding: 1 },
  { name: "Winograd, stride 2", x: [1, 64, 26, 22], w: [66, 64, 3, 3], padding: 1, stride: 2 },
  { name: "Winograd 4x4, stride 2", x: [1, 64, 26, 22], w: [66, 64, 4, 4], padding: 1, stride: 2 },
  { name: "Winograd in groups", x: [1, 64, 20, 20], w: [70, 32, 3, 3], padding: 1, groups: 2 },
  { name: "few positions", x: [1, 65, 4, 4], w: [50, 65, 3, 3], padding: 1 },
  { name: "few positions, 1x1", x: [3, 67, 2, 2], w: [45, 67, 1, 1] },
  { name: "1x1", x: [2, 24, 19, 17], w: [70, 24, 1, 1] },
  { name: "1x1, stride 2", x: [2, 24, 19, 17], w: [33, 24, 1, 1], stride: 2 },
  { name: "1x1, long sums", x: [1, 600, 17, 18], w: [48, 600, 1, 1] },
  { name: "few filters", x: [2, 20, 9, 9], w: [3, 20, 3, 3], padding: 1 },
  { name: "stem", x: [2, 3, 41, 37], w: [70, 3, 7, 7], padding: 3, stride: 2 },
  { name: "gathered, dilated", x: [2, 10, 12, 13], w: [21, 10, 3, 3], padding: 2, dilation: 2 },
  { name: "depthwise", x: [2, 37, 11, 12], w: [37, 1, 3, 3], padding: 1, groups: 37 },
  { name: "grouped", x: [2, 24, 11, 12], w: [36, 4, 3, 3], padding: 1, stride: 2, groups: 6 },
  { name: "wide groups", x: [2, 40, 9, 8], w: [44, 20, 2, 2], groups: 2 },
  { name: "1-D", x: [3, 12, 40], w: [20, 12, 5], padding: 2 },
  { name: "3-D", x: [2, 6, 5, 6, 7], w: [18, 6, 3, 2, 3], padding: 1 },
  { name: "one value", x: [1, 1, 1, 1], w: [1, 1, 1, 1] },
];

/** Those that the device gets: the larger ones are for algorithms of the CPU, and the emulated GPU would take minutes. */
export const cases = all.filter(({ x, w, groups = 1 }) => {
  const products = x.concat(w).reduce((a, n) => a * n, 1) / w[1] / groups;
  return device.type === "cpu" || products < 1e6;
});

const classes = [nn.Conv1d, nn.Conv2d, nn.Conv3d], norms = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d];

/** Both layers in evaluation mode, with statistics and parameters that are not the first ones. */
export function layers(
  { x, w, stride = 1, padding = 0, groups = 1, dilation = 1 }: Case,
  dtype: DType,
  bias: boolean,
  options?: nn.NormOptions,
) {
  const wide = dtype === "float64" ? "float64" : "float32", axes = x.length - 2;
  const conv = new classes[axes - 1](x[1], w[0], w.slice(2), { stride, padding, groups, dilation, bias, dtype });
  const norm = new norms[axes - 1](w[0], { dtype: wide, eps: 1e-3, ...options });
  noGrad(() => {
    norm.runningMean?.copy_(randn([w[0]]).mul(0.5));
    norm.runningVar?.copy_(rand([w[0]]).add(0.3));
    norm.weight?.copy_(rand([w[0]]).sub(0.3));
    norm.bias?.copy_(randn([w[0]]));
  });
  return { conv: conv.eval(), norm: norm.eval() };
}

/** Largest difference over `scale`, the largest magnitude by default. */
export function gap(actual: Tensor, expected: number[], scale = expected.reduce((a, v) => Math.max(a, Math.abs(v)), 1e-30)): number {
  const values = numbers(actual);
  assertEquals(values.length, expected.length);
  return values.reduce((a, v, i) => Math.max(a, Math.abs(v - expected[i])), 0) / scale;
}

/** Native calls that `fn` makes, by name. */
export function calls(fn: () => void): Record<string, number> {
  // deno-lint-ignore no-explicit-any
  const library = libraryOf(device) as any, before = { ...library }, counts: Record<string, number> = {};
  for (const [name, call] of Object.entries<(...args: unknown[]) => unknown>(before)) {
    library[name] = (...args: unknown[]) => (counts[name] = (counts[name] ?? 0) + 1, call(...args));
  }
  try {
    fn();
  } finally {
    Object.assign(library, before);
  }
  return counts;
}
